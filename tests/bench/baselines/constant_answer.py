"""Baseline: our own server, on a listener as the daemon's, answering every request with the same 200.

Prints {"port"} when it listens, then serves until it is killed: constant_answer.py FILE, whose bytes it answers.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path

import structlog
import uvloop

from bridge.util.asgi import Receive, Scope, Send, read_body, respond
from bridge.util.listener import Listener

BODY_MAX_BYTES = 2**20


async def serve(answer: bytes) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive, limit=BODY_MAX_BYTES)
        await respond(send, 200, answer)

    listener = Listener(app, name="constant", host="127.0.0.1", port=0)
    await listener.open()
    print(json.dumps({"port": listener.port}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]).read_bytes()))
