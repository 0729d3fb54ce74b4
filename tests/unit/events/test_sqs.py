"""SQS messages as Lambda events: what AWS sent, reproduced from what ReceiveMessage answers."""

import json
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.data_classes import SQSEvent

from bridge.core.sources import PartialAnswer
from bridge.core.stream import Chunk, RecordFormat
from bridge.events.sqs import SqsShape, message_id, record_fragment

GOLDEN = Path(__file__).parent / "golden"
ARN = "arn:aws:sqs:us-west-2:123456789012:SQSQueue"
SHAPE = SqsShape(ARN)
MESSAGE = {"MessageId": "id-1", "ReceiptHandle": "handle", "Body": "hello", "MD5OfBody": "5d41"}
API_NAMES = {"messageId": "MessageId", "receiptHandle": "ReceiptHandle", "body": "Body", "md5OfBody": "MD5OfBody",
             "attributes": "Attributes", "md5OfMessageAttributes": "MD5OfMessageAttributes"}  # fmt: skip


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def api_message(record):
    """Return a record of an event as ReceiveMessage answers it: no empty lists."""
    made = {API_NAMES[name]: value for name, value in record.items() if name in API_NAMES}
    attributes = {
        key: {name[0].upper() + name[1:]: value for name, value in attribute.items() if value}
        for key, attribute in record["messageAttributes"].items()
    }
    return made | ({"MessageAttributes": attributes} if attributes else {})


def shaped(record):
    shape = SqsShape(record["eventSourceARN"])
    return json.loads(record_fragment(api_message(record), shape.tail))


def test_what_aws_sent_is_reproduced_member_by_member_in_its_order():
    (record,) = golden("captured-from-aws/sqs-event-with-message-attributes.json")["Records"]
    record["eventSourceARN"], record["awsRegion"] = ARN, "us-west-2"

    assert json.dumps(record) == json.dumps(shaped(record))


@pytest.mark.parametrize(
    "name",
    [
        "aws-lambda-go/sqs-event.json",
        "captured-from-aws/sqs-fifo-event.json",
        "powertools-python/snsSqsFifoEvent.json",
        "powertools-python/sqsDlqTriggerEvent.json",
    ],
)
def test_a_sample_is_reproduced(name):
    for record in golden(name)["Records"]:
        if record["awsRegion"].startswith("<"):
            record["eventSourceARN"], record["awsRegion"] = ARN, "us-west-2"
            record["body"] = json.dumps(record["body"])  # the recording shows it parsed

        assert record == shaped(record)


def test_powertools_reads_it():
    (sample,) = golden("aws-lambda-go/sqs-event.json")["Records"]
    event = SQSEvent(json.loads(SHAPE.event([("", [record_fragment(api_message(sample), SHAPE.tail)])])))

    record = next(iter(event.records))

    assert ("MessageID_1", "Message Body", ARN) == (record.message_id, record.body, record.event_source_arn)
    assert "2" == record.attributes.approximate_receive_count
    assert "AttributeValue1" == record.message_attributes["Attribute1"].string_value
    assert sample["md5OfBody"] == record.md5_of_body


def test_without_message_attributes_there_is_no_sum_of_them():
    made = json.loads(record_fragment(MESSAGE, SHAPE.tail))

    assert {} == made["messageAttributes"] == made["attributes"]
    assert "md5OfMessageAttributes" not in made


def test_binary_values_may_be_text_or_bytes():
    def made(value):
        message = MESSAGE | {"MessageAttributes": {"a": {"DataType": "Binary", "BinaryValue": value}}}
        return json.loads(record_fragment(message, SHAPE.tail))["messageAttributes"]["a"]

    assert made(b"1100") == made("MTEwMA==")
    assert list(made(b"")) == ["binaryValue", "stringListValues", "binaryListValues", "dataType"]


def test_partial_answers_name_message_ids():
    fragment = record_fragment(MESSAGE, SHAPE.tail)
    chunk = Chunk(
        shard="", positions=[0], times_ms=[0], keys=[None], values=[b"hello"], fragments=[fragment], through=0
    )

    assert "id-1" == message_id(fragment) == SHAPE.identifier(chunk, 0) == SHAPE.read_identifier("id-1")
    assert [None] * 3 == [SHAPE.read_identifier(item) for item in ("", None, 5)]
    assert SHAPE.partial_answer is PartialAnswer.LISTED
    assert SHAPE.format is RecordFormat.SQS
