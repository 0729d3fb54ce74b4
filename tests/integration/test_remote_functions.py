"""Functions elsewhere in whole daemons: a stub for AWS that misbehaves, an emulator, the lock against accidents."""

import base64
import collections
import json
import threading
import uuid

import pytest

from tests.brokers import fault_kinds as faults
from tests.brokers.wire import Answer, answer_json
from tests.harness import wait_for
from tests.zips import zipped

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

FUNCTION = """
[functions.billing]
arn = "{arn}"
connection = "aws"
{more}
[sources.billing]
type = "webhook"
path = "/billing"
function = "billing"
verify = "none"

[sources.now]
type = "webhook"
path = "/now"
function = "billing"
invocation_type = "RequestResponse"
verify = "none"
"""
UNKNOWN = {"reset after", "half answer", "InternalFailure", "ServiceUnavailable", "bare 502", "reset before"}
"""Faults after which the caller cannot know: what may run again."""
LOCAL = ("-c", "import sys; from bridge.cli.main import main; sys.exit(main([*sys.argv[1:], '--watch']))")


class Far:
    """What answers for the function: it remembers the id of every event that it ran."""

    def __init__(self, stub) -> None:
        self.stub = stub
        self.lock = threading.Lock()
        self.runs: collections.Counter[str] = collections.Counter()
        self.answer = answer_json({"statusCode": 201, "body": "done"}, x_amz_executed_version="7")
        stub.answer("Invoke", self.run)

    def run(self, call) -> Answer:
        with self.lock:
            self.runs[call.json()["requestContext"]["requestId"]] += 1
        return self.answer

    def config(self, more: str = "") -> str:
        arn = self.stub.arn("lambda", "function:billing:live")
        return self.stub.connection() + FUNCTION.format(arn=arn, more=more)


@pytest.fixture
def far(aws_faults):
    return Far(aws_faults())


def states(bridge) -> dict[str, str]:
    found = bridge.admin("GET", "/admin/v1/events?limit=500").json()
    return {event["id"]: event["state"] for event in found["events"]}


def test_events_and_callers_reach_a_function_elsewhere(daemon, far) -> None:
    tail = base64.b64encode(b"START\nhello from afar\nREPORT\n").decode()
    far.answer = answer_json({"statusCode": 201, "body": "done"}, x_amz_executed_version="7", x_amz_log_result=tail)
    bridge = daemon(far.config())

    stored = bridge.post("/billing", {"n": 1})
    answered = bridge.post("/now", {"n": 2})
    wait_for(lambda: states(bridge).get(stored.json()["id"]) == "succeeded", description="the event was handled")

    shown = bridge.cli("events", "show", stored.json()["id"]).stdout
    assert (201, b"done") == (answered.status, answered.body)
    assert "hello from afar" in shown and "7" in shown
    assert {"billing:live"} == {
        call.function.replace("%3A", ":") + ":" + call.target.partition("Qualifier=")[2]
        for call in far.stub.seen("Invoke")
    }
    doctor = {line["name"]: line for line in bridge.admin("GET", "/admin/v1/doctor").json()["facts"]}
    assert doctor["function billing"]["ok"]


def test_a_remote_that_is_down_keeps_its_events_and_says_so(daemon, far) -> None:
    far.stub.down()
    bridge = daemon(far.config())
    ids = [bridge.post("/billing", {"n": n}).json()["id"] for n in range(30)]

    refused = bridge.post("/now", {})
    wait_for(lambda: "Could not connect" in bridge.cli("events", "show", ids[-1]).stdout, description="it says why")
    doctor = {line["name"]: line for line in bridge.admin("GET", "/admin/v1/doctor").json()["facts"]}
    far.stub.up()
    wait_for(lambda: {states(bridge)[each] for each in ids} == {"succeeded"}, 60, "all events were handled")

    assert refused.status == 503
    assert not doctor["function billing"]["ok"]
    assert {1} == {far.runs[each] for each in ids}
    assert [] == bridge.admin("GET", "/admin/v1/dlq").json()["dead_letters"]


@pytest.mark.slow
def test_kills_and_faults_lose_nothing_and_repeat_nothing_that_was_known(daemon, far) -> None:
    stub = far.stub
    stub.sometimes(
        "Invoke", 0.4, faults.throttle(), faults.throttle(retry_after_s=1), faults.denied(), faults.server_error(500),
        faults.bare_error(502), faults.reset_before(), faults.reset_after(), faults.half_answer(), seed=5,
    )  # fmt: skip
    bridge = daemon(far.config())
    ids = []
    for number in range(120):
        ids.append(bridge.post("/billing", {"n": number}).json()["id"])
        if number in (40, 80):
            bridge.kill9()
            bridge.restart()
    wait_for(
        lambda: sum(stub.seen("Invoke")[n].fault == "" for n in range(len(stub.seen("Invoke")))) > 60, 60, "it runs"
    )
    stub.calm()
    wait_for(lambda: set(map(states(bridge).get, ids)) == {"succeeded"}, 90, "all events were handled")

    by_event = collections.defaultdict(list)
    for call in stub.seen("Invoke"):
        by_event[call.json()["requestContext"]["requestId"]].append(call.fault)
    # A kill may repeat what was with the remote: it ended, and nobody was left to hear of it; once for each kill.
    for each in ids:
        assert 1 <= far.runs[each] <= 1 + 2 + sum(fault in UNKNOWN for fault in by_event[each])
    assert set(far.runs) == set(ids)


@pytest.mark.slow
def test_faults_alone_repeat_nothing_that_was_known(daemon, far) -> None:
    stub = far.stub
    stub.sometimes(
        "Invoke", 0.4, faults.throttle(), faults.denied(), faults.server_error(503), faults.reset_before(),
        faults.reset_after(), faults.half_answer(), seed=6,
    )  # fmt: skip
    bridge = daemon(far.config())
    ids = [bridge.post("/billing", {"n": number}).json()["id"] for number in range(80)]
    wait_for(lambda: len(stub.seen("Invoke")) > 100, 60, "faults were met")
    stub.calm()
    wait_for(lambda: set(map(states(bridge).get, ids)) == {"succeeded"}, 90, "all events were handled")

    by_event = collections.defaultdict(list)
    for call in stub.seen("Invoke"):
        by_event[call.json()["requestContext"]["requestId"]].append(call.fault)
    for each in ids:
        assert 1 <= far.runs[each] <= 1 + sum(fault in UNKNOWN for fault in by_event[each])
        assert len(by_event[each]) == 1 + sum(fault != "" for fault in by_event[each])


def test_handed_over(daemon, far) -> None:
    far.answer = Answer(202, {}, b"")
    bridge = daemon(far.config("handover = true"))

    event = bridge.post("/billing", {"n": 1}).json()["id"]
    wait_for(lambda: states(bridge).get(event) == "handed over", description="the event was handed over")

    (call,) = far.stub.seen("Invoke")
    assert "Event" == call.headers["x-amz-invocation-type"]
    assert "handed_over" in bridge.cli("events", "show", event).stdout


def test_nothing_elsewhere_is_invoked_where_code_is_watched_unless_that_is_meant(daemon, far) -> None:
    bridge = daemon(far.config(), command=LOCAL)

    event = bridge.post("/billing", {"n": 1}).json()["id"]
    refused = bridge.post("/now", {})
    said = wait_for(lambda: waits_hindered(bridge, event), description="it says why it waits")

    assert 403 == refused.status
    assert "invoked with --allow-remote only" in said
    assert [] == far.stub.seen("Invoke")

    bridge.terminate()
    allowed = (LOCAL[0], LOCAL[1].replace("'--watch'", "'--watch', '--allow-remote'"))
    bridge.command = allowed
    bridge.start()
    wait_for(lambda: states(bridge).get(event) == "succeeded", description="the event was handled")
    assert {event: 1} == dict(far.runs)


def waits_hindered(bridge, event: str) -> str:
    shown = bridge.cli("events", "show", event).stdout
    return shown if "waits: hindered" in shown else ""


def test_a_mapping_waits_for_a_remote_that_is_down(daemon, far) -> None:
    stub = far.stub
    got = []
    stub.answer("Invoke", lambda call: (got.append(call.json()), answer_json({}))[1])
    mapping = '\n[mappings.m]\nsource = "local://s?as=kafka"\nfunction = "billing"\nshards = 1\nbatch_size = 2\n'
    stub.down()
    bridge = daemon(far.config() + mapping)

    put = bridge.cli("put", "m", json.dumps({"n": 1}))
    assert put.returncode == 0, put.stderr
    wait_for(lambda: "Could not connect" in bridge.cli("mappings", "show", "m").stdout, description="it says why")
    stub.up()
    wait_for(lambda: got, 60, "the batch was delivered")
    wait_for(lambda: bridge.admin("GET", "/admin/v1/mappings/m").json().get("lag", 0) == 0, description="it is done")

    (event,) = got
    assert 1 == sum(len(records) for records in event["records"].values())


class TestEmulator:
    CODE = """
import os
def handler(event, context):
    print("from afar")
    if event.get("n") == 13:
        raise ValueError("unlucky")
    return {"double": event["n"] * 2, "custom": context.client_context and context.client_context.custom}
"""

    def test_a_function_of_ministacks(self, daemon, ministack, tmp_path) -> None:
        name = "fn-" + uuid.uuid4().hex[:8]
        create(ministack.client("lambda"), name, self.CODE)
        arn = ministack.arn("lambda", f"function:{name}")
        bridge = daemon(ministack.connection() + FUNCTION.format(arn=arn, more=""))

        good = bridge.cli("invoke", "billing", "--log", "--payload", '{"n": 4}', timeout_s=60)
        bad = bridge.cli("invoke", "billing", "--payload", '{"n": 13}', timeout_s=60)

        assert 8 == json.loads(good.stdout)["double"], (good.stdout, good.stderr)
        assert bad.returncode == 1
        assert "unlucky" in bad.stdout + bad.stderr


def create(client, name: str, code: str) -> None:
    client.create_function(
        FunctionName=name, Runtime="python3.12", Handler="app.handler", Timeout=30,
        Role="arn:aws:iam::000000000000:role/r", Code={"ZipFile": zipped({"app.py": code})},
    )  # fmt: skip
