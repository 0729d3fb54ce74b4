"""A journal and an outcomes log in memory: the same contract as those on disk, for tests without a disk."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from bridge.core.invocation import Attempt, AttemptStatus, InvocationType
from bridge.core.ports import Selection, SourcePage
from bridge.core.record import Record

_PASSED = frozenset({
    AttemptStatus.OK, AttemptStatus.DEAD, AttemptStatus.FAILED, AttemptStatus.UNKNOWN, AttemptStatus.HANDED_OVER,
})  # fmt: skip


class MemoryJournal:
    """`ports.Journal` in a list. `fail_with` makes the next appends raise it."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._callbacks: list[Callable[[Sequence[Record]], None]] = []
        self._refusals: list[Callable[[Sequence[Record]], None]] = []
        self._start = 0
        self._held: list[int] = []
        """Positions below `start` that retention kept."""
        self._newest_at = 0.0
        self.pins: dict[str, int] = {}
        self.fail_with: Exception | None = None
        self.damaged: set[int] = set()
        """Positions that scans cannot read."""
        self.holds_group = False
        """While it is set, what is appended becomes one commit group that nobody learns of before `release`."""
        self._group: list[Record] = []

    async def append(self, record: Record) -> Record:
        """Store at once."""
        if self.fail_with is not None:
            for refused in self._refusals:
                refused([record])
            raise self.fail_with
        stored = self._put(record)
        self._group.append(stored)
        if not self.holds_group:
            self.release()
        return stored

    def release(self) -> None:
        """Tell of the commit group."""
        group, self._group = self._group, []
        for callback in self._callbacks if group else ():
            callback(group)

    def archive(self, record: Record) -> None:
        """Store without telling the lanes."""
        if self.fail_with is None:
            self._put(record)

    def _put(self, record: Record) -> Record:
        self._newest_at = max(self._newest_at, record.received_at)
        stored = replace(record, position=self.end, received_at=self._newest_at)
        self._records.append(stored)
        return stored

    def on_commit(self, callback: Callable[[Sequence[Record]], None]) -> None:
        """Call back with each stored record."""
        self._callbacks.append(callback)

    def on_refuse(self, callback: Callable[[Sequence[Record]], None]) -> None:
        """Call back with each record that is not stored."""
        self._refusals.append(callback)

    def drop_before(self, position: int, *, unfinished: Collection[int] = ()) -> None:
        """Forget records below `position` but those that are `unfinished`, as retention does."""
        self._start = max(self._start, position)
        self._held = sorted(p for p in {*self._held, *range(self._start)} if p in unfinished)

    def _kept(self, *, after: int = -1) -> Iterator[Record]:
        """Yield what is still found, held records first."""
        yield from (self._records[p] for p in self._held if p > after)
        yield from self._records[max(after + 1, self._start) :]

    def read(self, position: int) -> Record | None:
        """Return one record."""
        is_kept = self._start <= position < len(self._records) or position in self._held
        return self._records[position] if is_kept else None

    def find(self, request_id: str) -> Record | None:
        """Return the newest record of that id."""
        return next((r for r in reversed(list(self._kept())) if r.id == request_id), None)

    async def scan(
        self,
        selection: Selection,
        *,
        after: int = -1,
        chunk: int = 512,
        reverse: bool = False,
        on_damage: Callable[[Sequence[int]], object] | None = None,
    ) -> AsyncIterator[Sequence[Record]]:
        """Yield what matches and is not `damaged`, in chunks."""
        found = [r for r in self._records[self._start :] if r.position > after and selects(selection, r)]
        if reverse:
            found.reverse()
        for begin in range(0, len(found), chunk):
            kept = [record for record in found[begin : begin + chunk] if record.position >= self._start]
            damaged = [record.position for record in kept if record.position in self.damaged]
            if damaged and on_damage is not None:
                on_damage(damaged)
            kept = [record for record in kept if record.position not in self.damaged]
            if kept:
                yield kept

    def positions(self, lane: str, *, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return positions and payload sizes of a lane's events."""
        return [(r.position, len(r.payload)) for r in self._kept(after=after) if r.lane == lane][:limit]

    def source_positions(self, source: str, *, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return positions and payload sizes of a source's events."""
        return [(r.position, len(r.payload)) for r in self._of(source, after=after)][:limit]

    def source_page(
        self, source: str, *, after: int, limit: int, bytes_max: int, is_archive: bool = False
    ) -> SourcePage:
        """Return a source's next events as columns."""
        page, size = SourcePage(positions=[], times_ms=[], ids=[], keys=[], payloads=[], through=after), 0
        for record in self._of(source, after=after, is_archive=is_archive):
            if page.ids and (len(page.ids) >= limit or size + len(record.payload) > bytes_max):
                page.through = page.positions[-1]
                return page
            page.positions.append(record.position)
            page.times_ms.append(round(record.received_at * 1000))
            page.ids.append(record.id)
            page.keys.append(record.key)
            page.payloads.append(record.payload)
            size += len(record.payload)
        page.through = max(after, self.end - 1)
        return page

    def _of(self, source: str, *, after: int, is_archive: bool = False) -> Iterator[Record]:
        kept = (r for r in self._kept(after=after) if r.source == source)
        return (r for r in kept if is_archive or r.invocation_type is InvocationType.EVENT)

    def deliveries(self, *, since: float) -> Iterable[tuple[str, str, str, float]]:
        """Yield the deliveries since a time."""
        for r in self._records[self._start :]:
            if r.delivery_id and r.received_at >= since:
                yield r.source, r.delivery_id, r.id, r.received_at

    def pin(self, name: str, position: int | None) -> None:
        """Remember the pin."""
        if position is None:
            self.pins.pop(name, None)
        else:
            self.pins[name] = position

    @property
    def end(self) -> int:
        """Position of the next record."""
        return len(self._records)

    @property
    def start(self) -> int:
        """Lowest position kept."""
        return self._start


def selects(selection: Selection, record: Record) -> bool:
    """Tell whether a record is part of a selection."""
    return (
        (selection.since is None or record.received_at >= selection.since)
        and (selection.until is None or record.received_at < selection.until)
        and (selection.source is None or record.source == selection.source)
        and (selection.function is None or record.function.partition(":")[0] == selection.function)
        and (not selection.ids or record.id in selection.ids)
    )


class MemoryOutcomes:
    """`ports.Outcomes` in a list."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def append(self, attempt: Attempt) -> None:
        """Keep it."""
        self.attempts.append(attempt)

    async def flush(self) -> None:
        """Nothing to wait for."""

    def for_events(self, records: Iterable[Record]) -> dict[int, list[Attempt]]:
        """Return attempts by position."""
        positions = {record.id: record.position for record in records}
        found: dict[int, list[Attempt]] = {}
        for attempt in self.attempts:
            if attempt.request_id in positions:
                found.setdefault(positions[attempt.request_id], []).append(attempt)
        return {position: _ended(attempts) for position, attempts in found.items()}

    def finished(self, *, after: int) -> set[int]:
        """Return positions that their lane has passed."""
        return {a.position for a in self.attempts if a.position > after and a.status in _PASSED}


def _ended(attempts: list[Attempt]) -> list[Attempt]:
    """Leave out the STARTED rows of attempts that have ended."""
    ended = {(a.number, a.replay, a.started_at) for a in attempts if a.status is not AttemptStatus.STARTED}
    kept = (
        a for a in attempts if a.status is not AttemptStatus.STARTED or (a.number, a.replay, a.started_at) not in ended
    )
    return sorted(kept, key=lambda a: a.started_at)
