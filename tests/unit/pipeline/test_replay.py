"""Replays, on a manual clock and stores in memory.

Selection: time, route, function, outcome, pattern, ids, limit; a dry run counts what a real one invokes.
Running: order, rate, concurrency, the mark, retries, dead letters of its own.
Life: names, pause, resume, cancel, restart, crashes at every write, retention, disks that are full.
"""

import asyncio
from collections import Counter
from dataclasses import replace

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.core.errors import FunctionNotFound, PayloadTooLarge, RuntimeUnavailable, StoreFull, Throttled
from bridge.core.invocation import (
    THROTTLE_RESERVED,
    Attempt,
    AttemptStatus,
    Condition,
    InvocationType,
)
from bridge.core.ports import Job, JobState
from bridge.pipeline import selecting
from bridge.pipeline.jobs import NAME_KEPT_S, IllegalStatus, JobExists, JobNotFound, LimitExceeded, SpecInvalid
from bridge.pipeline.replay import ReplaySpec
from bridge.pipeline.replaying import WINDOW_MAX, marked_context
from bridge.pipeline.selecting import SCAN_CHUNK, outcome_of
from bridge.testing.clock import settle
from tests.harness import wait_until
from tests.unit.pipeline.worlds import ERROR, OK, UNKNOWN, World, uid

pytestmark = pytest.mark.usefixtures("threads_at_once")


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


async def run(world: World, **fields) -> Job:
    spec = ReplaySpec(name="r", **fields)
    await world.replays.start(spec)
    return await world.until_state("r")


def attempt(number: int, status: AttemptStatus, *, replay: str = "") -> Attempt:
    return Attempt(
        position=0, request_id=uid(number), function="f", number=1, status=status, started_at=0.0, replay=replay
    )


# --- specs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\n"}, "name"),
        ({"since": 5.0, "until": 5.0}, "since must be before until"),
        ({"since": 6.0, "until": 5.0}, "since must be before until"),
        ({"since": float("nan")}, "finite"),
        ({"until": float("inf")}, "finite"),
        ({"outcome": "bad"}, "outcome"),
        ({"limit": 0}, "limit"),
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": 1e7}, "rate"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1001}, "concurrency"),
        ({"retry_attempts": -1}, "retry_attempts"),
        ({"retry_attempts": 101}, "retry_attempts"),
        ({"to": "a b"}, "to must"),
        ({"to": ""}, "to must"),
        ({"pattern": "{"}, "pattern: "),
        ({"pattern": '{"a": 5}'}, "pattern: a: must"),
        ({"ids": ("nonsense",)}, "ids"),
        ({"ids": tuple(uid(n) for n in range(10_001))}, "ids"),
    ],
)
async def test_a_wrong_spec_is_refused_in_one_line(world, fields, why):
    for ask in (world.replays.count, world.replays.start):
        with pytest.raises(SpecInvalid, match=why) as caught:
            await ask(ReplaySpec(**fields))
        assert "\n" not in str(caught.value)


def test_a_spec_survives_json():
    spec = ReplaySpec(name="r", since=1.5, pattern='{"a": [1]}', ids=(uid(1),), limit=3, rate=2.5, ordered=False)

    assert spec == ReplaySpec.from_json(spec.to_json())


@pytest.mark.parametrize("text", [b"", b"[]", b"5", b'{"nonsense": 1}', b'{"ids": 5}', b"\xff"])
def test_json_that_is_no_spec_is_refused(text):
    with pytest.raises(SpecInvalid):
        ReplaySpec.from_json(text)


def test_a_name_is_made_up_and_ids_are_written_as_stored():
    spec = ReplaySpec(ids=("{00000000-0000-4000-8000-00000000000A}", uid(10))).checked()

    assert spec.name.startswith("replay-")
    assert (uid(10),) == spec.ids


# --- selection --------------------------------------------------------------------------------------------------------


async def test_everything_is_replayed_with_id_bytes_and_order_kept(world):
    records = await world.fill(200)

    job = await run(world)

    assert (JobState.COMPLETED, 200, 200, 0, 0) == (job.state, job.total, job.done, job.failed, job.skipped)
    assert [record.id for record in records] == world.invoker.ids()
    assert [record.payload for record in records] == [call.payload for call in world.invoker.calls]
    assert job.ended_at is not None


async def test_nothing_to_replay_is_complete_at_once(world):
    job = await run(world)

    assert (JobState.COMPLETED, 0) == (job.state, job.total)


async def test_events_stored_after_the_start_are_not_part_of_it(world):
    await world.fill(3)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)
    await world.store(99)

    job = await world.until_state("r")

    assert 3 == job.done
    assert uid(99) not in world.invoker.ids()


async def test_selected_by_time_route_function_pattern_and_id(world):
    since = world.clock.time()
    first = await world.store(1, source="a", function="f", body='{"type": "paid"}')
    await world.store(2, source="b", function="g:live", body='{"type": "open"}')
    until = world.clock.time()
    await world.store(3, source="b", function="g", body="text")

    async def ids(**fields):
        return [record.id async for record in world.replays.events(ReplaySpec(**fields))]

    assert [uid(1), uid(2)] == await ids(since=since, until=until)
    assert [uid(3)] == await ids(since=until)
    assert [uid(1), uid(2)] == await ids(until=until)
    assert [uid(2), uid(3)] == await ids(source="b")
    assert [uid(2), uid(3)] == await ids(function="g")
    assert [uid(1)] == await ids(pattern='{"body": {"type": ["paid"]}}')
    assert [uid(3)] == await ids(ids=(uid(3), uid(77)))
    assert [uid(1), uid(2)] == await ids(limit=2)
    assert [uid(2)] == await ids(since=first.received_at + 0.0005, limit=1)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ("", "unfinished"),
        ("started", "unfinished"),
        ("ok", "succeeded"),
        ("failed", "unfinished"),
        ("failed failed dead", "failed"),
        ("dead started", "unfinished"),
        ("dead ok", "succeeded"),
        ("dead failed", "unfinished"),
        ("dead replayed_ok", "succeeded"),
        ("dead replayed_failed", "failed"),
        ("ok replayed_failed", "failed"),
        ("ok replayed_failed replayed_ok", "succeeded"),
        ("failed replayed_failed", "unfinished"),
        ("unknown", "unfinished"),
        ("error", "failed"),
        ("replayed_failed", "failed"),
    ],
)
def test_outcome_of_an_event(statuses, expected):
    assert expected == outcome_of([attempt(1, AttemptStatus(status)) for status in statuses.split()])


async def test_failed_means_failed_and_not_since_succeeded(world):
    await world.fill(4)
    for number, status in ((1, AttemptStatus.DEAD), (2, AttemptStatus.OK), (3, AttemptStatus.DEAD)):
        world.outcomes.append(attempt(number, status))
    world.outcomes.append(attempt(3, AttemptStatus.REPLAYED_OK, replay="before"))

    job = await run(world, outcome="failed")

    assert [uid(1)] == world.invoker.ids()
    assert (1, 1, 0) == (job.total, job.done, job.skipped)
    assert [uid(4)] == [r.id async for r in world.replays.events(ReplaySpec(outcome="unfinished"))]
    assert [uid(n) for n in (1, 2, 3)] == [r.id async for r in world.replays.events(ReplaySpec(outcome="succeeded"))]


@pytest.mark.parametrize("batch", [{"_LOOKUP_EVENTS": 130}, {"_LOOKUP_MAX_BYTES": 500}])
async def test_outcomes_are_looked_up_in_batches_and_none_is_left_out(world, monkeypatch, batch):
    for name, value in batch.items():
        monkeypatch.setattr(selecting, name, value)
    await world.fill(300)
    for number in range(1, 301):
        world.outcomes.append(attempt(number, AttemptStatus.OK if number % 3 else AttemptStatus.DEAD))

    job = await run(world, outcome="failed")

    assert (JobState.COMPLETED, 100, 100) == (job.state, job.total, job.done)
    assert [uid(number) for number in range(3, 301, 3)] == world.invoker.ids()


async def test_the_limit_takes_the_oldest(world):
    await world.fill(10)

    job = await run(world, limit=4)

    assert [uid(n) for n in range(1, 5)] == world.invoker.ids()
    assert (4, 4) == (job.total, job.done)


@pytest.mark.parametrize("limit", [None, 1, 63, 64, 65, 150])
@pytest.mark.parametrize("pattern", [None, '{"n": [{"numeric": [">", 40]}]}'])
async def test_a_dry_run_counts_what_a_real_one_invokes(world, limit, pattern):
    await world.fill(150, routes=3)
    fields = {"limit": limit, "pattern": pattern}

    counted = await world.replays.count(ReplaySpec(**fields))
    assert not world.invoker.calls
    job = await run(world, **fields)

    assert counted.events == job.total == job.done == len(world.invoker.calls)
    assert counted.bytes == sum(len(call.payload) for call in world.invoker.calls)
    assert counted.by_function == Counter(call.target for call in world.invoker.calls)
    assert counted.events == sum(counted.by_source.values())


async def test_a_dry_run_by_id_tells_how_many_are_gone(world):
    await world.fill(3)
    world.journal.drop_before(2)

    counted = await world.replays.count(ReplaySpec(ids=(uid(1), uid(2), uid(3))))

    assert (1, 2) == (counted.events, counted.gone)


async def test_an_event_without_a_target_is_replayed_only_to_another(world):
    await world.store(1, function="")
    await world.store(2)

    assert 1 == (await world.replays.count(ReplaySpec())).events
    job = await run(world)
    assert [uid(2)] == world.invoker.ids()
    assert (1, 1, 0) == (job.total, job.done, job.skipped)
    assert {"g": 2} == (await world.replays.count(ReplaySpec(to="g"))).by_function


async def test_synchronous_events_are_replayed_too(world):
    await world.store(1, kind=InvocationType.REQUEST_RESPONSE)

    assert 1 == (await run(world)).done


async def test_to_another_target(world):
    await world.fill(2, function="f:live")

    await run(world, to="g:v2")

    assert ["g:v2", "g:v2"] == [call.target for call in world.invoker.calls]


async def test_without_to_each_goes_where_it_went(world):
    await world.store(1, function="f:live")
    await world.store(2, function="g")

    await run(world)

    assert ["f:live", "g"] == [call.target for call in world.invoker.calls]


async def test_a_target_that_is_not_there_is_refused_at_the_start(world):
    world.invoker.functions = {"f"}

    with pytest.raises(FunctionNotFound):
        await world.replays.start(ReplaySpec(name="r", to="nowhere"))
    assert not world.jobs.jobs


# --- running ----------------------------------------------------------------------------------------------------------


async def test_every_invocation_is_marked_and_keeps_what_the_sender_put_there(world):
    record = await world.store(1)
    context = {"client": {"a": 1}, "custom": {"k": "v"}, "env": {"b": 2}}
    world.journal._records[0] = replace(record, client_context=orjson.dumps(context))

    await run(world)

    seen = orjson.loads(world.invoker.calls[0].context)
    assert {"a": 1} == seen["client"]
    assert {"b": 2} == seen["env"]
    assert "v" == seen["custom"]["k"]
    assert "r" == seen["custom"]["bridge-replay"]
    assert record.payload == world.invoker.calls[0].payload


@pytest.mark.parametrize("context", [b"", b"nonsense", b"[1]", b'{"custom": 5}', b"\xff"])
async def test_any_client_context_gets_the_mark(world, context):
    record = await world.store(1)

    assert "r" == orjson.loads(marked_context(context, "r", record))["custom"]["bridge-replay"]


async def test_routes_run_in_parallel_each_in_order(world):
    await world.fill(30, routes=3)
    world.invoker.duration_s = 1.0

    await run(world, concurrency=10)

    assert 3 == world.invoker.running_max
    for route in range(3):
        mine = [call.id for call in world.invoker.calls if int(call.id[-12:], 16) % 3 == route]
        assert sorted(mine) == mine
        assert 10 == len(mine)


async def test_concurrency_bounds_all_routes_together(world):
    await world.fill(30, routes=6)
    world.invoker.duration_s = 1.0

    await run(world, concurrency=2)

    assert 2 == world.invoker.running_max


async def test_unordered_runs_as_many_as_asked(world):
    await world.fill(30)
    world.invoker.duration_s = 1.0

    job = await run(world, ordered=False, concurrency=7)

    assert 7 == world.invoker.running_max
    assert 30 == job.done


async def test_a_failing_event_holds_its_route_and_no_other(world):
    await world.fill(6, routes=2)
    world.invoker.script = lambda call, number: ERROR if call.id == uid(1) and number < 3 else OK

    job = await run(world, concurrency=2)

    mine = [call.id for call in world.invoker.calls if int(call.id[-12:], 16) % 2]
    assert [uid(1), uid(1), uid(1), uid(3), uid(5)] == mine
    assert (6, 0) == (job.done, job.failed)
    others = [call.at for call in world.invoker.calls if not int(call.id[-12:], 16) % 2]
    assert max(others) < [call.at for call in world.invoker.calls if call.id == uid(3)][0]


async def test_a_retry_waits_half_a_second_then_twice_as_long(world):
    await world.fill(1)
    world.invoker.script = lambda _call, _number: ERROR

    await world.replays.start(ReplaySpec(name="r", retry_attempts=9))
    await world.until_state("r", step_s=0.05)

    at = [call.at for call in world.invoker.calls]
    waits = [after - before for before, after in zip(at, at[1:], strict=False)]
    assert 9 == len(waits)
    for number, wait in enumerate(waits):
        ceiling = min(60.0, 0.5 * 2**number)
        assert ceiling / 2 <= wait <= ceiling + 0.05


async def test_what_fails_for_good_is_a_dead_letter_of_the_replay(world):
    await world.fill(2)
    world.invoker.script = lambda call, _number: ERROR if call.id == uid(1) else OK

    job = await run(world)

    assert (JobState.COMPLETED, 1, 1) == (job.state, job.done, job.failed)
    letter = await world.dead_letters.get(uid(1), queue="replay:r")
    assert letter is not None
    assert (Condition.RETRIES_EXHAUSTED, 3) == (letter.condition, letter.attempts)
    assert ["replayed_failed"] * 3 == [each.status.value for each in letter.history]
    assert ("ValueError", ERROR.payload) == (letter.error_type, letter.response)
    assert "r" == orjson.loads(letter.client_context)["custom"]["bridge-replay"]
    assert await world.dead_letters.get(uid(1), queue="default") is None


async def test_each_attempt_is_in_the_history(world):
    await world.fill(1)
    world.invoker.script = lambda _call, number: ERROR if number == 1 else OK

    await run(world)

    assert [("replayed_failed", 1, "r"), ("replayed_ok", 2, "r")] == [
        (each.status.value, each.number, each.replay) for each in world.outcomes.attempts
    ]


@pytest.mark.parametrize(
    ("error", "condition"),
    [
        (FunctionNotFound("gone"), Condition.FUNCTION_NOT_FOUND),
        (Throttled(THROTTLE_RESERVED), Condition.ZERO_RESERVED_CONCURRENCY),
        (PayloadTooLarge("large"), Condition.RETRIES_EXHAUSTED),
    ],
)
async def test_what_no_retry_can_help_is_dead_at_once(world, error, condition):
    await world.fill(1)
    world.invoker.script = lambda _call, _number: error

    job = await run(world)

    assert 1 == len(world.invoker.calls)
    assert (0, 1) == (job.done, job.failed)
    letter = await world.dead_letters.get(uid(1), queue="replay:r")
    assert (condition, error.code) == (letter.condition, letter.error_type)


@pytest.mark.parametrize("answer", [UNKNOWN, RuntimeUnavailable("no worker"), Throttled("other")])
async def test_system_errors_use_no_retry(world, answer):
    await world.fill(1)
    world.invoker.script = lambda _call, number: answer if number <= 5 else OK

    job = await run(world, retry_attempts=0)

    assert 6 == len(world.invoker.calls)
    assert (1, 0) == (job.done, job.failed)


async def test_system_errors_without_end_become_a_dead_letter(world):
    await world.fill(1)
    world.invoker.script = lambda _call, _number: UNKNOWN

    await world.replays.start(ReplaySpec(name="r"))
    job = await world.until_state("r", step_s=30.0)

    assert 21 == len(world.invoker.calls)
    assert 1 == job.failed
    assert 0 == (await world.dead_letters.get(uid(1), queue="replay:r")).attempts


async def test_the_rate_is_kept(world):
    await world.fill(40)

    await world.replays.start(ReplaySpec(name="r", rate=10.0, ordered=False, concurrency=20))
    await world.until_calls(1)
    await world.until_state("r", step_s=0.01)

    at = [call.at for call in world.invoker.calls]
    assert 40 == len(at)
    assert 3.7 <= at[-1] - at[0] <= 4.1
    for first, later in zip(at, at[10:], strict=False):
        assert later - first >= 0.85  # ten a second, one or two at once after a wait


async def test_a_high_rate_is_not_slowed_by_the_clock(world):
    await world.fill(300)

    await world.replays.start(ReplaySpec(name="r", rate=10_000.0, ordered=False, concurrency=100))
    await world.until_state("r", step_s=0.01)

    at = [call.at for call in world.invoker.calls]
    assert at[-1] - at[0] <= 0.5


async def test_what_waits_is_bounded(world):
    await world.fill(WINDOW_MAX + 300, routes=2)
    world.invoker.duration_s = 1.0
    read = []
    scan = world.journal.scan

    async def counting(*args, **kwargs):
        async for page in scan(*args, **kwargs):
            read.append(len(page))
            yield page

    world.journal.scan = counting
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(2)
    counted = WINDOW_MAX + 300
    await wait_until(lambda: sum(read) >= counted + WINDOW_MAX)
    await world.clock.advance(0.5)

    assert sum(read) <= counted + WINDOW_MAX + 2 * SCAN_CHUNK
    await world.replays.close()


async def test_two_replays_at_once(world):
    await world.fill(20)
    world.invoker.duration_s = 0.1

    await world.replays.start(ReplaySpec(name="one"))
    await world.replays.start(ReplaySpec(name="two", limit=5))
    one, two = await world.until_state("one"), await world.until_state("two")

    assert (20, 5) == (one.done, two.done)
    marks = Counter(orjson.loads(call.context)["custom"]["bridge-replay"] for call in world.invoker.calls)
    assert {"one": 20, "two": 5} == marks
    assert ["one", "two"] == sorted(job.name for job in await world.replays.list())


# --- life -------------------------------------------------------------------------------------------------------------


async def test_a_name_is_taken_once(world):
    await run(world)

    with pytest.raises(JobExists, match=r"^Replay r already exists\.$"):
        await world.replays.start(ReplaySpec(name="r"))


async def test_ten_run_at_once(world):
    await world.fill(1)
    world.invoker.duration_s = 1.0
    for number in range(10):
        await world.replays.start(ReplaySpec(name=f"r{number}"))

    with pytest.raises(LimitExceeded):
        await world.replays.start(ReplaySpec(name="r10"))
    await world.until_state("r0")
    await world.until_state("r9")
    await world.replays.start(ReplaySpec(name="r10"))


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
async def test_what_does_not_exist_or_has_ended_cannot_be_told_anything(world, verb):
    with pytest.raises(JobNotFound, match=r"Replay r does not exist\."):
        await getattr(world.replays, verb)("r")
    await run(world)
    with pytest.raises(IllegalStatus, match="Replay r is COMPLETED"):
        await getattr(world.replays, verb)("r")


async def test_pause_begins_nothing_and_resume_goes_on(world):
    await world.fill(10)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)
    await world.clock.advance(2.5)

    pausing = asyncio.create_task(world.replays.pause("r"))
    await world.clock.advance(1.0)
    job = await pausing
    assert JobState.PAUSED == job.state
    await world.until_state("r", JobState.PAUSED)
    calls = len(world.invoker.calls)
    await world.clock.advance(60.0)
    assert calls == len(world.invoker.calls) == 3
    assert "replay:r" in world.journal.pins

    job = await world.replays.resume("r")
    assert JobState.RUNNING == job.state
    job = await world.until_state("r")
    assert (JobState.COMPLETED, 10) == (job.state, job.done)
    assert [uid(n) for n in range(1, 11)] == world.invoker.ids()
    assert "replay:r" not in world.journal.pins


async def test_pause_answers_although_something_runs_for_minutes(world):
    await world.fill(3)
    world.invoker.duration_s = 600.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)

    pausing = asyncio.create_task(world.replays.pause("r"))
    await world.clock.advance(6.0)
    assert JobState.PAUSED == (await pausing).state

    resuming = asyncio.create_task(world.replays.resume("r"))
    await world.clock.advance(6.0)
    with pytest.raises(IllegalStatus, match="in flight"):
        await resuming
    await world.clock.advance(600.0)
    await wait_until(lambda: not world.replays._runs)
    assert 1 == (await world.replays.get("r")).done
    await world.replays.resume("r")
    assert 3 == (await world.until_state("r", step_s=60.0)).done


async def test_two_who_resume_at_once_begin_one_run(world):
    await world.fill(3)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    pausing = asyncio.create_task(world.replays.pause("r"))
    await world.clock.advance(2.0)
    await pausing

    ends = await asyncio.gather(world.replays.resume("r"), world.replays.resume("r"), return_exceptions=True)

    assert ["IllegalStatus", "Job"] == sorted(type(end).__name__ for end in ends)
    assert 3 == (await world.until_state("r")).done
    assert 3 == len(world.invoker.calls)


async def test_one_that_is_cancelled_while_its_resumption_waits_stays_cancelled(world):
    await world.fill(3)
    world.invoker.duration_s = 7.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)
    pausing = asyncio.create_task(world.replays.pause("r"))
    await world.clock.advance(5.5)
    assert JobState.PAUSED == (await pausing).state

    resuming = asyncio.create_task(world.replays.resume("r"))
    await settle()
    cancelling = asyncio.create_task(world.replays.cancel("r"))
    await settle()
    await world.clock.advance(2.0)
    assert JobState.CANCELLED == (await cancelling).state
    with pytest.raises(IllegalStatus, match="Replay r is CANCELLED: only a paused one"):
        await resuming
    await world.clock.advance(20.0)

    assert JobState.CANCELLED == (await world.replays.get("r")).state
    assert 1 == len(world.invoker.calls)


@pytest.mark.parametrize("verbs", [("resume", "cancel"), ("cancel", "resume")])
async def test_one_that_is_resumed_and_cancelled_at_once_is_cancelled(world, verbs, monkeypatch):
    await world.fill(3)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    pausing = asyncio.create_task(world.replays.pause("r"))
    await world.clock.advance(2.0)
    await pausing
    update = world.jobs.update

    async def slow(job: Job) -> None:
        await settle()
        await update(job)

    monkeypatch.setattr(world.jobs, "update", slow)
    asked = [asyncio.create_task(getattr(world.replays, verb)("r")) for verb in verbs]
    await settle()
    await world.clock.advance(20.0)
    ends = dict(zip(verbs, await asyncio.gather(*asked, return_exceptions=True), strict=True))

    assert JobState.CANCELLED == ends["cancel"].state
    assert JobState.CANCELLED == (await world.replays.get("r")).state
    assert not world.journal.pins
    assert not world.replays._runs


async def test_pause_cuts_a_wait_for_a_retry_short(world):
    await world.fill(1)
    world.invoker.script = lambda _call, number: ERROR if number < 3 else OK
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)

    job = await world.replays.pause("r")

    assert (JobState.PAUSED, 0, 0) == (job.state, job.done, job.failed)
    await world.replays.resume("r")
    assert 1 == (await world.until_state("r")).done


async def test_cancel_ends_for_good_and_lets_go_of_the_range(world):
    await world.fill(10)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)

    cancelling = asyncio.create_task(world.replays.cancel("r"))
    await wait_until(lambda: world.jobs.jobs["r"].state is JobState.CANCELLING)
    await world.clock.advance(2.0)
    job = await cancelling

    assert JobState.CANCELLED == job.state
    assert 1 == job.done
    assert not world.journal.pins
    await world.clock.advance(60.0)
    assert 1 == len(world.invoker.calls)


async def test_a_paused_replay_can_be_cancelled(world):
    await world.fill(3)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    pausing = asyncio.create_task(world.replays.pause("r"))
    await world.clock.advance(2.0)
    await pausing

    assert JobState.CANCELLED == (await world.replays.cancel("r")).state
    assert not world.journal.pins
    with pytest.raises(IllegalStatus):
        await world.replays.resume("r")


async def test_watch_tells_progress_to_the_end(world):
    await world.fill(5)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    seen: list[Job] = []

    async def watch() -> None:
        seen.extend([job async for job in world.replays.watch("r")])

    watching = asyncio.create_task(watch())
    await world.until_state("r")
    await world.clock.advance(1.0)
    await watching

    assert [0, 1, 2, 3, 4, 5] == list(dict.fromkeys(job.done for job in seen))
    assert JobState.COMPLETED == seen[-1].state
    assert {5} == {job.total for job in seen}


async def test_progress_is_saved_within_200_ms(world):
    await world.fill(2, routes=2)
    world.invoker.duration_s = 1.0
    world.invoker.script = lambda call, _number: OK
    await world.replays.start(ReplaySpec(name="r", concurrency=1))
    await world.until_calls(1)
    await world.clock.advance(1.0)
    await world.clock.advance(0.25)

    assert 1 == world.jobs.jobs["r"].done


async def test_progress_is_saved_after_100_events_without_time_passing(world):
    await world.fill(150)
    world.invoker.durations_s[uid(130)] = 60.0
    await world.replays.start(ReplaySpec(name="r"))

    await wait_until(lambda: world.jobs.jobs["r"].done >= 100)
    assert JobState.RUNNING == world.jobs.jobs["r"].state
    assert world.outcomes.flushes


async def test_retention_gets_what_is_finished(world):
    await world.fill(10)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)
    assert 0 == world.journal.pins["replay:r"]

    await world.clock.advance(5.3)
    await wait_until(lambda: world.journal.pins["replay:r"] == 5)
    await world.until_state("r")


async def test_what_retention_took_is_counted(world):
    await world.fill(1500)
    world.invoker.duration_s = 0.1
    await world.replays.start(ReplaySpec(name="r", ordered=False, concurrency=100))
    await world.until_calls(100)
    world.journal.drop_before(1450)

    job = await world.until_state("r")

    assert JobState.COMPLETED == job.state
    assert job.skipped > 0
    assert 1500 == job.done + job.skipped == job.total
    assert f"{job.skipped} of 1500" in job.reason


async def test_a_full_disk_holds_the_replay_and_loses_nothing(world):
    await world.fill(3)
    world.invoker.script = lambda _call, _number: ERROR
    world.dead_letters.fail_with = StoreFull("no space")
    await world.replays.start(ReplaySpec(name="r", retry_attempts=0))
    await world.until_calls(1)
    await world.clock.advance(30.0)
    assert 1 == len(world.invoker.calls)
    assert JobState.RUNNING == (await world.replays.get("r")).state

    world.dead_letters.fail_with = None
    job = await world.until_state("r")

    assert (JobState.COMPLETED, 3) == (job.state, job.failed)
    assert 3 == len(world.dead_letters.letters)


async def test_paused_on_a_full_disk_an_event_is_not_counted_as_dead(world):
    await world.fill(1)
    world.invoker.script = lambda _call, _number: ERROR
    world.dead_letters.fail_with = StoreFull("no space")
    await world.replays.start(ReplaySpec(name="r", retry_attempts=0))
    await world.until_calls(1)

    job = await world.replays.pause("r")
    assert (JobState.PAUSED, 0) == (job.state, job.failed)

    world.dead_letters.fail_with = None
    await world.replays.resume("r")
    assert 1 == (await world.until_state("r")).failed
    assert 1 == len(world.dead_letters.letters)


async def test_progress_that_cannot_be_saved_holds_the_replay(world):
    await world.fill(600)
    await world.replays.start(ReplaySpec(name="r"))
    world.jobs.fail_with = StoreFull("no space")
    for _ in range(100):
        await world.clock.advance(0.1)
        await asyncio.sleep(0.001)
    assert len(world.invoker.calls) <= 310

    world.jobs.fail_with = None
    job = await world.until_state("r")
    assert (JobState.COMPLETED, 600) == (job.state, job.done)


@pytest.mark.slow
async def test_a_broken_part_fails_the_job_with_a_reason(world):
    await world.fill(1)
    world.invoker.script = lambda _call, _number: 1 / 0

    job = await run(world)

    assert JobState.FAILED == job.state
    assert "ZeroDivisionError" in job.reason
    await settle()  # the pin goes once the state is kept
    assert not world.journal.pins


async def test_close_leaves_it_running_and_the_next_start_goes_on(world):
    await world.fill(10)
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)
    await world.clock.advance(2.5)
    closing = asyncio.create_task(world.replays.close(deadline_s=5.0))
    await world.clock.advance(2.0)
    await closing
    assert (JobState.RUNNING, 3) == (world.jobs.jobs["r"].state, world.jobs.jobs["r"].done)
    with pytest.raises(LimitExceeded, match="stopping"):
        await world.replays.start(ReplaySpec(name="late"))

    world.boot()
    await world.restart()
    job = await world.until_state("r")

    assert (JobState.COMPLETED, 10) == (job.state, job.done)
    assert [uid(n) for n in range(1, 11)] == world.invoker.ids()


async def test_close_cuts_what_runs_too_long_and_it_is_run_again(world):
    await world.fill(2)
    world.invoker.duration_s = 600.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)

    closing = asyncio.create_task(world.replays.close(deadline_s=5.0))
    await world.clock.advance(6.0)
    await closing
    assert world.invoker.calls[0].is_cut

    world.boot()
    await world.restart()
    world.invoker.duration_s = 0.0
    assert 2 == (await world.until_state("r")).done
    assert [uid(1), uid(1), uid(2)] == world.invoker.ids()


async def test_at_the_start_paused_ones_stay_and_half_cancelled_ones_end(world):
    await world.fill(2)
    spec = ReplaySpec(name="x").to_json()
    for name, state in (("paused", JobState.PAUSED), ("cancelling", JobState.CANCELLING)):
        await world.jobs.create(Job(name=name, kind="replay", state=state, spec=spec, cursor="0/2", total=2))

    await world.restart()

    assert JobState.PAUSED == (await world.replays.get("paused")).state
    assert JobState.CANCELLED == (await world.replays.get("cancelling")).state
    assert {"replay:paused": 1} == world.journal.pins


async def test_a_name_is_free_again_after_90_days(world):
    await run(world)
    await world.clock.advance(NAME_KEPT_S + 1)

    await world.restart()

    assert await world.replays.get("r") is None


# --- crashes ----------------------------------------------------------------------------------------------------------


async def crash_and_resume(
    crash_after: list[int], *, ordered: bool, concurrency: int, failing: frozenset[int], limit: int | None = None
) -> None:
    """Replay 40 of 50 events of 3 routes, killed after each of these numbers of writes."""
    world = World()
    records = await world.fill(50, routes=3)
    wanted = [record.id for number, record in enumerate(records, 1) if number % 5][:limit]
    failing_ids = {uid(number) for number in failing} & set(wanted)
    world.invoker.script = lambda call, _number: ERROR if call.id in failing_ids else OK
    world.invoker.duration_s = 0.01
    spec = ReplaySpec(
        name="r",
        ordered=ordered,
        concurrency=concurrency,
        retry_attempts=1,
        limit=limit,
        pattern=orjson.dumps({"n": [{"anything-but": list(range(5, 51, 5))}]}).decode(),
    )
    in_flight = 0
    for after in crash_after:
        world.disk.crash_after = world.disk.writes + after
        if "r" in world.jobs.jobs:
            await world.restart()
        else:
            await world.replays.start(spec)
        if (await world.until_state("r", step_s=0.02)).state is JobState.COMPLETED:
            break
        in_flight += concurrency
        await world.kill()
    world.disk.crash_after = None
    if world.jobs.jobs["r"].state is not JobState.COMPLETED and not world.replays._runs:
        await world.restart()
    job = await world.until_state("r", step_s=0.02)

    assert (JobState.COMPLETED, len(wanted), 0) == (job.state, job.total, job.skipped)
    assert (len(wanted) - len(failing_ids), len(failing_ids)) == (job.done, job.failed)
    assert set(wanted) == set(world.invoker.ids())
    assert {("replay:r", each) for each in failing_ids} == set(world.dead_letters.letters)
    calls = Counter(each for each in world.invoker.ids() if each not in failing_ids)
    assert calls.total() - len(calls) <= in_flight
    if ordered:
        for route in range(3):
            mine = [each for each in world.invoker.ids() if int(each[-12:], 16) % 3 == route]
            assert sorted(dict.fromkeys(mine)) == list(dict.fromkeys(mine))
    await world.close()


async def test_damaged_records_are_left_out_and_mentioned(world):
    await world.fill(6)
    world.journal.damaged = {1, 4}
    assert (await world.replays.count(ReplaySpec(name="r"))).damaged == 2

    await world.replays.start(ReplaySpec(name="r"))
    job = await world.until_state("r")

    assert (JobState.COMPLETED, 4, 4, 0) == (job.state, job.total, job.done, job.skipped)
    assert job.reason == "2 damaged records were left out; `bridge doctor` says where"
    assert len(world.invoker.calls) == 4


async def test_an_interrupted_replay_still_mentions_what_was_damaged(world):
    await world.fill(6)
    world.journal.damaged = {0}
    world.invoker.duration_s = 1.0
    await world.replays.start(ReplaySpec(name="r"))
    await world.until_calls(1)
    await world.kill()
    await world.restart()
    job = await world.until_state("r")

    assert (JobState.COMPLETED, 5) == (job.state, job.done)
    assert job.reason == "1 damaged record was left out; `bridge doctor` says where"


async def test_a_replay_that_is_cut_begins_nothing_more(world):
    await world.fill(20, routes=20)
    world.invoker.duration_s = 1.0
    before = asyncio.all_tasks()
    await world.replays.start(ReplaySpec(name="r", concurrency=3, ordered=False))
    await world.until_calls(3)

    await world.kill()
    await settle(30)

    assert len(world.invoker.calls) == 3
    assert asyncio.all_tasks() == before


@pytest.fixture
def small_pages(monkeypatch):
    """Read seven events at once, so that a few make many pages."""
    monkeypatch.setattr(selecting, "SCAN_CHUNK", 7)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    crash_after=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    ordered=st.booleans(),
    concurrency=st.sampled_from([1, 3, 8]),
    failing=st.frozensets(st.integers(1, 50), max_size=4),
    limit=st.none() | st.integers(1, 40),
)
@pytest.mark.slow
def test_killed_at_any_write_it_goes_on_without_a_gap(small_pages, crash_after, ordered, concurrency, failing, limit):
    asyncio.run(crash_and_resume(crash_after, ordered=ordered, concurrency=concurrency, failing=failing, limit=limit))


@pytest.mark.slow
def test_killed_at_every_write_in_turn(small_pages):
    async def all_of_them() -> None:
        for after in range(1, 60):
            await crash_and_resume([after], ordered=True, concurrency=3, failing=frozenset({2, 17}))

    asyncio.run(all_of_them())
