"""Marks of streams in SQLite, guarded by epochs, and which mappings are paused."""

import sqlite3
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from bridge.core.stream import BEFORE_ALL, Mark, Position, Shard
from bridge.store.sqlite import Database

_PUT: Final = (
    "INSERT INTO stream_marks (mapping, shard, position, epoch, layout, note, state, ended) "
    "VALUES (?, ?, ?, ?, ?, x'', x'', ?)"
)
_MOVE: Final = (
    "UPDATE stream_marks SET position = ?, epoch = ?, note = ?, state = ?, ended = max(ended, ?) "
    "WHERE mapping = ? AND shard = ?"
)


class SqliteStreamMarks:
    """`sources.StreamMarks` over the state database: position, note and state of a shard are one row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, mapping: str) -> Mapping[Shard, Mark]:
        """Return the stored mark of every shard."""
        return await self._database.read(lambda connection: _marks(connection, mapping))

    async def layout(self, mapping: str) -> str:
        """Return what `replace` was told last."""
        return await self._database.read(lambda connection: _layout(connection, mapping))

    async def commit(self, mapping: str, marks: Mapping[Shard, Mark]) -> None:
        """Store what moves forward and belongs to the newest owner."""
        wanted = dict(marks)

        def store(connection: sqlite3.Connection) -> None:
            known = _places(connection, mapping)
            connection.executemany(
                _MOVE,
                [
                    (str(mark.position), mark.epoch, mark.note, mark.state, mark.has_ended, mapping, shard)
                    for shard, mark in wanted.items()
                    if shard in known and known[shard][0] <= mark.position and known[shard][1] <= mark.epoch
                ],
            ).close()

        if wanted:
            await self._database.write(store)

    async def claim(self, mapping: str, shards: AbstractSet[Shard]) -> Mapping[Shard, Mark]:
        """Raise the epochs and return the marks."""
        wanted = sorted(shards)

        def take(connection: sqlite3.Connection) -> dict[Shard, Mark]:
            known = _places(connection, mapping)
            layout = _layout(connection, mapping)
            connection.executemany(
                "UPDATE stream_marks SET epoch = epoch + 1 WHERE mapping = ? AND shard = ?",
                [(mapping, shard) for shard in wanted if shard in known],
            ).close()
            connection.executemany(
                _PUT,
                [(mapping, shard, str(BEFORE_ALL), 1, layout, False) for shard in wanted if shard not in known],
            ).close()
            marks = _marks(connection, mapping)
            return {shard: marks[shard] for shard in wanted}

        return await self._database.write(take)

    async def discard(self, mapping: str, shards: AbstractSet[Shard]) -> None:
        """Remove the marks of these shards."""
        gone = [(mapping, shard) for shard in shards]
        await self._database.write(
            lambda connection: connection.executemany(
                "DELETE FROM stream_marks WHERE mapping = ? AND shard = ?", gone
            ).close()
        )

    async def replace(self, mapping: str, marks: Mapping[Shard, Mark], *, layout: str = "") -> None:
        """Make these positions all that is stored, above every epoch so far."""
        wanted = dict(marks)

        def store(connection: sqlite3.Connection) -> None:
            epoch = max((epoch for _, epoch in _places(connection, mapping).values()), default=0) + 1
            connection.execute("DELETE FROM stream_marks WHERE mapping = ?", (mapping,)).close()
            connection.executemany(
                _PUT,
                [(mapping, shard, str(mark.position), epoch, layout, mark.has_ended) for shard, mark in wanted.items()],
            ).close()

        await self._database.write(store)

    async def forget(self, mapping: str) -> None:
        """Remove a mapping's marks."""
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM stream_marks WHERE mapping = ?", (mapping,)).close()
        )


class SqliteMappingStates:
    """`sources.MappingStates` over the state database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def paused(self) -> frozenset[str]:
        """Return the names of those that are paused."""
        return await self._database.read(
            lambda connection: frozenset(name for (name,) in connection.execute("SELECT name FROM paused_mappings"))
        )

    async def pause(self, name: str) -> None:
        """Keep it paused."""
        await self._database.write(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO paused_mappings (name) VALUES (?)", (name,)
            ).close()
        )

    async def resume(self, name: str) -> None:
        """Let it run."""
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM paused_mappings WHERE name = ?", (name,)).close()
        )


def _marks(connection: sqlite3.Connection, mapping: str) -> dict[Shard, Mark]:
    rows = connection.execute(
        "SELECT shard, position, epoch, note, state, ended FROM stream_marks WHERE mapping = ? ORDER BY shard",
        (mapping,),
    )
    return {
        shard: Mark(position=int(position), epoch=epoch, note=note, state=state, has_ended=bool(ended))
        for shard, position, epoch, note, state, ended in rows
    }


def _places(connection: sqlite3.Connection, mapping: str) -> dict[Shard, tuple[Position, int]]:
    """Return position and epoch of each shard: a state may have a megabyte, and is not looked at here."""
    rows = connection.execute("SELECT shard, position, epoch FROM stream_marks WHERE mapping = ?", (mapping,))
    return {shard: (int(position), epoch) for shard, position, epoch in rows}


def _layout(connection: sqlite3.Connection, mapping: str) -> str:
    row = connection.execute("SELECT layout FROM stream_marks WHERE mapping = ? LIMIT 1", (mapping,)).fetchone()
    return "" if row is None else str(row[0])
