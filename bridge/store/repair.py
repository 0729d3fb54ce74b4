"""Checks a state database that no daemon has open, and replaces a damaged one with what can still be read of it."""

import contextlib
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bridge.core.errors import StoreCorrupt, StoreError
from bridge.store.folder import sync_folder
from bridge.store.hold import Hold
from bridge.store.schema import MIGRATIONS, held_names
from bridge.store.sqlite import Database
from bridge.store.state import DATABASE, HOLD

_SIDE_FILES: Final = ("", "-wal", "-shm")
_UNREADABLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_TABLES: Final = ("parked", "dead_letters", "outbox", "jobs", "marks", "stream_marks", "paused_mappings", "schedules")
"""Of stream marks a part is of use too: a shard without one is read again from where it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What a repair did."""

    aside: Path
    """Where the damaged file is now; its `-wal` stands beside it."""
    rows: dict[str, int]
    """Rows that were read from the damaged file and are in the new one, by table."""


def check_state(folder: Path) -> str:
    """Return what is wrong with the state database in one line, empty when it is sound or not made yet.

    Call it for the partition of an open state folder (no daemon runs). Reads the whole file: about 1 s a GB.

    Raises:
        StoreError: the database was written by a newer version, or cannot be read.
    """
    path = folder / DATABASE
    if not path.exists() and not path.with_name(path.name + "-wal").exists():
        return ""
    try:
        Database(path, migrations=MIGRATIONS).check()
    except StoreCorrupt as error:
        return str(error)
    return ""


def paused_mappings(folder: Path) -> frozenset[str]:
    """Return the mappings that somebody paused, none where the state database says nothing. As `check_state`."""
    path = folder / DATABASE
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return frozenset(name for (name,) in connection.execute("SELECT name FROM paused_mappings"))
    except sqlite3.Error:
        return frozenset()


def repair_state(folder: Path) -> Repair | None:
    """Move a damaged state database aside and copy what can be read of it into a new one; None if it is sound.

    Call it for the partition of an open state folder (no daemon runs). Nothing is deleted: the damaged file
    keeps everything.

    Raises:
        StoreError: the new database could not be written; the damaged one stays aside.
    """
    if not check_state(folder):
        return None
    path = folder / DATABASE
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in _SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    sync_folder(path.parent)
    rows = dict.fromkeys(_TABLES, 0)

    def salvage(connection: sqlite3.Connection) -> None:
        for table in _TABLES if aside.exists() else ():
            rows[table] = _copy(table, source=aside, target=connection)
        Hold(folder / HOLD).set_aside(held_names(connection))

    Database(path, migrations=MIGRATIONS).make(salvage)
    return Repair(aside=aside, rows=rows)


def _copy(table: str, *, source: Path, target: sqlite3.Connection) -> int:
    """Copy the rows of one table up to the first that cannot be read, then from the other end."""
    count = 0
    for direction in ("ASC", "DESC"):
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, isolation_level=None)
            ) as damaged:
                key = "number" if table in ("parked", "dead_letters", "outbox") else "1"
                rows = damaged.execute(f"SELECT * FROM {table} ORDER BY {key} {direction}")  # noqa: S608 - constants
                # By name: the file may be an older version's, whose rows lack the latest columns.
                columns = [name for name, *_ in rows.description]
                insert = (
                    f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})"  # noqa: S608
                )
                for row in rows:
                    count += target.execute(insert, row).rowcount
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _UNREADABLE:
                raise StoreError(f"{source} could not be salvaged: {error}") from error
        else:
            break
    return count
