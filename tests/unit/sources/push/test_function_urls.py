"""Function URLs on the public listener: found by Host or path, who may, CORS, events and answers as Lambda's."""

import datetime as dt
import json
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bridge.core.errors import RuntimeUnavailable, Throttled
from bridge.core.invocation import THROTTLE_RESERVED, InvocationResult, ResultKind
from bridge.core.spaces import Space
from bridge.registry.access import AccessKey
from bridge.registry.attached import NoDocuments
from bridge.registry.policies import ResourcePolicies
from bridge.registry.roles import Role, forbidden
from bridge.registry.sigv4 import UNKNOWN_CALLER
from bridge.registry.statements import INVOKE, INVOKE_URL, make_statement
from bridge.registry.urls import FunctionUrl, FunctionUrls
from bridge.sources.push.function_urls import FunctionUrlApp
from bridge.sources.push.routes import Route
from bridge.sources.push.signatures import make_verifier
from bridge.sources.push.webhook import WebhookSource
from bridge.testing.clock import ManualClock
from bridge.testing.push import MemoryIntake, ScriptedInvoker

NOW = 1_767_225_600.0
FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:hello"
ID = "a" * 32
HOST = f"{ID}.lambda-url.eu-central-1.localhost"
STAMP = "2026-01-01T00:00:00.000+0000"
KEYS = {
    "OWNER": AccessKey(id="OWNER", secret="s", account="123456789012"),
    "READER": AccessKey(id="READER", secret="s", account="123456789012", allow=("lambda:Get*",)),
    "PARTNER": AccessKey(id="PARTNER", secret="s", account="222222222222", organization="o-1234567890"),
}

ROLE = "arn:aws:iam::123456789012:role/caller"
KEYS["MINTED"] = AccessKey(
    id="MINTED", secret="s", token="t", account="123456789012", allow=(), role=ROLE, session="f"
)  # fmt: skip


class World:
    def __init__(self):
        self.clock = ManualClock(time=NOW)
        self.intake, self.invoker = MemoryIntake(), ScriptedInvoker()
        self.events = []
        self.answer = b'"hello"'
        for target in ("hello", "hello:live"):
            self.invoker.answers[target] = self._run
        route = Route(name="r", path="/hooks/r", function="hello", verifier=make_verifier("none", clock=self.clock))
        self.webhooks = WebhookSource([route], intake=self.intake, invoker=self.invoker, clock=self.clock)
        home = Space("123456789012", "eu-central-1")
        self.urls, self.policies = FunctionUrls(NoDocuments(), home), ResourcePolicies(NoDocuments())
        self.roles = {ROLE: forbidden(ROLE)}
        self.app = FunctionUrlApp(
            self.webhooks, urls=self.urls, policies=self.policies, keys=KEYS.get, role_of=self.roles.get, intake=self.intake,
            invoker=self.invoker, clock=self.clock, domain="localhost",
        )  # fmt: skip

    def _run(self, _request_id, payload):
        self.events.append(json.loads(payload))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def make(self, auth_type="NONE", qualifier="", function=FUNCTION, **more):
        url = FunctionUrl(
            id=ID,
            function=function,
            qualifier=qualifier,
            auth_type=auth_type,
            created_at=STAMP,
            modified_at=STAMP,
            **more,
        )
        await self.urls.put(url)
        return url

    async def allow(self, *actions, principal="*", auth_type="NONE", qualifier="", function=FUNCTION):
        conditions = {INVOKE_URL: {"FunctionUrlAuthType": auth_type}, INVOKE: {"InvokedViaFunctionUrl": "true"}}
        statements = [
            make_statement(
                f"s{n}", action=action, principal=principal, resource=function, conditions=conditions[action]
            )
            for n, action in enumerate(actions or (INVOKE_URL, INVOKE))
        ]
        await self.policies.put((function, qualifier), statements)

    async def ask(self, method="GET", target="/", *, host=HOST, body=b"", headers=()):
        parts, sent = urlsplit(target), []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        given = [(name.lower().encode(), value.encode()) for name, value in dict(headers).items()]
        scope = {"type": "http", "method": method, "raw_path": parts.path.encode(), "query_string": parts.query.encode(),
                 "headers": [(b"host", host.encode()), *given], "http_version": "1.1", "client": ("203.0.113.5", 4711)}  # fmt: skip
        await self.app(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    def signed(self, key="OWNER", *, method="GET", target="/", host=HOST, body=b"", region="eu-central-1"):
        """Return the headers of a request that botocore has signed."""
        request = AWSRequest(method=method, url=f"http://{host}{target}", data=body)
        stamp = dt.datetime.fromtimestamp(NOW, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        request.context["timestamp"] = stamp
        request.headers["X-Amz-Date"] = stamp
        auth = SigV4Auth(Credentials(key, KEYS[key].secret), "lambda", region)
        text = auth.canonical_request(request)
        request.headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={auth.signed_headers(auth.headers_to_sign(request))}, "
            f"Signature={auth.signature(auth.string_to_sign(request, text), request)}"
        )
        return dict(request.headers.items())


@pytest.fixture
def world():
    return World()


# --- found -------------------------------------------------------------------------------------------------------


async def test_a_request_is_found_by_its_host_and_answered_as_format_2_0_is(world):
    await world.make()
    await world.allow()
    status, headers, body = await world.ask(
        "POST", "/a/b?c=1&c=2", body=b'{"n":1}', headers={"Content-Type": "application/json"}
    )
    (event,) = world.events

    assert (status, body) == (200, b"hello")
    assert event["version"] == "2.0"
    assert (event["rawPath"], event["rawQueryString"]) == ("/a/b", "c=1&c=2")
    assert event["body"] == '{"n":1}'
    context = event["requestContext"]
    assert (context["accountId"], context["apiId"], context["domainPrefix"]) == ("anonymous", ID, ID)
    assert context["domainName"] == HOST
    assert context["http"]["sourceIp"] == "203.0.113.5"
    assert "authorizer" not in context
    assert headers[b"x-amzn-requestid"].decode() == context["requestId"]
    assert [(record.source, record.function) for record in world.intake.archived] == [("lambda-url", "hello")]


@pytest.mark.parametrize(
    ("target", "path"), [("", "/"), ("/", "/"), ("/a/b", "/a/b"), ("/lambda-url/x", "/lambda-url/x")]
)
async def test_a_request_is_found_by_its_path(world, target, path):
    await world.make()
    await world.allow()
    assert (await world.ask(target=f"/lambda-url/{ID}{target}", host="127.0.0.1:8580"))[0] == 200
    assert world.events[0]["rawPath"] == world.events[0]["requestContext"]["http"]["path"] == path
    assert world.events[0]["requestContext"]["domainName"] == HOST


async def test_a_port_and_capitals_in_the_host_do_not_matter(world):
    await world.make()
    await world.allow()
    assert (await world.ask(host=f"{HOST.upper()}:8580"))[0] == 200


async def test_an_unknown_id_is_404_and_everything_else_a_webhook_s(world):
    await world.make()
    for where in ({"host": HOST.replace("a" * 32, "b" * 32)}, {"target": f"/lambda-url/{'b' * 32}/"}):
        status, _, body = await world.ask(**where)
        assert (status, json.loads(body)) == (404, {"Message": None})
    assert (await world.ask("POST", "/hooks/r", host="localhost", body=b"{}"))[0] == 202
    assert (await world.ask(host=f"{ID}.lambda-url.eu-central-1.example.com"))[0] == 404
    assert world.events == []


async def test_an_alias_is_what_runs(world):
    await world.make(qualifier="live")
    await world.allow()
    assert (await world.ask())[0] == 403, "the function's own policy is another one"
    await world.allow(qualifier="live")
    assert (await world.ask())[0] == 200
    assert world.invoker.invoked[0][0] == "hello:live"


async def test_one_of_another_name_space_runs_that_function(world):
    elsewhere = FUNCTION.replace("123456789012", "222222222222")
    name = "hello@eu-central-1.222222222222:live"
    world.invoker.answers[name] = world._run
    await world.make(qualifier="live", function=elsewhere)
    await world.allow(qualifier="live")
    assert (await world.ask())[0] == 403, "that is the policy of the file's function"
    await world.allow(qualifier="live", function=elsewhere)
    assert (await world.ask())[0] == 200
    assert world.invoker.invoked[0][0] == name


# --- who may -----------------------------------------------------------------------------------------------------


async def test_an_open_url_needs_both_public_statements(world):
    await world.make()
    for actions in ((INVOKE_URL,), (INVOKE,)):
        await world.allow(*actions)
        status, headers, body = await world.ask()
        assert (status, headers[b"x-amzn-errortype"]) == (403, b"AccessDeniedException")
        assert json.loads(body)["Message"].startswith(
            "Forbidden. For troubleshooting Function URL authorization issues"
        )
    await world.allow(principal="123456789012")
    assert (await world.ask())[0] == 403
    await world.allow(auth_type="AWS_IAM")
    assert (await world.ask())[0] == 403
    await world.allow()
    assert (await world.ask())[0] == 200
    assert len(world.events) == 1


async def test_a_signed_url_lets_the_account_s_own_keys_in_by_their_actions(world):
    await world.make("AWS_IAM")
    headers = world.signed(method="POST", target="/a?b=1", body=b"x")
    assert (await world.ask("POST", "/a?b=1", body=b"x", headers=headers))[0] == 200
    (event,) = world.events
    assert event["requestContext"]["accountId"] == "123456789012"
    assert event["requestContext"]["authorizer"] == {
        "iam": {
            "accessKey": "OWNER", "accountId": "123456789012", "callerId": "OWNER", "cognitoIdentity": None,
            "principalOrgId": None, "userArn": "arn:aws:iam::123456789012:user/OWNER", "userId": "OWNER",
        }
    }  # fmt: skip
    assert "authorization" not in event["headers"]
    assert (await world.ask(headers=world.signed("READER")))[0] == 403


async def test_a_function_calls_with_its_own_key_what_its_role_lets_it(world):
    await world.make("AWS_IAM")
    known = {"Effect": "Allow", "Action": [INVOKE_URL, INVOKE], "Resource": FUNCTION}
    with_token = lambda token: world.signed("MINTED") | {"x-amz-security-token": token}  # noqa: E731
    assert (await world.ask(headers=with_token("t")))[0] == 403, "nobody knows the role"
    world.roles[ROLE] = Role(arn=ROLE, statements=({**known, "Action": INVOKE_URL},))
    assert (await world.ask(headers=with_token("t")))[0] == 403, "both actions are asked for"
    world.roles[ROLE] = Role(arn=ROLE, statements=(known,))
    for headers in (world.signed("MINTED"), with_token("other")):
        status, _, body = await world.ask(headers=headers)
        assert (status, json.loads(body)["message"]) == (403, UNKNOWN_CALLER)
    assert (await world.ask(headers=with_token("t")))[0] == 200
    caller = world.events[0]["requestContext"]["authorizer"]["iam"]
    assert caller["userArn"] == "arn:aws:sts::123456789012:assumed-role/caller/f"
    assert "x-amz-security-token" not in world.events[0]["headers"]


async def test_another_account_needs_statements_for_signed_calls(world):
    await world.make("AWS_IAM")
    assert (await world.ask(headers=world.signed("PARTNER")))[0] == 403
    await world.allow(principal="222222222222", auth_type="NONE")
    assert (await world.ask(headers=world.signed("PARTNER")))[0] == 403
    await world.allow(principal="222222222222", auth_type="AWS_IAM")
    assert (await world.ask(headers=world.signed("PARTNER")))[0] == 200


async def test_what_is_not_signed_or_not_as_it_says_is_403_in_aws_s_words(world):
    await world.make("AWS_IAM")
    await world.allow(auth_type="AWS_IAM")
    assert json.loads((await world.ask())[2])["Message"].startswith("Forbidden")
    for sent, said in (
        (world.signed(body=b"other"), "The request signature we calculated does not match"),
        (world.signed(region="us-east-1"), "Credential should be scoped to a valid region"),
    ):
        status, _, body = await world.ask(headers=sent)
        assert status == 403
        assert json.loads(body)["message"].startswith(said)
    assert world.events == []


async def test_a_signature_covers_the_whole_path_of_the_path_form(world):
    await world.make("AWS_IAM")
    target = f"/lambda-url/{ID}/a%20b"
    headers = world.signed(target=target, host="localhost:8580")
    assert (await world.ask(target=target, host="localhost:8580", headers=headers))[0] == 200
    assert world.events[0]["rawPath"] == "/a%20b"


# --- answers -----------------------------------------------------------------------------------------------------


async def test_refusals_of_the_invocation_are_lambda_s(world):
    await world.make()
    await world.allow()
    world.answer = Throttled(THROTTLE_RESERVED)
    status, headers, body = await world.ask()
    assert (status, headers[b"retry-after"]) == (429, b"1")
    assert json.loads(body) == {"Reason": THROTTLE_RESERVED, "Type": "User", "message": "Rate Exceeded."}
    world.answer = RuntimeUnavailable("/secret/path is full")
    status, _, body = await world.ask()
    assert (status, b"secret" in body) == (502, False)
    world.invoker.answers["hello"] = lambda *_: InvocationResult(
        kind=ResultKind.FUNCTION_ERROR, payload=b"{}", version="1"
    )
    assert (await world.ask())[0] == 502
    del world.invoker.answers["hello"]
    assert (await world.ask())[0] == 404


async def test_too_much_is_413_and_nothing_new_is_taken_in_a_drain(world):
    await world.make(invoke_mode="RESPONSE_STREAM")
    await world.allow()
    assert (await world.ask("POST", body=b"x" * (6 * 2**20 + 1)))[0] == 413
    assert (await world.ask("POST", body=b"\0" * (5 * 2**20)))[0] == 413, "as base64 it is more than 6 MB"
    world.webhooks.drain()
    assert (await world.ask())[0] == 503
    assert world.events == []


# --- CORS --------------------------------------------------------------------------------------------------------

CORS = {
    "AllowOrigins": ["https://a.example"], "AllowMethods": ["GET", "PUT"], "AllowHeaders": ["x-a"], "ExposeHeaders": ["x-b"],
    "AllowCredentials": True, "MaxAge": 60,
}  # fmt: skip
PREFLIGHT = {"origin": "https://a.example", "access-control-request-method": "PUT"}


def told(headers):
    return {
        name.decode().removeprefix("access-control-"): value.decode()
        for name, value in headers.items()
        if name.startswith(b"access-")
    }


async def test_a_preflight_is_answered_without_the_function_and_without_a_policy(world):
    await world.make(cors=CORS)
    status, headers, body = await world.ask("OPTIONS", headers=PREFLIGHT)

    assert (status, body, headers[b"vary"]) == (200, b"", b"Origin")
    assert told(headers) == {
        "allow-origin": "https://a.example", "allow-credentials": "true", "allow-methods": "GET,PUT",
        "allow-headers": "x-a", "max-age": "60",
    }  # fmt: skip
    status, headers, _ = await world.ask("OPTIONS", headers=PREFLIGHT | {"origin": "https://b.example"})
    assert (status, told(headers)) == (200, {})
    assert world.events == []


async def test_without_cors_a_preflight_is_the_function_s(world):
    await world.make()
    await world.allow()
    world.answer = json.dumps({"statusCode": 204, "headers": {"Access-Control-Allow-Origin": "x"}}).encode()
    status, headers, _ = await world.ask("OPTIONS", headers=PREFLIGHT)
    assert (status, told(headers)) == (204, {"allow-origin": "x"})


async def test_what_is_configured_replaces_what_the_function_says(world):
    await world.make(cors=CORS)
    await world.allow()
    world.answer = json.dumps({"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*", "X-B": "1"}}).encode()
    _, headers, _ = await world.ask(headers={"origin": "https://a.example"})
    assert told(headers) == {"allow-origin": "https://a.example", "allow-credentials": "true", "expose-headers": "x-b"}
    assert headers[b"x-b"] == b"1"
    for origin in ({"origin": "https://b.example"}, {}):
        assert told((await world.ask(headers=origin))[1]) == {}


async def test_any_origin_is_a_star_where_no_credentials_are(world):
    await world.make(cors={"AllowOrigins": ["*"]})
    await world.allow()
    assert told((await world.ask(headers={"origin": "https://b.example"}))[1]) == {"allow-origin": "*"}
    await world.make(cors={"AllowOrigins": ["*"], "AllowCredentials": True})
    assert told((await world.ask(headers={"origin": "https://b.example"}))[1])["allow-origin"] == "https://b.example"
