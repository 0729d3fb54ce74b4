"""What a record that was put into an embedded stream becomes: one of Kafka, of Kinesis, of DynamoDB or of SQS."""

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.mapping import EventSourceMapping, SourceAddress, parse_source
from bridge.core.sources import EventShape
from bridge.core.stream import Chunk, Position, PutRecord, Shard, shard_index
from bridge.events import kafka, kinesis, sqs
from bridge.events.dynamodb import DynamoDbShape, record_fragment, record_key
from bridge.events.dynamodb import arrival_ms as changed_ms
from bridge.events.generate_aws import QueueMessage, api_message
from bridge.events.items import change, filled
from bridge.events.kinesis import DataColumn, KinesisShape
from bridge.events.streams import shard_name
from bridge.sources.pull.journal import Codec, Columns
from bridge.sources.pull.sharding import Sharding

BOOTSTRAP_SERVERS: Final = "local"
"""What events of an embedded stream show where Kafka's have `host:port`."""
KINESIS_SEQUENCE_BASE: Final = 49 * 10**54
DYNAMODB_SEQUENCE_BASE: Final = 10**24
"""A sequence number is the journal's position above it: as long as the service's, and rising."""
_LABEL: Final = "2020-01-01T00:00:00.000"
"""Of a table's stream, in its ARN."""
_KEY_MEMBER: Final = b'"key":'


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFormat:
    """How an embedded stream is read."""

    shards: tuple[Shard, ...]
    sharding: Sharding
    codec: Codec
    shape: EventShape
    sequence_base: int = 0
    """What a position is lower than the sequence number that records show."""


def local_format(
    mapping: EventSourceMapping, *, region: str = REGION_DEFAULT, account_id: str = ACCOUNT_DEFAULT
) -> LocalFormat:
    """Return how a mapping reads its embedded stream, by the `as=` of its source.

    Args:
        mapping: its source is `local://NAME?as=kafka|kinesis|dynamodb|sqs`.
        region: in the ARN that events show, where the mapping has none.
        account_id: likewise.
    """
    address = parse_source(mapping.source)
    return _FORMATS[address.options["as"]](mapping, address, f"{region}:{account_id}")


def _kafka(mapping: EventSourceMapping, address: SourceAddress, place: str) -> LocalFormat:
    del place
    topic = address.name
    return LocalFormat(
        shards=tuple(kafka.shard_name(topic, number) for number in range(mapping.shards)),
        sharding=Sharding(shards=mapping.shards, key="record", key_of=_put_key),
        codec=_KafkaCodec(topic),
        shape=kafka.KafkaShape(
            topic=topic, bootstrap_servers=BOOTSTRAP_SERVERS, event_source_arn=mapping.event_source_arn
        ),
    )


def _kinesis(mapping: EventSourceMapping, address: SourceAddress, place: str) -> LocalFormat:
    arn = mapping.event_source_arn or f"arn:aws:kinesis:{place}:stream/{address.name}"
    shape = KinesisShape(arn, sequence_base=KINESIS_SEQUENCE_BASE)
    return LocalFormat(
        shards=_shards(mapping),
        sharding=Sharding(shards=mapping.shards, key="record", key_of=_put_key),
        codec=_KinesisCodec(shape),
        shape=shape,
        sequence_base=KINESIS_SEQUENCE_BASE,
    )


def _dynamodb(mapping: EventSourceMapping, address: SourceAddress, place: str) -> LocalFormat:
    arn = mapping.event_source_arn or f"arn:aws:dynamodb:{place}:table/{address.name}/stream/{_LABEL}"
    shape = DynamoDbShape(arn, sequence_base=DYNAMODB_SEQUENCE_BASE)
    return LocalFormat(
        shards=_shards(mapping),
        sharding=Sharding(shards=mapping.shards, key="item", key_of=_item_key),
        codec=_DynamoDbCodec(shape),
        shape=shape,
        sequence_base=DYNAMODB_SEQUENCE_BASE,
    )


def _sqs(mapping: EventSourceMapping, address: SourceAddress, place: str) -> LocalFormat:
    shape = sqs.SqsShape(mapping.event_source_arn or f"arn:aws:sqs:{place}:{address.name}")
    return LocalFormat(
        shards=(address.name,),
        sharding=Sharding(shards=1, key="record", key_of=_put_key),
        codec=_SqsCodec(shape, is_fifo=address.name.endswith(".fifo")),
        shape=shape,
    )


_FORMATS: Final[Mapping[str, Callable[[EventSourceMapping, SourceAddress, str], LocalFormat]]] = {
    "kafka": _kafka, "kinesis": _kinesis, "dynamodb": _dynamodb, "sqs": _sqs,
}  # fmt: skip


def _shards(mapping: EventSourceMapping) -> tuple[Shard, ...]:
    return tuple(shard_name(number) for number in range(mapping.shards))


# --- the stored form ------------------------------------------------------------------------------------------------
def packed(record: PutRecord, *, now_ms: int) -> bytes:
    """Return the stored form: JSON, as Kafka's records have it in an event, so that `bridge events` can show it."""
    return b'{"timestamp":%d,"key":%b,"value":%b,"headers":%b}' % (
        now_ms if record.timestamp_ms is None else record.timestamp_ms,
        _encoded(record.key),
        _encoded(record.value),
        kafka.headers_json(record.headers),
    )


def _encoded(data: bytes | None) -> bytes:
    return b"null" if data is None else b'"%b"' % b2a_base64(data, newline=False)


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else a2b_base64(text)


def _put_key(record_id: str, payload: bytes, stored: bytes = b"") -> bytes:
    """Return the record's key, or its id: those without one are spread. Read where `packed` puts it, unparsed."""
    del stored
    at = payload.index(_KEY_MEMBER) + len(_KEY_MEMBER)
    if payload[at : at + 1] != b'"':
        return record_id.encode()
    return a2b_base64(payload[at + 1 : payload.index(b'"', at + 1)])


# --- as Kafka -------------------------------------------------------------------------------------------------------
class _KafkaCodec:
    """Records that were put, as Kafka's."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk; a record that was put without a key has none here either."""
        positions = records.positions
        put = [_unpacked(payload) for payload in records.payloads]
        rows = [
            (position, time_ms, kafka.CREATE_TIME, key, value, headers)
            for position, (time_ms, key, value, headers) in zip(positions, put, strict=True)
        ]
        return Chunk(
            shard=shard,
            positions=positions,
            times_ms=[row[1] for row in rows],
            keys=[row[3] for row in rows],
            values=[row[4] for row in rows],
            fragments=kafka.record_fragments(kafka.record_prefix(self._topic, shard_index(shard)), rows),
            through=through,
        )


_Put: TypeAlias = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
"""Time, key, value and headers."""


def _unpacked(payload: bytes) -> _Put:
    put: dict[str, Any] = orjson.loads(payload)
    headers = [
        (name, None if value is None else bytes(number & 0xFF for number in value))
        for header in put["headers"]
        for name, value in header.items()
    ]
    return put["timestamp"], _decoded(put["key"]), _decoded(put["value"]), headers


# --- as Kinesis -----------------------------------------------------------------------------------------------------
class _KinesisCodec:
    """Records that were put, as Kinesis': the key is the partition key, and one without has its id for one."""

    def __init__(self, shape: KinesisShape) -> None:
        self._shape = shape

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk. Headers have no place in it, and no value is empty data."""
        put = [orjson.loads(payload) for payload in records.payloads]
        times_ms = [each["timestamp"] for each in put]
        sequence = self._shape.sequence_number
        found = [
            {
                "PartitionKey": key.decode("utf-8", "replace"),
                "SequenceNumber": sequence(position),
                "Data": each["value"] or "",
            }
            for position, key, each in zip(records.positions, records.keys, put, strict=True)
        ]
        return Chunk(
            shard=shard,
            positions=records.positions,
            times_ms=times_ms,
            keys=records.keys,
            values=DataColumn([each["Data"] for each in found]),
            fragments=kinesis.record_fragments(self._shape.frame(shard), found, times_ms),
            through=through,
        )


# --- as DynamoDB ----------------------------------------------------------------------------------------------------
def _item_key(record_id: str, payload: bytes, stored: bytes = b"") -> bytes:
    """Return the item's key, or the record's id where it has none."""
    del stored
    put = orjson.loads(payload)
    with suppress(AttributeError, TypeError, ValueError):  # a stream record that was put may say anything
        if key := record_key(change(_decoded(put["value"]), key=_decoded(put["key"]))):
            return key
    return record_id.encode()


class _DynamoDbCodec:
    """Records that were put, as changes of items (`events.items.change`)."""

    def __init__(self, shape: DynamoDbShape) -> None:
        self._shape = shape
        self._region = shape.arn.split(":")[3]

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk. A stream record that was put keeps its time, and that is its arrival."""
        times_ms: list[int] = []
        values: list[bytes | None] = []
        fragments: list[bytes] = []
        for position, record_id, payload in zip(records.positions, records.ids, records.payloads, strict=True):
            put = orjson.loads(payload)
            value = _decoded(put["value"])
            told = change(value, key=_decoded(put["key"]))
            record = filled(
                told,
                event_id=record_id.replace("-", ""),
                sequence_number=self._shape.sequence_number(position),
                time_ms=put["timestamp"],
                region=self._region,
            )
            is_dated = "ApproximateCreationDateTime" in told["dynamodb"]
            times_ms.append(changed_ms(record) if is_dated else put["timestamp"])
            values.append(value)
            fragments.append(record_fragment(record, self._shape.tail))
        return Chunk(
            shard=shard,
            positions=records.positions,
            times_ms=times_ms,
            keys=records.keys,
            values=values,
            fragments=fragments,
            through=through,
        )


# --- as SQS ---------------------------------------------------------------------------------------------------------
class _SqsCodec:
    """Records that were put, as SQS' at their first receive: headers are message attributes, the key is the group."""

    def __init__(self, shape: sqs.SqsShape, *, is_fifo: bool) -> None:
        self._shape = shape
        self._account = shape.arn.split(":")[4]
        self._is_fifo = is_fifo

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk. A body is text: what is no UTF-8 is replaced."""
        put = [_unpacked(payload) for payload in records.payloads]
        values = [(value or b"").decode("utf-8", "replace").encode() for _, _, value, _ in put]
        rows = zip(records.positions, records.ids, put, values, strict=True)
        return Chunk(
            shard=shard,
            positions=records.positions,
            times_ms=[each[0] for each in put],
            keys=records.keys,
            values=values,
            fragments=[self._fragment(position, name, row, body) for position, name, row, body in rows],
            through=through,
        )

    def _fragment(self, position: Position, record_id: str, put: _Put, body: bytes) -> bytes:
        time_ms, key, _, headers = put
        group = record_id if key is None else key.decode("utf-8", "replace")
        message = QueueMessage(
            message_id=record_id,
            receipt_handle=str(position),
            body=body.decode(),
            attributes={name: _attribute(value or b"") for name, value in headers},
            sender_id=self._account,
            time_ms=time_ms,
            receive_count=1,
            sequence_number=position,
            group_id=group if self._is_fifo else "",
            deduplication_id=record_id if self._is_fifo else "",
            dead_letter_source="",
        )
        return sqs.record_fragment(api_message(message), self._shape.tail)


def _attribute(value: bytes) -> tuple[str, str]:
    try:
        return "String", value.decode()
    except UnicodeDecodeError:
        return "Binary", b2a_base64(value, newline=False).decode()
