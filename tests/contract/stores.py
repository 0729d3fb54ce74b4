"""Every implementation of the stores under one fixture, and the values their suites are made of."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bridge.core.invocation import Attempt, AttemptStatus, Condition, DeadLetter, InvocationType
from bridge.core.outcome import Outbox
from bridge.core.ports import DeadLetters, Jobs, Marks, ParkedStore
from bridge.core.record import Parked, Record
from bridge.store.state import open_state
from bridge.testing.outbox import MemoryOutbox
from bridge.testing.store import MemoryDeadLetters, MemoryJobs, MemoryMarks, MemoryParked

NOW = 1_767_225_600.0
LARGE = bytes(range(256)) * 300
"""A payload that does not fit into a row (64 KB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The stores of one daemon."""

    parked: ParkedStore
    dead_letters: DeadLetters
    outbox: Outbox
    jobs: Jobs
    marks: Marks


@pytest_asyncio.fixture(params=["sqlite", "memory"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Yield each implementation in turn."""
    if request.param == "memory":
        memory = MemoryParked()
        letters = MemoryDeadLetters(memory)
        yield Stores(
            parked=memory, dead_letters=letters, outbox=MemoryOutbox(letters), jobs=MemoryJobs(), marks=MemoryMarks()
        )
        return
    state = await open_state(tmp_path)
    yield Stores(
        parked=state.parked, dead_letters=state.dead_letters, outbox=state.outbox, jobs=state.jobs, marks=state.marks
    )
    await state.close()


def uuid_of(number: int) -> str:
    """Return an id that sorts as its number."""
    return f"00000000-0000-4000-8000-{number:012x}"


def record(number: int = 1, **changes: Any) -> Record:
    """Return a stored event; its position is its number."""
    made = Record(
        id=uuid_of(number),
        source="orders",
        function="billing:live",
        invocation_type=InvocationType.EVENT,
        received_at=NOW - 10.125,
        payload=b'{"n": %d}' % number,
        position=number,
    )
    return replace(made, **changes)


def parked(number: int = 1, *, event: Record | None = None, **changes: Any) -> Parked:
    """Return an event that waits a minute."""
    made = Parked(record=event or record(number), attempts=1, due_at=NOW + 60, delay_s=60.0, item_failures=True)
    return replace(made, **changes)


def attempt(number: int = 1, **changes: Any) -> Attempt:
    """Return a failed attempt with everything an attempt may carry."""
    made = Attempt(
        position=7,
        request_id=uuid_of(1),
        function="billing:live",
        number=number,
        status=AttemptStatus.FAILED,
        started_at=NOW + number,
        duration_ms=12.5,
        version="$LATEST",
        error_type="KeyError",
        error_message="'näme'",
        log_tail=b"START\n\xff\x00END\n",
        log_stream="2026/01/01/[$LATEST]abc",
        replay="again",
    )
    return replace(made, **changes)


def letter(number: int = 1, **changes: Any) -> DeadLetter:
    """Return a dead letter; it died `number` seconds after NOW."""
    made = DeadLetter(
        id=uuid_of(number),
        queue="default",
        function="billing:live",
        source="orders",
        received_at=NOW - 10.125,
        dead_at=NOW + number,
        condition=Condition.RETRIES_EXHAUSTED,
        attempts=3,
        payload=b'{"n": %d}' % number,
        position=number,
        mapping="orders",
        item_failures=True,
        outcome=b'{"version": "1.0"}',
    )
    return replace(made, **changes)
