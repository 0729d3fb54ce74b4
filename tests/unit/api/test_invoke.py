"""Invocations through the api: AWS's headers, statuses and error bodies (semantics 0.1, 1.1 to 1.5)."""

import base64
import json
import uuid
from dataclasses import replace

import pytest

from bridge.core.errors import LaneFull, RuntimeUnavailable, StoreFull
from bridge.core.invocation import NO_ANSWER, InvocationResult, InvocationType, ResultKind


async def invoke(world, body: bytes = b"", *, target: str = "hello", **headers: str):
    named = {f"x-amz-{name.replace('_', '-')}": value for name, value in headers.items()}
    return await world.post(f"/invoke/{target}", body, headers=named)


def context(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def error(answer, status: int, code: str) -> dict:
    assert answer.status == status, answer.body
    assert answer.headers["x-amzn-errortype"] == code
    assert uuid.UUID(answer.headers["x-amzn-requestid"])
    assert answer.body.count(b"\n") == 1
    return answer.json()


async def test_request_response_returns_what_the_function_returned(world):
    world.runtime.handlers["hello"] = lambda invocation: json.loads(invocation.payload)["name"]

    answer = await invoke(world, b'{"name":"Ada"}')

    assert (answer.status, answer.body) == (200, b'"Ada"')
    assert answer.headers["x-amz-executed-version"] == "$LATEST"
    assert "x-amz-function-error" not in answer.headers
    assert "x-amz-log-result" not in answer.headers
    ((_, _, invocation),) = world.runtime.invocations
    assert invocation.request_id == answer.headers["x-amzn-requestid"]


async def test_it_is_kept_for_replay(world):
    answer = await invoke(world, b'{"name":"Ada"}')

    record = world.journal.find(answer.headers["x-amzn-requestid"])
    assert (record.source, record.function, record.invocation_type) == (
        "invoke",
        "hello",
        InvocationType.REQUEST_RESPONSE,
    )
    assert record.payload == b'{"name":"Ada"}'


async def test_the_files_own_name_space_may_be_written_out(world):
    world.catalog.known["hello@us-east-1.000000000000"] = world.catalog.known["hello"]  # as the catalog finds it
    for target in ("hello@us-east-1.000000000000", "hello@us-east-1.000000000000:$LATEST"):
        answer = await invoke(world, b'{"n":1}', target=target, invocation_type="Event")
        assert answer.status == 202
        record = world.journal.find(answer.headers["x-amzn-requestid"])
        assert record.function == target.replace("@us-east-1.000000000000", ""), "it is in the function's own lane"
    assert (await invoke(world, target="hello@us-east-1.111111111111")).status == 404


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"7", b'"x"', b"null", b"[1]", b' {"a" : 1.10}\n', b"[" * 200 + b"]" * 200]
)
async def test_any_json_is_an_event_and_arrives_as_it_was_written(world, body):
    assert (await invoke(world, body)).status == 200

    ((_, _, invocation),) = world.runtime.invocations
    assert invocation.payload == (body or b"{}")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"{'a':1}",
        b"NaN",
        b"\xef\xbb\xbf{}",
        b"[" * 201 + b"]" * 201,
        b'{"a":' * 201 + b"1" + b"}" * 201,
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
async def test_what_is_not_json_runs_nothing(world, body, kind):
    value = error(await invoke(world, body, invocation_type=kind), 400 if len(body) <= 1000 or kind != "Event" else 413,
                  "InvalidRequestContentException" if len(body) <= 1000 or kind != "Event" else "RequestEntityTooLargeException")  # fmt: skip

    assert value["Type"] == "User"
    assert value["message"]
    assert world.runtime.invocations == []
    assert world.journal.end == 0


async def test_a_function_error_is_200_with_a_header_and_the_log_on_demand(world):
    world.runtime.handlers["hello"] = lambda _: InvocationResult(
        kind=ResultKind.FUNCTION_ERROR,
        payload=b'{"errorMessage":"no"}',
        version="$LATEST",
        log_tail=b"x" * 5000 + b"END\n",
    )

    answer = await invoke(world, log_type="Tail")

    assert (answer.status, answer.json()) == (200, {"errorMessage": "no"})
    assert answer.headers["x-amz-function-error"] == "Unhandled"
    tail = base64.b64decode(answer.headers["x-amz-log-result"])
    assert len(tail) == 4096
    assert tail.endswith(b"xEND\n")


async def test_an_answer_that_did_not_come_in_time_is_504(world):
    world.runtime.handlers["hello"] = lambda _: InvocationResult(
        kind=ResultKind.UNKNOWN, payload=b"", version="", error_type=NO_ANSWER, error_message="no answer 10 s after"
    )

    value = error(await invoke(world), 504, "ServiceException")

    assert value["Message"] == "no answer 10 s after"


async def test_an_unknown_outcome_is_502_and_says_so(world):
    world.runtime.handlers["hello"] = lambda _: InvocationResult(
        kind=ResultKind.UNKNOWN, payload=b"", version="$LATEST"
    )

    value = error(await invoke(world), 502, "ServiceException")

    assert value == {"Type": "Service", "Message": "the function may or may not have run to its end"}


async def test_event_is_stored_and_answered_with_its_id(world):
    answer = await invoke(world, b'{"n":1}', invocation_type="Event", client_context=context({"custom": {}}))

    assert (answer.status, answer.body) == (202, b"")
    assert "x-amz-executed-version" not in answer.headers
    record = world.journal.find(answer.headers["x-amzn-requestid"])
    assert (record.source, record.function, record.invocation_type) == ("invoke", "hello", InvocationType.EVENT)
    assert record.client_context == b""  # only synchronous calls hand it to the handler
    assert world.runtime.invocations == []


async def test_dry_run_checks_and_runs_nothing(world):
    answer = await invoke(world, invocation_type="DryRun")

    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers
    assert error(await invoke(world, target="nope", invocation_type="DryRun"), 404, "ResourceNotFoundException")
    assert (world.runtime.invocations, world.journal.end) == ([], 0)


@pytest.mark.parametrize("kind", ["requestresponse", "RequestReponse", "EVENT", " Event", "x" * 500])
async def test_unknown_invocation_types(world, kind):
    value = error(await invoke(world, invocation_type=kind), 400, "ValidationException")

    assert value == {
        "message": f"1 validation error detected: Value '{kind[:100]}' at 'invocationType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Event, RequestResponse, DryRun]"
    }


async def test_unknown_log_types(world):
    assert "logType" in error(await invoke(world, log_type="All"), 400, "ValidationException")["message"]
    assert (await invoke(world, log_type="None")).status == 200


async def test_client_context_reaches_the_handler(world):
    await invoke(world, client_context=context({"custom": {"a": 1}}))

    ((_, _, invocation),) = world.runtime.invocations
    assert json.loads(invocation.client_context) == {"custom": {"a": 1}}


@pytest.mark.parametrize(
    "value",
    [
        "not base64!",
        "e30",
        "bm90IGpzb24=",
        context([1]),
        context("x"),
        context(None),
        "/w==",
        context({"a": "x" * 4000}),
    ],
)
async def test_client_contexts_that_are_none(world, value):
    answer = error(await invoke(world, client_context=value), 400, "InvalidRequestContentException")

    assert "Client context" in answer["message"]
    assert world.runtime.invocations == []


@pytest.mark.parametrize("size", [1000, 1001])
async def test_the_limit_of_event_is_a_setting(world, size):
    body = b'"' + b"x" * (size - 2) + b'"'
    answer = await invoke(world, body, invocation_type="Event")
    if size == 1000:
        assert answer.status == 202
        return
    value = error(answer, 413, "RequestEntityTooLargeException")
    assert value["message"] == "1001 byte payload is too large for the Event invocation type (limit 1000 bytes)"
    assert world.journal.end == 0


async def test_the_limit_of_request_response_is_6_mib(world):
    limit = 6_291_456
    assert (await invoke(world, b'"' + b"x" * (limit - 2) + b'"')).status == 200

    value = error(await invoke(world, b'"' + b"x" * (limit - 1) + b'"'), 413, "RequestEntityTooLargeException")

    assert (
        value["message"]
        == "6291457 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)"
    )
    assert len(world.runtime.invocations) == 1


@pytest.mark.parametrize("target", ["nope", "hello:nope", "hello:1", "a%20b", "x" * 64, "%2e%2e%2fetc", "hello%00"])
async def test_functions_that_are_not_there(world, target):
    for kind in ("RequestResponse", "Event", "DryRun"):
        value = error(await invoke(world, target=target, invocation_type=kind), 404, "ResourceNotFoundException")
        assert value["Type"] == "User"
        assert value["Message"].startswith("Function not found: arn:aws:lambda:")
    assert world.journal.end == 0


async def test_qualifiers(world):
    assert (await invoke(world, target="hello:$LATEST")).status == 200
    assert (await invoke(world, target="hello?Qualifier=$LATEST")).status == 200
    assert (await invoke(world, target="hello:$LATEST?Qualifier=$LATEST")).status == 200
    assert "does not match" in (await invoke(world, target="hello:1?Qualifier=2")).error
    assert "unknown field" in (await invoke(world, target="hello?qualifier=1")).error
    assert (await invoke(world, target="x" * 241)).status == 400


async def test_check_06_a_limit_that_holds_is_429_with_awss_reason(world):
    world.catalog.known["hello"] = replace(world.catalog.known["hello"], reserved_concurrency=0)

    answer = await invoke(world)

    value = error(answer, 429, "TooManyRequestsException")
    assert value == {
        "Type": "User",
        "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
        "message": "Rate Exceeded.",
    }
    assert int(answer.headers["retry-after"]) >= 1
    assert world.journal.end == 0


@pytest.mark.parametrize("fault", [StoreFull("no space left"), LaneFull("the lane of hello is full")])
async def test_no_room_for_an_event_is_503_with_retry_after(world, fault):
    world.intake.fail_with = fault

    answer = await invoke(world, invocation_type="Event")

    assert error(answer, 503, "ServiceException") == {"Type": "Service", "Message": str(fault)}
    assert answer.headers["retry-after"] == "1"


async def test_no_worker_is_a_service_error(world):
    async def none(_version, _invocation):
        raise RuntimeUnavailable("no worker could be started")

    world.runtime.invoke = none

    assert error(await invoke(world), 500, "ServiceException")["Message"] == "no worker could be started"


async def test_a_header_given_twice_is_refused(world):
    answer = await world.post(
        "/invoke/hello", headers=[("x-amz-invocation-type", "Event"), ("x-amz-invocation-type", "DryRun")]
    )

    assert (answer.status, "x-amz-invocation-type" in answer.error) == (400, True)
