"""Whole daemons that read Kinesis and a table's stream, with boto3 and the awscli on the other side."""

import base64
import json

import pytest

from tests.crash.aws_feeds import DynamoDbFeed, KinesisFeed
from tests.crash.aws_rig import event_id
from tests.harness import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

READ_S = 60


def data(told) -> list[str]:
    return [base64.b64decode(record["kinesis"]["data"]).decode() for record in told.records()]


def put(feed: KinesisFeed, *texts: str) -> None:
    for text in texts:
        feed.client.put_record(StreamName=feed.stream, Data=text.encode(), PartitionKey="k")


# --- Kinesis ----------------------------------------------------------------------------------------------------


def test_a_record_of_the_awscli_is_the_event_of_aws(kinesis, telling, told) -> None:
    feed = KinesisFeed(kinesis, shards=1)
    body = base64.b64encode(b'{"price": 12.5}').decode()
    sent = kinesis.cli(
        "kinesis", "put-record", "--stream-name", feed.stream, "--partition-key", "käse", "--data", '{"price": 12.5}'
    )
    telling(kinesis, feed.source, 'starting_position = "TRIM_HORIZON"')

    wait_for(told, READ_S, "the record is read")

    (record,) = told.records()
    at = record["kinesis"].pop("approximateArrivalTimestamp")
    role = record.pop("invokeIdentityArn")
    assert record == {
        "kinesis": {
            "kinesisSchemaVersion": "1.0", "partitionKey": "käse", "sequenceNumber": sent["SequenceNumber"],
            "data": body,
        },
        "eventSource": "aws:kinesis", "eventVersion": "1.0",
        "eventID": f"{sent['ShardId']}:{sent['SequenceNumber']}", "eventName": "aws:kinesis:record",
        "awsRegion": "us-east-1", "eventSourceARN": kinesis.arn("kinesis", f"stream/{feed.stream}"),
    }  # fmt: skip
    assert at > 1_700_000_000
    assert role.startswith("arn:aws:iam::")


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_a_split_and_a_merge_are_read_parents_first(kinesis, telling, told, running) -> None:
    feed = KinesisFeed(kinesis, shards=1)
    put(feed, "1")
    process = telling(kinesis, feed.source, 'starting_position = "TRIM_HORIZON"')
    wait_for(lambda: data(told) == ["1"], READ_S, "the first record is read")
    if not running:
        process.stop()

    feed.split()
    put(feed, "2", "3")
    feed.merge()
    put(feed, "4")
    if not running:
        process.restart()
    wait_for(lambda: len(data(told)) >= 4, READ_S, "all records are read")

    assert data(told) == ["1", "2", "3", "4"]
    shards = list(dict.fromkeys(record["eventID"].split(":")[0] for record in told.records()))
    assert len(shards) == 3, "the first shard, one of its children, and what they were merged to"


def test_latest_begins_with_what_comes_after_the_mapping(kinesis, telling, told) -> None:
    feed = KinesisFeed(kinesis, shards=1)
    put(feed, "before")
    process = telling(kinesis, feed.source, 'starting_position = "LATEST"')

    def is_read() -> bool:
        put(feed, "after")  # the first ones may come before the mapping knows where the stream ends
        return bool(told())

    wait_for(is_read, READ_S, "a later record is read")
    process.stop()
    before = len(data(told))
    put(feed, "while it was stopped")
    process.restart()
    wait_for(lambda: "while it was stopped" in data(told), READ_S, "the last record is read")

    assert set(data(told)[:before]) == {"after"}
    assert data(told)[-1] == "while it was stopped"


def test_a_stream_of_ministack_is_read_on_where_it_was_left(ministack, telling, told) -> None:
    """ministack begins these sequence numbers with zeros too: a mark without them would stand behind all records."""
    read_on(ministack, telling, told)


def test_a_stream_of_moto_is_read_on_where_it_was_left(moto, telling, told) -> None:
    read_on(moto, telling, told)


def read_on(service, telling, told) -> None:
    feed = KinesisFeed(service, shards=1)
    feed.put([{"id": 1, "key": "k"}, {"id": 2, "key": "k"}])
    process = telling(service, feed.source, 'starting_position = "TRIM_HORIZON"')
    wait_for(lambda: len(told.records()) >= 2, READ_S, "the first records are read")

    process.stop()
    feed.put([{"id": 3, "key": "k"}])
    process.restart()
    wait_for(lambda: 3 in map(event_id, told.records()), READ_S, "the last record is read")

    assert list(map(event_id, told.records())) == [1, 2, 3]


def test_a_stream_is_named_by_its_arn_too(kinesis, telling, told) -> None:
    feed = KinesisFeed(kinesis, shards=1)
    put(feed, "1")

    telling(kinesis, kinesis.arn("kinesis", f"stream/{feed.stream}"), 'starting_position = "TRIM_HORIZON"')
    wait_for(told, READ_S, "the record is read")

    assert data(told) == ["1"]


# --- DynamoDB ---------------------------------------------------------------------------------------------------


def test_a_table_s_changes_are_insert_modify_and_remove(ministack, telling, told) -> None:
    table = ministack.name()
    made = ministack.cli(
        "dynamodb", "create-table", "--table-name", table, "--billing-mode", "PAY_PER_REQUEST",
        "--attribute-definitions", "AttributeName=id,AttributeType=S", "--key-schema", "AttributeName=id,KeyType=HASH",
        "--stream-specification", "StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES",
    )  # fmt: skip
    client = ministack.client("dynamodb")
    first = {"id": {"S": "a"}, "count": {"N": "1"}, "raw": {"B": b"\x00\xff"}}
    client.put_item(TableName=table, Item=first)
    client.put_item(TableName=table, Item=first | {"count": {"N": "2"}})
    client.delete_item(TableName=table, Key={"id": {"S": "a"}})
    telling(ministack, f"dynamodb://aws/{table}", 'starting_position = "TRIM_HORIZON"')

    wait_for(lambda: len(told.records()) >= 3, READ_S, "three changes are read")

    inserted, modified, removed = told.records()
    image = {"id": {"S": "a"}, "count": {"N": "1"}, "raw": {"B": "AP8="}}
    assert [each["eventName"] for each in (inserted, modified, removed)] == ["INSERT", "MODIFY", "REMOVE"]
    assert inserted["dynamodb"]["NewImage"] == image
    assert "OldImage" not in inserted["dynamodb"]
    assert modified["dynamodb"]["OldImage"] == image
    assert modified["dynamodb"]["NewImage"]["count"] == {"N": "2"}
    assert "NewImage" not in removed["dynamodb"]
    assert {each["eventSourceARN"] for each in told.records()} == {made["TableDescription"]["LatestStreamArn"]}
    assert {each["eventSource"] for each in told.records()} == {"aws:dynamodb"}
    assert {each["dynamodb"]["StreamViewType"] for each in told.records()} == {"NEW_AND_OLD_IMAGES"}


def test_a_table_s_changes_are_read_on_where_they_were_left(ministack, telling, told) -> None:
    """ministack begins sequence numbers with zeros and compares them as texts."""
    feed = DynamoDbFeed(ministack)
    feed.put([{"id": number, "key": "k", "seq": number} for number in range(1, 4)])
    process = telling(ministack, feed.source, 'starting_position = "TRIM_HORIZON"')
    wait_for(lambda: len(told.records()) >= 3, READ_S, "the first changes are read")

    process.stop()
    feed.put([{"id": 4, "key": "k", "seq": 4}])
    process.restart()
    wait_for(lambda: 4 in map(event_id, told.records()), READ_S, "the last change is read")

    assert list(map(event_id, told.records())) == [1, 2, 3, 4]
    assert "records_lost" not in process.log()


def test_a_filter_chooses_changes_by_their_images(ministack, telling, told) -> None:
    table = ministack.name()
    client = ministack.client("dynamodb")
    client.create_table(
        TableName=table, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )  # fmt: skip
    pattern = {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"kind": {"S": ["order"]}}}}
    for number, kind in enumerate(("order", "note", "order")):
        client.put_item(TableName=table, Item={"id": {"S": str(number)}, "kind": {"S": kind}})

    telling(
        ministack, f"dynamodb://aws/{table}",
        f'starting_position = "TRIM_HORIZON"\nfilters = [{json.dumps(json.dumps(pattern))}]',
    )  # fmt: skip
    wait_for(lambda: len(told.records()) >= 2, READ_S, "two changes are read")

    assert [record["dynamodb"]["Keys"]["id"]["S"] for record in told.records()] == ["0", "2"]
