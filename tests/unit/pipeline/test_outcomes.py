"""Where asynchronous events end: destinations, dead-letter targets, local dead letters (semantics 2.3, 2.4, annex B)."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from bridge.core.errors import StoreFull
from bridge.core.function import Function
from bridge.core.invocation import AttemptStatus, Condition, DeadLetter
from bridge.core.outcome import OutcomeKind, TargetPlace, TargetTrouble
from bridge.destinations.spill import Spill
from bridge.events.outcomes import failure_record, message_attributes
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.outbox import OutboxSender
from bridge.pipeline.outcomes import AsyncOutcomes, OutboxDestination
from bridge.pipeline.redrive import Redrives, RedriveSpec
from bridge.testing.clock import settle
from bridge.testing.outbox import MemoryOutbox, ScriptedTargets
from bridge.testing.store import MemoryJobs
from tests.unit.pipeline.test_delivery import World, boom

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:failed"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:dead"
DONE = "arn:aws:sqs:eu-central-1:123456789012:done"
DOWN = TargetTrouble("SendMessage: AccessDenied: no")


class Targets(World):
    """A daemon's delivery with an outbox beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = MemoryOutbox(self.dead)
        self.targets = ScriptedTargets()

    def make_delivery(self) -> AsyncDelivery:
        self.sender = OutboxSender(
            store=self.outbox, dead_letters=self.dead, transports=self.targets, outcomes=self.outcomes,
            clock=self.clock,
        )  # fmt: skip
        ends = AsyncOutcomes(
            outbox=self.outbox, spill=Spill(self.dead), resolve=self.service.resolve, added=self.sender.added,
            clock=self.clock,
        )  # fmt: skip
        self.tasks.append(asyncio.create_task(self.sender.run()))
        return AsyncDelivery(
            outcomes=self.outcomes, parked=self.parked, dead_letters=self.dead, destination=ends, successes=ends,
            clock=self.clock,
        )  # fmt: skip

    def function(
        self, name: str = "f", *, reserved: int | None = None, dead_letter: str = "", role: str = "", **config: object
    ) -> None:
        super().function(name, reserved=reserved, **config)
        made: Function = self.catalog.functions[name]
        latest = replace(made.latest, dead_letter_target=dead_letter, role=role)
        self.catalog.functions[name] = replace(made, latest=latest, connection="main")

    def sent(self, target: str) -> list[tuple[OutcomeKind, dict]]:
        return [
            (entry.kind, orjson.loads(entry.record if letter is None else failure_record(letter, with_payload=True)))
            for entry, letter in self.targets[target].taken
        ]


@pytest.fixture
async def world(loop_strict: None):
    made = Targets()
    yield made
    await made.stop()
    await made.dispatcher.drain(deadline_s=0)


async def test_a_success_is_told_with_event_and_answer(world):
    world.function(on_success=DONE, role="arn:role")
    world.runtime.handlers["f"] = lambda _: {"handled": 1}
    await world.start()
    request_id = await world.post(payload=b'{"n": 12345678901234567890}')
    await settle(40)

    ((kind, record),) = world.sent(DONE)
    assert kind is OutcomeKind.ON_SUCCESS
    assert record["requestContext"] == {
        "requestId": request_id,
        "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST",
        "condition": "Success",
        "approximateInvokeCount": 1,
    }
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert b'"requestPayload":{"n": 12345678901234567890}' in world.targets[DONE].taken[0][0].record
    assert world.targets[DONE].taken[0][0].role == "arn:role"
    assert world.outbox.entries == {}


async def test_no_success_is_told_where_nobody_asked(world):
    world.function(on_failure=QUEUE)
    await world.start()
    await world.post()
    await settle(40)

    assert world.targets.targets == {}


async def test_a_retry_that_succeeds_counts_its_attempts(world):
    world.function(on_success=DONE, on_failure=QUEUE)
    fails = [True]

    def once(_: object) -> str:
        if fails:
            fails.clear()
            raise ValueError("boom")
        return "fine"

    world.runtime.handlers["f"] = once
    await world.start()
    await world.post()
    await world.clock.advance(61)

    ((_, record),) = world.sent(DONE)
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert world.sent(QUEUE) == []
    assert world.parked.entries == {}


async def test_a_failure_goes_to_the_destination_and_is_no_local_dead_letter(world):
    world.function(on_failure=QUEUE, role="arn:role")
    world.runtime.handlers["f"] = boom
    await world.start()
    request_id = await world.post(payload=b'{"n": 1}')
    await world.clock.advance(600)

    ((kind, record),) = world.sent(QUEUE)
    assert world.targets[QUEUE].taken[0][0].role == "arn:role"
    assert kind is OutcomeKind.ON_FAILURE
    assert (record["requestContext"]["condition"], record["requestContext"]["approximateInvokeCount"]) == (
        "RetriesExhausted", 3,
    )  # fmt: skip
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"]["errorMessage"] == "boom"
    assert (world.dead.letters, world.outbox.entries, world.parked.entries) == ({}, {}, {})
    last = [(a.status, a.error_type, a.error_message) for a in world.outcomes.attempts if a.request_id == request_id]
    assert last[-2:] == [(AttemptStatus.DEAD, "ValueError", "boom"), (AttemptStatus.SENT, "on_failure", QUEUE)]


async def test_check_10_destination_and_dead_letter_target_both_get_the_event(world):
    """Annex B 10: the bare event with three attributes, and the record."""
    world.function(on_failure=QUEUE, dead_letter=TOPIC, maximum_retry_attempts=0)
    world.runtime.handlers["f"] = boom
    await world.start()
    request_id = await world.post(payload=b'{"n" :  1}')
    await settle(40)

    assert world.sent(QUEUE)[0][1]["requestPayload"] == {"n": 1}
    ((entry, letter),) = world.targets[TOPIC].taken
    assert (entry.kind, letter.payload) == (OutcomeKind.DEAD_LETTER, b'{"n" :  1}')
    assert {name: tuple(value.values()) for name, value in message_attributes(letter).items()} == {
        "RequestID": ("String", request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "boom"),
    }
    assert entry.place == TargetPlace(target=TOPIC, connection="main")
    assert world.dead.letters == {}


async def test_a_dead_letter_target_alone_is_enough(world):
    world.function(dead_letter=TOPIC, maximum_retry_attempts=0)
    world.runtime.handlers["f"] = boom
    await world.start()
    await world.post()
    await settle(40)

    assert len(world.targets[TOPIC].taken) == 1
    assert world.dead.letters == {}


async def test_check_06_a_stopped_function_sends_its_events_off_unread(world):
    """Annex B 6."""
    world.function(on_failure=QUEUE, dead_letter=TOPIC, reserved=0)
    await world.start()
    await world.post()
    await settle(40)

    ((_, record),) = world.sent(QUEUE)
    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert {"responseContext", "responsePayload"}.isdisjoint(record)
    ((_, letter),) = world.targets[TOPIC].taken
    assert message_attributes(letter)["ErrorCode"]["StringValue"] == "429"
    assert message_attributes(letter)["ErrorMessage"]["StringValue"] == "ZeroReservedConcurrency"


async def test_while_a_target_is_down_the_event_is_seen_as_a_dead_letter_that_waits(world):
    world.function(on_failure=QUEUE, maximum_retry_attempts=0)
    world.runtime.handlers["f"] = boom
    world.targets[QUEUE].fail_with = DOWN
    await world.start()
    request_id = await world.post()
    await world.clock.advance(100)

    assert world.dead.letters["default", request_id].state == "waiting"
    assert (await world.sender.status())[0].last_error == str(DOWN)
    world.targets[QUEUE].fail_with = None
    await world.clock.advance(400)

    assert world.dead.letters == {}
    assert world.sent(QUEUE)[0][1]["requestContext"]["requestId"] == request_id


async def test_a_failure_of_a_function_that_is_gone_stays_here(world):
    world.function(on_failure=QUEUE)
    world.runtime.handlers["f"] = boom
    await world.start()
    await world.post()
    world.catalog.functions.clear()
    await world.clock.advance(600)

    assert world.conditions() == [(Condition.FUNCTION_NOT_FOUND, 1)]
    assert world.sent(QUEUE) == []


async def test_nothing_settles_before_its_record_is_durable(world):
    world.function(on_success=DONE)
    await world.start()
    world.outbox.fail_with = StoreFull("no space")
    await world.post()
    await world.clock.advance(5)
    assert world.delivery.unsettled == 1
    assert world.outcomes.attempts == []
    world.outbox.fail_with = None
    await world.clock.advance(5)

    assert len(world.sent(DONE)) == 1
    assert world.runtime.asked("f") == [world.outcomes.attempts[0].request_id]


async def test_killed_between_record_and_outcome_the_event_runs_again_and_its_record_is_there_once(world):
    """Stated: a crash there repeats the run; the record that waits is replaced, one that was sent is sent again."""
    world.function(on_success=DONE)
    world.targets[DONE].fail_with = DOWN
    await world.start()
    await world.post()
    await settle(20)
    world.outcomes.attempts.clear()  # as if the daemon had died before it wrote the outcome
    await world.stop()
    world.targets[DONE].fail_with = None
    await world.start()
    await world.clock.advance(400)

    assert len(world.runtime.invocations) == 2
    assert len(world.sent(DONE)) == 1


async def redriven(world: Targets) -> None:
    redrives = Redrives(
        dead_letters=world.dead, outcomes=world.outcomes, jobs=MemoryJobs(), clock=world.clock,
        spawn=lambda work, name: asyncio.create_task(work, name=name), wake=world.dispatcher.due,
    )  # fmt: skip
    await redrives.open()
    await world.clock.advance(1)
    await redrives.start(RedriveSpec())
    await world.clock.advance(10)


async def test_a_redriven_event_that_succeeds_is_told_with_all_its_attempts(world, threads_at_once):
    world.function(on_success=DONE, maximum_retry_attempts=0)
    world.runtime.handlers["f"] = boom
    await world.start()
    await world.post()
    await settle(20)
    assert world.conditions() == [(Condition.RETRIES_EXHAUSTED, 1)]
    world.runtime.handlers["f"] = lambda _: "fine"

    await redriven(world)

    ((_, record),) = world.sent(DONE)
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert world.dead.letters == {}


async def test_a_batch_of_a_mapping_that_is_redriven_is_nobodys_asynchronous_event(world, threads_at_once):
    world.function(on_success=DONE, on_failure=QUEUE, dead_letter=TOPIC, maximum_retry_attempts=0)
    await world.start()
    for number, handler in enumerate([boom, lambda _: "fine"]):
        letter = DeadLetter(
            id=f"00000000-0000-4000-8000-00000000000{number}", queue="default", function="f", source="m", mapping="m",
            received_at=world.clock.time(), dead_at=world.clock.time(), condition=Condition.RETRY_ATTEMPTS_EXHAUSTED,
            attempts=1, payload=b'{"Records":[]}',
        )  # fmt: skip
        await world.dead.put(letter)
        world.runtime.handlers["f"] = handler
        await redriven(world)
        assert world.targets.targets == {}
        assert len(world.dead.letters) == (1 if handler is boom else 0)


async def test_the_failures_of_a_mapping_wait_as_dead_letters_with_their_records(world):
    world.function()
    await world.start()
    place = TargetPlace(target=QUEUE, connection="main")
    one = OutboxDestination(place, outbox=world.outbox, added=world.sender.added, role_of=lambda name: f"arn:{name}")
    letter = DeadLetter(
        id="00000000-0000-4000-8000-000000000001", queue="default", function="f", source="m", mapping="m",
        received_at=1.0, dead_at=2.0, condition=Condition.RETRY_ATTEMPTS_EXHAUSTED, attempts=1,
        payload=b'{"Records":[]}', outcome=b'{"version":"1.0"}',
    )  # fmt: skip
    world.targets[QUEUE].fail_with = DOWN
    await one.send(letter)
    assert world.dead.letters["default", letter.id] == replace(letter, state="waiting")
    assert [entry.role for entry in await world.outbox.of_event(letter.id)] == ["arn:f"]
    world.targets[QUEUE].fail_with = None
    await world.clock.advance(5)

    assert world.sent(QUEUE) == [(OutcomeKind.ON_FAILURE, {"version": "1.0", "payload": {"Records": []}})]
    assert world.dead.letters == {}
