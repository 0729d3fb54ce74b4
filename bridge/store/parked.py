"""Parked events in SQLite: what waits for its next attempt, found by due time."""

import sqlite3
from typing import Any, Final

from bridge.core.errors import StoreCorrupt
from bridge.core.invocation import InvocationType
from bridge.core.record import Parked, Record
from bridge.store.hold import Hold
from bridge.store.schema import insert_or_replace, lane_of, text
from bridge.store.sqlite import Database

_COLUMNS: Final = (
    "queue", "id", "lane", "due_at", "delay_s", "position", "target", "source", "invocation_type", "received_at",
    "delivery_id", "attempts", "first_attempt_at", "backoffs", "redrive", "job", "error_type", "error_message",
    "hold", "hold_bytes", "response", "client_context", "payload", "item_failures",
)  # fmt: skip
_PARK: Final = insert_or_replace("parked", _COLUMNS, key=("id", "queue"))
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM parked "  # noqa: S608 - our own column names
_GET_TRIES: Final = 3

# One seek a function instead of a scan: SQLite has no skip-scan for MIN … GROUP BY.
_NEXT_DUE: Final = """
WITH RECURSIVE lanes (lane) AS (
    SELECT MIN(lane) FROM parked
    UNION ALL
    SELECT (SELECT MIN(parked.lane) FROM parked WHERE parked.lane > lanes.lane) FROM lanes WHERE lanes.lane IS NOT NULL
)
SELECT lane, (SELECT MIN(due_at) FROM parked WHERE parked.lane = lanes.lane AND due_at > ?) AS due
FROM lanes WHERE lane IS NOT NULL AND due IS NOT NULL"""


class SqliteParked:
    """`ports.ParkedStore` over the state database."""

    def __init__(self, database: Database, hold: Hold) -> None:
        self._database = database
        self._hold = hold

    async def park(self, entry: Parked) -> None:
        """Insert or replace by (queue, request id); durable when it returns."""
        async with self._hold.kept(entry.record.payload) as (name, inline):
            row = parked_row(entry, hold=name, inline=inline)
            replaced = await self._database.write(lambda connection: put_parked(connection, row))
        await self._hold.remove(replaced)

    async def done(self, entry: Parked) -> None:
        """Remove this parking of the event; one that was parked anew since (another due_at) stays."""
        key = (entry.record.id, entry.queue, entry.due_at)

        def remove(connection: sqlite3.Connection) -> list[tuple[str]]:
            return connection.execute(
                "DELETE FROM parked WHERE id = ? AND queue = ? AND due_at = ? RETURNING hold", key
            ).fetchall()

        for (name,) in await self._database.write(remove):
            await self._hold.remove(name)

    async def due(self, function: str, *, now: float, limit: int, skip: frozenset[str] = frozenset()) -> list[Parked]:
        """Return what is due, oldest first; an entry whose hold file was lost is left out, and logged."""

        def find(connection: sqlite3.Connection) -> list[Parked]:
            found: list[Parked] = []
            rows = connection.execute(
                _SELECT + "WHERE lane = ? AND due_at <= ? ORDER BY due_at, position", (function, now)
            )
            for row in rows:
                if len(found) >= limit:
                    break
                if row[1] not in skip and (entry := self._entry(row)) is not None:
                    found.append(entry)
            rows.close()
            return found

        return await self._database.read(find) if limit > 0 else []

    async def next_due(self, *, after: float = float("-inf")) -> dict[str, float]:
        """Return the earliest due_at above `after` per function."""
        return await self._database.read(lambda connection: dict(connection.execute(_NEXT_DUE, (after,))))

    async def clamp(self, *, now: float) -> None:
        """Shorten waits that a clock step made longer than their delay."""
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE parked SET due_at = ? + delay_s WHERE due_at > ? + delay_s", (now, now)
            ).close()
        )

    async def get(self, request_id: str) -> Parked | None:
        """Return the parked entry of an event, the one due first.

        Raises:
            StoreCorrupt: its hold file was lost.
        """

        def find(connection: sqlite3.Connection) -> tuple[bool, Parked | None]:
            row = connection.execute(_SELECT + "WHERE id = ? ORDER BY due_at LIMIT 1", (request_id,)).fetchone()
            return (False, None) if row is None else (True, self._entry(row))

        for _ in range(_GET_TRIES):  # a file that is gone usually went with its row, a moment ago
            exists, entry = await self._database.read(find)
            if entry is not None or not exists:
                return entry
        raise StoreCorrupt(f"the hold file of parked event {request_id} is missing or cut short")

    async def positions(self) -> set[int]:
        """Return the journal positions of all parked events that have one."""
        return await self._database.read(
            lambda connection: {p for (p,) in connection.execute("SELECT position FROM parked") if p >= 0}
        )

    async def counts(self) -> dict[str, int]:
        """Return how many events are parked per function."""
        return await self._database.read(
            lambda connection: dict(connection.execute("SELECT lane, COUNT(*) FROM parked GROUP BY lane"))
        )

    def _entry(self, row: tuple[Any, ...]) -> Parked | None:
        hold, hold_bytes, payload = row[18], row[19], row[22]
        if hold:
            payload = self._hold.read(hold, size=hold_bytes)
            if payload is None:
                return None
        return Parked(
            record=Record(
                id=row[1],
                source=row[7],
                function=row[6],
                invocation_type=InvocationType(row[8]),
                received_at=row[9],
                payload=payload,
                client_context=row[21],
                delivery_id=row[10],
                position=row[5],
            ),
            attempts=row[11],
            due_at=row[3],
            delay_s=row[4],
            first_attempt_at=row[12],
            backoffs=row[13],
            error_type=row[16],
            error_message=row[17],
            response=row[20],
            redrive=bool(row[14]),
            queue=row[0],
            job=row[15],
            item_failures=bool(row[23]),
        )


def parked_row(entry: Parked, *, hold: str, inline: bytes) -> tuple[Any, ...]:
    """Return the columns of an entry, in the order of the upsert."""
    record = entry.record
    return (
        entry.queue, record.id, lane_of(record.function), entry.due_at, entry.delay_s, record.position,
        record.function, record.source, record.invocation_type.value, record.received_at, text(record.delivery_id),
        entry.attempts, entry.first_attempt_at, entry.backoffs, int(entry.redrive), entry.job,
        text(entry.error_type), text(entry.error_message), hold, len(record.payload) if hold else 0,
        entry.response, record.client_context, inline, int(entry.item_failures),
    )  # fmt: skip


def put_parked(connection: sqlite3.Connection, row: tuple[Any, ...]) -> str:
    """Write one row; return the hold file of the row it replaced, empty when none."""
    (replaced,) = connection.execute(_PARK, row).fetchone()
    return str(replaced)


def unpark(connection: sqlite3.Connection, request_id: str, *, queue: str) -> list[str]:
    """Delete an event's parking in that queue, in the transaction of the caller; return the hold files it named."""
    rows = connection.execute("DELETE FROM parked WHERE id = ? AND queue = ? RETURNING hold", (request_id, queue))
    return [hold for (hold,) in rows.fetchall()]
