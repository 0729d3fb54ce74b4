"""Replays of a mapping's stream, on a manual clock over a scripted stream.

What is read: times, positions, shards, key, pattern, the mapping's filters; counts; what retention took.
How: batches, the mark, order per shard, rate, concurrency, behind live traffic, retries, dead letters of its own.
Life: the end seen at the start, pause, resume, cancel, kills, a source that fails; live marks stay where they are.
"""

import asyncio
from collections import Counter
from dataclasses import replace

import orjson
import pytest

from bridge.core.errors import MappingNotFound, SourceError, StoreFull
from bridge.core.invocation import Condition
from bridge.core.mapping import EventSourceMapping, FunctionResponseType
from bridge.core.ports import Job, JobState
from bridge.destinations.spill import Spill
from bridge.pipeline import ranges
from bridge.pipeline.jobs import SpecInvalid
from bridge.pipeline.ranges import RangeCursor
from bridge.pipeline.replay import Replays, ReplaySpec, StreamParts
from bridge.pipeline.rereading import SlotsBehind
from bridge.testing.clock import settle
from bridge.testing.source import ScriptedStream
from tests.unit.pipeline.streams.world import Boom, Function
from tests.unit.pipeline.worlds import World

pytestmark = pytest.mark.usefixtures("threads_at_once")


class Behind(Function):
    """Slots that live traffic may want."""

    live_waits = False

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.told = []
        self.targets: list[str] = []
        self.freed = lambda: [each() for each in self.told]

    def on_free(self, callback) -> None:
        self.told.append(callback)

    def hindrance(self, target) -> str:
        return ""

    def room_behind(self, target) -> int:
        return 0 if self.live_waits else self.room(target)

    def begin(self, target):
        self.targets.append(target.invoked_arn.rpartition(":function:")[2])
        return super().begin(target)


class Mappings:
    def __init__(self, mapping: EventSourceMapping, stream: ScriptedStream) -> None:
        self.mapping = mapping
        self.stream = stream

    def get(self, name: str) -> EventSourceMapping:
        if name != self.mapping.name:
            raise MappingNotFound(f"there is no event source mapping {name}")
        return self.mapping

    def source(self, name: str) -> ScriptedStream:
        self.get(name)
        return self.stream


class StreamWorld(World):
    def boot(self) -> None:
        if not hasattr(self, "stream"):
            self.stream = ScriptedStream(self.clock, shards=("s-0", "s-1"))
            self.stream.is_remote = True
            orders = EventSourceMapping(name="orders", source="x://orders", function="f", batch_size=10)
            self.mappings = Mappings(orders, self.stream)
            self.slots = Behind(self.clock)
        super().boot()
        self.slots.told.clear()
        self.replays = Replays(
            journal=self.journal,
            outcomes=self.outcomes,
            dead_letters=self.dead_letters,
            jobs=self.jobs,
            invoker=self.invoker,
            clock=self.clock,
            spawn=self.spawn,
            streams=StreamParts(mappings=self.mappings, slots=self.slots, spill=Spill(self.dead_letters)),
        )

    def change(self, **fields) -> None:
        self.mappings.mapping = replace(self.mappings.mapping, **fields)

    def values(self) -> list[object]:
        return [value for call in self.slots.calls for value in call.values]

    async def until_batches(self, count: int) -> None:
        for _ in range(500):
            if len(self.slots.calls) >= count:
                return
            await self.clock.advance(0.01)
            await settle(20)
        raise AssertionError(f"{len(self.slots.calls)} of {count} batches")

    async def close(self) -> None:
        closing = asyncio.create_task(super().close())
        while not closing.done():
            await self.clock.advance(0.01)
            await settle(5)


@pytest.fixture
async def world():
    made = StreamWorld()
    yield made
    await made.close()


async def run(world: StreamWorld, **fields) -> Job:
    await started(world, **fields)
    return await world.until_state("r")


async def started(world: StreamWorld, **fields) -> Job:
    starting = asyncio.create_task(world.replays.start(ReplaySpec(name="r", mapping="orders", **fields)))
    while not starting.done():
        await settle(5)
        await world.clock.advance(0.001)
    return await starting


def ends(job: Job) -> tuple[JobState, int | None, int, int, int]:
    return job.state, job.total, job.done, job.failed, job.skipped


# --- specs ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"source": "hook"}, "source does not go"),
        ({"function": "f"}, "function does not go"),
        ({"ids": ("00000000-0000-4000-8000-000000000001",)}, "ids does not go"),
        ({"ordered": False}, "ordered does not go"),
        ({"outcome": "failed"}, "outcome does not go"),
        ({"limit": 5}, "limit does not go"),
        ({"first": {"s-0": -1}}, "0 or more"),
        ({"first": {"s-0": 5}, "last": {"s-0": 4}}, "first must not be behind last"),
        ({"first": {"s-1": 5}, "shards": ("s-0",)}, "s-1, which is none"),
        ({"shards": ("s-0", "s-7")}, "orders has no s-7"),
        ({"last": {"s-7": 1}}, "orders has no s-7"),
        ({"pattern": "{"}, "pattern: "),
        ({"mapping": None, "key": "a"}, "key belongs to a mapping"),
        ({"mapping": None, "shards": ("s-0",)}, "shards belongs to a mapping"),
    ],
)
async def test_what_does_not_go_together_is_refused_in_one_line(world, fields, why):
    for ask in (world.replays.count, world.replays.start):
        with pytest.raises(SpecInvalid, match=why) as caught:
            await ask(ReplaySpec(**{"mapping": "orders"} | fields))
        assert "\n" not in str(caught.value)


async def test_a_mapping_that_is_not_there_and_a_daemon_without_streams_are_refused(world):
    with pytest.raises(MappingNotFound):
        await world.replays.start(ReplaySpec(mapping="nope"))
    World.boot(world)
    with pytest.raises(SpecInvalid, match="reads no streams"):
        await world.replays.count(ReplaySpec(mapping="orders"))


def test_a_spec_with_positions_beyond_64_bits_survives_json():
    spec = ReplaySpec(name="r", mapping="m", shards=("a",), key="k", first={"a": 2**70}, last={"a": 2**71})

    assert spec == ReplaySpec.from_json(spec.to_json())


# --- what -------------------------------------------------------------------------------------------------------------
async def test_check_33_a_whole_stream_is_replayed_in_batches_of_the_mapping_with_the_mark(world):
    world.stream.put(*range(25))
    world.stream.put(*range(100, 105), shard="s-1")

    job = await run(world)

    assert ends(job) == (JobState.COMPLETED, 30, 30, 0, 0)
    assert sorted(world.values()) == [*range(25), *range(100, 105)]
    assert max(len(batch) for batch in world.slots.batches) == 10
    first = world.slots.calls[0]
    assert orjson.loads(first.invocation.client_context) == {"custom": {"bridge-replay": "r"}}
    assert first.event["Records"][0] == {"id": "s-0:0", "value": 0}


async def test_check_33_nothing_of_live_reading_moves(world):
    world.stream.put(*range(5))

    await run(world)

    assert world.stream.commits == []
    assert world.stream.opened == 0
    assert world.journal.end == 0


async def test_old_records_are_not_given_up_windows_and_archive_are_left_out(world):
    world.change(maximum_record_age_s=60, tumbling_window_s=30, archive=True, maximum_retry_attempts=0)
    world.stream.put(1, time=world.clock.time() - 86_400)

    job = await run(world)

    assert ends(job) == (JobState.COMPLETED, 1, 1, 0, 0)
    assert set(world.slots.calls[0].event) == {"Records"}
    assert world.journal.end == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"since": 1002.0}, [2, 3, 4, 12, 13, 14]),
        ({"until": 1002.0}, [0, 1, 10, 11]),
        ({"since": 1001.0, "until": 1003.0}, [1, 2, 11, 12]),
        ({"shards": ("s-1",)}, [10, 11, 12, 13, 14]),
        ({"first": {"s-0": 3}}, [3, 4]),
        ({"first": {"s-0": 1}, "last": {"s-0": 2}}, [1, 2]),
        ({"last": {"s-0": 0, "s-1": 1}}, [0, 10, 11]),
        ({"first": {"s-0": 3}, "shards": ("s-0", "s-1")}, [3, 4, 10, 11, 12, 13, 14]),
        ({"key": "odd"}, [1, 3, 11, 13]),
        ({"key": "nope"}, []),
        ({"pattern": '{"body": {"n": [2, 14]}}'}, [2, 14]),
        ({"pattern": '{"body": {"n": [1, 2, 3]}}', "key": "odd", "shards": ("s-0",)}, [1, 3]),
        ({"since": 5000.0}, []),
        ({"first": {"s-0": 99}}, []),
    ],
)
async def test_counts_lists_and_replays_agree_on_what_is_chosen(world, fields, expected):
    for shard, start in (("s-0", 0), ("s-1", 10)):
        for n in range(5):
            world.stream.put({"n": start + n}, shard=shard, key=(b"even", b"odd")[n % 2], time=1000.0 + n)

    spec = ReplaySpec(mapping="orders", **fields)
    counted = await world.replays.count(spec)
    listed = [record async for record in await world.replays.records(spec)]
    job = await run(world, **fields)

    assert counted.events == len(expected)
    assert not counted.is_upper_bound
    assert sum(counted.by_shard.values()) == len(expected)
    assert counted.by_function == {"f": len(expected)}
    assert sorted(orjson.loads(record.fragment)["value"]["n"] for record in listed) == expected
    assert sorted(value["n"] for value in world.values()) == expected
    assert ends(job) == (JobState.COMPLETED, len(expected), len(expected), 0, 0)


async def test_the_filters_of_the_mapping_count_too(world):
    world.change(filters=('{"body": {"paid": [true]}}',))
    world.stream.put({"n": 1, "paid": True}, {"n": 2, "paid": False}, {"n": 3, "paid": True})

    assert (await world.replays.count(ReplaySpec(mapping="orders"))).events == 2
    job = await run(world, pattern='{"body": {"n": [2, 3]}}')

    assert world.values() == [{"n": 3, "paid": True}]
    assert ends(job) == (JobState.COMPLETED, 1, 1, 0, 0)


async def test_a_list_has_a_limit(world):
    world.stream.put(*range(20))

    listed = [record.position async for record in await world.replays.records(ReplaySpec(mapping="orders", limit=3))]

    assert listed == [0, 1, 2]


async def test_a_count_that_takes_too_long_says_at_most(world, monkeypatch):
    monkeypatch.setattr(ranges, "_READ_RECORDS_MAX", 4)
    monkeypatch.setattr(ranges, "COUNT_S", 0.0)
    world.stream.put(*range(10))
    world.stream.skip(5)

    counted = await world.replays.count(ReplaySpec(mapping="orders"))
    job = await run(world)

    assert (counted.events, counted.by_shard, counted.is_upper_bound) == (15, {"s-0": 4}, True)
    assert ends(job) == (JobState.COMPLETED, 10, 10, 0, 0)


async def test_a_shard_without_records_and_an_empty_stream_end(world):
    world.stream.skip(10)

    assert ends(await run(world)) == (JobState.COMPLETED, 0, 0, 0, 0)


# --- retention --------------------------------------------------------------------------------------------------------
async def test_a_shard_that_comes_from_another_begins_when_all_of_that_is_finished(world):
    world.stream.follows = {"s-1": frozenset({"s-0"})}
    world.slots.duration_s = 1.0
    world.stream.put(*range(25), shard="s-0")
    world.stream.put(*range(100, 105), shard="s-1")

    job = await run(world)

    assert ends(job) == (JobState.COMPLETED, 30, 30, 0, 0)
    assert [value for value in world.values() if value < 100] == list(range(25))
    assert world.values()[-5:] == list(range(100, 105))
    assert world.slots.running_max == 1


async def test_where_positions_say_nothing_about_how_many_a_count_that_takes_too_long_has_what_it_met(
    world, monkeypatch
):
    monkeypatch.setattr("bridge.pipeline.ranges.COUNT_S", 0.0)
    world.stream.is_countable = False
    world.stream.put(*range(10))
    world.stream.skip(10**30)
    world.stream.put(*range(10))

    job = await run(world)

    assert ends(job) == (JobState.COMPLETED, 20, 20, 0, 0)


async def test_what_retention_took_before_the_start_is_counted(world):
    world.stream.put(*range(10))
    world.stream.forget(3)

    counted = await world.replays.count(ReplaySpec(mapping="orders", first={"s-0": 0}))
    job = await run(world, first={"s-0": 0})

    assert (counted.events, counted.gone) == (6, 4)
    assert ends(job) == (JobState.COMPLETED, 10, 6, 0, 4)
    assert "4 of 10 records were gone" in job.reason


async def test_what_retention_takes_while_it_is_paused_is_counted(world):
    world.stream.put(*range(40))
    await started(world, rate=10.0)
    await world.until_batches(1)
    await paused(world)
    done = (await world.replays.get("r")).done
    world.stream.forget(29)

    await world.replays.resume("r")
    job = await world.until_state("r")

    assert ends(job) == (JobState.COMPLETED, 40, done + 10, 0, 30 - done)
    assert sorted(world.values()) == [*range(done), *range(30, 40)]


async def test_retention_is_counted_where_the_total_was_not_known(world, monkeypatch):
    monkeypatch.setattr(ranges, "_READ_RECORDS_MAX", 4)
    monkeypatch.setattr(ranges, "COUNT_S", 0.0)
    world.stream.put(*range(10))
    world.stream.forget(2)

    job = await run(world, first={"s-0": 0})

    assert ends(job) == (JobState.COMPLETED, 10, 7, 0, 3)


# --- how --------------------------------------------------------------------------------------------------------------
async def test_records_that_come_after_the_start_are_not_part_of_it(world):
    world.stream.put(*range(3))
    world.slots.duration_s = 1.0
    await started(world)
    world.stream.put(99)

    job = await world.until_state("r")

    assert world.values() == [0, 1, 2]
    assert ends(job) == (JobState.COMPLETED, 3, 3, 0, 0)


async def test_another_function_gets_it(world):
    world.stream.put(1)

    await run(world, to="g:live")

    assert world.slots.targets == ["g:live"]


async def test_order_is_kept_per_shard_and_shards_run_side_by_side(world):
    world.change(batch_size=1)
    world.stream.put(*range(5))
    world.stream.put(*range(10, 15), shard="s-1")
    world.slots.duration_s = 0.1

    await run(world)

    assert [value for value in world.values() if value < 10] == [*range(5)]
    assert [value for value in world.values() if value >= 10] == [*range(10, 15)]
    assert world.slots.running_max == 2


async def test_concurrency_is_a_limit(world):
    world.change(batch_size=1, parallelization_factor=10)
    world.stream.put(*range(30))
    world.slots.duration_s = 0.1

    job = await run(world, concurrency=3)

    assert world.slots.running_max == 3
    assert ends(job) == (JobState.COMPLETED, 30, 30, 0, 0)


async def test_a_rate_holds_on_average_and_what_is_filtered_costs_nothing(world):
    world.change(batch_size=1)
    for n in range(60):
        world.stream.put({"n": n}, key=(b"a", b"b", b"b")[n % 3])
    begun = world.clock.monotonic()

    await run(world, rate=10.0, key="a")

    times = [call.at - begun for call in world.slots.calls]
    assert len(times) == 20
    assert 1.7 <= times[-1] <= 2.6
    assert all(sum(at <= t < at + 1 for t in times) <= 11 for at in times)


async def test_it_waits_while_live_traffic_wants_the_slot(world):
    world.stream.put(*range(5))
    world.slots.live_waits = True
    await started(world)
    for _ in range(20):
        await world.clock.advance(0.5)
        await settle(10)
    assert world.slots.calls == []

    world.slots.live_waits = False
    world.slots.freed()
    await settle(20)

    assert world.values() == [*range(5)]


def test_the_slots_of_a_replay_are_those_behind_live_traffic(world):
    slots = SlotsBehind(world.slots)
    world.slots.live_waits = True

    assert slots.room(slots.resolve("f")) == 0


async def test_a_failing_batch_is_retried_then_a_dead_letter_of_the_replay(world):
    world.stream.put(*range(3))
    world.stream.put(7, shard="s-1")

    def script(call, _number):
        if 1 in call.values:
            raise Boom("no")

    world.slots.script = script
    job = await run(world, retry_attempts=1)

    assert ends(job) == (JobState.COMPLETED, 4, 1, 3, 0)
    assert Counter(map(tuple, world.slots.batches)) == {(0, 1, 2): 2, (7,): 1}
    (letter,) = world.dead_letters.letters.values()
    assert (letter.condition, letter.mapping, letter.queue) == (
        Condition.RETRY_ATTEMPTS_EXHAUSTED,
        "orders",
        "replay:r",
    )
    assert orjson.loads(letter.payload)["Records"][1] == {"id": "s-0:1", "value": 1}


async def test_partial_answers_count(world):
    world.change(function_response_types=(FunctionResponseType.REPORT_BATCH_ITEM_FAILURES,))
    world.stream.put(*range(4))
    world.slots.script = lambda call, number: (
        {"batchItemFailures": [{"itemIdentifier": "s-0:2"}]} if number == 1 else None
    )

    job = await run(world)

    assert world.slots.batches == [[0, 1, 2, 3], [2, 3]]
    assert ends(job) == (JobState.COMPLETED, 4, 4, 0, 0)


# --- life -------------------------------------------------------------------------------------------------------------
async def paused(world: StreamWorld) -> Job:
    return await told(world, "pause")


async def told(world: StreamWorld, what: str) -> Job:
    asking = asyncio.create_task(getattr(world.replays, what)("r"))
    while not asking.done():
        await settle(5)
        await world.clock.advance(0.01)
    return await asking


async def test_pause_ends_what_runs_and_resume_goes_on_to_the_same_end(world):
    world.change(batch_size=5)
    world.stream.put(*range(40))
    world.slots.duration_s = 0.2
    await started(world)
    await world.until_batches(2)

    job = await paused(world)
    assert job.state is JobState.PAUSED
    assert job.done == len(world.values())
    world.stream.put(*range(900, 910))
    await world.clock.advance(5)
    held = len(world.slots.calls)
    await settle(20)
    assert len(world.slots.calls) == held

    await world.replays.resume("r")
    job = await world.until_state("r")

    assert world.values() == [*range(40)]
    assert ends(job) == (JobState.COMPLETED, 40, 40, 0, 0)


async def test_cancel_is_for_good(world):
    world.change(batch_size=5)
    world.stream.put(*range(40))
    world.slots.duration_s = 0.2
    await started(world)
    await world.until_batches(2)

    job = await told(world, "cancel")

    assert job.state is JobState.CANCELLED
    assert job.done < 40


@pytest.mark.parametrize("batches", range(1, 8))
async def test_a_killed_replay_goes_on_with_nothing_lost_and_order_kept(world, batches):
    world.change(batch_size=5)
    world.stream.put(*range(40))
    world.stream.put(*range(100, 120), shard="s-1")
    world.slots.duration_s = 0.15
    await started(world)
    await world.until_batches(batches)

    await world.kill()
    world.stream.put(999)
    await world.restart()
    job = await world.until_state("r")

    seen = Counter(world.values())
    assert set(seen) == {*range(40), *range(100, 120)}
    assert max(seen.values()) <= 2
    assert seen.total() - 60 <= 30  # two batches that ran, and 0.2 s of what had ended
    for low, high in ((0, 40), (100, 120)):
        order = [value for value in world.values() if low <= value < high]
        assert list(dict.fromkeys(order)) == [*range(low, high)]
    assert job.state is JobState.COMPLETED
    assert job.done >= 60


async def test_a_kill_while_a_batch_is_blocked_keeps_its_retries(world):
    world.stream.put(*range(3))

    def script(_call, _number):
        raise Boom("no")

    world.slots.script = script
    await started(world, retry_attempts=3)
    await world.until_batches(3)
    await world.kill()
    await world.restart()
    job = await world.until_state("r")

    assert job.failed == 3
    assert 4 <= len(world.slots.calls) <= 5


async def test_a_kill_before_it_was_counted_starts_at_the_end_seen_then(world):
    world.stream.put(*range(5))
    world.slots.live_waits = True
    world.disk.crash_after = world.disk.writes + 1
    starting = asyncio.create_task(world.replays.start(ReplaySpec(name="r", mapping="orders")))
    await settle(20)
    starting.cancel()
    await world.kill()
    world.stream.put(99)
    world.slots.live_waits = False

    await world.restart()
    job = await world.until_state("r")

    assert set(world.values()) == {*range(5)}
    assert ends(job) == (JobState.COMPLETED, 5, 5, 0, 0)


async def test_a_source_that_fails_is_opened_anew_and_shown(world):
    world.change(batch_size=5)
    world.stream.put(*range(200))
    await started(world, rate=50.0)
    await world.until_batches(2)
    world.stream.range_fails_with = SourceError("no broker answers")
    await world.clock.advance(0.2)
    await settle(30)
    assert (await world.replays.get("r")).reason == "no broker answers"
    world.stream.range_fails_with = None

    job = await world.until_state("r")

    assert list(dict.fromkeys(world.values())) == [*range(200)]
    assert (job.state, job.reason) == (JobState.COMPLETED, "")


async def test_a_source_that_fails_at_the_start_refuses_it(world):
    world.stream.range_fails_with = SourceError("no broker answers")

    with pytest.raises(SourceError):
        await world.replays.start(ReplaySpec(name="r", mapping="orders"))

    assert await world.replays.list() == []


async def test_a_full_disk_is_waited_for_and_nothing_is_lost(world):
    world.change(batch_size=5)
    world.stream.put(*range(60))
    world.slots.duration_s = 0.1
    await started(world)
    await world.until_batches(2)
    world.jobs.fail_with = StoreFull("full")
    for _ in range(20):
        await world.clock.advance(0.1)
        await settle(10)
    world.jobs.fail_with = None

    job = await world.until_state("r")

    assert list(dict.fromkeys(world.values())) == [*range(60)]
    assert ends(job) == (JobState.COMPLETED, 60, 60, 0, 0)


async def test_a_replay_of_the_journals_streams_pins_what_it_needs(world):
    world.stream.is_remote = False
    world.stream.put(*range(10))
    world.slots.live_waits = True
    await started(world, first={"s-0": 4})
    await settle(20)
    assert world.journal.pins == {"replay:r": 4}

    world.slots.live_waits = False
    await world.until_state("r")
    assert world.journal.pins == {}


async def test_a_mapping_that_is_gone_at_the_resume_fails_it_with_the_reason(world):
    world.stream.put(*range(5))
    world.slots.live_waits = True
    await started(world)
    await paused(world)
    world.mappings.mapping = replace(world.mappings.mapping, name="other")

    await world.replays.resume("r")
    job = await world.until_state("r")

    assert job.state is JobState.FAILED
    assert "orders" in job.reason


def test_a_cursor_survives_its_text():
    from bridge.core.stream import Mark

    cursor = RangeCursor(
        ends={"a": 2**70}, marks={"a": Mark(position=-1, note=b'{"p":1}')}, gone=3, is_exact=True, is_journal=True
    )

    assert RangeCursor.parse(str(cursor)) == cursor
    assert cursor.moved({"a": Mark(position=5, epoch=3)}).marks["a"] == Mark(position=5)
    assert cursor.moved({"a": Mark(position=5)}).moved({"a": Mark(position=4)}).marks["a"].position == 5


@pytest.mark.parametrize("writes", range(2, 16))
async def test_a_crash_at_any_write_loses_nothing(world, writes):
    world.change(batch_size=5)
    world.stream.put(*range(30))
    world.stream.put(*range(100, 130), shard="s-1")
    world.slots.duration_s = 0.15

    def script(call, _number):
        if 7 in call.values:
            raise Boom("no")

    world.slots.script = script
    world.disk.crash_after = writes
    starting = asyncio.create_task(
        world.replays.start(ReplaySpec(name="r", mapping="orders", retry_attempts=0, rate=40.0))
    )
    for _ in range(400):
        await settle(5)
        await world.clock.advance(0.01)
        if world.disk.crashed:
            break
    starting.cancel()
    await world.kill()

    await world.restart()
    job = await world.until_state("r")

    assert job.state is JobState.COMPLETED
    assert set(world.values()) == {*range(30), *range(100, 130)}
    dead = [
        record for letter in world.dead_letters.letters.values() for record in orjson.loads(letter.payload)["Records"]
    ]
    assert 7 in [record["value"] for record in dead]
    assert job.done + job.failed >= 60


async def test_a_damaged_record_is_counted_and_a_dead_letter_of_the_replay_and_given_to_nobody(world):
    world.stream.put(*range(5))
    world.stream.damage(2)

    counted = await world.replays.count(ReplaySpec(mapping="orders"))
    listed = [record.position async for record in await world.replays.records(ReplaySpec(mapping="orders"))]
    job = await run(world)

    assert counted.events == 5
    assert listed == [0, 1, 3, 4]
    assert world.values() == [0, 1, 3, 4]
    assert ends(job) == (JobState.COMPLETED, 5, 4, 1, 0)
    (letter,) = world.dead_letters.letters.values()
    assert (letter.queue, letter.condition) == ("replay:r", Condition.RECORD_DAMAGED)
