"""boto3 makes layers and functions that have them, and the file names some: run, shared, deleted, kept over kill -9."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.harness import DaemonProcess, wait_for, write_function
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


def test_layers_of_the_file_are_merged_and_an_edited_one_counts_at_once(tmp_path, request):
    code = write_function(tmp_path / "code", "import common\ndef handler(event, context): return common.VALUE\n")
    common = tmp_path / "layers/one/python/common.py"
    common.parent.mkdir(parents=True)
    common.write_text("VALUE = 'one'\n")
    layers = f"['{tmp_path}/layers/one']"
    function = f'code = "{code}"\nhandler = "app.handler"\n'
    config = (
        f'{CONFIG}[functions.a]\n{function}layers = {layers}\n[functions.b]\n{function}layers = ["{ARN}:tools:1"]\n'
    )
    bridge = DaemonProcess(tmp_path, config, command=("-m", "bridge"))
    request.node.daemons = [bridge]
    bridge.command = ("-c", "import sys; from bridge.cli.main import main; main([*sys.argv[1:], '--watch'])")
    try:
        bridge.start()
        api = client(bridge)
        assert answered(api, "a") == "one"
        assert "Layer version" in bridge.cli("doctor").stdout
        with pytest.raises(ClientError, match="InvalidZipFileException.*tools:1 does not exist"):
            answered(api, "b")
        publish(api, "tools", {"python/common.py": "VALUE = 'tools'"})
        assert "function b" in bridge.cli("reload").stdout
        assert answered(api, "b") == "tools"
        shown = bridge.cli("functions", "show", "a").stdout
        assert f"{tmp_path}/layers/one" in shown

        common.write_text("VALUE = 'two'\n")
        wait_for(lambda: answered(api, "a") == "two", description="the edit is seen")
    finally:
        bridge.stop()


def answered(api, name):
    return json.loads(api.invoke(FunctionName=name, Payload=b"{}")["Payload"].read())
