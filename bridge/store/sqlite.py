"""A SQLite database with one writer thread that commits in groups, and one reader that never writes."""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import structlog

from bridge.core.errors import StoreCorrupt, StoreError, StoreFull, StoreTooNew
from bridge.store.ballast import free_bytes
from bridge.store.folder import NO_SPACE, sync_folder

log = structlog.get_logger("bridge.store")

T = TypeVar("T")

GROUP_MAX: Final = 512
"""Most calls that one commit makes durable."""
WAITING_MAX: Final = 10_000
"""Calls that may wait for the writer, and for the reader; further callers wait before they are queued."""
BUSY_TIMEOUT_S: Final = 5.0
CHECKED_MAX_BYTES: Final = 32 * 1024 * 1024
"""A database up to this size is checked as a whole when it is opened (tens of milliseconds)."""
WAL_KEPT_MAX_BYTES: Final = 64 * 1024 * 1024
CHECKPOINT_PAGES: Final = 4000
"""WAL pages (16 MB) between checkpoints: twice the parks a second of SQLite's 1,000, since a checkpoint
then writes each page of the indexes once for many commits."""
_ROOM_BYTES: Final = 1024 * 1024
"""With less than this free, an I/O error is taken for want of space."""
_MAGIC: Final = b"SQLite format 3\x00"

Migration = Sequence[str]
"""The statements that lead from one schema version to the next, in one transaction."""

_SYNC_FAILED: Final = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PERHAPS_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})


class _Call:
    """One caller's work for the writer and what came of it."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(
        self, work: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.work = work
        self.future = future
        self.loop = loop
        self.result: Any = None
        self.error: BaseException | None = None


class Database:
    """One file, WAL, synchronous=FULL. `write` is durable when it returns; `read` sees every returned write.

    All writes and all checkpoints go through one connection in one thread: SQLite before 3.51.3 can corrupt
    a WAL that two connections reset (sqlite.org/wal.html#walresetbug). Used from one event loop.
    """

    def __init__(
        self,
        path: Path,
        *,
        migrations: Sequence[Migration],
        release_ballast: Callable[[], object] | None = None,
        on_failure: Callable[[StoreError], None] | None = None,
    ) -> None:
        """Describe the database; `open()` opens it.

        Args:
            path: the file; its folder exists.
            migrations: statements of schema 1, 2, …; only ever appended to.
            release_ballast: frees space on a full disk; called from the writer thread, before the one retry.
            on_failure: called once, on the loop, when an fsync failed: the daemon must exit.
        """
        self._path = path
        self._migrations = migrations
        self._release_ballast = release_ballast
        self._on_failure = on_failure
        self._failure: StoreError | None = None
        self._is_closed = True
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(WAITING_MAX)
        self._reads_room = asyncio.Semaphore(WAITING_MAX)
        self._thread: threading.Thread | None = None
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection
        self._reads: ThreadPoolExecutor

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def failure(self) -> StoreError | None:
        """Why no write is taken any more; None while all is well."""
        return self._failure

    # --- opening ------------------------------------------------------------------------------

    def open(self, *, prepare: Callable[[sqlite3.Connection, bool], object] | None = None) -> None:
        """Open, making or migrating it. Blocking: call it off the loop.

        `prepare` sees the connection before anyone else does, and whether the database was made just now.

        Raises:
            StoreError: a newer version wrote it; nothing was changed.
            StoreCorrupt: it is damaged.
            StoreFull: no space.
        """
        assert self._is_closed, "opened twice"
        with self._translated():
            created = self._create()
            self._check_header()
            self._refuse_newer()
            self._writer = _connect(self._path)
            try:
                self._writer.execute("PRAGMA journal_mode=WAL")
                self._check_pages(self._writer, bytes_max=CHECKED_MAX_BYTES)
                self._migrate(self._writer)
                if prepare is not None:
                    prepare(self._writer, created)
                self._reader = _connect(self._path, read_only=True)
            except BaseException:
                self._writer.close()
                raise
        self._reads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{self._path.stem}-reader")
        self._thread = threading.Thread(target=self._run, name=f"{self._path.stem}-writer", daemon=True)
        self._is_closed = False
        self._thread.start()

    def check(self) -> None:
        """Read the whole file and raise what is wrong with it; changes nothing. Blocking, about 1 s a GB.

        Raises:
            StoreCorrupt: it is damaged.
            StoreError: a newer version wrote it, or it cannot be read.
        """
        with self._translated():
            self._check_header()
            self._refuse_newer()
            with contextlib.closing(_connect(self._path, read_only=True)) as connection:
                self._check_pages(connection, bytes_max=None)

    def make(self, fill: Callable[[sqlite3.Connection], object]) -> None:
        """Make the file, which must not exist, and fill it in one transaction, without opening it. Blocking.

        Raises:
            StoreError: it could not be written.
        """
        assert not self._path.exists(), "the file exists"
        with self._translated():
            self._create(fill)

    def _create(self, fill: Callable[[sqlite3.Connection], object] | None = None) -> bool:
        """Make the file whole, under another name: one that is short or empty later on was damaged."""
        if self._path.exists():
            return False
        wal = self._path.with_name(self._path.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise self._corrupt(f"the file is gone, but {wal.name} is there")
        fresh = self._path.with_name(self._path.name + ".new")
        for name in (fresh.name, fresh.name + "-wal", fresh.name + "-shm"):
            fresh.with_name(name).unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_connect(fresh)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            self._migrate(connection)
            if fill is not None:
                connection.execute("BEGIN IMMEDIATE")
                fill(connection)
                connection.execute("COMMIT")
        fresh.rename(self._path)
        sync_folder(self._path.parent)
        return True

    def _check_header(self) -> None:
        try:
            with self._path.open("rb") as file:
                header = file.read(100)
        except FileNotFoundError:
            raise self._corrupt("the file is gone") from None
        if not header:
            raise self._corrupt("the file is empty")
        if header[:16] != _MAGIC or len(header) < 100:
            raise self._corrupt("the file is not a database")

    def _refuse_newer(self) -> None:
        # Read-only, so that closing again cannot move the newer version's WAL into its file.
        with contextlib.closing(_connect(self._path, read_only=True)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise StoreTooNew(
                f"{self._path} was written by a newer bridge (schema {version}, this one knows "
                f"{len(self._migrations)}): nothing was changed; start the newer one"
            )

    def _check_pages(self, connection: sqlite3.Connection, *, bytes_max: int | None) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        wal = self._path.with_name(self._path.name + "-wal")
        if self._path.stat().st_size < pages * page_bytes and not (wal.exists() and wal.stat().st_size):
            raise self._corrupt("the file was cut short")
        if bytes_max is None or pages * page_bytes <= bytes_max:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise self._corrupt(str(verdict).replace("\n", " "))

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for number, statements in enumerate(self._migrations[version:], version + 1):
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number:d}")
            connection.execute("COMMIT")
            log.info("schema_migrated", database=self._path.name, schema=number)

    # --- calls --------------------------------------------------------------------------------

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the writer thread, in a transaction; return its result once that is durable.

        `work` may run twice (the group it was part of is undone when another call of it fails): it changes
        nothing but the database. What it raises reaches only its own caller. After a cancel the write may
        have happened or not.

        Raises:
            StoreFull: no space, even without the ballast; nothing was written.
            StoreCorrupt: the database is damaged.
            StoreError: closed, or an fsync failed (`on_failure` was called).
        """
        async with self._room:
            self._refuse_closed()
            loop = asyncio.get_running_loop()
            future: asyncio.Future[T] = loop.create_future()
            self._calls.put(_Call(work, future, loop))
            return await future

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the reader thread over one snapshot; it cannot write.

        Raises:
            StoreCorrupt: the database is damaged.
            StoreError: closed, or the disk failed.
        """
        async with self._reads_room:
            self._refuse_closed()
            return await asyncio.get_running_loop().run_in_executor(self._reads, self._read, work)

    async def close(self) -> None:
        """Finish what was asked for, then close; twice is fine."""
        if self._is_closed:
            return
        self._is_closed = True
        self._calls.put(None)
        await asyncio.to_thread(self._end)

    def _refuse_closed(self) -> None:
        if self._failure is not None:
            raise StoreError(str(self._failure))
        if self._is_closed:
            raise StoreError(f"{self._path.name} is closed")

    def _end(self) -> None:
        assert self._thread is not None
        self._thread.join()
        self._reads.shutdown(wait=True)
        self._reader.close()
        with contextlib.suppress(sqlite3.Error):  # a checkpoint that finds no space is made up for at the next start
            self._writer.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._translated():
            self._reader.execute("BEGIN")
            try:
                return work(self._reader)
            finally:
                self._reader.execute("ROLLBACK")

    # --- the writer thread --------------------------------------------------------------------

    def _run(self) -> None:
        while (first := self._calls.get()) is not None:
            group: list[_Call] = [first]
            is_last = False
            while len(group) < GROUP_MAX and not is_last and not self._calls.empty():
                call = self._calls.get()
                if call is None:
                    is_last = True
                else:
                    group.append(call)
            self._commit(group)
            self._answer(group)
            if is_last:
                return

    def _commit(self, group: list[_Call]) -> None:
        if self._failure is not None:
            for call in group:
                call.error = StoreError(str(self._failure))
            return
        error = self._transaction(group)
        if error is None:
            return
        if self._is_fatal(error):
            self._fail(group, error)
            return
        if _is_full(error) and self._release_ballast is not None:
            self._release_ballast()
        # Each by itself: one caller's mistake, or one row too large for the disk, spoils no other's.
        for call in group:
            call.error = self._transaction([call])
            if call.error is not None and self._is_fatal(call.error):
                self._fail([call], call.error)
            elif isinstance(call.error, sqlite3.Error):
                call.error = self._translate(call.error)

    def _transaction(self, group: list[_Call]) -> BaseException | None:
        """Run all calls and commit; on the first error undo everything and return it."""
        if self._failure is not None:
            return StoreError(str(self._failure))
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            for call in group:
                call.result = call.work(connection)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - a call's error belongs to its caller, not to the writer
            if connection.in_transaction:  # a full disk may have rolled it back already
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            return error
        return None

    @staticmethod
    def _is_fatal(error: BaseException) -> bool:
        return getattr(error, "sqlite_errorcode", 0) in _SYNC_FAILED

    def _fail(self, group: list[_Call], error: BaseException) -> None:
        """An fsync failed: what the disk holds is unknown, and a second fsync would only say that all is well."""
        failure = StoreError(f"{self._path.name} could not be synced ({error}); nothing is written any more")
        log.error("database_failed", database=self._path.name, error=str(error))
        for call in group:
            call.error = StoreError(str(failure))
        if self._failure is None:
            self._failure = failure
            if self._on_failure is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    group[0].loop.call_soon_threadsafe(self._on_failure, failure)

    @staticmethod
    def _answer(group: list[_Call]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            group[0].loop.call_soon_threadsafe(_settle, group)

    # --- errors -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translate(error) from error
        except OSError as error:
            kind = StoreFull if error.errno in NO_SPACE else StoreError
            raise kind(f"{self._path} cannot be used: {error.strerror}") from error

    def _translate(self, error: sqlite3.Error) -> StoreError:
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary in _DAMAGED:
            return self._corrupt(str(error))
        if primary == sqlite3.SQLITE_FULL or (primary in _PERHAPS_FULL and free_bytes(self._path.parent) < _ROOM_BYTES):
            return StoreFull(f"no space for {self._path.name}; nothing was written")
        return StoreError(f"{self._path.name}: {error}")

    def _corrupt(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(f"{self._path} is damaged ({what}): `bridge doctor --repair` moves it aside")


def _is_full(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PERHAPS_FULL


def _settle(group: list[_Call]) -> None:
    """Answer the callers; on the loop."""
    for call in group:
        if call.future.done():
            continue  # cancelled
        if call.error is None:
            call.future.set_result(call.result)
        else:
            call.future.set_exception(call.error)


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,  # opened here, used by one thread afterwards
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES:d}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT_MAX_BYTES:d}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
    except BaseException:
        connection.close()
        raise
    return connection
