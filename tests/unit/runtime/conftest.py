"""A pool a module, its workers ended after each test: a zygote takes longer to start than most tests to run."""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from bridge.core.function import FunctionVersion, function_arn
from bridge.core.invocation import Invocation, InvocationResult
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.util.clocks import SystemClock
from tests.harness import wait_until

FUNCTIONS = Path(__file__).parent / "functions"

SPARE = 2
"""A keeper and a worker-to-be that the zygote has forked in advance."""
LONG_S = 60
"""Timeout of what is to succeed, however slow the machine."""


class Runner:
    """Invokes the sample functions on a pool."""

    def __init__(self, pool: WorkerPool, logs: FunctionLogs) -> None:
        self.pool = pool
        self.logs = logs

    def version(self, handler: str, **fields: Any) -> FunctionVersion:
        name = fields.pop("name", "sample")
        values = {
            "code": str(FUNCTIONS), "revision": f"{handler} {sorted(fields.items())}", "timeout_s": LONG_S, **fields,
        }  # fmt: skip
        return FunctionVersion(name=name, arn=function_arn(name), handler=handler, **values)

    def invocation(self, event: Any = None, **fields: Any) -> Invocation:
        values = {"request_id": str(uuid.uuid4()), "invoked_arn": function_arn("sample"), **fields}
        return Invocation(payload=json.dumps(event).encode(), **values)

    async def run(self, handler: str, event: Any = None, *, invocation: Any = None, **fields: Any) -> InvocationResult:
        return await self.pool.invoke(self.version(handler, **fields), invocation or self.invocation(event))

    async def value(self, handler: str, event: Any = None, **fields: Any) -> Any:
        result = await self.run(handler, event, **fields)
        assert result.is_ok, result
        return json.loads(result.payload)

    async def code(self, code: str, **fields: Any) -> Any:
        """Run `code` in the handler and return what it left in `answer`."""
        return await self.value("app.run", {"code": code}, **fields)

    async def clear(self) -> None:
        """End all workers, wait until every process and descriptor of theirs has gone."""
        for name in {fleet.version.name for fleet in self.pool._fleets.values()}:
            self.pool.retire(name, keep_revision=None)
        await wait_until(lambda: not self.pool._workers and not self.pool._count, description="workers have ended")
        self.logs.close()
        await wait_until(lambda: len(self.processes()) <= SPARE, description="no process survives a test")

    def processes(self) -> list[psutil.Process]:
        """Return the processes below the zygote."""
        return psutil.Process(self.pool._starter._zygote.pid).children(recursive=True)


@contextlib.asynccontextmanager
async def own_pool(folder: Path, *, clock: SystemClock | None = None, **options: Any) -> AsyncIterator[Runner]:
    """Open a pool that no other test has, with its files in `folder`; close it in the end."""
    logs = FunctionLogs(folder / "logs")
    pool = WorkerPool(run_folder=folder / "run", logs=logs, clock=clock or SystemClock(), **options)
    await pool.open()
    try:
        yield Runner(pool, logs)
    finally:
        await pool.close()
        logs.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def module_loop() -> None:
    """Have the module's loop stand before the first test, which is not the one that leaves it open."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    folder = tmp_path_factory.mktemp("runtime")
    state = folder / "state"
    state.mkdir(mode=0o700)
    (state / "secret").write_text("the state")
    (folder / "packages").mkdir()
    (folder / "packages" / "packaged.py").write_text("VALUE = 1\n")
    async with own_pool(state, workers_max=8, packages=folder / "packages", deny_paths=[state]) as runner:
        yield runner


@pytest_asyncio.fixture(loop_scope="module")
async def runner(shared: Runner) -> AsyncIterator[Runner]:
    yield shared
    await shared.clear()
