"""HTTP load from another process: wrk where there is one, else a plain asyncio client.

`post()` drives one webhook, `repeat()` sends one request again and again; both return {"per_s", "p50_us", "p95_us",
"p99_us", "requests"}; any answer that is no 2xx, or a broken connection, is an error of the bench.
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
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.measure import percentile
from tests.harness import ROOT

SECRET = "bench-secret"
CONNECTIONS = 64
BODY = json.dumps({"name": "bench", "data": "x" * 990}).encode()
DELIVERY = "X-GitHub-Delivery"
TIMEOUT = "30s"
"""Of one answer: who starts sixteen processes at once, takes seconds."""
_runs = itertools.count(1)


def post(url: str, *, seconds: float, folder: Path, connections: int = CONNECTIONS) -> dict[str, float]:
    """Post signed 1 KB bodies for `seconds`; the delivery id is new every time."""
    signature = "sha256=" + hmac.new(SECRET.encode(), BODY, "sha256").hexdigest()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": signature}
    return _drive("POST", url, BODY, headers, f"{os.getpid()}-{next(_runs)}-", seconds, folder, connections)


def repeat(
    method: str, url: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None, seconds: float,
    folder: Path, connections: int,
) -> dict[str, float]:  # fmt: skip
    """Send the same request for `seconds`."""
    return _drive(method, url, body, dict(headers or {}), "", seconds, folder, connections)


def _drive(
    method: str, url: str, body: bytes, headers: dict[str, str], prefix: str, seconds: float, folder: Path,
    connections: int,
) -> dict[str, float]:  # fmt: skip
    """`prefix` begins the delivery id; empty: none is sent."""
    file = folder / "body"
    file.write_bytes(body)
    pairs = [each for pair in headers.items() for each in pair]
    request = [method, str(file), prefix, *pairs]
    if shutil.which("wrk"):
        script = "webhook" if prefix else "request"
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s",
                   "--timeout", TIMEOUT, "--script", f"tests/bench/{script}.lua", url, "--", *request]  # fmt: skip
    else:
        command = [sys.executable, "-m", "tests.bench.http_load", url, str(seconds), str(connections), *request]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    if result["refused"] or result["broken"]:
        raise RuntimeError(f"{url}: {done.stdout}")
    return {**result, "per_s": result["requests"] / result["seconds"]}


async def client(options: argparse.Namespace) -> dict[str, float]:
    """Do what wrk's scripts do, slower."""
    url = urlsplit(options.url)
    body = Path(options.body).read_bytes()
    latencies: list[float] = []
    counts = {"refused": 0, "broken": 0}
    numbers = itertools.count()
    ends = time.perf_counter() + options.seconds
    pairs = list(zip(options.headers[::2], options.headers[1::2], strict=True))
    path = url.path + (f"?{url.query}" if url.query else "")
    lines = [f"{options.method} {path} HTTP/1.1", f"Host: {url.netloc}", f"Content-Length: {len(body)}"]
    head = "".join(f"{line}\r\n" for line in (*lines, *(f"{name}: {value}" for name, value in pairs)))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            while (began := time.perf_counter()) < ends:
                delivery = f"{DELIVERY}: {options.prefix}{next(numbers)}\r\n" if options.prefix else ""
                writer.write(f"{head}{delivery}\r\n".encode() + body)
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
        **{f"p{share}_us": percentile(latencies, share / 100) * 1e6 for share in (50, 95, 99)},
        **counts,
    }


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    for name in ("method", "body", "prefix"):
        parser.add_argument(name)
    parser.add_argument("headers", nargs="*")
    print(json.dumps(uvloop.run(client(parser.parse_args()))))


if __name__ == "__main__":
    main()
