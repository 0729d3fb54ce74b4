"""The stores of one partition together: hold files, a full disk, kills, repair."""

import asyncio
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.core import limits
from bridge.core.errors import StoreCorrupt, StoreError, StoreFull
from bridge.core.outcome import OutboxEntry, OutcomeKind, TargetPlace
from bridge.core.ports import DeadLetterSelection
from bridge.core.schedules import ScheduleState
from bridge.core.stream import BEFORE_ALL, Mark
from bridge.store import hold as hold_module
from bridge.store.ballast import Ballast, free_bytes
from bridge.store.repair import check_state, paused_mappings, repair_state
from bridge.store.schema import MIGRATIONS
from bridge.store.sqlite import Database
from bridge.store.state import State, open_state
from tests.contract.stores import LARGE, NOW, letter, parked, record, uuid_of
from tests.contract.test_jobs import job

BEGINNING = Mark(position=BEFORE_ALL, epoch=1)
SCHEDULE = ScheduleState(expression="rate(1 minute) UTC", began=60, passed=120, claimed=180, position=7)
STREAM_MARK = Mark(position=10**40, epoch=1, note=b"note", state=b"state", has_ended=True)
EVERYTHING = DeadLetterSelection(queue=None)
KIB, MIB = limits.KIB, limits.MIB


@pytest_asyncio.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    made = await open_state(tmp_path)
    yield made
    await made.close()


def held(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "hold").glob("*.payload"))


# --- hold files --------------------------------------------------------------------------------------


async def test_large_payloads_lie_outside_the_database(state: State, tmp_path: Path) -> None:
    await state.parked.park(parked(1, event=record(1, payload=LARGE)))
    await state.parked.park(parked(2, event=record(2, payload=LARGE[: 64 * KIB])))

    (name,) = held(tmp_path)
    assert (tmp_path / "hold" / name).read_bytes() == LARGE
    assert (tmp_path / "hold" / name).stat().st_mode & 0o777 == 0o600


async def test_a_hold_file_goes_with_its_row(state: State, tmp_path: Path) -> None:
    entry, dead = parked(event=record(payload=LARGE)), letter(2, payload=LARGE)
    await state.parked.park(entry)
    await state.dead_letters.put(dead)
    await state.dead_letters.put(letter(3, payload=LARGE))
    assert len(held(tmp_path)) == 3
    await state.parked.done(entry)
    await state.dead_letters.resolve(dead.id, queue="default")
    await state.dead_letters.purge(EVERYTHING)

    assert held(tmp_path) == []


async def test_replacing_a_row_leaves_one_hold_file(state: State, tmp_path: Path) -> None:
    for due_at in (NOW, NOW + 1, NOW + 2):
        await state.parked.park(parked(event=record(payload=LARGE), due_at=due_at))
    for _ in range(3):
        await state.dead_letters.put(letter(2, payload=LARGE))

    assert len(held(tmp_path)) == 2
    await state.parked.park(parked(event=record(payload=b"small")))
    assert len(held(tmp_path)) == 1


async def test_a_dead_letter_takes_the_parkings_hold_file_with_it(state: State, tmp_path: Path) -> None:
    await state.parked.park(parked(event=record(payload=LARGE)))
    await state.dead_letters.put(letter(payload=LARGE))

    assert len(held(tmp_path)) == 1


async def test_a_redrive_that_is_refused_leaves_no_hold_file(state: State, tmp_path: Path) -> None:
    assert await state.dead_letters.redrive(letter(payload=LARGE), parked(event=record(payload=LARGE))) is False
    assert held(tmp_path) == []


async def test_a_row_that_cannot_be_written_leaves_no_hold_file(state: State, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await state.parked.park(parked(event=record(payload=LARGE), due_at=float("nan")))

    assert held(tmp_path) == []


async def test_orphans_are_swept_at_open_and_nothing_else_is(state: State, tmp_path: Path) -> None:
    await state.parked.park(parked(event=record(payload=LARGE)))
    await state.close()
    (tmp_path / "hold" / "0123.payload").write_bytes(b"its row never committed")
    (tmp_path / "hold" / "00000001.hold").write_bytes(b"another's")
    again = await open_state(tmp_path)

    assert len(held(tmp_path)) == 1
    assert (tmp_path / "hold" / "00000001.hold").exists()
    assert await again.parked.get(uuid_of(1)) is not None
    await again.close()


async def test_payloads_of_a_database_that_is_gone_are_set_aside(state: State, tmp_path: Path) -> None:
    await state.parked.park(parked(event=record(payload=LARGE)))
    await state.close()
    (tmp_path / "state.db").unlink()
    await (await open_state(tmp_path)).close()

    assert held(tmp_path) == []
    (aside,) = tmp_path.glob("hold.lost-*/*.payload")
    assert aside.read_bytes() == LARGE


@pytest.mark.parametrize("damage", ["gone", "cut"])
async def test_a_lost_hold_file_stops_no_other_event(state: State, tmp_path: Path, damage: str) -> None:
    for number in (1, 2):
        await state.parked.park(parked(number, event=record(number, payload=LARGE)))
        await state.dead_letters.put(letter(number + 2, payload=LARGE))
    with sqlite3.connect(tmp_path / "state.db") as connection:
        for table, number in (("parked", 1), ("dead_letters", 3)):
            (name,) = connection.execute(f"SELECT hold FROM {table} WHERE position = ?", (number,)).fetchone()
            (tmp_path / "hold" / name).unlink() if damage == "gone" else os.truncate(tmp_path / "hold" / name, 9)
    connection.close()

    assert [2] == [entry.record.position for entry in await state.parked.due("billing", now=NOW + 60, limit=9)]
    assert [4] == [each.position for each in await state.dead_letters.select(EVERYTHING, limit=9)]
    assert 2 == await state.dead_letters.count(EVERYTHING)
    with pytest.raises(StoreCorrupt, match="missing or cut short"):
        await state.parked.get(uuid_of(1))
    with pytest.raises(StoreCorrupt, match="missing or cut short"):
        await state.dead_letters.get(uuid_of(3))


async def test_pages_of_large_letters_are_short_but_complete(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.store.dead_letters._PAGE_MAX_BYTES", 100 * KIB)
    for number in range(1, 6):
        await state.dead_letters.put(letter(number, payload=LARGE))
    pages: list[int] = []
    after: tuple[float, str] | None = None
    while page := await state.dead_letters.select(EVERYTHING, limit=10, after=after):
        pages.append(len(page))
        after = page[-1].dead_at, page[-1].id

    assert [2, 2, 1] == pages


async def test_a_large_purge_goes_in_steps(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.store.dead_letters._PURGE_STEP", 10)
    await asyncio.gather(*(state.dead_letters.put(letter(n)) for n in range(25)))

    assert 25 == await state.dead_letters.purge(EVERYTHING)
    assert 0 == await state.dead_letters.count(EVERYTHING)


# --- plans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT * FROM parked WHERE lane = 'a' AND due_at <= 1 ORDER BY due_at, position", "parked_due"),
        ("SELECT position FROM parked", "COVERING INDEX parked_due"),
        ("SELECT lane, COUNT(*) FROM parked GROUP BY lane", "COVERING INDEX parked_due"),
        ("SELECT * FROM parked WHERE id = 'a' ORDER BY due_at LIMIT 1", "parked_key"),
        ("SELECT hold FROM parked WHERE hold <> ''", "parked_hold"),
        ("SELECT * FROM dead_letters WHERE queue = 'a' ORDER BY dead_at, id", "dead_letters_queue"),
        ("SELECT * FROM dead_letters WHERE 1 AND (dead_at, id) > (1, 'a') ORDER BY dead_at, id", "dead_letters_age"),
        ("SELECT position FROM dead_letters WHERE position >= 0", "COVERING INDEX dead_letters_position"),
    ],
)
async def test_questions_that_are_asked_often_use_an_index_and_sort_nothing(
    state: State, query: str, index: str
) -> None:
    plan = await state.database.read(lambda c: [row[3] for row in c.execute("EXPLAIN QUERY PLAN " + query)])

    assert index in plan[0]
    if "parked_key" not in index:  # one event is in a few queues at most
        assert not any("TEMP B-TREE" in step for step in plan)


# --- a full disk -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 4 MiB, which takes root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no small disk to be had: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def fill_with_parks(state: State, numbers: Iterator[int]) -> int:
    """Park until the disk is full; return how many were taken."""
    for taken in itertools.count():
        number = next(numbers)
        try:
            await state.parked.park(parked(number, event=record(number, payload=b"x" * 20_000)))
        except StoreFull:
            return taken
    raise AssertionError


async def test_on_a_full_disk_the_ballast_lets_dead_letters_in(small_disk: Path) -> None:
    ballast = Ballast(small_disk / "ballast", size_bytes=MIB)
    assert ballast.ensure() is True
    state = await open_state(small_disk, release_ballast=ballast.release)
    (small_disk / "filler").write_bytes(b"x" * (free_bytes(small_disk) - 100 * KIB))
    for number in range(1, 20):
        await state.dead_letters.put(letter(number, payload=b"x" * 20_000))
    await state.dead_letters.put(letter(20, payload=LARGE))

    assert ballast.is_held is False
    assert 20 == await state.dead_letters.count(EVERYTHING)
    (small_disk / "filler").unlink()
    assert ballast.ensure() is True
    await state.close()


async def test_a_disk_that_is_full_to_the_brim_refuses_and_resumes(small_disk: Path) -> None:
    ballast = Ballast(small_disk / "ballast", size_bytes=MIB)
    ballast.ensure()
    state = await open_state(small_disk, release_ballast=ballast.release)
    numbers = itertools.count(1)
    taken = await fill_with_parks(state, numbers)
    with pytest.raises(StoreFull):
        await state.dead_letters.put(letter(1, payload=bytes(MIB)))  # a hold file finds no room either

    assert {"billing": taken} == await state.parked.counts()
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert await fill_with_parks(state, numbers) > 10
    await state.close()
    again = await open_state(small_disk)
    assert check_state(small_disk) == ""
    await again.close()


async def test_a_full_hold_folder_releases_the_ballast_once(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(hold_module, "sync_folder", lambda folder: synced.append(folder) or _no_space())
    with pytest.raises(StoreFull, match="No space left"):
        await state.parked.park(parked(event=record(payload=LARGE)))

    assert len(synced) == 2
    assert await state.parked.get(uuid_of(1)) is None


def _no_space() -> None:
    raise OSError(28, "No space left on device")


# --- kills -------------------------------------------------------------------------------------------

PARKER = """
import asyncio, sys
from pathlib import Path
from bridge.store.state import open_state
from tests.contract.stores import LARGE, letter, parked, record, uuid_of

async def park(state, first):
    for number in range(first, 1_000_000, 8):
        payload = (LARGE if number % 50 == 0 else b"x" * 700) + b"%d" % number
        await state.parked.park(parked(number, event=record(number, payload=payload)))
        print(number, file=sys.stderr, flush=True)
        if number % 3 == 0:
            await state.dead_letters.put(letter(number, payload=payload))

async def main():
    state = await open_state(Path(sys.argv[1]))
    await asyncio.gather(*(park(state, first) for first in range(8)))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_kill_9_in_the_middle_of_parks_loses_none_that_returned(tmp_path: Path, seed: int) -> None:
    enough = random.Random(seed).randint(50, 600)
    parker = subprocess.Popen(
        [sys.executable, "-c", PARKER, tmp_path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert parker.stderr is not None
    returned = [int(line) for line, _ in zip(parker.stderr, range(enough), strict=False)]
    parker.send_signal(signal.SIGKILL)
    parker.wait()
    returned += [int(line) for line in parker.stderr if line.endswith("\n") and line.strip().isdigit()]
    parker.stderr.close()

    assert len(returned) >= enough
    assert check_state(tmp_path) == ""
    state = await open_state(tmp_path)
    found = {e.record.position: e for e in await state.parked.due("billing", now=NOW + 60, limit=1_000_000)}
    dead = {each.position: each for each in await state.dead_letters.select(EVERYTHING, limit=1_000_000)}
    assert set(returned) <= {*found, *dead}
    assert not {*found} & {*dead}
    for number in returned:
        payload = found[number].record.payload if number in found else dead[number].payload
        assert payload == (LARGE if number % 50 == 0 else b"x" * 700) + b"%d" % number
    large = sum(number % 50 == 0 for number in {*found, *dead})
    assert large == len(held(tmp_path))  # what was left by the kill is swept
    await state.close()


# --- repair ------------------------------------------------------------------------------------------


async def filled(folder: Path, rows: int = 100) -> None:
    state = await open_state(folder)
    waiting = OutboxEntry(
        place=TargetPlace(target="arn:aws:sqs:eu-central-1:123456789012:done"),
        kind=OutcomeKind.ON_SUCCESS,
        id=uuid_of(1),
        function="billing",
        created_at=NOW,
        record=b"{}",
    )
    await asyncio.gather(
        *(state.parked.park(parked(n, event=record(n, payload=b"x" * 1000))) for n in range(rows)),
        *(state.dead_letters.put(letter(n + 1000, payload=LARGE)) for n in range(3)),
        state.outbox.put([waiting]),
        state.jobs.create(job()),
        state.marks.commit({"billing": 7}),
        state.stream_marks.replace("orders", dict.fromkeys(("shard-1", "shard-2"), BEGINNING), layout="layout"),
        state.mapping_states.pause("orders"),
    )
    await state.stream_marks.commit("orders", {"shard-1": STREAM_MARK})
    await state.schedules.save("nightly", SCHEDULE)
    await state.close()


async def test_a_sound_database_is_left_alone(tmp_path: Path) -> None:
    assert check_state(tmp_path) == ""
    assert repair_state(tmp_path) is None
    await filled(tmp_path)
    before = (tmp_path / "state.db").read_bytes()

    assert check_state(tmp_path) == ""
    assert repair_state(tmp_path) is None
    assert (tmp_path / "state.db").read_bytes() == before


async def test_what_can_be_read_of_a_damaged_database_is_kept(tmp_path: Path) -> None:
    await filled(tmp_path)
    with sqlite3.connect(tmp_path / "state.db") as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'parked_due'").fetchone()
    connection.close()
    with (tmp_path / "state.db").open("r+b") as file:  # an index is damaged: every row can still be read
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    assert "is damaged" in check_state(tmp_path)
    repair = repair_state(tmp_path)

    assert repair is not None
    assert {
        "parked": 100, "dead_letters": 3, "outbox": 1, "jobs": 1, "marks": 1, "stream_marks": 2, "paused_mappings": 1,
        "schedules": 1,
    } == repair.rows  # fmt: skip
    assert repair.aside.exists()
    assert check_state(tmp_path) == ""
    state = await open_state(tmp_path)
    assert {"billing": 100} == await state.parked.counts()
    assert 3 == len(await state.dead_letters.select(EVERYTHING, limit=9))
    assert {"billing": 7} == await state.marks.load()
    assert {"shard-1": STREAM_MARK, "shard-2": BEGINNING} == await state.stream_marks.load("orders")
    assert "layout" == await state.stream_marks.layout("orders")
    assert paused_mappings(tmp_path) == {"orders"}
    assert SCHEDULE == await state.schedules.load("nightly")
    with sqlite3.connect(tmp_path / "state.db") as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    assert {name for (name,) in found} == repair.rows.keys()  # a new table is repaired, too
    await state.close()


async def test_rows_of_an_older_version_are_kept(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db", migrations=MIGRATIONS[:2])
    database.open()
    await database.write(
        lambda connection: (
            connection.execute(
                "INSERT INTO parked (queue, id, lane, due_at, delay_s, position, target, source, invocation_type, "
                "received_at, delivery_id, attempts, first_attempt_at, backoffs, redrive, job, error_type, "
                "error_message, hold, hold_bytes, response, client_context, payload) VALUES ('default', 'i', 'billing', "
                "1.0, 1.0, 1, 'billing', 's', 'Event', 1.0, '', 1, 1.0, 0, 0, '', '', '', '', 0, x'', x'', x'7b7d')"
            ).rowcount
        )
    )
    (root,) = await database.read(
        lambda connection: connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs'").fetchone()
    )
    await database.close()
    with (tmp_path / "state.db").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    repair = repair_state(tmp_path)

    assert repair is not None
    assert 1 == repair.rows["parked"]
    state = await open_state(tmp_path)
    assert {"billing": 1} == await state.parked.counts()
    await state.close()


async def test_rows_around_a_damaged_page_are_kept(tmp_path: Path) -> None:
    await filled(tmp_path, rows=300)
    with (tmp_path / "state.db").open("r+b") as file:
        whole = file.read()
        page = next(
            n
            for n in range(30, len(whole) // 4096)
            if whole[n * 4096] == 13 and b"x" * 1000 in whole[n * 4096 :][:4096]
        )
        file.seek(page * 4096)
        file.write(b"\xff" * 4096)
    repair = repair_state(tmp_path)

    assert repair is not None
    assert 250 <= repair.rows["parked"] < 300
    assert 3 == repair.rows["dead_letters"]


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000], ids=["empty", "garbage"])
async def test_a_database_of_which_nothing_is_left_is_moved_aside_whole(tmp_path: Path, content: bytes) -> None:
    await filled(tmp_path)
    (tmp_path / "state.db").write_bytes(content)
    repair = repair_state(tmp_path)

    assert repair is not None
    assert repair.aside.read_bytes() == content
    assert set(repair.rows.values()) == {0}
    assert len(list(tmp_path.glob("hold.lost-*/*.payload"))) == 3
    state = await open_state(tmp_path)
    await state.parked.park(parked())
    await state.close()


async def test_a_newer_database_is_not_repaired(tmp_path: Path) -> None:
    await filled(tmp_path)
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="newer bridge"):
        repair_state(tmp_path)


async def test_a_repair_that_finds_no_file_but_its_log_moves_the_log_aside(tmp_path: Path) -> None:
    (tmp_path / "state.db-wal").write_bytes(b"x" * 5000)
    (tmp_path / "hold").mkdir()
    repair = repair_state(tmp_path)

    assert repair is not None
    assert check_state(tmp_path) == ""
    assert repair.aside.with_name(repair.aside.name + "-wal").exists()


async def test_what_waited_before_roles_were_noted_waits_on(tmp_path: Path) -> None:
    before = next(n for n, steps in enumerate(MIGRATIONS) if any("ADD COLUMN role" in step for step in steps))
    database = Database(tmp_path / "state.db", migrations=MIGRATIONS[:before])
    database.open()
    await database.write(
        lambda connection: (
            connection.execute(
                "INSERT INTO outbox (target, connection, kind, id, queue, function, position, created_at, attempts, "
                "due_at, last_error, is_pointer, is_kept, hold, hold_bytes, record) "
                "VALUES ('t', '', 'on_success', 'i', 'default', 'f', 1, 1.0, 0, 0, '', 0, 0, '', 0, x'7b7d')"
            ).rowcount
        )
    )
    await database.close()
    state = await open_state(tmp_path)
    (found,) = await state.outbox.page(None, after=-1, limit=10)
    assert (found.role, found.function, found.record) == (None, "f", b"{}")
    await state.close()
