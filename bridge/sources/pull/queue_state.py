"""The messages of an embedded queue that are not finished: hidden or visible, by group, how often received (pure)."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from bridge.core.stream import Position

STALE_MAX: Final = 1024
"""Times of messages that are finished or were hidden anew, kept beside twice as many as there are messages."""


@dataclass(slots=True, eq=False, kw_only=True)
class Entry:
    """One message."""

    position: Position
    id: str
    body: bytes
    fragment: bytes
    """Its JSON as of its first receive; later ones change a few attributes."""
    group: str = ""
    sent_ms: int = 0
    count: int = 0
    """Times it was received."""
    first_ms: int = 0
    """When it was received first, epoch milliseconds; 0 before that."""
    visible_at: float = 0.0
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is kept of a message over restarts, after which all are visible: nobody has one then."""

    count: int
    first_ms: int


@dataclass(slots=True)
class _Group:
    entries: dict[Position, Entry] = field(default_factory=dict)
    """In order."""


class QueueState:
    """All messages that were read and are not finished; positions rise in the order of sending.

    Args:
        is_fifo: whether a group gives nothing while something of it is hidden.
        mark: everything up to there is finished.
    """

    def __init__(self, *, is_fifo: bool, mark: Position) -> None:
        self._is_fifo = is_fifo
        self._read_to = mark
        self._entries: dict[Position, Entry] = {}
        self._ready: list[Position] = []
        """Of a standard queue: what may be visible, by position."""
        self._hidden: list[tuple[float, Position]] = []
        """What becomes visible when; entries that changed since are passed over."""
        self._groups: dict[str, _Group] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def read_to(self) -> Position:
        """Everything up to there was read."""
        return self._read_to

    @property
    def mark(self) -> Position:
        """Everything up to there is finished."""
        first = next(iter(self._entries), None)
        return self._read_to if first is None else first - 1

    def visible(self, now: float) -> int:
        """Return how many are visible."""
        return sum(entry.visible_at <= now for entry in self._entries.values())

    def add(self, entry: Entry) -> None:
        """Take one that was read, behind all others."""
        self._read_to = max(self._read_to, entry.position)
        self._entries[entry.position] = entry
        self.bytes += len(entry.fragment)
        if self._is_fifo:
            self._groups.setdefault(entry.group, _Group()).entries[entry.position] = entry
        elif entry.visible_at > 0:
            heapq.heappush(self._hidden, (entry.visible_at, entry.position))
        else:
            heapq.heappush(self._ready, entry.position)

    def passed(self, through: Position) -> None:
        """Positions up to there hold nothing more of it."""
        self._read_to = max(self._read_to, through)

    def take(self, count: int, *, now: float, until: float) -> list[Entry]:
        """Hand out up to `count` visible messages, hidden until then; their receives are the caller's to count."""
        found = list(self._take_fifo(count, now)) if self._is_fifo else self._take_any(count, now)
        for entry in found:
            self.hide(entry, until)
        return found

    def _take_any(self, count: int, now: float) -> list[Entry]:
        while self._hidden and self._hidden[0][0] <= now:
            at, position = heapq.heappop(self._hidden)
            entry = self._entries.get(position)
            if entry is not None and entry.visible_at == at:
                heapq.heappush(self._ready, position)
        found: dict[Position, Entry] = {}
        while self._ready and len(found) < count:
            position = heapq.heappop(self._ready)
            entry = self._entries.get(position)
            if entry is not None and entry.visible_at <= now:
                found[position] = entry
        return list(found.values())

    def _take_fifo(self, count: int, now: float) -> Iterator[Entry]:
        left = count
        for name, group in list(self._groups.items()):
            entries = list(group.entries.values())
            if left <= 0:
                return
            if any(entry.visible_at > now for entry in entries):
                continue
            yield from entries[:left]
            left -= len(entries[:left])
            self._groups[name] = self._groups.pop(name)  # its next turn comes behind the others'

    def next_visible(self, now: float) -> float | None:
        """Return when the next hidden message becomes visible; None when none is hidden."""
        return min((entry.visible_at for entry in self._entries.values() if entry.visible_at > now), default=None)

    def get(self, position: Position) -> Entry | None:
        """Return one; None once it is finished."""
        return self._entries.get(position)

    def hide(self, entry: Entry, until: float) -> None:
        """Hide it until then; a time that has passed makes it visible."""
        entry.visible_at = until
        if not self._is_fifo:
            heapq.heappush(self._hidden, (until, entry.position))
            if len(self._hidden) > 2 * len(self._entries) + STALE_MAX:
                self._hidden = [(each.visible_at, each.position) for each in self._entries.values()]
                heapq.heapify(self._hidden)

    def finish(self, entry: Entry) -> None:
        """It is deleted."""
        if self._entries.pop(entry.position, None) is None:
            return
        self.bytes -= len(entry.fragment)
        if self._is_fifo:
            group = self._groups[entry.group]
            del group.entries[entry.position]
            if not group.entries:
                del self._groups[entry.group]

    # --- over restarts ------------------------------------------------------------------------

    def to_json(self) -> bytes:
        """Return what is not finished up to `read_to`; with the mark it is all that is to be known."""
        rows = [[entry.position, entry.count, entry.first_ms] for entry in self._entries.values()]
        return orjson.dumps({"through": self._read_to, "open": rows})


def parse_state(state: bytes) -> tuple[Position | None, Mapping[Position, Known]]:
    """Return up to where it was read, and what is not finished below; (None, {}) when nothing was stored."""
    if not state:
        return None, {}
    stored = orjson.loads(state)
    return stored["through"], {row[0]: Known(count=row[1], first_ms=row[2]) for row in stored["open"]}
