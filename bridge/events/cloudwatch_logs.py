"""CloudWatch Logs: the data of a subscription, from log events or as it is (pure).

Shapes: docs.aws.amazon.com/lambda/latest/dg/services-cloudwatchlogs.html and
docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html. The event is
`{"awslogs":{"data": base64(gzip(JSON))}}`.
"""

import gzip
import hashlib
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bridge.core import limits
from bridge.events.bodies import (
    ReadEvent,
    Unreadable,
    given_text,
    needed_list,
    needed_object,
    needed_text,
    read_json,
)

DATA_MESSAGE: Final = "DATA_MESSAGE"
_ID_DIGITS: Final = 56
"""Of a log event's id: CloudWatch's have as many."""
_COMPRESSION: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDefaults:
    """What is said of log events whose sender does not say it."""

    owner: str
    """Account of 12 digits."""
    group: str
    stream: str
    subscription: str
    """The subscription filter's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """Log events of one stream."""

    owner: str
    group: str
    stream: str
    subscriptions: Sequence[str]
    events: Sequence[tuple[str, int, str]]
    """Id, epoch milliseconds and message of each."""
    kind: str = DATA_MESSAGE


def logs_json(batch: LogBatch) -> bytes:
    """Return a batch as it is inside the event."""
    told = {
        "messageType": batch.kind,
        "owner": batch.owner,
        "logGroup": batch.group,
        "logStream": batch.stream,
        "subscriptionFilters": list(batch.subscriptions),
        "logEvents": [{"id": id_, "timestamp": time_ms, "message": text} for id_, time_ms, text in batch.events],
    }
    return orjson.dumps(told)


def logs_event(batch: LogBatch) -> bytes:
    """Return the event of a batch; the same for the same batch."""
    packed = gzip.compress(logs_json(batch), _COMPRESSION, mtime=0)
    return b'{"awslogs":{"data":"%b"}}' % b64encode(packed)


def logs_of(payload: bytes) -> bytes | None:
    """Return the JSON inside an event; None where it is none, or unpacks to too much."""
    try:
        return _unpacked(orjson.loads(payload)["awslogs"]["data"])
    except (ValueError, TypeError, KeyError):  # Unreadable is a ValueError
        return None


def read_logs(body: bytes, *, defaults: LogDefaults, received_at: float) -> ReadEvent:
    """Return the event of a request: one that is packed already, `{"logEvents": […]}`, or a list of log events.

    A log event is an object with `message`, or text. Those without a `timestamp` get the time of receipt, those without
    an `id` one that is made of where they stand. The delivery id is made of the ids, where the sender gave all of them.

    Args:
        body: the request's, whole.
        defaults: for what the sender does not say.
        received_at: epoch seconds.

    Raises:
        Unreadable: none of these, or packed data that is broken, no log events, or too large unpacked.
    """
    post = read_json(body)
    if isinstance(post, dict) and "awslogs" in post:
        packed = needed_object(post["awslogs"], "awslogs")
        inside = _unpacked(packed.get("data"))
        try:
            told = needed_object(read_json(inside), "it")
            _, delivery_id = _batch(told, defaults=None, received_at=received_at)
        except Unreadable as error:
            raise Unreadable(f"inside awslogs.data: {error}") from error
        return ReadEvent(payload=body.strip(), delivery_id=delivery_id)
    if isinstance(post, list):
        post = {"logEvents": post}
    told = needed_object(post, "the body")
    if "logEvents" not in told:
        raise Unreadable("neither awslogs nor logEvents is there")
    batch, delivery_id = _batch(told, defaults=defaults, received_at=received_at)
    return ReadEvent(payload=logs_event(batch), delivery_id=delivery_id)


def _batch(told: Mapping[str, Any], *, defaults: LogDefaults | None, received_at: float) -> tuple[LogBatch, str]:
    """Return a batch and what names it; without defaults everything must be there, as CloudWatch sends it."""
    listed = needed_list(told.get("logEvents"), "logEvents")
    if not listed:
        raise Unreadable("logEvents is empty")
    owner = given_text(told, "owner", defaults.owner) if defaults else needed_text(told, "owner")
    group = given_text(told, "logGroup", defaults.group) if defaults else needed_text(told, "logGroup")
    stream = given_text(told, "logStream", defaults.stream) if defaults else needed_text(told, "logStream")
    subscriptions = told.get("subscriptionFilters", [defaults.subscription] if defaults else None)
    names = needed_list(subscriptions, "subscriptionFilters")
    if not all(isinstance(name, str) for name in names):
        raise Unreadable("subscriptionFilters is no list of text")
    now_ms = round(received_at * 1000)
    read = [_log_event(event, number, now_ms=now_ms) for number, event in enumerate(listed)]
    named = [id_ for id_, _, _ in read]
    delivery_id = ""
    if all(named):
        delivery_id = "logs:" + hashlib.sha256("\n".join((group, stream, *named)).encode()).hexdigest()
    batch = LogBatch(
        kind=given_text(told, "messageType", DATA_MESSAGE),
        owner=owner,
        group=group,
        stream=stream,
        subscriptions=names,
        events=[
            (id_ or f"{at:013}{number:0{_ID_DIGITS - 13}}", at, text) for number, (id_, at, text) in enumerate(read)
        ],
    )
    return batch, delivery_id


def _log_event(value: Any, number: int, *, now_ms: int) -> tuple[str, int, str]:
    """Return a log event's id (empty: it has none), time and message."""
    if isinstance(value, str):
        return "", now_ms, value
    try:
        event = needed_object(value, "it")
        message = event.get("message")
        if not isinstance(message, str):
            raise Unreadable(f"message is {'missing' if message is None else 'no text'}")
        at = event.get("timestamp", now_ms)
        if isinstance(at, bool) or not isinstance(at, int) or at < 0:
            raise Unreadable("timestamp is not in epoch milliseconds")
        return given_text(event, "id"), at, message
    except Unreadable as error:
        raise Unreadable(f"log event {number}: {error}") from error


def _unpacked(data: Any) -> bytes:
    """Return what is packed in an event, at most as much as fits one: a bomb is not unpacked to its end."""
    if not isinstance(data, str):
        raise Unreadable(f"awslogs.data is {'missing' if data is None else 'no text'}")
    most = limits.LOGS_UNPACKED_MAX_BYTES
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(b64decode(data, validate=True), most + 1)
    except (ValueError, zlib.error) as error:
        raise Unreadable("awslogs.data is not base64 of gzip") from error
    if len(unpacked) > most:
        raise Unreadable(f"awslogs.data unpacks to more than {most} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise Unreadable("awslogs.data is cut off, or has something behind its end")
    return unpacked
