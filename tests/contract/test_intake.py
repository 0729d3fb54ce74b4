"""What every intake promises to push sources: stored before it answers, once per delivery, and honest when it fails."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.core.errors import LaneFull, StoreFull
from bridge.core.function import EventInvokeConfig, Function, FunctionVersion, function_arn
from bridge.core.invocation import InvocationType
from bridge.core.mapping import StartingPosition
from bridge.core.ports import Journal, Receipt
from bridge.core.record import Record
from bridge.destinations.spill import Spill
from bridge.invokers.service import FunctionService
from bridge.journal.journal import SegmentJournal
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.dispatcher import Dispatcher
from bridge.pipeline.intake import JournalIntake
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.sharding import push_sharding
from bridge.testing.clock import ManualClock, settle
from bridge.testing.journal import MemoryJournal, MemoryOutcomes
from bridge.testing.runtime import ScriptedRuntime
from bridge.testing.store import MemoryDeadLetters, MemoryMarks, MemoryParked
from bridge.testing.streams import MemoryStreamMarks


class Gate:
    """A journal whose appends wait for the test, and may fail then."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.opened = asyncio.Event()
        self.opened.set()
        self.error: Exception | None = None
        self.appends = 0
        self.refusals: list[Callable[[Sequence[Record]], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def on_refuse(self, callback: Callable[[Sequence[Record]], None]) -> None:
        self.refusals.append(callback)
        self._journal.on_refuse(callback)

    async def append(self, record: Record) -> Record:
        """What becomes of the record is decided at the gate, also when nobody waits for it any more."""
        self.appends += 1
        return await asyncio.shield(asyncio.create_task(self._pass(record)))

    async def _pass(self, record: Record) -> Record:
        await self.opened.wait()
        if self.error is not None:
            for refused in self.refusals:
                refused([record])
            raise self.error
        return await self._journal.append(record)


class Catalog:
    def get(self, name: str) -> Function:
        version = FunctionVersion(name=name, arn=function_arn(name), code="/x", revision="1", handler="a.b")
        return Function(name=name, latest=version, event_invoke=EventInvokeConfig())


class World:
    """An intake over a journal of either kind; functions run nowhere, so that events stay in their lanes."""

    def __init__(self, journal: Journal) -> None:
        self.clock = ManualClock()
        self.journal: Any = Gate(journal)

    async def start(self, **options: int) -> None:
        parked, outcomes = MemoryParked(), MemoryOutcomes()
        letters = MemoryDeadLetters(parked)
        service = FunctionService(
            catalog=Catalog(), runtime=ScriptedRuntime(self.clock, slots=0), clock=self.clock, outcomes=outcomes
        )
        self.dispatcher = Dispatcher(
            service=service,
            delivery=AsyncDelivery(
                outcomes=outcomes, parked=parked, dead_letters=letters, destination=Spill(letters), clock=self.clock
            ),
            journal=self.journal,
            outcomes=outcomes,
            parked=parked,
            dead_letters=letters,
            marks=MemoryMarks(),
            clock=self.clock,
            **options,
        )
        await self.dispatcher.open(["f"])
        self.streams = JournalStreams(self.journal, MemoryStreamMarks(), events_max=2)
        self.intake = JournalIntake(
            journal=self.journal, dispatcher=self.dispatcher, clock=self.clock, streams=self.streams
        )
        await self.intake.open(window_s=300)

    def record(self, delivery_id: str = "", payload: bytes = b"{}") -> Record:
        return Record(
            id=str(uuid.uuid4()),
            source="r",
            function="f",
            invocation_type=InvocationType.EVENT,
            received_at=self.clock.time(),
            payload=payload,
            delivery_id=delivery_id,
        )

    async def map_source(self) -> None:
        """Let a mapping read the source that all records come by."""
        await self.streams.register(
            "m", "r", shards=("s",), sharding=push_sharding(shards=1), start=StartingPosition.TRIM_HORIZON
        )

    async def submit(self, delivery_id: str = "", payload: bytes = b"{}") -> Receipt:
        return await self.intake.submit(self.record(delivery_id, payload), deduplicate_s=300)

    @property
    def waiting(self) -> int:
        return self.dispatcher.lane("f").waiting


def _fatal(error: Exception) -> None:
    raise error


@pytest.fixture(params=["segments", "memory"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "memory":
        made = World(MemoryJournal())
        await made.start()
        yield made
        return
    journal = SegmentJournal(
        folder=tmp_path / "journal", segment_bytes=8 * 1024 * 1024, low_water_bytes=0, on_fatal=_fatal
    )
    await journal.open()
    made = World(journal)
    await made.start()
    yield made
    await journal.close()


async def test_the_answer_comes_after_the_event_is_stored(world: World) -> None:
    world.journal.opened.clear()
    task = asyncio.create_task(world.submit())
    await settle()
    assert not task.done()
    world.journal.opened.set()
    receipt = await task

    assert world.journal.find(receipt.id) is not None
    assert world.waiting == 1


async def test_a_duplicate_waits_for_the_first_one_and_shares_its_id(world: World) -> None:
    world.journal.opened.clear()
    first, second = (asyncio.create_task(world.submit("d")) for _ in range(2))
    await settle()
    assert not second.done(), "a duplicate is never answered before the first one is durable"
    world.journal.opened.set()

    assert (await second).id == (await first).id
    assert second.result().duplicate
    assert world.waiting == 1


async def test_the_duplicates_of_an_event_that_could_not_be_stored_are_tried_one_by_one(world: World) -> None:
    world.journal.opened.clear()
    world.journal.error = StoreFull("no space")
    tasks = [asyncio.create_task(world.submit("d")) for _ in range(3)]
    await settle()
    assert world.journal.appends == 1
    world.journal.opened.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, StoreFull) for result in results)

    world.journal.error = None
    assert not (await world.submit("d")).duplicate
    assert world.waiting == 1


async def test_a_caller_who_leaves_before_it_is_stored_does_not_spoil_it_for_the_next(world: World) -> None:
    world.journal.opened.clear()
    first = asyncio.create_task(world.submit("d"))
    second = asyncio.create_task(world.submit("d"))
    await settle()
    first.cancel()
    await settle()
    world.journal.opened.set()

    assert not (await second).duplicate
    assert (await world.submit("d")).duplicate


async def test_what_fails_gives_its_room_in_the_lane_back(world: World) -> None:
    await world.start(lane_events_max=2)
    world.journal.error = StoreFull("no space")
    for _ in range(5):
        with pytest.raises(StoreFull):
            await world.submit()
    world.journal.error = None
    await world.submit()
    await world.submit()
    with pytest.raises(LaneFull):
        await world.submit()


async def test_what_fails_after_its_caller_left_gives_its_room_back(world: World) -> None:
    await world.start(lane_events_max=2)
    await world.map_source()
    world.journal.opened.clear()
    for _ in range(2):
        leaving = asyncio.create_task(world.submit())
        await settle()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    with pytest.raises(LaneFull):
        await world.submit()
    world.journal.error = StoreFull("no space")
    world.journal.opened.set()
    await settle()
    world.journal.error = None

    await world.submit()
    await world.submit()
    assert world.waiting == 2
    with pytest.raises(LaneFull):
        await world.submit()


async def test_room_is_counted_for_events_under_way(world: World) -> None:
    await world.start(lane_events_max=2)
    world.journal.opened.clear()
    tasks = [asyncio.create_task(world.submit()) for _ in range(5)]
    await settle()
    assert sum(task.done() for task in tasks) == 3
    world.journal.opened.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert sum(isinstance(result, LaneFull) for result in results) == 3
    assert world.waiting == 2


async def test_after_the_window_a_delivery_is_new_and_sources_do_not_share_ids(world: World) -> None:
    first = await world.submit("d")
    await world.clock.advance(299)
    assert (await world.submit("d")).id == first.id
    await world.clock.advance(2)
    assert not (await world.submit("d")).duplicate


async def test_what_is_stored_after_its_sender_left_is_known_to_the_next(world: World) -> None:
    first = asyncio.create_task(world.submit("d"))
    while not world.journal.appends:
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # the record is with the journal now
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    while not world.waiting:
        await asyncio.sleep(0.001)

    assert (await world.submit("d")).duplicate
    assert world.waiting == 1


async def test_what_only_mappings_read_is_in_no_lane(world: World) -> None:
    await world.map_source()
    receipt = await world.intake.submit(replace(world.record(), function=""))
    found = world.journal.find(receipt.id)

    assert found is not None
    assert await world.streams.unfinished(0, world.journal.end) == [found.position]
    assert [lane.function for lane in world.dispatcher.status()] == ["f"]
    assert world.waiting == 0


async def test_a_source_with_a_function_and_a_mapping_stores_once_for_both(world: World) -> None:
    await world.map_source()
    receipt = await world.submit()
    found = world.journal.find(receipt.id)

    assert found is not None
    assert world.waiting == 1
    assert world.dispatcher.unfinished(0, world.journal.end) == [found.position]
    assert await world.streams.unfinished(0, world.journal.end) == [found.position]


async def test_a_mapping_too_far_behind_refuses_and_takes_no_room_of_the_lane(world: World) -> None:
    await world.map_source()
    for _ in range(2):
        await world.submit()
    for _ in range(3):
        with pytest.raises(LaneFull, match="mapping m has 2 events"):
            await world.submit()

    assert world.waiting == 2
    assert not (await world.intake.submit(replace(world.record(), source="other"))).duplicate


async def test_what_could_not_be_stored_gives_the_room_of_both_back(world: World) -> None:
    await world.map_source()
    world.journal.error = StoreFull("no space")
    for _ in range(5):
        with pytest.raises(StoreFull):
            await world.submit()
    world.journal.error = None
    await world.submit()
    await world.submit()
    with pytest.raises(LaneFull):
        await world.submit()
