"""Function URLs as boto3 makes them: open and signed ones of a declared function, on the public listener alone."""

import json
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.harness import request, write_function
from tests.lambda_client import lambda_client

pytestmark = [pytest.mark.integration]

CONFIG = """
account = "123456789012"
region = "eu-central-1"

[access_keys.OWNER]
secret = {{ env = "LAMBDA_SECRET" }}

[functions.hello]
code = "{code}"
handler = "app.handler"
"""
CODE = """
def handler(event, context):
    who = event["requestContext"].get("authorizer", {}).get("iam", {}).get("accessKey")
    return {"statusCode": 201, "headers": {"x-who": who or "anonymous"}, "body": event["rawPath"]}
"""
SECRET = "a-canary-that-signs"


def client(bridge):
    return lambda_client(bridge, "OWNER", SECRET, region="eu-central-1")


def ask(bridge, url, path="/a", headers=None):
    """Ask as a client does that has resolved the URL's name."""
    return request("GET", bridge.public + path, headers={"Host": urlsplit(url).netloc} | (headers or {}))


def test_open_then_signed_over_kill_9(daemon, tmp_path):
    bridge = daemon(CONFIG.format(code=write_function(tmp_path / "code", CODE)), LAMBDA_SECRET=SECRET)
    api = client(bridge)
    url = api.create_function_url_config(FunctionName="hello", AuthType="NONE")["FunctionUrl"]
    assert ask(bridge, url).status == 403
    for sid, action, more in (
        ("url", "lambda:InvokeFunctionUrl", {"FunctionUrlAuthType": "NONE"}),
        ("invoke", "lambda:InvokeFunction", {"InvokedViaFunctionUrl": True}),
    ):
        api.add_permission(FunctionName="hello", StatementId=sid, Action=action, Principal="*", **more)
    answer = ask(bridge, url)
    assert (answer.status, answer.body, answer.headers["x-who"]) == (201, b"/a", "anonymous")
    url_id = urlsplit(url).hostname.partition(".")[0]
    assert request("GET", f"{bridge.public}/lambda-url/{url_id}/b").body == b"/b"
    assert request("GET", f"{bridge.api}/lambda-url/{url_id}/b").status == 401, "the api listener serves none"

    api.update_function_url_config(FunctionName="hello", AuthType="AWS_IAM")
    bridge.kill9()
    bridge.restart()

    api = client(bridge)
    [shown] = api.list_function_url_configs(FunctionName="hello")["FunctionUrlConfigs"]
    assert shown["AuthType"] == "AWS_IAM"
    url = shown["FunctionUrl"]
    assert urlsplit(url).hostname.partition(".")[0] == url_id
    assert ask(bridge, url).status == 403
    signed = AWSRequest(method="GET", url=url.rstrip("/") + "/a")
    SigV4Auth(Credentials("OWNER", SECRET), "lambda", "eu-central-1").add_auth(signed)
    answer = ask(bridge, url, headers=dict(signed.headers.items()))
    assert (answer.status, answer.headers["x-who"]) == (201, "OWNER")

    api.delete_function_url_config(FunctionName="hello")
    gone = request("GET", f"{bridge.public}/lambda-url/{url_id}/")
    assert (gone.status, json.loads(gone.body)) == (404, {"Message": None})
