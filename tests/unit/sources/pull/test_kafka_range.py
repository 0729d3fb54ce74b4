"""A part of a topic without a broker: where it ends when nothing comes any more, and a client that stopped."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord, OffsetAndTimestamp

from bridge.core.connection import KafkaConnection
from bridge.core.errors import SourceError
from bridge.core.stream import Mark, StreamRange
from bridge.sources.pull import kafka_range
from bridge.sources.pull.kafka_library import STUCK_MAX_S
from bridge.sources.pull.kafka_range import QUIET_MAX_S, KafkaRangeSource
from bridge.testing.clock import ManualClock

ONLY = TopicPartition("orders", 0)


class Topic:
    """One partition: (offset, timestamp) of what is left in the log, up to `end`."""

    def __init__(self, *records, end, first=0):
        self.records = records
        self.first = first
        self.takes_s = 0.0
        self.clock = ManualClock()
        self.end = end
        self.position = None
        self.answered = 0
        self.answers = True
        self.is_shut = False

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, self.first)

    async def end_offsets(self, partitions):
        return dict.fromkeys(partitions, self.end)

    async def offsets_for_times(self, times):
        return {
            one: next((OffsetAndTimestamp(at, time) for at, time in self.records if time >= wanted), None)
            for one, wanted in times.items()
        }

    def assign(self, partitions):
        assert partitions == [ONLY]

    def seek(self, partition, offset):
        self.position = offset

    async def getmany(self, *partitions, timeout_ms, max_records):
        await self.clock.advance(self.takes_s)
        if not self.answers or ONLY not in partitions:
            return {}
        self.answered += 1
        found = [
            ConsumerRecord("orders", 0, at, time, 0, None, b"v", None, -1, -1, ())
            for at, time in self.records
            if at >= self.position
        ][:max_records]
        if not found:
            return {}
        self.position = found[-1].offset + 1
        return {ONLY: found}

    def next_offset(self, partition):
        return self.position

    def end_offset(self, partition):
        return self.end if self.answered else None

    def fetched_at_ms(self, partition):
        return self.answered

    async def shut(self):
        self.is_shut = True


async def open_range(monkeypatch, topic, range_=StreamRange()):
    async def start(consumer, connection, name):
        return [0]

    async def assigned(marks):
        told.update(marks)

    told, clock = {}, topic.clock
    monkeypatch.setattr(kafka_range, "make_consumer", lambda connection, **arguments: topic)
    monkeypatch.setattr(kafka_range, "start_consumer", start)
    source = KafkaRangeSource(
        KafkaConnection(name="main", bootstrap_servers=("x:1",)),
        topic="orders", range_=range_, isolation_level="read_uncommitted", clock=clock,
    )  # fmt: skip
    await source.open(SimpleNamespace(assigned=assigned))
    return source, clock, told


async def read(source, *, paused=frozenset()):
    return await source.read(records_max=2, bytes_max=1 << 20, wait_s=0, paused=paused)


async def drain(source):
    offsets = []
    while True:
        poll = await read(source)
        offsets += [at for chunk in poll.chunks for at in chunk.positions]
        if poll.ended:
            return offsets
        await asyncio.sleep(0)


async def test_it_ends_with_its_last_record(monkeypatch):
    source, _, told = await open_range(monkeypatch, Topic((0, 1), (1, 2), (2, 3), end=3))

    assert await drain(source) == [0, 1, 2]
    assert told == {"orders-0": Mark(position=-1)}
    await source.close()


async def test_bounds_that_hold_at_once(monkeypatch):
    topic = Topic(*((at, at * 1000) for at in range(10)), end=10)
    bounds = StreamRange(since=2.0, until=8.0, first={"orders-0": 4}, last={"orders-0": 6})

    source, _, told = await open_range(monkeypatch, topic, bounds)

    assert told == {"orders-0": Mark(position=3)}
    assert source.behind(dict.fromkeys(told, 3)) == {"orders-0": 3}
    assert source.ends == {"orders-0": 6}
    assert await drain(source) == [4, 5, 6]
    await source.close()


async def test_timestamps_in_no_order_are_held_against_both_bounds(monkeypatch):
    topic = Topic((0, 1000), (1, 5000), (2, 1000), (3, 6000), (4, 9000), end=5)

    source, _, _ = await open_range(monkeypatch, topic, StreamRange(since=4.0, until=8.0))

    assert await drain(source) == [1, 3]
    await source.close()


async def test_an_end_that_no_record_reaches_is_believed_after_a_while(monkeypatch):
    topic = Topic((0, 1), (1, 2), end=9)
    source, _, _ = await open_range(monkeypatch, topic)
    assert [chunk.positions for chunk in (await read(source)).chunks] == [[0, 1]]

    assert not (await read(source)).ended
    topic.takes_s = QUIET_MAX_S + 0.1

    assert (await read(source)).ended == ["orders-0"]
    await source.close()


async def test_a_broker_that_does_not_answer_is_no_end(monkeypatch):
    topic = Topic((0, 1), (1, 2), end=9)
    source, _, _ = await open_range(monkeypatch, topic)
    await read(source)
    topic.answers = False

    topic.takes_s = QUIET_MAX_S + 0.1
    for _ in range(5):
        assert not (await read(source)).ended

    topic.takes_s = STUCK_MAX_S
    with pytest.raises(SourceError, match="kafka main: nothing was fetched of orders for 60 s"):
        await read(source)
    await source.close()


async def test_a_partition_that_waits_does_not_end(monkeypatch):
    source, clock, _ = await open_range(monkeypatch, Topic((0, 1), (1, 2), (2, 3), end=9))
    await read(source)

    for _ in range(5):
        await clock.advance(QUIET_MAX_S + 0.1)
        assert not (await read(source, paused={"orders-0"})).ended

    assert [chunk.positions for chunk in (await read(source)).chunks] == [[2]]
    await source.close()


async def test_time_in_which_nobody_reads_ends_nothing(monkeypatch):
    topic = Topic((0, 1), (1, 2), (2, 3), end=9)
    source, clock, _ = await open_range(monkeypatch, topic)
    await read(source)

    topic.answered += 1  # what is fetched ahead, for a reader that is slow
    await clock.advance(STUCK_MAX_S)

    poll = await read(source)
    assert (poll.ended, [chunk.positions for chunk in poll.chunks]) == ([], [[2]])
    await source.close()


@pytest.mark.parametrize(
    ("bounds", "gone", "offsets"),
    [
        (StreamRange(first={"orders-0": 0}), 2, [2, 3]),
        (StreamRange(first={"orders-0": 2}), 0, [2, 3]),
        (StreamRange(first={"orders-0": 0}, last={"orders-0": 0}), 1, []),
        (StreamRange(), 0, [2, 3]),
    ],
)
async def test_what_retention_took_of_given_offsets_is_known(monkeypatch, bounds, gone, offsets):
    source, _, _ = await open_range(monkeypatch, Topic((2, 3), (3, 4), end=4, first=2), bounds)

    assert source.gone == gone
    assert await drain(source) == offsets
    await source.close()


async def test_a_listener_that_fails_leaves_nothing_open(monkeypatch):
    topic = Topic(end=0)

    async def start(consumer, connection, name):
        return [0]

    async def assigned(marks):
        raise RuntimeError("no")

    monkeypatch.setattr(kafka_range, "make_consumer", lambda connection, **arguments: topic)
    monkeypatch.setattr(kafka_range, "start_consumer", start)
    source = KafkaRangeSource(
        KafkaConnection(name="main", bootstrap_servers=("x:1",)),
        topic="orders", range_=StreamRange(), isolation_level="read_uncommitted", clock=ManualClock(),
    )  # fmt: skip

    with pytest.raises(RuntimeError):
        await source.open(SimpleNamespace(assigned=assigned))

    assert topic.is_shut
