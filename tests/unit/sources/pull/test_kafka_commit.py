"""Commits of aiokafka's consumer as ours: sent for the membership in which they were asked for, or not at all."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    NotCoordinatorForGroupError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
)
from aiokafka.structs import OffsetAndMetadata

from bridge.sources.pull import kafka_library
from bridge.sources.pull.kafka_library import Consumer

ORDERS = TopicPartition("orders", 0)
OFFSETS = {ORDERS: OffsetAndMetadata(7, "")}


class Coordinator:
    """aiokafka's group coordinator as far as a commit meets it."""

    def __init__(self):
        self.member_id, self.generation = "one", 1
        self.known = asyncio.Event()
        self.known.set()
        self._commit_lock = asyncio.Lock()
        self.errors = []
        self.sent = []

    async def ensure_coordinator_known(self):
        await self.known.wait()

    async def _do_commit_offsets(self, assignment, offsets):
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append((self.generation, offsets))


@pytest.fixture
def coordinator():
    return Coordinator()


@pytest.fixture
def consumer(coordinator, monkeypatch):
    monkeypatch.setattr(kafka_library, "RETRY_BACKOFF_MS", 0)
    one = Consumer.__new__(Consumer)
    one._closed = True  # nothing is connected: nothing to close
    one._coordinator = coordinator
    one._subscription = SimpleNamespace(
        subscription=SimpleNamespace(assignment=SimpleNamespace(tps=frozenset({ORDERS}))),
        partitions_auto_assigned=lambda: True,
    )
    return one


async def test_a_commit_is_sent_once(consumer, coordinator):
    await consumer.commit(OFFSETS)

    assert coordinator.sent == [(1, OFFSETS)]


async def test_what_the_brokers_could_not_take_yet_is_sent_again(consumer, coordinator):
    coordinator.errors = [NotCoordinatorForGroupError(), NotCoordinatorForGroupError()]

    await consumer.commit(OFFSETS)

    assert coordinator.sent == [(1, OFFSETS)]


@pytest.mark.parametrize("membership", [("one", 2), ("another", 1), ("", -1)])
async def test_a_commit_that_waited_is_not_sent_under_a_later_membership(consumer, coordinator, membership):
    """Found by a daemon that stood still: woken, it moved the group's marks back under its new generation."""
    coordinator.known.clear()
    commit = asyncio.create_task(consumer.commit(OFFSETS))
    await asyncio.sleep(0)
    coordinator.member_id, coordinator.generation = membership
    coordinator.known.set()

    with pytest.raises(CommitFailedError):
        await commit
    assert coordinator.sent == []


async def test_a_member_that_was_expelled_commits_nothing(consumer, coordinator):
    coordinator.member_id, coordinator.generation = "", -1

    with pytest.raises(CommitFailedError) as caught:
        await consumer.commit(OFFSETS)
    assert isinstance(caught.value.__cause__, UnknownMemberIdError)
    assert coordinator.sent == []


async def test_without_a_group_s_assignment_there_is_no_generation(consumer, coordinator):
    coordinator.member_id, coordinator.generation = "", -1
    consumer._subscription.partitions_auto_assigned = lambda: False

    await consumer.commit(OFFSETS)

    assert coordinator.sent == [(-1, OFFSETS)]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (IllegalGenerationError(), CommitFailedError),
        (TopicAuthorizationFailedError(), TopicAuthorizationFailedError),
    ],
)
async def test_what_the_brokers_refuse_is_said(consumer, coordinator, error, raised):
    coordinator.errors = [error]

    with pytest.raises(raised):
        await consumer.commit(OFFSETS)
    assert coordinator.sent == []


async def test_a_partition_that_is_not_assigned_is_not_committed(consumer, coordinator):
    with pytest.raises(IllegalStateError):
        await consumer.commit({TopicPartition("orders", 1): OffsetAndMetadata(7, "")})
    assert coordinator.sent == []
