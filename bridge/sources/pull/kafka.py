"""A Kafka topic as an event source: makes its readers, moves its marks, says who else consumes."""

import asyncio
import dataclasses
import itertools
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.core import limits
from bridge.core.connection import KafkaConnection
from bridge.core.errors import SourceError
from bridge.core.mapping import StartingPosition
from bridge.core.ports import Clock
from bridge.core.sources import EventShape, RangeReader, ShardStatus, Source, Standing
from bridge.core.stream import Mark, Shard, StreamRange
from bridge.events.kafka import KafkaShape, shard_name
from bridge.sources.pull.kafka_client import client_arguments, cluster_name


class KafkaEventSource:
    """`sources.EventSource` of one topic and one consumer group."""

    is_remote = True
    is_countable = True

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        topic: str,
        group: str,
        clock: Clock,
        starting_position: StartingPosition = StartingPosition.TRIM_HORIZON,
        starting_position_timestamp: float | None = None,
        isolation_level: str = "read_uncommitted",
        group_instance_id: str = "",
        event_source_arn: str = "",
        session_timeout_s: float = limits.SESSION_TIMEOUT_DEFAULT_S,
        metadata_max_age_s: float = 30.0,
    ) -> None:
        """Name a stream; nothing is connected yet.

        Args:
            connection: the cluster.
            topic: name of the topic.
            group: consumer group whose committed offsets are the marks.
            clock: the daemon's.
            starting_position: where a partition without a committed offset begins.
            starting_position_timestamp: epoch seconds; with AT_TIMESTAMP.
            isolation_level: `read_uncommitted` or `read_committed`.
            group_instance_id: static membership; empty: none.
            event_source_arn: makes the events MSK's; empty: the connection's, else self-managed.
            session_timeout_s: how long the group waits for a member that fell silent.
            metadata_max_age_s: new partitions are noticed within it.

        Raises:
            ConfigError: the connection cannot work here: an unreadable file, a missing extra.
        """
        client_arguments(connection)
        # A client id of its own, so that the group's other members can be told from ours.
        self._client_id = f"{connection.client_id}-{secrets.token_hex(4)}"
        self._connection = dataclasses.replace(connection, client_id=self._client_id)
        self._clock = clock
        self._settings: dict[str, Any] = {
            "topic": topic,
            "group": group,
            "starting_position": starting_position,
            "starting_position_timestamp": starting_position_timestamp,
            "isolation_level": isolation_level,
            "group_instance_id": group_instance_id,
            "session_timeout_s": session_timeout_s,
            "metadata_max_age_s": metadata_max_age_s,
        }
        self._topic, self._group, self._isolation_level = topic, group, isolation_level
        self._epochs = itertools.count(1)
        self._seen: set[int] = set()
        self.shape: EventShape = KafkaShape(
            topic=topic,
            bootstrap_servers=",".join(connection.bootstrap_servers),
            event_source_arn=event_source_arn or connection.event_source_arn,
        )

    def consumer(self) -> Source:
        """Return a new member of the group."""
        from bridge.sources.pull.kafka_group import GroupSettings, KafkaGroupSource

        return KafkaGroupSource(
            self._connection,
            GroupSettings(**self._settings),
            clock=self._clock,
            epochs=self._epochs,
            partitions_seen=self._seen,
        )

    def reader(self, range_: StreamRange) -> RangeReader:
        """Return a reader of a part of the topic, without any group."""
        from bridge.sources.pull.kafka_range import KafkaRangeSource

        return KafkaRangeSource(
            self._connection,
            topic=self._topic,
            range_=range_,
            isolation_level=self._isolation_level,
            clock=self._clock,
        )

    async def reset(self, start: StartingPosition, *, timestamp: float | None = None) -> Mapping[Shard, Mark]:
        """Commit new offsets for the whole topic; the brokers refuse it while the group has members."""
        from aiokafka.errors import CommitFailedError
        from aiokafka.structs import OffsetAndMetadata

        from bridge.sources.pull.kafka_library import REQUEST_MAX_S, failures, make_consumer, running, starting_offsets

        consumer = make_consumer(self._connection, group_id=self._group, isolation_level=self._isolation_level)
        async with running(consumer, self._connection, self._topic) as partitions:
            with failures(self._connection, "cannot move the marks"):
                offsets = await starting_offsets(consumer, partitions, start, timestamp)
                consumer.assign(partitions)
                try:
                    async with asyncio.timeout(REQUEST_MAX_S):
                        await consumer.commit({each: OffsetAndMetadata(at, "") for each, at in offsets.items()})
                except CommitFailedError as error:
                    raise SourceError(
                        f"kafka {cluster_name(self._connection)}: group {self._group} has members: "
                        "stop them before its marks are moved"
                    ) from error
        return {shard_name(self._topic, each.partition): Mark(position=at - 1) for each, at in offsets.items()}

    async def standing(self) -> Standing:
        """Return the group's committed offsets and the topic's ends; joins nothing. See sources.EventSource."""
        from bridge.sources.pull.kafka_library import REQUEST_MAX_S, failures, make_consumer, running, starting_offsets

        consumer = make_consumer(self._connection, group_id=self._group, isolation_level=self._isolation_level)
        async with running(consumer, self._connection, self._topic) as partitions:
            with failures(self._connection, f"cannot ask for the offsets of group {self._group}"):
                async with asyncio.timeout(REQUEST_MAX_S):
                    committed = await consumer.committed_offsets(partitions)
                    first = await consumer.beginning_offsets(partitions)
                    end = await consumer.end_offsets(partitions)
                start, time = self._settings["starting_position"], self._settings["starting_position_timestamp"]
                new = await starting_offsets(consumer, set(partitions) - committed.keys(), start, time)
        next_ = {**new, **{partition: commit.offset for partition, commit in committed.items()}}
        return Standing(
            shards=tuple(
                ShardStatus(
                    shard=shard_name(self._topic, each.partition),
                    position=next_[each] - 1,
                    behind=max(0, end[each] - max(next_[each], first[each])),  # what retention took is not behind
                )
                for each in sorted(partitions)
            )
        )

    async def others(self) -> Sequence[str]:
        """Return the group's members that are not ours: client id and host; of a cluster on AWS, just that it is."""
        if self._connection.is_on_aws:
            return [f"AWS: {','.join(self._connection.bootstrap_servers)}"]
        from bridge.sources.pull.kafka_library import REQUEST_MAX_S, administration, failures

        with failures(self._connection, f"cannot ask for the members of group {self._group}"):
            async with administration(self._connection) as admin, asyncio.timeout(REQUEST_MAX_S):
                answers = await admin.describe_consumer_groups([self._group])
        members = [
            member for answer in answers for group in answer.to_object()["groups"] for member in group["members"]
        ]
        return sorted(
            f"{member['client_id']} at {str(member['client_host']).removeprefix('/')}"
            for member in members
            if member["client_id"] != self._client_id
        )
