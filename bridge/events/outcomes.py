"""What destinations are told: AWS's records of how invocations ended, byte for byte, and each target's form of them.

AWS: docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html, …/invocation-async-add-dlq.html,
…/kinesis-on-failure-destination.html, …/kafka-on-failure-destination.html. All of it is pure.
"""

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bridge.core.function import LATEST, plain_name, split_target
from bridge.core.invocation import Condition, DeadLetter
from bridge.core.mapping import mapping_uuid
from bridge.core.outcome import OutboxEntry, OutcomeKind

ERROR_MESSAGE_MAX_BYTES: Final = 1024
"""Of the attribute `ErrorMessage`: its first kilobyte (invocation-async-add-dlq.html)."""
DETAIL_SUCCESS: Final = "Lambda Function Invocation Result - Success"
DETAIL_FAILURE: Final = "Lambda Function Invocation Result - Failure"
_THROTTLED: Final = "TooManyRequestsException"
_REFUSALS: Final = {
    Condition.FUNCTION_NOT_FOUND: 404, Condition.RECORD_TOO_LARGE: 413, Condition.RECURSIVE_LOOP: 400,
}  # fmt: skip
_NONCHARACTERS: Final = ((b"\xef\xbf\xbe", b"\\ufffe"), (b"\xef\xbf\xbf", b"\\uffff"))
"""U+FFFE and U+FFFF, which SQS and SNS refuse: JSON has them only inside strings, where an escape says the same."""


def timestamp(time: float) -> str:
    """Return epoch seconds as AWS's records write them: `2019-11-14T18:16:05.568Z`."""
    moment = dt.datetime.fromtimestamp(time, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def qualified(arn: str) -> str:
    """Return a function ARN with the qualifier that a record always has: `:$LATEST` where there was none."""
    return arn if arn.count(":") >= 7 else f"{arn}:{LATEST}"


# --- asynchronous invocations (semantics 2.3) -----------------------------------------------------------------------
def success_record(
    *, request_id: str, function_arn: str, attempts: int, payload: bytes, version: str, response: bytes, time: float
) -> bytes:
    """Return the record of an asynchronous invocation that succeeded.

    Args:
        request_id: of the event.
        function_arn: as called.
        attempts: that ran, this one included.
        payload: the event.
        version: that ran.
        response: what the function returned.
        time: epoch seconds.
    """
    return _legal(
        orjson.dumps(
            {
                **_head(time, request_id, function_arn, Condition.SUCCESS, attempts),
                "requestPayload": _json(payload),
                "responseContext": {"statusCode": 200, "executedVersion": version},
                "responsePayload": _json(response, empty=b"null"),
            }
        )
    )


def failure_outcome(letter: DeadLetter, *, function_arn: str) -> bytes:
    """Return the record of an asynchronous failure without the payloads: what its dead letter keeps as `outcome`."""
    context = _response_context(letter)
    return orjson.dumps(
        {
            **_head(letter.dead_at, letter.id, function_arn, letter.condition, letter.attempts),
            **({"responseContext": context} if context else {}),
        }
    )


def _head(time: float, request_id: str, function_arn: str, condition: Condition, attempts: int) -> dict[str, Any]:
    return {
        "version": "1.0",
        "timestamp": timestamp(time),
        "requestContext": {
            "requestId": request_id,
            "functionArn": qualified(function_arn),
            "condition": condition.value,
            "approximateInvokeCount": attempts,
        },
    }


def _response_context(letter: DeadLetter) -> dict[str, Any] | None:
    """Return what is known of the last try; None when there was none."""
    if not letter.response and not (letter.error_type and letter.history):
        return None
    version = next((attempt.version for attempt in reversed(letter.history) if attempt.version), LATEST)
    return {
        "statusCode": error_code(letter),
        "executedVersion": version,
        "functionError": "Unhandled" if letter.response else None,
    }


def error_code(letter: DeadLetter) -> int:
    """Return the HTTP status of the last try: 200 for the function's own errors, 429 throttled, 500 of the service."""
    if letter.condition in _REFUSALS:
        return _REFUSALS[letter.condition]
    if letter.response:
        return 200
    if letter.error_type in ("", _THROTTLED) or letter.condition is Condition.ZERO_RESERVED_CONCURRENCY:
        return 429  # it never ran: there was no room for it
    return 500


# --- failures, of both kinds ----------------------------------------------------------------------------------------
def failure_record(letter: DeadLetter, *, with_payload: bool) -> bytes:
    """Return the record of a failure as its destination gets it.

    An asynchronous event's (2.3) holds event and answer. A mapping's (3.10) names the records; with `with_payload`
    (S3, Kafka) it holds the event with them as well.
    """
    outcome = orjson.loads(letter.outcome) if letter.outcome else {}
    if letter.mapping:
        return _legal(orjson.dumps(outcome | ({"payload": _json(letter.payload)} if with_payload else {})))
    context = outcome.pop("responseContext", None)
    record = outcome | {"requestPayload": _json(letter.payload)}
    if context is not None:
        record["responseContext"] = context
    if letter.response:
        record["responsePayload"] = _json(letter.response)
    return _legal(orjson.dumps(record))


def record_of(entry: OutboxEntry, letter: DeadLetter | None, *, with_payload: bool, daemon: str) -> bytes:
    """Return what an entry's target is sent, but for a dead-letter target: record, or pointer to it."""
    if entry.is_pointer:
        return pointer_record(entry, letter, daemon=daemon)
    return entry.record if letter is None else failure_record(letter, with_payload=with_payload)


def pointer_record(entry: OutboxEntry, letter: DeadLetter | None, *, daemon: str) -> bytes:
    """Return the record without payloads, and where the whole is, for a target that does not take it.

    The member `bridge` is ours.
    """
    record = orjson.loads(entry.record if letter is None else letter.outcome or b"{}")
    for name in ("requestPayload", "responsePayload"):
        record.pop(name, None)
    whole = entry.record if letter is None else letter.payload
    place: dict[str, Any] = {"event": entry.id} if letter is None else {"deadLetter": entry.id, "queue": entry.queue}
    within = told_by(whole)
    if letter is None:
        within -= Counter([_told_by(record)])  # the record itself says who
    if within:
        place["toldBy"] = dict(within)
    return _legal(
        orjson.dumps(
            record | {"bridge": {**place, "daemon": daemon, "bytes": len(whole), "reason": entry.last_error[:500]}}
        )
    )


def told_by(event: bytes) -> Counter[str]:
    """Return which functions' records lie within each other in an event, and how often each: how it came about."""
    found: Counter[str] = Counter()
    try:
        record = orjson.loads(event)
    except orjson.JSONDecodeError:
        return found
    while isinstance(record, dict) and (name := _told_by(record)):
        found[name] += 1
        pointer = record.get("bridge")
        if isinstance(pointer, dict) and isinstance(within := pointer.get("toldBy"), dict):
            found.update({str(name): count for name, count in within.items() if isinstance(count, int)})
        record = record.get("requestPayload")
    return found


def _told_by(record: Mapping[str, Any]) -> str:
    """Return the function whose record it is; empty: it is none."""
    context = record.get("requestContext")
    arn = context.get("functionArn") if isinstance(context, dict) and "condition" in context else None
    return split_target(arn.partition(":function:")[2])[0] if isinstance(arn, str) else ""


# --- dead-letter targets (semantics 2.4) ----------------------------------------------------------------------------
def dead_letter_body(entry: OutboxEntry, letter: DeadLetter, *, daemon: str) -> bytes:
    """Return the event's own text, unchanged; of one that is too large, a pointer."""
    return pointer_record(entry, letter, daemon=daemon) if entry.is_pointer else letter.payload or b"{}"


def message_attributes(letter: DeadLetter) -> dict[str, dict[str, str]]:
    """Return the attributes beside it, as SQS and SNS take them."""
    message = _legal_text(letter.error_message or letter.error_type or letter.condition.value)
    cut = message.encode("utf-8", "replace")[:ERROR_MESSAGE_MAX_BYTES].decode("utf-8", "ignore")
    return {
        "RequestID": {"DataType": "String", "StringValue": letter.id},
        "ErrorCode": {"DataType": "Number", "StringValue": str(error_code(letter))},
        "ErrorMessage": {"DataType": "String", "StringValue": cut},
    }


# --- forms of single targets ----------------------------------------------------------------------------------------
def object_key(letter: DeadLetter) -> str:
    """Return the key of a failure in a bucket: the same each time it is sent, so that sent twice it is there once."""
    moment = dt.datetime.fromtimestamp(letter.dead_at, dt.UTC)
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{letter.queue} {letter.id} {letter.dead_at!r}")
    if letter.mapping:
        folder = f"{mapping_uuid(letter.mapping)}/{_shard(letter)}"
    else:
        folder = f"async/{plain_name(split_target(letter.function)[0])}"
    return f"aws/lambda/{folder}/{moment:%Y/%m/%d}/{moment:%Y-%m-%dT%H.%M.%S}-{name}"


def _shard(letter: DeadLetter) -> str:
    """Return the shard that a mapping's failure names, `-` where it names none."""
    outcome = orjson.loads(letter.outcome) if letter.outcome else {}
    for name, info in outcome.items():
        if name.endswith("BatchInfo"):
            shard = info.get("shardId") or info.get("recordInfo", {}).get("topic-partition")
            if shard:
                return str(shard)
    return "-"


def bus_entry(
    entry: OutboxEntry, letter: DeadLetter | None, *, bus_arn: str, source: str, daemon: str
) -> dict[str, Any]:
    """Return the entry of PutEvents; `source` is `lambda` on AWS, whatever its guide says."""
    record = record_of(entry, letter, with_payload=False, daemon=daemon)
    head: Mapping[str, Any] = orjson.loads(record if letter is None else letter.outcome or b"{}")
    function_arn = head.get("requestContext", {}).get("functionArn", "")
    return {
        "Time": dt.datetime.fromtimestamp(entry.created_at if letter is None else letter.dead_at, dt.UTC),
        "Source": source,
        "DetailType": DETAIL_SUCCESS if entry.kind is OutcomeKind.ON_SUCCESS else DETAIL_FAILURE,
        "Detail": record.decode("utf-8", "replace"),
        "Resources": [bus_arn, function_arn],
        "EventBusName": bus_arn,
    }


# --- text -----------------------------------------------------------------------------------------------------------
def _json(payload: bytes, *, empty: bytes = b"{}") -> orjson.Fragment:
    """Return a payload to stand in a record as the value it is, its own bytes; what is no JSON becomes a string."""
    if not payload.strip():
        return orjson.Fragment(empty)
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return orjson.Fragment(orjson.dumps(payload.decode("utf-8", "replace")))
    return orjson.Fragment(payload)


def _legal(record: bytes) -> bytes:
    for raw, escape in _NONCHARACTERS:
        if raw in record:
            record = record.replace(raw, escape)
    return record


def _legal_text(text: str) -> str:
    """Return text as SQS and SNS take it: every other character is replaced."""
    return "".join(
        char if char in "\t\n\r" or (" " <= char <= "\ufffd" and not "\ud800" <= char <= "\udfff") or char > "\uffff"
        else "\ufffd"
        for char in text
    )  # fmt: skip
