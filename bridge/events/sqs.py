"""SQS messages as the Lambda event, from what ReceiveMessage answers.

Shape: docs.aws.amazon.com/lambda/latest/dg/with-sqs.html and events that AWS sent (semantics 4.1). Names begin in lower
case, `attributes` are texts, the lists of a message attribute are there and empty, and without message attributes there
is no `md5OfMessageAttributes`.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from bridge.core.sources import PartialAnswer, WindowPart
from bridge.core.stream import Chunk, Position, RecordFormat, Shard
from bridge.events.batches import iso_milliseconds, records_event

EVENT_SOURCE: Final = "aws:sqs"
_ID_MEMBER: Final = b'{"messageId":"'


class SqsShape:
    """`sources.EventShape` of SQS; no tumbling windows.

    Args:
        arn: the queue's.
    """

    format = RecordFormat.SQS
    mixes_shards = False
    partial_answer = PartialAnswer.LISTED
    shard_overhead_bytes = 0
    overhead_bytes = len(b'{"Records":[]}')

    def __init__(self, arn: str) -> None:
        self.arn = arn
        """The queue's ARN."""
        tail = {"eventSource": EVENT_SOURCE, "eventSourceARN": arn, "awsRegion": arn.split(":")[3]}
        self.tail = b"," + orjson.dumps(tail)[1:]
        """What the JSON of all its records ends with."""

    def event(self, parts: Sequence[tuple[Shard, Sequence[bytes]]], window: WindowPart | None = None) -> bytes:
        """Return the event. SQS has no tumbling windows."""
        assert window is None, "tumbling windows are refused for SQS"
        return records_event(parts, arn=self.arn)

    def identifier(self, chunk: Chunk, index: int) -> object:
        """Return `messageId`."""
        return message_id(chunk.fragments[index])

    def read_identifier(self, item: object) -> object | None:
        """Return the same of a parsed `itemIdentifier`: text that is not empty."""
        return item if isinstance(item, str) and item else None

    def batch_info(
        self, shard: Shard, positions: Sequence[Position], times_ms: Sequence[int], *, payload_bytes: int
    ) -> Mapping[str, Any]:
        """Return what failed, under a name of ours: AWS has no on-failure records of SQS."""
        del shard
        return {
            "SQSBatchInfo": {
                "approximateArrivalOfFirstRecord": iso_milliseconds(times_ms[0]),
                "approximateArrivalOfLastRecord": iso_milliseconds(times_ms[-1]),
                "batchSize": len(positions),
                "payloadSize": payload_bytes,
                "queueArn": self.arn,
            }
        }


def record_fragment(message: Mapping[str, Any], tail: bytes) -> bytes:
    """Return one record's JSON.

    Args:
        message: as the API's JSON has it: MessageId, ReceiptHandle, Body, MD5OfBody, Attributes, MessageAttributes,
            MD5OfMessageAttributes; binary values as base64 text or as bytes.
        tail: `SqsShape.tail`.
    """
    record: dict[str, Any] = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes") or {},
    }
    attributes = message.get("MessageAttributes")
    record["messageAttributes"] = {} if not attributes else {n: _attribute(v) for n, v in attributes.items()}
    if attributes and "MD5OfMessageAttributes" in message:
        record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    record["md5OfBody"] = message.get("MD5OfBody", "")
    return orjson.dumps(record)[:-1] + tail


def message_id(fragment: bytes) -> str:
    """Return `messageId` of a record's JSON, unparsed: it is the first member."""
    begin = len(_ID_MEMBER)
    return fragment[begin : fragment.index(b'"', begin)].decode()


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if "StringValue" in value:
        made["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        made["binaryValue"] = _base64(value["BinaryValue"])
    made["stringListValues"] = list(value.get("StringListValues") or ())
    made["binaryListValues"] = [_base64(item) for item in value.get("BinaryListValues") or ()]
    made["dataType"] = value["DataType"]
    return made


def _base64(data: bytes | str) -> str:
    return data if isinstance(data, str) else b64encode(data).decode()
