"""Tracks positions that finish out of order: what is the mark below which everything is finished?"""

from collections import OrderedDict
from typing import Final, Generic, TypeVar, cast

R = TypeVar("R")

_OPEN: Final = object()


class PrefixTracker(Generic[R]):
    """Positions are begun in rising order and finished in any; `finish` folds the finished prefix.

    Holds as many entries as are open, or finished behind an open one: its user bounds them by beginning nothing new
    while `len()` is at its limit. Positions that are passed over take no room.
    """

    __slots__ = ("_entries", "_highest", "_passed", "mark")

    def __init__(self, mark: int = -1) -> None:
        self.mark = mark
        """Highest position whose whole prefix is finished; it never moves back."""
        self._highest = mark
        self._entries: OrderedDict[int, object] = OrderedDict()
        self._passed: dict[int, int] = {}
        """Highest position passed over right behind an entry, by that entry's position."""

    def __len__(self) -> int:
        """How many are open, or finished behind an open one."""
        return len(self._entries)

    def begin(self, position: int) -> None:
        """Open a position, higher than all before."""
        assert position > self._highest, "positions must rise"
        self._highest = position
        self._entries[position] = _OPEN

    def pass_over(self, position: int) -> None:
        """Say that nothing up to `position` is left to begin; one that is not higher than all before says nothing."""
        if position <= self._highest:
            return
        self._highest = position
        if self._entries:
            self._passed[next(reversed(self._entries))] = position
        else:
            self.mark = position

    def finish(self, position: int, result: R) -> list[R]:
        """Close an open position; return the results that have become part of the finished prefix, in order."""
        assert self._entries[position] is _OPEN, "a position finishes once"
        self._entries[position] = result
        folded: list[R] = []
        while self._entries:
            first, value = next(iter(self._entries.items()))
            if value is _OPEN:
                break
            del self._entries[first]
            self.mark = self._passed.pop(first, first)
            folded.append(cast("R", value))
        return folded
