"""What every log of attempts promises (`ports.Outcomes`): the one on disk and the shipped fake alike."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.core.invocation import Attempt, AttemptStatus, InvocationType
from bridge.core.ports import Outcomes
from bridge.core.record import Record
from bridge.journal.outcomes import OutcomesLog
from bridge.testing.clock import ManualClock
from bridge.testing.journal import MemoryOutcomes


@pytest.fixture(params=["disk", "memory"])
async def outcomes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Outcomes]:
    if request.param == "memory":
        yield MemoryOutcomes()
        return
    log = OutcomesLog(folder=tmp_path / "outcomes", clock=ManualClock(time=1000.0), retention_s=60.0)
    await log.open()
    yield log
    await log.close()


def record(n: int) -> Record:
    return Record(
        id=str(uuid.UUID(int=(n << 64) + 1)),
        source="orders",
        function="handle",
        invocation_type=InvocationType.EVENT,
        received_at=1000.0,
        payload=b"{}",
        position=n << 32,
    )


def attempt(n: int, number: int = 1, status: AttemptStatus = AttemptStatus.OK, **fields: Any) -> Attempt:
    plain = Attempt(
        position=n << 32,
        request_id=record(n).id,
        function="handle:live",
        number=number,
        status=status,
        started_at=1000.0 + number,
    )
    return replace(plain, **fields)


async def test_an_attempt_is_found_as_it_was_at_once(outcomes: Outcomes) -> None:
    noted = attempt(
        1,
        status=AttemptStatus.FAILED,
        duration_ms=12.345,
        version="$LATEST",
        error_type="ValueError",
        error_message="n\u00e4h",
        log_tail=b"START\n\xff\nEND\n",
        log_stream="2026/01/01/[$LATEST]abc",
    )
    outcomes.append(noted)

    assert outcomes.for_events([record(1), record(2)]) == {1 << 32: [noted]}
    await outcomes.flush()
    assert outcomes.for_events(iter([record(1)])) == {1 << 32: [noted]}


async def test_attempts_come_oldest_first(outcomes: Outcomes) -> None:
    for number in (1, 2, 3):
        for n in range(50):
            outcomes.append(attempt(n, number, AttemptStatus.FAILED))
    await outcomes.flush()
    found = outcomes.for_events([record(n) for n in range(10, 50)])

    assert found == {n << 32: [attempt(n, k, AttemptStatus.FAILED) for k in (1, 2, 3)] for n in range(10, 50)}


async def test_nothing_is_known_of_others(outcomes: Outcomes) -> None:
    outcomes.append(attempt(1))

    assert outcomes.for_events([]) == {}
    assert outcomes.for_events([record(2)]) == {}


async def test_a_started_row_shows_only_until_its_attempt_has_ended(outcomes: Outcomes) -> None:
    outcomes.append(attempt(1, 2, AttemptStatus.STARTED))
    assert [each.status for each in outcomes.for_events([record(1)])[1 << 32]] == [AttemptStatus.STARTED]
    outcomes.append(attempt(1, 2, AttemptStatus.DEAD))

    assert [each.status for each in outcomes.for_events([record(1)])[1 << 32]] == [AttemptStatus.DEAD]


@pytest.mark.parametrize(
    ("status", "passed"),
    [
        (AttemptStatus.OK, True),
        (AttemptStatus.DEAD, True),
        (AttemptStatus.FAILED, True),  # parked
        (AttemptStatus.UNKNOWN, True),  # parked, not counted
        (AttemptStatus.STARTED, False),
        (AttemptStatus.REPLAYED_OK, False),
        (AttemptStatus.REPLAYED_FAILED, False),
    ],
)
async def test_a_lane_has_passed_what_ended_or_was_parked(
    outcomes: Outcomes, status: AttemptStatus, *, passed: bool
) -> None:
    outcomes.append(attempt(1, status=status))
    await outcomes.flush()

    assert outcomes.finished(after=-1) == ({1 << 32} if passed else set())


async def test_finished_is_asked_for_above_a_position(outcomes: Outcomes) -> None:
    for n in range(100):
        outcomes.append(attempt(n))
    await outcomes.flush()

    assert outcomes.finished(after=90 << 32) == {n << 32 for n in range(91, 100)}
    assert outcomes.finished(after=(91 << 32) - 1) == {n << 32 for n in range(91, 100)}
    assert outcomes.finished(after=99 << 32) == set()


async def test_an_event_without_a_position_has_a_history_and_is_never_finished(outcomes: Outcomes) -> None:
    event = replace(record(1), position=-1)
    noted = attempt(1, position=-1)
    outcomes.append(noted)

    assert outcomes.for_events([event]) == {-1: [noted]}
    assert outcomes.finished(after=-1) == set()


async def test_a_replay_has_attempts_of_its_own(outcomes: Outcomes) -> None:
    first = attempt(1, 1, AttemptStatus.FAILED)
    again = attempt(1, 1, AttemptStatus.REPLAYED_OK, replay="night", started_at=1500.0)
    running = attempt(1, 1, AttemptStatus.STARTED, replay="day", started_at=1600.0)
    for each in (running, again, first):
        outcomes.append(each)
    await outcomes.flush()

    assert outcomes.for_events([record(1)]) == {1 << 32: [first, again, running]}
    assert outcomes.finished(after=-1) == {1 << 32}


async def test_attempts_are_found_from_another_thread_while_others_arrive(outcomes: Outcomes) -> None:
    for n in range(20):
        outcomes.append(attempt(n))
    asking = asyncio.create_task(
        asyncio.to_thread(lambda: [outcomes.for_events([record(n) for n in range(20)]) for _ in range(50)])
    )
    while not asking.done():
        outcomes.append(attempt(99))
        await asyncio.sleep(0)

    assert all(found == {n << 32: [attempt(n)] for n in range(20)} for found in asking.result())


async def test_flush_with_nothing_to_sync_returns(outcomes: Outcomes) -> None:
    await outcomes.flush()
    outcomes.append(attempt(1))
    await outcomes.flush()
    await outcomes.flush()

    assert outcomes.finished(after=-1) == {1 << 32}
