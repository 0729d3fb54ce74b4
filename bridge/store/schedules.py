"""How far each schedule is, in SQLite."""

from collections.abc import Set as AbstractSet
from typing import Final

from bridge.core.schedules import ScheduleState
from bridge.store.sqlite import Database

_SAVE: Final = (
    "INSERT INTO schedules (name, expression, began, passed, claimed, position) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET expression = excluded.expression, began = excluded.began, "
    "passed = excluded.passed, claimed = excluded.claimed, position = excluded.position"
)


class SqliteScheduleStates:
    """`schedules.ScheduleStates` over the state database: one row a schedule."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, name: str) -> ScheduleState | None:
        """Return what was saved last."""
        row = await self._database.read(
            lambda connection: connection.execute(
                "SELECT expression, began, passed, claimed, position FROM schedules WHERE name = ?", (name,)
            ).fetchone()
        )
        if row is None:
            return None
        expression, began, passed, claimed, position = row
        return ScheduleState(expression=expression, began=began, passed=passed, claimed=claimed, position=position)

    async def save(self, name: str, state: ScheduleState) -> None:
        """Store in the place of what was there."""
        row = (name, state.expression, state.began, state.passed, state.claimed, state.position)
        await self._database.write(lambda connection: connection.execute(_SAVE, row).close())

    async def keep(self, names: AbstractSet[str]) -> None:
        """Drop those of other names."""
        kept = sorted(names)
        marks = ", ".join("?" for _ in kept)
        await self._database.write(
            lambda connection: connection.execute(
                f"DELETE FROM schedules WHERE name NOT IN ({marks})",  # noqa: S608 - question marks alone
                kept,
            ).close()
        )
