"""Kafka records as the Lambda event of MSK and of self-managed clusters, and such an event back into records.

Shapes: docs.aws.amazon.com/lambda/latest/dg/with-msk.html and with-kafka.html. Choices where those are silent:

- A missing key or value (a tombstone) is `null`, and so is a header without a value; no headers is `[]`.
- Header bytes are signed numbers, as Java's; 0..255 is taken too when an event is read back.
- `eventSource` of a self-managed cluster is `SelfManagedKafka`; `aws:SelfManagedKafka` (older samples) is taken too.
"""

import datetime as dt
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from pybase64 import b64encode

from bridge.core.sources import PartialAnswer, WindowPart
from bridge.core.stream import Chunk, Position, RecordFormat, Shard

CREATE_TIME: Final = 0
LOG_APPEND_TIME: Final = 1
"""Kafka's own numbers of the two kinds of timestamps."""
TIMESTAMP_TYPES: Final = (b"CREATE_TIME", b"LOG_APPEND_TIME")

EVENT_SOURCE_MSK: Final = "aws:kafka"
EVENT_SOURCE_SELF_MANAGED: Final = "SelfManagedKafka"
EVENT_SOURCES: Final = frozenset({EVENT_SOURCE_MSK, EVENT_SOURCE_SELF_MANAGED, "aws:SelfManagedKafka"})

Headers = Sequence[tuple[str, bytes | None]]
"""In the record's order, duplicates allowed."""

_PARTITION_DIGITS_MAX: Final = 10


class KafkaRecord(NamedTuple):
    """One record of an event that was read back."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Epoch milliseconds; -1 when the record has none."""
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


# --- records to JSON ------------------------------------------------------------------------------------------------
def record_prefix(topic: str, partition: int) -> bytes:
    """Return what the JSON of all records of a partition begins with: made once, not per record."""
    return b'{"topic":%b,"partition":%d,"offset":' % (orjson.dumps(topic), partition)


def record_fragment(
    prefix: bytes,
    offset: int,
    *,
    timestamp_ms: int,
    timestamp_type: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers = (),
) -> bytes:
    """Return one record's JSON; `prefix` is that of its partition (`record_prefix`)."""
    return record_fragments(prefix, ((offset, timestamp_ms, timestamp_type, key, value, headers),))[0]


def record_fragments(
    prefix: bytes, records: Iterable[tuple[int, int, int, bytes | None, bytes | None, Headers]]
) -> list[bytes]:
    """Return the JSON of records of one partition.

    Args:
        prefix: what `record_prefix` made for the partition.
        records: offset, timestamp (ms), timestamp type, key, value and headers of each.
    """
    # Keys are short: binascii's is quicker below 90 bytes, pybase64's from there on (at 1 KB four times).
    encode, encode_value = b2a_base64, b64encode
    types, header_list, rare = TIMESTAMP_TYPES, headers_json, _fragment_with_nulls
    return [
        rare(prefix, offset, time_ms, time_type, key, value, headers)
        if key is None or value is None
        # A copy of the data less than below: at 1 KB an eighth of the time.
        else b'%b%d,"timestamp":%d,"timestampType":"%b","key":"%b","value":"%b","headers":%b}'
        % (
            prefix,
            offset,
            time_ms,
            types[time_type],
            encode(key, newline=False),
            encode_value(value),
            header_list(headers) if headers else b"[]",
        )
        for offset, time_ms, time_type, key, value, headers in records
    ]


def _fragment_with_nulls(
    prefix: bytes,
    offset: int,
    time_ms: int,
    time_type: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
) -> bytes:
    return b'%b%d,"timestamp":%d,"timestampType":"%b","key":%b,"value":%b,"headers":%b}' % (
        prefix,
        offset,
        time_ms,
        TIMESTAMP_TYPES[time_type],
        b"null" if key is None else b'"%b"' % b2a_base64(key, newline=False),
        b"null" if value is None else b'"%b"' % b2a_base64(value, newline=False),
        headers_json(headers) if headers else b"[]",
    )


def headers_json(headers: Headers) -> bytes:
    """Return the list of single-member objects that headers are in an event."""
    return orjson.dumps(
        [{name: None if value is None else memoryview(value).cast("b").tolist()} for name, value in headers]
    )


# --- the event ------------------------------------------------------------------------------------------------------
class KafkaShape:
    """`sources.EventShape` of Kafka: records of several partitions of one topic in one event."""

    format = RecordFormat.KAFKA
    mixes_shards = True
    partial_answer = PartialAnswer.LISTED

    def __init__(self, *, topic: str, bootstrap_servers: str, event_source_arn: str = "") -> None:
        """Shape events of one topic.

        Args:
            topic: name of the topic (or of the local stream that stands in for one).
            bootstrap_servers: `host:port,…`, as the event shows it.
            event_source_arn: the MSK cluster's ARN; empty for a self-managed cluster.
        """
        self._bootstrap_servers = bootstrap_servers
        self._arn = event_source_arn
        head: dict[str, Any] = {"eventSource": EVENT_SOURCE_MSK if event_source_arn else EVENT_SOURCE_SELF_MANAGED}
        if event_source_arn:
            head["eventSourceArn"] = event_source_arn
        head["bootstrapServers"] = bootstrap_servers
        self._head = orjson.dumps(head)[:-1] + b',"records":{'
        name_bytes = len(orjson.dumps(topic)) + 1 + _PARTITION_DIGITS_MAX
        self.shard_overhead_bytes = name_bytes + len(b":[],")
        self.overhead_bytes = len(self._head) + len(b"}}") + self.shard_overhead_bytes

    def event(self, parts: Sequence[tuple[Shard, Sequence[bytes]]], window: WindowPart | None = None) -> bytes:
        """Return the event: `records` keyed by topic-partition. Kafka has no tumbling windows."""
        assert window is None, "tumbling windows are refused for Kafka"
        if not parts:
            return self._head + b"}}"
        # Everything is joined by commas, so that a large event is put together, and copied, once.
        members: list[bytes] = []
        for shard, fragments in parts:
            first = len(members)
            members += fragments or (b"",)
            members[first] = b"%b:[%b" % (orjson.dumps(shard), members[first])
            members[-1] += b"]"
        members[0] = self._head + members[0]
        members[-1] += b"}}"
        return b",".join(members)

    def identifier(self, chunk: Chunk, index: int) -> object:
        """Return topic-partition and offset."""
        return chunk.shard, chunk.positions[index]

    def read_identifier(self, item: object) -> object | None:
        """Return the same of `{"topic-partition": "orders-0", "offset": 100}`, or with Powertools' word `partition`."""
        if not isinstance(item, Mapping):
            return None
        shard, offset = item.get("topic-partition", item.get("partition")), item.get("offset")
        if isinstance(shard, str) and isinstance(offset, int) and not isinstance(offset, bool):
            return shard, offset
        return None

    def batch_info(
        self, shard: Shard, positions: Sequence[Position], times_ms: Sequence[int], *, payload_bytes: int
    ) -> Mapping[str, Any]:
        """Return AWS's `KafkaBatchInfo`: of the first record; `topic-partition` and `lastOffset` are ours.

        AWS names neither the partition nor the end of the batch, without which no replay finds it again.
        """
        info: dict[str, Any] = {"batchSize": len(positions)}
        if self._arn:
            info["eventSourceArn"] = self._arn
        info["bootstrapServers"] = self._bootstrap_servers
        info["payloadSize"] = payload_bytes
        info["recordInfo"] = {
            "offset": str(positions[0]),
            "timestamp": _iso(times_ms[0]),
            "topic-partition": shard,
            "lastOffset": str(positions[-1]),
        }
        return {"KafkaBatchInfo": info}


def shard_name(topic: str, partition: int) -> Shard:
    """Return a partition's name as events have it: `orders-0`."""
    return f"{topic}-{partition}"


def _iso(time_ms: int) -> str | None:
    """Return the time; None where there is none, or one that no calendar holds: a producer sets what it likes."""
    if time_ms < 0:
        return None
    try:
        at = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- JSON to records ------------------------------------------------------------------------------------------------
def parse_event(event: bytes) -> list[KafkaRecord]:
    """Return the records of an event, in its order.

    Raises:
        ValueError: not an event of Kafka's; the text says what is wrong.
    """
    return [record for record, _ in split_event(event)]


def split_event(event: bytes) -> list[tuple[KafkaRecord, bytes]]:
    """Return each record of an event, and beside it the event that holds just that record.

    Raises:
        ValueError: not an event of Kafka's; the text says what is wrong.
    """
    try:
        whole = orjson.loads(event)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the event is not JSON: {error}") from error
    if not isinstance(whole, dict) or whole.get("eventSource") not in EVENT_SOURCES:
        raise ValueError("eventSource is not one of Kafka's")
    parts = whole.get("records")
    if not isinstance(parts, dict) or not all(isinstance(part, list) for part in parts.values()):
        raise ValueError("records is not an object of lists")
    return [
        (_record(item), orjson.dumps(whole | {"records": {shard: [item]}}))
        for shard, part in parts.items()
        for item in part
    ]


def _record(item: Any) -> KafkaRecord:
    try:
        return KafkaRecord(
            topic=_text(item["topic"]),
            partition=_number(item["partition"]),
            offset=_number(item["offset"]),
            timestamp_ms=_number(item.get("timestamp", -1)),
            timestamp_type=LOG_APPEND_TIME if item.get("timestampType") == "LOG_APPEND_TIME" else CREATE_TIME,
            key=_data(item.get("key")),
            value=_data(item.get("value")),
            headers=tuple(
                (name, _header(value)) for header in item.get("headers") or () for name, value in header.items()
            ),
        )
    except (KeyError, TypeError, AttributeError, Base64Error) as error:
        raise ValueError(f"a record is not one of Kafka's: {type(error).__name__}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _data(value: Any) -> bytes | None:
    return None if value is None else a2b_base64(_text(value), strict_mode=True)


def _header(value: Any) -> bytes | None:
    return None if value is None else bytes(_byte(number) for number in value)


def _byte(value: Any) -> int:
    number = _number(value)
    if not -128 <= number <= 255:
        raise TypeError(f"{number} is not a byte")
    return number & 0xFF
