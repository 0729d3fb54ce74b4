"""What every keeper of schedules' states promises (`schedules.ScheduleStates`): SQLite and the fake."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.core.schedules import ScheduleState, ScheduleStates
from bridge.store.state import open_state
from bridge.testing.schedules import MemoryScheduleStates

STATE = ScheduleState(expression="rate(5 minutes) UTC", began=1_767_225_600, passed=1_767_225_900)


@pytest_asyncio.fixture(params=["sqlite", "memory"])
async def states(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ScheduleStates]:
    if request.param == "memory":
        yield MemoryScheduleStates()
        return
    state = await open_state(tmp_path)
    yield state.schedules
    await state.close()


async def test_nothing_is_stored_at_first(states: ScheduleStates) -> None:
    assert await states.load("nightly") is None


async def test_what_was_saved_last_is_loaded(states: ScheduleStates) -> None:
    claimed = replace(STATE, claimed=1_767_226_200, position=(7 << 32) + 12)
    await states.save("nightly", STATE)
    await states.save("nightly", claimed)
    await states.save("nightly", claimed)

    assert claimed == await states.load("nightly")
    assert await states.load("hourly") is None


async def test_only_the_named_ones_are_kept(states: ScheduleStates) -> None:
    for name in ("nightly", "hourly", "weekly"):
        await states.save(name, STATE)
    await states.keep({"hourly", "unknown"})

    assert STATE == await states.load("hourly")
    assert await states.load("nightly") is None
    await states.keep(set())
    assert await states.load("hourly") is None


async def test_a_state_outlives_the_process(tmp_path: Path) -> None:
    first = await open_state(tmp_path)
    await first.schedules.save("nightly", STATE)
    await first.close()
    second = await open_state(tmp_path)

    assert STATE == await second.schedules.load("nightly")
    await second.close()
