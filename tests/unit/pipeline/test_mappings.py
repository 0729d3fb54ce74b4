"""The supervisor of mappings: pause, resume, reset, reload, the lock against accidents, archive."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest

from bridge.core.errors import ConfigError, MappingNotFound, SourceError
from bridge.core.mapping import EventSourceMapping, MappingState, StartingPosition
from bridge.core.ports import Selection
from bridge.pipeline import standings
from bridge.pipeline.mappings import MappingSupervisor
from bridge.testing.clock import ManualClock, settle
from bridge.testing.journal import MemoryJournal
from bridge.testing.source import ScriptedStream
from bridge.testing.streams import MemoryMappingStates
from bridge.util.aio import Supervisor
from tests.unit.pipeline.streams.world import Boom, Function, Letters

MADE = "0d2f8f1e-0a63-4c4e-9b6e-0f4a1b2c3d4e"
"""What Lambda's API names a mapping."""


class Slots(Function):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.waits = []
        self.told = []
        self.freed = lambda: [each() for each in self.told]

    def on_free(self, callback) -> None:
        self.told.append(callback)

    def live_work(self, waits) -> None:
        self.waits.append(waits)


class Streams:
    def __init__(self, clock: ManualClock) -> None:
        self.streams = {}
        self.queues = {}
        self.clock = clock
        self.letters = Letters()
        self.prepared = []
        self.forgotten = []
        self.discarded = []
        self.mistake = ""
        self.refused = ""
        self.connection = "main"

    def event_source(self, mapping):
        if self.mistake:
            raise ConfigError(self.mistake)
        return self.streams.setdefault(mapping.source, ScriptedStream(self.clock))

    def queue(self, mapping):
        return self.queues.get(mapping.source)

    async def prepare(self, mapping, source) -> None:
        self.prepared.append(mapping.name)

    def forget(self, mapping) -> None:
        self.forgotten.append(mapping.name)

    async def discard(self, mapping) -> None:
        self.discarded.append(mapping.name)

    def refusal(self, mapping):
        return self.refused

    def reached_by(self, mapping):
        return self.connection

    def destination(self, mapping):
        return self.letters


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.slots = Slots(self.clock)
        self.streams = Streams(self.clock)
        self.journal = MemoryJournal()
        self.states = MemoryMappingStates()
        self.tasks = Supervisor(clock=self.clock, delays_s=(1.0,), failures_max=3, window_s=600)
        self.orders = EventSourceMapping(name="orders", source="x://orders", function="f")
        self.mappings = self.make()

    def make(self, **options) -> MappingSupervisor:
        return MappingSupervisor(
            slots=self.slots,
            streams=self.streams,
            spill=Letters(),
            journal=self.journal,
            states=self.states,
            tasks=self.tasks,
            clock=self.clock,
            **options,
        )

    async def start(self, *mappings: EventSourceMapping, **options) -> None:
        if options:
            self.mappings = self.make(**options)
        await self.mappings.open(mappings or [self.orders])
        self.mappings.start()
        await self.advance(0.01)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await settle(30)

    def stream(self, name: str = "x://orders") -> ScriptedStream:
        return self.streams.streams[name]

    def state(self, name: str = "orders"):
        return next(status for status in self.mappings.status() if status.mapping.name == name)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    drain = asyncio.create_task(made.mappings.drain(deadline_s=0))
    await settle(30)
    await made.clock.advance(0.01)
    await drain
    await made.tasks.close()


async def test_a_mapping_reads_once_it_is_started(world):
    await world.start()
    world.stream().put(1)
    await world.advance(0.5)

    assert world.slots.batches == [[1]]
    assert (MappingState.ENABLED, "OK") == (world.state().state, world.state().result)
    assert world.state().shards[0].position == 0


async def test_a_role_that_may_not_read_keeps_it_from_polling_until_there_is_another(world):
    world.streams.refused = "Cannot access stream x://orders."
    await world.start()
    world.stream().put(1)
    await world.advance(1)
    assert (world.state().state, world.state().reason) == (MappingState.ENABLING, "Cannot access stream x://orders.")
    assert world.stream().opened == 0
    assert not world.mappings.is_busy("orders")

    world.streams.refused, world.streams.connection = "", "as another role"
    await world.mappings.configure([world.orders])
    await world.advance(0.5)
    assert world.state().state is MappingState.ENABLED
    assert world.slots.batches == [[1]]

    world.streams.refused, world.streams.connection = "Cannot access stream x://orders.", "as the first again"
    await world.mappings.configure([world.orders])
    await world.advance(0.5)
    world.stream().put(2)
    await world.advance(1)
    assert world.state().state is MappingState.ENABLING
    assert world.slots.batches == [[1]]


async def test_a_disabled_mapping_reads_nothing_yet_its_records_are_kept(world):
    await world.start(replace(world.orders, enabled=False))
    await world.advance(1)

    assert world.state().state is MappingState.DISABLED
    assert "orders" in world.streams.prepared
    assert world.stream().opened == 0


async def test_pause_holds_over_a_restart_and_resume_goes_on_from_the_mark(world):
    await world.start()
    world.stream().put(1)
    await world.advance(0.5)
    status = await world.mappings.pause("orders")
    assert status.state is MappingState.DISABLED
    world.stream().put(2)
    await world.mappings.drain(deadline_s=0)
    await world.start(asks_before_remote=False)
    await world.advance(1)
    assert world.state().state is MappingState.DISABLED
    assert world.slots.batches == [[1]]
    await world.mappings.resume("orders")
    await world.advance(0.5)

    assert world.slots.batches == [[1], [2]]


async def test_a_pause_lets_what_runs_end(world):
    world.slots.duration_s = 1
    await world.start()
    world.stream().put(1)
    await world.advance(0.1)
    pause = asyncio.create_task(world.mappings.pause("orders"))
    await settle(30)
    assert world.state().state is MappingState.DISABLING
    await world.advance(1)
    await pause

    assert world.stream().mark() == 0
    assert world.state().state is MappingState.DISABLED


@pytest.mark.parametrize("change", ["pause", "delete"])
async def test_what_runs_of_a_mapping_on_its_way_out_ends_before_the_daemon_does(world, change):
    world.slots.duration_s = 10
    await world.start()
    world.stream().put(1)
    await world.advance(0.1)
    if change == "pause":
        pause = asyncio.create_task(world.mappings.pause("orders"))
        await world.advance(3)
        await pause
    else:
        await world.mappings.configure([])
        await world.advance(3)
    assert 1 == world.state().running
    drain = asyncio.create_task(world.mappings.drain(deadline_s=20))
    await world.advance(8)
    await drain

    assert world.stream().mark() == 0
    assert world.slots.running == 0


async def test_where_a_paused_mapping_stands_is_looked_at_now_and_then(world):
    world.streams.streams["x://orders"] = stream = ScriptedStream(world.clock)
    stream.is_remote = True
    await world.start()
    world.stream().put(1, 2)
    await world.advance(1.0)
    await world.mappings.pause("orders")
    world.stream().put(3, 4, 5)
    assert world.state().shards == ()

    await world.mappings.look()
    (shard,) = world.state().shards
    assert (shard.position, shard.behind) == (1, 3)

    world.stream().put(6)
    await world.advance(4.0)
    await world.mappings.look()
    assert [shard.behind for shard in world.state().shards] == [3]
    await world.advance(1.5)
    assert world.state().shards == ()
    await world.mappings.look()
    assert [shard.behind for shard in world.state().shards] == [4]
    stream.is_remote = False
    world.stream().put(7)
    await world.mappings.look()
    assert [shard.behind for shard in world.state().shards] == [5]

    await world.mappings.reset("orders", StartingPosition.TRIM_HORIZON)
    await world.mappings.look()
    assert [shard.behind for shard in world.state().shards] == [7]
    resumed = await world.mappings.resume("orders")
    assert resumed.shards == ()


async def test_looking_does_not_wait_for_a_source_that_is_slow_or_gone(world, monkeypatch):
    monkeypatch.setattr(standings, "LOOK_MAX_S", 0.02)
    await world.start(replace(world.orders, enabled=False), EventSourceMapping(name="b", source="x://b", function="f"))
    asked, may_answer = [], asyncio.Event()
    stream = world.stream()
    stream.is_remote = True
    answer = stream.standing

    async def slow():
        asked.append("slow")
        await may_answer.wait()
        return await answer()

    async def gone():
        asked.append("gone")
        raise SourceError("no broker")

    stream.standing = slow
    await world.mappings.look()
    assert (asked, world.state().shards) == (["slow"], ())
    may_answer.set()
    await world.advance(0)
    assert [shard.behind for shard in world.state().shards] == [0]

    stream.standing = gone
    await world.advance(6.0)
    await world.mappings.look()
    await world.mappings.look()
    assert (asked, world.state().shards) == (["slow", "gone"], ())


async def test_a_reset_reads_again_from_the_beginning(world):
    await world.start()
    world.stream().put(1, 2)
    await world.advance(0.5)
    marks = await world.mappings.reset("orders", StartingPosition.TRIM_HORIZON)
    await world.advance(0.5)

    assert marks["s-0"].position == -1
    assert world.slots.batches == [[1, 2], [1, 2]]


async def test_a_reload_starts_stops_and_replaces(world):
    await world.start()
    world.stream().put(1)
    await world.advance(0.5)
    changed = replace(world.orders, batch_size=1)
    clicks = EventSourceMapping(name="clicks", source="x://clicks", function="f")
    await world.mappings.configure([changed, clicks])
    await world.advance(0.5)
    world.stream().put(2, 3)
    world.stream("x://clicks").put("click")
    await world.advance(0.5)
    assert sorted(map(str, world.slots.batches)) == sorted(["[1]", "[2]", "[3]", "['click']"])
    await world.mappings.configure([clicks])
    await world.advance(0.5)

    assert [status.mapping.name for status in world.mappings.status()] == ["clicks"]
    assert world.streams.forgotten == ["orders"]


async def test_what_runs_ends_under_the_old_settings_before_the_new_ones_count(world):
    world.slots.duration_s = 2
    await world.start()
    world.stream().put(1)
    await world.advance(0.1)
    await world.mappings.configure([replace(world.orders, batch_size=1)])
    await world.advance(0.5)
    assert world.state().state is MappingState.UPDATING
    await world.advance(3)

    assert world.state().state is MappingState.ENABLED
    assert world.slots.batches == [[1]]
    assert world.state().mapping.batch_size == 1


async def test_a_change_that_is_taken_back_while_a_batch_runs_does_not_come_into_force(world):
    world.slots.duration_s = 10
    await world.start()
    world.stream().put(1)
    await world.advance(0.1)
    await world.mappings.configure([replace(world.orders, batch_size=1)])
    await world.advance(1)
    await world.mappings.configure([replace(world.orders)])
    await world.advance(1)
    assert world.state().state is MappingState.UPDATING
    await world.advance(10)

    assert (world.state().state, world.state().mapping) == (MappingState.ENABLED, world.orders)
    assert (world.slots.batches, world.stream().opened) == ([[1]], 2)


async def test_one_that_comes_back_while_its_batch_runs_goes_on_behind_it(world):
    world.slots.duration_s = 10
    await world.start()
    world.stream().put(1)
    await world.advance(0.1)
    for mappings in ([], [world.orders], [], [world.orders]):
        await world.mappings.configure(mappings)
        await world.advance(1)
    assert (world.state().state, world.stream().opened) == (MappingState.CREATING, 1)
    await world.advance(12)
    world.stream().put(2)
    await world.advance(11)

    assert world.slots.batches == [[1], [2]]
    assert (world.stream().opened, world.stream().mark()) == (2, 1)
    assert world.state().state is MappingState.ENABLED
    assert world.streams.forgotten == []


@pytest.mark.parametrize("reloads", [1, 2, 3])
async def test_the_batch_of_one_that_was_removed_and_came_back_ends_before_the_daemon_does(world, reloads):
    world.slots.duration_s = 10
    await world.start()
    world.stream().put(1)
    await world.advance(0.1)
    for number in range(reloads):
        await world.mappings.configure([world.orders] if number % 2 else [])
        await world.advance(1)
    drain = asyncio.create_task(world.mappings.drain(deadline_s=20))
    await world.advance(11)
    await drain

    assert (world.stream().mark(), world.slots.batches) == (0, [[1]])
    assert (world.slots.running, world.stream().opened) == (0, 1)


async def test_what_was_kept_for_one_that_comes_back_with_another_source_is_forgotten(world):
    await world.start()
    await world.mappings.configure([])
    await world.mappings.configure([replace(world.orders, source="x://clicks")])
    await world.advance(0.5)

    assert world.streams.forgotten == ["orders"]
    assert world.state().state is MappingState.ENABLED


async def test_what_keeps_a_source_from_reading_is_said(world):
    await world.start()
    world.stream().live.trouble = "no broker answers"

    assert (MappingState.ENABLED, "no broker answers") == (world.state().state, world.state().reason)


async def test_a_changed_connection_opens_its_streams_anew(world):
    await world.start()
    await world.mappings.configure([world.orders])
    await world.advance(0.5)
    assert world.stream().opened == 1
    world.streams.connection = "another"
    await world.mappings.configure([world.orders])
    await world.advance(0.5)

    assert world.stream().opened == 2
    assert world.state().state is MappingState.ENABLED


async def test_one_failing_mapping_does_not_slow_another(world):
    def script(call, _number):
        if "bad" in call.values:
            raise Boom("bad")

    world.slots.script = script
    clicks = EventSourceMapping(name="clicks", source="x://clicks", function="f", batch_size=1)
    await world.start(world.orders, clicks)
    world.stream().put("bad")
    await world.advance(5)
    world.stream("x://clicks").put(*range(20))
    for _ in range(20):
        await world.advance(0.05)

    assert world.stream("x://clicks").mark() == 19
    assert world.state("orders").shards[0].attempts >= 1
    assert "Boom" in world.state("orders").shards[0].reason


async def test_a_mapping_that_cannot_work_says_why_and_keeps_nobody_else_from_it(world):
    world.streams.mistake = "there is no [connections.main]"
    await world.start()

    assert (MappingState.FAILED, "there is no [connections.main]") == (world.state().state, world.state().reason)


async def test_a_group_with_members_from_elsewhere_is_not_joined_unasked(world):
    stream = ScriptedStream(world.clock)
    stream.is_remote = True

    async def others():
        return ["consumer-1 at 10.0.0.7"]

    stream.others = others
    world.streams.streams["x://orders"] = stream
    await world.start(asks_before_remote=True)
    await world.advance(1)
    assert world.state().state is MappingState.DISABLED
    assert "consumer-1 at 10.0.0.7" in world.state().reason
    assert "--allow-remote" in world.state().reason
    await world.mappings.look()
    assert (stream.opened, world.state().shards) == (0, ())
    await world.mappings.configure([replace(world.orders, allow_remote=True)])
    await world.advance(1)

    assert world.state().state is MappingState.ENABLED


async def test_a_broker_that_is_away_at_the_start_is_asked_again(world):
    stream = ScriptedStream(world.clock)
    stream.is_remote = True
    answers = [SourceError("no broker answers"), []]

    async def others():
        answer = answers.pop(0)
        if isinstance(answer, SourceError):
            raise answer
        return answer

    stream.others = others
    world.streams.streams["x://orders"] = stream
    await world.start(asks_before_remote=True)
    assert (MappingState.ENABLING, "no broker answers") == (world.state().state, world.state().reason)
    await world.advance(2.1)

    assert world.state().state is MappingState.ENABLED


async def test_archived_records_are_in_the_journal_before_they_settle(world):
    await world.start(replace(world.orders, archive=True))
    world.stream().put(1, 2)
    await world.advance(0.5)
    stored = [record async for chunk in world.journal.scan(Selection()) for record in chunk]

    assert [("mapping:orders", "f", "")] * 2 == [(record.source, record.function, record.lane) for record in stored]
    assert [[1], [2]] == [[r["value"] for r in orjson.loads(record.payload)["Records"]] for record in stored]


async def test_names_that_are_unknown_are_said(world):
    await world.start()
    with pytest.raises(MappingNotFound, match="bridge mappings list"):
        await world.mappings.pause("nope")


async def test_another_mapping_beside_it_leaves_a_mapping_alone(world):
    await world.start()
    world.slots.duration_s = 1
    world.stream().put(1)
    await world.advance(0.1)
    reader = world.stream().opened
    made = EventSourceMapping(name=MADE, source="x://b", function="f")
    await world.mappings.configure([world.orders, made])
    assert world.mappings.is_busy(MADE)
    await world.advance(0.1)
    assert not world.mappings.is_busy(MADE)
    assert (world.stream().opened, world.state().running) == (reader, 1)
    assert world.state(MADE).state is MappingState.ENABLED
    await world.advance(1)
    assert world.slots.batches == [[1]]


async def test_one_that_is_deleted_is_shown_until_its_batch_ends_and_loses_its_marks(world):
    made = EventSourceMapping(name=MADE, source="x://orders", function="f")
    world.slots.duration_s = 1
    await world.start(made)
    world.stream().put(1)
    await world.advance(0.1)
    await world.mappings.configure([])
    await world.advance(0.1)
    assert (world.state(MADE).state, world.streams.discarded) == (MappingState.DELETING, [])
    await world.advance(1)
    assert (world.mappings.status(), world.streams.discarded) == ([], [MADE])
    assert world.stream().mark() == 0


async def test_a_change_of_enabled_is_told_by_its_name(world):
    made = EventSourceMapping(name=MADE, source="x://orders", function="f")
    world.slots.duration_s = 1
    await world.start(made)
    world.stream().put(1)
    await world.advance(0.1)
    await world.mappings.configure([replace(made, enabled=False)])
    await world.advance(0.1)
    assert world.state(MADE).state is MappingState.DISABLING
    assert world.mappings.is_busy(MADE)
    await world.advance(1)
    assert world.state(MADE).state is MappingState.DISABLED
    await world.mappings.configure([made])
    await world.advance(0.1)
    assert world.state(MADE).state is MappingState.ENABLED
