"""Ours: the worker pool under callers, one worker; or with --starts N from the request to the first answer.

Prints {"per_s", "p50_us", "p99_us"} or {"start_ms"}: fork, import of the handler and one invocation, median.
With --sandbox basic nothing but limits confines the worker whose start is timed.
With --runtime-api the handler is run by awslambdaric behind our Runtime API in place of our own bootstrap.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import uvloop

from bridge.core.function import FunctionVersion, Interpreter, function_arn
from bridge.core.invocation import Invocation
from bridge.runtime import environment
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.util.clocks import SystemClock
from tests.bench.baselines.runtime_api import HANDLERS
from tests.bench.callers import drive
from tests.bench.measure import scratch

VERSION = FunctionVersion(
    name="bench", arn=function_arn("bench"), code=str(HANDLERS), revision="0", handler="app.handler", timeout_s=30
)


def invocation(payload: bytes) -> Invocation:
    return Invocation(request_id=str(uuid.uuid4()), payload=payload, invoked_arn=VERSION.arn)


def behind_the_runtime_api() -> FunctionVersion:
    program = environment.interpreter()
    start = (
        f"import sys; sys.path.extend({sys.path!r}); from awslambdaric.__main__ import main; main(['', sys.argv[1]])"
    )
    command = (program, "-c", start, "{handler}")
    client = Interpreter(program=program, version="", prefix=sys.base_prefix, language="command", command=command)
    return replace(VERSION, interpreter=client, runtime="python3.12", memory_mb=256)


async def opened(folder: Path, *, sandbox: str = "auto") -> WorkerPool:
    for name in ("run", "logs"):
        (folder / name).mkdir()
    logs = FunctionLogs(folder / "logs")
    pool = WorkerPool(run_folder=folder / "run", logs=logs, clock=SystemClock(), workers_max=1, sandbox=sandbox)
    await pool.open()
    return pool


async def warm(
    folder: Path, version: FunctionVersion, *, callers: int, seconds: float, payload: bytes
) -> dict[str, float]:
    pool = await opened(folder)
    try:
        first = await pool.invoke(version, invocation(payload))
        assert first.is_ok, first
        return await drive(lambda _: pool.invoke(version, invocation(payload)), callers=callers, seconds=seconds)
    finally:
        await pool.close()


async def starts(folder: Path, *, count: int, payload: bytes, sandbox: str) -> dict[str, float]:
    pool = await opened(folder, sandbox=sandbox)
    took = []
    try:
        for number in range(count + 1):
            version = replace(VERSION, revision=str(number))
            began = time.perf_counter()
            result = await pool.invoke(version, invocation(payload))
            assert result.is_ok, result
            if number:  # the first one also waits for the zygote
                took.append(time.perf_counter() - began)
            pool.retire(VERSION.name, keep_revision=None)
            await asyncio.sleep(0.1)
    finally:
        await pool.close()
    return {"start_ms": statistics.median(took) * 1000}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--starts", type=int, default=0)
    parser.add_argument("--runtime-api", action="store_true")
    parser.add_argument("--sandbox", default="auto")
    options = parser.parse_args()
    version = behind_the_runtime_api() if options.runtime_api else VERSION
    payload = json.dumps({"data": "x" * (options.bytes - 12)}).encode()
    with scratch() as folder:
        work = (
            starts(folder, count=options.starts, payload=payload, sandbox=options.sandbox)
            if options.starts
            else warm(folder, version, callers=options.callers, seconds=options.seconds, payload=payload)
        )
        print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()
