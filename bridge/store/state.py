"""One partition's state: the database and the stores in it, opened together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridge.store.documents import HoldFolder
from bridge.store.jobs import SqliteJobs
from bridge.store.parked import SCHEMA, SqliteDeadLetters, SqliteMarks, SqliteParked
from bridge.store.sqlite import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The stores of `p0/`."""

    database: Database
    parked: SqliteParked
    dead_letters: SqliteDeadLetters
    marks: SqliteMarks
    jobs: SqliteJobs

    async def close(self) -> None:
        """Finish what was asked for and close; twice is fine."""
        await self.database.close()


async def open_state(folder: Path, *, release_ballast: Callable[[], None] | None = None) -> State:
    """Open `state.db` and the hold folder of a partition.

    Raises:
        StoreError: damaged, or of a newer version.
    """
    holds = HoldFolder(folder / "hold")
    holds.open()
    database = Database(folder / "state.db", migrations=[SCHEMA], release_ballast=release_ballast)
    await database.open()
    needed = await database.read(
        lambda c: {
            row[0] for row in c.execute("select hold from parked union select hold from dead_letters").fetchall()
        }
    )
    holds.sweep(needed)
    return State(
        database=database,
        parked=SqliteParked(database, holds),
        dead_letters=SqliteDeadLetters(database, holds),
        marks=SqliteMarks(database),
        jobs=SqliteJobs(database),
    )
