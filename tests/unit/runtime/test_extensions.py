"""Extensions behind the Runtime API: registered, told of invocations and of the end, waited for, and how they fail."""

import itertools
import json
import re

import psutil
import pytest

from bridge.core.invocation import ResultKind
from bridge.runtime import environment
from tests.harness import wait_until
from tests.unit.runtime.bootstraps import executable, talker
from tests.unit.runtime.conftest import own_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")
NUMBERS = itertools.count()
"""A function of its own for each test: its log holds nothing of another's."""

EXTENSION = """#!{python} -I
import http.client, json, os, sys, time

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
headers = {{"Lambda-Extension-Name": os.path.basename(sys.argv[0])}}

def call(method, path, body=None, **more):
    api.request(method, path, body, headers | more)
    answer = api.getresponse()
    data = answer.read()
    return answer.status, json.loads(data), answer.headers

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)

def say(*words):
    print(headers["Lambda-Extension-Name"], *words, flush=True)

status, told, found = call("POST", "/2020-01-01/extension/register", json.dumps({{"events": {events}}}))
headers["Lambda-Extension-Identifier"] = found["Lambda-Extension-Identifier"]
say("registered", status, json.dumps(told))
while True:
    _, event, _ = call("GET", "/2020-01-01/extension/event/next")
    say("told", json.dumps(event))
{act}
    if event["eventType"] == "SHUTDOWN":
        break
"""


def layer(folder, *, name="watcher", events=("INVOKE", "SHUTDOWN"), act="", text=None):
    """Write a layer with an extension that does `act` with each of its events; return its folder."""
    lines = "".join(f"    {line}\n" for line in act.splitlines())
    program = EXTENSION.format(python=environment.interpreter(), events=json.dumps(list(events)), act=lines)
    executable(folder, "", "nothing")
    return executable(folder / "extensions", program if text is None else text, name).removesuffix("/extensions")


class Extended:
    """A function with a layer of extensions, on a pool."""

    def __init__(self, runner, folder):
        self.runner = runner
        self.folder = folder
        self.name = f"extended-{next(NUMBERS)}"

    async def say(self, source, *, opt, init="", **fields):
        code = talker(self.folder / "code", init=init)
        values = {"runtime": "provided.al2023", "name": self.name, **fields}
        return await self.runner.run("any", {"code": source}, code=code, opt=opt, **values)

    @property
    def log(self):
        self.runner.logs.flush()
        folder = self.runner.logs._folder / self.name
        return b"".join(path.read_bytes() for path in folder.iterdir()).decode() if folder.is_dir() else ""

    async def logs(self, what):
        """Wait until the log says it."""
        await wait_until(lambda: what in self.log, description=f"{what} in the log")


@pytest.fixture
def extended(runner, tmp_path):
    if not runner.pool._starter._opt:
        pytest.skip("layers at /opt (needs root, or user namespaces)")
    return Extended(runner, tmp_path)


def told(text, name="watcher"):
    """Return the events that an extension has said it got."""
    said = (line.partition(f"{name} told ")[2] for line in text.splitlines())
    return [json.loads(event) for event in said if event]


async def test_one_is_registered_and_told_of_invocations_and_of_the_end(extended, tmp_path):
    opt = layer(tmp_path / "opt")
    first = await extended.say("answer = 1", opt=opt)
    second = await extended.say("answer = headers['Lambda-Runtime-Deadline-Ms']", opt=opt)
    assert (first.payload, second.is_ok) == (b"1", True), first
    extended.runner.pool.retire(extended.name, keep_revision=None)
    await extended.logs('"shutdownReason"')

    text = extended.log
    facts = {"functionName": extended.name, "functionVersion": "$LATEST", "handler": "any"}
    assert f"watcher registered 200 {json.dumps(facts)}\n" in text
    assert "EXTENSION\tName: watcher\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n" in text
    *invoked, shutdown = told(text)
    assert [event["eventType"] for event in invoked] == ["INVOKE", "INVOKE"]
    ids = re.findall(r"START RequestId: (\S+)", text)
    assert [event["requestId"] for event in invoked] == ids
    assert str(invoked[1]["deadlineMs"]) == json.loads(second.payload)
    assert invoked[0]["invokedFunctionArn"].endswith(":function:sample")
    assert set(invoked[0]["tracing"]) == {"type", "value"}
    assert (shutdown["eventType"], shutdown["shutdownReason"]) == ("SHUTDOWN", "spindown")


async def test_an_invocation_ends_when_they_have_asked_for_the_next(extended, tmp_path):
    act = "if event['eventType'] == 'INVOKE':\n    wait_for('/tmp/answered')\n    os.remove('/tmp/answered')\n    say('flushed')"
    opt = layer(tmp_path / "opt", act=act)
    source = "respond('1')\nanswered = True\nopen('/tmp/answered', 'w').close()"
    for _ in range(3):
        result = await extended.say(source, opt=opt)
        assert result.payload == b"1"
        assert b"watcher flushed\n" in result.log_tail


async def test_one_that_never_asks_again_costs_the_worker_and_not_the_answer(extended, tmp_path):
    opt = layer(tmp_path / "opt", act="if event['eventType'] == 'INVOKE': wait_for('/nowhere')")
    result = await extended.say("answer = 1", opt=opt, timeout_s=3)

    assert result.payload == b"1", result
    pool = extended.runner.pool
    await wait_until(lambda: not pool._workers and not pool._count, description="its worker has ended")


async def test_they_have_no_say_where_the_worker_breaks_its_memory_limit(extended, tmp_path, monkeypatch):
    opt = layer(tmp_path / "opt", act="if event['eventType'] == 'SHUTDOWN': wait_for('/nowhere')")
    assert (await extended.say("answer = 1", opt=opt)).is_ok
    monkeypatch.setattr("bridge.runtime.memory.measure", lambda pid, **_: ([pid], 10**9))

    result = await extended.say("time.sleep(1000)", opt=opt)

    assert result.error_message.endswith("Error: Runtime exited with error: signal: killed")
    assert "SHUTDOWN" not in str(told(extended.log)), extended.log


async def test_they_have_no_say_where_the_worker_talks_nonsense(extended, tmp_path):
    opt = layer(tmp_path / "opt", act="if event['eventType'] == 'SHUTDOWN': wait_for('/nowhere')")
    assert (await extended.say("answer = 1", opt=opt)).is_ok
    pool = extended.runner.pool
    (worker,) = pool._workers.values()

    pool.worker_garbled(worker)

    assert (await extended.say("answer = 2", opt=opt)).payload == b"2"  # by another one, at once
    await wait_until(lambda: worker.is_finished, description="it has ended")
    assert "SHUTDOWN" not in str(told(extended.log)), extended.log


@pytest.mark.parametrize(
    ("source", "timeout_s", "error_type", "reason"),
    [
        ("time.sleep(1000)", 2, "Sandbox.Timedout", "timeout"),
        ("os._exit(3)", 60, "Runtime.ExitError", "failure"),
    ],
)
async def test_it_is_told_why_the_end_comes(extended, tmp_path, source, timeout_s, error_type, reason):
    result = await extended.say(source, opt=layer(tmp_path / "opt"), timeout_s=timeout_s)

    assert result.error_type == error_type
    await extended.logs('"shutdownReason"')
    assert told(extended.log)[-1]["shutdownReason"] == reason, extended.log


async def test_one_that_wants_no_shutdown_and_one_that_waits_for_nothing(extended, tmp_path):
    layer(tmp_path / "opt", name="a", events=("INVOKE",))
    opt = layer(tmp_path / "opt", name="b", events=())
    assert (await extended.say("answer = 1", opt=opt)).payload == b"1"
    await extended.runner.clear()

    text = extended.log
    assert [event["eventType"] for event in told(text, "a")] == ["INVOKE"]
    assert told(text, "b") == []


@pytest.mark.parametrize(
    ("text", "error_type", "message"),
    [
        ("#!/bin/sh\nexit 3\n", "Extension.Crash", "exit status 3"),
        ("no program", "Extension.LaunchError", "exec format error"),
    ],
)
async def test_one_that_does_not_begin_fails_init(extended, tmp_path, text, error_type, message):
    result = await extended.say("answer = 1", opt=layer(tmp_path / "opt", text=text))

    assert (result.kind, result.error_type) == (ResultKind.FUNCTION_ERROR, error_type)
    assert result.error_message.endswith(f" Error: {message}")
    assert "EXTENSION\tName: watcher\tState: " in extended.log


async def test_one_that_ends_in_an_invocation_fails_it(extended, tmp_path):
    opt = layer(tmp_path / "opt", act="if event['eventType'] == 'INVOKE': os._exit(4)")
    result = await extended.say("time.sleep(1000)", opt=opt)

    assert (result.error_type, result.error_message.split(" Error: ")[1]) == ("Extension.Crash", "exit status 4")


@pytest.mark.parametrize("first_to_go", ["extensions/left", "bootstrap"])
async def test_a_worker_that_tells_of_its_end_takes_no_invocation_more(extended, tmp_path, first_to_go):
    opt = layer(tmp_path / "opt", name="slow", act="if event['eventType'] == 'SHUTDOWN': wait_for('/nowhere')")
    layer(tmp_path / "opt", name="left")
    assert (await extended.say("answer = 1", opt=opt)).payload == b"1"
    (leaving,) = extended.runner.pool._workers.values()
    below = psutil.Process(leaving.pid).children(recursive=True)
    (process,) = (one for one in below if any(word.endswith(f"/{first_to_go}") for word in one.cmdline()))

    process.kill()
    await extended.logs('"shutdownReason": "failure"')
    result = await extended.say("answer = 2", opt=opt)

    assert result.payload == b"2", result
    assert result.log_stream != leaving.stream


async def test_the_environment_of_one(extended, tmp_path):
    act = "say('knows', json.dumps(sorted(os.environ)))"
    opt = layer(tmp_path / "opt", act=act)
    result = await extended.say("answer = 1", opt=opt, environment={"STAGE": "test"})
    assert result.is_ok
    await extended.logs("watcher knows")
    known = json.loads(extended.log.partition("watcher knows ")[2].partition("\n")[0])

    assert {"STAGE", "AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_FUNCTION_NAME"} <= set(known)
    assert not {"_HANDLER", "LAMBDA_TASK_ROOT", "AWS_LAMBDA_LOG_GROUP_NAME"} & set(known)


INTERNAL = """
import threading
found = []
def extension():
    own = http.client.HTTPConnection(host)
    def ask(method, path, body=None, **headers):
        own.request(method, path, body, headers)
        answer = own.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    name = {"Lambda-Extension-Name": "inner"}
    register = "/2020-01-01/extension/register"
    found.append(ask("POST", register, '{"events": ["SHUTDOWN"]}', **name)[1]["errorType"])
    found.append(ask("POST", register, "[]", **name)[1]["errorType"])
    found.append(ask("POST", register, "{}")[1]["errorType"])
    found.append(ask("GET", "/2020-01-01/extension/event/next")[1]["errorType"])
    found.append(ask("GET", "/2020-01-01/extension/event/next", **{"Lambda-Extension-Identifier": "x"})[1]["errorType"])
    status, _, headers = ask("POST", register, '{"events": ["INVOKE"]}', **name)
    found.append(status)
    found.append(ask("POST", register, '{"events": ["INVOKE"]}', **name)[1]["errorType"])
    registered.set()
    while True:
        event = ask("GET", "/2020-01-01/extension/event/next", **{"Lambda-Extension-Identifier": headers["Lambda-Extension-Identifier"]})[1]
        found.append(event["eventType"])
registered = threading.Event()
threading.Thread(target=extension, daemon=True).start()
registered.wait()
"""


async def test_an_internal_one(extended, tmp_path):
    opt = executable(tmp_path / "opt", "", "nothing")
    source = "while found.count('INVOKE') < {0}: time.sleep(0.01)\nanswer = found"
    first = await extended.say(source.format(1), opt=opt, init=INTERNAL)
    expected = [
        "Extension.InvalidEventType", "InvalidRequestFormat", "Extension.InvalidExtensionName",
        "Extension.MissingExtensionIdentifier", "Extension.InvalidExtensionIdentifier", 200,
        "Extension.InvalidExtensionState", "INVOKE",
    ]  # fmt: skip
    assert json.loads(first.payload) == expected, first
    second = await extended.say(source.format(2), opt=opt, init=INTERNAL)
    assert json.loads(second.payload) == [*expected, "INVOKE"]
    assert "EXTENSION\tName: inner\tState: Ready\tEvents: [INVOKE]\n" in extended.log


async def test_what_is_too_late_and_what_is_not_offered(extended, tmp_path):
    source = (
        "def ask(method, path, body='{}', **headers):\n"
        "    api.request(method, path, body, headers)\n"
        "    found = api.getresponse()\n"
        "    return [found.status, json.loads(found.read())['errorType']]\n"
        "answer = [ask('POST', '/2020-01-01/extension/register', **{'Lambda-Extension-Name': 'late'}),"
        " ask('PUT', '/2022-07-01/telemetry'), ask('PUT', '/2020-08-15/logs')]"
    )
    result = await extended.say(source, opt=executable(tmp_path / "opt", "", "nothing"))
    assert json.loads(result.payload) == [
        [403, "Extension.RegistrationClosed"], [202, "Telemetry.NotSupported"], [202, "Logs.NotSupported"],
    ]  # fmt: skip


async def test_the_end_of_the_daemon_is_told_as_well(tmp_path):
    async with own_pool(tmp_path / "pool", workers_max=2) as runner:
        if not runner.pool._starter._opt:
            pytest.skip("layers at /opt (needs root, or user namespaces)")
        extended = Extended(runner, tmp_path)
        opt = layer(tmp_path / "opt", act="if event['eventType'] == 'SHUTDOWN': say('has flushed')")
        assert (await extended.say("answer = 1", opt=opt)).is_ok
        await runner.pool.close()
        assert "watcher has flushed\n" in extended.log


async def test_a_python_function_says_that_they_are_not_run(extended, tmp_path):
    result = await extended.runner.run("app.echo", 1, opt=layer(tmp_path / "opt"), name=extended.name)
    assert result.is_ok, result
    assert (
        "EXTENSION\tName: watcher\tState: LaunchError\tEvents: []\tError Type: Extension.NotRunHere\n" in extended.log
    )
    assert "registered" not in extended.log
