"""A function that invokes itself by boto3 and waits for the answer: it has one, or is refused; nothing stands still."""

import json
from pathlib import Path

import boto3
import pytest

from tests.harness import write_function
from tests.lambda_client import lambda_client

pytestmark = [pytest.mark.integration]

CONFIG = """
api = {{ auth = "none" }}
runtime = {{ workers_max = {workers}, packages = "{packages}" }}

[functions.again]
code = "{code}"
handler = "app.handler"
timeout_s = 300
memory_mb = 512
"""
CODE = """
import json
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

def handler(event, context):
    if not event.get("depth"):
        return {"depth": 0}
    api = boto3.client("lambda", endpoint_url=event["api"], region_name="us-east-1", aws_access_key_id="any",
                       aws_secret_access_key="any", config=Config(retries={"total_max_attempts": 1}, read_timeout=300))
    inner = {"api": event["api"], "depth": event["depth"] - 1}
    try:
        answer = api.invoke(FunctionName=context.function_name, Payload=json.dumps(inner))
    except ClientError as error:
        return {"refused": error.response["Error"]["Code"], "reason": error.response.get("Reason")}
    return {"depth": event["depth"], "inner": json.loads(answer["Payload"].read())}
"""


def call(bridge, depth):
    api = lambda_client(bridge, read_timeout=300)
    answer = api.invoke(FunctionName="again", Payload=json.dumps({"api": bridge.api, "depth": depth}))
    result = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, result
    return result


@pytest.mark.parametrize("workers", [1, 3])
def test_it_does_not_wait_for_ever(daemon, tmp_path, workers):
    code = write_function(tmp_path / "code", CODE)
    packages = Path(boto3.__file__).parent.parent
    bridge = daemon(CONFIG.format(workers=workers, packages=packages, code=code))
    for _ in range(20):  # short ones, after which the daemon sends ahead what it thinks will be short
        call(bridge, 0)
    if workers == 3:
        assert call(bridge, 2) == {"depth": 2, "inner": {"depth": 1, "inner": {"depth": 0}}}
    else:
        refused = {"refused": "TooManyRequestsException", "reason": "ConcurrentInvocationLimitExceeded"}
        assert call(bridge, 1) == refused
        assert call(bridge, 0) == {"depth": 0}
