"""A lane: one function's stored events in order, buffered up to a limit, the rest found again by the index."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bridge.core import limits
from bridge.core.errors import LaneFull
from bridge.core.ports import Journal
from bridge.core.record import DamagedRecord, Parked, Record

HINDERED: Final = "hindered"
"""State of a lane whose function cannot be invoked now, whatever the limits allow."""


class Lane:
    """Positions of one function that are stored and not finished.

    `take` hands out fresh events oldest first, `taken` ones stay unfinished until `passed`. Holds no task and
    no clock. `unfinished()` is what retention must keep.
    """

    def __init__(
        self,
        function: str,
        *,
        events_max: int = limits.LANE_EVENTS_MAX,
        bytes_max: int = limits.LANE_MAX_BYTES,
        buffer_events_max: int = limits.LANE_BUFFER_EVENTS_MAX,
        buffer_max_bytes: int = limits.LANE_BUFFER_MAX_BYTES,
    ) -> None:
        self.function = function
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._buffer_events_max = buffer_events_max
        self._buffer_max_bytes = buffer_max_bytes
        self._buffer: deque[Record] = deque()
        self._buffered_bytes = 0
        self._loaded = -1
        """Position of the newest record that was ever put into the buffer."""
        self._behind = 0
        """Stored events above `_loaded` that are not in the buffer."""
        self._behind_bytes = 0
        self._reserved = 0
        self._reserved_bytes = 0
        self._taken: dict[int, int] = {}
        """Position -> payload bytes of events handed out and not passed."""
        self._taken_bytes = 0
        self._skip: set[int] = set()
        self.retries: deque[Parked] = deque()
        """Due retries, read from the parked store."""
        self.retry_ids: set[str] = set()
        """Ids of retries buffered or running: not to be read again."""

    # --- intake -------------------------------------------------------------------------------

    def reserve(self, size: int) -> None:
        """Make room for an event of `size` payload bytes before it is stored; raises LaneFull."""
        events, size_total = self.waiting + self._reserved, self.waiting_bytes + self._reserved_bytes
        if events >= self._events_max or size_total + size > self._bytes_max:
            raise LaneFull(
                f"function {self.function} has {events} events ({size_total} bytes) waiting, which is its limit; "
                "try again later"
            )
        self._reserved += 1
        self._reserved_bytes += size

    def unreserve(self, size: int) -> None:
        """Give back what `reserve` took: the event is stored (and `add` follows) or was not."""
        self._reserved -= 1
        self._reserved_bytes -= size

    def add(self, record: Record) -> None:
        """Append a stored record; positions arrive in order."""
        if record.position <= self._loaded:
            return  # `refill` was quicker: the index knows a record before the loop is told of its commit
        size = len(record.payload)
        if self._behind or not self._has_buffer_room(size):
            self._behind += 1
            self._behind_bytes += size
            return
        self._push(record, size)

    def _has_buffer_room(self, size: int) -> bool:
        if not self._buffer:
            return True
        return len(self._buffer) < self._buffer_events_max and self._buffered_bytes + size <= self._buffer_max_bytes

    def _push(self, record: Record, size: int) -> None:
        self._buffer.append(record)
        self._buffered_bytes += size
        self._loaded = record.position

    def restore(self, *, mark: int, skip: set[int], behind: Sequence[tuple[int, int]]) -> None:
        """Take what a former run left: every stored event above `mark` but `skip` waits.

        Args:
            mark: position below which everything is finished.
            skip: positions above it that are finished or parked.
            behind: (position, payload bytes) of the lane's events from `mark` on.
        """
        self._loaded = mark - 1
        known = {position for position, _ in behind}
        self._skip = skip & known
        self._behind = len(behind) - len(self._skip)
        self._behind_bytes = sum(size for position, size in behind if position not in self._skip)

    # --- delivery -----------------------------------------------------------------------------

    @property
    def needs_refill(self) -> bool:
        """True when the buffer is empty and older events are only in the journal."""
        return not self._buffer and self._behind > 0

    def refill(self, journal: Journal, *, limit: int = 256) -> None:
        """Read the next events from the journal into the empty buffer (blocking, about a millisecond)."""
        while self.needs_refill:
            rows = journal.positions(self.function, after=self._loaded, limit=limit)
            if not rows:
                self._behind = self._behind_bytes = 0
                return
            for position, size in rows:
                if position in self._skip:
                    self._skip.discard(position)
                    self._loaded = position
                    continue
                if self._buffer and not self._has_buffer_room(size):
                    return
                record = journal.read(position)
                self._behind = max(0, self._behind - 1)
                self._behind_bytes = max(0, self._behind_bytes - size)
                self._loaded = position
                if record is None:
                    continue
                if isinstance(record, DamagedRecord) and not record.function:
                    record = replace(record, function=self.function)
                self._push(record, size)

    def peek(self) -> Record | None:
        """Return the oldest buffered fresh event without taking it."""
        return self._buffer[0] if self._buffer else None

    def take(self) -> Record:
        """Hand out the oldest fresh event."""
        record = self._buffer.popleft()
        size = len(record.payload)
        self._buffered_bytes -= size
        self._taken[record.position] = size
        self._taken_bytes += size
        return record

    def put_back(self, record: Record) -> None:
        """Take back a fresh event whose attempt broke on our side: it is the lane's next again."""
        size = self._taken.pop(record.position, 0)
        self._taken_bytes -= size
        # In its place among others put back: the mark takes the first one of the buffer for the oldest.
        older = sum(1 for other in self._buffer if other.position < record.position)
        self._buffer.insert(older, record)
        self._buffered_bytes += size

    def passed(self, position: int) -> None:
        """The event is finished or durably parked: nothing here needs it any more."""
        self._taken_bytes -= self._taken.pop(position, 0)

    # --- what others ask ----------------------------------------------------------------------

    @property
    def fresh(self) -> int:
        """Events buffered or behind, not taken."""
        return len(self._buffer) + self._behind

    @property
    def waiting(self) -> int:
        """Stored events that were never passed, those running included."""
        return self.fresh + len(self._taken)

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes of `waiting`."""
        return self._buffered_bytes + self._behind_bytes + self._taken_bytes

    @property
    def oldest_at(self) -> float | None:
        """received_at of the oldest buffered event."""
        return self._buffer[0].received_at if self._buffer else None

    def mark(self, end: int) -> int:
        """Return the position below which every event of this lane is finished."""
        oldest = [*self._taken, *([self._buffer[0].position] if self._buffer else [])]
        if oldest:
            return min(oldest)
        return self._loaded + 1 if self._behind else end

    def ahead_of(self, position: int) -> int:
        """How many events wait before that position (at least; those behind the buffer are not counted one by one)."""
        return sum(record.position < position for record in self._buffer)

    def unfinished(self, low: int, high: int, journal: Journal) -> list[int]:
        """Return the lane's unfinished positions in [low, high)."""
        found = [p for p in self._taken if low <= p < high]
        found += [r.position for r in self._buffer if low <= r.position < high]
        after = max(self._loaded, low - 1)
        while self._behind and after < high:
            rows = journal.positions(self.function, after=after, limit=4096)
            for position, _ in rows:
                if position >= high:
                    return found
                if position not in self._skip:
                    found.append(position)
            if not rows:
                break
            after = rows[-1][0]
        return found


def parked_text(entry: Parked, *, now: float, hindrance: str = "") -> str:
    """Say what a parked event waits for.

    Args:
        entry: the event.
        now: epoch seconds.
        hindrance: why nothing of its function starts now.
    """
    wait_s = max(0.0, entry.due_at - now)
    why = f" after {entry.error_type}: {entry.error_message}" if entry.error_type else ""
    when = f"in {wait_s:.0f} s" if wait_s >= 1 else "now"
    held = f"; waits: {hindrance}" if hindrance else ""
    if entry.redrive and not entry.attempts:
        return f"redriven, due {when}{held}"
    if entry.backoffs:
        return f"tried again {when}{why} (back-off {entry.backoffs}, uses no retry){held}"
    return f"retry {entry.attempts} due {when}{why}{held}"
