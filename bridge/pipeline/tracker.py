"""Tracks items that finish out of order: what is the mark below which everything is finished?"""

from collections import OrderedDict
from typing import Generic, TypeVar

R = TypeVar("R")


class PrefixTracker(Generic[R]):
    """Positions are begun in rising order and finished in any; `finish` folds the finished prefix.

    Holds as many entries as are open or finished behind an open one: bounded by what its user keeps in flight.
    """

    def __init__(self, mark: int = -1) -> None:
        self.mark = mark
        """Highest position whose whole prefix is finished."""
        self._entries: OrderedDict[int, R | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, position: int) -> None:
        """Open a position, higher than all before."""
        assert position > (next(reversed(self._entries)) if self._entries else self.mark), "positions must rise"
        self._entries[position] = None

    def finish(self, position: int, result: R) -> list[R]:
        """Close a position; returns the results that are part of the finished prefix now, in order."""
        if position in self._entries:
            self._entries[position] = result
        folded: list[R] = []
        while self._entries:
            first, value = next(iter(self._entries.items()))
            if value is None:
                break
            del self._entries[first]
            self.mark = first
            folded.append(value)
        return folded
