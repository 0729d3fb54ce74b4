"""Dead letters in SQLite: whole events with why, redriven in one transaction with the parked events."""

import sqlite3
from typing import Any, Final

import orjson

from bridge.core.errors import StoreCorrupt
from bridge.core.invocation import Condition, DeadLetter
from bridge.core.ports import DeadLetterSelection
from bridge.core.record import Parked
from bridge.store.hold import Hold
from bridge.store.parked import parked_row, put_parked, unpark
from bridge.store.schema import insert_or_replace, lane_of, pack_history, text, unpack_history
from bridge.store.sqlite import Database

_COLUMNS: Final = (
    "queue", "id", "dead_at", "state", "lane", "source", "position", "target", "received_at", "condition",
    "attempts", "redrives", "error_type", "error_message", "hold", "hold_bytes", "response", "client_context",
    "history", "payload", "mapping", "item_failures", "outcome",
)  # fmt: skip
_PUT: Final = insert_or_replace("dead_letters", _COLUMNS, key=("id", "queue"))
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM dead_letters "  # noqa: S608 - our own column names
_GET_TRIES: Final = 3
_PAGE_MAX_BYTES: Final = 32 * 1024 * 1024
"""A page of `select` ends early once its payloads pass this."""
_PURGE_STEP: Final = 1000
"""Letters deleted in one transaction, so that a large purge does not keep others waiting."""


class SqliteDeadLetters:
    """`ports.DeadLetters` over the state database."""

    def __init__(self, database: Database, hold: Hold) -> None:
        self._database = database
        self._hold = hold

    async def put(self, letter: DeadLetter) -> None:
        """Insert or replace by (queue, id), and let go of the event's parking, in one transaction."""
        async with self._hold.kept(letter.payload) as (name, inline):
            row = letter_row(letter, hold=name, inline=inline)

            def write(connection: sqlite3.Connection) -> list[str]:
                return [put_letter(connection, row), *unpark(connection, letter.id, queue=letter.queue)]

            freed = await self._database.write(write)
        await self._hold.remove(*freed)

    async def get(self, letter_id: str, *, queue: str | None = None) -> DeadLetter | None:
        """Return one; of several queues the default one's first.

        Raises:
            StoreCorrupt: its hold file was lost.
        """

        def find(connection: sqlite3.Connection) -> tuple[bool, DeadLetter | None]:
            row = connection.execute(
                _SELECT
                + "WHERE id = ?1 AND (?2 IS NULL OR queue = ?2) ORDER BY queue <> 'default', dead_at DESC LIMIT 1",
                (letter_id, queue),
            ).fetchone()
            return (False, None) if row is None else (True, self._letter(row))

        for _ in range(_GET_TRIES):  # a file that is gone usually went with its row, a moment ago
            exists, letter = await self._database.read(find)
            if letter is not None or not exists:
                return letter
        raise StoreCorrupt(f"the hold file of dead letter {letter_id} is missing or cut short")

    async def select(
        self, selection: DeadLetterSelection, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[DeadLetter]:
        """Return a page, oldest first; only an empty one is the end. One whose hold file was lost is left out."""
        condition, values = _where(selection)
        if after is not None:
            condition += " AND (dead_at, id) > (?, ?)"
            values = [*values, *after]

        def find(connection: sqlite3.Connection) -> list[DeadLetter]:
            found: list[DeadLetter] = []
            size = 0
            rows = connection.execute(f"{_SELECT} WHERE {condition} ORDER BY dead_at, id", values)
            for row in rows:
                if len(found) >= limit or size >= _PAGE_MAX_BYTES:
                    break
                if (letter := self._letter(row)) is not None:
                    found.append(letter)
                    size += len(letter.payload) + len(letter.response)
            rows.close()
            return found

        return await self._database.read(find) if limit > 0 else []

    async def count(self, selection: DeadLetterSelection) -> int:
        """Return how many there are."""
        condition, values = _where(selection)
        query = f"SELECT COUNT(*) FROM dead_letters WHERE {condition}"  # noqa: S608 - built from constants
        return await self._database.read(lambda connection: int(connection.execute(query, values).fetchone()[0]))

    async def redrive(self, letter: DeadLetter, entry: Parked) -> bool:
        """In one transaction: the letter is `redriving`, counts one more redrive, and `entry` is parked."""
        async with self._hold.kept(entry.record.payload) as (name, inline):
            row = parked_row(entry, hold=name, inline=inline)

            def write(connection: sqlite3.Connection) -> str | None:
                changed = connection.execute(
                    "UPDATE dead_letters SET state = 'redriving', redrives = redrives + 1 "
                    "WHERE id = ? AND queue = ? AND state = 'dead'",
                    (letter.id, letter.queue),
                ).rowcount
                return put_parked(connection, row) if changed else None

            replaced = await self._database.write(write)
        await self._hold.remove(name if replaced is None else replaced)
        return replaced is not None

    async def resolve(self, letter_id: str, *, queue: str) -> None:
        """Remove after a redrive succeeded; twice is fine."""

        def remove(connection: sqlite3.Connection) -> list[tuple[str]]:
            return connection.execute(
                "DELETE FROM dead_letters WHERE id = ? AND queue = ? RETURNING hold", (letter_id, queue)
            ).fetchall()

        for (name,) in await self._database.write(remove):
            await self._hold.remove(name)

    async def positions(self) -> set[int]:
        """Return the journal positions of all dead letters that have one."""
        query = "SELECT position FROM dead_letters WHERE position >= 0"
        return await self._database.read(lambda connection: {p for (p,) in connection.execute(query)})

    async def purge(self, selection: DeadLetterSelection) -> int:
        """Delete those in state `dead` that were there when it was called; return how many."""
        condition, values = _where(selection)
        delete = (
            "DELETE FROM dead_letters WHERE number IN (SELECT number FROM dead_letters "  # noqa: S608 - constants
            f"WHERE {condition} AND state = 'dead' AND number <= ? LIMIT {_PURGE_STEP:d}) RETURNING hold"
        )
        last = await self._database.read(
            lambda connection: int(
                connection.execute("SELECT COALESCE(MAX(number), 0) FROM dead_letters").fetchone()[0]
            )
        )
        count = 0
        while True:  # ends: every round deletes, and none above `last` counts
            gone = await self._database.write(lambda connection: connection.execute(delete, [*values, last]).fetchall())
            await self._hold.remove(*(name for (name,) in gone))
            count += len(gone)
            if len(gone) < _PURGE_STEP:
                return count

    def _letter(self, row: tuple[Any, ...]) -> DeadLetter | None:
        hold, hold_bytes, payload = row[14], row[15], row[19]
        if hold:
            payload = self._hold.read(hold, size=hold_bytes)
            if payload is None:
                return None
        return DeadLetter(
            queue=row[0],
            id=row[1],
            dead_at=row[2],
            state=row[3],
            source=row[5],
            position=row[6],
            function=row[7],
            received_at=row[8],
            condition=Condition(row[9]),
            attempts=row[10],
            redrives=row[11],
            error_type=row[12],
            error_message=row[13],
            response=row[16],
            client_context=row[17],
            history=unpack_history(row[18]),
            payload=payload,
            mapping=row[20],
            item_failures=bool(row[21]),
            outcome=row[22],
        )


def put_letter(connection: sqlite3.Connection, row: tuple[Any, ...]) -> str:
    """Insert or replace a dead letter in the transaction of the caller; return the hold file that nobody names now."""
    (replaced,) = connection.execute(_PUT, row).fetchone()
    return str(replaced)


def letter_row(letter: DeadLetter, *, hold: str, inline: bytes) -> tuple[Any, ...]:
    """Return the row of a dead letter whose payload lies in `hold`, or is `inline`."""
    return (
        letter.queue, letter.id, letter.dead_at, letter.state, lane_of(letter.function), letter.source,
        letter.position, letter.function, letter.received_at, letter.condition.value, letter.attempts,
        letter.redrives, text(letter.error_type), text(letter.error_message), hold,
        len(letter.payload) if hold else 0, letter.response, letter.client_context,
        pack_history(letter.history), inline, letter.mapping, int(letter.item_failures), letter.outcome,
    )  # fmt: skip


def _where(selection: DeadLetterSelection) -> tuple[str, list[Any]]:
    """Return the condition of a selection and its values; the condition holds no input."""
    terms: list[tuple[str, Any]] = [
        ("queue = ?", selection.queue),
        ("dead_at >= ?", selection.since),
        ("dead_at < ?", selection.until),
        ("source = ?", selection.source),
        ("lane = ?", selection.function),
        ("state = ?", selection.state),
        # JSON, since SQLite bounds the number of parameters of a statement.
        (
            "id IN (SELECT value FROM json_each(?))",
            orjson.dumps(sorted(selection.ids)).decode() if selection.ids else None,
        ),
    ]
    given = [(term, value) for term, value in terms if value is not None]
    return " AND ".join(["1", *(term for term, _ in given)]), [value for _, value in given]
