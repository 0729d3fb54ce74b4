"""A record that the disk damaged under a running daemon: a dead letter that says so, and nobody else is harmed."""

import os

import pytest

from bridge.core.function import Function, FunctionVersion, function_arn
from bridge.core.invocation import Condition, InvocationType
from bridge.core.ports import DeadLetterSelection
from bridge.core.record import Record
from bridge.destinations.spill import Spill
from bridge.invokers.service import FunctionService
from bridge.journal.frames import HEADER_BYTES
from bridge.pipeline.delivery import AsyncDelivery
from bridge.pipeline.dispatcher import Dispatcher
from bridge.testing.clock import ManualClock
from bridge.testing.journal import MemoryOutcomes
from bridge.testing.runtime import ScriptedRuntime
from bridge.testing.store import MemoryDeadLetters, MemoryMarks, MemoryParked
from tests.unit.journal.support import opened

NAME_AT = HEADER_BYTES + len("r")
PAYLOAD_AT = NAME_AT + len("f")


class Catalog:
    def get(self, name: str) -> Function:
        version = FunctionVersion(name=name, arn=function_arn(name), code="/x", revision="1", handler="a.b")
        return Function(name=name, latest=version)


def event(number: int, *, at: float) -> Record:
    return Record(
        id=f"00000000-0000-4000-8000-{number:012x}",
        source="r",
        function="f",
        invocation_type=InvocationType.EVENT,
        received_at=at,
        payload=b'{"n":%d}' % number,
    )


def flip(journal, position: int, byte: int) -> None:
    """Flip a bit of a record's frame."""
    place = (position & 0xFFFF_FFFF) + byte
    with (journal.segments[-1].path).open("r+b") as file:
        old = os.pread(file.fileno(), 1, place)
        os.pwrite(file.fileno(), bytes([old[0] ^ 4]), place)


@pytest.mark.parametrize("byte", [0, 8, NAME_AT, PAYLOAD_AT + 2], ids=["magic", "length", "name", "payload"])
async def test_a_byte_that_flips_under_a_running_lane_makes_a_dead_letter(tmp_path, wait_until, byte: int) -> None:
    clock, parked = ManualClock(), MemoryParked()
    outcomes, letters, runtime = MemoryOutcomes(), MemoryDeadLetters(parked), ScriptedRuntime(clock)
    async with opened(tmp_path / "journal", clock=clock) as journal:
        dispatcher = Dispatcher(
            service=FunctionService(catalog=Catalog(), runtime=runtime, clock=clock),
            delivery=AsyncDelivery(
                outcomes=outcomes, parked=parked, dead_letters=letters, destination=Spill(letters), clock=clock
            ),
            journal=journal,
            outcomes=outcomes,
            parked=parked,
            dead_letters=letters,
            marks=MemoryMarks(),
            clock=clock,
        )
        await dispatcher.open(["f"])
        runtime.slots = 0
        lane = dispatcher.lane("f")
        lane._buffer_events_max = 2  # what is behind it is read from the disk
        stored = []
        for number in range(6):
            lane.reserve(7)
            stored.append(await journal.append(event(number, at=clock.time())))
        bad = stored[4]
        flip(journal, bad.position, byte)
        runtime.slots = 9
        dispatcher.kick()
        await wait_until(lambda: lane.waiting == 0)

        (letter,) = await letters.select(DeadLetterSelection(), limit=9)
        assert [each.id for each in stored if each is not bad] == runtime.asked("f")
        assert (bad.id, bad.position, "f", bad.received_at) == (
            letter.id, letter.position, letter.function, letter.received_at
        )  # fmt: skip
        assert (Condition.RECORD_DAMAGED, 0) == (letter.condition, letter.attempts)
        assert "is damaged at byte" in letter.error_message
        assert "bridge doctor" in letter.error_message
        assert {bad.position} <= outcomes.finished(after=-1)
        assert lane.mark(journal.end) == journal.end
        await dispatcher.drain(deadline_s=0)
