"""Functions that invoke themselves, directly or through a destination and a queue: stopped by the chain in the trace header."""

import json

import pytest

from tests.harness import request, wait_for, write_function

pytestmark = [pytest.mark.integration]

CONFIG = """
api = {{ auth = "none" }}

[functions.loop]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}
"""
CODE = """
import json, os, socket, urllib.request

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    # As AWS's own clients do inside a function (botocore: add_recursion_detection_header).
    headers = {"X-Amzn-Trace-Id": os.environ["_X_AMZN_TRACE_ID"], "X-Amz-Invocation-Type": "Event"}
    url = event["api"] + "/2015-03-31/functions/loop/invocations"
    body = json.dumps({**event, "round": event["round"] + 1}).encode()
    urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers)).read()
    connection.sendall(json.dumps({"round": event["round"]}).encode() + b"\\n")
    answers.readline()
"""


def letters(bridge):
    return bridge.admin("GET", "/admin/v1/dlq").json()["dead_letters"]


def test_a_loop_ends_after_sixteen_rounds(daemon, told, tmp_path):
    code = write_function(tmp_path / "code", CODE)
    bridge = daemon(CONFIG.format(code=code, ledger=told.address))
    invocations = bridge.api + "/2015-03-31/functions/loop/invocations"
    body = json.dumps({"api": bridge.api, "round": 1})
    started = request("POST", invocations, body=body, headers={"X-Amz-Invocation-Type": "Event"})
    assert started.status == 202
    (letter,) = wait_for(lambda: letters(bridge), description="it is stopped")
    wait_for(lambda: len(told()) >= 16, description="all have told")
    # Each tells when it has invoked the next one, which may be faster. The 17th was accepted, and is the dead letter.
    assert sorted(each["round"] for each in told()) == list(range(1, 17))
    assert (letter["condition"], letter["function"]) == ("RecursiveLoop", "loop")
    config = bridge.api + "/2024-08-31/functions/loop/recursion-config"
    assert request("PUT", config, body='{"RecursiveLoop": "Allow"}').json() == {"RecursiveLoop": "Allow"}
    bridge.kill9()
    bridge.restart()
    config = bridge.api + "/2024-08-31/functions/loop/recursion-config"
    assert request("GET", config).json() == {"RecursiveLoop": "Allow"}


THROUGH_A_QUEUE = """
account = "{account}"
api = {{ auth = "none" }}
{connection}
[functions.loop]
code = "{code}"
handler = "app.again"
environment = {{ LEDGER = "{ledger}" }}
event_invoke = {{ on_success = "{queue}" }}

[functions.relay]
code = "{code}"
handler = "app.relay"
environment = {{ LEDGER = "{ledger}" }}

[mappings.back]
source = "{queue}"
function = "relay"
batch_size = 1
"""
RELAY = """

def again(event, context):
    connection.sendall(json.dumps(event).encode() + b"\\n")
    answers.readline()
    return {**event, "round": event["round"] + 1}


def relay(event, context):
    body = json.loads(event["Records"][0]["body"])["responsePayload"]
    headers = {"X-Amzn-Trace-Id": os.environ["_X_AMZN_TRACE_ID"], "X-Amz-Invocation-Type": "Event"}
    url = body["api"] + "/2015-03-31/functions/loop/invocations"
    urllib.request.urlopen(urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)).read()
"""


def test_a_loop_through_a_destination_and_a_queue_ends_too(daemon, told, tmp_path, ministack):
    name = ministack.name()
    ministack.client("sqs").create_queue(QueueName=name)
    code = write_function(tmp_path / "code", CODE + RELAY)
    bridge = daemon(
        THROUGH_A_QUEUE.format(
            account=ministack.account, connection=ministack.connection(), code=code, ledger=told.address,
            queue=ministack.arn("sqs", name),
        )
    )  # fmt: skip
    body = json.dumps({"api": bridge.api, "round": 1})
    invocations = bridge.api + "/2015-03-31/functions/loop/invocations"
    assert request("POST", invocations, body=body, headers={"X-Amz-Invocation-Type": "Event"}).status == 202
    (letter,) = wait_for(lambda: letters(bridge), description="it is stopped")
    assert (letter["condition"], letter["function"]) == ("RecursiveLoop", "loop")
    assert [each["round"] for each in told()] == list(range(1, 17))
