"""Remote functions over HTTP, against a stub with faults: one attempt each, and what every answer means."""

import asyncio
import base64
import json
from dataclasses import replace

import pytest
import pytest_asyncio

from bridge.aws.clients import AwsClients
from bridge.core import limits
from bridge.core.arn import parse_arn
from bridge.core.connection import AwsConnection
from bridge.core.errors import (
    FunctionNotFound,
    InvokeDenied,
    PayloadInvalid,
    PayloadTooLarge,
    RuntimeUnavailable,
    Throttled,
)
from bridge.core.function import FunctionVersion, RemoteFunction
from bridge.core.invocation import Invocation, ResultKind
from bridge.invokers import remote as module
from bridge.invokers.remote import RemoteFunctions, address
from bridge.testing.clock import ManualClock, settle
from tests.http_stub import HALF, HANG, RESET, Answer, failed, http_stub

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:billing:live"


@pytest_asyncio.fixture
async def stub():
    async with http_stub() as made:
        yield made


@pytest_asyncio.fixture
async def world(stub):
    made = World(stub)
    yield made
    await made.close()


class World:
    def __init__(self, stub) -> None:
        self.stub = stub
        self.clock = ManualClock()
        self.clients = AwsClients(clock=self.clock)
        self.remote = RemoteFunctions(self.clients, clock=self.clock)
        self.connection = AwsConnection(
            name="aws", region="eu-central-1", endpoint_url=stub.url, access_key_id="A", secret_access_key="s"
        )
        self.version = self.function()

    def function(self, *, arn: str = ARN, connection: AwsConnection | None = None, **more) -> FunctionVersion:
        remote = RemoteFunction(arn=parse_arn(arn), connection=connection or self.connection, **more)
        return FunctionVersion(
            name="billing", arn=arn, code="", revision="1", handler="", timeout_s=limits.TIMEOUT_MAX_S, remote=remote
        )

    async def invoke(self, version=None, **more):
        invocation = Invocation(request_id="r", payload=b'{"n": 1}', invoked_arn=ARN, **more)
        return await self.remote.invoke(version or self.version, invocation)

    async def close(self) -> None:
        await self.remote.close()
        await self.clients.close()


class TestAnswers:
    async def test_ok(self, world, stub):
        tail = base64.b64encode(b"START\nhello\nREPORT\n").decode()
        headers = {"X-Amz-Executed-Version": "7", "X-Amz-Log-Result": tail}
        stub.answer = Answer(body=b'{"done":true}', headers=headers)

        result = await world.invoke(client_context=b'{"custom":{}}')

        asked = stub.asked[0]
        assert (ResultKind.OK, b'{"done":true}', "7") == (result.kind, result.payload, result.version)
        assert b"START\nhello\nREPORT\n" == result.log_tail
        assert ("POST", "/2015-03-31/functions/billing/invocations?Qualifier=live") == (asked.method, asked.path)
        assert ("RequestResponse", "Tail") == (asked.headers["x-amz-invocation-type"], asked.headers["x-amz-log-type"])
        assert b'{"custom":{}}' == base64.b64decode(asked.headers["x-amz-client-context"])
        assert b'{"n": 1}' == asked.body

    @pytest.mark.parametrize("word", ["Handled", "Unhandled"])
    async def test_function_error(self, world, stub, word):
        payload = b'{"errorMessage":"boom","errorType":"ValueError","stackTrace":[]}'
        stub.answer = Answer(body=payload, headers={"X-Amz-Function-Error": word, "X-Amz-Executed-Version": "3"})

        result = await world.invoke()

        assert (ResultKind.FUNCTION_ERROR, payload, "3") == (result.kind, result.payload, result.version)
        assert ("ValueError", "boom") == (result.error_type, result.error_message)

    async def test_function_error_that_is_no_json(self, world, stub):
        stub.answer = Answer(body=b"<oops>", headers={"X-Amz-Function-Error": "Unhandled"})

        result = await world.invoke()

        assert (ResultKind.FUNCTION_ERROR, "Unhandled", "<oops>") == (
            result.kind,
            result.error_type,
            result.error_message,
        )

    async def test_an_answer_above_six_megabytes_is_a_function_error(self, world, stub):
        stub.answer = Answer(body=b'"' + b"x" * limits.SYNC_RESPONSE_MAX_BYTES + b'"')

        result = await world.invoke()

        assert (ResultKind.FUNCTION_ERROR, "Function.ResponseSizeTooLarge") == (result.kind, result.error_type)

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (failed(429, "TooManyRequestsException", Reason="ConcurrentInvocationLimitExceeded"), Throttled),
            (failed(404, "ResourceNotFoundException"), FunctionNotFound),
            (Answer(status=404, body=b"<html>"), RuntimeUnavailable),
            (failed(403, "AccessDeniedException"), InvokeDenied),
            (failed(403, "ExpiredTokenException"), InvokeDenied),
            (failed(413, "RequestTooLargeException"), PayloadTooLarge),
            (failed(400, "InvalidRequestContentException"), PayloadInvalid),
            (failed(400, "InvalidParameterValueException"), RuntimeUnavailable),
            (failed(409, "ResourceConflictException"), RuntimeUnavailable),
            (failed(502, "EC2ThrottledException"), Throttled),
            (failed(502, "KMSAccessDeniedException"), InvokeDenied),
            (failed(502, "ENILimitReachedException"), RuntimeUnavailable),
            (failed(502, "InvalidRuntimeException"), RuntimeUnavailable),
        ],
    )
    async def test_not_accepted(self, world, stub, answer, error):
        stub.answer = answer

        with pytest.raises(error):
            await world.invoke()

        assert 1 == len(stub.asked)

    @pytest.mark.parametrize(
        "answer", [failed(500, "ServiceException"), Answer(status=503), Answer(status=504, body=b"<html>"), RESET, HALF]
    )
    async def test_unknown(self, world, stub, answer):
        stub.answer = answer

        result = await world.invoke()

        assert (ResultKind.UNKNOWN, 1) == (result.kind, len(stub.asked))
        assert result.error_type and result.error_message

    async def test_no_answer_in_time_is_unknown(self, world, stub, monkeypatch):
        await world.invoke()  # makes the client, which takes its time
        monkeypatch.setattr(limits, "REMOTE_MARGIN_S", 0.4)
        stub.answer = HANG

        result = await world.invoke(deadline_s=0.1)

        assert (ResultKind.UNKNOWN, "Remote.NoAnswer", 2) == (result.kind, result.error_type, len(stub.asked))

    async def test_the_reads_timeout_is_above_the_longest_function(self, world, monkeypatch):
        seen = {}

        async def client(_connection, _service, **options):
            seen.update(options)
            raise OSError("enough")

        monkeypatch.setattr(world.clients, "client", client)
        await world.invoke()

        assert seen["read_timeout_s"] > limits.TIMEOUT_MAX_S + limits.REMOTE_MARGIN_S
        assert seen["pool"] >= limits.REMOTE_CONNECTIONS_MAX

    async def test_nobody_there_is_told_and_then_not_asked(self, world, unused_tcp_port):
        url = f"http://127.0.0.1:{unused_tcp_port}"
        gone = world.function(connection=replace(world.connection, endpoint_url=url))

        with pytest.raises(RuntimeUnavailable, match="Could not connect"):
            await world.invoke(gone)

        assert 0 == world.remote.free_slots(gone)
        assert "asked again in 1 s" in str(world.remote.hindrance(gone))

    async def test_a_cancel_is_a_cancel(self, world, stub):
        stub.answer = HANG
        task = asyncio.ensure_future(world.invoke())
        async with asyncio.timeout(60):
            while not stub.asked:
                await asyncio.sleep(0.01)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert limits.REMOTE_CONNECTIONS_MAX == world.remote.free_slots(world.version)


class TestHandover:
    async def test_an_event_is_handed_over(self, world, stub):
        stub.answer = Answer(status=202, body=b"")

        result = await world.invoke(world.function(handover=True), client_context=b"{}")

        assert (ResultKind.OK, True, b"") == (result.kind, result.handed_over, result.payload)
        assert "Event" == stub.asked[0].headers["x-amz-invocation-type"]
        assert "x-amz-client-context" not in stub.asked[0].headers

    async def test_a_caller_who_waits_gets_the_answer(self, world, stub):
        stub.answer = Answer(body=b"5")

        result = await world.invoke(world.function(handover=True), is_awaited=True)

        assert (b"5", False) == (result.payload, result.handed_over)
        assert "RequestResponse" == stub.asked[0].headers["x-amz-invocation-type"]


class TestThrottles:
    async def test_retry_after_holds_and_is_told(self, world, stub):
        stub.answer = failed(
            429, "TooManyRequestsException", headers={"Retry-After": "40"}, Reason="CallerRateLimitExceeded"
        )
        freed = []
        world.remote.on_free(lambda: freed.append(world.clock.monotonic()))

        with pytest.raises(Throttled) as caught:
            await world.invoke()

        assert ("CallerRateLimitExceeded", 40.0) == (caught.value.reason, caught.value.retry_after_s)
        assert 0 == world.remote.free_slots(world.version)
        hindrance = world.remote.hindrance(world.version)
        assert isinstance(hindrance, Throttled)
        assert "function billing: throttled (CallerRateLimitExceeded); asked again in 40 s" == str(hindrance)
        await world.clock.advance(39.9)
        assert 0 == world.remote.free_slots(world.version)
        await world.clock.advance(0.2)
        assert 1 <= world.remote.free_slots(world.version)
        assert 40.0 == freed[-1]
        assert world.remote.hindrance(world.version) is None


class TestCircuit:
    async def test_of_many_parked_events_one_tries_a_remote_that_is_down(self, world, stub):
        stub.answer = failed(503, "ServiceUnavailableException")
        for _ in range(limits.REMOTE_FAILURES_MAX):
            await world.invoke()
        asked = len(stub.asked)

        assert 0 == world.remote.free_slots(world.version)
        await world.clock.advance(1.1)
        assert 1 == world.remote.free_slots(world.version)
        stub.answer = Answer(wait=(gate := asyncio.Event()))
        probe = asyncio.ensure_future(world.invoke())
        await settle()
        assert 0 == world.remote.free_slots(world.version)
        gate.set()
        assert (await probe).is_ok
        assert limits.REMOTE_CONNECTIONS_MAX == world.remote.free_slots(world.version)
        assert asked + 1 == len(stub.asked)

    async def test_health_says_so(self, world, stub):
        (name, is_ok, text) = world.remote.facts([world.version])[0]
        assert ("function billing", True, f"{ARN} by connection aws") == (name, is_ok, text)
        stub.answer = failed(403, "AccessDeniedException", "not you")
        with pytest.raises(InvokeDenied):
            await world.invoke()

        (name, is_ok, text) = world.remote.facts([world.version])[0]
        assert not is_ok
        assert "AccessDeniedException: not you; asked again in" in text
        assert [] == world.remote.troubles([world.version], told_s=60)
        await world.clock.advance(61)
        assert world.remote.troubles([world.version], told_s=60)[0].startswith(
            "function billing cannot be invoked for 61 s"
        )

    async def test_a_new_revision_begins_anew(self, world, stub):
        stub.answer = failed(403, "AccessDeniedException")
        with pytest.raises(InvokeDenied):
            await world.invoke()

        changed = replace(world.version, revision="2")
        world.remote.retire("billing", keep_revision="2")

        assert limits.REMOTE_CONNECTIONS_MAX == world.remote.free_slots(changed)


async def test_nothing_is_invoked_that_is_not_allowed(world, stub):
    locked = RemoteFunctions(world.clients, clock=world.clock, is_allowed=False)

    assert 0 == locked.free_slots(world.version)
    assert f"function billing is remote ({ARN}): invoked with --allow-remote only" == str(
        locked.hindrance(world.version)
    )
    with pytest.raises(InvokeDenied):
        await locked.invoke(world.version, Invocation(request_id="r", payload=b"{}", invoked_arn=ARN))
    assert [] == stub.asked


class TestAddress:
    @pytest.mark.parametrize(
        ("endpoint", "prefix", "name"),
        [
            ("", "", ARN.removesuffix(":live")),
            (
                "https://vpce-1.lambda.eu-central-1.vpce.amazonaws.com",
                "https://vpce-1.lambda.eu-central-1.vpce.amazonaws.com",
                ARN.removesuffix(":live"),
            ),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000", "billing"),
            ("http://127.0.0.1:9000/lambda", "http://127.0.0.1:9000/lambda", "billing"),
            ("http://127.0.0.1:9000/2015-03-31/functions/function/invocations", "http://127.0.0.1:9000", "function"),
            (
                "http://127.0.0.1:9000/p/2015-03-31/functions/function/invocations",
                "http://127.0.0.1:9000/p",
                "function",
            ),
        ],
    )
    def test_of_an_endpoint(self, endpoint, prefix, name):
        connection = AwsConnection(name="x", region="eu-central-1", endpoint_url=endpoint)

        found, under = address(RemoteFunction(arn=parse_arn(ARN), connection=connection))

        assert (prefix, name) == (found.endpoint("lambda"), under)

    async def test_a_prefix_stands_before_the_path(self, world, stub):
        whole = f"{stub.url}/p/2015-03-31/functions/function/invocations"
        version = world.function(
            arn=ARN.removesuffix(":live"), connection=replace(world.connection, endpoint_urls={"lambda": whole})
        )

        await world.invoke(version)

        assert "/p/2015-03-31/functions/function/invocations" == stub.asked[0].path


def test_error_payloads_of_strange_shapes():
    assert ("", "[1]") == module._error(json.dumps([1]).encode())
    assert ("", "2026 r Task timed out") == module._error(b'{"errorMessage":"2026 r Task timed out"}')
