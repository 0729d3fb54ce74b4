"""States of schedules in memory: the same contract as those in SQLite."""

from collections.abc import Set as AbstractSet

from bridge.core.schedules import ScheduleState


class MemoryScheduleStates:
    """`schedules.ScheduleStates` in a dict. `fail_with` makes every write raise it."""

    def __init__(self) -> None:
        self.states: dict[str, ScheduleState] = {}
        self.fail_with: Exception | None = None

    async def load(self, name: str) -> ScheduleState | None:
        """Return what was saved last."""
        return self.states.get(name)

    async def save(self, name: str, state: ScheduleState) -> None:
        """Replace."""
        self._check()
        self.states[name] = state

    async def keep(self, names: AbstractSet[str]) -> None:
        """Drop the others."""
        self._check()
        for name in self.states.keys() - names:
            del self.states[name]

    def _check(self) -> None:
        if self.fail_with is not None:
            raise self.fail_with
