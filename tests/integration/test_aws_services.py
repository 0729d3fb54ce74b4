"""The services of AWS that tests use, and the stub that injects faults: what the tests on them rely on."""

import http.client
import json

import botocore.exceptions
import pytest

from tests.brokers import fault_kinds as faults
from tests.brokers.wire import answer_json
from tests.harness import request, wait_for

pytestmark = pytest.mark.integration


def shards(client, stream: str) -> list[dict]:
    return client.list_shards(StreamName=stream)["Shards"]


def active(client, stream: str) -> bool:
    return client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"


def make_stream(service, count: int = 1) -> str:
    client, name = service.client("kinesis"), service.name()
    client.create_stream(StreamName=name, ShardCount=count)
    wait_for(lambda: active(client, name), description="the stream is active")
    return name


def read_to_the_end(client, stream: str, shard: str) -> tuple[list[bytes], bool]:
    """Return a shard's records from TRIM_HORIZON, and whether it ended."""
    iterator = client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    found, following = [], iterator["ShardIterator"]
    for _ in range(5):
        answer = client.get_records(ShardIterator=following)
        found += [record["Data"] for record in answer["Records"]]
        following = answer.get("NextShardIterator")
        if following is None:
            return found, True
    return found, False


def test_kinesis_splits_a_shard_whose_parent_is_read_to_its_end(kinesis) -> None:
    client = kinesis.client("kinesis")
    stream = make_stream(kinesis)
    client.put_record(StreamName=stream, Data=b"before", PartitionKey="1")
    client.split_shard(StreamName=stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127))
    wait_for(lambda: len(shards(client, stream)) == 3, description="the shard is split")

    assert read_to_the_end(client, stream, "shardId-000000000000") == ([b"before"], True)
    assert [shard.get("ParentShardId") for shard in shards(client, stream)] == [None, *["shardId-000000000000"] * 2]


def test_ministack_has_the_streams_of_tables_queues_topics_and_buckets(ministack) -> None:
    table = ministack.name()
    ministack.client("dynamodb").create_table(
        TableName=table, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )  # fmt: skip
    queue = ministack.client("sqs").create_queue(QueueName=ministack.name(".fifo"), Attributes={"FifoQueue": "true"})
    topic = ministack.client("sns").create_topic(Name=ministack.name())
    ministack.client("s3").create_bucket(Bucket=(bucket := ministack.name()))
    ministack.client("s3").put_object(Bucket=bucket, Key="k", Body=b"body")

    assert ministack.client("dynamodbstreams").list_streams(TableName=table)["Streams"]
    assert queue["QueueUrl"].endswith(".fifo")
    assert topic["TopicArn"].startswith("arn:aws:sns:us-east-1:")
    assert ministack.client("s3").get_object(Bucket=bucket, Key="k")["Body"].read() == b"body"


def test_moto_and_the_awscli_are_the_second_opinion(moto) -> None:
    name = moto.name()

    moto.cli("sqs", "create-queue", "--queue-name", name)

    assert moto.client("sqs").get_queue_url(QueueName=name)["QueueUrl"].endswith(name)


def test_an_emulator_of_ones_own_is_killed_paused_and_restarted_on_its_port(aws_emulator) -> None:
    emulator, service = aws_emulator("ministack")
    before = service.client("sqs").list_queues()

    emulator.kill()
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        service.client("sqs").list_queues()
    emulator.restart()

    assert before["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert service.client("sqs").list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200


# --- the stub ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("kinesis", lambda c: c.list_streams(), "ProvisionedThroughputExceededException"),
        ("sqs", lambda c: c.list_queues(), "RequestThrottled"),
        ("sns", lambda c: c.list_topics(), "Throttling"),
        ("s3", lambda c: c.list_buckets(), "SlowDown"),
        ("lambda", lambda c: c.invoke(FunctionName="f"), "TooManyRequestsException"),
        ("dynamodbstreams", lambda c: c.list_streams(), "LimitExceededException"),
        ("events", lambda c: c.list_rules(), "ThrottlingException"),
    ],
)
def test_the_stub_throttles_in_the_words_of_each_service(aws_faults, service, call, code) -> None:
    stub = aws_faults()
    stub.script("*", faults.throttle(retry_after_s=2))

    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(stub.client(service))

    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "2"
    assert [each.forwarded for each in stub.calls] == [False]


def test_the_stub_breaks_off_before_and_after_the_call(aws_faults) -> None:
    stub = aws_faults()
    stub.answer("ListStreams", lambda call: answer_json({"StreamNames": ["name"], "HasMoreStreams": False}))
    stub.script("ListStreams", faults.reset_before(), faults.reset_after(), None)
    client = stub.client("kinesis")

    for _ in range(2):
        with pytest.raises(botocore.exceptions.ConnectionClosedError):
            client.list_streams()
    answer = client.list_streams()

    assert answer["StreamNames"] == ["name"]
    assert [(call.fault, call.forwarded, call.status) for call in stub.seen("ListStreams")] == [
        ("reset before", False, 0), ("reset after", True, 0), ("", True, 200),
    ]  # fmt: skip


def test_the_stub_breaks_off_in_the_middle_of_an_answer(aws_faults) -> None:
    stub = aws_faults()
    stub.answer("*", lambda call: answer_json({"StreamNames": ["x" * 1000]}))
    stub.script("*", faults.half_answer())

    with pytest.raises(http.client.IncompleteRead) as caught:  # boto3 takes it for whole, and for an empty answer
        request("POST", stub.endpoint_url)

    assert 500 < len(caught.value.partial) < 1000


def test_the_stub_answers_partly_for_a_batch(aws_faults, ministack) -> None:
    stub = aws_faults(ministack)
    client = stub.client("sqs")
    queue = client.create_queue(QueueName=stub.name())["QueueUrl"]
    stub.script("SendMessageBatch", faults.partial(2))

    answer = client.send_message_batch(
        QueueUrl=queue, Entries=[{"Id": str(n), "MessageBody": f"body {n}"} for n in range(3)]
    )
    received = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)

    assert [each["Id"] for each in answer["Failed"]] == ["0", "1"]
    assert [each["Id"] for each in answer["Successful"]] == ["2"]
    assert [message["Body"] for message in received["Messages"]] == ["body 2"]


def test_the_stub_answers_partly_for_put_records(aws_faults, kinesis) -> None:
    stub = aws_faults(kinesis)
    stream = make_stream(kinesis)
    stub.script(
        "PutRecords", faults.partial(lambda index, _: index == 1, code="ProvisionedThroughputExceededException")
    )

    answer = stub.client("kinesis").put_records(
        StreamName=stream, Records=[{"Data": str(n).encode(), "PartitionKey": "k"} for n in range(3)]
    )

    assert answer["FailedRecordCount"] == 1
    assert [each.get("ErrorCode", "") for each in answer["Records"]] == [
        "",
        "ProvisionedThroughputExceededException",
        "",
    ]
    assert read_to_the_end(kinesis.client("kinesis"), stream, "shardId-000000000000")[0] == [b"0", b"2"]


def test_the_stub_goes_down_and_comes_back_on_its_port(aws_faults) -> None:
    stub = aws_faults()
    stub.answer("*", lambda call: answer_json({"QueueUrls": []}))
    client = stub.client("sqs")
    client.list_queues()

    stub.down()
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        client.list_queues()
    stub.up()

    assert client.list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_chances_of_the_stub_follow_their_seed(aws_faults) -> None:
    seen = []
    for _ in range(2):
        stub = aws_faults()
        stub.answer("Invoke", lambda call: answer_json({"function": call.function, "event": call.json()}))
        stub.sometimes("Invoke", 0.5, faults.error(500, "ServiceException"), seed=7)
        for number in range(20):
            try:
                answer = stub.client("lambda").invoke(FunctionName="f:live", Payload=json.dumps(number))
            except botocore.exceptions.ClientError:
                continue
            assert json.loads(answer["Payload"].read()) == {"function": "f%3Alive", "event": number}
        seen.append([call.status for call in stub.calls])

    assert seen[0] == seen[1]
    assert {200, 500} == set(seen[0])


def test_an_object_passes_the_stub_whole(aws_faults, ministack) -> None:
    stub = aws_faults(ministack)
    client, bucket = stub.client("s3"), stub.name()
    client.create_bucket(Bucket=bucket)
    body = bytes(range(256)) * 4096

    client.put_object(Bucket=bucket, Key="folder/key", Body=body)

    assert client.get_object(Bucket=bucket, Key="folder/key")["Body"].read() == body
    assert [call.operation for call in stub.calls[1:]] == ["PutObject", "GetObject"]
