"""Kinesis records as Lambda events: AWS's samples reproduced from what the API answers, and what no sample shows."""

import json
from base64 import b64encode
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.data_classes import KinesisStreamEvent
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.sources import PartialAnswer, WindowPart
from bridge.core.stream import Chunk, RecordFormat
from bridge.events.kinesis import DataColumn, KinesisShape, arrival_ms, record_fragments

GOLDEN = Path(__file__).parent / "golden"
ARN = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
SHARD = "shardId-000000000006"
SHAPE = KinesisShape(ARN)


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def api_record(record):
    """Return a record of an event as GetRecords answers it."""
    inner = record["kinesis"]
    return {
        "SequenceNumber": inner["sequenceNumber"],
        "ApproximateArrivalTimestamp": inner["approximateArrivalTimestamp"],
        "Data": inner["data"],
        "PartitionKey": inner["partitionKey"],
        "EncryptionType": "NONE",
    }


def shaped(records, *, shape=SHAPE, shard=SHARD, window=None):
    fragments = record_fragments(shape.frame(shard), records, [arrival_ms(record) for record in records])
    return shape.event([(shard, fragments)], window)


def one(**changes):
    fields = {"SequenceNumber": "495", "ApproximateArrivalTimestamp": 1.5, "Data": "YQ==", "PartitionKey": "k"}
    return json.loads(shaped([fields | changes]))["Records"][0]


@pytest.mark.parametrize(
    "name",
    [
        "aws-lambda-go/kinesis-event.json",
        "aws-lambda-go/kinesis-time-window-event.json",
        "powertools-python/kinesisStreamEvent.json",
    ],
)
def test_a_sample_is_reproduced_member_by_member_in_its_order(name):
    sample = golden(name)
    first = sample["Records"][0]
    shape = KinesisShape(first["eventSourceARN"], identity_arn=first["invokeIdentityArn"])
    window = None
    if "window" in sample:
        window = WindowPart(
            start=1607497440, end=1607497560, state=json.dumps(sample["state"]).encode(), is_final=False,
            is_terminated_early=False,
        )  # fmt: skip

    made = shaped(
        [api_record(record) for record in sample["Records"]],
        shape=shape,
        shard=first["eventID"].partition(":")[0],
        window=window,
    )

    assert json.dumps(sample) == json.dumps(json.loads(made))


def test_powertools_reads_it():
    event = KinesisStreamEvent(
        json.loads(shaped([api_record(golden("aws-lambda-go/kinesis-event.json")["Records"][0])]))
    )

    record = next(iter(event.records))

    assert "Hello World" == record.kinesis.data_as_text()
    assert "s1" == record.kinesis.partition_key
    assert (ARN, "us-east-2") == (record.event_source_arn, record.aws_region)
    assert f"{SHARD}:{record.kinesis.sequence_number}" == record.event_id
    assert "arn:aws:iam::123456789012:role/bridge" == record.invoke_identity_arn


def test_the_encryption_type_is_told_only_of_what_is_encrypted():
    assert "KMS" == one(EncryptionType="KMS")["kinesis"]["encryptionType"]
    assert "encryptionType" not in one(EncryptionType="NONE")["kinesis"]
    assert "encryptionType" not in one()["kinesis"]


def test_a_time_is_seconds_to_the_millisecond_whatever_the_service_says():
    assert 1545084650.988 == one(ApproximateArrivalTimestamp=1545084650.98765)["kinesis"]["approximateArrivalTimestamp"]
    whole = one(ApproximateArrivalTimestamp=1545084650)["kinesis"]["approximateArrivalTimestamp"]
    assert (1545084650.0, float) == (whole, type(whole))


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1, max_size=256))
def test_any_partition_key_comes_through(key):
    assert key == one(PartitionKey=key)["kinesis"]["partitionKey"]


@given(st.integers(0, 4102444800000))
def test_any_time_comes_through(time_ms):
    assert time_ms / 1000 == one(ApproximateArrivalTimestamp=time_ms / 1000)["kinesis"]["approximateArrivalTimestamp"]


def chunk(positions):
    return Chunk(
        shard=SHARD, positions=positions, times_ms=[1545084650987 + n for n in range(len(positions))],
        keys=[b"k"] * len(positions), values=[b"v"] * len(positions), fragments=[b"{}"] * len(positions),
        through=positions[-1],
    )  # fmt: skip


def test_partial_answers_name_sequence_numbers():
    position = 49590338271490256608559692538361571095921575989136588898

    assert SHAPE.partial_answer is PartialAnswer.FROM_LOWEST
    assert SHAPE.format is RecordFormat.KINESIS
    assert not SHAPE.mixes_shards
    assert SHAPE.identifier(chunk([7, position]), 1) == SHAPE.read_identifier(str(position))


@pytest.mark.parametrize("item", ["", None, 7, "a", "-1", "7 ", "²", "9" * 130, ["7"], {"a": 1}])
def test_what_cannot_be_a_sequence_number(item):
    assert SHAPE.read_identifier(item) is None


def test_the_failed_records_are_named_as_aws_names_them():
    sample = golden("captured-from-aws/kinesis-onfailure-sqs-retry-exhausted.json")["KinesisBatchInfo"]

    info = SHAPE.batch_info(SHARD, [11, 12], [1573691884835, 1573691885001], payload_bytes=100)

    assert list(sample) == list(info["KinesisBatchInfo"])
    assert info["KinesisBatchInfo"] == {
        "shardId": SHARD,
        "startSequenceNumber": "11",
        "endSequenceNumber": "12",
        "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
        "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.001Z",
        "batchSize": 2,
        "streamArn": ARN,
    }


def test_an_embedded_streams_sequence_numbers_are_its_positions_above_a_base():
    shape = KinesisShape(ARN, sequence_base=49 * 10**54)

    info = shape.batch_info(SHARD, [7], [0], payload_bytes=1)["KinesisBatchInfo"]

    assert "49" + "7".zfill(54) == shape.sequence_number(7) == info["startSequenceNumber"]
    assert shape.identifier(chunk([7]), 0) == shape.read_identifier(shape.sequence_number(7))


def test_an_event_weighs_no_more_than_is_told():
    state = b'{"a":1}'
    long = "shardId-" + "9" * 57
    window = WindowPart(start=0, end=900, state=state, is_final=False, is_terminated_early=False)

    assert len(shaped([], shard=long, window=window)) <= SHAPE.overhead_bytes + len(state)


def test_data_is_decoded_when_it_is_asked_for():
    column = DataColumn([b64encode(b"a").decode(), None, "YmM="])

    assert [b"a", None, b"bc"] == list(column)
    assert (3, b"bc", [None, b"bc"]) == (len(column), column[2], list(column[1:]))
