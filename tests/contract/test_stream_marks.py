"""What every keeper of stream marks promises (`sources.StreamMarks`, `sources.MappingStates`): SQLite and the fake."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.core import limits
from bridge.core.sources import MappingStates, StreamMarks
from bridge.core.stream import BEFORE_ALL, Mark
from bridge.store.schema import MIGRATIONS
from bridge.store.state import open_state
from bridge.testing.streams import MemoryMappingStates, MemoryStreamMarks

S0, S1, S2 = (f"shardId-{n:012d}" for n in range(3))
HUGE = 49590338271490256608559692538361571095921575989136588898
"""A sequence number of Kinesis: more than 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Keepers:
    marks: StreamMarks
    states: MappingStates


@pytest_asyncio.fixture(params=["sqlite", "memory"])
async def keepers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keepers]:
    if request.param == "memory":
        yield Keepers(marks=MemoryStreamMarks(), states=MemoryMappingStates())
        return
    state = await open_state(tmp_path)
    yield Keepers(marks=state.stream_marks, states=state.mapping_states)
    await state.close()


@pytest.fixture
def marks(keepers: Keepers) -> StreamMarks:
    return keepers.marks


async def test_nothing_is_stored_at_first(marks: StreamMarks) -> None:
    assert await marks.load("orders") == {}
    assert await marks.layout("orders") == ""


async def test_a_claim_of_new_shards_begins_before_all_and_is_stored(marks: StreamMarks) -> None:
    claimed = await marks.claim("orders", {S1, S0})

    assert claimed == {S0: Mark(position=BEFORE_ALL, epoch=1), S1: Mark(position=BEFORE_ALL, epoch=1)}
    assert await marks.load("orders") == claimed
    assert await marks.load("others") == {}


async def test_a_claim_raises_just_these_epochs_and_keeps_the_rest(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0, S1})
    await marks.commit("orders", {S0: Mark(position=7, epoch=1, note=b'{"a":1}', state=b'{"n":2}')})

    assert await marks.claim("orders", {S0}) == {S0: Mark(position=7, epoch=2, note=b'{"a":1}', state=b'{"n":2}')}
    assert (await marks.load("orders"))[S1].epoch == 1


async def test_position_note_and_state_are_stored_together(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0, S1})
    large = b'{"x":"' + b"s" * (limits.WINDOW_STATE_MAX_BYTES - 8) + b'"}'
    written = {S0: Mark(position=HUGE, epoch=1, note=b"n" * limits.MARK_NOTE_MAX_BYTES, state=large)}
    await marks.commit("orders", written)

    stored = await marks.load("orders")

    assert stored[S0] == written[S0]
    assert stored[S1] == Mark(position=BEFORE_ALL, epoch=1)


async def test_a_mark_never_moves_back_but_its_note_may_change(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0})
    await marks.commit("orders", {S0: Mark(position=HUGE, epoch=1, note=b"1")})
    await marks.commit("orders", {S0: Mark(position=9, epoch=1, note=b"back")})

    assert (await marks.load("orders"))[S0] == Mark(position=HUGE, epoch=1, note=b"1")

    await marks.commit("orders", {S0: Mark(position=HUGE, epoch=1, note=b"2", state=b"{}")})
    await marks.commit("orders", {S0: Mark(position=HUGE, epoch=1, note=b"2", state=b"{}")})

    assert (await marks.load("orders"))[S0] == Mark(position=HUGE, epoch=1, note=b"2", state=b"{}")


async def test_commits_of_an_older_owner_are_ignored_the_others_of_the_same_call_are_not(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0, S1})
    await marks.claim("orders", {S0})

    await marks.commit("orders", {S0: Mark(position=5, epoch=1), S1: Mark(position=6, epoch=1)})

    assert await marks.load("orders") == {S0: Mark(position=BEFORE_ALL, epoch=2), S1: Mark(position=6, epoch=1)}


async def test_a_commit_of_a_shard_that_is_not_kept_is_ignored(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0})
    await marks.commit("orders", {S2: Mark(position=5, epoch=1)})
    await marks.commit("others", {S0: Mark(position=5, epoch=1)})
    await marks.commit("orders", {})

    assert set(await marks.load("orders")) == {S0}
    assert await marks.load("others") == {}


async def test_replace_is_all_there_is_afterwards_and_ends_older_owners(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0, S1})
    await marks.claim("orders", {S0})
    await marks.commit("orders", {S0: Mark(position=50, epoch=2, note=b"n", state=b"s")})

    await marks.replace("orders", {S0: Mark(position=3, note=b"x", state=b"y"), S2: Mark(position=4)}, layout="2 id")

    assert await marks.load("orders") == {S0: Mark(position=3, epoch=3), S2: Mark(position=4, epoch=3)}
    assert await marks.layout("orders") == "2 id"
    await marks.commit("orders", {S0: Mark(position=60, epoch=2)})
    assert (await marks.load("orders"))[S0].position == 3
    await marks.claim("orders", {S0, S1, S2})
    assert await marks.layout("orders") == "2 id"


async def test_a_shard_that_has_ended_stays_so_until_it_is_replaced(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0, S1})
    await marks.commit("orders", {S0: Mark(position=HUGE, epoch=1, has_ended=True), S1: Mark(position=1, epoch=1)})
    await marks.commit("orders", {S0: Mark(position=HUGE, epoch=1)})

    assert await marks.load("orders") == {
        S0: Mark(position=HUGE, epoch=1, has_ended=True),
        S1: Mark(position=1, epoch=1),
    }
    assert (await marks.claim("orders", {S0}))[S0].has_ended
    await marks.replace("orders", {S0: Mark(position=1), S1: Mark(position=BEFORE_ALL, has_ended=True)})
    assert await marks.load("orders") == {
        S0: Mark(position=1, epoch=3),
        S1: Mark(position=BEFORE_ALL, epoch=3, has_ended=True),
    }


async def test_discarded_marks_are_gone_and_the_others_are_not(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0, S1})
    await marks.claim("others", {S0})

    await marks.discard("orders", {S0, S2})
    await marks.discard("nobody", {S0})
    await marks.commit("orders", {S0: Mark(position=7, epoch=1)})

    assert set(await marks.load("orders")) == {S1}
    assert set(await marks.load("others")) == {S0}


async def test_forgotten_marks_do_not_come_back_by_a_late_commit(marks: StreamMarks) -> None:
    await marks.claim("orders", {S0})
    await marks.claim("others", {S0})
    await marks.forget("orders")
    await marks.forget("orders")
    await marks.commit("orders", {S0: Mark(position=5, epoch=1)})

    assert await marks.load("orders") == {}
    assert await marks.layout("orders") == ""
    assert set(await marks.load("others")) == {S0}


async def test_paused_mappings(keepers: Keepers) -> None:
    states = keepers.states

    assert await states.paused() == frozenset()
    for name in ("orders", "clicks", "orders"):
        await states.pause(name)
    assert await states.paused() == {"orders", "clicks"}
    await states.resume("orders")
    await states.resume("orders")
    assert await states.paused() == {"clicks"}


KILLED = """
import asyncio, os, sys
from pathlib import Path
from bridge.core.stream import Mark
from bridge.store.state import open_state

async def main():
    state = await open_state(Path(sys.argv[1]))
    await state.stream_marks.replace("orders", {"s": Mark(position=-1)}, layout="1 id")
    mark = (await state.stream_marks.claim("orders", {"s"}))["s"]
    await state.mapping_states.pause("orders")
    for n in range(1_000_000):
        await state.stream_marks.commit("orders", {"s": Mark(position=n, epoch=mark.epoch, note=b"%d" % n, state=b"%d" % n)})
        print(n, file=sys.stderr, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_what_a_commit_returned_for_survives_kill_9(tmp_path: Path) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220 - the loop has nothing else to do
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    told = [int(process.stderr.readline()) for _ in range(50)]
    os.kill(process.pid, signal.SIGKILL)
    told += [int(line) for line in process.stderr]
    process.wait()
    process.stderr.close()

    state = await open_state(tmp_path)
    mark = (await state.stream_marks.load("orders"))["s"]

    assert mark.position in (told[-1], told[-1] + 1)
    assert mark.note == mark.state == b"%d" % mark.position
    assert await state.stream_marks.layout("orders") == "1 id"
    assert await state.mapping_states.paused() == {"orders"}
    assert (await state.stream_marks.claim("orders", {"s"}))["s"].epoch == mark.epoch + 1
    await state.close()


async def test_a_database_of_an_older_schema_is_taken_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("bridge.store.state.MIGRATIONS", MIGRATIONS[:1])
        patched.setattr("bridge.store.state.held_names", lambda _connection: set())  # it had no outbox yet
        older = await open_state(tmp_path)
        await older.marks.commit({"billing": 7})
        await older.close()
    state = await open_state(tmp_path)

    assert await state.marks.load() == {"billing": 7}
    assert await state.stream_marks.load("orders") == {}
    await state.close()
