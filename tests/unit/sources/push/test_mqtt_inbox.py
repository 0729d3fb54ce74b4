"""The inbox: stored side by side, acknowledged in order of receipt, nothing that is not stored, within its bytes."""

import asyncio
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.errors import LaneFull, StoreFull
from bridge.core.invocation import Condition, DeadLetter, InvocationType
from bridge.core.record import Record
from bridge.sources.push.mqtt_inbox import MqttInbox, Receipt
from bridge.testing.clock import ManualClock, settle
from bridge.testing.push import MemoryIntake


def record(number: int, *, size: int = 10) -> Record:
    return Record(
        id=str(uuid.UUID(int=number)), source="s", function="f", invocation_type=InvocationType.EVENT,
        received_at=1.0, payload=b"x" * size,
    )  # fmt: skip


class World:
    def __init__(self, *, bytes_max: int = 1 << 20) -> None:
        self.intake, self.clock = MemoryIntake(), ManualClock()
        self.acknowledged: list[int] = []
        self.writes = 0
        self.letters: list[DeadLetter] = []
        self.paused = False
        self.inbox = MqttInbox(
            "s", intake=self.intake, put_letter=self._put, clock=self.clock, bytes_max=bytes_max,
            acknowledge=self._acknowledge, full=lambda: self._pause(True), room=lambda: self._pause(False),
        )  # fmt: skip

    async def _put(self, letter: DeadLetter) -> None:
        if self.intake.refusal is not None:
            raise self.intake.refusal
        self.letters.append(letter)

    def _acknowledge(self, messages) -> None:
        self.writes += 1
        self.acknowledged += [mid for mid, _ in messages]

    def _pause(self, paused: bool) -> None:
        self.paused = paused

    def take(self, *mids: int, qos: int = 1, dup: bool = False, size: int = 10) -> None:
        for mid in mids:
            self.inbox.take(Receipt(mid, qos, dup=dup, digest=mid * 7), record(mid, size=size))

    @property
    def stored(self) -> list[int]:
        return [uuid.UUID(each.id).int for each in self.intake.stored]


async def test_what_is_stored_together_is_acknowledged_in_one_write():
    world = World()
    world.take(*range(1, 101))
    await settle()

    assert world.stored == world.acknowledged == list(range(1, 101))
    assert world.writes <= 2


async def test_nothing_is_acknowledged_before_it_is_stored():
    world = World()
    world.intake.gate.clear()
    world.take(1, 2, 3)
    await settle()
    assert (world.intake.waiting, world.acknowledged) == (3, [])

    world.intake.gate.set()
    await settle()
    assert world.acknowledged == [1, 2, 3]


class Slow(MemoryIntake):
    """Stores when told to, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[str, asyncio.Event] = {}

    async def submit(self, record, *, deduplicate_s=0.0):
        await self.gates.setdefault(record.id, asyncio.Event()).wait()
        return await super().submit(record)


@given(st.permutations(range(1, 8)))
def test_acknowledgements_go_out_in_order_of_receipt_whatever_is_stored_first(order):
    async def go():
        world = World()
        world.inbox._intake = world.intake = Slow()
        world.take(*range(1, 8))
        await settle()
        for number in order:
            world.intake.gates[str(uuid.UUID(int=number))].set()
            await settle()
            done = set(world.stored)
            assert world.acknowledged == [n for n in range(1, 8) if all(m in done for m in range(1, n + 1))]
        assert world.acknowledged == list(range(1, 8))

    asyncio.run(go())


@pytest.mark.parametrize("refusal", [StoreFull("no space"), LaneFull("full"), RuntimeError("bug")])
async def test_what_is_refused_is_tried_again_in_order_and_nothing_overtakes(refusal):
    world = World()
    retrying = asyncio.create_task(world.inbox.retry())
    world.intake.refusal = refusal
    world.take(1, 2, 3)
    await settle()
    world.take(4)
    await settle()
    assert (world.stored, world.acknowledged) == ([], [])
    assert str(refusal) in world.inbox.trouble

    for _ in range(20):
        await world.clock.advance(1.0)
    assert world.acknowledged == []
    world.intake.refusal = None
    await world.clock.advance(5.0)

    assert world.stored == world.acknowledged == [1, 2, 3, 4]
    assert world.inbox.trouble == ""
    retrying.cancel()


async def test_above_its_bytes_it_stops_reading_and_goes_on_below_half():
    world = World(bytes_max=100_000)
    world.intake.gate.clear()
    world.take(*range(1, 10), size=10_000)
    assert not world.paused
    world.take(10, size=10_000)
    assert world.paused
    assert world.inbox.size_bytes < 120_000

    world.intake.gate.set()
    await settle()
    assert not world.paused
    assert world.inbox.size_bytes == 0


async def test_a_new_connection_begins_paused_while_the_inbox_is_full():
    world = World(bytes_max=1000)
    world.intake.gate.clear()
    world.take(1, size=2000)
    world.inbox.disconnected()
    world.paused = False

    world.inbox.connected(session_present=True)

    assert world.paused
    world.intake.gate.set()
    await settle()


async def test_a_repeated_message_that_is_stored_is_acknowledged_and_not_stored_again():
    world = World()
    world.intake.gate.clear()
    world.take(1, 2)
    await settle()
    world.inbox.disconnected()
    world.inbox.connected(session_present=True)
    world.take(1, dup=True)
    await settle()
    assert world.acknowledged == []

    world.intake.gate.set()
    await settle()
    world.take(2, dup=True)
    await settle()

    assert world.stored == [1, 2]
    assert world.acknowledged == [1, 2]


async def test_a_message_that_two_connections_repeated_while_it_was_not_stored_is_acknowledged():
    world = World()
    world.intake.gate.clear()
    world.take(1, 2)
    await settle()
    for _ in range(3):
        world.inbox.disconnected()
        world.inbox.connected(session_present=True)
        world.take(1, 2, dup=True)
        await settle()
    assert world.acknowledged == []

    world.intake.gate.set()
    await settle()

    assert world.stored == [1, 2]
    assert world.acknowledged == [1, 2]


@pytest.mark.parametrize("change", ["session", "digest", "flag"])
async def test_another_message_of_the_same_identifier_is_stored(change):
    world = World()
    world.intake.gate.clear()
    world.take(1)
    await settle()
    world.inbox.disconnected()
    world.intake.gate.set()
    await settle()
    world.inbox.connected(session_present=change != "session")

    digest = 8 if change == "digest" else 7
    world.inbox.take(Receipt(1, 1, dup=change != "flag", digest=digest), record(9))
    await settle()

    assert world.stored == [1, 9]
    assert world.acknowledged == [1]


async def test_quality_0_is_stored_and_never_acknowledged():
    world = World()
    world.take(0, 0, qos=0)
    await settle()

    assert (len(world.stored), world.acknowledged) == (2, [])


async def test_what_is_passed_over_is_acknowledged_in_its_turn():
    world = World()
    world.intake.gate.clear()
    world.take(1)
    world.inbox.take(Receipt(2, 1), None)
    await settle()
    assert world.acknowledged == []

    world.intake.gate.set()
    await settle()
    assert world.acknowledged == [1, 2]


async def test_a_dead_letter_is_durable_before_its_message_is_acknowledged():
    world = World()
    retrying = asyncio.create_task(world.inbox.retry())
    letter = DeadLetter(
        id="x", queue="default", function="f", source="s", received_at=1, dead_at=1,
        condition=Condition.RECORD_TOO_LARGE, attempts=0, payload=b"{}",
    )  # fmt: skip
    world.intake.refusal = StoreFull("no space")
    world.inbox.take(Receipt(1, 1), letter)
    world.take(2)
    await settle()
    assert (world.letters, world.acknowledged) == ([], [])

    world.intake.refusal = None
    await world.clock.advance(5.0)
    assert (world.letters, world.acknowledged, world.stored) == ([letter], [1, 2], [2])
    retrying.cancel()


async def test_emptied_waits_for_everything_that_was_taken():
    world = World()
    world.intake.gate.clear()
    world.take(1, 2)
    waiting = asyncio.create_task(world.inbox.emptied())
    await settle()
    assert not waiting.done()

    world.intake.gate.set()
    await waiting
    assert world.acknowledged == [1, 2]
    await world.inbox.emptied()


async def test_close_forgets_what_is_not_acknowledged():
    world = World()
    world.intake.gate.clear()
    world.take(1, 2)
    await settle()

    await world.inbox.close()
    world.intake.gate.set()
    world.inbox.connected(session_present=True)
    world.take(1, 2, dup=True)
    await settle()

    assert world.stored == world.acknowledged == [1, 2]
    assert world.inbox.size_bytes == 0
