"""The supervisor of mappings over queues: beside streams, pause, reset, the lock against accidents, the archive."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest

from bridge.core.errors import SourceError
from bridge.core.mapping import EventSourceMapping, MappingState, StartingPosition
from bridge.core.ports import Selection
from bridge.testing.clock import settle
from bridge.testing.queue import ScriptedQueue
from tests.unit.pipeline.test_mappings import World

JOBS = EventSourceMapping(name="jobs", source="sqs://aws/jobs", function="f", batch_size=10)


class QueueWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.queue = self.streams.queues[JOBS.source] = ScriptedQueue(self.clock)

    @property
    def bodies(self):
        return [[record["body"] for record in call.event["Records"]] for call in self.slots.calls]


@pytest.fixture
async def world() -> AsyncIterator[QueueWorld]:
    made = QueueWorld()
    yield made
    drain = asyncio.create_task(made.mappings.drain(deadline_s=0))
    await settle(30)
    await made.clock.advance(0.01)
    await drain
    await made.tasks.close()


async def test_a_queue_is_read_beside_a_stream(world):
    await world.start(JOBS, world.orders)
    world.queue.put("a")
    await world.advance(1)

    assert [["a"]] == world.bodies
    status = world.state("jobs")
    assert (MappingState.ENABLED, "", ()) == (status.state, status.result, status.shards)
    assert status.queue.facts.visible == 0
    assert world.state("orders").queue is None


async def test_a_pause_lets_run_what_runs_and_hands_back_the_rest(world):
    world.slots.slots = 1
    world.slots.duration_s = 5.0
    await world.start(replace(JOBS, batch_size=1))
    world.queue.put("a", "b")
    await world.advance(1)
    pause = asyncio.create_task(world.mappings.pause("jobs"))
    await world.advance(10)

    assert (await pause).state in (MappingState.DISABLING, MappingState.DISABLED)
    assert (MappingState.DISABLED, ["m1"], 1) == (
        world.state("jobs").state, world.queue.deleted, world.queue.facts().visible,
    )  # fmt: skip
    await world.mappings.resume("jobs")
    await world.advance(10)
    assert world.queue.stored == {}


async def test_a_reset_is_refused_for_a_queue_has_no_marks(world):
    await world.start(JOBS)

    with pytest.raises(SourceError, match="no marks to move.*bridge replay --mapping jobs"):
        await world.mappings.reset("jobs", StartingPosition.TRIM_HORIZON)


async def test_messages_are_archived_as_events_before_they_are_deleted(world):
    await world.start(replace(JOBS, archive=True))
    world.queue.put("a", "b")
    await world.advance(1)
    stored = [record async for chunk in world.journal.scan(Selection()) for record in chunk]

    assert [("mapping:jobs", "f", "")] * 2 == [(record.source, record.function, record.lane) for record in stored]
    assert ["a", "b"] == [r["body"] for record in stored for r in orjson.loads(record.payload)["Records"]]
    assert world.queue.stored == {}


async def test_a_queue_that_keeps_its_messages_is_not_copied(world):
    world.queue.has_archive = True
    await world.start(replace(JOBS, archive=True))
    world.queue.put("a")
    await world.advance(1)

    assert [] == [record async for chunk in world.journal.scan(Selection()) for record in chunk]
    assert world.queue.stored == {}


async def test_filters_delete_what_they_do_not_keep(world):
    await world.start(replace(JOBS, filters=('{"body":{"kind":["paid"]}}',)))
    world.queue.put({"kind": "paid"}, {"kind": "open"}, "hello")
    await world.advance(1)

    assert [[{"kind": "paid"}]] == world.bodies
    assert world.queue.stored == {}


async def test_a_remote_queue_is_not_emptied_unasked(world):
    world.queue.is_remote = True
    await world.start(JOBS, asks_before_remote=True)
    world.queue.put("a")
    await world.advance(1)

    assert world.bodies == []
    assert world.state("jobs").state is MappingState.DISABLED
    assert "--allow-remote" in world.state("jobs").reason


async def test_a_remote_queue_is_read_where_that_is_allowed(world):
    world.queue.is_remote = True
    await world.start(replace(JOBS, allow_remote=True), asks_before_remote=True)
    world.queue.put("a")
    await world.advance(1)

    assert [["a"]] == world.bodies
