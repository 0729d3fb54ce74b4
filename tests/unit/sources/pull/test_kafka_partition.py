"""What was fetched becomes columns: within limits, in order, nothing lost, holes passed over."""

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from bridge.events.kafka import KafkaShape, parse_event
from bridge.sources.pull.kafka_partition import Partition, passed_over, take_from

LARGE = 1 << 30


def record(offset, *, value=b"v", key=None, headers=(), timestamp=1000, timestamp_type=0):
    return ConsumerRecord(
        "orders", 0, offset, timestamp, timestamp_type, key, value, None, -1, -1, headers
    )  # fmt: skip


def partition(*records, number=0, next_offset=0):
    one = Partition(TopicPartition("orders", number), next_offset=next_offset, epoch=1)
    one.backlog = list(records)
    return one


def test_records_become_columns_and_the_json_of_an_event():
    one = partition(
        record(3, value=None, key=b"\xff"), record(7, headers=(("h", b"\x80"),), timestamp=5, timestamp_type=1)
    )

    chunk = one.take(records_max=10, bytes_max=LARGE)

    assert (chunk.shard, chunk.positions, chunk.times_ms, chunk.through) == ("orders-0", [3, 7], [1000, 5], 7)
    assert (chunk.keys, chunk.values) == ([b"\xff", None], [None, b"v"])
    event = KafkaShape(topic="orders", bootstrap_servers="x").event([(chunk.shard, chunk.fragments)])
    first, second = parse_event(event)
    assert first == ("orders", 0, 3, 1000, 0, b"\xff", None, ())
    assert second == ("orders", 0, 7, 5, 1, None, b"v", (("h", b"\x80"),))
    assert one.take(records_max=10, bytes_max=LARGE) is None


def test_records_of_before_timestamps_have_none():
    chunk = partition(record(0, timestamp=None, timestamp_type=None)).take(records_max=1, bytes_max=LARGE)

    assert chunk.times_ms == [-1]
    assert b'"timestamp":-1,"timestampType":"CREATE_TIME"' in chunk.fragments[0]


def test_a_hole_behind_what_was_handed_out_is_passed_over_only_when_nothing_is_left():
    one, other = partition(record(0), record(1)), partition(number=1)

    chunks = take_from([one, other], records_max=1, bytes_max=LARGE)
    first = passed_over([one, other], [5, 3], chunks)
    assert ([chunk.through for chunk in first.chunks], first.through) == ([0], {"orders-1": 2})

    chunks = take_from([one, other], records_max=1, bytes_max=LARGE)
    second = passed_over([one, other], [5, 3], chunks)
    assert ([chunk.through for chunk in second.chunks], second.through) == ([4], {})

    third = passed_over([one, other], [9, None], take_from([one, other], records_max=1, bytes_max=LARGE))
    assert (third.chunks, third.through) == ([], {"orders-0": 8})


@given(
    sizes=st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=4),
    records_max=st.integers(1, 10),
    bytes_max=st.integers(1, 120),
)
def test_everything_comes_in_order_within_both_limits(sizes, records_max, bytes_max):
    partitions = [
        partition(*(record(offset, value=b"." * size) for offset, size in enumerate(some)), number=number)
        for number, some in enumerate(sizes)
    ]
    seen = {one.shard: [] for one in partitions}

    while chunks := take_from(partitions, records_max=records_max, bytes_max=bytes_max):
        taken = [len(value) for chunk in chunks for value in chunk.values]
        assert len(taken) <= records_max
        assert sum(taken[:-1]) <= bytes_max
        for chunk in chunks:
            seen[chunk.shard] += chunk.positions

    assert seen == {one.shard: list(range(len(some))) for one, some in zip(partitions, sizes, strict=True)}
