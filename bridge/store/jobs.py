"""Replays and redrives by name, in the state database: every step is durable when it returns."""

import base64
import sqlite3
from dataclasses import asdict
from typing import Any

import orjson

from bridge.core.ports import Job, JobState
from bridge.store.sqlite import Database


class SqliteJobs:
    """`ports.Jobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, job: Job) -> bool:
        """Store; False when the name is taken."""

        def work(connection: sqlite3.Connection) -> bool:
            cursor = connection.execute(
                "insert or ignore into jobs (name, kind, created_at, document) values (?,?,?,?)",
                (job.name, job.kind, job.created_at, _dump(job)),
            )
            return cursor.rowcount == 1

        return await self._database.write(work)

    async def update(self, job: Job) -> None:
        """Replace by name."""
        await self._database.write(
            lambda c: c.execute("update jobs set document=? where name=?", (_dump(job), job.name)).rowcount
        )

    async def get(self, name: str) -> Job | None:
        """Return one."""
        row = await self._database.read(
            lambda c: c.execute("select document from jobs where name=?", (name,)).fetchone()
        )
        return None if row is None else _load(row[0])

    async def list(self, kind: str | None = None) -> "list[Job]":
        """Return all, newest first."""
        rows = await self._database.read(
            lambda c: c.execute(
                "select document from jobs where ? is null or kind=? order by created_at desc, name", (kind, kind)
            ).fetchall()
        )
        return [_load(row[0]) for row in rows]

    async def delete(self, name: str) -> None:
        """Remove; twice is fine."""
        await self._database.write(lambda c: c.execute("delete from jobs where name=?", (name,)).rowcount)


def _dump(job: Job) -> bytes:
    return orjson.dumps(asdict(job) | {"spec": base64.b64encode(job.spec).decode()})


def _load(text: bytes) -> Job:
    document: dict[str, Any] = orjson.loads(text)
    document["spec"] = base64.b64decode(document["spec"])
    document["state"] = JobState(document["state"])
    return Job(**document)
