"""What events of several sources share: the object with `Records`, its window, AWS's times and sequence numbers."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import orjson

from bridge.core.sources import WindowPart
from bridge.core.stream import Shard

_SEQUENCE_DIGITS_MAX: Final = 129
"""Of a sequence number (GetShardIterator's pattern)."""
WINDOW_MAX_BYTES: Final = 320
"""What a window adds beside its state and the ARN; DynamoDB's shards have the longest names (65 characters)."""


def records_event(
    parts: Sequence[tuple[Shard, Sequence[bytes]]], window: WindowPart | None = None, *, arn: str
) -> bytes:
    """Return the event; with a window also its members (semantics 3.11), then `Records` may be empty.

    Args:
        parts: the records' JSON by shard; with a window that of one shard.
        window: the tumbling window they are of.
        arn: the stream, as a window names it.
    """
    records = b",".join(fragment for _, fragments in parts for fragment in fragments)
    if window is None:
        return b'{"Records":[%b]}' % records
    members: dict[str, Any] = {"window": {"start": iso_seconds(window.start), "end": iso_seconds(window.end)}}
    rest = {
        "shardId": parts[0][0],
        "eventSourceARN": arn,
        "isFinalInvokeForWindow": window.is_final,
        "isWindowTerminatedEarly": window.is_terminated_early,
    }
    return b'{"Records":[%b],%b,"state":%b,%b}' % (
        records,
        orjson.dumps(members)[1:-1],
        window.state or b"{}",
        orjson.dumps(rest)[1:-1],
    )


def records_overhead_bytes(arn: str) -> int:
    """Return what such an event weighs beside its records and a window's state, at most."""
    return len(b'{"Records":[]}') + WINDOW_MAX_BYTES + len(orjson.dumps(arn))


def iso_seconds(at: float) -> str:
    """Return epoch seconds as `2020-07-30T17:00:00Z`."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_milliseconds(time_ms: int) -> str:
    """Return epoch milliseconds as `2019-11-14T00:38:04.835Z`."""
    return dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_sequence_number(item: object) -> int | None:
    """Return a sequence number (Kinesis or DynamoDB) as a number; None where it is not one, as text."""
    if isinstance(item, str) and item.isascii() and item.isdigit() and len(item) <= _SEQUENCE_DIGITS_MAX:
        return int(item)
    return None
