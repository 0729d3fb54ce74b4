"""Resource policies as boto3 makes them: callers of two accounts, signed, over kill -9."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.harness import request, write_function
from tests.lambda_client import lambda_client

pytestmark = [pytest.mark.integration]

CONFIG = """
account = "123456789012"
region = "eu-central-1"

[access_keys.OWNER]
secret = {{ env = "LAMBDA_SECRET" }}

[access_keys.PARTNER]
secret = {{ env = "LAMBDA_SECRET" }}
account = "222222222222"
allow = ["lambda:InvokeFunction"]
organization = "o-1234567890"

[functions.hello]
code = "{code}"
handler = "app.handler"

[sources.open]
type = "webhook"
path = "/open"
function = "hello"
verify = "none"
invocation_type = "DryRun"

[sources.asks]
type = "webhook"
path = "/asks"
function = "hello"
verify = "none"
invocation_type = "DryRun"
policy = "explicit"
"""
CODE = "def handler(event, context):\n    return 'hello'\n"
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:hello"
SECRET = "a-canary-that-signs"


@pytest.fixture
def bridge(daemon, tmp_path):
    return daemon(CONFIG.format(code=write_function(tmp_path / "code", CODE)), LAMBDA_SECRET=SECRET)


def client(bridge, key="OWNER"):
    return lambda_client(bridge, key, SECRET, region="eu-central-1")


def status(api, **given):
    try:
        return api.invoke(FunctionName=ARN, **given)["StatusCode"]
    except ClientError as error:
        return error.response["Error"]["Code"]


def test_another_account_invokes_by_a_statement_that_survives_kill_9(bridge):
    owner, partner = client(bridge), client(bridge, "PARTNER")
    assert status(partner) == "AccessDeniedException"
    assert status(partner, InvocationType="DryRun") == "AccessDeniedException"
    for sid, organization in (("ours", "o-1234567890"), ("theirs", "o-0000000000")):
        owner.add_permission(
            FunctionName="hello", StatementId=sid, Action="lambda:InvokeFunction", Principal="*",
            PrincipalOrgID=organization,
        )  # fmt: skip
    assert status(partner, InvocationType="DryRun") == 204
    assert status(partner) == 200

    bridge.kill9()
    bridge.restart()

    owner, partner = client(bridge), client(bridge, "PARTNER")
    policy = owner.get_policy(FunctionName="hello")
    assert [each["Sid"] for each in json.loads(policy["Policy"])["Statement"]] == ["config-open", "ours", "theirs"]
    assert status(partner) == 200
    owner.remove_permission(FunctionName="hello", StatementId="ours", RevisionId=policy["RevisionId"])
    assert status(partner) == "AccessDeniedException", "the other statement is for another organization"


def test_a_route_needs_a_statement_where_its_own_is_not_implied(bridge):
    owner = client(bridge)
    assert request("POST", f"{bridge.public}/open", body=b"{}").status == 204
    assert request("POST", f"{bridge.public}/asks", body=b"{}").status == 403

    owner.add_permission(
        FunctionName="hello", StatementId="asks", Action="lambda:InvokeFunction", Principal="apigateway.amazonaws.com",
        SourceArn="arn:aws:execute-api:eu-central-1:123456789012:asks/*/*/asks",
    )  # fmt: skip

    assert request("POST", f"{bridge.public}/asks", body=b"{}").status == 204
