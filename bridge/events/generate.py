"""Sample events with chosen fields: what a function would be given, and records for an embedded stream.

The shapes are those of real events, made by the same code (`events/kafka.py`, `events/http.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus

import orjson

from bridge.events.http import HttpOrigin, HttpRequest, http_event
from bridge.events.kafka import KafkaRecord, KafkaShape, record_fragment, record_prefix, shard_name

COUNT_MAX: Final = 10_000
"""Records of one generated event: AWS's largest batch."""

_ORIGIN: Final = HttpOrigin(account_id="anonymous", api_id="webhook", domain_name="webhook.lambda-url.local.on.aws")


class NotText(ValueError):
    """A record's key, value or header is not UTF-8, which a line of JSON cannot hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A request as a person describes it."""

    method: str = "POST"
    path: str = "/"
    """Percent-encoded, as sent."""
    query: Sequence[tuple[str, str]] = ()
    """Decoded; encoded for the event."""
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    source_ip: str = "127.0.0.1"


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


def webhook_event(request: WebhookRequest, *, request_id: str, received_at: float) -> bytes:
    """Return the API Gateway v2 event of a request, with the headers that every client sends.

    Args:
        request: what differs from one request to the next.
        request_id: `requestContext.requestId`.
        received_at: wall clock, epoch seconds.

    Raises:
        http.TooManyParameters: the query has too many pairs.
    """
    headers = [(_header(name.lower()), _header(value)) for name, value in request.headers]
    names = {name for name, _ in headers}
    usual = [(b"host", _ORIGIN.domain_name.encode()), (b"user-agent", b"bridge")]
    if request.body:
        usual += [(b"content-type", _content_type(request.body)), (b"content-length", b"%d" % len(request.body))]
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in request.query)
    made = HttpRequest(
        method=request.method,
        path=request.path.encode(),
        query=query.encode(),
        headers=[pair for pair in usual if pair[0] not in names] + headers,
        body=request.body,
        source_ip=request.source_ip,
    )
    return http_event(made, origin=_ORIGIN, request_id=request_id, received_at=received_at)


def _content_type(body: bytes) -> bytes:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    else:
        return b"application/json"
    try:
        body.decode()
    except UnicodeDecodeError:
        return b"application/octet-stream"
    return b"text/plain; charset=utf-8"


def _header(text: str) -> bytes:
    """Return header text as bytes: the event gives each back as the character of its number, as on the wire."""
    return text.encode("latin-1") if all(ord(character) < 256 for character in text) else text.encode()


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
