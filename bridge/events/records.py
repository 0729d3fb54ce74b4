"""Lambda events taken apart for filters: their records, and a record's key and data as bytes."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from bridge.core.stream import RecordFormat
from bridge.events.kafka import EVENT_SOURCES as KAFKA_SOURCES

_SCHEDULE: Final = "bridge:schedule"
_FORMATS: Final[Mapping[str, RecordFormat]] = {
    **dict.fromkeys(KAFKA_SOURCES, RecordFormat.KAFKA),
    "aws:kinesis": RecordFormat.KINESIS,
    "aws:dynamodb": RecordFormat.DYNAMODB,
    "aws:sqs": RecordFormat.SQS,
    "bridge:webhook": RecordFormat.BRIDGE,
    _SCHEDULE: RecordFormat.BRIDGE,
}


_OURS: Final = frozenset({"eventSource", "eventSourceARN", "shardId", "eventID"})
"""Members that a push source's events get as records (`events/streams.py`)."""


class NotARecord(ValueError):
    """A record that is not shaped as its source shapes them."""


class EventRecord(NamedTuple):
    """One record of an event."""

    place: str
    """Where it stands in the event: `Records[0]`, `records.orders-0[2]`."""
    document: Any
    """Its own JSON, parsed."""
    format: RecordFormat | None
    """What the event says of its source; None where it names none that we know."""


def event_records(event: object) -> list[EventRecord] | None:
    """Return the records of a parsed event; None when it has none: an event that is one thing."""
    if not isinstance(event, dict):
        return None
    records, parts = event.get("Records"), event.get("records")
    if isinstance(records, list):
        return [EventRecord(f"Records[{i}]", record, _format(record)) for i, record in enumerate(records)]
    if isinstance(parts, dict) and all(isinstance(part, list) for part in parts.values()):
        known = _format(event)
        return [
            EventRecord(f"records.{shard}[{i}]", record, known)
            for shard, part in parts.items()
            for i, record in enumerate(part)
        ]
    return None


def key_and_data(record: object, record_format: RecordFormat) -> tuple[bytes | None, bytes | None]:
    """Return a record's key and its data as the sender sent them, None for null.

    Raises:
        NotARecord: it is not shaped as a record of that source; the text says what is wrong.
    """
    if not isinstance(record, dict):
        raise NotARecord(f"a record of {record_format} is an object")
    match record_format:
        case RecordFormat.KAFKA:
            return _decoded(record, "key"), _decoded(record, "value")
        case RecordFormat.KINESIS:
            inner = record.get("kinesis")
            if not isinstance(inner, dict):
                raise NotARecord("a record of kinesis has an object `kinesis`")
            return None, _decoded(inner, "data")
        case RecordFormat.DYNAMODB:
            return None, None
        case RecordFormat.SQS:
            return None, _text(record, "body")
        case RecordFormat.BRIDGE:
            return None, _sent(record)


def _sent(record: Mapping[str, object]) -> bytes | None:
    """Return the body of a push source's event: the event itself where its route's format makes it of the body."""
    if record.get("isBase64Encoded") is True:
        return _decoded(record, "body")
    body = record.get("body")
    if body is not None and not isinstance(body, str):
        return orjson.dumps(body)
    is_itself = "isBase64Encoded" not in record and "body" not in record and record.get("eventSource") != _SCHEDULE
    if is_itself:
        return orjson.dumps({name: value for name, value in record.items() if name not in _OURS})
    return _text(record, "body")


def _format(value: object) -> RecordFormat | None:
    source = value.get("eventSource") if isinstance(value, dict) else None
    return _FORMATS.get(source) if isinstance(source, str) else None


def _text(record: Mapping[str, object], name: str) -> bytes | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise NotARecord(f"`{name}` is not text")
    return value.encode("utf-8", "surrogatepass")


def _decoded(record: Mapping[str, object], name: str) -> bytes | None:
    raw = _text(record, name)
    try:
        return None if raw is None else base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        raise NotARecord(f"`{name}` is not base64") from None
