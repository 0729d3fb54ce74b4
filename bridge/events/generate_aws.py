"""Sample events of Kinesis, DynamoDB Streams and SQS with chosen fields, made by the code that shapes real ones."""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bridge.events import dynamodb, kinesis, sqs
from bridge.events.items import filled

SEQUENCE_FIRST: Final = 49590338271490256608559692538361571095921575989136588898
CHANGE_FIRST: Final = 1405400000000002063282832
MESSAGE_FIRST: Final = 18849496460467696128
"""Sequence numbers as the services have them: of Kinesis, of DynamoDB Streams, of FIFO queues."""
VIEWS: Final[Mapping[str, tuple[str, ...]]] = {
    "KEYS_ONLY": (), "NEW_IMAGE": ("NewImage",), "OLD_IMAGE": ("OldImage",),
    "NEW_AND_OLD_IMAGES": ("NewImage", "OldImage"),
}  # fmt: skip
"""What a stream tells of an item, by StreamViewType."""
BY_TTL: Final = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
"""Who removes an item whose time to live has ended."""
_STRING, _BINARY = b"\x01", b"\x02"


@dataclass(frozen=True, slots=True, kw_only=True)
class KinesisRecord:
    """A record as a person describes it."""

    data: bytes
    partition_key: str
    sequence_number: int
    time_ms: int
    """Arrival, epoch milliseconds."""
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of an item as a person describes it."""

    event_name: str
    keys: Mapping[str, Any]
    """Attributes, typed, as all items here."""
    new: Mapping[str, Any] | None
    old: Mapping[str, Any] | None
    view: str
    """One of `VIEWS`: what is told of new and old."""
    event_id: str
    sequence_number: int
    time_ms: int
    is_by_ttl: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMessage:
    """A message as a person describes it."""

    body: str
    message_id: str
    receipt_handle: str
    time_ms: int
    """When it was sent, epoch milliseconds."""
    sender_id: str
    receive_count: int = 1
    attributes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Data type (String, Number, Binary, with or without .custom) and value by name; of Binary the base64."""
    group_id: str = ""
    """FIFO queues; empty: a standard queue."""
    deduplication_id: str = ""
    sequence_number: int = 0
    dead_letter_source: str = ""
    """ARN of the queue it was moved from; empty: from none."""


def kinesis_event(records: Sequence[KinesisRecord], *, arn: str, shard: str, identity_arn: str = "") -> bytes:
    """Return the event that holds `records`, of one shard and in their order.

    Args:
        records: at least one.
        arn: the stream's.
        shard: `shardId-000000000000`.
        identity_arn: the execution role; empty: one that is made up.
    """
    shape = kinesis.KinesisShape(arn, identity_arn=identity_arn)
    told = [
        {
            "SequenceNumber": str(record.sequence_number),
            "PartitionKey": record.partition_key,
            "Data": b64encode(record.data).decode(),
            "EncryptionType": "KMS" if record.is_encrypted else "NONE",
        }
        for record in records
    ]
    fragments = kinesis.record_fragments(shape.frame(shard), told, [record.time_ms for record in records])
    return shape.event([(shard, fragments)])


def dynamodb_event(changes: Sequence[Change], *, arn: str) -> bytes:
    """Return the event that holds `changes`, of one shard and in their order.

    Args:
        changes: at least one.
        arn: the stream's.
    """
    shape = dynamodb.DynamoDbShape(arn)
    fragments = [dynamodb.record_fragment(stream_record(change, arn=arn), shape.tail) for change in changes]
    return shape.event([("", fragments)])


def stream_record(change: Change, *, arn: str) -> dict[str, Any]:
    """Return a change as a stream record without its stream's ARN: what `bridge put` takes."""
    images = {"NewImage": change.new, "OldImage": change.old}
    told: dict[str, Any] = {
        "eventName": change.event_name,
        "dynamodb": {
            "ApproximateCreationDateTime": change.time_ms // 1000,
            "Keys": change.keys,
            **{name: images[name] for name in VIEWS[change.view] if images[name] is not None},
            "StreamViewType": change.view,
        },
    }
    if change.is_by_ttl:
        told["userIdentity"] = BY_TTL
    return filled(
        told,
        event_id=change.event_id,
        sequence_number=str(change.sequence_number),
        time_ms=change.time_ms,
        region=arn.split(":")[3],
    )


def sqs_event(messages: Sequence[QueueMessage], *, arn: str) -> bytes:
    """Return the event that holds `messages` in their order.

    Args:
        messages: at least one.
        arn: the queue's.
    """
    shape = sqs.SqsShape(arn)
    return shape.event([("", [sqs.record_fragment(api_message(message), shape.tail) for message in messages])])


def api_message(message: QueueMessage) -> dict[str, Any]:
    """Return a message as ReceiveMessage answers it."""
    attributes = {
        "ApproximateReceiveCount": str(message.receive_count),
        "SentTimestamp": str(message.time_ms),
        "SenderId": message.sender_id,
        "ApproximateFirstReceiveTimestamp": str(message.time_ms + 2),
    }
    if message.group_id:
        attributes |= {
            "SequenceNumber": str(message.sequence_number),
            "MessageGroupId": message.group_id,
            "MessageDeduplicationId": message.deduplication_id,
        }
    if message.dead_letter_source:
        attributes["DeadLetterQueueSourceArn"] = message.dead_letter_source
    made: dict[str, Any] = {
        "MessageId": message.message_id,
        "ReceiptHandle": message.receipt_handle,
        "Body": message.body,
        "MD5OfBody": hashlib.md5(message.body.encode(), usedforsecurity=False).hexdigest(),
        "Attributes": attributes,
    }
    if message.attributes:
        made["MessageAttributes"] = {
            name: {"DataType": kind, "BinaryValue" if is_binary(kind) else "StringValue": value}
            for name, (kind, value) in message.attributes.items()
        }
        made["MD5OfMessageAttributes"] = attributes_md5(message.attributes)
    return made


def is_binary(kind: str) -> bool:
    """Tell whether values of a data type are binary: `Binary`, `Binary.png`."""
    return kind.partition(".")[0] == "Binary"


def attributes_md5(attributes: Mapping[str, tuple[str, str]]) -> str:
    """Return SQS's sum of message attributes.

    The rule: docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for name, (kind, value) in sorted(attributes.items()):
        for part in (name.encode(), kind.encode()):
            digest.update(len(part).to_bytes(4) + part)
        data = b64decode(value) if is_binary(kind) else value.encode()
        digest.update((_BINARY if is_binary(kind) else _STRING) + len(data).to_bytes(4) + data)
    return digest.hexdigest()


def change_line(change: Change, *, arn: str) -> bytes:
    """Return a change as one line of JSON: a stream record."""
    return orjson.dumps(stream_record(change, arn=arn))
