"""The formats behind a route: what each takes, answers and refuses, over plain ASGI."""

import asyncio
import json

import pytest

from bridge.core.errors import ConfigError, FunctionNotFound
from bridge.core.invocation import InvocationResult, InvocationType, ResultKind
from bridge.sources.push.routes import Route
from bridge.sources.push.signatures import make_verifier
from bridge.sources.push.webhook import WebhookSource
from bridge.testing.clock import ManualClock
from bridge.testing.push import MemoryIntake, ScriptedInvoker
from bridge.util.asgi import HEADER_NAMES

SYNC = InvocationType.REQUEST_RESPONSE
TRIGGER = {"triggerSource": "PreSignUp_SignUp", "userPoolId": "p", "request": {}, "response": {}}


class Setup:
    """One route of a format; `answer` is what its function returns."""

    def __init__(self, name, *, invocation_type=InvocationType.EVENT, answer=None, **options):
        self.clock = ManualClock()
        self.intake = MemoryIntake()
        self.invoker = ScriptedInvoker()
        if answer is not None:
            self.invoker.answers["hello"] = (
                answer if callable(answer) else lambda _, payload: json.dumps(answer).encode()
            )
        route = Route(
            name="hello",
            path="/h",
            function="hello",
            verifier=make_verifier("none", clock=self.clock),
            invocation_type=invocation_type,
            format=name,
            format_options=options,
            body_max_bytes=6 * 1024 * 1024,
        )
        self.source = WebhookSource([route], intake=self.intake, invoker=self.invoker, clock=self.clock)

    async def ask(self, body=b"", headers=(), query=b"", names=None):
        """Return (status, headers, body)."""
        sent = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "raw_path": b"/h", "path": "/h", "query_string": query,
                 "headers": list(headers), "http_version": "1.1", "client": ("203.0.113.5", 1), "scheme": "https"}  # fmt: skip
        if names is not None:
            scope[HEADER_NAMES] = names
        await self.source(scope, receive, send)
        return sent[0]["status"], tuple(sent[0]["headers"]), sent[1].get("body", b"")

    def event(self):
        """Return the one event that was stored, or kept for replay."""
        (record,) = self.intake.stored or self.intake.archived
        return json.loads(record.payload)


def refusal(answer, status):
    assert answer[0] == status, answer
    assert answer[2].count(b"\n") == 1
    return json.loads(answer[2])["error"]


# --- apigateway-v1 ----------------------------------------------------------------------------------------------------


async def test_a_rest_event_has_names_as_they_were_sent():
    setup = Setup("apigateway-v1")
    status, _, _ = await setup.ask(b"{}", headers=[(b"x-id", b"1")], names=[b"X-Id"], query=b"a=1&a=2")
    assert status == 202
    event = setup.event()
    assert event["headers"] == {"X-Id": "1"}
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"]}
    assert event["requestContext"]["identity"]["sourceIp"] == "203.0.113.5"


async def test_a_rest_answer_is_strict():
    answer = {"statusCode": 201, "body": "made"}
    assert (await Setup("apigateway-v1", invocation_type=SYNC, answer=answer).ask())[::2] == (201, b"made")
    loose = await Setup("apigateway-v1", invocation_type=SYNC, answer={"statusCode": 200, "cookies": []}).ask()
    assert loose[::2] == (502, b'{"message": "Internal server error"}')


async def test_declared_media_types_are_binary_both_ways():
    answer = {"statusCode": 200, "headers": {"content-type": "image/png"}, "body": "iVBO", "isBase64Encoded": True}
    setup = Setup("apigateway-v1", invocation_type=SYNC, answer=answer, binary_media_types=("image/png",))
    got = await setup.ask(b"PNG", headers=[(b"content-type", b"image/png")])
    assert got[2] == b"\x89PN"
    assert (setup.event()["body"], setup.event()["isBase64Encoded"]) == ("UE5H", True)


async def test_a_rest_api_waits_29_seconds_and_the_function_runs_on():
    ended = []
    setup = Setup("apigateway-v1", invocation_type=SYNC)

    async def slow(target, *, request_id, payload, client_context=b""):
        await setup.clock.sleep(40)
        ended.append(target)
        return InvocationResult(kind=ResultKind.OK, payload=b"{}", version="$LATEST")

    setup.invoker.invoke = slow
    asking = asyncio.create_task(setup.ask())
    await setup.clock.advance(28.9)
    assert not asking.done()
    await setup.clock.advance(0.2)
    answer = await asking
    assert answer[0] == 504
    assert json.loads(answer[2]) == {"message": "Endpoint request timed out"}
    assert ended == []
    await setup.clock.advance(11)
    assert ended == ["hello"]


async def test_a_sender_that_leaves_ends_the_invocation_it_waits_for():
    cut = []
    setup = Setup("apigateway-v1", invocation_type=SYNC)

    async def slow(target, *, request_id, payload, client_context=b""):
        try:
            await setup.clock.sleep(40)
        except asyncio.CancelledError:
            cut.append(target)
            raise

    setup.invoker.invoke = slow
    asking = asyncio.create_task(setup.ask())
    await setup.clock.advance(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert cut == ["hello"]


# --- alb --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multi_value", [False, True])
async def test_a_load_balancer_s_setting_counts_for_events_and_answers(multi_value):
    answer = {"statusCode": 200, "headers": {"x": "one"}, "multiValueHeaders": {"x": ["a", "b"]}, "body": "hi"}
    setup = Setup("alb", invocation_type=SYNC, answer=answer, multi_value_headers=multi_value)
    status, headers, body = await setup.ask(b"{}", headers=[(b"host", b"h")], query=b"a=%20&a=2")
    assert (status, body) == (200, b"hi")
    assert [text for name, text in headers if name == b"x"] == ([b"a", b"b"] if multi_value else [b"one"])
    event = setup.event()
    assert event.get("multiValueQueryStringParameters") == ({"a": ["%20", "2"]} if multi_value else None)
    assert event.get("queryStringParameters") == (None if multi_value else {"a": "2"})
    forwarded = event["multiValueHeaders" if multi_value else "headers"]["x-forwarded-proto"]
    assert forwarded == (["https"] if multi_value else "https")


async def test_a_load_balancer_refuses_websockets_and_bodies_above_1_mb():
    setup = Setup("alb", invocation_type=SYNC, answer={"statusCode": 200})
    assert "WebSocket" in refusal(await setup.ask(headers=[(b"sec-websocket-key", b"a")]), 400)
    assert "1048576 bytes" in refusal(await setup.ask(b"x" * (1024 * 1024 + 1)), 413)
    assert (await setup.ask(b"x" * (1024 * 1024)))[0] == 200
    assert len(setup.intake.archived) == 1


async def test_a_load_balancer_s_malformed_answer_is_a_502():
    status, headers, body = await Setup("alb", invocation_type=SYNC, answer={"body": "no status"}).ask()
    assert (status, body[:6]) == (502, b"<html>")
    assert (b"content-type", b"text/html") in headers


# --- raw --------------------------------------------------------------------------------------------------------------

ALEXA = b'{"version": "1.0", "session": {"new": true},  "request": {"type": "LaunchRequest"}}'


async def test_a_raw_body_is_the_event_byte_for_byte():
    setup = Setup("raw")
    assert (await setup.ask(ALEXA))[0] == 202
    assert setup.intake.stored[0].payload == ALEXA


async def test_what_is_returned_is_the_answer_of_raw():
    setup = Setup("raw", invocation_type=SYNC, answer=lambda _, payload: b'{"version": "1.0", "statusCode": 7}')
    status, headers, body = await setup.ask(ALEXA)
    assert (status, body) == (200, b'{"version": "1.0", "statusCode": 7}')
    assert (b"content-type", b"application/json") in headers


async def test_a_function_s_failure_behind_raw_is_a_502():
    failed = InvocationResult(kind=ResultKind.FUNCTION_ERROR, payload=b"{}", version="$LATEST", error_message="x")
    answer = await Setup("raw", invocation_type=SYNC, answer=lambda *_: failed).ask(ALEXA)
    assert answer[::2] == (502, b'{"message":"Internal Server Error"}\n')


BAD_JSON = [
    b"",
    b" ",
    b"{",
    b"a=1&b=2",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"NaN",
    b'"\\ud800"',
    b'{"a":1}{"b":2}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
@pytest.mark.parametrize("name", ["raw", "cognito"])
async def test_a_body_that_is_no_json_is_one_clear_400(name, body):
    setup = Setup(name, invocation_type=SYNC, answer={"response": {}})
    assert "the body is " in refusal(await setup.ask(body), 400)
    assert setup.intake.archived == []
    assert (await setup.ask(json.dumps(TRIGGER).encode()))[0] == 200


async def test_json_that_python_could_not_write_again_is_refused():
    setup = Setup("raw")
    assert (await setup.ask(b"[" * 200 + b"]" * 200))[0] == 202
    assert "deeper than 200 levels" in refusal(await setup.ask(b"[" * 201 + b"]" * 201), 400)


@pytest.mark.parametrize(
    "body", [b"null", b"7", b'"text"', b"[1]", b'{"a":1,"a":2}', b'{"n":123456789012345678901234567890}']
)
async def test_any_json_is_an_event(body):
    setup = Setup("raw")
    assert (await setup.ask(body))[0] == 202
    assert setup.intake.stored[0].payload == body


# --- cognito ----------------------------------------------------------------------------------------------------------


async def test_a_trigger_s_answer_is_the_returned_event():
    setup = Setup(
        "cognito",
        invocation_type=SYNC,
        answer=lambda _, payload: payload.replace(b'"response": {}', b'"response": {"autoConfirmUser": true}'),
    )
    status, _, body = await setup.ask(json.dumps(TRIGGER).encode())
    assert status == 200
    assert json.loads(body) == {**TRIGGER, "response": {"autoConfirmUser": True}}
    assert setup.event() == TRIGGER


async def test_what_is_no_trigger_is_one_clear_400():
    setup = Setup("cognito", invocation_type=SYNC, answer={"response": {}})
    assert refusal(await setup.ask(b'{"a": 1}'), 400) == "no event of a Cognito trigger: triggerSource is missing"
    assert setup.intake.archived == []


async def test_a_trigger_s_function_has_5_seconds():
    setup = Setup("cognito", invocation_type=SYNC)

    async def slow(target, *, request_id, payload, client_context=b""):
        await setup.clock.sleep(6)
        raise FunctionNotFound("gone meanwhile")

    setup.invoker.invoke = slow
    asking = asyncio.create_task(setup.ask(json.dumps(TRIGGER).encode()))
    await setup.clock.advance(4.9)
    assert not asking.done()
    await setup.clock.advance(0.2)
    status, _, body = await asking
    assert (status, json.loads(body)["__type"]) == (400, "UnexpectedLambdaException")
    await setup.clock.advance(2)
    assert (await Setup("raw").ask(b"{}"))[0] == 202


@pytest.mark.parametrize("invocation_type", [InvocationType.EVENT, InvocationType.DRY_RUN])
def test_a_trigger_needs_somebody_who_waits(invocation_type):
    with pytest.raises(ConfigError, match="RequestResponse"):
        Setup("cognito", invocation_type=invocation_type)
