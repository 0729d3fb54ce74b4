"""A lane's bookkeeping: nothing twice, nothing forgotten, and a mark that never passes an unfinished event."""

import asyncio
import random
from dataclasses import replace

import pytest

from bridge.core.errors import LaneFull, StoreFull
from bridge.core.function import Function, FunctionVersion, function_arn
from bridge.core.invocation import InvocationType
from bridge.core.record import Record
from bridge.destinations.spill import Spill
from bridge.invokers.service import FunctionService
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.dispatcher import Dispatcher
from bridge.pipeline.lanes import Lane
from bridge.testing.clock import ManualClock, settle
from bridge.testing.journal import MemoryJournal, MemoryOutcomes
from bridge.testing.runtime import ScriptedRuntime
from bridge.testing.store import MemoryDeadLetters, MemoryMarks, MemoryParked


def record(number: int, *, function: str = "f") -> Record:
    return Record(
        id=f"00000000-0000-4000-8000-{number:012x}",
        source="r",
        function=function,
        invocation_type=InvocationType.EVENT,
        received_at=float(number),
        payload=b"{}",
    )


async def stored(journal: MemoryJournal, count: int) -> list[Record]:
    return [await journal.append(record(len(journal._records))) for _ in range(count)]


async def test_what_the_index_knows_before_the_lane_is_told_is_handed_out_once() -> None:
    """The writer's thread extends the index; the loop hears of the commit a moment later."""
    journal = MemoryJournal()
    lane = Lane("f", buffer_events_max=2)
    for each in await stored(journal, 4):
        lane.add(each)
    late = await stored(journal, 5)  # in the index, not told yet

    taken = [lane.take().position for _ in range(2)]
    lane.refill(journal)
    for each in late:
        lane.add(each)
    while lane.fresh:
        lane.refill(journal)
        taken.append(lane.take().position)

    assert taken == list(range(9))
    assert lane.waiting == 9
    for position in taken:
        lane.passed(position)
    assert (lane.waiting, lane.waiting_bytes) == (0, 0)


async def test_the_mark_stays_below_every_event_that_was_put_back() -> None:
    journal = MemoryJournal()
    lane = Lane("f")
    for each in await stored(journal, 4):
        lane.add(each)
    first, second, third = lane.take(), lane.take(), lane.take()
    lane.put_back(first)
    lane.put_back(third)
    lane.put_back(second)

    assert lane.mark(journal.end) == first.position
    assert [lane.take().position for _ in range(4)] == [0, 1, 2, 3]


def test_room_is_reserved_before_anything_is_stored() -> None:
    lane = Lane("f", events_max=2, bytes_max=10)
    lane.reserve(4)
    lane.reserve(4)
    with pytest.raises(LaneFull, match="which is its limit"):
        lane.reserve(1)
    lane.unreserve(4)
    with pytest.raises(LaneFull):
        lane.reserve(7)
    lane.reserve(6)


@pytest.mark.parametrize("seed", range(30))
async def test_any_order_of_things_hands_each_event_out_once_and_marks_none_too_early(seed: int) -> None:
    chance = random.Random(seed)
    journal = MemoryJournal()
    lane = Lane("f", buffer_events_max=3)
    untold: list[Record] = []
    taken: dict[int, Record] = {}
    passed: list[int] = []
    told = 0

    def check() -> None:
        unfinished = set(range(told)) - set(passed)
        assert lane.mark(told) <= min(unfinished, default=told)
        assert set(lane.unfinished(0, told, journal)) >= unfinished

    for step in range(400):
        action = chance.choice("stttppb") if step < 300 else chance.choice("ttpp")
        if action == "s":
            untold += await stored(journal, chance.randrange(1, 4))
        elif action == "t" and untold and chance.random() < 0.5:
            for each in untold:
                lane.add(each)
            told, untold = journal.end, []
        elif action == "t":
            lane.refill(journal)
            if lane.peek() is not None:
                each = lane.take()
                assert each.position not in taken and each.position not in passed
                taken[each.position] = each
        elif taken:
            position = chance.choice(list(taken))
            if action == "p":
                lane.passed(position)
                passed.append(position)
            else:
                lane.put_back(taken[position])
            del taken[position]
        check()
    for each in untold:
        lane.add(each)
    told = journal.end
    while lane.fresh:
        lane.refill(journal)
        if lane.peek() is not None:
            position = lane.take().position
            lane.passed(position)
            passed.append(position)
    for position in taken:
        lane.passed(position)
    assert sorted([*passed, *taken]) == list(range(journal.end))
    assert lane.mark(journal.end) == journal.end


class Catalog:
    def get(self, name: str) -> Function:
        version = FunctionVersion(name=name, arn=function_arn(name), code="/x", revision="1", handler="a.b")
        return Function(name=name, latest=version)


class FullMarks(MemoryMarks):
    is_full = False

    async def commit(self, marks: dict[str, int]) -> None:
        if self.is_full:
            raise StoreFull("no space")
        await super().commit(marks)


class Stale(MemoryParked):
    """Answers `next_due` with what was true before the caller's turn came, as a reader beside a writer may."""

    def __init__(self) -> None:
        super().__init__()
        self.hold: asyncio.Event | None = None

    async def next_due(self, *, after: float = float("-inf")) -> dict[str, float]:
        found = await super().next_due(after=after)
        if self.hold is not None:
            await self.hold.wait()
        return found


async def test_a_retry_parked_while_the_lane_looks_for_due_ones_is_not_forgotten() -> None:
    clock, parked = ManualClock(), Stale()
    outcomes, letters, journal = MemoryOutcomes(), MemoryDeadLetters(parked), MemoryJournal()
    runtime = ScriptedRuntime(clock)
    runtime.handlers["f"] = lambda _: 1 / 0
    delivery = AsyncDelivery(
        outcomes=outcomes, parked=parked, dead_letters=letters, destination=Spill(letters), clock=clock
    )
    dispatcher = Dispatcher(
        service=FunctionService(catalog=Catalog(), runtime=runtime, clock=clock),
        delivery=delivery,
        journal=journal,
        outcomes=outcomes,
        parked=parked,
        dead_letters=letters,
        marks=MemoryMarks(),
        clock=clock,
    )
    await dispatcher.open(["f"])
    dispatcher.lane("f")
    parked.hold = asyncio.Event()
    dispatcher.due("f")  # something is said to be due: the lane looks, and reads that nothing follows
    looks = asyncio.create_task(dispatcher.run())
    await settle()
    dispatcher.lane("f").reserve(2)
    await journal.append(replace(record(0), received_at=clock.time()))
    await settle()  # it runs, fails and is parked for a minute meanwhile
    parked.hold.set()
    await settle()
    await clock.advance(61)

    assert len(runtime.invocations) == 2
    looks.cancel()
    await asyncio.gather(looks, return_exceptions=True)
    await dispatcher.drain(deadline_s=0)


async def test_a_full_disk_hinders_the_lanes_for_as_long_as_it_lasts_and_ends_no_task() -> None:
    """A supervised task that fails five times is given up; a disk may be full for longer than that."""
    clock, parked = ManualClock(), MemoryParked()
    outcomes, letters, marks = MemoryOutcomes(), MemoryDeadLetters(parked), FullMarks()
    dispatcher = Dispatcher(
        service=FunctionService(catalog=Catalog(), runtime=ScriptedRuntime(clock), clock=clock),
        delivery=AsyncDelivery(
            outcomes=outcomes, parked=parked, dead_letters=letters, destination=Spill(letters), clock=clock
        ),
        journal=MemoryJournal(),
        outcomes=outcomes,
        parked=parked,
        dead_letters=letters,
        marks=marks,
        clock=clock,
    )
    await dispatcher.open(["f"])
    dispatcher.lane("g")  # a lane whose mark is to be saved
    marks.is_full = True
    looks = asyncio.create_task(dispatcher.run())
    await clock.advance(3600)
    assert not looks.done()
    await dispatcher.close()  # nor does it keep the daemon from ending
    marks.is_full = False
    await clock.advance(2)

    assert "g" in await marks.load()
    looks.cancel()
    await asyncio.gather(looks, return_exceptions=True)
