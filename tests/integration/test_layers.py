"""boto3 makes layers and functions that have them: run, shared, deleted, and kept over kill -9."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

CONFIG = 'account = "123456789012"\nregion = "eu-central-1"\napi = { auth = "none" }\n'
ARN = "arn:aws:lambda:eu-central-1:123456789012:layer"
CODE = """
import os, subprocess
import common, own
def handler(event, context):
    tool = subprocess.run(["tool"], capture_output=True, text=True).stdout
    return {"common": common.VALUE, "own": own.VALUE, "tool": tool.strip(), "opt": os.environ["PYTHONPATH"].count("/python")}
"""


def client(bridge, account="123456789012"):
    return lambda_client(bridge, account, region="eu-central-1")


def publish(api, name, files):
    made = api.publish_layer_version(
        LayerName=name, Content={"ZipFile": zipped(files)}, CompatibleRuntimes=["python3.13"]
    )
    return made["LayerVersionArn"]


def call(api):
    answer = api.invoke(FunctionName="made", Payload=b"{}")
    assert "FunctionError" not in answer, answer["Payload"].read()
    return json.loads(answer["Payload"].read())


def test_check_30_of_two_layers_with_the_same_file_the_later_one_wins(daemon):
    bridge = daemon(CONFIG)
    api, other = client(bridge), client(bridge, "999999999999")
    first = publish(api, "first", {"python/common.py": "VALUE = 'first'", "bin/tool": "#!/bin/sh\necho a tool\n"})
    second = publish(other, "second", {"python/common.py": "VALUE = 'second'"})
    code = zipped({"app.py": CODE, "own.py": "VALUE = 'own'"})
    given = {
        "FunctionName": "made", "Runtime": "python3.13", "Handler": "app.handler", "Layers": [first, second],
        "Role": "arn:aws:iam::123456789012:role/r", "Code": {"ZipFile": code},
    }  # fmt: skip
    with pytest.raises(ClientError, match="AccessDeniedException.*lambda:GetLayerVersion"):
        api.create_function(**given)
    other.add_layer_version_permission(
        LayerName="second", VersionNumber=1, StatementId="all", Action="lambda:GetLayerVersion", Principal="*"
    )
    assert [each["Arn"] for each in api.create_function(**given)["Layers"]] == [first, second]
    api.get_waiter("function_active_v2").wait(FunctionName="made", WaiterConfig={"Delay": 0.1})
    seen = call(api)
    assert (seen["common"], seen["own"], seen["tool"]) == ("second", "own", "a tool")
    assert seen["opt"] >= 2

    api.update_function_configuration(FunctionName="made", Layers=[second, first])
    api.get_waiter("function_updated_v2").wait(FunctionName="made", WaiterConfig={"Delay": 0.1})
    assert call(api)["common"] == "first"

    api.delete_layer_version(LayerName="first", VersionNumber=1)
    bridge.kill9()
    api = client(bridge.restart())
    assert call(api)["common"] == "first"
    assert api.list_layers(CompatibleRuntime="python3.13")["Layers"] == []
    assert publish(api, "first", {"python/common.py": "VALUE = 'third'"}) == f"{ARN}:first:2"
    assert api.get_layer_version_by_arn(Arn=second)["Version"] == 1
