"""Finding and reading stored records, from any thread: by position, id, lane, delivery and selection."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, overload

import structlog

from bridge.core.ports import Selection
from bridge.core.record import Record
from bridge.journal.frames import FLAG_DELIVERY, ID_BYTES, Row, id_bytes, lane_hash, name_hash, names_of, unpack
from bridge.journal.holds import Holds
from bridge.journal.segment import Segment

log = structlog.get_logger("bridge.journal")

_OFFSET: Final = 0xFFFF_FFFF
_CHUNK_MAX_BYTES: Final = 4 * 1024 * 1024


class Chunk(Sequence[Record]):
    """Records whose checksums hold, as columns: a Record is made only for whom looks at one."""

    __slots__ = ("_frames", "payloads", "positions")

    def __init__(self, positions: list[int], payloads: list[memoryview], frames: list[memoryview]) -> None:
        self.positions = positions
        self.payloads = payloads
        self._frames = frames

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return Chunk(self.positions[index], self.payloads[index], self._frames[index])
        return unpack(self._frames[index], position=self.positions[index])

    def __iter__(self) -> Iterator[Record]:
        for position, frame in zip(self.positions, self._frames, strict=True):
            yield unpack(frame, position=position)


class Reader:
    """The segments and hold files as readers see them. `segments` is replaced as a whole, never changed."""

    def __init__(self, segments: tuple[Segment, ...], *, holds: Holds) -> None:
        self.segments = segments
        self._holds = holds

    @property
    def start(self) -> int:
        """Lowest position still kept in segments."""
        return self.segments[0].base

    def _segment(self, number: int) -> Segment | None:
        segments = self.segments
        index = number - segments[0].number
        if 0 <= index < len(segments) and segments[index].number == number:
            return segments[index]
        return next((segment for segment in segments if segment.number == number), None)  # doctor took some aside

    def read(self, position: int) -> Record | None:
        """Return one record. See ports.Journal."""
        segment = self._segment(position >> 32)
        if segment is not None:
            offset = position & _OFFSET
            if offset >= segment.end:
                return None
            try:
                return segment.read(offset)
            except FileNotFoundError:
                pass  # retention was quicker
        return self._holds.read(position)

    def find(self, request_id: str) -> Record | None:
        """Return the newest record of that id. See ports.Journal."""
        try:
            raw_id = id_bytes(request_id)
        except ValueError:
            return None
        if len(raw_id) != ID_BYTES:
            return None
        for segment in reversed(self.segments):
            try:
                offset = segment.find(raw_id)
                if offset is not None:
                    return segment.read(offset)
            except FileNotFoundError:
                break  # retention took it, and all older ones
        return self._holds.find(raw_id)

    def positions(self, lane: str, *, after: int, limit: int) -> list[tuple[int, int]]:
        """Return (position, payload bytes) of a lane's events. See ports.Journal."""
        wanted = lane_hash(lane)
        segments = self.segments
        found = self._holds.positions(lane, after=after, below=segments[0].base, limit=limit)
        for segment in segments:
            if len(found) >= limit:
                break
            if segment.base | segment.end <= after:
                continue
            rows = segment.lane_rows(wanted, after=max(0, after - segment.base))
            try:
                found += [(segment.base | row[0], row[5]) for row in islice(rows, limit - len(found))]
            except FileNotFoundError:
                # Retention took it while this thread looked: what it held that is unfinished is in a hold file now.
                return self.positions(lane, after=after, limit=limit)
        return found

    def deliveries(self, *, since: float) -> Iterator[tuple[str, str, str, float]]:
        """Yield deliveries since a time. See ports.Journal."""
        for chunk in self.chunks(Selection(since=since), flags=FLAG_DELIVERY):
            for record in chunk:
                yield record.source, record.delivery_id, record.id, record.received_at

    def chunks(
        self, selection: Selection, *, after: int = -1, chunk: int = 512, reverse: bool = False, flags: int = 0
    ) -> Iterator[Chunk]:
        """Yield what is stored now and fits, in chunks of at most `chunk` records or 4 MiB (one at least)."""
        segments = [segment for segment in self.segments if segment.base | segment.end > after]
        ends = {segment.number: segment.count for segment in segments}
        for segment in reversed(segments) if reverse else segments:
            try:
                rows = _rows(segment, ends[segment.number], selection, after=after, reverse=reverse, flags=flags)
                for block in _blocks(rows, chunk):
                    found = _read(segment, block, selection, reverse=reverse)
                    if len(found):
                        yield found
            except FileNotFoundError:
                continue  # retention took it: left out


def _rows(
    segment: Segment, count: int, selection: Selection, *, after: int, reverse: bool, flags: int
) -> Iterator[Row]:
    """Yield the index rows that fit a selection."""
    begin = segment.first_after(after - segment.base) if after > segment.base else 0
    end = count
    if selection.since is not None:
        begin = max(begin, segment.first_since(_ms(selection.since)))
    if selection.until is not None:
        end = min(end, segment.first_since(_ms(selection.until)))
    rows = segment.rows(begin, end, reverse=reverse)
    if selection.function is not None:
        function = name_hash(selection.function)
        rows = (row for row in rows if row[3] == function)
    if selection.source is not None:
        source = name_hash(selection.source)
        rows = (row for row in rows if row[4] == source)
    if selection.ids:
        ids = frozenset(filter(None, map(_raw_id, selection.ids)))
        rows = (row for row in rows if row[7] in ids)
    if flags:
        rows = (row for row in rows if row[6] & flags)
    return rows


def _raw_id(request_id: str) -> bytes | None:
    try:
        return id_bytes(request_id)
    except ValueError:
        return None


def _blocks(rows: Iterable[Row], limit: int) -> Iterator[list[Row]]:
    """Group rows by number and size."""
    block: list[Row] = []
    size = 0
    for row in rows:
        if block and (len(block) >= limit or size + row[1] > _CHUNK_MAX_BYTES):
            yield block
            block, size = [], 0
        block.append(row)
        size += row[1]
    if block:
        yield block


def _read(segment: Segment, rows: list[Row], selection: Selection, *, reverse: bool) -> Chunk:
    if reverse:
        rows.reverse()
    positions, payloads, frames, damaged = list[int](), list[memoryview](), list[memoryview](), list[int]()
    is_plain, base = selection.source is None and selection.function is None, segment.base
    for row, frame in zip(rows, segment.frames(rows), strict=True):
        if frame is None:
            damaged.append(row[0])
        elif is_plain or _selects(selection, frame):
            positions.append(base | row[0])
            payloads.append(frame[row[1] - row[5] :])
            frames.append(frame)
    if damaged:
        log.error("records_unreadable", segment=segment.path.name, offset=damaged[0], records=len(damaged))
    if reverse:
        for column in (positions, payloads, frames):
            column.reverse()
    return Chunk(positions, payloads, frames)


def _selects(selection: Selection, frame: memoryview) -> bool:
    """Check a row's hit against the record itself: two names may share a hash."""
    source, function = names_of(frame)
    return (selection.source is None or source == selection.source) and (
        selection.function is None or function.partition(":")[0] == selection.function
    )


def _ms(seconds: float) -> int:
    """Round up: `since` and `until` are compared with whole milliseconds."""
    return max(0, -int(-seconds * 1000 // 1))
