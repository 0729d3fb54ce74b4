"""Sending what waits for targets, on virtual time: order, back-off per target, refusals, restarts, random lives."""

import asyncio
import random
from dataclasses import replace

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core import limits
from bridge.core.errors import StoreFull
from bridge.core.invocation import AttemptStatus, Condition, DeadLetter
from bridge.core.outcome import OutboxEntry, OutcomeKind, RecordRefused, TargetPlace, TargetTrouble
from bridge.pipeline.outbox import OutboxSender
from bridge.testing.clock import ManualClock, settle
from bridge.testing.journal import MemoryOutcomes
from bridge.testing.outbox import MemoryOutbox, ScriptedTargets
from bridge.testing.store import MemoryDeadLetters

QUEUE = TargetPlace(target="arn:aws:sqs:eu-central-1:123456789012:q")
TOPIC = TargetPlace(target="arn:aws:sns:eu-central-1:123456789012:t")
DOWN = TargetTrouble("SendMessage: connection refused")


class World:
    """One sender over memory, which can be killed and started again."""

    def __init__(self, *, concurrency: int = 4) -> None:
        self.clock = ManualClock()
        self.letters = MemoryDeadLetters()
        self.store = MemoryOutbox(self.letters)
        self.targets = ScriptedTargets(concurrency=concurrency)
        self.outcomes = MemoryOutcomes()
        self.task: asyncio.Task[None] | None = None
        self.number = 0

    async def start(self) -> None:
        self.sender = OutboxSender(
            store=self.store, dead_letters=self.letters, transports=self.targets, outcomes=self.outcomes,
            clock=self.clock, rng=random.Random(7),
        )  # fmt: skip
        await self.sender.open()
        self.task = asyncio.create_task(self.sender.run())
        await settle()

    async def kill(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def put(self, *places: TargetPlace, kind: OutcomeKind = OutcomeKind.ON_FAILURE) -> str:
        self.number += 1
        event_id, now = f"event-{self.number}", self.clock.time()
        entries = [
            OutboxEntry(
                place=place, kind=kind, id=event_id, function="f", created_at=now, position=self.number,
                record=b"{}" if kind is OutcomeKind.ON_SUCCESS else b"",
            )
            for place in places or (QUEUE,)
        ]  # fmt: skip
        letter = None
        if kind is not OutcomeKind.ON_SUCCESS:
            letter = DeadLetter(
                id=event_id, queue="default", function="f", source="s", received_at=now, dead_at=now, payload=b"{}",
                condition=Condition.RETRIES_EXHAUSTED, attempts=3, state="waiting", position=self.number,
            )  # fmt: skip
        await self.store.put(entries, letter=letter)
        self.sender.added([entry.place for entry in entries])
        await settle()
        return event_id

    def taken(self, place: TargetPlace = QUEUE) -> list[str]:
        return [entry.id for entry, _ in self.targets[place.target].taken]

    def waiting(self, place: TargetPlace = QUEUE) -> list[str]:
        return [entry.id for entry in self.store._of(place)]


@pytest.fixture
async def world(loop_strict: None):
    made = World()
    await made.start()
    yield made
    await made.kill()


# --- sending ---------------------------------------------------------------------------------------------------------


async def test_what_is_put_is_sent_at_once_and_forgotten(world):
    one, two = await world.put(), await world.put(kind=OutcomeKind.ON_SUCCESS)
    await settle()

    assert world.taken() == [one, two]
    assert (world.store.entries, world.letters.letters) == ({}, {})
    assert await world.sender.status() == []
    (first, letter), (second, none) = world.targets[QUEUE.target].taken
    assert (first.kind, letter.id, second.kind, none) == (OutcomeKind.ON_FAILURE, one, OutcomeKind.ON_SUCCESS, None)


async def test_the_history_of_an_event_says_where_its_records_went(world):
    one = await world.put(QUEUE, TOPIC)
    await settle()

    rows = {(a.request_id, a.status, a.error_type, a.error_message, a.position) for a in world.outcomes.attempts}
    assert rows == {(one, AttemptStatus.SENT, "on_failure", place.target, 1) for place in (QUEUE, TOPIC)}


async def test_a_letter_goes_when_its_last_target_has_it(world):
    world.targets[TOPIC.target].fail_with = DOWN
    one = await world.put(QUEUE, TOPIC)
    await settle()
    assert world.taken() == [one]
    assert world.letters.letters["default", one].state == "waiting"

    world.targets[TOPIC.target].fail_with = None
    await world.clock.advance(5)

    assert world.taken(TOPIC) == [one]
    assert world.letters.letters == {}


async def test_at_most_so_many_are_sent_at_once_and_in_order(world):
    world.targets[QUEUE.target].gate = gate = asyncio.Event()
    sent = [await world.put() for _ in range(11)]
    assert world.targets[QUEUE.target].running <= 4
    gate.set()
    await settle(60)

    assert world.taken() == sent
    assert world.targets[QUEUE.target].running_max <= 4


async def test_a_slow_target_holds_no_other_up(world):
    world.targets[QUEUE.target].gate = asyncio.Event()
    one = await world.put(QUEUE, TOPIC)
    await settle()

    assert world.taken(TOPIC) == [one]


# --- a target in trouble ---------------------------------------------------------------------------------------------


async def test_a_target_that_is_down_is_asked_with_one_record_from_half_a_second_to_five_minutes_for_ever(world):
    target = world.targets[QUEUE.target]
    target.fail_with = DOWN
    sent = [await world.put() for _ in range(9)]
    await world.clock.advance(0.9)
    assert target.tries <= 4 + 2  # what was on its way, then two quick ones

    tries, times = target.tries, []
    for _ in range(7200):
        await world.clock.advance(0.5)
        if target.tries != tries:
            assert target.tries == tries + 1, "one probe, not one a record"
            tries = target.tries
            times.append(world.clock.monotonic())
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert len(times) < 25
    assert max(gaps) <= limits.TARGET_BACKOFF_MAX_S + 1
    assert min(gaps[-5:]) >= limits.TARGET_BACKOFF_MAX_S / 2 - 1
    assert gaps[0] <= 2

    (status,) = await world.sender.status()
    assert (status.waiting, status.last_error) == (9, str(DOWN))
    assert status.failing_since == pytest.approx(world.clock.time() - 3600.9, abs=1)
    assert status.retry_at > world.clock.time()
    target.fail_with = None
    await world.clock.advance(limits.TARGET_BACKOFF_MAX_S + 1)

    assert sorted(world.taken()) == sorted(sent)
    assert await world.sender.status() == []


async def test_records_that_come_while_it_is_down_do_not_ask_it_sooner(world):
    target = world.targets[QUEUE.target]
    target.fail_with = DOWN
    await world.put()
    await world.clock.advance(120)
    tries = target.tries

    for _ in range(20):
        await world.put()
    await settle()

    assert target.tries == tries + 1  # the second record: is it the target, or the first one?


async def test_each_target_backs_off_by_itself(world):
    world.targets[QUEUE.target].fail_with = DOWN
    await world.put(QUEUE)
    await world.clock.advance(1000)

    one = await world.put(TOPIC)
    await settle()

    assert world.taken(TOPIC) == [one]
    assert world.waiting(QUEUE) == ["event-1"]


async def test_what_the_target_asks_to_wait_is_waited(world):
    target = world.targets[QUEUE.target]
    target.fail_with = TargetTrouble("slow down", retry_after_s=30)
    await world.put()
    await world.clock.advance(29)
    assert target.tries == 1
    await world.clock.advance(2)

    assert target.tries == 2


async def test_pushed_it_is_tried_at_once(world):
    target = world.targets[QUEUE.target]
    target.fail_with = DOWN
    one = await world.put()
    await world.clock.advance(600)
    target.fail_with = None

    assert await world.sender.push(TOPIC) == 0
    assert await world.sender.push(QUEUE) == 1
    await settle()

    assert world.taken() == [one]


async def test_a_target_that_the_file_no_longer_reaches_is_trouble_that_may_end(world):
    world.targets.unknown.add(QUEUE.target)
    one = await world.put()
    await world.clock.advance(60)
    assert "no connection" in (await world.sender.status())[0].last_error

    world.targets.unknown.clear()
    await world.clock.advance(600)

    assert world.taken() == [one]


async def test_trouble_is_told_when_it_lasts(world):
    world.targets[QUEUE.target].fail_with = DOWN
    await world.put()
    await world.clock.advance(59)
    assert world.sender.troubles(after_s=60) == []
    await world.clock.advance(10)

    (line,) = world.sender.troubles(after_s=60)
    assert line.startswith(f"{QUEUE.target} takes nothing for 69 s, 1 record waits: SendMessage")


async def test_given_up_a_target_leaves_the_failures_as_dead_letters(world):
    world.targets[QUEUE.target].fail_with = DOWN
    one = await world.put()
    await world.put(kind=OutcomeKind.ON_SUCCESS)
    await world.clock.advance(60)

    assert await world.sender.give_up(QUEUE) == (1, 1)
    await settle()

    assert world.letters.letters["default", one].state == "dead"
    assert (await world.sender.status(), world.sender.troubles(after_s=0)) == ([], [])


async def test_a_fault_of_our_own_with_one_target_holds_no_other_up(world):
    world.targets[QUEUE.target].fail_with = KeyError("oops")
    with structlog.testing.capture_logs() as logged:
        one = await world.put(QUEUE, TOPIC)
        await world.clock.advance(60)

    assert "record_unsent" in {line["event"] for line in logged}
    assert world.taken(TOPIC) == [one]
    assert not world.task.done()
    assert world.sender.facts() == [
        (TOPIC.target, True, "0 records waiting"),
        (QUEUE.target, False, "1 record waiting: KeyError: 'oops'"),
    ]
    world.targets[QUEUE.target].fail_with = None
    await world.clock.advance(60)

    assert world.taken(QUEUE) == [one]


# --- a record in trouble ---------------------------------------------------------------------------------------------


async def test_a_record_that_fails_while_others_pass_waits_by_itself(world):
    target = world.targets[QUEUE.target]
    target.refuses["event-1"] = TargetTrouble("odd")
    target.gate = asyncio.Event()
    sent = [await world.put() for _ in range(5)]
    target.gate.set()
    await world.clock.advance(2)  # alone in its round, the first one made the target look as if it were down
    assert sorted(world.taken()) == sorted(sent[1:])

    later = await world.put()
    await settle(40)
    assert later in world.taken()  # nothing waits for the odd one
    target.refuses.clear()
    await world.clock.advance(limits.TARGET_BACKOFF_MAX_S)

    assert "event-1" in world.taken()


async def test_an_odd_record_does_not_stand_before_the_others_of_a_target_in_trouble(world):
    target = world.targets[QUEUE.target]
    target.fail_with = DOWN
    sent = [await world.put() for _ in range(6)]
    target.refuses["event-1"] = DOWN
    target.fail_with = None
    await world.clock.advance(60)

    assert sorted(world.taken()) == sorted(sent[1:])


async def test_what_is_too_large_is_pointed_at_and_stays(world):
    world.targets[QUEUE.target].refuses["event-1"] = RecordRefused("300000 bytes; it takes at most 262144")
    one = await world.put()
    await settle()

    ((entry, letter),) = world.targets[QUEUE.target].taken
    assert (entry.is_pointer, entry.last_error, letter.id) == (True, "300000 bytes; it takes at most 262144", one)
    assert world.letters.letters["default", one].state == "dead"
    assert world.store.entries == {}


async def test_a_success_that_is_too_large_is_kept_and_shown(world):
    world.targets[QUEUE.target].refuses["event-1"] = RecordRefused("too large")
    await world.put(kind=OutcomeKind.ON_SUCCESS)
    await settle()

    (status,) = await world.sender.status()
    assert (status.waiting, status.kept, status.failures) == (0, 1, 0)
    await world.clock.advance(1000)
    assert world.targets[QUEUE.target].tries == 2


async def test_what_cannot_even_be_pointed_at_stays_and_holds_nothing_up(world):
    target = world.targets[QUEUE.target]
    target.refuses["event-1"], target.refuses_pointers = RecordRefused("no"), True
    one, two = await world.put(), await world.put()
    await settle(40)

    assert world.taken() == [two]
    assert world.letters.letters["default", one].state == "dead"
    assert world.store.entries == {}


async def test_a_letter_that_is_gone_ends_its_entry(world):
    world.targets[QUEUE.target].fail_with = DOWN
    await world.put()
    world.letters.letters.clear()
    await world.clock.advance(60)

    assert world.store.entries == {}


# --- the disk, restarts, the end -------------------------------------------------------------------------------------


async def test_a_full_disk_is_waited_for_and_the_record_sent_again(world):
    world.store.fail_with = None
    target = world.targets[QUEUE.target]
    target.gate = asyncio.Event()
    one = await world.put()
    world.store.fail_with = StoreFull("no space")
    target.gate.set()
    await world.clock.advance(3)
    assert world.waiting() == [one]
    world.store.fail_with = None
    await world.clock.advance(3)

    assert world.waiting() == []
    assert set(world.taken()) == {one}


async def test_what_waited_is_sent_after_a_restart_at_once(world):
    world.targets[QUEUE.target].fail_with = DOWN
    sent = [await world.put() for _ in range(6)]
    await world.clock.advance(1000)
    await world.kill()
    world.targets[QUEUE.target].fail_with = None

    await world.start()
    await settle(40)

    assert sorted(world.taken()) == sorted(sent)


async def test_a_clock_that_was_set_back_holds_nothing_for_longer_than_the_back_off(world):
    await world.kill()
    entry = OutboxEntry(
        place=QUEUE, kind=OutcomeKind.ON_SUCCESS, id="x", function="f", created_at=0.0,
        due_at=world.clock.time() + 86_400,
    )  # fmt: skip
    await world.store.put([entry])
    await world.start()
    await world.clock.advance(limits.TARGET_BACKOFF_MAX_S + 1)

    assert world.taken() == ["x"]


async def test_a_drain_sends_what_it_can_and_leaves_a_target_in_trouble_alone(world):
    world.targets[TOPIC.target].fail_with = DOWN
    await world.put(TOPIC)
    await world.clock.advance(60)
    world.targets[QUEUE.target].gate = gate = asyncio.Event()
    one = await world.put(QUEUE)

    drain = asyncio.create_task(world.sender.drain(deadline_s=5))
    await settle()
    assert not drain.done()
    gate.set()
    await drain

    assert world.taken(QUEUE) == [one]
    assert world.waiting(TOPIC) == ["event-1"]


# --- random lives ----------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "both", "down", "up", "odd", "large", "wait", "long", "kill", "full", "push"]),
        st.sampled_from([QUEUE, TOPIC]),
    ),
    max_size=30,
)


@given(steps=STEPS, seed=st.integers(0, 1000))
@settings(max_examples=120, deadline=None)
def test_nothing_is_lost_whatever_happens(steps, seed):
    asyncio.run(life(steps, seed))


async def life(steps, seed):
    """Each record reaches each of its targets, whole or as a pointer, and then nothing is left but what stays."""
    world, chance = World(concurrency=3), random.Random(seed)
    await world.start()
    owed: list[tuple[str, TargetPlace]] = []
    for step, place in steps:
        target = world.targets[place.target]
        if step in ("put", "both"):
            places = (QUEUE, TOPIC) if step == "both" else (place,)
            kind = chance.choice(list(OutcomeKind))
            if world.store.fail_with is None:
                owed += [(await world.put(*places, kind=kind), one) for one in places[:1]]
                owed += [(owed[-1][0], one) for one in places[1:]]
        elif step in ("down", "up"):
            target.fail_with = DOWN if step == "down" else None
        elif step in ("odd", "large"):
            error = TargetTrouble("odd") if step == "odd" else RecordRefused("large")
            target.refuses[f"event-{world.number + 1}"] = error
        elif step == "full":
            world.store.fail_with = StoreFull("no space")
            await world.clock.advance(1)
            world.store.fail_with = None
        elif step == "kill":
            await world.kill()
            await world.start()
        elif step == "push":
            await world.sender.push(place)
        await world.clock.advance({"wait": 1.0, "long": 400.0}.get(step, 0.0))
    for target in world.targets.targets.values():
        target.fail_with = None
        target.refuses = {key: error for key, error in target.refuses.items() if isinstance(error, RecordRefused)}
    await world.clock.advance(2 * limits.TARGET_BACKOFF_MAX_S + 10)
    await settle(100)

    for event_id, place in owed:
        assert event_id in world.taken(place), "lost"
    assert all(entry.is_kept and entry.kind is OutcomeKind.ON_SUCCESS for entry in world.store.entries.values())
    pointed = {
        entry.id for place in (QUEUE, TOPIC) for entry, _ in world.targets[place.target].taken if entry.is_pointer
    }
    assert {event_id for _, event_id in world.letters.letters} | {
        entry.id for entry in world.store.entries.values()
    } == pointed
    assert all(replace(letter, state="dead") == letter for letter in world.letters.letters.values())
    await world.kill()
