"""A SQLite database with one writer thread: many callers, one transaction, each with its own savepoint."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from bridge.core.errors import StoreCorrupt, StoreError, StoreFull

log = structlog.get_logger("bridge.store")

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

_GROUP_MAX: Final = 512
"""Callers in one transaction at most."""
_QUEUE_MAX: Final = 100_000
_FULL: Final = frozenset({sqlite3.SQLITE_FULL})
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Database:
    """One file, WAL, synchronous=FULL. All statements run in one thread: one connection writes and checkpoints.

    (More than one writing connection met SQLite's WAL-reset bug before 3.51.3.)
    """

    def __init__(
        self, path: Path, *, migrations: Sequence[str], release_ballast: Callable[[], None] | None = None
    ) -> None:
        self._path = path
        self._migrations = migrations
        self._release_ballast = release_ballast
        self._queue: queue.SimpleQueue[tuple[Work, asyncio.Future[Any], bool] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: sqlite3.Connection | None = None
        self._waiting = 0

    async def open(self) -> None:
        """Open or create it and bring its schema up to date.

        Raises:
            StoreCorrupt: it is damaged.
            StoreError: it was written by a newer version; nothing was changed.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._connect)
        self._thread = threading.Thread(target=self._run, name=f"sqlite-{self._path.stem}", daemon=True)
        self._thread.start()

    def _connect(self) -> None:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path.name} cannot be opened: {error}") from error
        try:
            self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            raise self._translated(error) from error
        except StoreError:
            connection.close()
            raise
        self._connection = connection
        self._path.chmod(0o600)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("pragma user_version").fetchone()[0]
        if version > len(self._migrations):
            raise StoreError(
                f"{self._path.name} was written by a newer bridge (schema {version}, this one knows "
                f"{len(self._migrations)}); start that version"
            )
        connection.execute("pragma busy_timeout = 5000")
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        for number in range(version, len(self._migrations)):
            # One transaction with its version: half a migration is none.
            connection.executescript(
                f"begin immediate; {self._migrations[number]}; pragma user_version = {number + 1}; commit;"
            )

    async def close(self) -> None:
        """Do what was asked for, then close; twice is fine."""
        if self._thread is None:
            return
        self._queue.put(None)
        thread, self._thread = self._thread, None
        await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` inside the next transaction; durable when it returns.

        Raises:
            StoreFull: no space, not even with the ballast; nothing of this work was written.
            StoreError: anything else.
        """
        return await self._ask(work, writes=True)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query; it sees every write that returned before."""
        return await self._ask(work, writes=False)

    async def _ask(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        if self._thread is None or self._loop is None:
            raise StoreError(f"{self._path.name} is closed")
        if self._waiting >= _QUEUE_MAX:
            raise StoreFull(f"{self._path.name} has {self._waiting} calls waiting")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting += 1
        self._queue.put((work, future, writes))
        try:
            return await future
        finally:
            self._waiting -= 1

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        connection = self._connection
        assert connection is not None
        stopping = False
        while not stopping:
            group: list[tuple[Work, asyncio.Future[Any], bool]] = []
            item = self._queue.get()
            while True:
                if item is None:
                    stopping = True
                    break
                group.append(item)
                if len(group) >= _GROUP_MAX:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if group:
                self._answer(self._commit(connection, group))
        connection.close()

    def _commit(
        self, connection: sqlite3.Connection, group: list[tuple[Work, "asyncio.Future[Any]", bool]]
    ) -> list[tuple["asyncio.Future[Any]", Any, Exception | None]]:
        if not any(writes for _, _, writes in group):
            return [(future, *self._one(connection, work)) for work, future, _ in group]
        for attempt in range(2):
            try:
                connection.execute("begin immediate")
                answers = []
                for work, future, _ in group:
                    connection.execute("savepoint one")
                    result, error = self._one(connection, work)
                    if error is not None:
                        connection.execute("rollback to one")
                    connection.execute("release one")
                    answers.append((future, result, error))
                    if isinstance(error, StoreFull):
                        raise error
                connection.execute("commit")
            except (sqlite3.Error, StoreFull) as error:
                self._roll_back(connection)
                failure = error if isinstance(error, StoreFull) else self._translated(error)
                if isinstance(failure, StoreFull) and attempt == 0 and self._release_ballast is not None:
                    self._release_ballast()
                    continue
                return [(future, None, failure) for _, future, _ in group]
            else:
                return answers
        raise AssertionError("unreachable")

    def _one(self, connection: sqlite3.Connection, work: Work) -> tuple[Any, Exception | None]:
        try:
            return work(connection), None
        except sqlite3.Error as error:
            return None, self._translated(error)
        except Exception as error:  # noqa: BLE001 - the caller's own fault belongs to that caller
            return None, error

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("rollback")

    def _translated(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _FULL or "disk is full" in str(error):
            return StoreFull(f"{self._path.name}: no space on the disk; nothing was written")
        if code in _CORRUPT:
            return StoreCorrupt(
                f"{self._path.name} is damaged ({error}); stop the daemon and run `bridge doctor --repair`"
            )
        return StoreError(f"{self._path.name}: {error}")

    def _answer(self, answers: list[tuple["asyncio.Future[Any]", Any, Exception | None]]) -> None:
        assert self._loop is not None

        def deliver() -> None:
            for future, result, error in answers:
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        self._loop.call_soon_threadsafe(deliver)
