"""What waits for targets in SQLite: beside the dead letters, so that a failure and its records are one transaction."""

import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from bridge.core.invocation import DeadLetter
from bridge.core.outcome import WAITING, OutboxEntry, OutcomeKind, PlaceStatus, TargetPlace
from bridge.store.dead_letters import letter_row, put_letter
from bridge.store.hold import Hold
from bridge.store.parked import unpark
from bridge.store.schema import insert_or_replace, text
from bridge.store.sqlite import Database

_COLUMNS: Final = (
    "target", "connection", "kind", "id", "queue", "function", "position", "created_at", "attempts", "due_at",
    "last_error", "is_pointer", "is_kept", "hold", "hold_bytes", "record", "role",
)  # fmt: skip
_PUT: Final = insert_or_replace("outbox", _COLUMNS, key=("id", "queue", "kind", "target", "connection"))
_SELECT: Final = f"SELECT number, {', '.join(_COLUMNS)} FROM outbox "  # noqa: S608 - our own column names
_PAGE_MAX_BYTES: Final = 16 * 1024 * 1024
"""Records of one read end early once they pass this."""
_GIVE_UP_STEP: Final = 500
"""Entries given up in one transaction."""
_SUCCESS: Final = OutcomeKind.ON_SUCCESS.value
_PLACES: Final = """
SELECT target, connection, SUM(is_kept = 0), SUM(is_kept), MIN(CASE WHEN is_kept = 0 THEN number END)
FROM outbox GROUP BY target, connection ORDER BY target, connection"""


class SqliteOutbox:
    """`outcome.Outbox` over the state database."""

    def __init__(self, database: Database, hold: Hold) -> None:
        self._database = database
        self._hold = hold

    async def put(self, entries: Sequence[OutboxEntry], *, letter: DeadLetter | None = None) -> None:
        """Store all of it in one transaction."""
        async with AsyncExitStack() as held:
            rows = []
            for entry in entries:
                name, inline = await held.enter_async_context(self._hold.kept(entry.record))
                rows.append(_row(entry, hold=name, inline=inline))
            letters = []
            if letter is not None:
                name, inline = await held.enter_async_context(self._hold.kept(letter.payload))
                letters.append(letter_row(letter, hold=name, inline=inline))

            def write(connection: sqlite3.Connection) -> list[str]:
                freed = [connection.execute(_PUT, row).fetchone()[0] for row in rows]
                if letter is not None:
                    freed += [put_letter(connection, row) for row in letters]
                    freed += unpark(connection, letter.id, queue=letter.queue)
                    connection.execute(
                        "UPDATE dead_letters SET is_kept = 0 WHERE id = ? AND queue = ?", (letter.id, letter.queue)
                    )
                return freed

            freed = await self._database.write(write)
        await self._hold.remove(*freed)

    async def due(self, place: TargetPlace, *, now: float, limit: int) -> list[OutboxEntry]:
        """Return what may be sent, oldest first."""
        return await self._select(
            "WHERE target = ? AND connection = ? AND is_kept = 0 AND due_at <= ? ORDER BY number",
            (place.target, place.connection, now),
            limit=limit,
        )

    async def clamp(self, *, latest: float) -> None:
        """Shorten waits that a clock step made too long."""
        await self._database.write(
            lambda connection: connection.execute("UPDATE outbox SET due_at = ?1 WHERE due_at > ?1", (latest,)).rowcount
        )

    async def next_due(self, place: TargetPlace) -> float | None:
        """Return the earliest due_at, None when nothing waits there."""
        query = "SELECT MIN(due_at) FROM outbox WHERE target = ? AND connection = ? AND is_kept = 0"
        return await self._database.read(
            lambda connection: connection.execute(query, (place.target, place.connection)).fetchone()[0]
        )

    async def probe(self, place: TargetPlace) -> OutboxEntry | None:
        """Return what was tried least."""
        found = await self._select(
            "WHERE target = ? AND connection = ? AND is_kept = 0 ORDER BY attempts, number",
            (place.target, place.connection),
            limit=1,
        )
        return found[0] if found else None

    async def sent(self, entries: Sequence[OutboxEntry]) -> None:
        """Remove them; keep what they were pointers to."""

        def write(connection: sqlite3.Connection) -> list[str]:
            return [hold for entry in entries for hold in _ended(connection, entry, is_kept=entry.is_pointer)]

        await self._hold.remove(*await self._database.write(write))

    async def failed(self, entries: Sequence[OutboxEntry]) -> None:
        """Store how the last try ended."""
        rows = [(e.attempts, e.due_at, text(e.last_error), int(e.is_pointer), e.number, e.created_at) for e in entries]
        await self._database.write(
            lambda connection: (
                connection.executemany(
                    "UPDATE outbox SET attempts = ?, due_at = ?, last_error = ?, is_pointer = ? "
                    "WHERE number = ? AND created_at = ?",
                    rows,
                ).rowcount
            )
        )

    async def keep(self, entries: Sequence[OutboxEntry]) -> None:
        """Send them no more, and keep all of them."""

        def write(connection: sqlite3.Connection) -> list[str]:
            return [hold for entry in entries for hold in _ended(connection, entry, is_kept=True)]

        await self._hold.remove(*await self._database.write(write))

    async def places(self) -> list[PlaceStatus]:
        """Count by target."""

        def find(connection: sqlite3.Connection) -> list[PlaceStatus]:
            found = []
            for target, written, waiting, kept, oldest in connection.execute(_PLACES).fetchall():
                row = connection.execute("SELECT created_at, last_error FROM outbox WHERE number = ?", (oldest,))
                oldest_at, last_error = row.fetchone() or (None, "")
                found.append(
                    PlaceStatus(
                        place=TargetPlace(target=target, connection=written),
                        waiting=waiting,
                        kept=kept,
                        oldest_at=oldest_at,
                        last_error=last_error,
                    )
                )
            return found

        return await self._database.read(find)

    async def of_event(self, event_id: str) -> list[OutboxEntry]:
        """Return what waits or is kept of one event."""
        return await self._select("WHERE id = ? ORDER BY number", (event_id,), limit=100, whole=False)

    async def page(self, place: TargetPlace | None, *, after: int, limit: int) -> list[OutboxEntry]:
        """Return entries in order of arrival."""
        if place is None:
            return await self._select("WHERE number > ? ORDER BY number", (after,), limit=limit)
        return await self._select(
            "WHERE target = ? AND connection = ? AND number > ? ORDER BY number",
            (place.target, place.connection, after),
            limit=limit,
        )

    async def give_up(self, place: TargetPlace) -> tuple[int, int]:
        """Send no more there: failures stay dead letters, successes are deleted."""
        failures = successes = 0

        def write(connection: sqlite3.Connection) -> tuple[list[OutboxEntry], list[str]]:
            rows = connection.execute(
                f"{_SELECT} WHERE target = ? AND connection = ? ORDER BY number LIMIT {_GIVE_UP_STEP:d}",
                (place.target, place.connection),
            ).fetchall()
            gone = [self._entry(row, whole=False) for row in rows]
            freed = [hold for entry in gone for hold in _ended(connection, entry, is_kept=entry.kind.value != _SUCCESS)]
            return gone, freed

        while True:  # ends: every round deletes
            gone, freed = await self._database.write(write)
            await self._hold.remove(*freed)
            failed = sum(entry.kind is not OutcomeKind.ON_SUCCESS for entry in gone)
            failures, successes = failures + failed, successes + len(gone) - failed
            if len(gone) < _GIVE_UP_STEP:
                return failures, successes

    async def _select(
        self, condition: str, values: tuple[Any, ...], *, limit: int, whole: bool = True
    ) -> list[OutboxEntry]:
        def find(connection: sqlite3.Connection) -> list[OutboxEntry]:
            found: list[OutboxEntry] = []
            size = 0
            rows = connection.execute(f"{_SELECT} {condition}", values)
            for row in rows:
                if len(found) >= limit or size >= _PAGE_MAX_BYTES:
                    break
                entry = self._entry(row, whole=whole)
                found.append(entry)
                size += len(entry.record)
            rows.close()
            return found

        return await self._database.read(find) if limit > 0 else []

    def _entry(self, row: tuple[Any, ...], *, whole: bool) -> OutboxEntry:
        hold, hold_bytes, record = row[14], row[15], row[16]
        if not whole:
            record = b""
        elif hold:
            # A lost file was logged: what is left of the record says which event it was of.
            record = self._hold.read(hold, size=hold_bytes) or b""
        return OutboxEntry(
            number=row[0],
            place=TargetPlace(target=row[1], connection=row[2]),
            kind=OutcomeKind(row[3]),
            id=row[4],
            queue=row[5],
            function=row[6],
            position=row[7],
            created_at=row[8],
            attempts=row[9],
            due_at=row[10],
            last_error=row[11],
            is_pointer=bool(row[12]),
            is_kept=bool(row[13]),
            record=record,
            role=row[17],
        )


def _row(entry: OutboxEntry, *, hold: str, inline: bytes) -> tuple[Any, ...]:
    return (
        entry.place.target, entry.place.connection, entry.kind.value, entry.id, entry.queue, entry.function,
        entry.position, entry.created_at, entry.attempts, entry.due_at, text(entry.last_error), int(entry.is_pointer),
        int(entry.is_kept), hold, len(entry.record) if hold else 0, inline, entry.role,
    )  # fmt: skip


def _ended(connection: sqlite3.Connection, entry: OutboxEntry, *, is_kept: bool) -> list[str]:
    """End an entry, with the dead letter that was kept for it and for nothing else; return freed hold files."""
    same = "number = ? AND created_at = ?"
    key = (entry.number, entry.created_at)
    if entry.kind is OutcomeKind.ON_SUCCESS and is_kept:
        connection.execute(
            f"UPDATE outbox SET is_kept = 1, last_error = ? WHERE {same}",  # noqa: S608 - a constant
            (text(entry.last_error), *key),
        )
        return []
    gone = connection.execute(f"DELETE FROM outbox WHERE {same} RETURNING hold", key).fetchall()  # noqa: S608 - a constant
    freed = [hold for (hold,) in gone]
    if entry.kind is OutcomeKind.ON_SUCCESS or not gone:
        return freed
    letter = (entry.id, entry.queue)
    if is_kept:
        connection.execute("UPDATE dead_letters SET is_kept = 1 WHERE id = ? AND queue = ?", letter)
    waits = connection.execute(
        "SELECT 1 FROM outbox WHERE id = ? AND queue = ? AND kind <> ? LIMIT 1", (*letter, _SUCCESS)
    ).fetchone()
    if waits is None:
        where = "WHERE id = ? AND queue = ? AND state = ?"
        connection.execute(
            f"UPDATE dead_letters SET state = 'dead', is_kept = 0 {where} AND is_kept = 1",  # noqa: S608 - a constant
            (*letter, WAITING),
        )
        whole = connection.execute(f"DELETE FROM dead_letters {where} RETURNING hold", (*letter, WAITING))  # noqa: S608 - a constant
        freed += [hold for (hold,) in whole.fetchall()]
    return freed
