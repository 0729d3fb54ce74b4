"""A member of a consumer group as a `Source`: partitions come and go by rebalance, marks are committed offsets.

A committed offset is the next one to read, a mark's position the last finished one: offset = position + 1. The mark's
note travels as the commit's metadata. Commits and positions are always explicit; aiokafka's traps that this module is
written round are in docs/quirks.md.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from bridge.core import limits
from bridge.core.connection import KafkaConnection
from bridge.core.errors import SourceError
from bridge.core.mapping import StartingPosition
from bridge.core.ports import Clock
from bridge.core.sources import ShardEvents
from bridge.core.stream import Mark, Poll, Position, Shard
from bridge.sources.pull.kafka_client import cluster_name
from bridge.sources.pull.kafka_library import (
    NOWHERE,
    REQUEST_MAX_S,
    STUCK_MAX_S,
    Consumer,
    Listener,
    failures,
    make_consumer,
    start_consumer,
    starting_offsets,
)
from bridge.sources.pull.kafka_partition import Partition, passed_over, take_from

log = structlog.get_logger("bridge.sources.kafka")

REBALANCE_MAX_MS: Final = 30_000
"""How long the group waits for a member to come back in a rebalance: more than REVOKE_MAX_S, with room."""
POLL_INTERVAL_MAX_MS: Final = 1_800_000
"""Longer than any function may run; reading never waits for one, this is the belt."""
WATCH_S: Final = 10.0
"""The ends of the partitions are asked for at such intervals: what is behind shows while nothing is fetched, too."""
READ_GAP_S: Final = 5.0
"""Reads further apart than this say nothing about the client: nobody asked, or the machine slept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """How a group is joined and where it begins."""

    topic: str
    group: str
    starting_position: StartingPosition = StartingPosition.TRIM_HORIZON
    starting_position_timestamp: float | None = None
    """Epoch seconds, with AT_TIMESTAMP."""
    isolation_level: str = "read_uncommitted"
    group_instance_id: str = ""
    session_timeout_s: float = limits.SESSION_TIMEOUT_DEFAULT_S
    """A member that says nothing for so long is out of the group."""
    metadata_max_age_s: float = 30.0
    """New partitions are noticed within it."""


class KafkaGroupSource:
    """`sources.Source` over a consumer group."""

    def __init__(
        self,
        connection: KafkaConnection,
        settings: GroupSettings,
        *,
        clock: Clock,
        epochs: Iterator[int],
        partitions_seen: set[int],
    ) -> None:
        """Nothing is connected before `open`.

        Args:
            connection: the cluster.
            settings: topic, group and beginnings.
            clock: for the watch over a client that stopped.
            epochs: gives each assignment its number, rising over all readers of the stream.
            partitions_seen: the topic's partitions when it was first read, shared by all readers of the stream:
                one that appears later begins at its beginning, or LATEST would lose its first records.
        """
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self._epochs = epochs
        self._seen = partitions_seen
        self._name = f"kafka {cluster_name(connection)}"
        self._consumer: Consumer | None = None
        self._events: ShardEvents | None = None
        self._partitions: dict[Shard, Partition] = {}
        self._joined = asyncio.Event()
        """Cleared from the beginning of a rebalance to its end."""
        self._joining_since = 0.0
        self._failure: SourceError | None = None
        self._committing = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._read_at = 0.0
        self._is_closed = False
        self.trouble = ""
        """See sources.Source: the brokers were away when they were asked last, or the group has not let us in."""

    # --- opening and closing ---------------------------------------------------------------------------------------
    async def open(self, events: ShardEvents) -> None:
        """Connect and join; the shards are told once the group has divided them, while `read` is awaited."""
        settings = self._settings
        consumer = make_consumer(
            self._connection,
            group_id=settings.group,
            group_instance_id=settings.group_instance_id or None,
            isolation_level=settings.isolation_level,
            session_timeout_ms=round(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=round(settings.session_timeout_s * 1000 / 4),
            rebalance_timeout_ms=REBALANCE_MAX_MS,
            max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
            metadata_max_age_ms=round(settings.metadata_max_age_s * 1000),
            # Never the sticky one: its state is the class's, shared by all mappings (aiokafka#1175).
            partition_assignment_strategy=(RoundRobinPartitionAssignor, RangePartitionAssignor),
        )
        partitions = await start_consumer(consumer, self._connection, settings.topic)
        if not self._seen:
            self._seen.update(partitions)
        self._consumer, self._events = consumer, events
        self._joining_since = self._read_at = self._clock.monotonic()
        consumer.subscribe([settings.topic], listener=Listener(revoked=self._revoked, assigned=self._assigned))
        self._watching = asyncio.create_task(self._watch(), name=f"kafka-watch {settings.topic}")

    async def close(self) -> None:
        """Hand everything back, leave the group, disconnect; within some `REVOKE_MAX_S` + 2 `SHUT_MAX_S`."""
        consumer = self._consumer
        if consumer is None or self._is_closed:
            return
        self._is_closed = True
        try:
            await self._revoked()
        finally:
            self._consumer = None
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.gather(self._watching, return_exceptions=True)
            await consumer.shut()

    # --- rebalances, inside aiokafka's coordination ----------------------------------------------------------------
    async def _revoked(self) -> None:
        self._joined.clear()
        self._joining_since = self._clock.monotonic()
        if self._consumer is not None and not self._consumer.is_member():
            self._lose("the group went on without us")
        going = {shard: partition for shard, partition in self._partitions.items() if partition.is_ready}
        for partition in self._partitions.values():
            partition.is_ready, partition.backlog = False, ()
        try:
            if going and self._events is not None:
                async with asyncio.timeout(limits.REVOKE_MAX_S):
                    await self._events.revoking(going.keys(), deadline_s=limits.REVOKE_MAX_S)
        except TimeoutError:
            log.warning("shards_revoked_late", topic=self._settings.topic, shards=sorted(going))
        finally:
            for shard in going:
                self._partitions.pop(shard, None)

    async def _assigned(self, assigned: Collection[TopicPartition]) -> None:
        if self._is_closed or self._consumer is None or self._events is None:
            return
        try:
            with failures(self._connection, "cannot take over partitions"):
                async with asyncio.timeout(REBALANCE_MAX_MS / 1000):
                    marks = await self._take_over(self._consumer, assigned)
            async with asyncio.timeout(limits.REVOKE_MAX_S):
                await self._events.assigned(marks)
        except SourceError as error:
            self._failure = error
        except TimeoutError:
            self._failure = SourceError(f"{self._name}: taking over partitions took too long")
        else:
            now = self._clock.monotonic()
            for shard in marks:
                partition = self._partitions[shard]
                partition.is_ready, partition.quiet_since = True, now
        self._joined.set()

    async def _take_over(self, consumer: Consumer, assigned: Collection[TopicPartition]) -> Mapping[Shard, Mark]:
        """Find each partition's mark, go there, and commit the beginnings of those that had none."""
        epoch = next(self._epochs)
        commits = await consumer.committed_offsets(assigned)
        beginnings = await self._beginnings(consumer, [each for each in assigned if each not in commits])
        marks: dict[Shard, Mark] = {}
        self._partitions = {}
        for each in assigned:
            commit = commits.get(each)
            partition = Partition(each, next_offset=beginnings[each] if commit is None else commit.offset, epoch=epoch)
            partition.note = b"" if commit is None else _note(commit)
            # Said before anything is handed out: aiokafka may have begun elsewhere by itself (aiokafka#738).
            consumer.seek(each, partition.stored + 1)
            self._partitions[partition.shard] = partition
            marks[partition.shard] = Mark(position=partition.stored, epoch=epoch, note=partition.note)
        if beginnings:  # so that LATEST means the same after a restart before the first commit
            try:
                await consumer.commit({each: OffsetAndMetadata(offset, "") for each, offset in beginnings.items()})
            except (CommitFailedError, IllegalStateError) as error:
                log.debug("beginning_not_committed", topic=self._settings.topic, reason=str(error))
        return marks

    async def _beginnings(
        self, consumer: Consumer, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        settings = self._settings
        known = [each for each in partitions if each.partition in self._seen]
        grown = [each for each in partitions if each.partition not in self._seen]
        first = StartingPosition.TRIM_HORIZON
        return {
            **await starting_offsets(consumer, known, settings.starting_position, settings.starting_position_timestamp),
            **await starting_offsets(consumer, grown, first, None),
        }

    def _lose(self, reason: str) -> None:
        """The group has given our partitions away already: nothing of them is committed any more."""
        lost = {shard for shard, partition in self._partitions.items() if partition.is_ready}
        self._partitions = {}
        if lost and self._events is not None:
            log.warning("shards_lost", topic=self._settings.topic, shards=sorted(lost), reason=reason)
            self._events.lost(lost)

    # --- reading ---------------------------------------------------------------------------------------------------
    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]) -> Poll:
        """Return the next records; paused partitions are left out of what is asked, the membership lives on."""
        consumer = self._consumer
        if consumer is None or self._is_closed:
            raise SourceError(f"{self._name}: closed")
        self._note_read(paused)
        if self._failure is not None:
            raise self._failure
        consumer.check_egress()
        if not self._joined.is_set():
            await self._wait_for_the_group(consumer, wait_s)
            return Poll()
        wanted = [each for each in self._partitions.values() if each.is_ready and each.shard not in paused]
        for each in wanted:
            self._go_back(consumer, each)
        chunks = take_from(wanted, records_max=records_max, bytes_max=bytes_max)
        if chunks:
            return passed_over(wanted, [consumer.next_offset(each.partition) for each in wanted], chunks)
        fetched = await self._fetch(consumer, wanted, records_max=records_max, wait_s=wait_s)
        if self._failure is not None:
            raise self._failure
        # Whatever was revoked meanwhile is dropped: it is fetched again by whoever has it now, even if that is us.
        wanted = [each for each in wanted if each.is_ready and self._partitions.get(each.shard) is each]
        for each in wanted:
            each.backlog = fetched.get(each.partition, ())
        chunks = take_from(wanted, records_max=records_max, bytes_max=bytes_max)
        return passed_over(wanted, [consumer.next_offset(each.partition) for each in wanted], chunks)

    def _go_back(self, consumer: Consumer, partition: Partition) -> None:
        """Fetch again what was fetched and never handed out.

        A getmany that began before a rebalance ends behind it with records of the new assignment: they are dropped
        by `read`, since nobody knew then whose they are, and aiokafka's position has moved past them.
        """
        following = consumer.next_offset(partition.partition)
        if not partition.backlog and following is not None and following > partition.through + 1:
            log.debug("records_fetched_again", shard=partition.shard, position=partition.through + 1, until=following)
            consumer.seek(partition.partition, partition.through + 1)

    async def _wait_for_the_group(self, consumer: Consumer, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._joined.wait()
        except TimeoutError:
            with failures(self._connection, f"cannot join group {self._settings.group}"):
                consumer.check()
            if self._clock.monotonic() - self._joining_since > REBALANCE_MAX_MS / 1000 + STUCK_MAX_S:
                raise SourceError(f"{self._name}: group {self._settings.group} does not come to rest") from None

    async def _fetch(
        self, consumer: Consumer, wanted: Collection[Partition], *, records_max: int, wait_s: float
    ) -> Mapping[TopicPartition, list[Any]]:
        asked = [each.partition for each in wanted] or [NOWHERE]
        try:
            # In a rebalance getmany waits for its end, whatever its own timeout says.
            async with asyncio.timeout(wait_s + 1.0):
                fetched: Mapping[TopicPartition, list[Any]] = await consumer.getmany(
                    *asked, timeout_ms=round(wait_s * 1000), max_records=records_max
                )
                return fetched
        except (TimeoutError, NoOffsetForPartitionError):
            return {}
        except OffsetOutOfRangeError as error:
            with failures(self._connection, "cannot find the beginning again"):
                await self._out_of_range(consumer, error.args[0])
            return {}
        except RecordTooLargeError as error:
            _, partition, offset, _ = error.args
            consumer.seek(partition, offset)  # aiokafka has passed over it
            raise SourceError(
                f"{self._name}: {partition.topic}-{partition.partition}: record {offset} cannot be fetched"
            ) from error
        except ConsumerStoppedError as error:
            raise SourceError(f"{self._name}: closed") from error
        except KafkaError as error:
            raise SourceError(f"{self._name}: cannot read {self._settings.topic}: {error!r}") from error

    async def _out_of_range(self, consumer: Consumer, offsets: Mapping[TopicPartition, int]) -> None:
        """Retention took what comes next, or the topic is another one: to what is there, aloud, never to the end."""
        async with asyncio.timeout(REQUEST_MAX_S):
            earliest = await consumer.beginning_offsets(list(offsets))
        for each, offset in offsets.items():
            partition = next((one for one in self._partitions.values() if one.partition == each), None)
            if partition is None:
                continue
            first = earliest[each]
            log.error(
                "records_lost", topic=each.topic, shard=partition.shard, position=offset, continued_at=first,
                reason="no longer kept" if offset < first else "the topic is shorter than what is committed",
            )  # fmt: skip
            if offset < first:
                consumer.seek(each, first)
                continue
            # Positions begin anew: for whoever reads, that is another assignment.
            await consumer.commit({each: OffsetAndMetadata(first, "")})
            del self._partitions[partition.shard]
            if self._events is not None:
                self._events.lost({partition.shard})
            self._failure = SourceError(f"{self._name}: {partition.shard} ends before offset {offset}: read anew")

    # --- commits ---------------------------------------------------------------------------------------------------
    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Commit offsets with their notes as metadata, explicitly, for partitions of this assignment."""
        async with self._committing:
            consumer = self._consumer
            wanted = {
                partition: mark
                for shard, mark in marks.items()
                if (partition := self._partitions.get(shard)) is not None and _is_news(partition, mark)
            }
            if not wanted or consumer is None:
                return
            offsets = {
                partition.partition: OffsetAndMetadata(mark.position + 1, mark.note.decode())
                for partition, mark in wanted.items()
            }
            with failures(self._connection, "cannot commit"):
                async with asyncio.timeout(REQUEST_MAX_S):
                    if not await self._send_commit(consumer, offsets):
                        return
            for partition, mark in wanted.items():
                partition.stored, partition.note = mark.position, mark.note

    async def _send_commit(self, consumer: Consumer, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> bool:
        """Commit; False when the partitions are not ours any more."""
        try:
            await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            log.debug("commit_ignored", topic=self._settings.topic, reason=str(error))
            if isinstance(error.__cause__, UnknownMemberIdError | IllegalGenerationError):
                self._lose("the group went on without us")
            return False
        return True

    def behind_s(self) -> Mapping[Shard, float]:
        """Return nothing: records are counted. See sources.Source."""
        return {}

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Return the lag by the newest end known: the last fetch's, or the watch's, which asks every `WATCH_S`."""
        result: dict[Shard, int | None] = {}
        for shard, position in marks.items():
            partition, consumer = self._partitions.get(shard), self._consumer
            ends = (
                [consumer.end_offset(partition.partition), partition.end]
                if partition is not None and consumer is not None
                else []
            )
            known = [end for end in ends if end is not None]
            result[shard] = max(0, max(known) - 1 - position) if known else None
        return result

    # --- the watch -------------------------------------------------------------------------------------------------
    def _note_read(self, paused: AbstractSet[Shard]) -> None:
        now = self._clock.monotonic()
        has_gap = now - self._read_at > READ_GAP_S
        for partition in self._partitions.values():
            if has_gap or partition.shard in paused:
                partition.quiet_since = now
        if has_gap:
            self._joining_since = now
        self._read_at = now

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(WATCH_S)
            partitions = {each.partition: each for each in self._partitions.values() if each.is_ready}
            consumer = self._consumer
            if not partitions or consumer is None:
                self.trouble = "" if self._joined.is_set() else f"{self._name}: waits for the group to divide the topic"
                continue
            try:
                async with asyncio.timeout(REQUEST_MAX_S):
                    ends = await consumer.end_offsets(list(partitions))
            except (KafkaError, TimeoutError) as error:
                # The brokers are away, or a partition has no leader: nothing to hold against the client.
                self.trouble = f"{self._name}: no answer from the brokers: {error or 'timed out'}"
                continue
            self.trouble = ""
            for each, partition in partitions.items():
                partition.end = ends.get(each)
                self._check_progress(consumer, partition)

    def _check_progress(self, consumer: Consumer, partition: Partition) -> None:
        now, fetched_at_ms = self._clock.monotonic(), consumer.fetched_at_ms(partition.partition)
        following = consumer.next_offset(partition.partition)
        has_more = following is None or partition.end is None or following < partition.end
        if fetched_at_ms != partition.fetched_at_ms or not has_more or now - self._read_at > READ_GAP_S:
            partition.fetched_at_ms, partition.quiet_since = fetched_at_ms, now
        elif now - partition.quiet_since > STUCK_MAX_S and self._failure is None:
            self._failure = SourceError(
                f"{self._name}: nothing was fetched of {partition.shard} for {STUCK_MAX_S:.0f} s"
            )


def _note(commit: OffsetAndMetadata) -> bytes:
    """Return the mark's note in a commit; what other clients write there is none."""
    metadata = commit.metadata or ""
    return metadata.encode() if metadata.startswith("{") else b""


def _is_news(partition: Partition, mark: Mark) -> bool:
    if mark.epoch != partition.epoch or mark.position < partition.stored:
        return False
    return mark.position > partition.stored or mark.note != partition.note
