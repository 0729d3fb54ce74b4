"""Workers get what is given of their role, beyond what the function sets; renewed, they begin nothing more."""

import asyncio
import json

import pytest
import pytest_asyncio

from bridge.core.errors import RuntimeUnavailable
from tests.harness import wait_until
from tests.unit.runtime.conftest import own_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROLE = "arn:aws:iam::000000000000:role/worker"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(tmp_path_factory):
    async with own_pool(tmp_path_factory.mktemp("credentials"), workers_max=4) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def runner(pool):
    pool.asked = []

    async def source(version):
        pool.asked.append(version.name)
        return {"AWS_ACCESS_KEY_ID": f"KEY{len(pool.asked)}", "AWS_SESSION_TOKEN": "t"}

    pool.pool.credentials.source = source
    yield pool
    await pool.clear()


async def environment(runner, **more):
    return (await runner.value("app.who", **more))["environment"]


async def test_a_worker_has_the_credentials_of_its_role(runner):
    found = await environment(runner, role=ROLE, environment={"AWS_SESSION_TOKEN": "the function's own"})

    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SESSION_TOKEN"]) == ("KEY1", "t")


async def test_one_without_a_role_has_none_and_nobody_is_asked(runner):
    assert "AWS_ACCESS_KEY_ID" not in await environment(runner)
    assert runner.asked == []


async def test_renewed_workers_are_replaced_and_what_runs_ends(runner):
    version = runner.version("app.run", role=ROLE)
    code = "import time, os\ntime.sleep(event.get('s', 0))\nanswer = os.environ['AWS_ACCESS_KEY_ID']"

    async def key(**event):
        return json.loads((await runner.pool.invoke(version, runner.invocation({"code": code, **event}))).payload)

    assert await key() == "KEY1"
    running = asyncio.ensure_future(key(s=1))
    await asyncio.sleep(0)  # it is sent to the idle worker in its first step
    assert any(worker.jobs for worker in runner.pool._workers.values())
    runner.pool.credentials.renew(version.name)

    assert await running == "KEY1"
    assert await key() == "KEY2"


async def test_without_credentials_no_worker_starts(runner):
    async def refuse(version):
        raise RuntimeUnavailable("the role cannot be assumed")

    runner.pool.credentials.source = refuse

    with pytest.raises(RuntimeUnavailable, match="cannot be assumed"):
        await runner.run("app.who", role=ROLE)
    await wait_until(lambda: not runner.pool._count, description="its place is free")
