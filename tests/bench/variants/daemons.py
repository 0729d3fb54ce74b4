"""Ours: whole daemons under webhook load, and how soon one is ready."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.bench.http_load import SECRET, post
from tests.bench.measure import elapsed, environment, scratch
from tests.harness import ROOT, DaemonProcess, wait_for, write_function

CONFIG = """
log = {{ level = "warning" }}
runtime = {{ workers_max = 1 }}

[functions.bench]
code = "{code}"
handler = "app.handler"
timeout_s = 900

[sources.bench]
type = "webhook"
path = "/hooks/bench"
function = "bench"
verify = {{ scheme = "github", secrets = [{{ env = "BENCH_SECRET" }}] }}
"""

# Holds the only worker, so that a bench of the intake measures nothing else.
BUSY = "import time\n\n\ndef handler(event, context):\n    time.sleep(890)\n"
ECHO = "def handler(event, context):\n    return None\n"


@contextlib.contextmanager
def daemon(handler: str) -> Iterator[DaemonProcess]:
    """Start a daemon with one signed route to one function; killed at the end, its events are nobody's."""
    with scratch() as folder:
        code = write_function(folder / "code", handler)
        process = DaemonProcess(folder, CONFIG.format(code=code), environment={"BENCH_SECRET": SECRET})
        process.start()
        try:
            yield process
        finally:
            process.kill9()
            wait_for(lambda: not process.survivors(), 5, "workers follow their daemon")


def webhook(seconds: float) -> dict[str, float]:
    """Signed webhooks: verified, de-duplicated, stored, acknowledged."""
    with daemon(BUSY) as process:
        post(process.public + "/hooks/bench", seconds=1, folder=process.folder)
        return post(process.public + "/hooks/bench", seconds=seconds, folder=process.folder)


def saturation(seconds: float) -> dict[str, float]:
    """Events invoked in the time in which others were accepted, at full load."""
    with daemon(ECHO) as process:
        url = process.public + "/hooks/bench"
        post(url, seconds=1, folder=process.folder)
        before, began = invoked(process), time.monotonic()
        result = post(url, seconds=seconds, folder=process.folder)
        took = time.monotonic() - began
        return {"accepted_per_s": result["requests"] / took, "invoked_per_s": (invoked(process) - before) / took}


def invoked(process: DaemonProcess) -> float:
    return sum(value for name, value in process.metrics().items() if name.startswith("bridge_invocations_total"))


def aiohttp_webhook(seconds: float) -> dict[str, float]:
    """Baseline: the same requests to aiohttp.web with SQLite."""
    with scratch() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.baselines.webhook_aiohttp", str(folder), SECRET],
            cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert server.stdout is not None
        try:
            port = json.loads(server.stdout.readline())["port"]
            url = f"http://127.0.0.1:{port}/hooks/bench"
            post(url, seconds=1, folder=folder)
            return post(url, seconds=seconds, folder=folder)
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def ready() -> dict[str, float]:
    """From exec to the first 200 of /ready, byte code and state folder already there."""
    with daemon(ECHO) as process:
        times = []
        for _ in range(3):
            process.kill9()
            wait_for(lambda: not process.survivors(), 5, "workers follow their daemon")
            times.append(elapsed(process.start))
        return {"ready_ms": min(times) * 1000}


def imports() -> dict[str, float]:
    """Baseline: a Python that imports what every daemon of this kind imports."""
    command = [sys.executable, "-c", "import asyncio, uvloop, orjson, httptools"]
    times = [elapsed(lambda: subprocess.run(command, env=environment(), check=True)) for _ in range(3)]
    return {"ready_ms": min(times) * 1000}
