"""Resource policies through Lambda's API: AWS's words, policies apart per qualifier, and who may invoke by them."""

import json

import pytest

from bridge.registry.policies import ResourcePolicies
from tests.documents import MemoryDocuments
from tests.unit.api.making import ARN, FUNCTIONS, Made, MemoryFunctions

POLICY = f"{FUNCTIONS}/made/policy"
OTHER = "222222222222"
HELLO = "arn:aws:lambda:us-east-1:000000000000:function:hello"


class Api(Made):
    """An api whose callers can be of several accounts: nobody is asked, and a key id of 12 digits is one."""

    def __init__(self, folder):
        self.store = MemoryDocuments()
        self.url_store = MemoryDocuments()
        super().__init__(folder, MemoryFunctions(), kinds={"policy": self.store, "url": self.url_store})
        self.policies, self.urls = self.attached.policies, self.attached.urls

    async def add(self, sid="s", principal=OTHER, path=POLICY, status=201, **more):
        body = {"StatementId": sid, "Principal": principal, "Action": "lambda:InvokeFunction"} | more
        return json.loads((await self.json("POST", path, body, status))["Statement"])

    async def invoke(self, name, *, account=OTHER, kind="RequestResponse", query=""):
        signed = f"AWS4-HMAC-SHA256 Credential={account}/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=x"
        answer = await self.world.ask(
            "POST", f"{FUNCTIONS}/{name}/invocations{query}", body=b"{}", token=None,
            headers={"authorization": signed, "x-amz-invocation-type": kind},
        )  # fmt: skip
        return answer.status


@pytest.fixture
async def api(tmp_path):
    async with Api(tmp_path).opened() as made:
        yield made


async def policy(api, query=""):
    found = await api.json("GET", POLICY + query)
    return json.loads(found["Policy"]), found["RevisionId"]


async def test_added_shown_and_removed(api):
    statement = await api.add("s3", "s3.amazonaws.com", SourceArn="arn:aws:s3:::bucket")
    shown, revision = await policy(api)

    assert shown == {"Version": "2012-10-17", "Id": "default", "Statement": [statement]}
    assert statement == {
        "Sid": "s3", "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "lambda:InvokeFunction",
        "Resource": ARN, "Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"}},
    }  # fmt: skip
    await api.add("two", "*", RevisionId=revision)
    assert (await policy(api))[1] != revision
    await api.ask("DELETE", f"{POLICY}/two", status=204)
    await api.ask("DELETE", f"{POLICY}/s3", status=204)
    text = await api.refused("GET", POLICY, None, 404, "ResourceNotFoundException")
    assert text == "The resource you requested does not exist."
    assert api.store.documents == {}


@pytest.mark.parametrize(
    ("body", "status", "code", "text"),
    [
        ({"Principal": "nobody"}, 400, "InvalidParameterValueException", "The provided principal was invalid. Please check the principal and try again."),
        ({"StatementId": "there"}, 409, "ResourceConflictException", "The statement id (there) provided already exists. Please provide a new statement id, or remove the existing statement."),
        ({"RevisionId": "stale"}, 412, "PreconditionFailedException", "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest Revision Id"),
        ({"StatementId": "a b"}, 400, "ValidationException", "1 validation error detected: Value 'a b' at 'statementId' failed to satisfy constraint: Member must satisfy regular expression pattern: ([a-zA-Z0-9-_]+)"),
        ({"Action": "s3:Get"}, 400, "ValidationException", "1 validation error detected: Value 's3:Get' at 'action' failed to satisfy constraint: Member must satisfy regular expression pattern: (lambda:[*]|lambda:[a-zA-Z]+|[*])"),
        ({"FunctionUrlAuthType": "NONE"}, 400, "InvalidParameterValueException", "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action"),
        ({"SourceArn": "arn:aws:s3:::" + "b" * 9000}, 400, "PolicyLengthExceededException", None),
    ],
)  # fmt: skip
async def test_what_cannot_be_added(api, body, status, code, text):
    await api.add("there", SourceArn="arn:aws:s3:::" + "a" * 9000)
    await api.add("more", SourceArn="arn:aws:s3:::" + "a" * 3000)
    base = {"StatementId": "s", "Principal": OTHER, "Action": "lambda:InvokeFunction"}

    said = await api.refused("POST", POLICY, base | body, status, code)

    assert text is None or said == text
    assert len((await policy(api))[0]["Statement"]) == 2


async def test_what_cannot_be_removed(api):
    text = await api.refused("DELETE", f"{POLICY}/s", None, 404, "ResourceNotFoundException")
    assert text == "No policy is associated with the given resource."
    await api.add()
    text = await api.refused("DELETE", f"{POLICY}/x", None, 404, "ResourceNotFoundException")
    assert text == "Statement x is not found in resource policy."
    await api.refused("DELETE", f"{POLICY}/s?RevisionId=x", None, 412, "PreconditionFailedException")


async def test_latest_has_no_policy_and_unknown_qualifiers_are_not_found(api):
    base = {"StatementId": "s", "Principal": OTHER, "Action": "lambda:InvokeFunction"}
    text = await api.refused("POST", f"{POLICY}?Qualifier=$LATEST", base, 400, "InvalidParameterValueException")
    assert text == "We currently do not support adding policies for $LATEST."
    await api.refused("POST", f"{POLICY}?Qualifier=nope", base, 404, "ResourceNotFoundException")


async def test_check_29_a_statement_on_an_alias_does_not_allow_the_function(api):
    statement = await api.add(path=f"{POLICY}?Qualifier=prod")

    assert statement["Resource"] == f"{ARN}:prod"
    assert await api.invoke(f"{ARN}:prod") == 200
    assert await api.invoke(ARN) == 403
    assert await api.invoke(f"{ARN}:1") == 403
    await api.refused("GET", POLICY, None, 404, "ResourceNotFoundException")
    await api.add("one", path=f"{POLICY}?Qualifier=1")
    assert await api.invoke(f"{ARN}:1") == 200


async def test_a_statement_on_the_function_does_not_show_at_its_alias(api):
    await api.add()

    assert await api.invoke(ARN) == 200
    assert await api.invoke(f"{ARN}:$LATEST") == 200
    assert await api.invoke(f"{ARN}:prod") == 403
    await api.refused("GET", f"{POLICY}?Qualifier=prod", None, 404, "ResourceNotFoundException")


async def test_check_02_dry_run_tells_who_may_invoke_and_runs_nothing(api):
    assert await api.invoke(ARN, kind="DryRun") == 403
    await api.add()
    assert await api.invoke(ARN, kind="DryRun") == 204
    assert await api.invoke(ARN, kind="DryRun", account="333333333333") == 403
    assert await api.invoke("made", kind="DryRun", account="000000000000") == 204, "its own account needs no statement"
    assert api.world.runtime.invocations == []


async def test_another_account_is_told_that_no_statement_allows_it(api):
    answer = await api.world.ask(
        "POST", f"{FUNCTIONS}/{ARN}/invocations", body=b"{}", token=None,
        headers={"authorization": f"AWS4-HMAC-SHA256 Credential={OTHER}/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host;x-amz-date, Signature=x"},
    )  # fmt: skip

    assert answer.json()["message"] == (
        f"User: arn:aws:iam::{OTHER}:user/{OTHER} is not authorized to perform: lambda:InvokeFunction on resource: "
        f"{ARN} because no resource-based policy allows the lambda:InvokeFunction action"
    )


async def test_policies_go_with_their_alias_version_and_function(api):
    for query in ("", "?Qualifier=prod", "?Qualifier=1"):
        await api.add(path=POLICY + query)
    await api.ask("DELETE", f"{FUNCTIONS}/made/aliases/prod", status=204)
    assert sorted(api.store.documents) == [(ARN, ""), (ARN, "1")]
    await api.json("POST", f"{FUNCTIONS}/made/aliases", {"Name": "prod", "FunctionVersion": "1"}, 201)
    assert await api.invoke(f"{ARN}:prod") == 403
    await api.ask("DELETE", f"{FUNCTIONS}/made/aliases/prod", status=204)
    await api.ask("DELETE", f"{FUNCTIONS}/made?Qualifier=1", status=204)
    assert sorted(api.store.documents) == [(ARN, "")]
    await api.ask("DELETE", f"{FUNCTIONS}/made", status=204)
    assert api.store.documents == {}


async def test_what_the_file_implies_is_shown_first_and_not_removed(api):
    implied = {
        "Sid": "config-orders",
        "Effect": "Allow",
        "Principal": {"Service": "bridge"},
        "Action": "lambda:InvokeFunction",
        "Resource": HELLO,
    }
    api.policies.set_implied({(HELLO, ""): [implied]})
    path = f"{FUNCTIONS}/hello/policy"
    found = await api.json("GET", path)
    assert json.loads(found["Policy"])["Statement"] == [implied]

    added = await api.add(path=path, RevisionId=found["RevisionId"])

    found = await api.json("GET", path)
    assert json.loads(found["Policy"])["Statement"] == [implied, added]
    text = await api.refused("DELETE", f"{path}/config-orders", None, 400, "InvalidParameterValueException")
    assert 'policy = "explicit"' in text
    base = {"StatementId": "config-orders", "Principal": OTHER, "Action": "lambda:InvokeFunction"}
    await api.refused("POST", path, base, 409, "ResourceConflictException")


async def test_policies_are_read_back(api):
    await api.add()
    await api.add("two", path=f"{POLICY}?Qualifier=prod")
    again = ResourcePolicies(api.store)
    await again.open()

    for place in ((ARN, ""), (ARN, "prod")):
        assert again.added(place) == api.policies.added(place)
