"""A part of a Kafka topic as a `Source` for replay: no group, no commits, an end that was seen at the beginning."""

import asyncio
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from bridge.core.connection import KafkaConnection
from bridge.core.errors import SourceError
from bridge.core.ports import Clock
from bridge.core.sources import ShardEvents
from bridge.core.stream import Mark, Poll, Position, Shard, StreamRange
from bridge.events.kafka import shard_name
from bridge.sources.pull.kafka_client import cluster_name
from bridge.sources.pull.kafka_library import (
    NOWHERE,
    REQUEST_MAX_S,
    STUCK_MAX_S,
    Consumer,
    failures,
    make_consumer,
    offsets_at,
    start_consumer,
)
from bridge.sources.pull.kafka_partition import Partition, passed_over, take_from

log = structlog.get_logger("bridge.sources.kafka")

QUIET_MAX_S: Final = 2.0
"""Fetches of everything that is left brought nothing for so long: the rest of the range holds no record (the end of
a compacted log may lie behind its last record)."""


class KafkaRangeSource:
    """`sources.Source` over a part of a topic: first offset, end offset and times by partition."""

    def __init__(
        self, connection: KafkaConnection, *, topic: str, range_: StreamRange, isolation_level: str, clock: Clock
    ) -> None:
        """Nothing is connected before `open`."""
        self._connection = connection
        self._topic = topic
        self._range = range_
        self._isolation_level = isolation_level
        self._clock = clock
        self._name = f"kafka {cluster_name(connection)}"
        self._consumer: Consumer | None = None
        self._events: ShardEvents | None = None
        self._partitions: dict[Shard, Partition] = {}
        """Those that have not ended."""
        self._ends: dict[Shard, int] = {}
        """Offset behind the last one of the range."""
        self._answers: list[int | None] = []
        self._answered_at = 0.0
        """When a fetch was answered last, monotonic."""
        self._gone = 0
        self._read_at = 0.0
        """Monotonic time at which the last read ended."""

    trouble = ""
    """A range that cannot be read fails instead."""

    @property
    def ends(self) -> Mapping[Shard, Position]:
        """Return the last offset of each partition's part. See sources.RangeReader."""
        return {shard: end - 1 for shard, end in self._ends.items()}

    @property
    def gone(self) -> int:
        """Return how many offsets retention took. See sources.RangeReader."""
        return self._gone

    @property
    def follows(self) -> Mapping[Shard, AbstractSet[Shard]]:
        """Return none: partitions are for ever."""
        return {}

    async def open(self, events: ShardEvents) -> None:
        """Connect, find where each partition's part begins and ends, and tell all shards."""
        consumer = make_consumer(self._connection, group_id=None, isolation_level=self._isolation_level)
        numbers = await start_consumer(consumer, self._connection, self._topic)
        wanted = self._range.shards
        chosen = [
            TopicPartition(self._topic, number)
            for number in numbers
            if not wanted or shard_name(self._topic, number) in wanted
        ]
        try:
            with failures(self._connection, "cannot find the range"):
                async with asyncio.timeout(REQUEST_MAX_S):
                    bounds = await self._bounds(consumer, chosen)
            if chosen:
                consumer.assign(chosen)
            now = self._read_at = self._answered_at = self._clock.monotonic()
            for each, (first, end) in bounds.items():
                partition = Partition(each, next_offset=first, epoch=0)
                partition.quiet_since = now
                self._partitions[partition.shard] = partition
                self._ends[partition.shard] = end
                consumer.seek(each, first)
            self._consumer, self._events = consumer, events
            await events.assigned({shard: Mark(position=each.through) for shard, each in self._partitions.items()})
        except BaseException:
            self._consumer = None
            await consumer.shut()
            raise
        for partition in self._partitions.values():
            partition.is_ready = True

    async def _bounds(self, consumer: Consumer, chosen: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        if not chosen:
            return {}
        range_ = self._range
        firsts = dict(await consumer.beginning_offsets(chosen))
        ends = dict(await consumer.end_offsets(chosen))
        since = {} if range_.since is None else await offsets_at(consumer, chosen, range_.since)
        until = {} if range_.until is None else await offsets_at(consumer, chosen, range_.until)
        bounds = {}
        for each in chosen:
            shard = shard_name(self._topic, each.partition)
            first = max(firsts[each], range_.first.get(shard, 0))
            if range_.since is not None:
                first = max(first, since.get(each, ends[each]))
            end = min(ends[each], until.get(each, ends[each]), range_.last.get(shard, ends[each]) + 1)
            if shard in range_.first:
                self._gone += max(0, min(firsts[each], end) - range_.first[shard])
            bounds[each] = (first, end)
        return bounds

    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]) -> Poll:
        """Return the next records of the range; `ended` names the partitions that are read up to its end."""
        consumer = self._consumer
        if consumer is None:
            raise SourceError(f"{self._name}: closed")
        idle_s = self._clock.monotonic() - self._read_at
        self._answered_at += idle_s  # only while somebody reads can nothing come
        for each in self._partitions.values():
            each.quiet_since += idle_s
        try:
            return await self._read(
                consumer, records_max=records_max, bytes_max=bytes_max, wait_s=wait_s, paused=paused
            )
        finally:
            self._read_at = self._clock.monotonic()

    async def _read(
        self, consumer: Consumer, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]
    ) -> Poll:
        if ended := self._take_ended(consumer):
            return Poll(ended=ended)
        wanted = [each for each in self._partitions.values() if each.shard not in paused]
        if not any(each.backlog for each in wanted):
            fetched = await self._fetch(consumer, wanted, records_max=records_max, wait_s=wait_s)
            for each in wanted:
                each.backlog = [record for record in fetched.get(each.partition, ()) if self._is_inside(each, record)]
        chunks = take_from(wanted, records_max=records_max, bytes_max=bytes_max)
        poll = passed_over(wanted, [self._next(consumer, each) for each in wanted], chunks)
        self._note_progress(consumer, wanted, is_progress=bool(chunks or poll.through))
        poll.ended = self._take_ended(consumer)
        return poll

    def _note_progress(self, consumer: Consumer, wanted: list[Partition], *, is_progress: bool) -> None:
        now = self._clock.monotonic()
        answers = [consumer.fetched_at_ms(each.partition) for each in wanted]
        if is_progress or answers != self._answers:
            self._answers, self._answered_at = answers, now
        if is_progress or len(wanted) < len(self._partitions):
            for each in self._partitions.values():
                each.quiet_since, each.fetched_at_ms = now, consumer.fetched_at_ms(each.partition)
        if wanted and now - self._answered_at > STUCK_MAX_S:
            raise SourceError(f"{self._name}: nothing was fetched of {self._topic} for {STUCK_MAX_S:.0f} s")

    def _next(self, consumer: Consumer, partition: Partition) -> int | None:
        following = consumer.next_offset(partition.partition)
        return None if following is None else min(following, self._ends[partition.shard])

    def _is_inside(self, partition: Partition, record: Any) -> bool:
        """Timestamps of producers are in no order: between the offsets of two times may lie records of others."""
        since, until = self._range.since, self._range.until
        if record.offset >= self._ends[partition.shard]:
            return False
        at = -1.0 if record.timestamp is None else record.timestamp / 1000
        return (since is None or at >= since) and (until is None or at < until)

    def _take_ended(self, consumer: Consumer) -> list[Shard]:
        """Remove and return the partitions of which nothing is left."""
        ended = [shard for shard, each in self._partitions.items() if self._has_ended(consumer, each)]
        for shard in ended:
            del self._partitions[shard]
        return ended

    def _has_ended(self, consumer: Consumer, partition: Partition) -> bool:
        if partition.backlog:
            return False
        following, end = consumer.next_offset(partition.partition), self._ends[partition.shard]
        if following is None:
            return False
        if following >= end:
            return True
        is_quiet = self._clock.monotonic() - partition.quiet_since > QUIET_MAX_S
        is_answered = consumer.fetched_at_ms(partition.partition) != partition.fetched_at_ms
        log_end = consumer.end_offset(partition.partition)
        return is_quiet and is_answered and log_end is not None and log_end >= end

    async def _fetch(
        self, consumer: Consumer, wanted: list[Partition], *, records_max: int, wait_s: float
    ) -> Mapping[TopicPartition, list[Any]]:
        asked = [each.partition for each in wanted] or [NOWHERE]
        try:
            fetched: Mapping[TopicPartition, list[Any]] = await consumer.getmany(
                *asked, timeout_ms=round(wait_s * 1000), max_records=records_max
            )
        except OffsetOutOfRangeError as error:
            with failures(self._connection, "cannot find the beginning again"):
                await self._out_of_range(consumer, error.args[0])
            return {}
        except KafkaError as error:
            raise SourceError(f"{self._name}: cannot read {self._topic}: {error!r}") from error
        return fetched

    async def _out_of_range(self, consumer: Consumer, offsets: Mapping[TopicPartition, int]) -> None:
        """Retention took what comes next, while it was read."""
        async with asyncio.timeout(REQUEST_MAX_S):
            earliest = await consumer.beginning_offsets(list(offsets))
        for each, offset in offsets.items():
            shard = shard_name(self._topic, each.partition)
            first = min(earliest[each], self._ends[shard])
            if first <= offset:
                raise SourceError(f"{self._name}: {shard} changed while it was read")
            self._gone += first - offset
            log.error("records_lost", topic=self._topic, shard=shard, position=offset, continued_at=first)
            consumer.seek(each, first)

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Nothing: live marks are untouched."""

    def behind_s(self) -> Mapping[Shard, float]:
        """Return nothing: records are counted. See sources.Source."""
        return {}

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Return how many positions of the range lie behind."""
        ends = self._ends
        return {
            shard: max(0, ends[shard] - 1 - position) if shard in ends else None for shard, position in marks.items()
        }

    async def close(self) -> None:
        """Disconnect; twice is fine."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        self._partitions = {}
        await consumer.shut()
