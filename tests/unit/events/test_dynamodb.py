"""DynamoDB stream records as Lambda events: AWS's samples reproduced from what the API answers."""

import json
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecordEventName

from bridge.core.sources import PartialAnswer, WindowPart
from bridge.core.stream import Chunk, RecordFormat
from bridge.events.dynamodb import DynamoDbShape, arrival_ms, record_fragment, record_key

GOLDEN = Path(__file__).parent / "golden"
ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/Example-Table/stream/2016-12-01T00:00:00.000"
SHARD = "shardId-00000001573742399000-a1b2c3d4"
SHAPE = DynamoDbShape(ARN)


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def api_record(record):
    """Return a record of an event as GetRecords answers it: times are floats, the identity's names are capital."""
    made = {name: value for name, value in record.items() if name != "eventSourceARN"}
    made["dynamodb"] = dict(made["dynamodb"])
    if "ApproximateCreationDateTime" in made["dynamodb"]:
        made["dynamodb"]["ApproximateCreationDateTime"] = float(made["dynamodb"]["ApproximateCreationDateTime"])
    if "userIdentity" in made:
        made["userIdentity"] = {name[0].upper() + name[1:]: value for name, value in made["userIdentity"].items()}
    return made


@pytest.mark.parametrize("name", ["aws-lambda-go/dynamodb-event.json", "aws-lambda-go/dynamodb-time-window-event.json"])
def test_a_sample_is_reproduced_member_by_member_in_its_order(name):
    sample = golden(name)
    shape = DynamoDbShape(sample["Records"][0]["eventSourceARN"])
    window = None
    if "window" in sample:
        window = WindowPart(
            start=1596128400, end=1596128700, state=b'{"1":"state1"}', is_final=False, is_terminated_early=False
        )

    fragments = [record_fragment(api_record(record), shape.tail) for record in sample["Records"]]
    made = shape.event([(sample.get("shardId", SHARD), fragments)], window)

    assert json.dumps(sample) == json.dumps(json.loads(made))


def test_a_creation_time_within_a_second_stays_what_it_is():
    record = api_record(golden("powertools-python/dynamoStreamEvent.json")["Records"][0])
    record["dynamodb"]["ApproximateCreationDateTime"] = 1693997155.5

    assert 1693997155500 == arrival_ms(record)
    assert b'"ApproximateCreationDateTime":1693997155.5' in record_fragment(record, SHAPE.tail)


def test_items_pass_as_they_came():
    """Numbers are texts of any length, which no float would survive."""
    record = api_record(golden("aws-lambda-go/dynamodb-event.json")["Records"][0])
    image = {
        "n": {"N": "12345678901234567890123456789012345678"},
        "ns": {"NS": ["1E-130", "-0.10"]},
        "b": {"B": "/+8="},
    }
    record["dynamodb"]["NewImage"] = image

    made = record_fragment(record, SHAPE.tail)

    assert json.dumps(image, separators=(",", ":")).encode() in made


def test_powertools_reads_it():
    sample = golden("aws-lambda-go/dynamodb-event.json")
    fragments = [record_fragment(api_record(record), SHAPE.tail) for record in sample["Records"]]

    records = list(DynamoDBStreamEvent(json.loads(SHAPE.event([(SHARD, fragments)]))).records)

    assert DynamoDBRecordEventName.INSERT is records[0].event_name
    assert {"val": "data", "key": "binary"} == records[0].dynamodb.keys
    assert ("Service", "dynamodb.amazonaws.com") == (
        records[0].user_identity["type"], records[0].user_identity["principalId"]
    )  # fmt: skip
    assert ARN == records[0].event_source_arn
    assert 1480642020 == records[0].dynamodb.approximate_creation_date_time


def test_the_key_is_the_items_however_it_is_spelt():
    one = {"dynamodb": {"Keys": {"a": {"S": "1"}, "b": {"N": "2"}}}}
    other = {"dynamodb": {"Keys": {"b": {"N": "2"}, "a": {"S": "1"}}}}

    assert b'{"a":{"S":"1"},"b":{"N":"2"}}' == record_key(one) == record_key(other)
    assert b"7" == record_key({"dynamodb": {"Keys": {"id": {"N": "7"}}}})
    assert b"" == record_key({"dynamodb": {}})


def chunk(positions):
    return Chunk(
        shard=SHARD, positions=positions, times_ms=[0] * len(positions), keys=[b"k"] * len(positions),
        values=[None] * len(positions), fragments=[b"{}"] * len(positions), through=positions[-1],
    )  # fmt: skip


@pytest.mark.parametrize("text", ["1405400000000002063282832", "000000000000000000117", "117"])
def test_partial_answers_name_sequence_numbers_with_or_without_zeros(text):
    assert SHAPE.identifier(chunk([int(text)]), 0) == SHAPE.read_identifier(text)
    assert SHAPE.read_identifier("") is None
    assert SHAPE.partial_answer is PartialAnswer.FROM_LOWEST
    assert SHAPE.format is RecordFormat.DYNAMODB


def test_the_failed_records_are_named_as_aws_names_them_without_milliseconds():
    sample = golden("captured-from-aws/ddb-onfailure-sqs.json")["DDBStreamBatchInfo"]

    info = SHAPE.batch_info(SHARD, [117, 10**24], [1573690399999, 1573690400000], payload_bytes=9)["DDBStreamBatchInfo"]

    assert list(sample) == list(info)
    assert info == {
        "shardId": SHARD,
        "startSequenceNumber": "000000000000000000117",
        "endSequenceNumber": "1000000000000000000000000",
        "approximateArrivalOfFirstRecord": "2019-11-14T00:13:19Z",
        "approximateArrivalOfLastRecord": "2019-11-14T00:13:20Z",
        "batchSize": 2,
        "streamArn": ARN,
    }


@pytest.mark.parametrize("time_ms", [253_402_300_800_000, 2**80])
def test_a_time_beyond_the_calendar_is_null(time_ms):
    info = SHAPE.batch_info(SHARD, [1], [time_ms], payload_bytes=9)["DDBStreamBatchInfo"]

    assert info["approximateArrivalOfLastRecord"] is None


@pytest.mark.parametrize("identity", ["x", [1], 5, None, {}, {"": 1}])
def test_an_identity_that_is_none_stays_what_it_is(identity):
    made = record_fragment({"dynamodb": {}, "userIdentity": identity}, SHAPE.tail)

    assert identity == json.loads(SHAPE.event([(SHARD, [made])]))["Records"][0]["userIdentity"]


def test_an_unknown_time_is_null():
    assert -1 == arrival_ms({"dynamodb": {}})
    info = SHAPE.batch_info(SHARD, [1], [-1], payload_bytes=9)["DDBStreamBatchInfo"]
    assert info["approximateArrivalOfFirstRecord"] is None
