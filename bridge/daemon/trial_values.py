"""What a test puts into a trial and what it sees of it: plain values, read from the daemon's own."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from bridge.core.invocation import DeadLetter, Invocation, InvocationResult
from bridge.core.stream import RecordFormat
from bridge.events.items import plain
from bridge.events.records import event_records, key_and_data

Data: TypeAlias = Any
"""bytes and str as they are, None for nothing, anything else as JSON."""
Headers: TypeAlias = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]


def as_bytes(value: Data) -> bytes:
    """Return data as bytes.

    Raises:
        TypeError: it is neither bytes nor text nor JSON.
    """
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def as_headers(headers: Headers) -> list[tuple[str, bytes]]:
    """Return headers as pairs."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(name, as_bytes(value)) for name, value in pairs]


def values(event: Any) -> list[Any]:
    """Return what the senders of an event's records sent: from JSON, else text, else bytes; None for a tombstone.

    Of a request: its body. Of another event without records: the event. Of DynamoDB: each new item, as plain JSON.
    """
    records = event_records(event)
    if records is None:
        if not isinstance(event, dict) or "isBase64Encoded" not in event:
            return [event]
        body = event.get("body")
        if body is None:
            return []
        return [_read(b64decode(body) if event["isBase64Encoded"] else str(body).encode())]
    return [_sent(record.document, record.format) for record in records if record.format is not None]


def _sent(record: Any, record_format: RecordFormat) -> Any:
    if record_format is RecordFormat.DYNAMODB:
        new = record["dynamodb"].get("NewImage")
        return None if new is None else {name: plain(value) for name, value in new.items()}
    _, data = key_and_data(record, record_format)
    return None if data is None else _read(data)


def _read(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoked:
    """One invocation that has ended."""

    function: str
    event: Any
    """What the handler was given."""
    result: Any
    """What it returned, after its way through JSON; None when it failed."""
    error: dict[str, Any] | None
    """errorType, errorMessage, requestId and stackTrace when it failed."""
    attempt: int
    """1 for the first; a batch that was split is another one."""
    request_id: str
    at: float
    """Epoch seconds of the virtual clock."""

    @classmethod
    def of(
        cls, function: str, invocation: Invocation, result: InvocationResult, *, attempt: int, at: float
    ) -> "Invoked":
        """Return it from the runtime's values."""
        answer = _read(result.payload)
        return cls(
            function=function,
            event=orjson.loads(invocation.payload or b"{}"),
            result=answer if result.is_ok else None,
            error=None if result.is_ok else answer,
            attempt=attempt,
            request_id=invocation.request_id,
            at=at,
        )

    @property
    def values(self) -> list[Any]:
        """What the senders of the event's records sent. See `values` of this module."""
        return values(self.event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unhandled:
    """A dead letter."""

    function: str
    source: str
    """Name of the mapping or of the push source."""
    event: Any
    """With all records that were given up."""
    condition: str
    """AWS's word, such as RetryAttemptsExhausted."""
    attempts: int
    error_type: str
    error_message: str
    outcome: dict[str, Any]
    """AWS's record of a mapping's failure, without payload; empty for other events."""

    @property
    def values(self) -> list[Any]:
        """What the senders of the event's records sent."""
        return values(self.event)


def readable(letter: DeadLetter) -> Unhandled:
    """Return a dead letter as tests read it."""
    return Unhandled(
        function=letter.function,
        source=letter.source,
        event=_read(letter.payload),
        condition=letter.condition.value,
        attempts=letter.attempts,
        error_type=letter.error_type,
        error_message=letter.error_message,
        outcome=orjson.loads(letter.outcome) if letter.outcome else {},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """What the sender of a request got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, parsed."""
        return orjson.loads(self.body)
