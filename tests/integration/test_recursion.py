"""A function that invokes itself asynchronously, round after round, is stopped by the chain in its trace header."""

import json

import pytest

from tests.harness import request, wait_for, write_function

pytestmark = pytest.mark.integration

CONFIG = """
api = {{ auth = "none" }}

[functions.loop]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}
"""
CODE = """
import json, os, socket, urllib.error, urllib.request

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    # As AWS's own clients do inside a function (botocore: add_recursion_detection_header).
    headers = {"X-Amzn-Trace-Id": os.environ["_X_AMZN_TRACE_ID"], "X-Amz-Invocation-Type": "Event"}
    url = event["api"] + "/2015-03-31/functions/loop/invocations"
    body = json.dumps({**event, "round": event["round"] + 1}).encode()
    told = {"round": event["round"]}
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers)).read()
    except urllib.error.HTTPError as error:
        told |= {"status": error.code, "type": error.headers["x-amzn-errortype"]}
    connection.sendall(json.dumps(told).encode() + b"\\n")
    answers.readline()
"""


def test_a_loop_ends_after_sixteen_rounds(daemon, told, tmp_path):
    code = write_function(tmp_path / "code", CODE)
    bridge = daemon(CONFIG.format(code=code, ledger=told.address))
    invocations = bridge.api + "/2015-03-31/functions/loop/invocations"
    body = json.dumps({"api": bridge.api, "round": 1})
    started = request("POST", invocations, body=body, headers={"X-Amz-Invocation-Type": "Event"})
    assert started.status == 202
    wait_for(lambda: any("status" in each for each in told()), description="it is stopped")
    (last,) = [each for each in told() if "status" in each]
    assert last == {"round": 16, "status": 400, "type": "RecursiveInvocationException"}
    config = bridge.api + "/2024-08-31/functions/loop/recursion-config"
    assert request("PUT", config, body='{"RecursiveLoop": "Allow"}').json() == {"RecursiveLoop": "Allow"}
    bridge.kill9()
    bridge.restart()
    config = bridge.api + "/2024-08-31/functions/loop/recursion-config"
    assert request("GET", config).json() == {"RecursiveLoop": "Allow"}
