"""A member of a group without a broker: what a client that stopped, a late rebalance and an old epoch bring about."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata

from bridge.core.connection import KafkaConnection
from bridge.core.errors import SourceError
from bridge.core.stream import Mark
from bridge.sources.pull import kafka_group
from bridge.sources.pull.kafka_group import READ_GAP_S, WATCH_S, GroupSettings, KafkaGroupSource
from bridge.sources.pull.kafka_library import STUCK_MAX_S
from bridge.testing.clock import ManualClock

FIRST = TopicPartition("orders", 0)
SECOND = TopicPartition("orders", 1)


class Cluster:
    """A consumer of aiokafka's shape whose brokers, group and fetches the test owns."""

    def __init__(self):
        self.commits = {}
        self.positions = {}
        self.ends = {FIRST: 100, SECOND: 100}
        self.answered = 0
        self.listener = None
        self.commit_error = None
        self.end_error = None
        self.fetches = asyncio.Queue()
        self.asked = []
        self.is_shut = False
        self.generation = 1
        self.denied = ""

    async def assign(self, *partitions):
        await self.listener.on_partitions_assigned(set(partitions))

    async def revoke(self):
        await self.listener.on_partitions_revoked(set(self.positions))

    # --- what the source calls ---
    def subscribe(self, topics, listener):
        assert topics == ["orders"]
        self.listener = listener

    async def committed_offsets(self, partitions):
        return {one: self.commits[one] for one in partitions if one in self.commits}

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions):
        if self.end_error is not None:
            raise self.end_error
        return {one: self.ends[one] for one in partitions}

    def seek(self, partition, offset):
        self.positions[partition] = offset

    async def commit(self, offsets):
        if self.commit_error is not None:
            raise self.commit_error
        self.commits |= offsets

    async def getmany(self, *partitions, timeout_ms, max_records):
        self.asked.append(partitions)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                fetched = await self.fetches.get()
        except TimeoutError:
            return {}
        for partition, records in fetched.items():
            self.positions[partition] = records[-1].offset + 1
        return fetched

    def next_offset(self, partition):
        return self.positions.get(partition)

    def end_offset(self, partition):
        return None

    def fetched_at_ms(self, partition):
        return self.answered

    def is_member(self):
        return self.generation > 0

    def check_egress(self):
        if self.denied:
            raise SourceError(self.denied)

    def check(self):
        return None

    async def shut(self):
        self.is_shut = True


class Events:
    def __init__(self):
        self.log = []
        self.marks = {}
        self.delay_s = 0.0

    async def assigned(self, marks):
        self.log.append(("assigned", set(marks)))
        self.marks = dict(marks)

    async def revoking(self, shards, *, deadline_s):
        self.log.append(("revoking", set(shards)))
        await asyncio.sleep(self.delay_s)

    def lost(self, shards):
        self.log.append(("lost", set(shards)))


@pytest.fixture
async def member(monkeypatch):
    cluster, clock, events = Cluster(), ManualClock(), Events()

    async def start(consumer, connection, topic):
        return [0, 1]

    monkeypatch.setattr(kafka_group, "make_consumer", lambda connection, **arguments: cluster)
    monkeypatch.setattr(kafka_group, "start_consumer", start)
    source = KafkaGroupSource(
        KafkaConnection(name="main", bootstrap_servers=("x:1",)),
        GroupSettings(topic="orders", group="g"),
        clock=clock,
        epochs=iter(range(1, 100)),
        partitions_seen=set(),
    )
    await source.open(events)
    yield SimpleNamespace(cluster=cluster, clock=clock, events=events, source=source)
    await source.close()


def records(*offsets, partition=0):
    return [ConsumerRecord("orders", partition, at, 0, 0, None, b"v", None, -1, -1, ()) for at in offsets]


async def read(member, *, wait_s=0.01, paused=frozenset()):
    return await member.source.read(records_max=100, bytes_max=1 << 20, wait_s=wait_s, paused=paused)


async def watch(member, seconds, *, paused=frozenset(), step=1.0):
    """Read once a second for so long."""
    for _ in range(round(seconds / step)):
        await member.clock.advance(step)
        await read(member, wait_s=0, paused=paused)


# --- the watch ------------------------------------------------------------------------------------------------------
async def test_a_client_that_fetches_nothing_while_there_is_more_is_given_up(member):
    await member.cluster.assign(FIRST)

    with pytest.raises(SourceError, match="nothing was fetched of orders-0 for 60 s"):
        await watch(member, STUCK_MAX_S + 3 * WATCH_S)

    with pytest.raises(SourceError):
        await read(member)


async def test_a_client_whose_fetches_are_answered_is_not(member):
    await member.cluster.assign(FIRST)

    for _ in range(20):
        member.cluster.answered += 1  # with nothing: a hole at the end of a compacted log
        await watch(member, WATCH_S)


@pytest.mark.parametrize("why", ["nothing more", "paused", "no broker"])
async def test_nothing_is_held_against_a_client_that_has_nothing_to_fetch(member, why):
    await member.cluster.assign(FIRST)
    if why == "nothing more":
        member.cluster.ends[FIRST] = 0
    if why == "no broker":
        member.cluster.end_error = KafkaError("away")

    await watch(member, 5 * STUCK_MAX_S, paused={"orders-0"} if why == "paused" else frozenset())


async def test_brokers_that_do_not_answer_are_its_trouble_until_they_do(member):
    await member.cluster.assign(FIRST)
    member.cluster.end_error = KafkaError("away")
    await watch(member, 2 * WATCH_S)
    assert "no answer from the brokers" in member.source.trouble
    member.cluster.end_error = None
    await watch(member, 2 * WATCH_S)

    assert member.source.trouble == ""


async def test_a_group_that_is_being_divided_is_its_trouble(member):
    await watch(member, 2 * WATCH_S)

    assert "waits for the group" in member.source.trouble


async def test_a_machine_that_slept_starts_the_watch_anew(member):
    await member.cluster.assign(FIRST)

    for _ in range(10):
        await watch(member, STUCK_MAX_S / 2)
        await member.clock.advance(READ_GAP_S + 2)
        await read(member, wait_s=0)


async def test_a_group_that_does_not_come_to_rest_is_given_up(member):
    with pytest.raises(SourceError, match="group g does not come to rest"):
        await watch(member, 200)


async def test_a_client_that_may_not_connect_to_a_broker_is_given_up(member):
    await member.cluster.assign(FIRST)
    member.cluster.denied = "169.254.169.254:80 is never connected to"
    with pytest.raises(SourceError, match=r"^169\.254"):
        await read(member, wait_s=0)


# --- rebalances -----------------------------------------------------------------------------------------------------
async def test_records_that_a_rebalance_made_a_fetch_return_late_are_fetched_again(member):
    await member.cluster.assign(FIRST)
    reading = asyncio.create_task(read(member, wait_s=1.0))
    await asyncio.sleep(0)
    await member.cluster.revoke()
    await member.cluster.assign(FIRST)
    member.cluster.fetches.put_nowait({FIRST: records(0, 1, 2)})
    assert not (await reading).chunks
    assert member.cluster.next_offset(FIRST) == 3

    await read(member)

    assert member.cluster.next_offset(FIRST) == 0
    member.cluster.fetches.put_nowait({FIRST: records(0, 1, 2)})
    assert [chunk.positions for chunk in (await read(member)).chunks] == [[0, 1, 2]]


async def test_what_is_left_of_a_fetch_goes_with_the_partition(member):
    await member.cluster.assign(FIRST)
    member.cluster.fetches.put_nowait({FIRST: records(0, 1, 2)})
    poll = await member.source.read(records_max=2, bytes_max=1, wait_s=0.01, paused=frozenset())
    assert [chunk.positions for chunk in poll.chunks] == [[0]]

    await member.cluster.revoke()
    await member.cluster.assign(FIRST)

    assert not (await read(member)).chunks
    assert member.cluster.next_offset(FIRST) == 0


async def test_paused_partitions_are_never_asked_for_not_even_when_all_are(member):
    await member.cluster.assign(FIRST, SECOND)

    await read(member, paused={"orders-1"})
    await read(member, paused={"orders-0", "orders-1"})

    assert member.cluster.asked[0] == (FIRST,)
    assert len(member.cluster.asked[1]) == 1
    assert not {FIRST, SECOND} & set(member.cluster.asked[1])


async def test_who_is_no_member_any_more_has_lost_its_partitions(member):
    await member.cluster.assign(FIRST)
    member.cluster.generation = -1

    await member.cluster.revoke()

    assert member.events.log[-1] == ("lost", {"orders-0"})


async def test_a_takeover_that_fails_is_said_by_the_next_read(member):
    async def fail(partitions):
        raise KafkaError("the coordinator is confused")

    member.cluster.committed_offsets = fail
    await member.cluster.assign(FIRST)

    with pytest.raises(SourceError, match="kafka main: cannot take over partitions: KafkaError: the coordinator"):
        await read(member)
    assert member.events.log == []


# --- commits --------------------------------------------------------------------------------------------------------
async def test_a_mark_is_the_offset_before_the_committed_one_and_its_note_the_metadata(member):
    await member.cluster.assign(FIRST)
    epoch = member.events.marks["orders-0"].epoch

    await member.source.commit({"orders-0": Mark(position=41, epoch=epoch, note=b'{"a":1}')})

    assert member.cluster.commits[FIRST] == OffsetAndMetadata(42, '{"a":1}')
    await member.cluster.revoke()
    await member.cluster.assign(FIRST)
    assert member.events.marks["orders-0"] == Mark(position=41, epoch=epoch + 1, note=b'{"a":1}')


async def test_a_commit_that_the_group_refuses_is_tried_again_with_the_next(member):
    await member.cluster.assign(FIRST)
    mark = Mark(position=41, epoch=member.events.marks["orders-0"].epoch)
    member.cluster.commit_error = CommitFailedError("late")
    member.cluster.commit_error.__cause__ = RebalanceInProgressError()

    await member.source.commit({"orders-0": mark})
    member.cluster.commit_error = None
    await member.source.commit({"orders-0": mark})

    assert member.cluster.commits[FIRST].offset == 42
    assert [what for what, _ in member.events.log] == ["assigned"]


async def test_a_commit_of_nobody_is_a_loss(member):
    await member.cluster.assign(FIRST)
    member.cluster.commit_error = CommitFailedError("late")
    member.cluster.commit_error.__cause__ = UnknownMemberIdError()

    await member.source.commit({"orders-0": Mark(position=41, epoch=member.events.marks["orders-0"].epoch)})

    assert member.events.log[-1] == ("lost", {"orders-0"})


async def test_another_error_of_a_commit_is_one_of_the_source(member):
    await member.cluster.assign(FIRST)
    member.cluster.commit_error = KafkaError("no\nroom")

    with pytest.raises(SourceError, match="kafka main: cannot commit: KafkaError: no room"):
        await member.source.commit({"orders-0": Mark(position=41, epoch=member.events.marks["orders-0"].epoch)})


async def test_how_many_are_behind_is_known_of_a_partition_that_is_not_fetched(member):
    await member.cluster.assign(FIRST)
    assert member.source.behind({"orders-0": -1, "orders-1": -1}) == {"orders-0": None, "orders-1": None}

    await watch(member, WATCH_S + 1, paused={"orders-0"})

    assert member.source.behind({"orders-0": 9, "orders-1": -1}) == {"orders-0": 90, "orders-1": None}


async def test_closing_hands_back_and_leaves(member):
    await member.cluster.assign(FIRST)

    await member.source.close()

    assert member.events.log[-1] == ("revoking", {"orders-0"})
    assert member.cluster.is_shut
