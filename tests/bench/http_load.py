"""Webhook load from another process: wrk where there is one, else a plain asyncio client.

`post()` drives one URL from 64 connections and returns {"per_s", "p50_us", "p99_us", "requests"}; any answer that is
no 2xx, or a broken connection, is an error of the bench.
"""

import argparse
import asyncio
import hmac
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.measure import percentile
from tests.harness import ROOT

SECRET = "bench-secret"
CONNECTIONS = 64
BODY = json.dumps({"name": "bench", "data": "x" * 990}).encode()
_runs = itertools.count(1)


def post(url: str, *, seconds: float, folder: Path, connections: int = CONNECTIONS) -> dict[str, float]:
    """Post signed 1 KB bodies for `seconds`; the delivery id is new every time."""
    body = folder / "body.json"
    body.write_bytes(BODY)
    signature = "sha256=" + hmac.new(SECRET.encode(), BODY, "sha256").hexdigest()
    prefix = f"{os.getpid()}-{next(_runs)}-"
    if shutil.which("wrk"):
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s",
                   "--script", "tests/bench/webhook.lua", url, "--", str(body), signature, prefix]  # fmt: skip
    else:
        command = [
            sys.executable,
            "-m",
            "tests.bench.http_load",
            url,
            str(body),
            signature,
            prefix,
            str(seconds),
            str(connections),
        ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    if result["refused"] or result["broken"]:
        raise RuntimeError(f"{url}: {done.stdout}")
    return {**result, "per_s": result["requests"] / result["seconds"]}


async def client(options: argparse.Namespace) -> dict[str, float]:
    """Do what webhook.lua does, slower."""
    url = urlsplit(options.url)
    body = Path(options.body).read_bytes()
    latencies: list[float] = []
    counts = {"refused": 0, "broken": 0}
    numbers = itertools.count()
    ends = time.perf_counter() + options.seconds

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            while (began := time.perf_counter()) < ends:
                head = (
                    f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
                    f"X-Hub-Signature-256: {options.signature}\r\nX-GitHub-Delivery: {options.prefix}{next(numbers)}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                )
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                counts["refused"] += not answer.startswith(b"HTTP/1.1 2")
                latencies.append(time.perf_counter() - began)
        except (OSError, asyncio.IncompleteReadError):
            counts["broken"] += 1
        finally:
            writer.close()

    await asyncio.gather(*(connection() for _ in range(options.connections)))
    return {
        "requests": len(latencies),
        "seconds": options.seconds,
        "p50_us": percentile(latencies, 0.5) * 1e6,
        "p99_us": percentile(latencies, 0.99) * 1e6,
        **counts,
    }


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser()
    for name in ("url", "body", "signature", "prefix"):
        parser.add_argument(name)
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    print(json.dumps(uvloop.run(client(parser.parse_args()))))


if __name__ == "__main__":
    main()
