"""Baseline: Lambda's Runtime API served by aiohttp, the handler run by AWS's own client awslambdaric.

Prints {"per_s", "p50_us", "p99_us"} of closed-loop callers, or with --starts N {"start_ms"}: from exec to the
first request for work, median.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

import uvloop
from aiohttp import web

from tests.bench.callers import drive

HANDLERS = Path(__file__).parent / "handlers"


class RuntimeApi:
    """One worker asks, many callers wait."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self.asked = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def open(self) -> None:
        app = web.Application()
        app.router.add_get("/2018-06-01/runtime/invocation/next", self._next)
        app.router.add_post("/2018-06-01/runtime/invocation/{id}/response", self._response)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def invoke(self, payload: bytes) -> bytes:
        request_id = str(uuid.uuid4())
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((request_id, payload))
        return await answer

    async def _next(self, _: web.Request) -> web.Response:
        self.asked.set()
        request_id, payload = await self._waiting.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 3000),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:bench",
            "Content-Type": "application/json",
        }
        return web.Response(body=payload, headers=headers)

    async def _response(self, request: web.Request) -> web.Response:
        self._answers.pop(request.match_info["id"]).set_result(await request.read())
        return web.Response(status=202)

    def worker(self) -> "subprocess.Popen[bytes]":
        environment = os.environ | {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.port}",
            "LAMBDA_TASK_ROOT": str(HANDLERS),
            "AWS_LAMBDA_FUNCTION_NAME": "bench",
            "PYTHONPATH": str(HANDLERS),
        }
        return subprocess.Popen([sys.executable, "-m", "awslambdaric", "app.handler"], env=environment, cwd=HANDLERS)


async def warm(*, callers: int, seconds: float, payload: bytes) -> dict[str, float]:
    api = RuntimeApi()
    await api.open()
    worker = api.worker()
    try:
        await api.invoke(payload)
        return await drive(lambda _: api.invoke(payload), callers=callers, seconds=seconds)
    finally:
        worker.kill()
        worker.wait()
        await api.close()


async def starts(count: int) -> dict[str, float]:
    took = []
    for _ in range(count):
        api = RuntimeApi()
        await api.open()
        began = time.perf_counter()
        worker = api.worker()
        await api.asked.wait()
        took.append(time.perf_counter() - began)
        worker.kill()
        worker.wait()
        await api.close()
    return {"start_ms": statistics.median(took) * 1000}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--starts", type=int, default=0)
    options = parser.parse_args()
    payload = json.dumps({"data": "x" * (options.bytes - 12)}).encode()
    work = (
        starts(options.starts)
        if options.starts
        else warm(callers=options.callers, seconds=options.seconds, payload=payload)
    )
    print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()
