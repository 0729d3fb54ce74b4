"""aiokafka's consumer with what its public methods lack: metadata of commits, positions at once, an end in time."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import OffsetAndMetadata

from bridge.core.connection import KafkaConnection
from bridge.core.errors import ConfigError, SourceError
from bridge.core.mapping import StartingPosition
from bridge.sources.pull.kafka_client import RETRY_BACKOFF_MS, client_arguments, cluster_name, reason
from bridge.sources.pull.kafka_records import ParsedRecords
from bridge.util.library_log import overheard

START_MAX_S: Final = 15.0
"""How long connecting may take before it counts as failed."""
REQUEST_MAX_S: Final = 10.0
"""How long one question to the brokers may take, retries included."""
SHUT_MAX_S: Final = 5.0
"""How long leaving the group may take before connections are just closed."""
LEAVE_MAX_S: Final = 2.0
FETCH_MAX_BYTES: Final = 16 * 1024 * 1024
"""Of one answer of a broker. A record larger than this still comes, alone (KIP-74)."""
FETCH_PARTITION_MAX_BYTES: Final = 1024 * 1024
FETCH_WAIT_MAX_MS: Final = 250
"""How long a broker keeps an empty answer. A partition that was held back meanwhile is asked for only after it."""
STUCK_MAX_S: Final = 60.0
"""No fetch was answered for so long though there is something to fetch: the client is rebuilt (aiokafka#1154)."""
NOWHERE: Final = TopicPartition("", -1)
"""No partition: polling it takes no records, yet counts as polling. An empty argument list would mean all."""


class _Results(OrderedDict[TopicPartition, Any]):
    """What a fetcher keeps its answers in: makes them give the parser's own records.

    A ConsumerRecord adds nothing that we read, and making it takes longer than parsing a small record. Where aiokafka
    is built otherwise one day, they are ConsumerRecords again: both have the same names.
    """

    def __setitem__(self, partition: TopicPartition, result: Any) -> None:
        if isinstance(plain := getattr(result, "_partition_records", None), PartitionRecords):
            result._partition_records = ParsedRecords(plain)  # noqa: SLF001 - see Consumer
        super().__setitem__(partition, result)


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka is untyped
    """The one place that looks into aiokafka: its consumer knows more than its public methods tell."""

    async def start(self) -> None:
        """Connect; see AIOKafkaConsumer."""
        await super().start()
        self._fetcher._records = _Results()  # noqa: SLF001 - see the class

    def next_offset(self, partition: TopicPartition) -> int | None:
        """Return the offset that is fetched next: past holes too; None while it is not known."""
        state = self._state(partition)
        return state.position if state is not None and state.has_valid_position else None

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the partition's end as the last fetch saw it, that of finished transactions if only they count."""
        state = self._state(partition)
        if state is None:
            return None
        lso = state.lso
        if self._isolation_level == "read_committed" and lso is not None and lso >= 0:
            return int(lso)
        return None if state.highwater is None else int(state.highwater)

    def fetched_at_ms(self, partition: TopicPartition) -> int | None:
        """Return when a fetch of the partition was answered last; only good for telling whether it changed."""
        state = self._state(partition)
        return None if state is None else state.timestamp

    def is_member(self) -> bool:
        """Say whether the group knows us, as far as we know: not after an expired session."""
        return self._coordinator is not None and self._coordinator.generation > 0

    def check_egress(self) -> None:
        """Raise SourceError where a broker that the cluster advertises may not be connected to: it is of no use."""
        if said := getattr(self._client._client_id, "refused", ""):  # noqa: SLF001 - see the class
            raise SourceError(said)

    def check(self) -> None:
        """Raise what the group's coordination failed with, if it did."""
        self._coordinator.check_errors()

    async def partitions_of(self, topic: str) -> set[int]:
        """Return the partitions of a topic, none when it does not exist: asking for it alone could create it."""
        cluster = await self._client.fetch_all_metadata()
        partitions = set(cluster.partitions_for_topic(topic) or ())
        if partitions:  # known before the group is joined, or the first assignment is an empty one
            await self._client.set_topics([topic])
        return partitions

    async def committed_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata]:
        """Return what is committed for these, those without a commit left out."""
        found = await self._coordinator.fetch_committed_offsets(list(partitions))
        return {partition: commit for partition, commit in found.items() if commit.offset >= 0}

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit for the membership of now, trying again while that may help.

        aiokafka sends a commit that had to wait (for a coordinator, for another try) under the generation that it finds
        then: offsets of before an expulsion go out under the membership of after it, the brokers believe them, and a
        mark that another member has moved on goes back.

        Raises:
            CommitFailedError: the membership has ended.
            IllegalStateError: a partition is not assigned.
            KafkaError: the brokers refused.
        """
        coordinator = self._coordinator
        membership = _membership(coordinator)
        subscription = self._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or not assignment.tps.issuperset(offsets):
            raise IllegalStateError("a partition is not assigned")
        if self._subscription.partitions_auto_assigned() and coordinator.generation < 0:
            raise CommitFailedError("no member of the group") from UnknownMemberIdError()
        while True:
            await coordinator.ensure_coordinator_known()
            try:
                async with coordinator._commit_lock:  # noqa: SLF001 - see the class
                    if membership != _membership(coordinator):
                        raise CommitFailedError("another membership has begun")  # where it did, shards were lost
                    # The request takes the generation before it first waits.
                    await asyncio.shield(coordinator._do_commit_offsets(assignment, offsets))  # noqa: SLF001
            except (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError) as error:
                raise CommitFailedError("the group has gone on") from error
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(RETRY_BACKOFF_MS / 1000)
            else:
                return

    async def shut(self) -> None:
        """Leave the group and disconnect, in `SHUT_MAX_S`; else disconnect, and the group notices by itself."""
        # In a task of its own: aiokafka's stop may raise the CancelledError of a fetch that it cancelled itself.
        stopping = asyncio.create_task(self.stop())
        try:
            await asyncio.wait({stopping}, timeout=SHUT_MAX_S)
        finally:
            is_clean = stopping.done() and not stopping.cancelled() and stopping.exception() is None
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            if not is_clean:
                await self._abandon()

    async def _abandon(self) -> None:
        """End what a stop that was cut short has left: tasks, then connections."""
        names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")
        coordinator, fetcher = self._coordinator, self._fetcher
        tasks = [task for name in names if (task := getattr(coordinator, name, None)) is not None]
        if fetcher is not None:
            tasks += [fetcher._fetch_task, *fetcher._pending_tasks]  # noqa: SLF001 - see the class
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(LEAVE_MAX_S):
                await self._leave()
        await asyncio.gather(self._client.close(), return_exceptions=True)

    async def _leave(self) -> None:
        """Say good-bye on a connection of its own: on the group's, a join that waits for others is still unanswered.

        A member that only vanishes holds up the others' rebalances until its session ends.
        """
        coordinator = self._coordinator
        if self._group_instance_id is None and getattr(coordinator, "coordinator_id", None) is not None:
            request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
            await self._client.send(coordinator.coordinator_id, request)

    def _state(self, partition: TopicPartition) -> Any:
        subscription = self._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        return None if assignment is None else assignment.state_value(partition)


def _membership(coordinator: Any) -> tuple[str, int]:
    return coordinator.member_id, coordinator.generation


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Hands what aiokafka calls in a rebalance to two functions."""

    def __init__(
        self,
        *,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[Collection[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Everything goes at each rebalance: aiokafka's protocol is the eager one."""
        del revoked
        await self._revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """These are ours now."""
        await self._assigned(assigned)


# --- life -----------------------------------------------------------------------------------------------------------
def make_consumer(connection: KafkaConnection, **arguments: Any) -> Consumer:
    """Return a consumer that is not started, as all of ours are: commits and positions are explicit.

    Raises:
        SourceError: a file of the connection cannot be read now.
    """
    return Consumer(
        **_arguments(connection),
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=FETCH_WAIT_MAX_MS,
        fetch_max_bytes=FETCH_MAX_BYTES,
        max_partition_fetch_bytes=FETCH_PARTITION_MAX_BYTES,
        **arguments,
    )


async def start_consumer(consumer: Consumer, connection: KafkaConnection, topic: str) -> list[int]:
    """Connect and return the partitions of the topic; on failure the consumer is shut.

    Raises:
        SourceError: the cluster cannot be reached or has no such topic.
    """
    try:
        with overheard() as said, failures(connection, "cannot connect", said):
            async with asyncio.timeout(START_MAX_S):
                await consumer.start()
                partitions = await consumer.partitions_of(topic)
        if not partitions:
            raise SourceError(f"kafka {cluster_name(connection)}: no topic {topic}: create it, or check its name")
    except SourceError:
        await consumer.shut()
        consumer.check_egress()
        raise
    except BaseException:
        await consumer.shut()
        raise
    return sorted(partitions)


@contextlib.asynccontextmanager
async def running(consumer: Consumer, connection: KafkaConnection, topic: str) -> AsyncIterator[list[TopicPartition]]:
    """Start a consumer for a few questions and shut it after them; gives the topic's partitions."""
    partitions = await start_consumer(consumer, connection, topic)
    try:
        yield [TopicPartition(topic, partition) for partition in partitions]
    finally:
        await consumer.shut()


@contextlib.asynccontextmanager
async def administration(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give an admin client for a few questions; raises SourceError."""
    admin = AIOKafkaAdminClient(**_arguments(connection))
    try:
        with overheard() as said, failures(connection, "cannot connect", said):
            async with asyncio.timeout(START_MAX_S):
                await admin.start()
        yield admin
    finally:
        await admin.close()


def _arguments(connection: KafkaConnection) -> dict[str, Any]:
    """Return `client_arguments`; what they lack now they had at the start: it may come back, as a cluster may."""
    try:
        return client_arguments(connection)
    except ConfigError as error:
        raise SourceError(f"kafka {cluster_name(connection)}: {error}") from error


@contextlib.contextmanager
def failures(connection: KafkaConnection, what: str, said: Sequence[str] = ()) -> Any:
    """Turn what aiokafka raises into a SourceError that says what failed, where and, of `said` (`overheard`), why."""
    try:
        yield
    except TimeoutError as error:
        raise SourceError(": ".join([f"kafka {cluster_name(connection)}: {what}: no answer in time", *said])) from error
    except (KafkaError, OSError) as error:
        raise SourceError(f"kafka {cluster_name(connection)}: {what}: {reason(error, said)}") from error


# --- offsets --------------------------------------------------------------------------------------------------------
async def starting_offsets(
    consumer: Consumer,
    partitions: Collection[TopicPartition],
    start: StartingPosition,
    timestamp: float | None,
) -> Mapping[TopicPartition, int]:
    """Return where reading begins by a starting position; a time that no record has reached yet is the end.

    Args:
        consumer: a started one.
        partitions: of which the offsets are wanted; may be none.
        start: the starting position.
        timestamp: epoch seconds, with AT_TIMESTAMP.
    """
    wanted = list(partitions)
    if not wanted:
        return {}
    async with asyncio.timeout(REQUEST_MAX_S):
        if start is StartingPosition.TRIM_HORIZON:
            return dict(await consumer.beginning_offsets(wanted))
        ends: dict[TopicPartition, int] = dict(await consumer.end_offsets(wanted))
        if start is StartingPosition.LATEST:
            return ends
        assert timestamp is not None, "AT_TIMESTAMP has a timestamp"
        return ends | await offsets_at(consumer, wanted, timestamp)


async def offsets_at(
    consumer: Consumer, partitions: Collection[TopicPartition], timestamp: float
) -> dict[TopicPartition, int]:
    """Return the first offset with a timestamp (epoch seconds) at or after; partitions without one are left out."""
    wanted = {partition: max(0, round(timestamp * 1000)) for partition in partitions}
    found = await consumer.offsets_for_times(wanted)
    return {partition: at.offset for partition, at in found.items() if at is not None}
