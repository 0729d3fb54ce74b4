"""boto3 makes functions of one name in several accounts and regions: each runs as itself, over kill -9, until a reset."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.harness import request, wait_for, write_function
from tests.lambda_client import lambda_client
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

HOME = ("123456789012", "eu-central-1")
ABROAD = ("123456789012", "us-west-2")
OTHER = ("222222222222", "eu-central-1")
SPACES = (HOME, ABROAD, OTHER)
CONFIG = """
account = "123456789012"
region = "eu-central-1"
api = {{ auth = "none" }}
dev = {{ reset = true }}

[functions.hello]
code = "{code}"
handler = "app.handler"

[sources.route]
type = "webhook"
path = "/route"
verify = "none"
format = "apigateway-v2"
invocation_type = "RequestResponse"
function = "arn:aws:lambda:us-west-2:123456789012:function:made:live"
"""
CODE = """
import os
def handler(event, context):
    if "fail" in event:
        raise ValueError(event["fail"])
    return {"code": "%s", "name": context.function_name, "arn": context.invoked_function_arn, "secret": os.environ["SECRET"],
            "region": os.environ["AWS_REGION"], "group": context.log_group_name}
"""


def arn(space):
    account, region = space
    return f"arn:aws:lambda:{region}:{account}:function:made"


def called(space):
    account, region = space
    return "made" if space == HOME else f"made@{region}.{account}"


def make(bridge, space):
    account, region = space
    api = lambda_client(bridge, account, region=region)
    made = api.create_function(
        FunctionName="made", Runtime="python3.13", Handler="app.handler", Role=f"arn:aws:iam::{account}:role/r",
        Code={"ZipFile": zipped({"app.py": CODE % called(space)})}, Publish=True,
        Environment={"Variables": {"SECRET": "/".join(space)}},
    )  # fmt: skip
    assert made["FunctionArn"] == f"{arn(space)}:1"
    api.get_waiter("function_active_v2").wait(FunctionName="made", WaiterConfig={"Delay": 0.1})
    api.create_alias(FunctionName="made", Name="live", FunctionVersion="1")
    return api


def ran(api, name="made"):
    answer = api.invoke(FunctionName=name, Payload=b"{}")
    assert "FunctionError" not in answer, answer["Payload"].read()
    return json.loads(answer["Payload"].read())


def expected(space, qualifier=""):
    return {
        "code": called(space), "name": "made", "arn": arn(space) + qualifier, "secret": "/".join(space),
        "region": space[1], "group": "/aws/lambda/made",
    }  # fmt: skip


def letters(bridge):
    return [each["function"] for each in bridge.admin("GET", "/admin/v1/dlq").json()["dead_letters"]]


def test_one_name_in_three_of_them(daemon, tmp_path):
    code = write_function(tmp_path / "code", "def handler(event, context):\n    return 'declared'\n")
    bridge = daemon(CONFIG.format(code=code))
    apis = {space: make(bridge, space) for space in SPACES}
    for space, api in apis.items():
        assert (ran(api), ran(api, f"{arn(space)}:live")) == (expected(space), expected(space, ":live"))
    with pytest.raises(ClientError) as caught:
        apis[OTHER].invoke(FunctionName=arn(HOME), Payload=b"{}")
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"

    answer = request("POST", f"{bridge.public}/route", body=b"{}")
    assert (answer.status, answer.json()["arn"]) == (200, f"{arn(ABROAD)}:live")
    apis[OTHER].put_function_event_invoke_config(FunctionName="made", MaximumRetryAttempts=0)
    apis[OTHER].invoke(FunctionName="made", InvocationType="Event", Payload=b'{"fail": "there"}')
    wait_for(
        lambda: letters(bridge) == [called(OTHER)],
        description="the dead letter names its function",
    )

    bridge.kill9()
    bridge.restart()
    apis = {(account, region): lambda_client(bridge, account, region=region) for account, region in SPACES}
    assert [ran(api, "made:live") for api in apis.values()] == [expected(space, ":live") for space in SPACES]
    apis[OTHER].delete_function(FunctionName="made")
    lists = [[each["FunctionName"] for each in api.list_functions()["Functions"]] for api in apis.values()]
    assert lists == [["hello", "made"], ["made"], []]
    assert ran(apis[ABROAD]) == expected(ABROAD)
    known = bridge.admin("GET", "/admin/v1/functions").json()["functions"]
    assert [each["name"] for each in known] == ["hello", "made", called(ABROAD)]

    bridge.admin("POST", "/admin/v1/reset")
    assert apis[ABROAD].list_functions()["Functions"] == []
    assert [each["FunctionName"] for each in apis[HOME].list_functions()["Functions"]] == ["hello"]
