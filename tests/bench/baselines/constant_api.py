"""Baseline: a Runtime API of httptools and nothing else, the same event for ever, the handler run by awslambdaric.

Prints {"per_s"}: answers a second of one client, the first ones not counted.
"""

import argparse
import asyncio
import json
import time
import uuid

import httptools
import uvloop

from tests.bench.baselines.runtime_api import RuntimeApi

ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"status":"OK"}\n'


class Constant(asyncio.Protocol):
    """One connection."""

    def __init__(self, answer: bytes, counted: list[int]) -> None:
        self._answer = answer
        self._counted = counted
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            self._transport.write(self._answer)
        else:
            self._counted[0] += 1
            self._transport.write(ACCEPTED)


async def run(seconds: float, payload: bytes) -> dict[str, float]:
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Lambda-Runtime-Aws-Request-Id: {uuid.uuid4()}\r\nLambda-Runtime-Deadline-Ms: {int(time.time() + 3600) * 1000}\r\n"
        "Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:000000000000:function:bench\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    counted = [0]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Constant(head.encode() + payload, counted), "127.0.0.1", 0)
    api = RuntimeApi()
    api.port = server.sockets[0].getsockname()[1]
    worker = api.worker()
    try:
        while counted[0] < 200:
            await asyncio.sleep(0.01)
        before, began = counted[0], time.perf_counter()
        await asyncio.sleep(seconds)
        return {"per_s": (counted[0] - before) / (time.perf_counter() - began)}
    finally:
        worker.kill()
        worker.wait()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--bytes", type=int, default=200)
    options = parser.parse_args()
    payload = json.dumps({"data": "x" * (options.bytes - 12)}).encode()
    print(json.dumps(uvloop.run(run(options.seconds, payload))))


if __name__ == "__main__":
    main()
