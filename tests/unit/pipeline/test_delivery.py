"""Asynchronous delivery on virtual time, against lambda-semantics 2.1 (annex B checks 6 to 9)."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from bridge.core.errors import FunctionNotFound, LaneFull, RecursiveInvocation, StoreCorrupt, StoreFull, Throttled
from bridge.core.function import EventInvokeConfig, Function, FunctionVersion, function_arn
from bridge.core.invocation import (
    THROTTLE_RESERVED,
    AttemptStatus,
    Condition,
    DeadLetter,
    InvocationResult,
    InvocationType,
    ResultKind,
)
from bridge.core.record import Parked, Record
from bridge.destinations.spill import Spill
from bridge.events.outcomes import error_code
from bridge.invokers.service import FunctionService
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.dispatcher import Dispatcher
from bridge.pipeline.intake import JournalIntake
from bridge.testing.clock import ManualClock, settle
from bridge.testing.journal import MemoryJournal, MemoryOutcomes
from bridge.testing.runtime import ScriptedRuntime
from bridge.testing.store import MemoryDeadLetters, MemoryMarks, MemoryParked


class InlineExecutor(ThreadPoolExecutor):
    """Runs at once what is meant for a thread: virtual time knows nothing of real threads."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Catalog:
    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}

    def get(self, name: str) -> Function:
        try:
            return self.functions[name]
        except KeyError:
            raise FunctionNotFound(f"Function not found: {function_arn(name)}:$LATEST") from None


class World:
    """One daemon's delivery, in memory, on a clock of our own."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.catalog = Catalog()
        self.runtime = ScriptedRuntime(self.clock)
        self.journal = MemoryJournal()
        self.outcomes = MemoryOutcomes()
        self.parked = MemoryParked()
        self.dead = MemoryDeadLetters(self.parked)
        self.marks = MemoryMarks()
        self.tasks: list[asyncio.Task[None]] = []

    def function(self, name: str = "f", *, reserved: int | None = None, **config: object) -> None:
        version = FunctionVersion(name=name, arn=function_arn(name), code="/x", revision="1", handler="a.b")
        self.catalog.functions[name] = Function(
            name=name, latest=version, reserved_concurrency=reserved, event_invoke=EventInvokeConfig(**config)
        )

    def make_delivery(self) -> AsyncDelivery:
        return AsyncDelivery(
            outcomes=self.outcomes,
            parked=self.parked,
            dead_letters=self.dead,
            destination=Spill(self.dead),
            clock=self.clock,
        )

    async def start(self, **options: int) -> None:
        asyncio.get_running_loop().set_default_executor(InlineExecutor(max_workers=1))
        self.service = FunctionService(catalog=self.catalog, runtime=self.runtime, clock=self.clock)
        self.delivery = self.make_delivery()
        self.dispatcher = Dispatcher(
            service=self.service,
            delivery=self.delivery,
            journal=self.journal,
            outcomes=self.outcomes,
            parked=self.parked,
            dead_letters=self.dead,
            marks=self.marks,
            clock=self.clock,
            **options,
        )
        self.intake = JournalIntake(journal=self.journal, dispatcher=self.dispatcher, clock=self.clock)
        await self.dispatcher.open(list(self.catalog.functions))
        await self.intake.open(window_s=300)
        self.tasks.append(asyncio.create_task(self.dispatcher.run()))
        self.dispatcher.kick()
        await settle()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        self.dispatcher._draining = True  # as dead as after kill -9: it starts nothing any more

    async def post(
        self, *, function: str = "f", delivery_id: str = "", payload: bytes = b"{}", source: str = "r"
    ) -> str:
        record = Record(
            id=str(uuid.uuid4()),
            source=source,
            function=function,
            invocation_type=InvocationType.EVENT,
            received_at=self.clock.time(),
            payload=payload,
            delivery_id=delivery_id,
        )
        receipt = await self.intake.submit(record, deduplicate_s=300)
        await settle()
        return receipt.id

    def starts(self, name: str = "f") -> list[float]:
        return [round(at, 3) for at, function, _ in self.runtime.invocations if function == name]

    def conditions(self) -> list[tuple[Condition, int]]:
        return [(letter.condition, letter.attempts) for letter in self.dead.letters.values()]


@pytest.fixture
async def world(loop_strict: None) -> AsyncIterator[World]:
    made = World()
    yield made
    await made.stop()
    await made.dispatcher.drain(deadline_s=0)


def boom(_: object) -> object:
    raise ValueError("boom")


async def test_check_07_a_handler_that_always_fails_runs_three_times_at_0_60_and_180_s_with_one_request_id(world):
    world.function()
    world.runtime.handlers["f"] = boom
    await world.start()
    request_id = await world.post()

    await world.clock.advance(600)

    assert world.starts() == [0.0, 60.0, 180.0]
    assert world.runtime.asked() == [request_id] * 3
    assert world.conditions() == [(Condition.RETRIES_EXHAUSTED, 3)]
    assert world.parked.entries == {}


@pytest.mark.parametrize(("age_s", "attempts"), [(60, 1), (90, 2)])
async def test_check_08_the_age_test_looks_ahead(world, age_s, attempts):
    world.function(maximum_event_age_s=age_s)
    world.runtime.handlers["f"] = boom
    await world.start()
    await world.post()

    await world.clock.advance(300)

    assert world.conditions() == [(Condition.EVENT_AGE_EXCEEDED, attempts)]
    assert len(world.starts()) == attempts


async def test_check_09_ten_minutes_of_throttles_are_tried_again_and_use_no_retry(world):
    world.function(maximum_retry_attempts=0)
    throttled = world.runtime.invoke

    async def invoke(version, invocation):
        if world.clock.monotonic() < 600:
            world.runtime.invocations.append((world.clock.monotonic(), version.name, invocation))
            raise Throttled(THROTTLE_RESERVED)
        return await throttled(version, invocation)

    world.runtime.invoke = invoke
    await world.start()
    request_id = await world.post()

    await world.clock.advance(1200)

    assert len(world.starts()) > 3
    assert world.runtime.asked() == [request_id] * len(world.starts())
    assert world.conditions() == []
    assert world.outcomes.attempts[-1].status is AttemptStatus.OK


async def test_throttles_and_system_errors_use_no_retry_and_back_off_for_up_to_six_hours(world):
    world.function()
    broken = {"until": 3600.0}

    def handler(_: object) -> object:
        if world.clock.monotonic() < broken["until"]:
            return InvocationResult(kind=ResultKind.UNKNOWN, payload=b"", version="", error_type="ServiceException")
        return "fine"

    world.runtime.handlers["f"] = handler
    await world.start()
    await world.post()

    await world.clock.advance(21_600)

    assert world.conditions() == []
    assert world.parked.entries == {}
    assert len(world.starts()) > 5
    gaps = [b - a for a, b in zip(world.starts(), world.starts()[1:], strict=False)]
    assert max(gaps) <= 302 and gaps[0] >= 1
    assert world.outcomes.attempts[-1].status is AttemptStatus.OK


async def test_a_target_that_stays_broken_ends_as_event_age_exceeded(world):
    world.function()

    world.runtime.handlers["f"] = lambda _: InvocationResult(kind=ResultKind.UNKNOWN, payload=b"", version="")
    await world.start()
    await world.post()

    await world.clock.advance(22_000)

    assert world.conditions() == [(Condition.EVENT_AGE_EXCEEDED, 0)]


async def test_reserved_concurrency_0_goes_to_the_dead_letters_at_once_and_unrun(world):
    world.function(reserved=0)
    await world.start()
    await world.post()
    await world.clock.advance(2)

    assert world.starts() == []
    assert world.conditions() == [(Condition.ZERO_RESERVED_CONCURRENCY, 0)]


async def test_an_event_of_a_loop_is_a_dead_letter_at_once_and_unrun(world):
    world.function()
    await world.start()
    record = Record(
        id="r", source="invoke", function="f:live", invocation_type=InvocationType.EVENT, received_at=1.0, payload=b"{}"
    )
    await world.delivery.refuse(record, Condition.RECURSIVE_LOOP, RecursiveInvocation("f was invoked 16 times"))

    letter = await world.dead.get("r", queue="default")
    assert (letter.condition, letter.function, letter.attempts) == (Condition.RECURSIVE_LOOP, "f:live", 0)
    assert (letter.error_type, letter.error_message) == ("RecursiveInvocationException", "f was invoked 16 times")
    assert error_code(letter) == 400
    assert (world.starts(), letter.history) == ([], ())
    world.dead.fail_with = StoreFull("full")
    with pytest.raises(StoreFull):
        await world.delivery.refuse(record, Condition.RECURSIVE_LOOP, RecursiveInvocation("again"))


async def test_the_events_of_a_removed_function_become_dead_letters(world):
    world.function()
    world.runtime.slots = 0
    await world.start()
    await world.post()
    del world.catalog.functions["f"]
    await world.clock.advance(2)

    assert world.conditions() == [(Condition.FUNCTION_NOT_FOUND, 0)]


async def test_events_too_old_are_given_up_without_a_slot(world):
    world.function(maximum_event_age_s=60)
    world.runtime.slots = 0
    await world.start()
    await world.post()
    await world.clock.advance(62)

    assert world.conditions() == [(Condition.EVENT_AGE_EXCEEDED, 0)]


async def test_a_local_limit_is_no_throttle_the_event_waits_unparked_at_the_head_of_its_lane(world):
    world.function(reserved=2)
    world.runtime.duration_s["f"] = 10
    await world.start()
    ids = [await world.post() for _ in range(6)]
    await world.clock.advance(60)

    assert world.runtime.running_max == 2
    assert world.runtime.asked() == ids
    assert world.starts() == [0.0, 0.0, 10.0, 10.0, 20.0, 20.0]
    assert world.parked.entries == {}


async def test_free_slots_go_round_over_waiting_lanes(world):
    world.function("a")
    world.function("b")
    world.runtime.slots = 2
    world.runtime.duration_s |= {"a": 1, "b": 1}
    await world.start()
    for _ in range(6):
        await world.post(function="a")
    for _ in range(2):
        await world.post(function="b")
    await world.clock.advance(10)

    assert world.starts("b") == [1.0, 2.0]
    assert world.starts("a") == [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]


async def test_retries_get_half_of_the_slots_while_fresh_events_wait(world):
    world.function(reserved=4, retry_delays_s=(5.0,))
    world.runtime.duration_s["f"] = 1
    failing: set[str] = set()

    def handler(invocation: object) -> object:
        if invocation.request_id in failing:
            failing.discard(invocation.request_id)
            raise ValueError("once")
        return None

    world.runtime.handlers["f"] = handler
    await world.start()
    failing.update([await world.post() for _ in range(8)])
    first = set(failing)
    await world.clock.advance(5.5)
    for _ in range(16):
        await world.post()
    await world.clock.advance(1.4)
    second_wave = [i.request_id for at, _, i in world.runtime.invocations if at >= 5]

    retried = sum(request_id in first for request_id in second_wave)
    assert 1 <= retried <= len(second_wave) / 2 + 2
    await world.clock.advance(30)
    assert len(world.runtime.invocations) == 8 + 8 + 16


async def test_younger_events_go_on_while_one_is_parked(world):
    world.function()
    poison = b'{"poison":true}'
    world.runtime.handlers["f"] = lambda i: boom(i) if i.payload == poison else "ok"
    await world.start()
    await world.post(payload=poison)
    ids = [await world.post() for _ in range(3)]

    assert world.runtime.asked()[1:] == ids
    await world.clock.advance(400)
    assert world.conditions() == [(Condition.RETRIES_EXHAUSTED, 3)]


async def test_a_restart_keeps_attempts_and_due_times(world):
    world.function()
    world.runtime.handlers["f"] = boom
    await world.start()
    await world.post()
    await world.clock.advance(30)
    await world.stop()
    await world.clock.advance(10)
    await world.start()
    await world.clock.advance(300)

    assert world.starts() == [0.0, 60.0, 180.0]
    assert world.conditions() == [(Condition.RETRIES_EXHAUSTED, 3)]


async def test_a_restart_runs_what_was_stored_and_not_finished_and_nothing_else(world):
    world.function()
    await world.start()
    done = await world.post()
    world.runtime.slots = 0
    waiting = [await world.post() for _ in range(3)]
    await world.clock.advance(1)
    await world.stop()
    world.runtime.slots = 1000
    await world.start()
    await world.clock.advance(1)

    assert world.runtime.asked() == [done, *waiting]


async def test_a_clock_set_back_stretches_no_wait(world):
    world.function()
    world.runtime.handlers["f"] = boom
    await world.start()
    await world.post()
    await world.stop()
    for key, entry in list(world.parked.entries.items()):
        world.parked.entries[key] = replace(entry, due_at=entry.due_at + 86_400)
    await world.start()
    await world.clock.advance(61)

    assert world.starts() == [0.0, 60.0]


async def test_a_full_disk_keeps_the_event_until_the_dead_letter_is_stored(world):
    world.function(maximum_retry_attempts=0)
    world.runtime.handlers["f"] = boom
    await world.start()
    world.dead.fail_with = StoreFull("no space")
    await world.post()
    await world.clock.advance(20)
    assert world.conditions() == []
    assert world.delivery.unsettled == 1
    world.dead.fail_with = None
    await world.clock.advance(5)

    assert world.conditions() == [(Condition.RETRIES_EXHAUSTED, 1)]
    assert world.delivery.unsettled == 0
    assert len(world.starts()) == 1


async def test_a_full_lane_pushes_back_and_only_that_lane(world):
    world.function("f")
    world.function("g")
    world.runtime.slots = 0
    await world.start(lane_events_max=3)
    for _ in range(3):
        await world.post()
    with pytest.raises(LaneFull):
        await world.post()
    await world.post(function="g")
    world.runtime.slots = 1000
    world.dispatcher.kick()
    await settle()
    await world.post()

    assert len(world.starts()) == 4


async def test_a_duplicate_delivery_gets_the_first_id_and_is_not_run_twice(world):
    world.function()
    await world.start()
    first = await world.post(delivery_id="d1")
    second = await world.post(delivery_id="d1")
    other_route = await world.post(delivery_id="d1", source="other")

    assert first == second != other_route
    assert world.runtime.asked() == [first, other_route]


async def test_duplicates_are_known_after_a_restart_and_forgotten_after_the_window(world):
    world.function()
    await world.start()
    first = await world.post(delivery_id="d1")
    await world.stop()
    await world.start()
    assert await world.post(delivery_id="d1") == first
    await world.clock.advance(301)

    assert await world.post(delivery_id="d1") != first


async def test_a_duplicate_of_an_event_that_could_not_be_stored_is_tried_itself(world):
    world.function()
    await world.start()
    world.journal.fail_with = StoreFull("no space")
    with pytest.raises(StoreFull):
        await world.post(delivery_id="d1")
    world.journal.fail_with = None
    second = await world.post(delivery_id="d1")

    assert world.runtime.asked() == [second]


async def test_retention_learns_what_is_unfinished(world):
    world.function()
    world.runtime.slots = 1
    world.runtime.duration_s["f"] = 100
    await world.start()
    for _ in range(3):
        await world.post()

    assert world.dispatcher.unfinished(0, 2) == [0, 1]
    assert world.dispatcher.unfinished(0, 99) == [0, 1, 2]


async def test_explain_says_what_an_event_waits_for(world):
    world.function(reserved=1)
    world.runtime.duration_s["f"] = 5
    world.runtime.handlers["f"] = boom
    await world.start()
    first, second = [await world.post() for _ in range(2)]

    async def why(request_id: str) -> str:
        return await world.dispatcher.explain(world.journal.find(request_id))

    assert await why(first) == "running now: attempt 1"
    assert "waits for a free slot" in await why(second)
    await world.clock.advance(5)
    assert await why(first) == "retry 1 due in 60 s after ValueError: boom"
    await world.clock.advance(500)
    assert await why(first) == ""


async def test_a_drain_starts_nothing_new_and_what_is_cut_off_runs_at_the_next_start(world):
    world.function(reserved=1)
    world.runtime.duration_s["f"] = 5
    await world.start()
    first, second = [await world.post() for _ in range(2)]
    draining = asyncio.create_task(world.dispatcher.drain(deadline_s=0))
    await settle()

    assert await draining == 1
    await world.stop()
    world.runtime.duration_s["f"] = 0
    await world.start()
    await world.clock.advance(1)
    assert world.runtime.asked() == [first, first, second]


async def test_six_hours_of_retries_take_no_time(world):
    world.function()
    world.runtime.handlers["f"] = lambda _: InvocationResult(kind=ResultKind.UNKNOWN, payload=b"", version="")
    await world.start()
    for _ in range(20):
        await world.post()
    await world.clock.advance(6 * 3600 + 300)

    assert world.conditions() == [(Condition.EVENT_AGE_EXCEEDED, 0)] * 20


async def test_a_buffer_that_overflows_is_found_again_through_the_index(world):
    world.function()
    world.runtime.slots = 0
    await world.start()
    lane = world.dispatcher.lane("f")
    lane._buffer_events_max = 2
    ids = [await world.post() for _ in range(9)]
    assert world.dispatcher.status()[0].waiting == 9
    world.runtime.slots = 1
    world.dispatcher.kick()
    await world.clock.advance(5)

    assert world.runtime.asked() == ids
    assert world.dispatcher.status()[0].waiting == 0


async def test_an_attempt_that_breaks_on_our_side_is_run_again(world, loop_strict):
    loop_strict.deactivate()  # the traceback for the log reads the source
    world.function()
    await world.start()
    append, world.outcomes.append = world.outcomes.append, None  # whatever it is: our own code raises
    request_id = await world.post()
    assert world.dispatcher.status()[0].state == "backing off"
    world.outcomes.append = append
    await world.clock.advance(6)

    assert world.runtime.asked() == [request_id] * 2
    assert world.dispatcher.status()[0].waiting == 0


@pytest.mark.parametrize(
    ("answer", "succeeds"),
    [
        (None, True),
        ({}, True),
        ({"batchItemFailures": []}, True),
        ({"batchItemFailures": [{"itemIdentifier": "x"}]}, False),
        ("what", False),
    ],
)
async def test_a_redriven_batch_whose_answer_names_failed_records_has_failed(world, answer, succeeds):
    world.function(maximum_retry_attempts=0)
    world.runtime.handlers["f"] = lambda _: answer
    await world.start()
    letter = DeadLetter(
        id="8d1f4a52-7f3c-4b53-8d8b-0d8f5a3f7c11", queue="default", function="f", source="m", received_at=1.0,
        dead_at=world.clock.time(), condition=Condition.RETRY_ATTEMPTS_EXHAUSTED, attempts=1, payload=b'{"Records":[]}',
        mapping="m", item_failures=True, outcome=b"{}",
    )  # fmt: skip
    await world.dead.put(letter)
    record = Record(
        id=letter.id, source="m", function="f", invocation_type=InvocationType.EVENT, received_at=1.0,
        payload=letter.payload,
    )  # fmt: skip
    now = world.clock.time()
    entry = Parked(
        record=record, attempts=0, due_at=now, delay_s=0, first_attempt_at=now, redrive=True, item_failures=True
    )
    await world.dead.redrive(letter, entry)
    world.dispatcher.due("f")
    await world.clock.advance(1)
    await settle(30)

    left = await world.dead.get(letter.id)
    assert succeeds is (left is None)
    if left is not None:
        assert ("dead", "m", "BatchItemFailures", b"{}") == (left.state, left.mapping, left.error_type, left.outcome)


class Successes:
    def __init__(self) -> None:
        self.told: list[str] = []

    async def succeeded(self, record, result, *, attempts) -> None:
        self.told.append(record.id)


@pytest.mark.parametrize("succeeds", [True, False])
async def test_a_redriven_event_whose_dead_letter_is_damaged_runs_once(world, monkeypatch, succeeds):
    world.function(maximum_retry_attempts=0, on_success="sqs://done")
    world.runtime.handlers["f"] = (lambda _: None) if succeeds else boom
    await world.start()
    world.delivery._successes = Successes()
    letter = DeadLetter(
        id="8d1f4a52-7f3c-4b53-8d8b-0d8f5a3f7c11", queue="default", function="f", source="r", received_at=1.0,
        dead_at=world.clock.time(), condition=Condition.RETRY_ATTEMPTS_EXHAUSTED, attempts=3, payload=b"{}",
    )  # fmt: skip
    await world.dead.put(letter)
    record = Record(
        id=letter.id, source="r", function="f", invocation_type=InvocationType.EVENT, received_at=1.0, payload=b"{}"
    )
    now = world.clock.time()
    entry = Parked(record=record, attempts=0, due_at=now, delay_s=0, first_attempt_at=now, redrive=True)
    await world.dead.redrive(letter, entry)

    async def lost(letter_id, *, queue=None):
        raise StoreCorrupt("the hold file is missing")

    monkeypatch.setattr(world.dead, "get", lost)
    world.dispatcher.due("f")
    for _ in range(4):
        await world.clock.advance(5)
        await settle(30)

    assert world.runtime.asked() == [letter.id]
    assert not world.parked.entries
    assert world.delivery._successes.told == []
    left = world.dead.letters.get(("default", letter.id))
    assert (None if left is None else (left.state, left.attempts)) == (None if succeeds else ("dead", 1))
