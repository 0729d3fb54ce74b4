"""DynamoDB stream records as the Lambda event, from what GetRecords of DynamoDB Streams answers.

Shape: docs.aws.amazon.com/lambda/latest/dg/with-ddb.html. Items pass as they came: numbers are texts there, binary is
base64. Two members differ between the API and the event: `userIdentity` is lower case in the event, and
`ApproximateCreationDateTime` is a whole number, not the API's float.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from bridge.core.sources import PartialAnswer, WindowPart
from bridge.core.stream import Chunk, Position, RecordFormat, Shard
from bridge.events.batches import iso_seconds, parse_sequence_number, records_event, records_overhead_bytes

EVENT_SOURCE: Final = "aws:dynamodb"
_SEQUENCE_DIGITS: Final = 21
"""At least so many has a sequence number (API_streams_StreamRecord): some stand-ins begin it with zeros."""


class DynamoDbShape:
    """`sources.EventShape` of DynamoDB Streams.

    Args:
        arn: the stream's: `arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE/stream/LABEL`.
        sequence_base: what a sequence number is above the position; embedded streams have one.
    """

    format = RecordFormat.DYNAMODB
    mixes_shards = False
    partial_answer = PartialAnswer.FROM_LOWEST
    shard_overhead_bytes = 0

    def __init__(self, arn: str, *, sequence_base: int = 0) -> None:
        self._sequence_base = sequence_base
        self.name(arn)

    def name(self, arn: str) -> None:
        """Take the stream's ARN, where it becomes known later than the shape is made: before any event."""
        self.arn = arn
        """The stream's ARN."""
        self.tail = b',"eventSourceARN":%b}' % orjson.dumps(arn)
        """What the JSON of all its records ends with."""
        self.overhead_bytes = records_overhead_bytes(arn)
        """With a window its state comes on top."""

    def sequence_number(self, position: Position) -> str:
        """Return a position as records have it."""
        return str(self._sequence_base + position).zfill(_SEQUENCE_DIGITS)

    def event(self, parts: Sequence[tuple[Shard, Sequence[bytes]]], window: WindowPart | None = None) -> bytes:
        """Return the event; with a window also its members (semantics 3.11), then `Records` may be empty."""
        return records_event(parts, window, arn=self.arn)

    def identifier(self, chunk: Chunk, index: int) -> object:
        """Return `dynamodb.SequenceNumber`, as a number."""
        return self._sequence_base + chunk.positions[index]

    def read_identifier(self, item: object) -> object | None:
        """Return the same of a parsed `itemIdentifier`: digits, as text."""
        return parse_sequence_number(item)

    def batch_info(
        self, shard: Shard, positions: Sequence[Position], times_ms: Sequence[int], *, payload_bytes: int
    ) -> Mapping[str, Any]:
        """Return `DDBStreamBatchInfo` (semantics 3.10): its times have no milliseconds."""
        del payload_bytes
        return {
            "DDBStreamBatchInfo": {
                "shardId": shard,
                "startSequenceNumber": self.sequence_number(positions[0]),
                "endSequenceNumber": self.sequence_number(positions[-1]),
                "approximateArrivalOfFirstRecord": _iso(times_ms[0]),
                "approximateArrivalOfLastRecord": _iso(times_ms[-1]),
                "batchSize": len(positions),
                "streamArn": self.arn,
            }
        }


def record_fragment(record: dict[str, Any], tail: bytes) -> bytes:
    """Return one record's JSON.

    Args:
        record: as the API's JSON has it, parsed; it is changed into the event's form.
        tail: `DynamoDbShape.tail`.
    """
    change = record["dynamodb"]
    created = change.get("ApproximateCreationDateTime")
    if type(created) is float and created.is_integer():
        change["ApproximateCreationDateTime"] = int(created)
    if isinstance(identity := record.get("userIdentity"), dict):
        record["userIdentity"] = {name[:1].lower() + name[1:]: value for name, value in identity.items()}
    return orjson.dumps(record)[:-1] + tail


def arrival_ms(record: Mapping[str, Any]) -> int:
    """Return when the change was made, epoch milliseconds (AWS: to the second); -1 where the record does not say."""
    created = record["dynamodb"].get("ApproximateCreationDateTime")
    return -1 if created is None else round(created * 1000)


def record_key(record: Mapping[str, Any]) -> bytes:
    """Return what order is kept by: the text of an item's key, or of several attributes their JSON in one spelling.

    Empty where the record names none.
    """
    keys = record["dynamodb"].get("Keys")
    if not keys:
        return b""
    if len(keys) == 1:
        ((only,),) = (each.values() for each in keys.values())
        if isinstance(only, str):
            return only.encode()
    return orjson.dumps(keys, option=orjson.OPT_SORT_KEYS)


def _iso(time_ms: int) -> str | None:
    """Return the time; None where there is none, or one that no calendar holds."""
    try:
        return None if time_ms < 0 else iso_seconds(time_ms // 1000)
    except (ValueError, OverflowError, OSError):
        return None
