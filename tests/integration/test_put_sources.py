"""`bridge put` into every kind of push source of a whole daemon: what their senders would post, with none of them there."""

import json
import subprocess
import sys

import pytest

from tests.harness import ROOT, wait_for, write_function
from tests.integration.conftest import TELLING

pytestmark = pytest.mark.integration

CONFIG = """
[functions.telling]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}

[functions.greets]
code = "{greets}"
handler = "app.handler"

[sources.hook]
type = "webhook"
path = "/hook"
function = "telling"
verify = {{ scheme = "github", secrets = [{{ env = "HOOK_SECRET" }}] }}

[sources.now]
type = "webhook"
path = "/now"
function = "greets"
invocation_type = "RequestResponse"
verify = {{ scheme = "bearer", secrets = [{{ env = "HOOK_SECRET" }}] }}

[sources.sns]
type = "webhook"
path = "/sns"
function = "telling"
format = "sns"
verify = "sns"
topics = ["*"]

[sources.s3]
type = "webhook"
path = "/s3"
function = "telling"
format = "s3"
verify = {{ scheme = "bearer", secrets = [{{ env = "HOOK_SECRET" }}] }}

[sources.eventbridge]
type = "webhook"
path = "/eventbridge"
function = "telling"
format = "eventbridge"
verify = {{ scheme = "bearer", secrets = [{{ env = "HOOK_SECRET" }}] }}

[sources.cloudwatch-logs]
type = "webhook"
path = "/logs"
function = "telling"
format = "cloudwatch-logs"
verify = {{ scheme = "bearer", secrets = [{{ env = "HOOK_SECRET" }}] }}

[sources.cloudevents]
type = "webhook"
path = "/cloudevents"
function = "telling"
format = "cloudevents"
verify = {{ scheme = "bearer", secrets = [{{ env = "HOOK_SECRET" }}] }}

[sources.sensors]
type = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["plant/+"]
function = "telling"

[sources.yearly]
type = "schedule"
schedule = "cron(0 10 1 1 ? *)"
function = "telling"
"""
KINDS = {
    "sns": lambda event: event["Records"][0]["Sns"]["Type"] == "Notification",
    "s3": lambda event: event["Records"][0]["eventName"] == "ObjectCreated:Put",
    "eventbridge": lambda event: event["source"] == "com.example.orders",
    "cloudwatch-logs": lambda event: "data" in event["awslogs"],
    "cloudevents": lambda event: event["specversion"] == "1.0",
}


@pytest.fixture
def running(daemon, told, tmp_path):
    code = write_function(tmp_path / "code", TELLING)
    greets = write_function(tmp_path / "greets", "def handler(event, context):\n    return {'hello': event['body']}\n")
    return daemon(CONFIG.format(code=code, greets=greets, ledger=told.address), HOOK_SECRET="nobody signs with it")


def put(running, *arguments, text=""):
    """Run `bridge put` with something on its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "--url", running.api, "--token", running.token, "put", *arguments],
        cwd=ROOT, input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_kind_is_given_what_its_sender_would_send(running, told):
    expected = {}
    for kind in KINDS:
        sent = running.cli("generate-event", kind, "--as-sent").stdout
        expected[kind] = put(running, kind, "-", "--whole", text=sent).strip()
    expected["hook"] = put(running, "hook", '{"ref": "main"}', "--header", "X-GitHub-Event: push").strip()
    expected["sensors"] = put(running, "sensors", '{"t": 21.5}', "--topic", "plant/3").strip()
    expected["yearly"] = put(running, "yearly", "--at", "2030-01-01T10:00:00Z").strip()
    events = wait_for(lambda: len(found := told()) == len(expected) and found, description="all were handled")

    for kind, is_like in KINDS.items():
        assert sum(_holds(is_like, event) for event in events) == 1, kind
    (hook,) = [event for event in events if event.get("rawPath") == "/hook"]
    assert (hook["body"], hook["headers"]["x-github-event"]) == ('{"ref": "main"}', "push")
    assert {"t": 21.5} in events
    assert "2030-01-01T10:00:00Z" in [event.get("time") for event in events]
    for source, request_id in expected.items():
        assert running.admin("GET", f"/admin/v1/events/{request_id}").json()["source"] == source


def _holds(is_like, event):
    try:
        return is_like(event)
    except (KeyError, TypeError, IndexError):
        return False


def test_lines_are_events_in_order_and_answers_come_back(running, told):
    lines = "".join(f'{{"n": {number}}}\n' for number in range(300))
    ids = put(running, "hook", "-", text=lines).split()
    events = wait_for(lambda: len(found := told()) == 300 and found, description="all were handled")
    assert len(set(ids)) == 300
    assert {json.loads(event["body"])["n"] for event in events} == set(range(300))
    stored = running.admin("GET", "/admin/v1/events/export?source=hook").body.splitlines()
    assert [json.loads(line)["id"] for line in stored] == ids

    (answered,) = map(json.loads, put(running, "now", "ada", "--whole", "--json").splitlines())
    assert (answered["status"], json.loads(answered["body"])) == (200, {"hello": "ada"})
    listed = {
        each["name"]: each for each in map(json.loads, running.cli("sources", "list", "--json").stdout.splitlines())
    }
    assert (listed["hook"]["accepted"], listed["now"]["accepted"]) == (300, 1)
    assert listed["sensors"]["trouble"] != ""
