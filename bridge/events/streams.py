"""A push source read as an ordered stream: its events as the records of a Lambda event (pure).

The event is `{"Records": […]}`. Each record is the route's own event, byte for byte, and behind its members
`eventSource` (`bridge:webhook`), `eventSourceARN` (`arn:bridge:webhook:REGION:ACCOUNT:NAME`), `shardId` and `eventID`
(the id that the sender got at 202). Where an event has members of these names already, ours come last and win, as the
last of two does for Python's json. An event that is no JSON object becomes the member `body`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.sources import PartialAnswer, WindowPart
from bridge.core.stream import Chunk, Position, RecordFormat, Shard
from bridge.events.batches import iso_milliseconds, records_event, records_overhead_bytes

_SHARD_PREFIX: Final = "shardId-"
_SHARD_DIGITS: Final = 12
_ID_CHARS: Final = 36
"""Of a record's id, a UUID as text."""
_ID_AT: Final = -_ID_CHARS - len(b'"}')
"""Where the id begins in a record's JSON: it is the last member."""


def shard_name(number: int) -> Shard:
    """Return the name of a shard as Kinesis names them: `shardId-000000000003`."""
    return f"{_SHARD_PREFIX}{number:0{_SHARD_DIGITS}d}"


class RecordsShape:
    """`sources.EventShape` of push sources.

    Args:
        name: the push source.
        kind: what kind of source it is, the end of `eventSource`.
        region: part of the ARN.
        account_id: part of the ARN.
    """

    format = RecordFormat.BRIDGE
    mixes_shards = False
    partial_answer = PartialAnswer.FROM_LOWEST
    shard_overhead_bytes = 0

    def __init__(
        self, name: str, *, kind: str = "webhook", region: str = REGION_DEFAULT, account_id: str = ACCOUNT_DEFAULT
    ) -> None:
        self.arn = f"arn:bridge:{kind}:{region}:{account_id}:{name}"
        """The stream's ARN."""
        self._tail = b'"eventSource":%b,"eventSourceARN":%b,"shardId":' % (
            orjson.dumps(f"bridge:{kind}"),
            orjson.dumps(self.arn),
        )
        self.overhead_bytes = records_overhead_bytes(self.arn)
        """With a window its state comes on top."""

    def record_tail(self, shard: Shard) -> bytes:
        """Return what every record of a shard ends with, up to its id: made once, not per record."""
        return b'%b"%b","eventID":"' % (self._tail, shard.encode())

    def event(self, parts: Sequence[tuple[Shard, Sequence[bytes]]], window: WindowPart | None = None) -> bytes:
        """Return the event; with a window also its members (semantics 3.11), then `Records` may be empty."""
        return records_event(parts, window, arn=self.arn)

    def identifier(self, chunk: Chunk, index: int) -> object:
        """Return the record's id."""
        return chunk.fragments[index][_ID_AT:-2].decode()

    def read_identifier(self, item: object) -> object | None:
        """Return the same of a parsed `itemIdentifier`: text that is not empty."""
        return item if isinstance(item, str) and item else None

    def batch_info(
        self, shard: Shard, positions: Sequence[Position], times_ms: Sequence[int], *, payload_bytes: int
    ) -> Mapping[str, Any]:
        """Return the members of `KinesisBatchInfo` under our own name; sequence numbers are journal positions."""
        del payload_bytes
        return {
            "BridgeBatchInfo": {
                "shardId": shard,
                "startSequenceNumber": str(positions[0]),
                "endSequenceNumber": str(positions[-1]),
                "approximateArrivalOfFirstRecord": iso_milliseconds(times_ms[0]),
                "approximateArrivalOfLastRecord": iso_milliseconds(times_ms[-1]),
                "batchSize": len(positions),
                "streamArn": self.arn,
            }
        }


def record_json(payload: bytes, tail: bytes, record_id: str) -> bytes:
    """Return a record: the event's own bytes with our members behind them. `tail` is that of its shard."""
    if payload[-1:] != b"}" or payload[:1] != b"{":
        payload = payload.strip()
        if not payload.startswith(b"{"):
            payload = b'{"body":%b}' % (payload or b"null")
    opened = payload[:-1]
    separator = b"," if opened[1:2] == b'"' or opened[1:].strip() else b""
    return b'%b%b%b%b"}' % (opened, separator, tail, record_id.encode())
