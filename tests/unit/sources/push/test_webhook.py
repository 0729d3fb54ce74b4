"""The webhook source over plain ASGI: what is stored, answered, refused, and when no answer is the honest one."""

import asyncio
import json
import re

import pytest

from bridge.core.errors import (
    ConfigError,
    FunctionNotFound,
    LaneFull,
    PayloadInvalid,
    PayloadTooLarge,
    RuntimeUnavailable,
    StoreError,
    StoreFull,
    Throttled,
)
from bridge.core.invocation import THROTTLE_RESERVED, InvocationResult, InvocationType, ResultKind
from bridge.events.responses import HttpResponse
from bridge.sources.push import formats
from bridge.sources.push.formats import Format, Taken
from bridge.sources.push.refusals import malformed
from bridge.sources.push.routes import Route
from bridge.sources.push.signatures import make_verifier
from bridge.sources.push.webhook import WebhookSource
from bridge.testing.clock import ManualClock
from bridge.testing.push import MemoryIntake, ScriptedInvoker
from bridge.util import telemetry
from bridge.util.asgi import ConnectionAbandoned

CLOCK = ManualClock(time=1_767_225_600.1239)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
SYNC = InvocationType.REQUEST_RESPONSE
DRY = InvocationType.DRY_RUN


def route(name="hello", path="/hooks/hello", scheme="none", secrets=(), scheme_options=None, **options):
    verifier = make_verifier(scheme, secrets=secrets, clock=CLOCK, **(scheme_options or {}))
    return Route(name=name, path=path, function="hello:live", verifier=verifier, **options)


class Setup:
    def __init__(self, *routes, **options):
        self.intake = MemoryIntake()
        self.invoker = ScriptedInvoker()
        self.source = WebhookSource(
            routes or [route()], intake=self.intake, invoker=self.invoker, clock=CLOCK, **options
        )

    async def ask(self, method="POST", path=b"/hooks/hello", body=b"{}", headers=(), query=b"", client="203.0.113.5"):
        """Return (status, headers, body)."""
        pieces = body if isinstance(body, list) else [body]
        messages = [
            {"type": "http.request", "body": piece, "more_body": n < len(pieces) - 1} if piece is not None else {"type": "http.disconnect"}
            for n, piece in enumerate(pieces)
        ]  # fmt: skip
        sent = []

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "raw_path": path, "path": "", "query_string": query,
                 "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
                 "http_version": "1.1", "client": (client, 4711)}  # fmt: skip
        await self.source(scope, receive, send)
        if not sent:
            return None
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1].get("body", b"")


def line(answer, status):
    assert answer[0] == status, answer
    assert answer[2].endswith(b"\n")
    assert answer[2].count(b"\n") == 1
    return json.loads(answer[2])


# --- Event ------------------------------------------------------------------------------------------------------------


async def test_an_event_is_stored_before_the_202_and_its_id_is_the_one_the_handler_sees():
    setup = Setup()
    answer = await setup.ask(body=b'{"name":"Ada"}', query=b"a=1")
    (record,) = setup.intake.stored
    event = json.loads(record.payload)

    assert line(answer, 202) == {"id": record.id}
    assert UUID.match(record.id)
    assert event["requestContext"]["requestId"] == record.id
    assert (record.source, record.function, record.lane) == ("hello", "hello:live", "hello")
    assert record.invocation_type is InvocationType.EVENT
    assert record.received_at == 1_767_225_600.124
    assert event["requestContext"]["timeEpoch"] == 1_767_225_600_124
    assert event["requestContext"]["apiId"] == "hello"
    assert event["requestContext"]["http"]["sourceIp"] == "203.0.113.5"
    assert event["body"] == '{"name":"Ada"}'
    assert event["queryStringParameters"] == {"a": "1"}


async def test_request_ids_differ():
    setup = Setup()
    for _ in range(50):
        await setup.ask()
    assert len({record.id for record in setup.intake.stored}) == 50


async def test_the_202_waits_for_the_store():
    setup = Setup()
    setup.intake.gate.clear()
    asking = asyncio.create_task(setup.ask())
    while not setup.intake.waiting:
        await asyncio.sleep(0)
    assert not asking.done()
    setup.intake.gate.set()
    assert (await asking)[0] == 202


async def test_a_duplicate_gets_the_first_id():
    setup = Setup(route(scheme_options={"delivery_header": "X-Id"}))
    first = line(await setup.ask(headers=[(b"x-id", b"d1")]), 202)

    assert line(await setup.ask(headers=[(b"x-id", b"d1")]), 202) == {**first, "duplicate": True}
    assert "duplicate" not in line(await setup.ask(headers=[(b"x-id", b"d2")]), 202)
    assert "duplicate" not in line(await setup.ask(), 202)
    assert [record.delivery_id for record in setup.intake.stored] == ["d1", "d2", ""]


async def test_accepted_and_refused_are_counted():
    accepted = telemetry.EVENTS_ACCEPTED.labels(source="counted", type="Event")
    refused = telemetry.EVENTS_REFUSED.labels(source="counted", reason="signature")
    before = accepted._value.get(), refused._value.get()
    setup = Setup(route("counted", scheme="bearer", secrets=["s"]))
    await setup.ask(headers=[(b"authorization", b"Bearer s")])
    await setup.ask()

    assert (accepted._value.get(), refused._value.get()) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (StoreFull("no room"), "no space on disk"),
        (LaneFull("full"), "too many events wait"),
        (FunctionNotFound("Function not found: hello"), "Function not found"),
    ],
)
async def test_a_store_that_took_nothing_is_a_503_with_retry_after(refusal, text):
    setup = Setup()
    setup.intake.refusal = refusal
    answer = await setup.ask()

    assert text in line(answer, 503)["error"]
    assert answer[1][b"retry-after"] == b"1"


@pytest.mark.parametrize("refusal", [StoreError("fsync failed"), RuntimeError("boom"), TimeoutError()])
async def test_when_it_is_open_whether_the_event_was_stored_there_is_no_answer(refusal):
    setup = Setup()
    setup.intake.refusal = refusal

    with pytest.raises(ConnectionAbandoned):
        await setup.ask()


async def test_a_cancel_while_storing_gives_no_answer():
    setup = Setup()
    setup.intake.gate.clear()
    asking = asyncio.create_task(setup.ask())
    while not setup.intake.waiting:
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_client_that_leaves_before_its_request_is_whole_leaves_nothing():
    setup = Setup()

    assert await setup.ask(body=[b"{", None]) is None
    assert setup.intake.stored == []


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 3])
async def test_the_body_limit_is_exact(pieces):
    setup = Setup(route(body_max_bytes=3000))
    fits = [b"x" * (3000 // pieces)] * pieces

    assert (await setup.ask(body=fits))[0] == 202
    assert "3000 bytes" in line(await setup.ask(body=[*fits, b"x"]), 413)["error"]
    assert len(setup.intake.stored) == 1


async def test_an_announced_body_over_the_limit_is_not_read():
    setup = Setup(route(body_max_bytes=10))

    assert (await setup.ask(body=[], headers=[(b"content-length", b"11")]))[0] == 413


async def test_the_limit_that_counts_is_the_serialised_event_s():
    setup = Setup()
    await setup.ask(body=b"x")
    size = len(setup.intake.stored[0].payload)
    setup = Setup(route(async_payload_max_bytes=size))

    assert (await setup.ask(body=b"x"))[0] == 202
    assert f"{size + 1} bytes" in line(await setup.ask(body=b"xy"), 413)["error"]
    assert (await setup.ask(body=b'"'))[0] == 413  # one byte that takes two in JSON


async def test_the_synchronous_limit_is_lambda_s():
    setup = Setup(route(invocation_type=SYNC, body_max_bytes=6_291_456))
    setup.invoker.answers["hello:live"] = lambda _, __: b"1"

    assert (await setup.ask(body=b"x" * 6_290_000))[0] == 200
    assert line(await setup.ask(body=b"x" * 6_291_456), 413)["error"].endswith("RequestResponse takes 6291456")


async def test_query_parameters_are_bounded():
    assert "256 query parameters" in line(await Setup().ask(query=b"a&" * 1000), 400)["error"]


# --- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [b"/", b"/hooks", b"/hooks/hello/", b"//hooks/hello", b"/hooks//hello", b"/hooks/%68ello", b"/hooks%2Fhello",
             b"/hooks/hello%00", b"/%2e%2e/hooks/hello", b"/hooks/../hooks/hello", b"/HOOKS/hello", b"*"],
)  # fmt: skip
async def test_other_spellings_are_other_paths(path):
    assert line(await Setup().ask(path=path), 404) == {"error": "no such path"}


async def test_a_path_outside_ascii_is_matched_as_it_is_sent():
    setup = Setup(route(path="/größe x"))

    assert (await setup.ask(path=b"/gr%C3%B6%C3%9Fe%20x"))[0] == 202


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_a_wrong_method_is_told_the_right_ones(method):
    answer = await Setup().ask(method)

    assert line(answer, 405) == {"error": "only POST here"}
    assert answer[1][b"allow"] == b"POST"


async def test_a_request_response_route_takes_any_method_but_trace():
    setup = Setup(route(invocation_type=SYNC))
    setup.invoker.answers["hello:live"] = lambda _, __: b"1"
    for method in ("GET", "HEAD", "PUT", "PURGE"):
        assert (await setup.ask(method))[0] == 200
    answer = await setup.ask("TRACE")
    assert (answer[0], answer[1][b"allow"]) == (405, b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")


async def test_get_brings_head():
    setup = Setup(route(invocation_type=SYNC, methods=("get",)))
    setup.invoker.answers["hello:live"] = lambda _, __: b"1"

    assert (await setup.ask("HEAD"))[0] == 200
    assert (await setup.ask("POST"))[1][b"allow"] == b"GET, HEAD"


async def test_one_path_may_have_a_route_for_each_method():
    setup = Setup(route("a", methods=("POST",)), route("b", methods=("PUT",)))
    await setup.ask("PUT")
    await setup.ask("POST")

    assert [record.source for record in setup.intake.stored] == ["b", "a"]


@pytest.mark.parametrize(
    "routes",
    [
        (route("a"), route("b")),
        (route("a", invocation_type=SYNC), route("b", methods=("GET",))),
        (route("a", methods=("GET",)), route("b", invocation_type=SYNC)),
        (route(path="hooks"),),
        (route(body_max_bytes=0),),
        (route(body_max_bytes=6_291_457),),
    ],
)
def test_routes_that_cannot_be(routes):
    with pytest.raises(ConfigError, match="route "):
        Setup(*routes)


async def test_new_routes_serve_the_next_request_and_requests_under_way_end_on_the_old():
    setup = Setup(route("old"))
    setup.intake.gate.clear()
    asking = asyncio.create_task(setup.ask())
    while not setup.intake.waiting:
        await asyncio.sleep(0)
    setup.source.set_routes([route("new", path="/new")])
    setup.intake.gate.set()

    assert (await asking)[0] == 202
    assert (await setup.ask())[0] == 404
    assert (await setup.ask(path=b"/new"))[0] == 202
    assert [record.source for record in setup.intake.stored] == ["old", "new"]


async def test_bad_routes_change_nothing():
    setup = Setup()
    with pytest.raises(ConfigError):
        setup.source.set_routes([route("a"), route("b")])

    assert (await setup.ask())[0] == 202


async def test_a_draining_source_refuses():
    setup = Setup()
    setup.source.drain()
    answer = await setup.ask()

    assert line(answer, 503) == {"error": "shutting down; try again"}
    assert answer[1][b"retry-after"] == b"1"
    assert answer[1][b"connection"] == b"close"


async def test_the_source_ip_comes_through_trusted_proxies_only():
    forwarded = [(b"x-forwarded-for", b"198.51.100.1")]
    setup = Setup(trusted_proxies=["10.0.0.0/8"])
    await setup.ask(headers=forwarded, client="10.0.0.1")
    await setup.ask(headers=forwarded, client="203.0.113.5")

    ips = [json.loads(r.payload)["requestContext"]["http"]["sourceIp"] for r in setup.intake.stored]
    assert ips == ["198.51.100.1", "203.0.113.5"]


# --- signatures -------------------------------------------------------------------------------------------------------


async def test_a_refused_sender_gets_401_and_nothing_is_stored():
    setup = Setup(route(scheme="github", secrets=["s"]))
    answer = await setup.ask()

    assert line(answer, 401) == {"error": "refused: header x-hub-signature-256 is missing"}
    assert answer[1][b"www-authenticate"] == b"Signature"
    assert setup.intake.stored == []


async def test_a_credential_is_not_part_of_the_event():
    setup = Setup(route(scheme="bearer", secrets=["canary"]))
    await setup.ask(headers=[(b"authorization", b"Bearer canary")])

    assert b"canary" not in setup.intake.stored[0].payload
    assert (await setup.ask())[1][b"www-authenticate"] == b"Bearer"


async def test_a_vendor_s_handshake_is_answered_and_not_stored():
    import hmac

    setup = Setup(route(scheme="slack", secrets=["s"]))
    body = b'{"type":"url_verification","challenge":"abc"}'
    now = b"%d" % CLOCK.stepped()
    signature = b"v0=" + hmac.new(b"s", b"v0:" + now + b":" + body, "sha256").hexdigest().encode()
    headers = [(b"x-slack-signature", signature), (b"x-slack-request-timestamp", now)]

    assert (await setup.ask(body=body, headers=headers))[::2] == (200, b"abc")
    assert setup.intake.stored == []


# --- RequestResponse and DryRun ---------------------------------------------------------------------------------------


async def test_request_response_answers_what_the_function_returned_and_archives_the_event():
    setup = Setup(route(invocation_type=SYNC))
    setup.invoker.answers["hello:live"] = lambda _, payload: json.dumps(
        {"statusCode": 201, "headers": {"X-A": "b"}, "body": json.loads(payload)["body"]}
    ).encode()
    status, headers, body = await setup.ask(body=b"hi")
    (record,) = setup.intake.archived

    assert (status, headers[b"x-a"], body) == (201, b"b", b"hi")
    assert headers[b"x-amzn-requestid"].decode() == record.id
    assert setup.invoker.invoked == [("hello:live", record.id, record.payload)]
    assert record.lane == ""
    assert setup.intake.stored == []


async def test_the_event_is_archived_before_the_function_runs():
    setup = Setup(route(invocation_type=SYNC))
    seen = []
    setup.invoker.answers["hello:live"] = lambda _, __: seen.append(len(setup.intake.archived)) or b"1"
    await setup.ask()

    assert seen == [1]


@pytest.mark.parametrize("kind", [ResultKind.FUNCTION_ERROR, ResultKind.UNKNOWN])
async def test_a_function_error_is_a_502(kind):
    setup = Setup(route(invocation_type=SYNC))
    result = InvocationResult(kind=kind, payload=b'{"errorMessage":"x"}', version="1")
    setup.invoker.answers["hello:live"] = lambda _, __: result

    assert line(await setup.ask(), 502) == {"message": "Internal Server Error"}


async def test_204_has_neither_body_nor_length():
    setup = Setup(route(invocation_type=SYNC))
    setup.invoker.answers["hello:live"] = lambda _, __: b'{"statusCode":204}'
    status, headers, body = await setup.ask()

    assert (status, body) == (204, b"")
    assert b"content-length" not in headers


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PayloadTooLarge("6291457 byte payload is too large"), 413),
        (PayloadInvalid("Could not parse"), 400),
        (RuntimeUnavailable("no worker"), 503),
        (StoreFull("no room"), 503),
    ],
)
async def test_invocations_that_are_not_accepted(error, status):
    def refuse(_, __):
        raise error

    setup = Setup(route(invocation_type=SYNC))
    setup.invoker.answers["hello:live"] = refuse
    answer = await setup.ask()

    assert "error" in line(answer, status)
    assert (b"retry-after" in answer[1]) is (status == 503)


async def test_a_throttle_is_a_429_with_aws_s_reason():
    def refuse(_, __):
        raise Throttled(THROTTLE_RESERVED, retry_after_s=1.2)

    setup = Setup(route(invocation_type=SYNC))
    setup.invoker.answers["hello:live"] = refuse
    answer = await setup.ask()

    assert line(answer, 429)["Reason"] == THROTTLE_RESERVED
    assert answer[1][b"retry-after"] == b"2"


@pytest.mark.parametrize("invocation_type", [SYNC, DRY])
async def test_a_function_that_is_not_there(invocation_type):
    setup = Setup(route(invocation_type=invocation_type, methods=("POST",)))

    assert line(await setup.ask(), 404) == {"error": "Function not found: hello:live"}


async def test_dry_run_runs_nothing():
    setup = Setup(route(invocation_type=DRY))
    setup.invoker.answers["hello:live"] = lambda _, __: b"1"
    status, _, body = await setup.ask()

    assert (status, body) == (204, b"")
    assert setup.invoker.invoked == []
    assert setup.intake.stored == setup.intake.archived == []


# --- formats ----------------------------------------------------------------------------------------------------------


class Lines(Format):
    """A batch: one event a line of the body; a line `!…` is the whole request's answer."""

    async def read(self, request, *, request_id, received_at):
        if request.body.startswith(b"!"):
            return HttpResponse(status=200, body=request.body[1:])
        if not request.body.startswith(b"{"):
            raise malformed("the body is no line of JSON")
        return [Taken(line, json.loads(line).get("id", "")) for line in request.body.splitlines()]


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(formats, "make_format", lambda name, context: Lines(context))


@pytest.mark.usefixtures("lines")
async def test_each_event_of_a_batch_has_an_id_of_its_own():
    setup = Setup()
    answer = line(await setup.ask(body=b'{"id":"a"}\n{"id":"b"}\n{}'), 202)

    assert answer == {"ids": [record.id for record in setup.intake.stored]}
    assert len(set(answer["ids"])) == 3
    assert [(record.payload, record.delivery_id) for record in setup.intake.stored] == [
        (b'{"id":"a"}', "a"),
        (b'{"id":"b"}', "b"),
        (b"{}", ""),
    ]


@pytest.mark.usefixtures("lines")
async def test_a_sender_s_id_of_a_whole_batch_makes_no_two_of_its_events_the_same():
    setup = Setup(route(scheme_options={"delivery_header": "X-Id"}))
    first = line(await setup.ask(body=b"{}\n{}", headers=[(b"x-id", b"d1")]), 202)

    assert [record.delivery_id for record in setup.intake.stored] == ["d1#0", "d1#1"]
    again = line(await setup.ask(body=b"{}\n{}", headers=[(b"x-id", b"d1")]), 202)
    assert again == {**first, "duplicates": 2}


@pytest.mark.usefixtures("lines")
async def test_what_was_stored_of_a_refused_batch_is_not_stored_again_when_it_is_sent_again():
    setup = Setup()
    submit = setup.intake.submit

    async def full(record, *, deduplicate_s=0.0):
        if record.delivery_id == "b":
            raise StoreFull("full")
        return await submit(record, deduplicate_s=deduplicate_s)

    setup.intake.submit = full
    answer = await setup.ask(body=b'{"id":"a"}\n{"id":"b"}\n{"id":"c"}')
    assert line(answer, 503) == {"error": "no space on disk; try again later"}
    assert answer[1][b"retry-after"] == b"1"

    setup.intake.submit = submit
    answer = line(await setup.ask(body=b'{"id":"a"}\n{"id":"b"}\n{"id":"c"}'), 202)
    assert answer["duplicates"] == 2
    assert sorted(record.delivery_id for record in setup.intake.stored) == ["a", "b", "c"]
    assert set(answer["ids"]) == {record.id for record in setup.intake.stored}


@pytest.mark.usefixtures("lines")
async def test_a_batch_of_which_one_event_is_open_gets_no_answer():
    setup = Setup()

    async def fail(record, *, deduplicate_s=0.0):
        raise StoreFull("full") if record.delivery_id == "a" else StoreError("fsync")

    setup.intake.submit = fail
    with pytest.raises(ConnectionAbandoned):
        await setup.ask(body=b'{"id":"a"}\n{"id":"b"}')


@pytest.mark.usefixtures("lines")
async def test_a_batch_is_bounded_and_one_event_that_is_too_large_refuses_it_before_any_is_stored():
    setup = Setup(route(async_payload_max_bytes=20))
    refused = line(await setup.ask(body=b'{}\n{"id":"123456789012"}'), 413)
    assert refused == {"error": "the event has 21 bytes; Event takes 20"}
    assert "1001 events in one request; 1000 at most" in line(await setup.ask(body=b"{}\n" * 1001), 413)["error"]
    assert setup.intake.stored == []
    assert len(line(await setup.ask(body=b"{}\n" * 1000), 202)["ids"]) == 1000


@pytest.mark.usefixtures("lines")
async def test_a_batch_cannot_be_answered_by_one_function():
    setup = Setup(route(invocation_type=SYNC))
    assert line(await setup.ask(body=b"{}"), 400) == {
        "error": "a batch of events; RequestResponse takes one event a request"
    }
    assert setup.intake.archived == []


@pytest.mark.usefixtures("lines")
async def test_a_format_answers_at_once_or_refuses_and_nothing_is_stored():
    setup = Setup()
    assert (await setup.ask(body=b"!pong"))[::2] == (200, b"pong")
    assert line(await setup.ask(body=b"nonsense"), 400) == {"error": "the body is no line of JSON"}
    assert setup.intake.stored == []


def test_an_unknown_format_is_a_mistake_of_the_file():
    with pytest.raises(ConfigError, match="unknown format 'v3'"):
        Setup(route(format="v3"))
