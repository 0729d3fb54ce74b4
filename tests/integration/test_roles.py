"""Execution roles in a whole daemon: who polls, who has a log, and whom a function may invoke by its own key."""

import json
from pathlib import Path

import boto3
import pytest

from tests.harness import wait_for, write_function

pytestmark = pytest.mark.integration

CONFIG = """
runtime = {{ packages = "{packages}" }}

[roles.reads]
managed = ["LambdaSQSQueueExecutionRole"]
[roles.logs]
managed = ["AWSLambdaBasicExecutionRole"]
[roles.calls]
statements = [{{ Effect = "Allow", Action = "lambda:InvokeFunction", Resource = "arn:aws:lambda:*:*:function:reader" }}]

[functions.reader]
code = "{code}"
handler = "app.handler"
role = "reads"
timeout_s = 30
[functions.kept]
code = "{code}"
handler = "app.handler"
role = "logs"
[functions.caller]
code = "{code}"
handler = "app.call"
role = "calls"
timeout_s = 60
memory_mb = 512

[mappings.jobs]
source = "local://jobs?as=sqs"
function = "reader"
[mappings.orders]
source = "local://orders?as=kinesis"
function = "kept"
"""
CODE = """
import json
import os

def handler(event, context):
    print("handled", json.dumps(event))
    return sorted(name for name in os.environ if name.startswith(("AWS_ACCESS", "AWS_SECRET", "AWS_SESSION")))

def call(event, context):
    import boto3
    from botocore.exceptions import ClientError

    print("this is in no log")
    api, said = boto3.client("lambda"), []
    for name in ("reader", "kept"):
        try:
            said.append(json.loads(api.invoke(FunctionName=name, Payload=b"{}")["Payload"].read()))
        except ClientError as error:
            said.append(error.response["Error"]["Code"])
    return said
"""


@pytest.fixture
def bridge(daemon, tmp_path):
    code = write_function(tmp_path / "code", CODE)
    return daemon(CONFIG.format(packages=Path(boto3.__file__).parent.parent, code=code))


def test_each_does_what_its_role_allows(bridge):
    for name, value in (("jobs", "first"), ("orders", "second")):
        done = bridge.cli("put", name, json.dumps(value))
        assert done.returncode == 0, done.stderr

    wait_for(lambda: "first" in bridge.cli("logs", "reader").stdout, description="the queue is read")
    mapping = json.loads(bridge.cli("mappings", "show", "orders", "--json").stdout)
    assert mapping["state"] == "Enabling"
    assert mapping["state_transition_reason"].startswith(
        "Cannot access stream arn:aws:kinesis:us-east-1:000000000000:stream/orders. "
    )
    assert bridge.cli("logs", "kept").stdout == ""

    answer = bridge.cli("invoke", "caller")
    assert answer.returncode == 0, answer.stderr
    keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
    assert json.loads(answer.stdout) == [keys, "AccessDeniedException"]
    assert bridge.cli("logs", "caller").stdout == ""

    shown = bridge.cli("functions", "show", "caller").stdout
    assert "Allow lambda:InvokeFunction on arn:aws:lambda:*:*:function:reader" in shown

    text = bridge.file.read_text().replace('"AWSLambdaBasicExecutionRole"', '"AWSLambdaKinesisExecutionRole"')
    bridge.file.write_text(text)
    assert bridge.cli("reload").returncode == 0
    wait_for(lambda: "kinesis" in bridge.cli("logs", "kept").stdout, description="the stream is read")
