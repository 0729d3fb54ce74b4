"""One shard that is being read: its iterator, the page at hand, its pace, and what keeps it from being read."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.aws.errors import AwsTrouble
from bridge.core.stream import BEFORE_ALL, Chunk, Position, Shard
from bridge.sources.pull.shard_api import OLDEST, Page, ShardApi, Start

BACK_OFF_MIN_S: Final = 1.0
"""After a throttle (semantics 3.4) or any other failure; doubling."""
BACK_OFF_MAX_S: Final = 30.0
_TROUBLE_FAILURES: Final = 3
"""So many failures in a row are told as trouble; a throttle now and then is none."""

Part = Callable[[list[dict[str, Any]]], tuple[list[dict[str, Any]], bool]]
"""Returns what of a page belongs to the part that is read, and whether the part ends in this page."""


def _all_of_it(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    return records, False


@dataclass(slots=True, kw_only=True, eq=False)
class ShardCursor:
    """A shard that is read. Times are monotonic seconds."""

    name: Shard
    api: ShardApi
    start: Start
    """Where it is begun, until a record was seen."""
    through: Position
    """All up to here was handed out, or passed over and told."""
    last: Position | None = None
    """No record behind it belongs to the part that is read; None: it has no such end."""
    part: Part = _all_of_it
    is_wanted: bool = False
    """Whether the last read asked for it."""
    is_fetching: bool = False
    is_closed: bool = False
    """Nothing follows the page at hand."""
    due_at: float = 0.0
    """No call before."""
    behind_s: float | None = None
    """How far behind the tip the last page was."""
    reason: str = ""
    """What keeps it from being read, in one line."""
    failures: int = 0
    """In a row."""
    empties: int = 0
    """Pages in a row that brought nothing."""
    iterator: str | None = None
    iterator_at: float = 0.0
    held_bytes: int = 0
    seen: Position | None = None
    """Last sequence number of any page."""
    passed: Position = BEFORE_ALL
    """Read again from the oldest record on, nothing up to here is handed out again."""
    _records: list[dict[str, Any]] = field(default_factory=list)
    _taken: int = 0

    @property
    def has_records(self) -> bool:
        """Whether some are at hand."""
        return self._taken < len(self._records)

    @property
    def has_ended(self) -> bool:
        """Whether it is closed and everything was handed out."""
        return self.is_closed and not self.has_records

    @property
    def next_start(self) -> Start:
        """Where the next iterator begins: iterators expire, and are never stored."""
        return self.start if self.seen is None else Start(after=self.seen)

    # --- calls --------------------------------------------------------------------------------

    def needs_iterator(self, now: float) -> bool:
        """Whether there is none, or one about to expire."""
        return self.iterator is None or now - self.iterator_at >= self.api.limits.iterator_max_s

    def arrived(self, page: Page, *, now: float) -> None:
        """Take a page."""
        self.failures, self.reason = 0, ""
        self.iterator, self.iterator_at = page.iterator, now
        self.is_closed = page.iterator is None
        self.behind_s = page.behind_s
        self.empties = 0 if page.records else self.empties + 1
        is_behind = bool(page.records) if page.behind_s is None else page.behind_s > 0
        self.due_at = now + self.api.limits.wait_s(size=page.size, is_behind=is_behind)
        if page.records:
            self.seen = self.api.position(page.records[-1])
            records, is_over = self.part(self._behind_passed(page.records))
            self._records, self._taken = records, 0
            self.held_bytes = page.size if records else 0
            self.is_closed = self.is_closed or is_over

    def _behind_passed(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.passed == BEFORE_ALL:
            return records
        position, passed = self.api.position, self.passed
        left = [record for record in records if position(record) > passed]
        if left:
            self.passed = BEFORE_ALL  # sequence numbers rise
        return left

    def failed(self, trouble: AwsTrouble, *, now: float, rng: random.Random) -> None:
        """Wait before the next call."""
        self.failures += 1
        base_s = min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2.0 ** min(self.failures - 1, 16))
        self.due_at = now + max(base_s * (1 + rng.random() / 2), trouble.retry_after_s or 0.0)
        if self.failures >= _TROUBLE_FAILURES:
            self.reason = trouble.message

    def expired(self) -> None:
        """Ask for another iterator, at once the first time."""
        self.iterator = None
        self.failures += 1

    def trimmed(self) -> None:
        """What came next is gone: go on with the oldest that is left, behind what was handed out."""
        self.passed = max(self.through, BEFORE_ALL if self.seen is None else self.seen)
        self.iterator, self.start, self.seen = None, OLDEST, None

    # --- records ------------------------------------------------------------------------------

    def take(self, *, records_max: int, bytes_max: int, is_first: bool) -> tuple[Chunk | None, int]:
        """Return the next records and about how many bytes they are.

        `is_first`: at least one, whatever its size.
        """
        size_of = self.api.size
        count = size = 0
        for record in self._records[self._taken : self._taken + records_max]:
            more = size_of(record)
            if size + more > bytes_max and not (is_first and not count):
                break
            count += 1
            size += more
        if not count:
            return None, 0
        records = self._records[self._taken : self._taken + count]
        self._taken += count
        position = self.api.position
        through = position(records[-1])
        if not self.has_records:
            through = max(through, self._seen_to)
            self._records, self._taken, self.held_bytes = [], 0, 0
        self.through = through
        return self.api.chunk(self.name, records, through=through), size

    def take_passed(self) -> Position | None:
        """Return how far nothing was chosen since the last record, once; None when that is no further."""
        if self.has_records or self._seen_to <= self.through:
            return None
        self.through = self._seen_to
        return self.through

    @property
    def _seen_to(self) -> Position:
        """All up to here was seen, as far as the part goes."""
        if self.seen is None:
            return self.through
        return self.seen if self.last is None else min(self.seen, self.last)


def later_than(api: ShardApi, since: float) -> Part:
    """Return the part of a shard from a time on, where the service has no iterator for it (epoch seconds)."""

    def part(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
        return [record for record in records if is_since(api, record, since)], False

    return part


def is_since(api: ShardApi, record: Mapping[str, Any], since: float) -> bool:
    """Whether a record arrived at or after a time; unknown times count as such."""
    time_ms = api.time_ms(record)
    return time_ms < 0 or time_ms >= since * 1000
