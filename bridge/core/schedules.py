"""How far a schedule is, and the seam of what keeps that over restarts."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

UTC_NAME: Final = "UTC"
"""The time zone of a schedule that names none."""
SCHEDULE_MAX_CHARS: Final = 256
"""Of an expression; EventBridge's own limit (API_CreateSchedule)."""


class Missed(StrEnum):
    """What becomes of ticks whose time passed while the daemon was down or could not store them."""

    SKIP = "skip"
    """Nothing."""
    ONCE = "once"
    """One event for all of them, that of the newest."""
    ALL = "all"
    """An event each, oldest first, of the newest `limits.SCHEDULE_MISSED_MAX`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleState:
    """How far a schedule is. Times are wall-clock epoch seconds, whole ones."""

    expression: str
    """What ticks, with its time zone: under another expression a schedule begins anew."""
    began: int
    """When it was first seen: a rate counts from then."""
    passed: int
    """Ticks up to here, inclusive, are stored as events or were passed over."""
    claimed: int = 0
    """The tick that was about to be stored, later than `passed`; 0: none."""
    position: int = 0
    """The journal's end when it was claimed: its event can only be at or above."""


class ScheduleStates(Protocol):
    """Keeps the states of schedules by name. Every call is durable when it returns.

    A raise (StoreError) means that nothing changed.
    """

    async def load(self, name: str) -> ScheduleState | None:
        """Return what was saved last; None: nothing, or it was dropped since."""
        ...

    async def save(self, name: str, state: ScheduleState) -> None:
        """Store in the place of what was there; twice is fine."""
        ...

    async def keep(self, names: AbstractSet[str]) -> None:
        """Drop those of other names: a schedule that leaves the file has missed nothing when it comes back."""
        ...
