"""The database: group commits, one caller's fault, refusals at open, a full disk, a failed fsync."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio

from bridge.core.errors import StoreCorrupt, StoreError, StoreFull
from bridge.store import sqlite as sqlite_module
from bridge.store.sqlite import Database

SCHEMA = (("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)",),)


def insert(number: int | None, blob: bytes = b"") -> Callable[[sqlite3.Connection], None]:
    return lambda connection: connection.execute("INSERT INTO t VALUES (?, ?)", (number, blob)).close()


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [a for (a,) in connection.execute("SELECT a FROM t ORDER BY a")]


async def opened(path: Path, **options: Any) -> Database:
    database = Database(path, **{"migrations": SCHEMA, **options})
    await asyncio.to_thread(database.open)
    return database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest_asyncio.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    made = await opened(path)
    yield made
    await made.close()


class Gate:
    """Keeps the writer busy, so that what is asked for meanwhile becomes one group."""

    def __init__(self, database: Database) -> None:
        self._entered, self._open = threading.Event(), threading.Event()
        self._task = asyncio.ensure_future(database.write(self._wait))

    def _wait(self, connection: sqlite3.Connection) -> None:
        self._entered.set()
        self._open.wait(60)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._entered.wait, 60)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._open.set()
        await self._task


# --- groups ------------------------------------------------------------------------------------------


async def test_callers_that_wait_together_share_a_commit(database: Database) -> None:
    seen: list[str] = []
    database._writer.set_trace_callback(seen.append)
    async with Gate(database):
        writes = [asyncio.ensure_future(database.write(insert(n))) for n in range(100)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)

    assert 2 == sum(statement == "COMMIT" for statement in seen)  # the gate's, and one for all
    assert list(range(100)) == await database.read(numbers)


async def test_a_group_has_a_limit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "GROUP_MAX", 10)
    seen: list[str] = []
    database._writer.set_trace_callback(seen.append)
    async with Gate(database):
        writes = [asyncio.ensure_future(database.write(insert(n))) for n in range(25)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)

    assert 1 + 3 == sum(statement == "COMMIT" for statement in seen)


async def test_each_caller_gets_its_own_result(database: Database) -> None:
    results = await asyncio.gather(
        *(database.write(lambda c, n=n: c.execute("SELECT ?", (n,)).fetchone()[0]) for n in range(50))
    )

    assert list(range(50)) == results


async def test_one_callers_fault_reaches_it_alone_and_leaves_nothing_behind(database: Database) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert(1000)(connection)
        raise ValueError("mine")

    def twice(connection: sqlite3.Connection) -> None:
        insert(1001)(connection)
        insert(5)(connection)
        insert(5)(connection)

    async with Gate(database):
        writes = [
            asyncio.ensure_future(database.write(work)) for work in (insert(1), half, insert(2), twice, insert(3))
        ]
        await asyncio.sleep(0)
    results = await asyncio.gather(*writes, return_exceptions=True)

    assert [None, None, None] == [results[0], results[2], results[4]]
    assert isinstance(results[1], ValueError)
    assert isinstance(results[3], StoreError)
    assert "UNIQUE" in str(results[3])
    assert [1, 2, 3] == await database.read(numbers)


async def test_a_cancelled_caller_takes_nobody_with_it(database: Database) -> None:
    async with Gate(database):
        writes = [asyncio.ensure_future(database.write(insert(n))) for n in range(3)]
        await asyncio.sleep(0)
        writes[1].cancel()
    results = await asyncio.gather(*writes, return_exceptions=True)

    assert [None, None] == [results[0], results[2]]
    assert isinstance(results[1], asyncio.CancelledError)
    assert {0, 2} <= set(await database.read(numbers))


async def test_waiting_callers_are_bounded_and_all_served(database: Database) -> None:
    database._room = asyncio.Semaphore(2)
    await asyncio.gather(*(database.write(insert(n)) for n in range(20)))

    assert 20 == len(await database.read(numbers))


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError, match="readonly"):
        await database.read(insert(1))

    assert [] == await database.read(numbers)


async def test_a_read_sees_one_snapshot_and_waits_for_no_writer(database: Database) -> None:
    await database.write(insert(1))
    async with Gate(database):
        assert [1] == await database.read(numbers)


async def test_the_loop_is_never_blocked(database: Database, loop_strict: object) -> None:
    await asyncio.gather(*(database.write(insert(n)) for n in range(10)))

    assert 10 == len(await database.read(numbers))


# --- closing -----------------------------------------------------------------------------------------


async def test_close_finishes_what_was_asked_for(path: Path) -> None:
    database = await opened(path)
    async with Gate(database):
        writes = [asyncio.ensure_future(database.write(insert(n))) for n in range(30)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(database.close())
        await asyncio.sleep(0)
    await closing
    await asyncio.gather(*writes)
    await database.close()
    again = await opened(path)

    assert 30 == len(await again.read(numbers))
    await again.close()


async def test_a_closed_database_says_so(path: Path) -> None:
    database = await opened(path)
    await database.close()
    with pytest.raises(StoreError, match=r"state\.db is closed"):
        await database.write(insert(1))
    with pytest.raises(StoreError, match=r"state\.db is closed"):
        await database.read(numbers)


async def test_a_clean_close_leaves_one_file(path: Path) -> None:
    database = await opened(path)
    await database.write(insert(1))
    await database.close()

    assert [path.name] == os.listdir(path.parent)
    assert path.stat().st_mode & 0o777 == 0o600


# --- opening -----------------------------------------------------------------------------------------


async def test_migrations_are_applied_in_order_and_once(path: Path) -> None:
    database = await opened(path)
    await database.write(insert(1))
    await database.close()
    grown = (*SCHEMA, ("ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT 'x'", "UPDATE t SET c = 'y'"))
    for _ in range(2):
        database = await opened(path, migrations=grown)
        assert [(1, b"", "y")] == await database.read(lambda c: c.execute("SELECT * FROM t").fetchall())
        await database.close()


async def test_half_a_migration_is_none(path: Path) -> None:
    await (await opened(path)).close()
    broken = (*SCHEMA, ("CREATE TABLE u (a)", "CREATE TABLE t (a)"))
    with pytest.raises(StoreError, match="already exists"):
        await opened(path, migrations=broken)
    database = await opened(path)

    assert [("t",)] == await database.read(lambda c: c.execute("SELECT name FROM sqlite_master").fetchall())
    await database.close()


@pytest.mark.parametrize("with_wal", [False, True], ids=["closed", "killed"])
async def test_a_newer_schema_is_refused_and_untouched(path: Path, with_wal: bool) -> None:
    newer = sqlite3.connect(path, isolation_level=None)
    newer.execute("PRAGMA journal_mode=WAL")
    newer.execute("CREATE TABLE t (a)")
    newer.execute("PRAGMA user_version=7")
    if with_wal:  # as a kill -9 leaves it
        wal = path.with_name("state.db-wal").read_bytes()
        main = path.read_bytes()
        newer.close()
        path.write_bytes(main)
        path.with_name("state.db-wal").write_bytes(wal)
    else:
        newer.close()
    before = {name: path.with_name(name).read_bytes() for name in os.listdir(path.parent) if not name.endswith("-shm")}
    with pytest.raises(
        StoreError, match=r"newer bridge \(schema 7, this one knows 1\): nothing was changed"
    ) as refused:
        await opened(path)

    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, StoreCorrupt)
    assert before == {name: path.with_name(name).read_bytes() for name in before}


@pytest.mark.parametrize("content", [b"", b"x", b"\x00" * 8192, b"SQLite format 3\x00", b"\xff" * 100_000], ids=len)
async def test_what_is_no_database_is_refused_and_untouched(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"state\.db is damaged .*bridge doctor --repair") as refused:
        await opened(path)

    assert "\n" not in str(refused.value)
    assert path.read_bytes() == content


async def fill(path: Path, rows: int = 200) -> None:
    database = await opened(path)
    await asyncio.gather(*(database.write(insert(n, b"x" * 1000)) for n in range(rows)))
    await database.close()


@pytest.mark.parametrize("part", [0.99, 0.5, 0.1])
async def test_a_file_that_was_cut_short_is_refused(path: Path, part: float) -> None:
    await fill(path)
    os.truncate(path, int(path.stat().st_size * part))
    with pytest.raises(StoreCorrupt, match=r"state\.db is damaged"):
        await opened(path)


async def test_damage_inside_is_found_at_open(path: Path) -> None:
    await fill(path)
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(os.urandom(4096))
    with pytest.raises(StoreCorrupt):
        await opened(path)


async def test_damage_found_later_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(path)
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096)
    monkeypatch.setattr(sqlite_module, "CHECKED_MAX_BYTES", 0)  # as if it were too large to check as a whole
    database = await opened(path)
    with pytest.raises(StoreCorrupt, match=r"state\.db is damaged"):
        await database.read(lambda c: c.execute("SELECT sum(length(b)) FROM t").fetchone())
    await database.close()


async def test_a_log_without_its_file_is_refused(path: Path) -> None:
    path.with_name("state.db-wal").write_bytes(b"x" * 5000)
    with pytest.raises(StoreCorrupt, match=r"gone, but state\.db-wal is there"):
        await opened(path)
    assert not path.exists()


async def test_a_start_that_was_cut_off_while_making_the_file_is_made_up_for(path: Path) -> None:
    for name in ("state.db.new", "state.db.new-wal"):
        path.with_name(name).write_bytes(b"half")
    await (await opened(path)).close()

    assert [path.name] == os.listdir(path.parent)


async def test_a_torn_log_keeps_what_was_committed(path: Path) -> None:
    database = await opened(path)
    for number in range(5):
        await database.write(insert(number, b"x" * 3000))
    saved = path.read_bytes(), path.with_name("state.db-wal").read_bytes()
    await database.close()
    path.write_bytes(saved[0])
    path.with_name("state.db-wal").write_bytes(saved[1][:-2000])
    database = await opened(path)

    assert [0, 1, 2, 3] == await database.read(numbers)
    await database.close()


async def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be used: Is a directory"):
        await opened(path)


# --- a full disk -------------------------------------------------------------------------------------


async def limited(path: Path, **options: Any) -> Database:
    """Return a database that may grow by a few pages only, as on a full disk."""
    database = await opened(path, **options)
    await database.write(lambda c: c.execute("PRAGMA max_page_count=10").fetchall() and None)
    return database


async def test_a_full_disk_is_named_and_nothing_is_written(path: Path) -> None:
    database = await limited(path)
    with pytest.raises(StoreFull, match=r"no space for state\.db"):
        await database.write(insert(1, b"x" * 100_000))

    assert [] == await database.read(numbers)
    await database.write(insert(2))
    assert [2] == await database.read(numbers)
    await database.close()


async def test_the_ballast_is_released_and_the_write_tried_once_more(path: Path) -> None:
    released: list[str] = []

    def release() -> None:
        released.append(threading.current_thread().name)
        database._writer.execute("PRAGMA max_page_count=1000")

    database = await limited(path, release_ballast=release)
    await database.write(insert(1, b"x" * 100_000))

    assert ["state-writer"] == released
    assert [1] == await database.read(numbers)
    await database.close()


async def test_with_the_ballast_gone_what_fits_is_still_written(path: Path) -> None:
    database = await limited(path, release_ballast=lambda: None)
    async with Gate(database):
        works = (insert(1), insert(2, b"x" * 100_000), insert(3))
        writes = [asyncio.ensure_future(database.write(work)) for work in works]
        await asyncio.sleep(0)
    results = await asyncio.gather(*writes, return_exceptions=True)

    assert [None, None] == [results[0], results[2]]
    assert isinstance(results[1], StoreFull)
    assert [1, 3] == await database.read(numbers)
    await database.close()


# --- a disk that fails -------------------------------------------------------------------------------


class FailsAt:
    """A connection on which one statement fails with a given error of SQLite's."""

    def __init__(self, connection: sqlite3.Connection, statement: str, code: int) -> None:
        self._connection, self._statement, self._code = connection, statement, code
        self.statements: list[str] = []

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self.statements.append(statement)
        if statement == self._statement:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(statement, *values)

    def close(self) -> None:
        self._connection.close()


async def test_after_a_failed_fsync_nothing_is_written_any_more(path: Path) -> None:
    failures: list[StoreError] = []
    database = await opened(path, on_failure=failures.append)
    database._writer = disk = FailsAt(database._writer, "COMMIT", sqlite3.SQLITE_IOERR_FSYNC)
    with pytest.raises(StoreError, match="could not be synced") as first:
        await database.write(insert(1))
    with pytest.raises(StoreError, match="could not be synced"):
        await database.write(insert(2))

    assert not isinstance(first.value, StoreFull)
    assert 1 == disk.statements.count("COMMIT")  # never tried again
    assert 1 == len(failures)
    assert database.failure is failures[0]
    await database.close()


async def test_another_io_error_fails_the_call_and_not_the_daemon(path: Path) -> None:
    failures: list[StoreError] = []
    database = await opened(path, on_failure=failures.append)
    whole = database._writer
    database._writer = FailsAt(whole, "COMMIT", sqlite3.SQLITE_IOERR_WRITE)
    with pytest.raises(StoreError, match="disk I/O error"):
        await database.write(insert(1))
    database._writer = whole
    await database.write(insert(2))

    assert [] == failures
    assert [2] == await database.read(numbers)
    await database.close()


async def test_an_io_error_without_space_is_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await opened(path)
    whole = database._writer
    database._writer = FailsAt(whole, "COMMIT", sqlite3.SQLITE_IOERR_SHMSIZE)
    monkeypatch.setattr(sqlite_module, "free_bytes", lambda folder: 0)
    with pytest.raises(StoreFull):
        await database.write(insert(1))
    database._writer = whole
    await database.close()
