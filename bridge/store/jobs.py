"""Jobs and marks in SQLite: how far replays, redrives and lanes have come."""

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.ports import Job, JobState
from bridge.store.schema import text
from bridge.store.sqlite import Database

_COLUMNS: Final = (
    "name", "kind", "state", "spec", "cursor", "total", "done", "failed", "skipped", "created_at", "ended_at", "reason",
)  # fmt: skip
_VALUES: Final = f"INTO jobs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})"
_UPDATE: Final = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in _COLUMNS[1:])} WHERE name = ?"  # noqa: S608
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM jobs "  # noqa: S608 - our own column names


class SqliteJobs:
    """`ports.Jobs` over the state database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, job: Job) -> bool:
        """Store; False when the name is taken."""
        row = _row(job)
        return await self._database.write(
            lambda connection: connection.execute(f"INSERT OR IGNORE {_VALUES}", row).rowcount == 1
        )

    async def update(self, job: Job) -> None:
        """Replace by name; a job that was deleted meanwhile stays deleted."""
        row = _row(job)
        await self._database.write(lambda connection: connection.execute(_UPDATE, (*row[1:], row[0])).close())

    async def get(self, name: str) -> Job | None:
        """Return one."""

        def find(connection: sqlite3.Connection) -> Job | None:
            row = connection.execute(_SELECT + "WHERE name = ?", (name,)).fetchone()
            return None if row is None else _job(row)

        return await self._database.read(find)

    async def list(self, kind: str | None = None) -> "list[Job]":
        """Return all, newest first."""

        def find(connection: sqlite3.Connection) -> "list[Job]":
            rows = connection.execute(
                _SELECT + "WHERE (?1 IS NULL OR kind = ?1) ORDER BY created_at DESC, name", (kind,)
            )
            return [_job(row) for row in rows]

        return await self._database.read(find)

    async def delete(self, name: str) -> None:
        """Remove; twice is fine."""
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM jobs WHERE name = ?", (name,)).close()
        )


class SqliteMarks:
    """`ports.Marks` over the state database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> dict[str, int]:
        """Return the mark of every known lane."""
        return await self._database.read(
            lambda connection: dict(connection.execute("SELECT lane, position FROM marks"))
        )

    async def commit(self, marks: Mapping[str, int]) -> None:
        """Store; a mark never moves backwards."""
        rows = list(marks.items())
        await self._database.write(
            lambda connection: connection.executemany(
                "INSERT INTO marks (lane, position) VALUES (?, ?) "
                "ON CONFLICT (lane) DO UPDATE SET position = MAX(position, excluded.position)",
                rows,
            ).close()
        )


def _row(job: Job) -> tuple[Any, ...]:
    return (
        job.name, job.kind, job.state.value, job.spec, job.cursor, job.total, job.done, job.failed, job.skipped,
        job.created_at, job.ended_at, text(job.reason),
    )  # fmt: skip


def _job(row: tuple[Any, ...]) -> Job:
    return Job(
        name=row[0],
        kind=row[1],
        state=JobState(row[2]),
        spec=row[3],
        cursor=row[4],
        total=row[5],
        done=row[6],
        failed=row[7],
        skipped=row[8],
        created_at=row[9],
        ended_at=row[10],
        reason=row[11],
    )
