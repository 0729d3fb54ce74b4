"""Ours: a whole daemon's Lambda API under callers: Invoke, the first call of a new version, lists of functions."""

import contextlib
import http.client
import io
import json
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench.baselines.runtime_api import HANDLERS
from tests.bench.http_load import repeat
from tests.bench.measure import environment, percentile, scratch
from tests.brokers.aws import AwsService
from tests.harness import ROOT, DaemonProcess, request, wait_for

CONNECTIONS = 16
PAYLOAD = b'{"data": "%b"}' % (b"x" * 188)
"""200 B, as in the bench of warm invocations."""
KEY, SECRET = "BENCHKEY", "a-secret-of-the-bench-alone"
REGION, ACCOUNT = "us-east-1", "000000000000"
NOBODY = "210987654321"
"""A key id that is an account, where nobody is asked: one without functions."""
LISTED = 1000
CREATORS = 8
QUIET_S = 0.1
"""Between a version and its first invocation: as long as the bench of worker starts leaves between two of them."""
LIST = "/2015-03-31/functions"
INVOKE = "/2015-03-31/functions/bench/invocations"
CONFIG = """
log = {{ level = "warning" }}
api = {{ auth = "{auth}" }}

[access_keys.BENCHKEY]
secret = {{ env = "BENCH_SECRET" }}

[functions.bench]
code = "{code}"
handler = "app.handler"
timeout_s = 30
"""


@contextlib.contextmanager
def daemon(*, auth: str = "none") -> Iterator[DaemonProcess]:
    """Start a daemon with the benches' function, which hands its event back; killed at the end."""
    with scratch() as folder:
        config = CONFIG.format(code=HANDLERS, auth=auth)
        process = DaemonProcess(folder, config, environment={"BENCH_SECRET": SECRET})
        process.start()
        try:
            yield process
        finally:
            process.kill9()
            wait_for(lambda: not process.survivors(), 5, "workers follow their daemon")


def invoke(seconds: float, *, auth: str = "none") -> dict[str, float]:
    """Invoke a warm function; with `auth = "sigv4"` every request's signature is checked."""
    with daemon(auth=auth) as process:
        url = process.api + INVOKE
        return _invoked(url, signed("POST", url, PAYLOAD) if auth == "sigv4" else {}, seconds, process.folder)


def _invoked(
    url: str, headers: Mapping[str, str], seconds: float, folder: Path, *, warm_up_s: float = 1
) -> dict[str, float]:
    for length in (warm_up_s, seconds):
        result = repeat("POST", url, body=PAYLOAD, headers=headers, seconds=length, folder=folder,
                        connections=CONNECTIONS)  # fmt: skip
    return result


def constant(seconds: float) -> dict[str, float]:
    """Baseline: the same requests to the same server, which answers each with the same bytes."""
    with scratch() as folder:
        answer = folder / "answer"
        answer.write_bytes(PAYLOAD)
        command = [sys.executable, "-m", "tests.bench.baselines.constant_answer", str(answer)]
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert server.stdout is not None
        try:
            port = json.loads(server.stdout.readline())["port"]
            return _invoked(f"http://127.0.0.1:{port}{INVOKE}", {}, seconds, folder)
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def ministack(service: AwsService, seconds: float) -> dict[str, float]:
    """Beside: the same handler, invoked by the same requests through the emulator's Lambda."""
    with scratch() as folder:
        name = service.name()
        service.client("lambda").create_function(
            FunctionName=name, Runtime="python3.13", Handler="app.handler", Timeout=30,
            Role=f"arn:aws:iam::{service.account}:role/bench", Code={"ZipFile": package()},
        )  # fmt: skip
        path = f"/2015-03-31/functions/{name}/invocations"
        url = service.endpoint_url + path
        return _invoked(url, signed("POST", url, PAYLOAD), max(seconds, 3), folder, warm_up_s=5)


def cold_start(count: int) -> dict[str, float]:
    """The first invocation of a version that was published a moment ago, whose code nothing has run: request to answer."""
    took = []
    with daemon() as process, client(process) as functions:
        functions.create_function(**function("cold", package()))
        functions.get_waiter("function_active_v2").wait(FunctionName="cold")
        process.post(invocations("cold"), PAYLOAD)  # waits for the zygote, which all workers are forked from
        for number in range(count):
            code = package(f"# the {number}th\n")
            version = functions.update_function_code(FunctionName="cold", ZipFile=code, Publish=True)["Version"]
            functions.get_waiter("function_updated_v2").wait(FunctionName="cold")
            url = process.api + invocations(f"cold:{version}")
            time.sleep(QUIET_S)
            began = time.perf_counter()
            answer = request("POST", url, body=PAYLOAD)
            took.append(time.perf_counter() - began)
            assert answer.body == PAYLOAD, answer
    return {"start_ms": statistics.median(took) * 1000}


def lists(calls: int) -> dict[str, float]:
    """ListFunctions: one page of a thousand, and that of an account that has none."""
    with daemon() as process, client(process) as functions:
        zipped = package()
        with ThreadPoolExecutor(CREATORS) as pool:
            list(pool.map(lambda n: functions.create_function(**function(f"listed{n}", zipped)), range(LISTED)))
        url = f"{process.api}{LIST}?MaxItems={LISTED}"
        full, empty = (_timed(url, signed("GET", url, b"", key=key), calls) for key in (KEY, NOBODY))
        return {"full_ms": percentile(full, 0.95) * 1000, "empty_ms": percentile(empty, 0.95) * 1000}


def _timed(url: str, headers: Mapping[str, str], calls: int) -> list[float]:
    took = []
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    try:
        for _ in range(calls):
            began = time.perf_counter()
            connection.request("GET", f"{parts.path}?{parts.query}", headers=dict(headers))
            answer = connection.getresponse()
            body = answer.read()
            took.append(time.perf_counter() - began)
            assert answer.status == HTTPStatus.OK, body[:500]
    finally:
        connection.close()
    return took


@contextlib.contextmanager
def client(process: DaemonProcess) -> Iterator[Any]:
    """Give boto3's client of the daemon's Lambda API."""
    service = AwsService(process.api, folder=process.folder / "client", stem="bench", account=ACCOUNT, region=REGION)
    try:
        yield service.client("lambda")
    finally:
        service.close()


def function(name: str, zipped: bytes) -> dict[str, Any]:
    """Return the arguments of CreateFunction."""
    return {
        "FunctionName": name, "Runtime": "python3.13", "Handler": "app.handler", "Timeout": 30,
        "Role": f"arn:aws:iam::{ACCOUNT}:role/bench", "Code": {"ZipFile": zipped},
    }  # fmt: skip


def package(more: str = "") -> bytes:
    """Return a zip of the benches' handler; `more` makes its code another."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("app.py", (HANDLERS / "app.py").read_text() + more)
    return archive.getvalue()


def invocations(name: str) -> str:
    """Return the path that invokes a function."""
    return f"/2015-03-31/functions/{name}/invocations"


def signed(method: str, url: str, body: bytes, *, key: str = KEY) -> dict[str, str]:
    """Return the headers of a request that is signed as AWS's clients sign, good for five minutes."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    made = AWSRequest(method=method, url=url, data=body)
    SigV4Auth(Credentials(key, SECRET), "lambda", REGION).add_auth(made)
    return dict(made.headers)
