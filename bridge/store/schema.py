"""The schema of `p0/state.db`, step by step, and how values become columns."""

import base64
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

import orjson

from bridge.core.invocation import Attempt, AttemptStatus
from bridge.store.sqlite import Migration

HISTORY_MAX: Final = 20
"""Attempts of a dead letter that are kept, the latest ones."""

_PARKED: Final = """
CREATE TABLE parked (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL, id TEXT NOT NULL, lane TEXT NOT NULL, due_at REAL NOT NULL, delay_s REAL NOT NULL,
    position INTEGER NOT NULL, target TEXT NOT NULL, source TEXT NOT NULL, invocation_type TEXT NOT NULL,
    received_at REAL NOT NULL, delivery_id TEXT NOT NULL, attempts INTEGER NOT NULL, first_attempt_at REAL NOT NULL,
    backoffs INTEGER NOT NULL, redrive INTEGER NOT NULL, job TEXT NOT NULL,
    error_type TEXT NOT NULL, error_message TEXT NOT NULL,
    hold TEXT NOT NULL, hold_bytes INTEGER NOT NULL, hold_before TEXT NOT NULL DEFAULT '',
    response BLOB NOT NULL, client_context BLOB NOT NULL, payload BLOB NOT NULL
) STRICT"""

_DEAD_LETTERS: Final = """
CREATE TABLE dead_letters (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL, id TEXT NOT NULL, dead_at REAL NOT NULL, state TEXT NOT NULL, lane TEXT NOT NULL,
    source TEXT NOT NULL, position INTEGER NOT NULL, target TEXT NOT NULL, received_at REAL NOT NULL,
    condition TEXT NOT NULL, attempts INTEGER NOT NULL, redrives INTEGER NOT NULL,
    error_type TEXT NOT NULL, error_message TEXT NOT NULL,
    hold TEXT NOT NULL, hold_bytes INTEGER NOT NULL, hold_before TEXT NOT NULL DEFAULT '',
    response BLOB NOT NULL, client_context BLOB NOT NULL, history BLOB NOT NULL, payload BLOB NOT NULL
) STRICT"""

_JOBS: Final = """
CREATE TABLE jobs (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, spec BLOB NOT NULL, cursor TEXT NOT NULL,
    total INTEGER, done INTEGER NOT NULL, failed INTEGER NOT NULL, skipped INTEGER NOT NULL,
    created_at REAL NOT NULL, ended_at REAL, reason TEXT NOT NULL
) STRICT, WITHOUT ROWID"""

_STREAM_MARKS: Final = """
CREATE TABLE stream_marks (
    mapping TEXT NOT NULL, shard TEXT NOT NULL, position TEXT NOT NULL, epoch INTEGER NOT NULL,
    layout TEXT NOT NULL, note BLOB NOT NULL, state BLOB NOT NULL, PRIMARY KEY (mapping, shard)
) STRICT"""
# Positions are decimal text: sequence numbers of streams exceed SQLite's 64 bits.

_OUTBOX: Final = """
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY,
    target TEXT NOT NULL, connection TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, queue TEXT NOT NULL,
    function TEXT NOT NULL, position INTEGER NOT NULL, created_at REAL NOT NULL,
    attempts INTEGER NOT NULL, due_at REAL NOT NULL, last_error TEXT NOT NULL,
    is_pointer INTEGER NOT NULL, is_kept INTEGER NOT NULL,
    hold TEXT NOT NULL, hold_bytes INTEGER NOT NULL, hold_before TEXT NOT NULL DEFAULT '', record BLOB NOT NULL
) STRICT"""

_SCHEDULES: Final = """
CREATE TABLE schedules (
    name TEXT PRIMARY KEY, expression TEXT NOT NULL, began INTEGER NOT NULL, passed INTEGER NOT NULL,
    claimed INTEGER NOT NULL, position INTEGER NOT NULL
) STRICT, WITHOUT ROWID"""

MIGRATIONS: Final[tuple[Migration, ...]] = (
    (
        _PARKED,
        "CREATE UNIQUE INDEX parked_key ON parked (id, queue)",
        # Also covers counts() and positions(), which would read every payload's page otherwise.
        "CREATE INDEX parked_due ON parked (lane, due_at, position)",
        "CREATE INDEX parked_hold ON parked (hold) WHERE hold <> ''",
        _DEAD_LETTERS,
        "CREATE UNIQUE INDEX dead_letters_key ON dead_letters (id, queue)",
        "CREATE INDEX dead_letters_age ON dead_letters (dead_at, id)",
        "CREATE INDEX dead_letters_queue ON dead_letters (queue, dead_at, id)",
        "CREATE INDEX dead_letters_position ON dead_letters (position) WHERE position >= 0",
        "CREATE INDEX dead_letters_hold ON dead_letters (hold) WHERE hold <> ''",
        _JOBS,
        "CREATE TABLE marks (lane TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        _STREAM_MARKS,
        "CREATE TABLE paused_mappings (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    ),
    (
        "ALTER TABLE parked ADD COLUMN item_failures INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE dead_letters ADD COLUMN item_failures INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE dead_letters ADD COLUMN mapping TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE dead_letters ADD COLUMN outcome BLOB NOT NULL DEFAULT x''",
    ),
    ("ALTER TABLE stream_marks ADD COLUMN ended INTEGER NOT NULL DEFAULT 0",),
    (
        _OUTBOX,
        "CREATE UNIQUE INDEX outbox_key ON outbox (id, queue, kind, target, connection)",
        "CREATE INDEX outbox_order ON outbox (target, connection, is_kept, number)",
        "CREATE INDEX outbox_tried ON outbox (target, connection, is_kept, attempts, number)",
        "CREATE INDEX outbox_hold ON outbox (hold) WHERE hold <> ''",
        # Of a letter in state `waiting`: a target did not take it whole, so it stays when all have what they take.
        "ALTER TABLE dead_letters ADD COLUMN is_kept INTEGER NOT NULL DEFAULT 0",
    ),
    (_SCHEDULES,),
    ("ALTER TABLE outbox ADD COLUMN role TEXT",),  # NULL: stored before
)
"""Only ever appended to: `user_version` counts how many were applied."""


def lane_of(target: str) -> str:
    """Return the function's name of a target `name[:qualifier]`."""
    return target.partition(":")[0]


def text(value: str) -> str:
    r"""Return `value` as SQLite and JSON can hold it: a lone surrogate becomes its escape (`\ud800`)."""
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def pack_history(history: Iterable[Attempt]) -> bytes:
    """Return the latest attempts as JSON; byte strings as base64."""
    return orjson.dumps([_pack_attempt(attempt) for attempt in tuple(history)[-HISTORY_MAX:]])


def unpack_history(packed: bytes) -> tuple[Attempt, ...]:
    """Return what `pack_history` packed; a field that a newer schema may have added is left out."""
    return tuple(_unpack_attempt(item) for item in orjson.loads(packed))


_ATTEMPT_FIELDS: Final = tuple(Attempt.__slots__)
_ATTEMPT_TEXTS: Final = frozenset({
    "request_id", "function", "version", "error_type", "error_message", "log_stream", "replay",
})  # fmt: skip


def _pack_attempt(attempt: Attempt) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    for name in _ATTEMPT_FIELDS:
        value = getattr(attempt, name)
        packed[name] = text(value) if name in _ATTEMPT_TEXTS else value
    packed["status"] = attempt.status.value
    packed["log_tail"] = base64.b64encode(attempt.log_tail).decode("ascii")
    return packed


def _unpack_attempt(packed: dict[str, Any]) -> Attempt:
    known = {name: packed[name] for name in _ATTEMPT_FIELDS if name in packed}
    known["status"] = AttemptStatus(packed["status"])
    known["log_tail"] = base64.b64decode(packed["log_tail"])
    return Attempt(**known)


def insert_or_replace(table: str, columns: tuple[str, ...], *, key: tuple[str, ...]) -> str:
    """Return an upsert of the columns in their order; it returns the hold file of the row it replaced (or '')."""
    replaced = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    # Built from the column names above, never from input.
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET hold_before = hold, {replaced} RETURNING hold_before"
    )


def held_names(connection: sqlite3.Connection) -> set[str]:
    """Return every hold file that a row names."""
    rows = connection.execute(
        "SELECT hold FROM parked WHERE hold <> '' UNION ALL SELECT hold FROM dead_letters WHERE hold <> '' "
        "UNION ALL SELECT hold FROM outbox WHERE hold <> ''"
    )
    return {name for (name,) in rows}
