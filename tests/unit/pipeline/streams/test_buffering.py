"""Buffering: what is full, what has enough for now, and how soon a shard that was left out is looked at again."""

from types import SimpleNamespace

from bridge.core.mapping import EventSourceMapping
from bridge.core.stream import Chunk, Mark
from bridge.pipeline.streams.buffering import AHEAD_RECORDS, WAIT_PAUSED_MAX_S, WAIT_PAUSED_MIN_S, WAIT_S, Buffering
from bridge.pipeline.streams.lane import ShardWork


def buffering(*, records_max=20_000, bytes_max=1 << 24, is_bounded=False, **mapping):
    return Buffering(
        SimpleNamespace(
            mapping=EventSourceMapping(name="m", source="kafka://c/t", function="f", **mapping),
            buffer_records_max=records_max,
            buffer_bytes_max=bytes_max,
            is_bounded=is_bounded,
        )
    )


def shard(name, records, *, lanes=1, size=10):
    work = ShardWork(name, Mark(position=-1), lanes=lanes, window_s=0, now=0.0)
    if records:
        columns = {"keys": [b"one"] * records, "values": [b""] * records, "fragments": [b"." * size] * records}
        positions = range(records)
        work.take_in(Chunk(shard=name, positions=positions, times_ms=positions, through=records - 1, **columns), None)
    return work


def test_a_shard_with_enough_for_its_next_batches_is_left_out_and_is_not_full():
    shards = [shard("s-0", AHEAD_RECORDS), shard("s-1", AHEAD_RECORDS - 1), shard("s-2", 0)]

    assert {"s-0"} == buffering().supplied(shards)
    assert set() == buffering().full(shards)


def test_two_batches_may_always_wait():
    enough = buffering(batch_size=5_000)

    assert set() == enough.supplied([shard("s-0", 9_999)])
    assert {"s-0"} == enough.supplied([shard("s-0", 10_000)])


def test_a_shard_is_read_on_while_one_of_its_lanes_has_too_little():
    """All records have one key: the other lanes are empty."""
    assert set() == buffering(parallelization_factor=10).supplied([shard("s-0", 10_000, lanes=10)])


def test_records_and_bytes_fill_a_shard():
    assert {"s-1"} == buffering(records_max=300).full([shard("s-0", 299), shard("s-1", 300)])
    assert {"s-1"} == buffering(bytes_max=10_000).full([shard("s-0", 90), shard("s-1", 300, size=40)])


def test_the_wait_grows_while_the_same_shards_are_left_out_and_begins_anew():
    one = buffering()

    assert [WAIT_S, WAIT_S] == [one.wait_s(set()), one.wait_s(set())]
    waits = [one.wait_s({"s-0"}) for _ in range(6)]
    assert waits[0] == WAIT_PAUSED_MIN_S
    assert waits == sorted(waits)
    assert waits[-1] == WAIT_PAUSED_MAX_S
    assert one.wait_s({"s-0", "s-1"}) == WAIT_PAUSED_MIN_S
    assert one.wait_s(set()) == WAIT_S
    assert buffering(is_bounded=True).wait_s(set()) == WAIT_PAUSED_MAX_S
