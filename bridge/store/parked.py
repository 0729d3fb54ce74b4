"""Parked events, dead letters and marks in one database: a redrive is one transaction."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from bridge.core.invocation import DeadLetter
from bridge.core.ports import DeadLetterSelection
from bridge.core.record import Parked
from bridge.store.documents import HoldFolder, dump, is_large, load_letter, load_parked
from bridge.store.sqlite import Database

SCHEMA: Final = """
create table parked (
  queue text not null, id text not null, function text not null, position integer not null,
  due_at real not null, delay_s real not null, document blob not null, hold text not null default '',
  primary key (queue, id)
) without rowid;
create index parked_due on parked (function, due_at);
create index parked_id on parked (id);
create table dead_letters (
  queue text not null, id text not null, function text not null, source text not null, position integer not null,
  dead_at real not null, state text not null, document blob not null, hold text not null default '',
  primary key (queue, id)
) without rowid;
create index dead_letters_dead on dead_letters (dead_at, id);
create index dead_letters_id on dead_letters (id);
create table marks (lane text primary key, position integer not null) without rowid;
create table jobs (name text primary key, kind text not null, created_at real not null, document blob not null)
  without rowid
"""

_PARK: Final = """
insert into parked (queue, id, function, position, due_at, delay_s, document, hold) values (?,?,?,?,?,?,?,?)
on conflict do update set function=excluded.function, position=excluded.position, due_at=excluded.due_at,
  delay_s=excluded.delay_s, document=excluded.document, hold=excluded.hold
"""
_PUT: Final = """
insert into dead_letters (queue, id, function, source, position, dead_at, state, document, hold)
values (?,?,?,?,?,?,?,?,?)
on conflict do update set function=excluded.function, source=excluded.source, position=excluded.position,
  dead_at=excluded.dead_at, state=excluded.state, document=excluded.document, hold=excluded.hold
"""


class _Holding:
    """What both tables share: a payload above 64 KB lies in a hold file before its row, and goes after it."""

    def __init__(self, database: Database, holds: HoldFolder) -> None:
        self._database = database
        self._holds = holds

    def _payload(self, hold: str) -> bytes | None:
        return self._holds.read(hold) if hold else None

    async def _replace(self, table: str, key: tuple[str, str], payload: bytes, write: Callable[..., None]) -> None:
        def work(connection: sqlite3.Connection) -> str:
            hold = self._holds.keep(payload) if is_large(payload) else ""
            row = connection.execute(f"select hold from {table} where queue=? and id=?", key).fetchone()  # noqa: S608
            write(connection, hold)
            return row[0] if row is not None else ""

        self._holds.drop(await self._database.write(work))

    async def _delete(self, table: str, key: tuple[str, str]) -> None:
        def work(connection: sqlite3.Connection) -> str:
            row = connection.execute(
                f"delete from {table} where queue=? and id=? returning hold",  # noqa: S608 - one of our own tables
                key,
            ).fetchone()
            return row[0] if row is not None else ""

        self._holds.drop(await self._database.write(work))


def _name(target: str) -> str:
    return target.partition(":")[0]


class SqliteParked(_Holding):
    """`ports.ParkedStore`."""

    @staticmethod
    def row(entry: Parked, hold: str) -> tuple[Any, ...]:
        """Return the values of a row."""
        record = entry.record
        return (
            entry.queue,
            record.id,
            _name(record.function),
            record.position,
            entry.due_at,
            entry.delay_s,
            dump(entry, keep_payload=not hold),
            hold,
        )

    async def park(self, entry: Parked) -> None:
        """Insert or replace. See ports.ParkedStore."""

        def write(connection: sqlite3.Connection, hold: str) -> None:
            connection.execute(_PARK, self.row(entry, hold))

        await self._replace("parked", (entry.queue, entry.record.id), entry.record.payload, write)

    async def done(self, entry: Parked) -> None:
        """Remove; twice is fine."""
        await self._delete("parked", (entry.queue, entry.record.id))

    async def due(self, function: str, *, now: float, limit: int, skip: frozenset[str] = frozenset()) -> list[Parked]:
        """Return what is due, oldest first. See ports.ParkedStore."""

        def work(connection: sqlite3.Connection) -> list[Parked]:
            rows = connection.execute(
                "select id, document, hold from parked where function=? and due_at<=? order by due_at limit ?",
                (function, now, limit + len(skip)),
            ).fetchall()
            wanted = [row for row in rows if row[0] not in skip][:limit]
            return [load_parked(document, self._payload(hold)) for _, document, hold in wanted]

        return await self._database.read(work)

    async def next_due(self, *, after: float = float("-inf")) -> dict[str, float]:
        """Return the earliest due_at above `after` per function name."""
        rows = await self._database.read(
            lambda c: c.execute(
                "select function, min(due_at) from parked where due_at>? group by function", (after,)
            ).fetchall()
        )
        return dict(rows)

    async def clamp(self, *, now: float) -> None:
        """No entry waits longer than its delay."""
        await self._database.write(
            lambda c: c.execute("update parked set due_at=?+delay_s where due_at>?+delay_s", (now, now)).rowcount
        )

    async def get(self, request_id: str) -> Parked | None:
        """Return the parked entry of an event."""

        def work(connection: sqlite3.Connection) -> Parked | None:
            row = connection.execute("select document, hold from parked where id=?", (request_id,)).fetchone()
            return None if row is None else load_parked(row[0], self._payload(row[1]))

        return await self._database.read(work)

    async def positions(self) -> set[int]:
        """Return the journal positions of all parked events."""
        rows = await self._database.read(
            lambda c: c.execute("select position from parked where position>=0").fetchall()
        )
        return {row[0] for row in rows}

    async def counts(self) -> dict[str, int]:
        """Count per function name."""
        rows = await self._database.read(
            lambda c: c.execute("select function, count(*) from parked group by function").fetchall()
        )
        return dict(rows)


class SqliteDeadLetters(_Holding):
    """`ports.DeadLetters`."""

    @staticmethod
    def _row(letter: DeadLetter, hold: str) -> tuple[Any, ...]:
        return (
            letter.queue,
            letter.id,
            _name(letter.function),
            letter.source,
            letter.position,
            letter.dead_at,
            letter.state,
            dump(letter, keep_payload=not hold),
            hold,
        )

    @staticmethod
    def _where(selection: DeadLetterSelection) -> tuple[str, list[Any]]:
        tests: list[str] = ["1"]
        values: list[Any] = []
        for text, value in (
            ("queue=?", selection.queue),
            ("dead_at>=?", selection.since),
            ("dead_at<?", selection.until),
            ("source=?", selection.source),
            ("function=?", selection.function),
            ("state=?", selection.state),
        ):
            if value is not None:
                tests.append(text)
                values.append(value)
        if selection.ids:
            tests.append(f"id in ({','.join('?' * len(selection.ids))})")
            values += sorted(selection.ids)
        return " and ".join(tests), values

    async def put(self, letter: DeadLetter) -> None:
        """Insert or replace. See ports.DeadLetters."""

        def write(connection: sqlite3.Connection, hold: str) -> None:
            connection.execute(_PUT, self._row(letter, hold))

        await self._replace("dead_letters", (letter.queue, letter.id), letter.payload, write)

    async def get(self, letter_id: str, *, queue: str | None = None) -> DeadLetter | None:
        """Return one with its payload."""

        def work(connection: sqlite3.Connection) -> DeadLetter | None:
            row = connection.execute(
                "select document, hold from dead_letters where id=? and (? is null or queue=?) order by queue",
                (letter_id, queue, queue),
            ).fetchone()
            return None if row is None else load_letter(row[0], self._payload(row[1]))

        return await self._database.read(work)

    async def select(
        self, selection: DeadLetterSelection, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[DeadLetter]:
        """Return a page, oldest first. See ports.DeadLetters."""
        where, values = self._where(selection)
        if after is not None:
            where += " and (dead_at, id) > (?, ?)"
            values += after

        def work(connection: sqlite3.Connection) -> list[DeadLetter]:
            rows = connection.execute(
                f"select document, hold from dead_letters where {where} order by dead_at, id limit ?",  # noqa: S608
                [*values, limit],
            ).fetchall()
            return [load_letter(document, self._payload(hold)) for document, hold in rows]

        return await self._database.read(work)

    async def count(self, selection: DeadLetterSelection) -> int:
        """Count."""
        where, values = self._where(selection)
        row = await self._database.read(
            lambda c: c.execute(f"select count(*) from dead_letters where {where}", values).fetchone()  # noqa: S608
        )
        return int(row[0])

    async def positions(self) -> set[int]:
        """Return the journal positions of all dead letters."""
        rows = await self._database.read(
            lambda c: c.execute("select position from dead_letters where position>=0").fetchall()
        )
        return {row[0] for row in rows}

    async def redrive(self, letter: DeadLetter, entry: Parked) -> bool:
        """Park a dead letter again, in one transaction. See ports.DeadLetters."""

        def work(connection: sqlite3.Connection) -> bool:
            key = (letter.queue, letter.id)
            row = connection.execute(
                "select document, hold, state from dead_letters where queue=? and id=?", key
            ).fetchone()
            if row is None or row[2] != "dead":
                return False
            current = load_letter(row[0], b"" if row[1] else None)
            changed = _redriving(current)
            connection.execute(
                "update dead_letters set state=?, document=? where queue=? and id=?",
                (changed.state, dump(changed, keep_payload=not row[1]), *key),
            )
            hold = self._holds.keep(entry.record.payload) if is_large(entry.record.payload) else ""
            connection.execute(_PARK, SqliteParked.row(entry, hold))
            return True

        return await self._database.write(work)

    async def resolve(self, letter_id: str, *, queue: str) -> None:
        """Remove after a redrive succeeded; twice is fine."""
        await self._delete("dead_letters", (queue, letter_id))

    async def purge(self, selection: DeadLetterSelection) -> int:
        """Delete the dead ones."""
        where, values = self._where(selection)

        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                f"delete from dead_letters where {where} and state='dead' returning hold",  # noqa: S608
                values,
            ).fetchall()
            return [row[0] for row in rows]

        gone = await self._database.write(work)
        for hold in gone:
            self._holds.drop(hold)
        return len(gone)


def _redriving(letter: DeadLetter) -> DeadLetter:
    return replace(letter, state="redriving", redrives=letter.redrives + 1)


class SqliteMarks:
    """`ports.Marks`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> dict[str, int]:
        """Return every lane's mark."""
        return dict(await self._database.read(lambda c: c.execute("select lane, position from marks").fetchall()))

    async def commit(self, marks: Mapping[str, int]) -> None:
        """Store; never backwards."""
        rows = list(marks.items())
        await self._database.write(
            lambda c: (
                c.executemany(
                    "insert into marks (lane, position) values (?,?) on conflict do update "
                    "set position=max(position, excluded.position)",
                    rows,
                ).rowcount
            )
        )
