"""Layers that Lambda's API made, in SQLite: `shared/catalog.db`, a row for each version."""

import sqlite3
from typing import Final

from bridge.core.errors import StoreCorrupt
from bridge.registry.layers import LayerName, LayerVersion, pack_layer, unpack_layer
from bridge.store.sqlite import Database, Migration

LAYERS: Final[Migration] = (
    """
CREATE TABLE layers (
    account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, document BLOB NOT NULL,
    PRIMARY KEY (account, region, name, version)
) STRICT, WITHOUT ROWID""",
    # Outlives its layer: numbers are never given again.
    """
CREATE TABLE layer_numbers (
    account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (account, region, name)
) STRICT, WITHOUT ROWID""",
)
_PUT: Final = (
    "INSERT INTO layers (account, region, name, version, document) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (account, region, name, version) DO UPDATE SET document = excluded.document"
)
_NUMBER: Final = (
    "INSERT INTO layer_numbers (account, region, name, last) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (account, region, name) DO UPDATE SET last = max(last, excluded.last)"
)
_DELETE: Final = "DELETE FROM layers WHERE account = ? AND region = ? AND name = ? AND version = ?"


class SqliteLayers:
    """Versions of layers; what writes is durable when it returns, and whole. Raises StoreError where that fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> tuple[list[LayerVersion], dict[LayerName, int]]:
        """Return all versions, and the last number of every layer there ever was.

        Raises:
            StoreCorrupt: a row is not what was written.
        """
        rows, numbers = await self._database.read(_read)
        try:
            versions = [unpack_layer(LayerName(*row[:3]), row[3], row[4]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorrupt(f"{self._database.path.name} holds a layer that cannot be read: {error}") from error
        return versions, {LayerName(*row[:3]): row[3] for row in numbers}

    async def save(self, version: LayerVersion) -> None:
        """Keep a version as it is now."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(_PUT, (*version.layer, version.version, pack_layer(version)))
            connection.execute(_NUMBER, (*version.layer, version.version))

        await self._database.write(write)

    async def delete(self, version: LayerVersion) -> None:
        """Forget a version; one that is not there is fine."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(_DELETE, (*version.layer, version.version))

        await self._database.write(write)


_Version = tuple[str, str, str, int, bytes]
_Last = tuple[str, str, str, int]


def _read(connection: sqlite3.Connection) -> tuple[list[_Version], list[_Last]]:
    rows = connection.execute("SELECT account, region, name, version, document FROM layers").fetchall()
    return rows, connection.execute("SELECT account, region, name, last FROM layer_numbers").fetchall()
