"""Redrives, on a manual clock and stores in memory: what is taken, how it is parked, at what rate, and after crashes."""

import asyncio

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.errors import StoreFull
from bridge.core.invocation import Attempt, AttemptStatus, Condition, InvocationType
from bridge.core.ports import Job, JobState
from bridge.pipeline.jobs import IllegalStatus, JobExists, JobNotFound, LimitExceeded, SpecInvalid
from bridge.pipeline.redrive import RedriveSpec
from tests.harness import wait_until
from tests.unit.pipeline.worlds import World, uid

pytestmark = pytest.mark.usefixtures("threads_at_once")


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


async def run(world: World, **fields) -> Job:
    await world.clock.advance(1.0)
    await world.redrives.start(RedriveSpec(name="r", **fields))
    return await world.until_state("r", kind="redrives")


def parked(world: World) -> list[str]:
    return [entry.record.id for entry in world.parked.entries.values()]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "a b"}, "name"),
        ({"since": 5.0, "until": 5.0}, "since must be before until"),
        ({"since": float("nan")}, "finite"),
        ({"limit": 0}, "limit"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 1e7}, "rate"),
        ({"to": "a b"}, "to must"),
        ({"pattern": "[]"}, "pattern: "),
    ],
)
async def test_a_wrong_spec_is_refused_in_one_line(world, fields, why):
    for ask in (world.redrives.count, world.redrives.start):
        with pytest.raises(SpecInvalid, match=why):
            await ask(RedriveSpec(**fields))


def test_a_spec_survives_json():
    spec = RedriveSpec(name="r", queue=None, since=1.5, ids=(uid(1),), failed=True, rate=2.5).checked()

    assert spec == RedriveSpec.from_json(spec.to_json())
    with pytest.raises(SpecInvalid):
        RedriveSpec.from_json(b'{"nonsense": 1}')


async def test_each_letter_is_parked_once_due_now_with_a_fresh_age(world):
    letters = [
        await world.letter(n, source="hook", function="f:live", client_context=b'{"custom":{}}') for n in (1, 2, 3)
    ]

    job = await run(world)

    assert (JobState.COMPLETED, 3, 3, 0) == (job.state, job.total, job.done, job.skipped)
    assert [uid(1), uid(2), uid(3)] == parked(world)
    entry = world.parked.entries["default", uid(1)]
    assert (0, 0.0, True, "default", "r") == (entry.attempts, entry.delay_s, entry.redrive, entry.queue, entry.job)
    assert world.clock.time() - 1 <= entry.due_at == entry.first_attempt_at <= world.clock.time()
    record = entry.record
    assert (letters[0].payload, letters[0].received_at) == (record.payload, record.received_at)
    assert ("f:live", "hook", InvocationType.EVENT) == (record.function, record.source, record.invocation_type)
    assert b'{"custom":{}}' == record.client_context
    assert ["f", "f", "f"] == world.woken
    assert {"redriving"} == {letter.state for letter in world.dead_letters.letters.values()}


async def test_nothing_to_redrive_is_complete_at_once(world):
    job = await run(world)

    assert (JobState.COMPLETED, 0) == (job.state, job.total)


async def test_selected_by_queue_time_route_function_pattern_and_id(world):
    one = await world.letter(1, source="a", function="f", payload=b'{"k": 1}')
    two = await world.letter(2, source="b", function="g:live", payload=b'{"k": 2}')
    three = await world.letter(3, source="b", function="g", payload=b'{"body": "{\\"k\\": 3}"}')
    await world.letter(4, queue="replay:x")
    await world.clock.advance(1.0)

    async def count(**fields) -> int:
        return await world.redrives.count(RedriveSpec(**fields))

    assert 3 == await count()
    assert 4 == await count(queue=None)
    assert 1 == await count(queue="replay:x")
    assert 2 == await count(since=two.dead_at)
    assert 1 == await count(until=two.dead_at)
    assert 2 == await count(source="b")
    assert 2 == await count(function="g")
    assert 1 == await count(ids=(one.id,))
    assert 1 == await count(pattern='{"k": [2]}')
    assert 1 == await count(pattern='{"body": {"k": [3]}}')
    assert 2 == await count(limit=2)
    assert three.id not in parked(world)


async def test_a_letter_of_a_replay_stays_in_its_queue(world):
    await world.letter(1, queue="replay:x", position=-1)

    await run(world, queue="replay:x")

    assert [("replay:x", uid(1))] == list(world.parked.entries)


async def test_failed_leaves_out_what_a_replay_has_since_handled(world):
    for number in (1, 2):
        await world.letter(number, position=-1)
        for status in (AttemptStatus.DEAD, AttemptStatus.REPLAYED_OK if number == 1 else AttemptStatus.REPLAYED_FAILED):
            world.outcomes.append(
                Attempt(position=number, request_id=uid(number), function="f", number=1, status=status, started_at=0.0)
            )

    await world.clock.advance(1.0)
    assert 2 == await world.redrives.count(RedriveSpec())
    job = await run(world, failed=True)

    assert [uid(2)] == parked(world)
    assert (1, 1) == (job.total, job.done)


async def test_to_another_function(world):
    await world.letter(1)

    await run(world, to="g:v2")

    assert "g:v2" == world.parked.entries["default", uid(1)].record.function
    assert ["g"] == world.woken


async def test_the_limit_takes_the_longest_dead(world):
    for number in range(1, 6):
        await world.letter(number)

    job = await run(world, limit=2)

    assert [uid(1), uid(2)] == parked(world)
    assert (2, 2) == (job.total, job.done)


async def test_what_is_redriving_already_is_left_alone(world):
    await world.letter(1)
    await run(world)
    world.parked.entries.clear()

    await world.redrives.start(RedriveSpec(name="again"))
    job = await world.until_state("again", kind="redrives")

    assert 0 == job.total
    assert not parked(world)


async def test_what_died_after_the_start_is_not_met(world):
    """An event that fails again at once would else be redriven for ever."""
    for number in range(1, 4):
        await world.letter(number)
    await world.clock.advance(1.0)
    await world.redrives.start(RedriveSpec(name="r", rate=1.0))
    await wait_until(lambda: parked(world))
    await world.letter(1)
    await world.letter(9)

    job = await world.until_state("r", kind="redrives")

    assert (3, 3) == (job.total, job.done)
    assert "dead" == (await world.dead_letters.get(uid(1))).state
    assert uid(9) not in parked(world)


async def test_the_rate_is_kept(world):
    for number in range(1, 31):
        await world.letter(number)
    await world.clock.advance(1.0)
    began = world.clock.monotonic()

    await world.redrives.start(RedriveSpec(name="r", rate=10.0))
    await wait_until(lambda: parked(world))
    await world.until_state("r", kind="redrives", step_s=0.01)

    due = [entry.due_at for entry in world.parked.entries.values()]
    assert 2.7 <= world.clock.monotonic() - began <= 3.3
    assert all(later - first >= 0.85 for first, later in zip(due, due[10:], strict=False))


async def test_pages_do_not_lose_letters(world):
    for number in range(1, 200):
        await world.letter(number)

    job = await run(world, pattern='{"n": [{"numeric": [">", 20]}]}')

    assert 179 == job.done == len(parked(world))


async def test_names_limits_and_what_does_not_exist(world):
    await run(world)
    with pytest.raises(JobExists, match=r"^Redrive r already exists\.$"):
        await world.redrives.start(RedriveSpec(name="r"))
    with pytest.raises(JobNotFound, match=r"Redrive x does not exist\."):
        await world.redrives.cancel("x")
    with pytest.raises(IllegalStatus):
        await world.redrives.cancel("r")
    assert await world.redrives.get("x") is None
    for number in range(30):
        await world.letter(number)
    await world.clock.advance(1.0)
    for number in range(10):
        await world.redrives.start(RedriveSpec(name=f"r{number}", rate=0.001))
    with pytest.raises(LimitExceeded):
        await world.redrives.start(RedriveSpec(name="r10"))


async def test_a_replay_is_not_a_redrive(world):
    await run(world)

    assert await world.replays.get("r") is None
    assert [] == await world.replays.list()
    assert ["r"] == [job.name for job in await world.redrives.list()]


async def test_cancel_leaves_what_was_moved_moved(world):
    for number in range(1, 5):
        await world.letter(number)
    await world.clock.advance(1.0)
    await world.redrives.start(RedriveSpec(name="r", rate=1.0))
    await wait_until(lambda: parked(world))

    job = await world.redrives.cancel("r")

    assert JobState.CANCELLED == job.state
    assert job.done == len(parked(world)) < 4


async def test_a_full_disk_holds_the_redrive(world):
    await world.letter(1)
    world.dead_letters.fail_with = StoreFull("no space")
    await world.clock.advance(1.0)
    await world.redrives.start(RedriveSpec(name="r"))
    for _ in range(20):
        await world.clock.advance(1.0)
    assert JobState.RUNNING == (await world.redrives.get("r")).state

    world.dead_letters.fail_with = None
    assert 1 == (await world.until_state("r", kind="redrives")).done


async def test_watch_ends_with_the_job(world):
    await world.letter(1)
    await world.clock.advance(1.0)
    await world.redrives.start(RedriveSpec(name="r"))
    await world.until_state("r", kind="redrives")

    assert [JobState.COMPLETED] == [job.state async for job in world.redrives.watch("r")]


async def crash_and_resume(crash_after: list[int], *, limit: int | None) -> None:
    """Redrive 150 dead letters, killed after each of these numbers of writes."""
    world = World()
    for number in range(150):
        await world.letter(number, payload=orjson.dumps({"n": number}))
    await world.clock.advance(1.0)
    moved: list[str] = []
    redrive = world.dead_letters.redrive

    async def counting(letter, entry) -> bool:
        done = await redrive(letter, entry)
        moved.extend([letter.id] if done else [])
        return done

    world.dead_letters.redrive = counting
    for after in crash_after:
        world.disk.crash_after = world.disk.writes + after
        if "r" in world.jobs.jobs:
            await world.restart()
        else:
            await world.redrives.start(RedriveSpec(name="r", limit=limit))
        if (await world.until_state("r", kind="redrives")).state is JobState.COMPLETED:
            break
        await world.kill()
    world.disk.crash_after = None
    if world.jobs.jobs["r"].state is not JobState.COMPLETED and not world.redrives._runs:
        await world.restart()
    job = await world.until_state("r", kind="redrives")

    wanted = [uid(number) for number in range(limit or 150)]
    assert wanted == moved
    assert (JobState.COMPLETED, len(wanted), len(wanted), 0) == (job.state, job.total, job.done, job.skipped)
    await world.close()


@settings(max_examples=60, deadline=None)
@given(
    crash_after=st.lists(st.integers(1, 80), min_size=1, max_size=4),
    limit=st.none() | st.integers(1, 120),
)
@pytest.mark.slow
def test_killed_at_any_write_each_letter_goes_once(crash_after, limit):
    asyncio.run(crash_and_resume(crash_after, limit=limit))


async def test_a_damaged_event_is_never_redriven(world) -> None:
    """Its payload is what the disk made of it; a person may look at it, a function must not."""
    bad = await world.letter(1, condition=Condition.RECORD_DAMAGED, payload=b'{"n":\xff1}')
    sound = await world.letter(2)
    await world.clock.advance(1.0)

    assert await world.redrives.count(RedriveSpec()) == 1
    assert await world.redrives.count(RedriveSpec(ids=(bad.id,))) == 0
    assert (await run(world)).done == 1
    assert (await world.dead_letters.get(bad.id)).state == "dead"
    assert (await world.dead_letters.get(sound.id)).state == "redriving"
