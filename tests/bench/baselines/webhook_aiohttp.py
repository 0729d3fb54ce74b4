"""Baseline: the usual webhook receiver: aiohttp.web, HMAC check, json, de-duplication and SQLite FULL, then 202.

Prints {"port"} when it listens, then serves until it is killed: webhook_aiohttp.py FOLDER SECRET
"""

import asyncio
import hmac
import json
import sys
import time
import uuid
from pathlib import Path

import uvloop
from aiohttp import web

from tests.bench.baselines.sqlite_log import SqliteLog


async def serve(folder: Path, secret: bytes) -> None:
    log = SqliteLog(folder / "events.db")

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        expected = "sha256=" + hmac.new(secret, body, "sha256").hexdigest()
        if not hmac.compare_digest(expected, request.headers.get("X-Hub-Signature-256", "")):
            return web.json_response({"message": "signature does not match"}, status=401)
        try:
            json.loads(body)
        except ValueError:
            return web.json_response({"message": "not JSON"}, status=400)
        request_id = str(uuid.uuid4())
        event = json.dumps({
            "version": "2.0", "routeKey": "$default", "rawPath": request.path, "rawQueryString": request.query_string,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "requestContext": {"requestId": request_id, "timeEpoch": int(time.time() * 1000)},
            "body": body.decode(), "isBase64Encoded": False,
        }).encode()  # fmt: skip
        stored = await log.append((request_id, "bench", time.time(), request.headers.get("X-GitHub-Delivery"), event))
        return web.json_response({"id": request_id, "duplicate": not stored}, status=202)

    app = web.Application(client_max_size=2**20)
    app.router.add_post("/hooks/bench", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2].encode()))
