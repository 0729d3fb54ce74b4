"""Opens the state database of one daemon process and hands out its stores."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.core.errors import StoreError
from bridge.store.dead_letters import SqliteDeadLetters
from bridge.store.hold import Hold
from bridge.store.jobs import SqliteJobs, SqliteMarks
from bridge.store.outbox import SqliteOutbox
from bridge.store.parked import SqliteParked
from bridge.store.schedules import SqliteScheduleStates
from bridge.store.schema import MIGRATIONS, held_names
from bridge.store.sqlite import Database
from bridge.store.stream_marks import SqliteMappingStates, SqliteStreamMarks

DATABASE: Final = "state.db"
HOLD: Final = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The stores of one daemon process, over one database, so that a redrive is one transaction."""

    database: Database
    parked: SqliteParked
    dead_letters: SqliteDeadLetters
    outbox: SqliteOutbox
    jobs: SqliteJobs
    marks: SqliteMarks
    stream_marks: SqliteStreamMarks
    mapping_states: SqliteMappingStates
    schedules: SqliteScheduleStates

    async def close(self) -> None:
        """Finish what was asked for, then close; twice is fine."""
        await self.database.close()


async def open_state(
    folder: Path,
    *,
    release_ballast: Callable[[], object] | None = None,
    on_failure: Callable[[StoreError], None] | None = None,
) -> State:
    """Open `state.db` and the hold folder of a partition that this process holds.

    Args:
        folder: the partition, `STATE/p0`; it exists.
        release_ballast: frees space on a full disk before the one retry; called from other threads.
        on_failure: called once, on the loop, when an fsync failed: the daemon must exit.

    Raises:
        StoreError: a newer version wrote the database; nothing was changed.
        StoreCorrupt: it is damaged.
        StoreFull: no space.
    """
    hold = Hold(folder / HOLD, release_ballast=release_ballast)
    database = Database(
        folder / DATABASE, migrations=MIGRATIONS, release_ballast=release_ballast, on_failure=on_failure
    )

    def tidy(connection: sqlite3.Connection, created: bool) -> None:  # noqa: FBT001 - a fact, not an option
        hold.open()
        if created:
            hold.set_aside()
        hold.sweep(held_names(connection))

    await asyncio.to_thread(database.open, prepare=tidy)
    return State(
        database=database,
        parked=SqliteParked(database, hold),
        dead_letters=SqliteDeadLetters(database, hold),
        outbox=SqliteOutbox(database, hold),
        jobs=SqliteJobs(database),
        marks=SqliteMarks(database),
        stream_marks=SqliteStreamMarks(database),
        mapping_states=SqliteMappingStates(database),
        schedules=SqliteScheduleStates(database),
    )
