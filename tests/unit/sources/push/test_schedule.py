"""The schedule source in virtual time: every tick is stored once, whatever the daemon, the disk and the clock do."""

import asyncio
import contextlib
import datetime as dt
import json
from dataclasses import replace

import pytest

from bridge.core import limits
from bridge.core.errors import LaneFull, StoreError, StoreFull
from bridge.core.push import Given, NotAccepted
from bridge.core.schedules import Missed
from bridge.sources.push.schedule import ScheduleSource, ScheduleSpec
from bridge.testing.clock import ManualClock, settle
from bridge.testing.push import MemoryIntake
from bridge.testing.schedules import MemoryScheduleStates

START = int(dt.datetime(2026, 1, 1, 9, 58, 30, tzinfo=dt.UTC).timestamp())
SPEC = ScheduleSpec(name="nightly", expression="cron(0/5 * * * ? *)", function="report")


class Rig:
    """A daemon's worth of what a schedule needs; `started()` is one run of it, over what the last one left."""

    def __init__(self, spec=SPEC, *, time=START):
        self.spec = spec
        self.clock = ManualClock(time=time + 0.25)
        self.intake = MemoryIntake()
        self.states = MemoryScheduleStates()
        self.source = None
        self.looked = []

    async def is_stored(self, source, request_id, position):
        self.looked.append(position)
        return any(record.id == request_id for record in self.intake.stored[position:])

    @contextlib.asynccontextmanager
    async def started(self, **changes):
        self.source = ScheduleSource(
            replace(self.spec, **changes),
            intake=self.intake,
            states=self.states,
            is_stored=self.is_stored,
            journal_end=lambda: len(self.intake.stored),
            clock=self.clock,
        )
        task = asyncio.create_task(self.source.run())
        await settle()
        try:
            yield self.source
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def ticks(self):
        return [json.loads(record.payload)["time"][11:19] for record in self.intake.stored]


@pytest.fixture
def rig():
    return Rig()


async def test_a_tick_becomes_an_event_at_its_second_and_not_before(rig):
    async with rig.started() as source:
        await rig.clock.advance(89.5)
        assert rig.ticks() == []
        await rig.clock.advance(0.5)

        assert rig.ticks() == ["10:00:00"]
        assert source.next_at == START + 90 + 300
        assert source.last_at == START + 90
    record = rig.intake.stored[0]
    assert (record.source, record.function, record.delivery_id) == ("nightly", "report", "2026-01-01T10:00:00Z")
    assert json.loads(record.payload) == {
        "version": "0", "id": record.id, "detail-type": "Scheduled Event", "source": "aws.events", "account": "000000000000",
        "time": "2026-01-01T10:00:00Z", "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:000000000000:rule/nightly"], "detail": {},
    }  # fmt: skip


async def test_hours_of_ticks_are_whole_and_in_order(rig):
    async with rig.started():
        await rig.clock.advance(4 * 3600)

    assert len(rig.intake.stored) == 48
    assert sorted(set(rig.ticks())) == sorted(rig.ticks())


async def test_a_rate_ticks_at_once_and_keeps_its_beat_over_restarts():
    rig = Rig(replace(SPEC, expression="rate(2 minutes)"))
    async with rig.started():
        await rig.clock.advance(250)
    async with rig.started():
        await rig.clock.advance(120)

    assert rig.ticks() == ["09:58:30", "10:00:30", "10:02:30", "10:04:30"]


async def test_the_same_tick_has_the_same_id_in_another_life_and_another_tick_another():
    ids = []
    for _ in range(2):
        rig = Rig()
        async with rig.started():
            await rig.clock.advance(400)
        ids.append([record.id for record in rig.intake.stored])

    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


async def test_json_of_the_file_is_the_event_as_it_is(rig):
    async with rig.started(payload=b'{"a": [1,  2]}'):
        await rig.clock.advance(90)

    assert [record.payload for record in rig.intake.stored] == [b'{"a": [1,  2]}']


# --- ends of the daemon ----------------------------------------------------------------------------------------------
async def test_killed_between_claim_and_event_the_tick_comes_with_the_next_start(rig):
    rig.intake.gate.clear()
    async with rig.started() as source:
        await rig.clock.advance(90)
        claimed = rig.states.states["nightly"]
        assert (claimed.claimed, claimed.passed < claimed.claimed) == (START + 90, True)
        await let_go(rig, source)
    rig.intake.stored.clear()  # kill -9: the append never was
    rig.states.states["nightly"] = claimed
    async with rig.started():
        await rig.clock.advance(5)

    assert rig.ticks() == ["10:00:00"]


async def let_go(rig, source):
    """Let what is being stored end, and no further tick begin."""
    rig.intake.gate.set()
    await source.drain()


async def test_killed_between_event_and_note_the_tick_does_not_come_again(rig):
    async with rig.started():
        await rig.clock.advance(89)
        before = rig.states.states["nightly"]
        await rig.clock.advance(1)
    # kill -9: the claim is the last thing that the store has.
    rig.states.states["nightly"] = replace(before, claimed=START + 90, position=0)
    async with rig.started():
        await rig.clock.advance(30)

    assert rig.ticks() == ["10:00:00"]
    assert rig.looked == [0]


@pytest.mark.parametrize("missed", Missed)
async def test_killed_behind_an_event_long_ago_no_policy_repeats_it(rig, missed):
    async with rig.started():
        await rig.clock.advance(90)
        state = rig.states.states["nightly"]
    rig.states.states["nightly"] = replace(state, passed=START, claimed=START + 90, position=0)
    await rig.clock.advance(200)  # down, and no further tick was missed
    async with rig.started(missed=missed):
        await settle()

    assert rig.ticks() == ["10:00:00"]


async def test_a_store_that_cannot_note_a_tick_does_not_repeat_it(rig):
    async with rig.started():
        await rig.clock.advance(89)
        rig.intake.gate.clear()
        await rig.clock.advance(1)
        rig.states.fail_with = StoreFull("no space")
        rig.intake.gate.set()
        await settle()
        assert rig.ticks() == ["10:00:00"]
        rig.states.fail_with = None
        await rig.clock.advance(300)
    async with rig.started():
        await settle()

    assert rig.ticks() == ["10:00:00", "10:05:00"]


async def test_a_drain_finishes_the_tick_that_is_being_stored_and_begins_none(rig):
    rig.intake.gate.clear()
    async with rig.started() as source:
        await rig.clock.advance(90)
        draining = asyncio.create_task(source.drain())
        await settle()
        assert not draining.done()
        rig.intake.gate.set()
        await draining
        await rig.clock.advance(600)

    assert rig.ticks() == ["10:00:00"]


async def test_a_cancel_waits_until_it_is_known_whether_the_tick_is_stored(rig):
    rig.intake.gate.clear()
    async with rig.started():
        await rig.clock.advance(90)
        asyncio.get_running_loop().call_later(0, rig.intake.gate.set)

    assert rig.ticks() == ["10:00:00"]
    assert rig.states.states["nightly"].passed == START + 90


# --- missed ticks ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        (Missed.SKIP, ["10:20:00"]),
        (Missed.ONCE, ["10:15:00", "10:20:00"]),
        (Missed.ALL, ["10:05:00", "10:10:00", "10:15:00", "10:20:00"]),
    ],
)
async def test_ticks_of_a_stopped_daemon_come_as_the_policy_says(rig, missed, expected):
    async with rig.started():
        await rig.clock.advance(90)
    await rig.clock.advance(1100)  # 10:18:20
    async with rig.started(missed=missed):
        await rig.clock.advance(100)
        assert rig.source.next_at == START + 90 + 1500

    assert rig.ticks() == ["10:00:00", *expected]


async def test_a_tick_less_than_a_minute_ago_was_not_missed(rig):
    async with rig.started():
        await rig.clock.advance(90)
    await rig.clock.advance(340)  # down from 10:00:00 to 10:05:40
    async with rig.started(missed=Missed.SKIP):
        await settle()

    assert rig.ticks() == ["10:00:00", "10:05:00"]


async def test_what_is_made_up_for_is_bounded_by_the_newest(rig):
    async with rig.started(expression="cron(* * * * ? *)"):
        await rig.clock.advance(30)
    await rig.clock.advance(40 * 86_400)
    async with rig.started(expression="cron(* * * * ? *)", missed=Missed.ALL):
        await settle(passes=20_000)

    late = rig.intake.stored[1:]
    assert limits.SCHEDULE_MISSED_MAX <= len(late) <= limits.SCHEDULE_MISSED_MAX + 2
    assert json.loads(late[-1].payload)["time"] == "2026-02-10T09:59:00Z"


async def test_skipped_ticks_are_told_once(rig):
    async with rig.started():
        await rig.clock.advance(90)
    await rig.clock.advance(1100)
    async with rig.started(missed=Missed.SKIP):
        await settle()
    state = rig.states.states["nightly"]

    assert state.passed == START + 90 + 900


async def test_another_expression_or_zone_begins_anew(rig):
    async with rig.started():
        await rig.clock.advance(90)
    await rig.clock.advance(1000)
    async with rig.started(zone="Europe/Berlin"):
        await rig.clock.advance(10)

    assert rig.ticks() == ["10:00:00"]


async def test_a_time_that_has_passed_at_the_first_start_never_ticks():
    rig = Rig(replace(SPEC, expression="at(2026-01-01T09:00:00)"))
    async with rig.started() as source:
        await rig.clock.advance(7200)
        assert source.next_at is None

    assert rig.ticks() == []


# --- disk and lane ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("refusal", [StoreFull("no space on disk"), LaneFull("too many events wait")])
async def test_a_full_disk_or_lane_holds_the_tick_until_there_is_room(rig, refusal):
    rig.intake.refusal = refusal
    async with rig.started() as source:
        await rig.clock.advance(110)
        assert source.trouble == f"a tick waits to be stored: {refusal}"
        rig.intake.refusal = None
        await rig.clock.advance(30)

        assert rig.ticks() == ["10:00:00"]
        assert source.trouble == ""


@pytest.mark.parametrize(
    ("missed", "expected"),
    [(Missed.SKIP, []), (Missed.ONCE, ["10:10:00"]), (Missed.ALL, ["10:00:00", "10:05:00", "10:10:00"])],
)
async def test_what_is_full_for_long_is_missed(rig, missed, expected):
    rig.intake.refusal = StoreFull("no space on disk")
    async with rig.started(missed=missed):
        await rig.clock.advance(900)  # 10:13:30
        rig.intake.refusal = None
        await rig.clock.advance(70)

    assert rig.ticks() == expected


async def test_tries_back_off(rig):
    tries = []

    async def refuse(record, *, deduplicate_s=0.0):
        tries.append(rig.clock.monotonic())
        raise StoreFull("no space on disk")

    rig.intake.submit = refuse
    async with rig.started(missed=Missed.ALL):
        await rig.clock.advance(90 + 3600)

    gaps = [round(later - earlier) for earlier, later in zip(tries, tries[1:], strict=False)]
    assert gaps[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert set(gaps[7:]) == {60}


async def test_a_claim_that_cannot_be_stored_stores_no_event(rig):
    async with rig.started() as source:
        rig.states.fail_with = StoreError("disk")
        await rig.clock.advance(95)
        assert rig.ticks() == []
        assert "disk" in source.trouble
        rig.states.fail_with = None
        await rig.clock.advance(30)

    assert rig.ticks() == ["10:00:00"]


# --- the clock -------------------------------------------------------------------------------------------------------
async def test_a_clock_set_back_repeats_no_tick_and_is_told(rig):
    async with rig.started() as source:
        await rig.clock.advance(390)  # 10:05:00
        rig.clock.step(-3600)
        await rig.clock.advance(600)
        assert "set back: no tick until 2026-01-01T10:05:00Z" in source.trouble
        await rig.clock.advance(3000)
        assert rig.ticks() == ["10:00:00", "10:05:00"]
        await rig.clock.advance(300)

        assert rig.ticks() == ["10:00:00", "10:05:00", "10:10:00"]
        assert source.trouble == ""


async def test_a_clock_set_back_over_a_restart_repeats_no_tick(rig):
    async with rig.started():
        await rig.clock.advance(390)
    rig.clock.step(-1800)
    async with rig.started(missed=Missed.ALL):
        await rig.clock.advance(1800)

    assert rig.ticks() == ["10:00:00", "10:05:00"]


async def test_a_clock_set_forward_is_noticed_soon_and_what_lies_between_was_missed(rig):
    async with rig.started():
        await rig.clock.advance(90)
        rig.clock.step(1800)  # 10:30:00
        await rig.clock.advance(limits.SCHEDULE_LOOK_S)

        # 10:30 is a tick of now, and the missed ones come with it.
        assert rig.ticks() == ["10:00:00", "10:30:00"]


# --- by hand ---------------------------------------------------------------------------------------------------------
async def test_a_tick_by_hand_is_an_event_beside_the_schedule(rig):
    async with rig.started() as source:
        first = await source.feed(Given())
        second = await source.feed(Given(at=0.9))
        await rig.clock.advance(90)

    assert [*first.ids, *second.ids] == [record.id for record in rig.intake.stored[:2]]
    assert rig.ticks() == ["09:58:30", "00:00:00", "10:00:00"]


async def test_a_schedule_takes_no_data(rig):
    async with rig.started() as source:
        with pytest.raises(NotAccepted, match="its event is the tick's own"):
            await source.feed(Given(data=b"{}"))
