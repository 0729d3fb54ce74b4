"""The contract of Runtime, over worker processes, handlers in this process and the scripted fake."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.core.function import FunctionVersion, function_arn
from bridge.core.invocation import Invocation, ResultKind
from bridge.core.ports import Runtime
from bridge.runtime.in_process import InProcessRuntime
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.testing.runtime import ScriptedRuntime
from bridge.util.clocks import SystemClock

CODE = """
import time

def echo(event, context):
    return event

def fail(event, context):
    raise ValueError("no")

def slow(event, context):
    time.sleep(0.1)

def stuck(event, context):
    time.sleep(100)
"""
VERSION = FunctionVersion(
    name="echo", arn=function_arn("echo"), code="", revision="1", handler="contract_app.echo", timeout_s=10
)


def version(name: str, code: Path) -> FunctionVersion:
    return replace(VERSION, name=name, arn=function_arn(name), handler=f"contract_app.{name}", code=str(code))


def invocation(payload: bytes = b"{}") -> Invocation:
    return Invocation(request_id=str(uuid.uuid4()), payload=payload, invoked_arn=VERSION.arn)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "contract_app.py").write_text(CODE)
    folder.chmod(0o755)
    return folder


@pytest_asyncio.fixture(params=["processes", "in process", "scripted"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime]:
    clock = SystemClock()
    if request.param == "scripted":
        scripted = ScriptedRuntime(clock, slots=4)

        def fail(_: Invocation) -> object:
            raise ValueError("no")

        def echo(asked: Invocation) -> object:
            return {"a": 1} if asked.payload == b'{"a": 1}' else None

        scripted.handlers = {"echo": echo, "fail": fail}
        scripted.duration_s = {"slow": 0.1, "stuck": 100.0}
        yield scripted
        return
    if request.param == "in process":
        here = InProcessRuntime(lambda *_: None, region="us-east-1")
        turns = asyncio.create_task(take_turns(here))
        yield here
        turns.cancel()
        here.close()
        return
    logs = FunctionLogs(tmp_path / "logs")
    pool = WorkerPool(run_folder=tmp_path / "run", logs=logs, clock=clock, workers_max=4)
    await pool.open()
    yield pool
    await pool.close()
    logs.close()


async def take_turns(runtime: InProcessRuntime) -> None:
    while True:
        await asyncio.sleep(0.08)
        while runtime._calls and runtime._calls[0].version.name != "stuck":
            runtime.run_next()


async def test_a_handlers_answer_is_the_payload(runtime: Runtime, code: Path) -> None:
    result = await runtime.invoke(version("echo", code), invocation(b'{"a": 1}'))

    assert result.kind is ResultKind.OK
    assert result.payload.replace(b" ", b"") == b'{"a":1}'
    assert result.version == "$LATEST"


async def test_a_raise_is_a_function_error_not_an_exception(runtime: Runtime, code: Path) -> None:
    result = await runtime.invoke(version("fail", code), invocation())

    assert result.kind is ResultKind.FUNCTION_ERROR
    assert (result.error_type, result.error_message) == ("ValueError", "no")
    assert b'"errorMessage"' in result.payload


async def test_running_invocations_take_slots_and_give_them_back(runtime: Runtime, code: Path) -> None:
    slow = version("slow", code)
    free = runtime.free_slots(slow)
    freed: list[int] = []
    runtime.on_free(lambda: freed.append(runtime.free_slots(slow)))

    running = [asyncio.ensure_future(runtime.invoke(slow, invocation())) for _ in range(2)]
    await asyncio.sleep(0)  # both have begun: in what order timers that are due come, is the loop's affair
    assert runtime.free_slots(slow) < free
    await asyncio.gather(*running)

    assert freed
    assert runtime.free_slots(slow) == free


async def test_as_many_free_slots_as_are_enough_are_told(runtime: Runtime, code: Path) -> None:
    slow = version("slow", code)

    def tells_the_same() -> bool:
        free = runtime.free_slots(slow)
        return all((runtime.free_slots(slow, enough=n) >= n) is (free >= n) for n in (1, 2, free, free + 1) if n > 0)

    assert tells_the_same()
    running = [asyncio.ensure_future(runtime.invoke(slow, invocation())) for _ in range(2)]
    await asyncio.sleep(0)
    assert tells_the_same()
    await asyncio.gather(*running)
    assert tells_the_same()


async def test_a_cancel_gives_the_slot_back(runtime: Runtime, code: Path) -> None:
    stuck = replace(version("stuck", code), timeout_s=200)
    free = runtime.free_slots(stuck)
    running = asyncio.ensure_future(runtime.invoke(stuck, invocation()))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(60):
        while runtime.free_slots(stuck) < free:
            await asyncio.sleep(0.01)


async def test_retire_is_fine_at_any_time(runtime: Runtime, code: Path) -> None:
    runtime.retire("nobody", keep_revision=None)
    await runtime.invoke(version("echo", code), invocation())
    runtime.retire("echo", keep_revision="2")
    runtime.retire("echo", keep_revision="2")

    assert (await runtime.invoke(replace(version("echo", code), revision="2"), invocation())).is_ok
