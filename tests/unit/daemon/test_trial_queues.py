"""Handlers of queues in a test's process: production's queues become embedded ones, time passes at once."""

import orjson
import pytest

from bridge.daemon.trial import BridgeApp

CONFIG = """
[connections.aws]
type = "aws"
region = "eu-central-1"

[functions.f]
code = "code"
handler = "app.handler"

[mappings.jobs]
source = "sqs://aws/jobs"
function = "f"
archive = true
function_response_types = ["ReportBatchItemFailures"]

[mappings.ordered]
source = "arn:aws:sqs:eu-central-1:123456789012:ordered.fifo"
function = "f"
"""
CODE = """
def handler(event, context):
    bad = [record["messageId"] for record in event["Records"] if record["body"].startswith("bad")]
    return {"batchItemFailures": [{"itemIdentifier": each} for each in bad]}
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(CODE)
    (tmp_path / "bridge.toml").write_text(CONFIG)
    made = BridgeApp(tmp_path / "bridge.toml")
    yield made
    made.close()


def test_what_is_put_is_handled_as_a_queues(app):
    app.put("jobs", "one")
    app.put("jobs", "two")
    app.put("ordered", "three", key="g")

    assert app.drain() == []
    records = [record for invoked in app.invocations for record in invoked.event["Records"]]
    assert {"one", "two", "three"} == {record["body"] for record in records}
    (ordered,) = [record for record in records if record["body"] == "three"]
    assert ordered["eventSourceARN"] == "arn:aws:sqs:eu-central-1:123456789012:ordered.fifo"
    assert ordered["attributes"]["MessageGroupId"] == "g"


def test_what_fails_comes_again_until_it_is_a_dead_letter(app):
    app.put("jobs", "bad")
    app.put("jobs", "good")

    assert app.drain() == []
    tries = [
        r["attributes"]["ApproximateReceiveCount"]
        for i in app.invocations
        for r in i.event["Records"]
        if r["body"] == "bad"
    ]
    assert tries == ["1", "2", "3", "4", "5"]
    assert app.now >= 1_767_225_600 + 4 * 30
    (letter,) = app.dead_letters
    assert [record["body"] for record in orjson.loads(orjson.dumps(letter.event))["Records"]] == ["bad"]
