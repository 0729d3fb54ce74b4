"""The journal: append-only segments, one writer, readers that see only what is synced."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreError
from bridge.core.ports import Selection
from bridge.core.record import Record
from bridge.journal.disk import Disk
from bridge.journal.frames import FLAG_DELIVERY, FLAG_EVENT, Chunk, FrameBroken, Row, id_bytes, name_hash
from bridge.journal.holds import Holds
from bridge.journal.segment import Segment, index_path, open_sealed, recover, segment_path
from bridge.journal.writer import Writer, create_segment
from bridge.util import telemetry

log = structlog.get_logger("bridge.journal")

_ARCHIVE_MAX: Final = 4096
_ARCHIVE_MAX_BYTES: Final = 16 * 1024 * 1024
_ARCHIVE_DELAY_S: Final = 0.05
_OFFSET: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStats:
    """What `bridge` shows of the journal."""

    segments: int
    size_bytes: int
    start: int
    end: int
    oldest_at: float | None
    held: int
    """Unfinished events whose segment is gone."""


class SegmentJournal:
    """`ports.Journal` on disk."""

    def __init__(
        self,
        *,
        folder: Path,
        segment_bytes: int,
        low_water_bytes: int,
        on_fatal: Callable[[Exception], None],
        disk: Disk | None = None,
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._low_water_bytes = low_water_bytes
        self._on_fatal = on_fatal
        self._disk = disk or Disk()
        self._segments: list[Segment] = []
        self._callbacks: list[Callable[[Sequence[Record]], None]] = []
        self._pins: dict[str, int] = {}
        self._appends: list[tuple[Record, asyncio.Future[Record]]] = []
        self._archived: list[Record] = []
        self._archived_bytes = 0
        self._flushing = False
        self._archive_timer: asyncio.TimerHandle | None = None
        self._writer: Writer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.holds = Holds(folder / "hold", self._disk)

    # --- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Recover what is there, then start the writer.

        Raises:
            StoreCorrupt: damage below the synced end.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._recover)
        except BaseException:
            for segment in self._segments:
                segment.close()
            raise
        active = self._segments[-1]
        self._writer = Writer(
            folder=self._folder,
            segment_bytes=self._segment_bytes,
            low_water_bytes=self._low_water_bytes,
            newest_ms=self._newest_ms(),
            active=active,
            rolled=self._segments.append,
            disk=self._disk,
        )
        self._writer.start()

    def _recover(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = sorted(int(path.stem, 16) for path in self._folder.glob("*.seg"))
        for number in numbers[:-1]:
            self._segments.append(open_sealed(self._folder, number))
        if numbers:
            self._segments.append(self._open_active(numbers[-1]))
        else:
            self._segments.append(create_segment(self._folder, 1, disk=self._disk))
        self.holds.open()

    def _open_active(self, number: int) -> Segment:
        path = segment_path(self._folder, number)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            rows, end, torn = recover(fd, folder=self._folder, number=number)
        except BaseException:
            os.close(fd)
            raise
        if torn or not rows:
            log.warning("journal_tail_cut", segment=path.name, offset=end) if torn else None
            # Zeroed and synced before the first append: an old tail must never look like a new frame.
            self._disk.truncate(fd, 0 if not rows else end)
            if not rows:
                os.close(fd)
                path.unlink()
                return create_segment(self._folder, number, disk=self._disk)
            self._disk.sync(fd)
        return Segment(self._folder, number, fd=fd, rows=rows, end=end)

    def _newest_ms(self) -> int:
        for segment in reversed(self._segments):
            if segment.count:
                return segment.row(segment.count - 1)[2]
        return 0

    async def close(self) -> None:
        """Commit what was handed over and release everything; twice is fine."""
        if self._writer is None:
            return
        self._flush()
        if self._archive_timer is not None:
            self._archive_timer.cancel()
        self._flush_archive()
        writer, self._writer = self._writer, None
        await asyncio.to_thread(writer.stop)
        await asyncio.sleep(0)
        for segment in self._segments:
            segment.close()

    # --- writing ------------------------------------------------------------------------------

    def on_commit(self, callback: Callable[[Sequence[Record]], None]) -> None:
        """Call back on the loop once per commit group. See ports.Journal."""
        self._callbacks.append(callback)

    async def append(self, record: Record) -> Record:
        """Store durably. See ports.Journal."""
        if self._writer is None or self._loop is None:
            raise StoreError("the journal is closed")
        future: asyncio.Future[Record] = self._loop.create_future()
        self._appends.append((record, future))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        self._flushing = False
        if not self._appends or self._writer is None:
            return
        batch, self._appends = self._appends, []
        futures = [future for _, future in batch]
        loop = self._loop
        assert loop is not None

        def done(stored: Sequence[Record], error: Exception | None) -> None:
            loop.call_soon_threadsafe(self._committed, futures, stored, error)

        self._writer.put([record for record, _ in batch], done)

    def _committed(
        self, futures: Sequence["asyncio.Future[Record]"], stored: Sequence[Record], error: Exception | None
    ) -> None:
        if stored:
            for callback in self._callbacks:
                callback(stored)
        for future, record in zip(futures, stored, strict=False):
            if not future.done():
                future.set_result(record)
        if error is not None:
            for future in futures[len(stored) :]:
                if not future.done():
                    future.set_exception(error)
            self._check_fatal()

    def _check_fatal(self) -> None:
        if self._writer is not None and self._writer.broken is not None:
            self._on_fatal(self._writer.broken)

    def archive(self, record: Record) -> None:
        """Store without waiting for the disk; dropped and counted when too much waits. See ports.Journal."""
        size = len(record.payload)
        if (
            self._writer is None
            or len(self._archived) >= _ARCHIVE_MAX
            or self._archived_bytes + size > _ARCHIVE_MAX_BYTES
        ):
            telemetry.ARCHIVE_DROPPED.inc()
            return
        self._archived.append(record)
        self._archived_bytes += size
        if self._archive_timer is None and self._loop is not None:
            self._archive_timer = self._loop.call_later(_ARCHIVE_DELAY_S, self._flush_archive)

    def _flush_archive(self) -> None:
        self._archive_timer = None
        if not self._archived or self._writer is None:
            return
        batch, self._archived, self._archived_bytes = self._archived, [], 0
        loop = self._loop
        assert loop is not None

        def done(stored: Sequence[Record], error: Exception | None) -> None:
            if error is not None:
                telemetry.ARCHIVE_DROPPED.inc(len(batch) - len(stored))
                loop.call_soon_threadsafe(self._check_fatal)

        self._writer.put(batch, done)

    # --- reading ------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """Position after the last synced record."""
        last = self._segments[-1]
        return last.base | last.end

    @property
    def start(self) -> int:
        """Lowest position still kept in segments."""
        return self._segments[0].base

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, oldest first (for retention)."""
        return tuple(self._segments)

    def _segment(self, number: int) -> Segment | None:
        first = self._segments[0].number
        index = number - first
        return self._segments[index] if 0 <= index < len(self._segments) else None

    def read(self, position: int) -> Record | None:
        """Return one record. See ports.Journal."""
        segment = self._segment(position >> 32)
        if segment is None:
            return self.holds.read(position)
        offset = position & _OFFSET
        return segment.read(offset) if 0 < offset < segment.end else None

    def find(self, request_id: str) -> Record | None:
        """Return the newest record of that id. See ports.Journal."""
        try:
            raw = uuid.UUID(request_id).bytes
        except ValueError:
            return None
        for segment in reversed(list(self._segments)):
            offset = segment.find(raw)
            if offset is not None:
                return segment.read(offset)
        return self.holds.find(request_id)

    def positions(self, lane: str, *, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return (position, payload bytes) of a lane's events. See ports.Journal."""
        wanted = name_hash(lane)
        found = self.holds.positions(lane, after=after, limit=limit)
        for segment in list(self._segments):
            if segment.base | segment.end <= after:
                continue
            index = segment.first_after(after - segment.base) if after > segment.base else 0
            while index < segment.count and len(found) < limit:
                for offset, _, _, function, _, size, flags, _ in segment.rows(index, index + 4096):
                    index += 1
                    if function == wanted and flags & FLAG_EVENT:
                        found.append((segment.base | offset, size))
                        if len(found) >= limit:
                            return found
        return found

    def deliveries(self, *, since: float) -> Iterable[tuple[str, str, str, float]]:
        """Yield deliveries since a time. See ports.Journal."""
        since_ms = int(since * 1000)
        for segment in list(self._segments):
            begin = segment.first_since(since_ms)
            for offset, _, _, _, _, _, flags, _ in segment.rows(begin, segment.count):
                if flags & FLAG_DELIVERY:
                    record = segment.read(offset)
                    yield record.source, record.delivery_id, record.id, record.received_at

    async def scan(
        self, selection: Selection, *, after: int = -1, chunk: int = 512, reverse: bool = False
    ) -> AsyncIterator[Sequence[Record]]:
        """Yield records of a selection in chunks, read off the loop. See ports.Journal."""
        runs = self._runs(selection, after=after, chunk=chunk, reverse=reverse)
        while (found := await asyncio.to_thread(self._read_chunk, runs, selection)) is not None:
            if found:
                yield found

    def _read_chunk(self, runs: Iterator[tuple[Segment, list[Row]]], selection: Selection) -> Chunk | None:
        for segment, rows in runs:
            chunk = Chunk()
            start = min(rows[0][0], rows[-1][0])
            try:
                if rows[0][0] > start:
                    segment.read_into(chunk, rows[::-1])
                    chunk.reverse()
                else:
                    segment.read_into(chunk, rows)
            except (OSError, FrameBroken) as error:
                if not segment.closed:  # else retention took it meanwhile
                    log.error("records_unreadable", segment=segment.path.name, error=str(error))  # noqa: TRY400
            if selection.source is not None or selection.function is not None:
                # A row's hit is checked against the record itself: two names may share a hash.
                chunk.keep([i for i, record in enumerate(chunk) if _selects(selection, record)])
            return chunk
        return None

    def _runs(
        self, selection: Selection, *, after: int, chunk: int, reverse: bool
    ) -> Iterator[tuple[Segment, list[Row]]]:
        """Yield up to `chunk` neighbouring index rows that fit the selection, segment by segment."""
        function = None if selection.function is None else name_hash(selection.function)
        source = None if selection.source is None else name_hash(selection.source)
        ids = {id_bytes(each) for each in selection.ids}
        chooses = function is not None or source is not None or bool(ids)
        end_position = self.end
        segments = [s for s in list(self._segments) if s.base | s.end > after]
        for segment in reversed(segments) if reverse else segments:
            if segment.closed:
                continue
            begin = segment.first_after(after - segment.base) if after > segment.base else 0
            end = segment.count if segment.base | segment.end <= end_position else 0
            if selection.since is not None:
                begin = max(begin, segment.first_since(_ms(selection.since)))
            if selection.until is not None:
                end = min(end, segment.first_since(_ms(selection.until)))
            for low in range(end - 1, begin - 1, -chunk) if reverse else range(begin, end, chunk):
                first, last = (max(begin, low - chunk + 1), low + 1) if reverse else (low, min(end, low + chunk))
                rows = list(segment.rows(first, last))
                if reverse:
                    rows.reverse()
                if chooses:
                    rows = [
                        row
                        for row in rows
                        if (function is None or row[3] == function)
                        and (source is None or row[4] == source)
                        and (not ids or row[7] in ids)
                    ]
                if rows:
                    yield segment, rows

    # --- retention ----------------------------------------------------------------------------

    def pin(self, name: str, position: int | None) -> None:
        """Keep segments from retention. See ports.Journal."""
        if position is None:
            self._pins.pop(name, None)
        else:
            self._pins[name] = position

    @property
    def pinned(self) -> int | None:
        """Lowest pinned position."""
        return min(self._pins.values(), default=None)

    def drop_oldest(self) -> None:
        """Delete the oldest segment (retention's call; never the active one). Blocking."""
        segment = self._segments[0]
        assert len(self._segments) > 1
        del self._segments[0]
        index_path(self._folder, segment.number).unlink(missing_ok=True)
        segment_path(self._folder, segment.number).unlink(missing_ok=True)
        self._disk.sync_folder(self._folder)
        segment.close()

    def stats(self) -> JournalStats:
        """Return sizes and ends."""
        segments = list(self._segments)
        size = sum(segment.end for segment in segments)
        telemetry.JOURNAL_BYTES.set(size)
        first = next((s for s in segments if s.count), None)
        return JournalStats(
            segments=len(segments),
            size_bytes=size,
            start=self.start,
            end=self.end,
            oldest_at=None if first is None else first.row(0)[2] / 1000,
            held=len(self.holds),
        )


def _ms(seconds: float) -> int:
    """Round up: `since` and `until` are compared with whole milliseconds."""
    return -int(-seconds * 1000 // 1) if seconds >= 0 else 0


def _selects(selection: Selection, record: Record) -> bool:
    """Check a row's hit against the record itself: two names may share a hash."""
    return (selection.source is None or record.source == selection.source) and (
        selection.function is None or record.function.partition(":")[0] == selection.function
    )
