"""Sample events with chosen fields: what a function would be given of Kafka, and records for an embedded stream.

The shapes are those of real events, made by the same code (`events/kafka.py`).
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from bridge.events.kafka import KafkaRecord, KafkaShape, record_fragment, record_prefix, shard_name

COUNT_MAX: Final = 10_000
"""Records of one generated event: AWS's largest batch."""


class NotText(ValueError):
    """A record's key, value or header is not UTF-8, which a line of JSON cannot hold."""


def kafka_event(records: Sequence[KafkaRecord], *, bootstrap_servers: str, msk_arn: str = "") -> bytes:
    """Return the event that holds `records`, of one topic and in their order.

    Args:
        records: at least one.
        bootstrap_servers: `host:port,…`.
        msk_arn: the cluster's ARN; empty for a self-managed cluster.
    """
    topic = records[0].topic
    shape = KafkaShape(topic=topic, bootstrap_servers=bootstrap_servers, event_source_arn=msk_arn)
    parts: dict[str, list[bytes]] = {}
    for record in records:
        assert record.topic == topic, "an event of a mapping is of one topic"
        fragment = record_fragment(
            record_prefix(topic, record.partition),
            record.offset,
            timestamp_ms=record.timestamp_ms,
            timestamp_type=record.timestamp_type,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        parts.setdefault(shard_name(topic, record.partition), []).append(fragment)
    return shape.event(list(parts.items()))


def record_line(record: KafkaRecord) -> bytes:
    """Return a record as one JSON object: key, value (JSON where it is JSON, else text) and headers by name.

    Raises:
        NotText: bytes that are no UTF-8.
    """
    line: dict[str, Any] = {
        "key": _text("key", record.key),
        "value": json_or_text(record.value),
        "headers": {name: _text(f"header {name}", value) for name, value in record.headers},
    }
    return orjson.dumps(line)


def json_or_text(value: bytes | None) -> Any:
    """Return a value as a line of JSON has it: parsed where it is JSON, else text; raises NotText."""
    if value is None:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return _text("value", value)


def _text(what: str, value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        raise NotText(f"the {what} is not UTF-8: a line of JSON cannot hold it") from None
