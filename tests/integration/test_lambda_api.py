"""boto3 and the AWS CLI against a daemon's own Lambda API: signed, by the key's rights, over declared functions."""

import base64
import json
import os
import subprocess
import urllib.request

import pytest
from botocore.exceptions import ClientError

from tests.brokers.emulators import HOW_TO_GET_IT, awscli
from tests.harness import wait_for, write_function
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

CODE = """
def handler(event, context):
    print("seen", event)
    if event.get("fails"):
        raise ValueError("no")
    return {"event": event, "custom": context.client_context.custom if context.client_context else None}
"""
CONFIG = """
account = "123456789012"
region = "eu-central-1"
{api}
[access_keys.BRIDGEADMIN]
secret = {{ env = "LAMBDA_SECRET" }}

[access_keys.BRIDGECALLER]
secret = {{ env = "LAMBDA_SECRET" }}
allow = ["lambda:InvokeFunction"]

[functions.hello]
code = "{code}"
handler = "app.handler"
reserved_concurrency = 5

[mappings.clicks]
source = "local://clicks?as=kinesis"
function = "hello"
"""
SECRET = "a-canary-that-signs"


@pytest.fixture
def bridge(daemon, tmp_path):
    return daemon(CONFIG.format(code=write_function(tmp_path / "code", CODE), api=""), LAMBDA_SECRET=SECRET)


def client(bridge, key="BRIDGEADMIN", secret=SECRET):
    return lambda_client(bridge, key, secret, region="eu-central-1")


def test_boto3_invokes_and_looks(bridge):
    api = client(bridge)
    context = base64.b64encode(b'{"custom": {"who": "ada"}}').decode()

    answer = api.invoke(FunctionName="hello", Payload=b'{"n": 1}', LogType="Tail", ClientContext=context)
    assert json.loads(answer["Payload"].read()) == {"event": {"n": 1}, "custom": {"who": "ada"}}
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert b"seen {'n': 1}" in base64.b64decode(answer["LogResult"])

    failed = api.invoke(FunctionName="hello:$LATEST", Payload=b'{"fails": true}')
    assert (failed["FunctionError"], json.loads(failed["Payload"].read())["errorType"]) == ("Unhandled", "ValueError")

    stored = api.invoke(FunctionName="arn:aws:lambda:eu-central-1:123456789012:function:hello", InvocationType="Event")
    request_id = stored["ResponseMetadata"]["RequestId"]
    wait_for(
        lambda: bridge.admin("GET", f"/admin/v1/events/{request_id}").json()["state"] == "succeeded",
        description="the event is handled",
    )
    assert api.invoke(FunctionName="hello", InvocationType="DryRun")["StatusCode"] == 204

    streamed = list(api.invoke_with_response_stream(FunctionName="hello", Payload=b'{"n": 2}')["EventStream"])
    assert json.loads(streamed[0]["PayloadChunk"]["Payload"])["event"] == {"n": 2}
    assert "InvokeComplete" in streamed[1]

    (listed,) = [page["Functions"] for page in api.get_paginator("list_functions").paginate()]
    assert [each["FunctionName"] for each in listed] == ["hello"]
    assert api.get_function(FunctionName="hello")["Concurrency"] == {"ReservedConcurrentExecutions": 5}
    api.get_waiter("function_active_v2").wait(FunctionName="hello")
    (mapping,) = api.list_event_source_mappings(FunctionName="hello")["EventSourceMappings"]
    assert api.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Enabled"
    assert api.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 995
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.get_policy(FunctionName="hello")


def test_rights_and_signatures(bridge):
    caller = client(bridge, key="BRIDGECALLER")
    assert caller.invoke(FunctionName="hello", Payload=b"{}")["StatusCode"] == 200
    with pytest.raises(ClientError, match=r"AccessDeniedException.*lambda:ListFunctions"):
        caller.list_functions()
    with pytest.raises(ClientError, match="InvalidSignatureException"):
        client(bridge, secret="wrong").list_functions()
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        client(bridge, key="NOBODY").list_functions()
    assert SECRET not in bridge.log()
    assert SECRET not in bridge.cli("config", "show", str(bridge.file)).stdout


def test_a_signature_covers_a_package_of_many_megabytes(bridge):
    code = "def handler(event, context):\n    return 'signed'\n"
    package = zipped({"app.py": code, "data.bin": os.urandom(20_000_000)})
    given = {
        "FunctionName": "signed", "Runtime": "python3.13", "Handler": "app.handler", "Code": {"ZipFile": package},
        "Role": "arn:aws:iam::123456789012:role/r",
    }  # fmt: skip
    with pytest.raises(ClientError, match="InvalidSignatureException"):
        client(bridge, secret="wrong").create_function(**given)
    with pytest.raises(ClientError, match=r"AccessDeniedException.*lambda:CreateFunction"):
        client(bridge, key="BRIDGECALLER").create_function(**given)
    api = client(bridge)
    assert api.create_function(**given)["CodeSize"] == len(package)
    api.get_waiter("function_active_v2").wait(FunctionName="signed", WaiterConfig={"Delay": 0.1})
    assert json.loads(api.invoke(FunctionName="signed")["Payload"].read()) == "signed"
    link = api.get_function(FunctionName="signed")["Code"]["Location"]
    with urllib.request.urlopen(link, timeout=60) as answer:  # nobody signs it, as with curl
        assert answer.read() == package
    assert [path.name for path in (bridge.state / "shared" / "packages").iterdir() if path.name.startswith(".")] == []


def test_without_keys_on_loopback(daemon, tmp_path):
    code = write_function(tmp_path / "code", CODE)
    bridge = daemon(CONFIG.format(code=code, api='api = { auth = "none" }'), LAMBDA_SECRET=SECRET)
    assert client(bridge, key="test", secret="test").invoke(FunctionName="hello", Payload=b"{}")["StatusCode"] == 200


def test_the_aws_cli(bridge, tmp_path):
    program = awscli()
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no awscli on this machine: {HOW_TO_GET_IT}")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    environment = clean | {
        "AWS_ACCESS_KEY_ID": "BRIDGEADMIN", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_PAGER": "", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip

    def run(*arguments):
        done = subprocess.run(
            [program.parent / "python", program, "--endpoint-url", bridge.api, "--output", "json", "lambda", *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    out = tmp_path / "out.json"
    answered = run("invoke", "--function-name", "hello", "--payload", '{"n": 3}', str(out))
    assert answered["StatusCode"] == 200
    assert json.loads(out.read_text())["event"] == {"n": 3}
    assert run("get-function-configuration", "--function-name", "hello")["Handler"] == "app.handler"
    assert [each["FunctionName"] for each in run("list-functions")["Functions"]] == ["hello"]
