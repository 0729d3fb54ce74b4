"""Answers that are taken as they came: nothing of the body is read or changed, errors are told as ever."""

import functools
import json

import pytest
from botocore.exceptions import ClientError

from bridge.aws.raw import RAW, take_raw
from bridge.core.connection import AwsConnection
from bridge.core.errors import SourceError
from bridge.sources.pull.sqs import SqsQueue, call
from tests.http_stub import Answer, failed

BODY = b'{"Records":[{"Data":"eyJhIjoxfQ==","ApproximateArrivalTimestamp":1.545084650987E9,"SequenceNumber":"4959"}]}'
RECEIVED = json.dumps({"Messages": [{
    "MessageId": "m", "ReceiptHandle": "r", "Body": "ä\n", "MD5OfBody": "m1", "MD5OfMessageAttributes": "m2",
    "Attributes": {"ApproximateReceiveCount": "2", "SentTimestamp": "1780000000123", "AWSTraceHeader": "Root=1"},
    "MessageAttributes": {"b": {"BinaryValue": "AAEC", "DataType": "Binary"}},
}]}).encode()  # fmt: skip


def connection(url: str) -> AwsConnection:
    return AwsConnection(name="x", region="eu-central-1", endpoint_url=url, access_key_id="AK", secret_access_key="SK")


@pytest.mark.parametrize(("service", "operation"), [("kinesis", "GetRecords"), ("dynamodbstreams", "GetRecords")])
async def test_the_body_comes_byte_for_byte(clients, stub, service, operation) -> None:
    client = await clients.client(connection(stub.url), service)
    take_raw(client, operation)
    take_raw(client, operation)
    stub.answer = Answer(body=BODY)

    answer = await client.get_records(ShardIterator="i" * 40)

    assert answer[RAW] == BODY
    assert "Records" not in answer
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


async def test_errors_are_told_by_their_code(clients, stub) -> None:
    client = await clients.client(connection(stub.url), "kinesis")
    take_raw(client, "GetRecords")
    stub.answer = failed(400, "ExpiredIteratorException")

    with pytest.raises(ClientError) as raised:
        await client.get_records(ShardIterator="i")

    assert raised.value.response["Error"]["Code"] == "ExpiredIteratorException"


async def test_other_operations_are_parsed_as_ever(clients, stub) -> None:
    client = await clients.client(connection(stub.url), "kinesis")
    take_raw(client, "GetRecords")
    stub.answer = Answer(body=b'{"ShardIterator":"next"}')

    answer = await client.get_shard_iterator(StreamName="s", ShardId="shardId-0", ShardIteratorType="LATEST")

    assert answer["ShardIterator"] == "next"
    assert RAW not in answer


async def test_a_time_is_sent_with_its_fraction(clients, stub) -> None:
    client = await clients.client(connection(stub.url), "kinesis")
    stub.answer = Answer(body=b'{"ShardIterator":"next"}')

    await client.get_shard_iterator(
        StreamName="s", ShardId="shardId-0", ShardIteratorType="AT_TIMESTAMP", Timestamp=1545084650.987
    )

    assert b'"Timestamp": 1545084650.987' in stub.asked[-1].body


async def test_a_queue_s_messages_are_read_past_botocore_s_parser(clients, stub) -> None:
    queue = SqsQueue(functools.partial(clients.client, connection(stub.url), "sqs"), name="q", region="eu-central-1")
    stub.answer = Answer(
        body=b'{"QueueUrl":"http://there/1/q","Attributes":{"QueueArn":"arn:aws:sqs:eu-central-1:1:q"}}'
    )
    consumer = queue.consumer()
    await consumer.open()
    stub.answer = Answer(body=RECEIVED)

    (message,) = await consumer.receive(records_max=10, wait_s=20, hidden_s=60)

    record = json.loads(message.fragment)
    assert record["messageAttributes"]["b"]["binaryValue"] == "AAEC"
    assert record["md5OfMessageAttributes"] == "m2"
    assert (message.body, message.receive_count, message.sent_at) == ("ä\n".encode(), 2, 1780000000.123)
    assert message.trace_header == record["attributes"]["AWSTraceHeader"] == "Root=1"


async def test_a_stand_in_that_answers_a_queue_s_call_with_no_json_is_told(clients, stub) -> None:
    make = functools.partial(clients.client, connection(stub.url), "sqs")
    stub.answer = Answer(body=b"<ReceiveMessageResponse/>")

    with pytest.raises(SourceError, match="SQS queue q"):
        await call(make, "receive_message", QueueUrl="http://there/1/q")
