"""What hangs on a function's qualifiers, declared or made: documents of one kind each, in `shared/catalog.db`."""

import sqlite3
from collections.abc import Mapping
from typing import Final

from bridge.store.sqlite import Database

ATTACHMENTS: Final = """
CREATE TABLE attachments (
    kind TEXT NOT NULL, function TEXT NOT NULL, qualifier TEXT NOT NULL, document BLOB NOT NULL,
    PRIMARY KEY (kind, function, qualifier)
) STRICT, WITHOUT ROWID"""
"""`function` is its unqualified ARN: accounts and regions are name spaces of their own."""
_PUT: Final = (
    "INSERT INTO attachments (kind, function, qualifier, document) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (kind, function, qualifier) DO UPDATE SET document = excluded.document"
)


class SqliteAttachments:
    """Documents of one kind (`policy`, `url`), by function and qualifier; a change is durable when it returns."""

    def __init__(self, database: Database, kind: str) -> None:
        self._database = database
        self._kind = kind

    async def load(self) -> Mapping[tuple[str, str], bytes]:
        """Return all of them. Raises StoreError."""

        def read(connection: sqlite3.Connection) -> list[tuple[str, str, bytes]]:
            query = "SELECT function, qualifier, document FROM attachments WHERE kind = ?"
            return connection.execute(query, (self._kind,)).fetchall()

        rows = await self._database.read(read)
        return {(function, qualifier): document for function, qualifier, document in rows}

    async def save(self, place: tuple[str, str], document: bytes | None) -> None:
        """Write one; None deletes it.

        Raises:
            StoreFull, StoreError: nothing was written.
        """

        def write(connection: sqlite3.Connection) -> None:
            if document is None:
                query = "DELETE FROM attachments WHERE kind = ? AND function = ? AND qualifier = ?"
                connection.execute(query, (self._kind, *place))
            else:
                connection.execute(_PUT, (self._kind, *place, document))

        await self._database.write(write)

    async def forget(self, function: str, qualifier: str | None) -> None:
        """Delete that of a qualifier, or, where that is None, those of all of a function's. Raises StoreError."""

        def write(connection: sqlite3.Connection) -> None:
            query = "DELETE FROM attachments WHERE kind = ? AND function = ? AND (? IS NULL OR qualifier = ?)"
            connection.execute(query, (self._kind, function, qualifier, qualifier))

        await self._database.write(write)
