"""Answers that are taken as they came: nothing of the body is read or changed, errors are told as ever."""

import pytest
from botocore.exceptions import ClientError

from bridge.aws.raw import RAW, take_raw
from bridge.core.connection import AwsConnection
from tests.http_stub import Answer, failed

BODY = b'{"Records":[{"Data":"eyJhIjoxfQ==","ApproximateArrivalTimestamp":1.545084650987E9,"SequenceNumber":"4959"}]}'


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
