"""The records of ended invocations, byte for byte (semantics 2.3, 2.4, 3.10; AWS's pages on retaining records)."""

import re
from dataclasses import replace
from typing import Any

import orjson
import pytest

from bridge.core.invocation import Attempt, AttemptStatus, Condition, DeadLetter
from bridge.core.mapping import mapping_uuid
from bridge.core.outcome import OutboxEntry, OutcomeKind, TargetPlace
from bridge.events.outcomes import (
    bus_entry,
    dead_letter_body,
    failure_outcome,
    failure_record,
    message_attributes,
    object_key,
    pointer_record,
    record_of,
    success_record,
)

ARN = "arn:aws:lambda:us-east-2:123456789012:function:my-function"
ID = "e4b46cbf-b738-xmpl-8880-a18cdf61200e"
TIME = 1_573_755_365.568  # 2019-11-14T18:16:05.568Z, as on AWS's page
PLACE = TargetPlace(target="arn:aws:sqs:us-east-2:123456789012:failed")


def attempt(**more: Any) -> Attempt:
    return Attempt(
        **{
            "position": 7, "request_id": ID, "function": "my-function", "number": 3, "status": AttemptStatus.DEAD,
            "started_at": TIME, "version": "$LATEST", "error_type": "ValueError", "error_message": "boom",
        }
        | more
    )  # fmt: skip


def letter(**more: Any) -> DeadLetter:
    return DeadLetter(
        **{
            "id": ID, "queue": "default", "function": "my-function", "source": "orders", "received_at": TIME - 200,
            "dead_at": TIME, "condition": Condition.RETRIES_EXHAUSTED, "attempts": 3, "payload": b'{"ORDER_IDS": ["9"]}',
            "error_type": "ValueError", "error_message": "boom", "history": (attempt(),),
            "response": b'{"errorMessage": "boom", "errorType": "ValueError", "requestId": "1", "stackTrace": []}',
        }
        | more
    )  # fmt: skip


def sent(one: DeadLetter, *, arn: str = ARN) -> str:
    return failure_record(replace(one, outcome=failure_outcome(one, function_arn=arn)), with_payload=False).decode()


def entry(**more: Any) -> OutboxEntry:
    return OutboxEntry(
        **{"place": PLACE, "kind": OutcomeKind.ON_FAILURE, "id": ID, "function": "my-function", "created_at": TIME}
        | more
    )


# --- asynchronous invocations ----------------------------------------------------------------------------------------


def test_the_record_of_a_function_that_failed_to_the_end():
    assert sent(letter()) == (
        '{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z",'
        '"requestContext":{"requestId":"e4b46cbf-b738-xmpl-8880-a18cdf61200e",'
        '"functionArn":"arn:aws:lambda:us-east-2:123456789012:function:my-function:$LATEST",'
        '"condition":"RetriesExhausted","approximateInvokeCount":3},'
        '"requestPayload":{"ORDER_IDS": ["9"]},'
        '"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},'
        '"responsePayload":{"errorMessage": "boom", "errorType": "ValueError", "requestId": "1", "stackTrace": []}}'
    )


def test_the_record_of_a_success_has_no_function_error():
    record = success_record(
        request_id=ID, function_arn=ARN + ":live", attempts=1, payload=b'{"n": 1}', version="3", response=b'"fine"',
        time=TIME,
    )  # fmt: skip

    assert record.decode() == (
        '{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z",'
        '"requestContext":{"requestId":"e4b46cbf-b738-xmpl-8880-a18cdf61200e",'
        '"functionArn":"arn:aws:lambda:us-east-2:123456789012:function:my-function:live",'
        '"condition":"Success","approximateInvokeCount":1},'
        '"requestPayload":{"n": 1},"responseContext":{"statusCode":200,"executedVersion":"3"},'
        '"responsePayload":"fine"}'
    )


def test_an_event_that_grew_too_old_after_a_throttle():
    one = letter(
        condition=Condition.EVENT_AGE_EXCEEDED, response=b"", error_type="TooManyRequestsException",
        history=(attempt(version="", error_type="TooManyRequestsException"),),
    )  # fmt: skip

    record = orjson.loads(sent(one))
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["responseContext"] == {"statusCode": 429, "executedVersion": "$LATEST", "functionError": None}
    assert "responsePayload" not in record


def test_an_event_that_never_ran_has_no_answer():
    one = letter(
        condition=Condition.ZERO_RESERVED_CONCURRENCY, attempts=0, response=b"", error_type="", error_message="",
        history=(),
    )  # fmt: skip

    assert sent(one) == (
        '{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z",'
        '"requestContext":{"requestId":"e4b46cbf-b738-xmpl-8880-a18cdf61200e",'
        '"functionArn":"arn:aws:lambda:us-east-2:123456789012:function:my-function:$LATEST",'
        '"condition":"ZeroReservedConcurrency","approximateInvokeCount":0},'
        '"requestPayload":{"ORDER_IDS": ["9"]}}'
    )


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"", "{}"),
        (b" \n", "{}"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b'{"a":1,"a":2}', '{"a":1,"a":2}'),
        (b"[NaN]", '"[NaN]"'),
        (b"\xff", '"\ufffd"'),
        ('{"x":"\ufffe\uffff"}'.encode(), '{"x":"\\ufffe\\uffff"}'),  # which SQS would refuse
    ],
)
def test_payloads_are_the_values_they_are(payload, shown):
    assert f'"requestPayload":{shown},"responseContext"' in sent(letter(payload=payload))


# --- dead-letter targets ---------------------------------------------------------------------------------------------


def test_a_dead_letter_target_gets_the_text_and_three_attributes():
    payload = b'{"a" : 1,\n "b":"\xc3\xa4"}'

    assert dead_letter_body(entry(kind=OutcomeKind.DEAD_LETTER), letter(payload=payload), daemon="d") == payload
    assert message_attributes(letter()) == {
        "RequestID": {"DataType": "String", "StringValue": ID},
        "ErrorCode": {"DataType": "Number", "StringValue": "200"},
        "ErrorMessage": {"DataType": "String", "StringValue": "boom"},
    }


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"error_message": "x" * 1030}, "200", "x" * 1024),
        ({"error_message": "ä" * 600}, "200", "ä" * 512),
        ({"error_message": "€" * 400}, "200", "€" * 341),  # a character is not cut in two
        ({"error_message": "a\x00b\ud800c\ufffe"}, "200", "a\ufffdb\ufffdc\ufffd"),
        ({"error_message": ""}, "200", "ValueError"),
        ({"response": b"", "error_type": "TooManyRequestsException"}, "429", "boom"),
        ({"response": b"", "error_type": "ServiceException"}, "500", "boom"),
        ({"response": b"", "condition": Condition.RECORD_TOO_LARGE}, "413", "boom"),
        ({"response": b"", "condition": Condition.FUNCTION_NOT_FOUND}, "404", "boom"),
        (
            {"response": b"", "error_type": "", "error_message": "", "condition": Condition.ZERO_RESERVED_CONCURRENCY},
            "429",
            "ZeroReservedConcurrency",
        ),
    ],
)
def test_error_code_and_message(changes, code, message):
    attributes = message_attributes(letter(**changes))

    assert (attributes["ErrorCode"]["StringValue"], attributes["ErrorMessage"]["StringValue"]) == (code, message)


# --- mappings --------------------------------------------------------------------------------------------------------

BATCH = {
    "requestContext": {"requestId": "1", "functionArn": ARN, "condition": "RetryAttemptsExhausted", "approximateInvokeCount": 1},
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    "version": "1.0",
    "timestamp": "2019-11-14T00:38:06.021Z",
    "KinesisBatchInfo": {"shardId": "shardId-000000000001", "batchSize": 1},
}  # fmt: skip


def batch(outcome: dict[str, Any] = BATCH) -> DeadLetter:
    return letter(
        mapping="orders", payload=b'{"Records":[{"n": 1.0}]}', outcome=orjson.dumps(outcome),
        condition=Condition.RETRY_ATTEMPTS_EXHAUSTED,
    )  # fmt: skip


def test_a_mappings_record_names_the_records_and_holds_them_only_where_asked():
    assert orjson.loads(failure_record(batch(), with_payload=False)) == BATCH
    whole = failure_record(batch(), with_payload=True)
    assert orjson.loads(whole) == BATCH | {"payload": {"Records": [{"n": 1.0}]}}
    assert whole.endswith(b',"payload":{"Records":[{"n": 1.0}]}}')


# --- single targets --------------------------------------------------------------------------------------------------


def test_keys_of_objects_are_as_on_aws_and_the_same_each_time():
    assert re.fullmatch(
        r"aws/lambda/async/my-function/2019/11/14/2019-11-14T18\.16\.05-[0-9a-f-]{36}",
        object_key(letter(function="my-function:live")),
    )
    assert object_key(letter()) == object_key(letter())
    assert object_key(letter()) != object_key(letter(dead_at=TIME + 0.001))  # redriven and failed again
    uuid = mapping_uuid("orders")
    assert object_key(batch()).startswith(f"aws/lambda/{uuid}/shardId-000000000001/2019/11/14/2019-11-14T18.16.05-")
    kafka = batch({"KafkaBatchInfo": {"batchSize": 1, "recordInfo": {"offset": "1", "topic-partition": "orders-0"}}})
    assert object_key(kafka).startswith(f"aws/lambda/{uuid}/orders-0/2019/")
    assert object_key(batch({"version": "1.0"})).startswith(f"aws/lambda/{uuid}/-/2019/")


def test_an_entry_of_a_bus():
    one = replace(letter(), outcome=failure_outcome(letter(), function_arn=ARN))
    bus = "arn:aws:events:us-east-2:123456789012:event-bus/default"
    made = bus_entry(entry(), one, bus_arn=bus, source="lambda", daemon="d")

    assert made["Time"].isoformat() == "2019-11-14T18:16:05.568000+00:00"
    assert orjson.loads(made.pop("Detail")) == orjson.loads(sent(letter()))
    made.pop("Time")
    assert made == {
        "Source": "lambda", "DetailType": "Lambda Function Invocation Result - Failure",
        "Resources": [bus, ARN + ":$LATEST"], "EventBusName": bus,
    }  # fmt: skip
    record = success_record(
        request_id=ID, function_arn=ARN, attempts=1, payload=b"{}", version="$LATEST", response=b"1", time=TIME
    )
    success = entry(kind=OutcomeKind.ON_SUCCESS, record=record)
    assert bus_entry(success, None, bus_arn=bus, source="x", daemon="d") == {
        "Time": made_time(), "Source": "x", "DetailType": "Lambda Function Invocation Result - Success",
        "Detail": record.decode(), "Resources": [bus, ARN + ":$LATEST"], "EventBusName": bus,
    }  # fmt: skip


def made_time():
    import datetime as dt

    return dt.datetime.fromtimestamp(TIME, dt.UTC)


# --- pointers --------------------------------------------------------------------------------------------------------


def test_a_pointer_says_where_the_whole_is():
    one = replace(letter(), outcome=failure_outcome(letter(), function_arn=ARN))
    pointed = entry(is_pointer=True, last_error="300000 bytes; it takes at most 262144")

    record = orjson.loads(record_of(pointed, one, with_payload=True, daemon="host-1"))
    assert record == {
        "version": "1.0",
        "timestamp": "2019-11-14T18:16:05.568Z",
        "requestContext": {
            "requestId": ID, "functionArn": ARN + ":$LATEST", "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "bridge": {
            "deadLetter": ID, "queue": "default", "daemon": "host-1", "bytes": 20,
            "reason": "300000 bytes; it takes at most 262144",
        },
    }  # fmt: skip
    assert orjson.loads(dead_letter_body(pointed, one, daemon="host-1")) == record


def test_a_pointer_to_a_success_names_the_event():
    record = success_record(
        request_id=ID, function_arn=ARN, attempts=1, payload=b"{}", version="$LATEST", response=b"1", time=TIME
    )
    pointed = orjson.loads(pointer_record(entry(record=record, last_error="large"), None, daemon="host-1"))

    assert pointed["bridge"] == {"event": ID, "daemon": "host-1", "bytes": len(record), "reason": "large"}
    assert {"requestPayload", "responsePayload"}.isdisjoint(pointed)
    assert pointed["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
