"""boto3 provisions concurrency: workers stand before the first call, and again after kill -9."""

import json

import pytest

from tests.harness import wait_for, write_function
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

CONFIG = """
api = {{ auth = "none" }}
runtime = {{ workers_max = 6 }}

[functions.declared]
code = "{code}"
handler = "app.handler"
"""
CODE = """
import os
def handler(event, context):
    return {"type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], "version": context.function_version}
"""
ROLE = "arn:aws:iam::000000000000:role/r"


def ready(api, name, qualifier):
    def is_ready():
        config = api.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
        assert config["Status"] in ("IN_PROGRESS", "READY"), config
        return config["Status"] == "READY"

    wait_for(is_ready, description="what is provisioned is ready")


def call(api, name):
    answer = api.invoke(FunctionName=name)
    assert "FunctionError" not in answer
    return json.loads(answer["Payload"].read())


def test_provisioned_before_the_first_call_and_after_kill(daemon, tmp_path):
    bridge = daemon(CONFIG.format(code=write_function(tmp_path / "code", CODE)))
    api = lambda_client(bridge)
    api.create_function(
        FunctionName="made", Runtime="python3.13", Handler="app.handler", Role=ROLE, Code={"ZipFile": zipped({"app.py": CODE})}, Publish=True,
    )  # fmt: skip
    api.get_waiter("function_active_v2").wait(FunctionName="made", WaiterConfig={"Delay": 0.1})
    api.publish_version(FunctionName="declared")
    api.create_alias(FunctionName="declared", Name="live", FunctionVersion="1")
    for name, qualifier in (("made", "1"), ("declared", "live")):
        put = api.put_provisioned_concurrency_config(
            FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=1
        )
        assert put["Status"] == "IN_PROGRESS"
    ready(api, "made", "1")
    ready(api, "declared", "live")
    assert call(api, "made:1") == {"type": "provisioned-concurrency", "version": "1"}
    assert call(api, "declared")["type"] == "on-demand"
    listed = api.list_provisioned_concurrency_configs(FunctionName="made")["ProvisionedConcurrencyConfigs"]
    assert [each["Status"] for each in listed] == ["READY"]

    bridge.kill9()
    bridge.restart()
    api = lambda_client(bridge)
    ready(api, "declared", "live")
    assert call(api, "declared:live") == {"type": "provisioned-concurrency", "version": "1"}
    metrics = bridge.admin("GET", "/metrics").body.decode()
    assert 'bridge_provisioned_invocations_total{function="declared"} 1.0' in metrics
