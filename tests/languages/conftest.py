"""One pool for the functions of a language, its workers ended after each test."""

import json
import shutil
from collections.abc import AsyncIterator

import pytest_asyncio

from bridge.core.invocation import ResultKind
from bridge.registry.interpreters import named
from tests.languages.built import built
from tests.tools import needed
from tests.unit.runtime.conftest import Runner, own_pool

CLIENT = "com.amazonaws.services.lambda.runtime.api.client.AWSLambda"


class Compiled:
    """Invokes the handlers of one language."""

    def __init__(self, runner: Runner, fields: dict) -> None:
        self.runner = runner
        self.fields = fields

    async def run(self, event=None, handler="Handlers::handle", **fields):
        values = {**self.fields, **fields}
        return await self.runner.run(handler, event, **values)

    async def value(self, *args, **fields):
        result = await self.run(*args, **fields)
        assert result.is_ok, result
        return json.loads(result.payload)

    async def error(self, *args, **fields):
        result = await self.run(*args, **fields)
        assert result.kind is ResultKind.FUNCTION_ERROR, result
        return json.loads(result.payload)


def go():
    """Return what the fields of a Go function are."""
    return {"code": str(built("go")), "runtime": "provided.al2023", "name": "go-function", "memory_mb": 256}


def java():
    """Return what the fields of a Java function are; the command is that of docs/languages.md."""
    command = [
        needed("java", package="openjdk-17-jre-headless"), "-XX:TieredStopAtLevel=1", "-cp",
        "{task_root}:{task_root}/lib/*", CLIENT, "{handler}",
    ]  # fmt: skip
    return {
        "code": str(built("java")), "runtime": "java17", "name": "java-function", "memory_mb": 512,
        "interpreter": named("java17", command),
    }  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[go, java], ids=["go", "java"])
async def shared_compiled(request, tmp_path_factory) -> AsyncIterator[Compiled]:
    fields = request.param()
    code = tmp_path_factory.mktemp("code")  # out of a folder that only its owner may enter
    shutil.copytree(fields["code"], code, dirs_exist_ok=True)
    interpreters = [fields["interpreter"]] if "interpreter" in fields else []
    async with own_pool(tmp_path_factory.mktemp("pool"), workers_max=4, interpreters=interpreters) as runner:
        yield Compiled(runner, {**fields, "code": str(code)})


@pytest_asyncio.fixture(loop_scope="module")
async def compiled(shared_compiled) -> AsyncIterator[Compiled]:
    yield shared_compiled
    await shared_compiled.runner.clear()
