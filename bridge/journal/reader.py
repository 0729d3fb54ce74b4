"""Finding and reading stored records, from any thread: by position, id, lane, delivery and selection."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import structlog

from bridge.core.ports import Selection, SourcePage
from bridge.core.record import DamagedRecord, Record
from bridge.journal.chunk import Chunk, read_chunk, read_columns
from bridge.journal.frames import FLAG_DELIVERY, ID_BYTES, Row, Span, id_bytes, lane_hash, name_hash, names_of
from bridge.journal.holds import Holds
from bridge.journal.segment import Segment

log = structlog.get_logger("bridge.journal")

_OFFSET: Final = 0xFFFF_FFFF
_CHUNK_MAX_BYTES: Final = 4 * 1024 * 1024
_SEGMENTS_AT_ONCE: Final = 16
"""Segments that one call searches for a source's events: about 50 ms where there are none."""


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
        try:
            if segment is not None:
                offset = position & _OFFSET
                record = segment.read(offset) if offset < segment.end else None
                if isinstance(record, DamagedRecord):
                    log.error("record_unreadable", position=position, error=record.damage)
                return record
        except FileNotFoundError:
            pass  # retention was quicker
        return self._holds.read(position)

    def find(self, request_id: str) -> Record | None:
        """Return the newest record of that id. See ports.Journal."""
        raw_id = _raw_id(request_id)
        if raw_id is None:
            return None
        for segment in reversed(self.segments):
            try:
                offset = segment.find(raw_id)
            except FileNotFoundError:
                break  # retention took it, and all older ones
            if offset is not None:
                return self.read(segment.base | offset)
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

    def source_positions(self, source: str, *, after: int, limit: int) -> list[tuple[int, int]]:
        """Return (position, payload bytes) of a source's events. See ports.Journal."""
        wanted = name_hash(source)
        segments = self.segments
        found = self._holds.source_positions(source, after=after, below=segments[0].base, limit=limit)
        try:
            for segment in segments:
                if len(found) >= limit:
                    break
                if segment.base | segment.end > after:
                    rows = segment.source_rows(wanted, after=max(0, after - segment.base))
                    found += [(segment.base | row[0], row[5]) for row in islice(rows, limit - len(found))]
        except FileNotFoundError:  # retention was quicker: once more, with what it put aside
            return self.source_positions(source, after=after, limit=limit)
        return found

    def source_page(
        self, source: str, *, after: int, limit: int, bytes_max: int, is_archive: bool = False
    ) -> SourcePage:
        """Return a source's next events as columns. See ports.Journal."""
        segments = self.segments
        page = self._held_page(source, after=after, below=segments[0].base, limit=limit, bytes_max=bytes_max)
        size = sum(map(len, page.payloads))
        looked = 0
        try:
            for segment in segments:
                end = segment.end  # first: what is synced meanwhile may be found, but need not
                if segment.base | end <= after:
                    continue
                left = limit - len(page.positions) - len(page.damaged)
                if left <= 0 or size >= bytes_max or looked >= _SEGMENTS_AT_ONCE:
                    break
                after_here = max(0, after - segment.base)
                rows = segment.source_rows(name_hash(source), after=after_here, is_archive=is_archive)
                spans, is_cut = _first_spans(rows, limit=left, bytes_max=bytes_max - size)
                last = spans[-1][0] if spans else 0
                read_columns(segment, spans, source=source, page=page)
                size += sum(span[2] for span in spans)
                page.through = segment.base | (last if is_cut else max(end - 1, last))
                if is_cut:
                    break
                looked += 1
        except FileNotFoundError:  # retention was quicker: once more, with what it put aside
            return self.source_page(source, after=after, limit=limit, bytes_max=bytes_max, is_archive=is_archive)
        return page

    def _held_page(self, source: str, *, after: int, below: int, limit: int, bytes_max: int) -> SourcePage:
        page, size = SourcePage(positions=[], times_ms=[], ids=[], keys=[], payloads=[], through=after), 0
        for position, payload_bytes in self._holds.source_positions(source, after=after, below=below, limit=limit):
            if size and size + payload_bytes > bytes_max:
                break
            record = self._holds.read(position)
            if isinstance(record, DamagedRecord):
                page.damaged.append(record)
                size += payload_bytes
            elif record is not None:
                page.positions.append(position)
                page.times_ms.append(round(record.received_at * 1000))
                page.ids.append(record.id)
                page.keys.append(record.key)
                page.payloads.append(record.payload)
                size += payload_bytes
            page.through = position
        return page

    def deliveries(self, *, since: float) -> Iterator[tuple[str, str, str, float]]:
        """Yield deliveries since a time. See ports.Journal."""
        for chunk in self.chunks(Selection(since=since), flags=FLAG_DELIVERY):
            for record in chunk:
                yield record.source, record.delivery_id, record.id, record.received_at

    def chunks(
        self,
        selection: Selection,
        *,
        after: int = -1,
        chunk: int = 512,
        reverse: bool = False,
        flags: int = 0,
        on_damage: Callable[[Sequence[int]], object] | None = None,
    ) -> Iterator[Chunk]:
        """Yield what is stored now and fits, in chunks of at most `chunk` records or 4 MiB (one at least)."""
        segments = [segment for segment in self.segments if segment.base | segment.end > after]
        counts = [segment.count for segment in segments]
        selects = _checker(selection)
        order = zip(segments, counts, strict=True)
        for segment, count in reversed(list(order)) if reverse else order:
            try:
                begin, end = _bounds(segment, count, selection, after=after)
                if selects is None and not selection.ids and not flags:
                    blocks = _neighbours(segment, begin, end, chunk, reverse=reverse)
                else:
                    rows = _fitting(segment.rows(begin, end, reverse=reverse), selection, flags=flags)
                    blocks = _blocks(((row[0], row[1], row[5]) for row in rows), chunk, reverse=reverse)
                for block in blocks:
                    found = read_chunk(segment, block, selects=selects, reverse=reverse)
                    if found.damaged and on_damage is not None:
                        on_damage(found.damaged)
                    if len(found):
                        yield found
            except FileNotFoundError:
                continue  # retention took it: left out


def _bounds(segment: Segment, count: int, selection: Selection, *, after: int) -> tuple[int, int]:
    """Return the numbers of the rows [begin, end) that fit in time and lie above `after`."""
    begin = segment.first_after(after - segment.base) if after > segment.base else 0
    end = count
    if selection.since is not None:
        begin = max(begin, segment.first_since(_ms(selection.since)))
    if selection.until is not None:
        end = min(end, segment.first_since(_ms(selection.until)))
    return begin, end


def _fitting(rows: Iterator[Row], selection: Selection, *, flags: int) -> Iterator[Row]:
    """Leave out the rows of other functions, sources, ids and kinds."""
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
        raw_id = id_bytes(request_id)
    except ValueError:
        return None
    return raw_id if len(raw_id) == ID_BYTES else None


def _blocks(spans: Iterable[Span], limit: int, *, reverse: bool) -> Iterator[list[Span]]:
    """Group spans by number and size, each group in rising order."""
    block: list[Span] = []
    size = 0
    for span in spans:
        if block and (len(block) >= limit or size + span[1] > _CHUNK_MAX_BYTES):
            yield block[::-1] if reverse else block
            block, size = [], 0
        block.append(span)
        size += span[1]
    if block:
        yield block[::-1] if reverse else block


def _first_spans(rows: Iterable[Row], *, limit: int, bytes_max: int) -> tuple[list[Span], bool]:
    """Return the spans of the first rows, and whether more may follow. One at least, however large."""
    spans, size = list[Span](), 0
    for offset, length, _, _, _, payload_bytes, _, _ in rows:
        if spans and size + payload_bytes > bytes_max:
            return spans, True
        spans.append((offset, length, payload_bytes))
        size += payload_bytes
        if len(spans) >= limit:
            return spans, True
    return spans, False


def _neighbours(segment: Segment, begin: int, end: int, limit: int, *, reverse: bool) -> Iterator[list[Span]]:
    """Group all rows of [begin, end) as `_blocks` does: when nothing is left out they need no look each."""
    for done in range(0, end - begin, limit):
        low, high = (max(begin, end - done - limit), end - done) if reverse else (begin + done, begin + done + limit)
        block = segment.spans(low, min(high, end))
        if block[-1][0] + block[-1][1] - block[0][0] <= _CHUNK_MAX_BYTES:
            yield block
        else:
            yield from _blocks(reversed(block) if reverse else block, limit, reverse=reverse)


def _checker(selection: Selection) -> Callable[[memoryview], bool] | None:
    """Return what checks a row's hit against the record itself: two names may share a hash."""
    wanted_source, wanted_function = selection.source, selection.function
    if wanted_source is None and wanted_function is None:
        return None

    def selects(frame: memoryview) -> bool:
        source, function = names_of(frame)
        return (wanted_source is None or source == wanted_source) and (
            wanted_function is None or function.partition(":")[0] == wanted_function
        )

    return selects


def _ms(seconds: float) -> int:
    """Round up: `since` and `until` are compared with whole milliseconds."""
    return max(0, -int(-seconds * 1000 // 1))
