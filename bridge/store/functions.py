"""Functions that Lambda's API made, in SQLite: `shared/catalog.db`, a row for each of their parts."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreCorrupt, StoreError
from bridge.registry.made import MadeFunction, Row, name_of, pack, parts, unpack
from bridge.store.attachments import ATTACHMENTS, SqliteAttachments
from bridge.store.layers import LAYERS
from bridge.store.sqlite import Database, Migration

log = structlog.get_logger("bridge.store")

_PARTS: Final = """
CREATE TABLE parts (
    name TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, document BLOB NOT NULL, PRIMARY KEY (name, kind, key)
) STRICT, WITHOUT ROWID"""
MIGRATIONS: Final[tuple[Migration, ...]] = (
    (
        _PARTS,
        # Outlives its function: numbers are never given again.
        "CREATE TABLE numbers (name TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (ATTACHMENTS,),
    LAYERS,
    ("CREATE TABLE mappings (uuid TEXT PRIMARY KEY, document BLOB NOT NULL) STRICT, WITHOUT ROWID",),
)
_PUT: Final = (
    "INSERT INTO parts (name, kind, key, document) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (name, kind, key) DO UPDATE SET document = excluded.document"
)
_NUMBER: Final = (
    "INSERT INTO numbers (name, last) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET last = max(last, excluded.last)"
)


class SqliteFunctions:
    """What was made, by name; `save` is durable when it returns, and whole."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """Where they are kept, with what else Lambda's API makes."""
        return self._database

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        release_ballast: Callable[[], object] | None = None,
        on_failure: Callable[[StoreError], None] | None = None,
    ) -> "SqliteFunctions":
        """Open the database, making it at first; see `sqlite.Database` for what may be raised."""
        database = Database(path, migrations=MIGRATIONS, release_ballast=release_ballast, on_failure=on_failure)
        await asyncio.to_thread(database.open)
        return cls(database)

    def attachments(self, kind: str) -> SqliteAttachments:
        """Return the documents of a kind that hang on functions; they close with these."""
        return SqliteAttachments(self._database, kind)

    async def close(self) -> None:
        """Finish what was asked for, then close."""
        await self._database.close()

    async def load(self) -> tuple[dict[str, MadeFunction], dict[str, int]]:
        """Return all functions by key, and the last version number of every name there ever was.

        Raises:
            StoreCorrupt: a row is not what was written.
        """
        rows, numbers = await self._database.read(_read)
        grouped: dict[str, dict[Row, bytes]] = {}
        for owner, kind, key, document in rows:
            grouped.setdefault(owner, {})[kind, key] = document
        try:
            functions = {
                key: unpack(key, found, last_version=numbers.get(name_of(key), 0)) for key, found in grouped.items()
            }
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorrupt(f"{self._database.path.name} holds a function that cannot be read: {error}") from error
        return functions, numbers

    async def save(self, key: str, *, before: MadeFunction | None, after: MadeFunction | None) -> None:
        """Write what differs under a function's key; `after` None deletes it.

        Raises:
            StoreFull, StoreError: nothing was written.
        """
        old = {} if before is None else parts(before)
        new = {} if after is None else parts(after)
        gone = [(key, *row) for row in old.keys() - new.keys()]
        changed = [(key, *row, pack(part)) for row, part in new.items() if old.get(row) != part]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM parts WHERE name = ? AND kind = ? AND key = ?", gone)
            connection.executemany(_PUT, changed)
            if after is not None and after.last_version:
                connection.execute(_NUMBER, (after.name, after.last_version))

        await self._database.write(write)

    async def erase(self) -> None:
        """Forget all that the database holds, of every kind, and every number that was given. Raises StoreError."""
        await self._database.write(_erase)


def _erase(connection: sqlite3.Connection) -> None:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in names:
        if not name.startswith("sqlite_"):
            connection.execute(f'DELETE FROM "{name}"')  # noqa: S608 - our own tables' names


def _read(connection: sqlite3.Connection) -> tuple[list[tuple[str, str, str, bytes]], dict[str, int]]:
    rows = connection.execute("SELECT name, kind, key, document FROM parts").fetchall()
    return rows, dict(connection.execute("SELECT name, last FROM numbers").fetchall())
