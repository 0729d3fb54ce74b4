"""Kafka records as Lambda events: the samples reproduced, read back whole, and what no sample shows."""

import json
from pathlib import Path

import orjson
import pytest
from aws_lambda_powertools.utilities.data_classes import KafkaEvent
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.sources import PartialAnswer
from bridge.core.stream import Chunk, RecordFormat
from bridge.events.kafka import (
    CREATE_TIME,
    LOG_APPEND_TIME,
    KafkaRecord,
    KafkaShape,
    parse_event,
    record_fragment,
    record_fragments,
    record_prefix,
    shard_name,
    split_event,
)

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = [
    "aws-lambda-go/kafka-event.json",
    "powertools-python/kafkaEventMsk.json",
    "powertools-python/kafkaEventSelfManaged.json",
]
SHAPE = KafkaShape(topic="orders", bootstrap_servers="localhost:9092")


def fragment(record):
    return record_fragment(
        record_prefix(record.topic, record.partition),
        record.offset,
        timestamp_ms=record.timestamp_ms,
        timestamp_type=record.timestamp_type,
        key=record.key,
        value=record.value,
        headers=record.headers,
    )


def one(**changes):
    given_ = {
        "topic": "orders", "partition": 0, "offset": 7, "timestamp_ms": 1545084650987, "timestamp_type": CREATE_TIME,
        "key": b"k", "value": b"v", "headers": (),
    }  # fmt: skip
    return KafkaRecord(**given_ | changes)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_reproduced_from_its_records(name):
    sample = json.loads((GOLDEN / name).read_bytes())
    records = parse_event(json.dumps(sample).encode())
    shape = KafkaShape(
        topic=records[0].topic,
        bootstrap_servers=sample["bootstrapServers"],
        event_source_arn=sample.get("eventSourceArn", ""),
    )

    event = shape.event([(shard_name(r.topic, r.partition), [fragment(r)]) for r in records])

    expected = sample | ({} if "eventSourceArn" in sample else {"eventSource": "SelfManagedKafka"})
    assert json.loads(event) == expected
    assert list(json.loads(event)) == list(expected)


def test_powertools_reads_what_we_write():
    records = [
        one(partition=0, key=None, value=b'{"n":1}', headers=(("a", b"\xff\x00"), ("b", "ä".encode()))),
        one(partition=3, offset=9, key=b"\x00\xff", value=b"{}"),
    ]

    event = KafkaEvent(json.loads(SHAPE.event([(shard_name(r.topic, r.partition), [fragment(r)]) for r in records])))

    assert event.event_source == "SelfManagedKafka"
    assert event.decoded_bootstrap_servers == ["localhost:9092"]
    first, second = event.records
    assert (first.topic, first.partition, first.offset, first.timestamp) == ("orders", 0, 7, 1545084650987)
    assert first.timestamp_type == "CREATE_TIME"
    assert (first.decoded_key, first.json_value) == (None, {"n": 1})
    assert first.decoded_headers == {"a": b"\xff\x00", "b": "ä".encode()}
    assert (second.partition, second.decoded_key, second.json_value) == (3, b"\x00\xff", {})


def test_missing_keys_values_and_header_values_are_null_and_no_headers_is_an_empty_list():
    bare = orjson.loads(fragment(one(key=None, value=None)))
    headed = orjson.loads(fragment(one(key=b"", value=b"", headers=(("h", None), ("h", b""), ("h", b"\x80\x7f")))))

    assert (bare["key"], bare["value"], bare["headers"]) == (None, None, [])
    assert (headed["key"], headed["value"]) == ("", "")
    assert headed["headers"] == [{"h": None}, {"h": []}, {"h": [-128, 127]}]


def test_names_are_escaped():
    record = one(topic='a"b\\c', headers=(('x"\n', b"1"),))

    read = orjson.loads(fragment(record))

    assert read["topic"] == 'a"b\\c'
    assert read["headers"] == [{'x"\n': [49]}]


def test_check_19_records_of_several_partitions_stand_under_their_own_keys():
    first, second, third = one(), one(offset=8), one(partition=1, timestamp_type=LOG_APPEND_TIME)

    event = orjson.loads(
        SHAPE.event([("orders-0", [fragment(first), fragment(second)]), ("orders-1", [fragment(third)])])
    )

    assert {key: [item["offset"] for item in items] for key, items in event["records"].items()} == {
        "orders-0": [7, 8],
        "orders-1": [7],
    }
    assert event["records"]["orders-1"][0]["timestampType"] == "LOG_APPEND_TIME"


def test_an_event_is_never_larger_than_its_overheads_say():
    shape = KafkaShape(topic="a-b", bootstrap_servers="x:1", event_source_arn="arn:aws:kafka:eu-west-1:1:cluster/c/1")
    for shards in (1, 2, 5):
        parts = [(shard_name("a-b", 2_147_483_647 - n), [b"{}", b"{}"]) for n in range(shards)]

        said = shape.overhead_bytes + (shards - 1) * shape.shard_overhead_bytes + shards * len(b"{},{}")

        assert said - 2 <= len(shape.event(parts)) <= said


def test_a_window_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError):
        SHAPE.event([], window=object())


def test_the_shape_says_how_kafka_is_handled():
    assert (SHAPE.format, SHAPE.mixes_shards, SHAPE.partial_answer) == (
        RecordFormat.KAFKA,
        True,
        PartialAnswer.LISTED,
    )


def test_identifiers_of_partial_answers():
    chunk = Chunk(
        shard="orders-0", positions=[100, 102], times_ms=[0, 0], keys=[None] * 2, values=[b""] * 2,
        fragments=[b"{}"] * 2, through=102,
    )  # fmt: skip

    for name in ("topic-partition", "partition"):  # AWS's guide, and what aws-lambda-powertools answers
        assert SHAPE.identifier(chunk, 1) == SHAPE.read_identifier({name: "orders-0", "offset": 102})
    for wrong in (
        None, "", "orders-0", 100, [], {}, {"topic-partition": "orders-0"}, {"offset": 1},
        {"topic-partition": "orders-0", "offset": "100"}, {"topic-partition": "orders-0", "offset": True},
        {"topic-partition": None, "offset": 1}, {"partition": 0, "offset": 1},
    ):  # fmt: skip
        assert SHAPE.read_identifier(wrong) is None, wrong


def test_batch_info_names_the_batch_by_its_first_record_and_where_it_ends():
    msk = KafkaShape(topic="orders", bootstrap_servers="b:1", event_source_arn="arn:aws:kafka:x:1:cluster/c/1")

    info = msk.batch_info("orders-3", [5, 9], [1573691884835, 1573691884900], payload_bytes=1234)

    assert info == {
        "KafkaBatchInfo": {
            "batchSize": 2,
            "eventSourceArn": "arn:aws:kafka:x:1:cluster/c/1",
            "bootstrapServers": "b:1",
            "payloadSize": 1234,
            "recordInfo": {
                "offset": "5",
                "timestamp": "2019-11-14T00:38:04.835Z",
                "topic-partition": "orders-3",
                "lastOffset": "9",
            },
        }
    }
    plain = SHAPE.batch_info("orders-3", [5], [-1], payload_bytes=1)["KafkaBatchInfo"]
    assert "eventSourceArn" not in plain
    assert plain["recordInfo"]["timestamp"] is None


@pytest.mark.parametrize("time_ms", [253_402_300_800_000, 2**63 - 1])
def test_a_time_beyond_the_calendar_does_not_keep_a_batch_from_being_given_up(time_ms):
    info = SHAPE.batch_info("orders-3", [5], [time_ms], payload_bytes=1)["KafkaBatchInfo"]

    assert info["recordInfo"]["timestamp"] is None


def test_shards_are_named_as_in_events():
    assert shard_name("a-1", 12) == "a-1-12"


def test_header_numbers_are_taken_signed_and_unsigned():
    event = orjson.loads(SHAPE.event([("orders-0", [fragment(one())])]))
    event["records"]["orders-0"][0]["headers"] = [{"a": [200, -56, 0]}]

    (record,) = parse_event(orjson.dumps(event))

    assert record.headers == (("a", bytes([200, 200, 0])),)


def test_a_split_event_holds_one_record_each_and_everything_around_it():
    records = [one(), one(offset=8), one(partition=1)]
    event = SHAPE.event(
        [("orders-0", [fragment(records[0]), fragment(records[1])]), ("orders-1", [fragment(records[2])])]
    )

    split = split_event(event)

    assert [record for record, _ in split] == records
    for record, single in split:
        assert parse_event(single) == [record]
        assert orjson.loads(single)["bootstrapServers"] == "localhost:9092"


@pytest.mark.parametrize(
    "event",
    [
        b"", b"[]", b"{}", b'{"eventSource":"aws:sqs","records":{}}', b'{"eventSource":"aws:kafka"}',
        b'{"eventSource":"aws:kafka","records":[]}', b'{"eventSource":"aws:kafka","records":{"a-0":{}}}',
        b'{"eventSource":"aws:kafka","records":{"a-0":[1]}}', b'{"eventSource":"aws:kafka","records":{"a-0":[{}]}}',
        b'{"eventSource":"aws:kafka","records":{"a-0":[{"topic":"a","partition":0,"offset":"1"}]}}',
        b'{"eventSource":"aws:kafka","records":{"a-0":[{"topic":"a","partition":0,"offset":1,"key":"%"}]}}',
        b'{"eventSource":"aws:kafka","records":{"a-0":[{"topic":"a","partition":0,"offset":1,"headers":[{"a":[256]}]}]}}',
        b'{"eventSource":"aws:kafka","records":{"a-0":[{"topic":"a","partition":0,"offset":1,"headers":[{"a":"x"}]}]}}',
    ],
)  # fmt: skip
def test_what_is_no_event_of_kafkas_is_refused(event):
    with pytest.raises(ValueError):
        parse_event(event)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
DATA = st.none() | st.binary(max_size=64)


@given(
    st.lists(
        st.builds(
            KafkaRecord,
            topic=st.just("orders"),
            partition=st.integers(0, 3),
            offset=st.integers(0, 2**63 - 1),
            timestamp_ms=st.integers(-1, 2**62),
            timestamp_type=st.sampled_from([CREATE_TIME, LOG_APPEND_TIME]),
            key=DATA,
            value=DATA,
            headers=st.lists(st.tuples(NAMES, DATA), max_size=4).map(tuple),
        ),
        max_size=6,
    )
)
def test_every_record_comes_back_as_it_went(records):
    by_partition = {}
    for record in records:
        by_partition.setdefault(record.partition, []).append(record)
    parts = [
        (shard_name("orders", partition), record_fragments(record_prefix("orders", partition), [r[2:] for r in some]))
        for partition, some in by_partition.items()
    ]

    read = parse_event(SHAPE.event(parts))

    assert read == [record for some in by_partition.values() for record in some]
