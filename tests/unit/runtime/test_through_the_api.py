"""Real workers behind Lambda's API: what callers see of an invocation, headers and all (semantics 1.2 to 1.4)."""

import base64
import json

import pytest

from bridge.api.app import AccessRules
from bridge.core.function import Function
from bridge.core.limits import SYNC_RESPONSE_MAX_BYTES
from tests.unit.api.harness import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
async def invoke(runner):
    """Return `invoke(handler, event, headers, **fields)`."""
    world = World(rules=AccessRules(asks=False))
    world.invoker._runtime = runner.pool

    async def call(handler, event, headers=None, **fields):
        version = runner.version(handler, name="sample", **fields)
        world.catalog.known["sample"] = Function(name="sample", latest=version)
        body = json.dumps(event).encode()
        path = "/2015-03-31/functions/sample/invocations"
        return await world.ask("POST", path, body=body, headers=headers or {}, token=None)

    yield call
    await world.close()


async def test_check_01_a_handler_that_raises(invoke):
    answer = await invoke("app.fail", "boom")
    assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert answer.headers["x-amz-executed-version"] == "$LATEST"
    error = answer.json()
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "boom")
    assert error["requestId"] == answer.headers["x-amzn-requestid"]
    (frame,) = error["stackTrace"]
    assert frame.startswith('  File "/var/task/app.py", line ')
    assert frame.endswith(", in fail\n    raise ValueError(event)\n")


async def test_check_03_the_tail_of_a_long_log(invoke):
    code = {"code": "for number in range(1024): print(f'{number:09}')"}
    answer = await invoke("app.run", code, {"x-amz-log-type": "Tail"})
    tail = base64.b64decode(answer.headers["x-amz-log-result"]).decode()
    assert 4000 < len(tail) <= 4096
    *kept, end, report = tail.splitlines()
    request_id = answer.headers["x-amzn-requestid"]
    assert kept[-1] == "000001023"
    assert end == f"END RequestId: {request_id}"
    assert report.startswith(f"REPORT RequestId: {request_id}\tDuration: ")
    assert "x-amz-log-result" not in (await invoke("app.run", code)).headers


async def test_check_04_the_largest_answer_and_one_byte_more(invoke):
    largest = await invoke("app.oversize", SYNC_RESPONSE_MAX_BYTES - 2, memory_mb=256)
    assert (largest.status, len(largest.body)) == (200, 6_291_556)
    assert "x-amz-function-error" not in largest.headers
    refused = await invoke("app.oversize", SYNC_RESPONSE_MAX_BYTES - 1, memory_mb=256)
    assert (refused.status, refused.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert refused.json() == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }


COUNTED = "import os, sys, time; app = sys.modules['app']; app.calls += 1; answer = [os.environ['AWS_LAMBDA_LOG_STREAM_NAME'], app.calls]; "


@pytest.mark.slow
async def test_check_05_a_timeout_ends_the_worker_and_its_globals(invoke):
    late = {"code": f"{COUNTED}print(*answer, flush=True); time.sleep(5)"}
    answer = await invoke("app.run", late, {"x-amz-log-type": "Tail"}, timeout_s=1)
    text = f"RequestId: {answer.headers['x-amzn-requestid']} Error: Task timed out after 1.00 seconds"
    assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert answer.json() == {"errorType": "Sandbox.Timedout", "errorMessage": text}
    first, calls = base64.b64decode(answer.headers["x-amz-log-result"]).decode().splitlines()[1].split()
    for _ in range(10):  # a second may be little for the next one, too, on a busy machine
        answer = await invoke("app.run", {"code": COUNTED}, timeout_s=1)
        if "x-amz-function-error" not in answer.headers:
            break
    again, calls_again = answer.json()
    assert (calls, calls_again) == ("1", 1)
    assert again != first
