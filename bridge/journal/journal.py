"""The journal: append-only segments, one writer, readers that see only what is synced."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreError, StoreFull
from bridge.core.ports import Clock, Selection, SourcePage
from bridge.core.record import Record
from bridge.journal.ahead import Ahead
from bridge.journal.disk import Disk
from bridge.journal.files import Files
from bridge.journal.group import Group, Part, Tail
from bridge.journal.holds import Holds
from bridge.journal.layout import Seal, index_path, write_mark
from bridge.journal.reader import Reader
from bridge.journal.recovery import recover_folder
from bridge.journal.segment import Segment
from bridge.journal.writer import Writer
from bridge.util import telemetry
from bridge.util.clocks import SystemClock

log = structlog.get_logger("bridge.journal")

_GATHER_MAX_BYTES: Final = 64 * 1024 * 1024
"""Appends that wait for a slow disk; above it they are refused like those of a full one."""
_ARCHIVE_MAX: Final = 4096
_ARCHIVE_MAX_BYTES: Final = 16 * 1024 * 1024
_ARCHIVE_DELAY_S: Final = 0.05
"""Nobody waits for them: they gather so long, or until half of that many wait."""
_CHUNKS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStats:
    """What `bridge` shows of the journal."""

    segments: int
    size_bytes: int
    start: int
    end: int
    oldest_at: float | None
    """received_at of the oldest record in a segment, epoch seconds."""
    held: int
    """Unfinished events whose segment is gone."""
    damaged: int
    """Records that readers found damaged since the start, in the segments kept."""
    damaged_file: str
    """Name of the first segment that has one, else empty."""


class SegmentJournal:
    """`ports.Journal` on disk. All methods but the readers' are for the loop's thread.

    Args:
        folder: where the segments live; made if need be (0700).
        segment_bytes: size at which a segment is full (64 KiB to 2 GiB).
        on_fatal: called on the loop, once, when a sync failed: the daemon must exit, and the journal is closed.
        low_water_bytes: below this much free space appends are refused, so that dead letters and
            retention have room; 0: only a full disk refuses.
    """

    def __init__(
        self,
        *,
        folder: Path,
        segment_bytes: int,
        on_fatal: Callable[[Exception], None],
        low_water_bytes: int = 0,
        clock: Clock | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._low_water_bytes = low_water_bytes
        self._on_fatal = on_fatal
        self._clock = clock or SystemClock()
        self._disk = disk or Disk()
        self._files = Files()
        self._ahead = Ahead(folder, segment_bytes=segment_bytes, low_water_bytes=low_water_bytes, disk=self._disk)
        self._callbacks: list[Callable[[Sequence[Record]], None]] = []
        self._refusals: list[Callable[[Sequence[Record]], None]] = []
        self._pins: dict[str, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: Writer | None = None
        self._tail: Tail | None = None
        self._in_flight = False
        self._flushing = False
        self._archive_timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._is_open = False
        self._is_fatal = False
        self.holds = Holds(folder / "hold", self._disk)
        self._reader = Reader((), holds=self.holds)

    # --- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Recover what is there, then start the writer.

        Raises:
            StoreCorrupt: damage below the synced end.
            StoreFull: no space for the first segment.
            StoreError: the disk does not answer.
        """
        self._loop = asyncio.get_running_loop()
        segments = await asyncio.to_thread(
            recover_folder, self._folder, files=self._files, disk=self._disk, ahead=self._ahead, holds=self.holds
        )
        self._reader = Reader(segments, holds=self.holds)
        active = segments[-1]
        self._tail = Tail(
            number=active.number,
            seed=active.seed,
            end=active.end,
            newest_ms=max(segment.newest_ms for segment in segments),
            segment_bytes=self._segment_bytes,
        )
        loop = self._loop

        def done(group: Group, parts: int, error: StoreError | None) -> None:
            loop.call_soon_threadsafe(self._settled, group, parts, error)

        self._writer = Writer(
            folder=self._folder,
            number=active.number,
            file=active.file,
            low_water_bytes=self._low_water_bytes,
            clock=self._clock,
            disk=self._disk,
            ahead=self._ahead,
            done=done,
        )
        self._ahead.start()
        self._ahead.follow(active.path, end=active.end, is_busy=False)
        for segment in segments[:-1]:
            if segment.is_live:  # it was full, and the daemon ended before its index was written
                self._ahead.seal(segment)
        self._writer.start()
        self._idle.set()
        self._is_open = True
        self._measure()

    async def close(self) -> None:
        """Commit what was handed over, then release everything; twice is fine."""
        if not self._is_open:
            return
        self._is_open = False
        self._flush()
        await self._idle.wait()
        if self._archive_timer is not None:
            self._archive_timer.cancel()
        writer, self._writer = self._writer, None
        assert writer is not None
        await asyncio.to_thread(self._stop, writer)
        self._files.clear()

    def _stop(self, writer: Writer) -> None:
        writer.stop()
        self._ahead.stop()
        active = self._reader.segments[-1]
        if writer.broken is None:
            try:
                write_mark(self._folder, number=active.number, seed=active.seed, end=active.end, disk=self._disk)
            except OSError as error:
                log.debug("journal_mark_unwritten", error=error.strerror)
        active.sealed()

    # --- writing ------------------------------------------------------------------------------

    def on_commit(self, callback: Callable[[Sequence[Record]], None]) -> None:
        """Call back on the loop once per commit group. See ports.Journal."""
        self._callbacks.append(callback)

    def on_refuse(self, callback: Callable[[Sequence[Record]], None]) -> None:
        """Call back on the loop with appended records that are not stored. See ports.Journal."""
        self._refusals.append(callback)

    async def append(self, record: Record) -> Record:
        """Store durably. See ports.Journal."""
        tail, loop = self._tail, self._loop
        try:
            if not self._is_open or tail is None or loop is None:
                raise StoreError("the journal is closed")
            if tail.group.size > _GATHER_MAX_BYTES:
                raise StoreFull("the disk is too slow for what arrives; nothing was stored")
            waiting: asyncio.Future[Record] = loop.create_future()
            tail.add(record, waiting)
        except (StoreError, ValueError):
            self._tell(self._refusals, [record])
            raise
        if not self._flushing and not self._in_flight:
            self._flushing = True
            loop.call_soon(self._flush)
        return await waiting

    def archive(self, record: Record) -> None:
        """Store without waiting for the disk; dropped and counted when too much waits. See ports.Journal."""
        tail, loop = self._tail, self._loop
        if not self._is_open or tail is None or loop is None:
            telemetry.ARCHIVE_DROPPED.inc()
            return
        group = tail.group
        if group.archived >= _ARCHIVE_MAX or group.archived_bytes + len(record.payload) > _ARCHIVE_MAX_BYTES:
            telemetry.ARCHIVE_DROPPED.inc()
            return
        tail.add(record, None)
        if not self._in_flight:
            self._flush_in_time()

    def _flush_in_time(self) -> None:
        """Hand over what nobody waits for a moment later; at once where it is much, before it is too much."""
        group = self._tail.group if self._tail is not None else None
        if group is not None and (
            group.archived >= _ARCHIVE_MAX // 2 or group.archived_bytes >= _ARCHIVE_MAX_BYTES // 2
        ):
            self._flush()
        else:
            self._flush_later()

    def _flush_later(self) -> None:
        """Hand over what nobody waits for a moment later."""
        if self._archive_timer is None and self._loop is not None and self._tail is not None and self._tail.group.parts:
            self._archive_timer = self._loop.call_later(_ARCHIVE_DELAY_S, self._flush)

    def _flush(self) -> None:
        """Hand over what gathered, unless the writer is at work: then it goes when that is done."""
        self._flushing = False
        if self._in_flight or self._writer is None or self._tail is None or not self._tail.group.parts:
            return
        if self._archive_timer is not None:
            self._archive_timer.cancel()
            self._archive_timer = None
        self._in_flight = True
        self._idle.clear()
        self._writer.put(self._tail.take())

    def _settled(self, group: Group, parts: int, error: StoreError | None) -> None:
        """The writer is done with a group: show readers what is durable, then tell who waits."""
        self._in_flight = False
        for part in group.parts[:parts]:
            self._show(part)
        for part in group.parts[:parts]:
            self._announce(part, has_archived=group.archived > 0)
            for waiting, record in zip(part.waiting, part.records, strict=True):
                if waiting is not None and not waiting.done():
                    waiting.set_result(record)
        if error is not None:
            self._fail(group.parts[parts:], error)
        if self._is_open and self._tail is not None and not self._tail.group.is_awaited:
            self._flush_in_time()  # else the archive alone would keep the disk busy
        else:
            self._flush()
        if not self._in_flight:
            self._idle.set()

    def _show(self, part: Part) -> None:
        if part.file is not None:
            full = self._reader.segments[-1]
            seal = Seal(number=part.number, seed=part.seed)
            fresh = Segment(self._folder, seal, files=self._files, live=(bytearray(), part.file))
            self._reader.segments = (*self._reader.segments, fresh)
            self._ahead.seal(full)
            self._measure()
        active = self._reader.segments[-1]
        newest_ms = round(part.records[-1].received_at * 1000)
        active.extend(b"".join(part.rows), end=part.end, newest_ms=newest_ms, lanes=part.lanes())

    def _announce(self, part: Part, *, has_archived: bool) -> None:
        stored = part.records
        if has_archived:
            stored = [record for record, waiting in zip(stored, part.waiting, strict=True) if waiting is not None]
        telemetry.JOURNAL_APPENDS.inc(len(part.records))
        self._tell(self._callbacks, stored)

    @staticmethod
    def _tell(callbacks: Sequence[Callable[[Sequence[Record]], None]], records: Sequence[Record]) -> None:
        for callback in callbacks if records else ():
            try:
                callback(records)
            except Exception:  # the boundary of a callback of the loop: whoever waits must get its answer
                log.exception("commit_callback_failed")

    def _fail(self, parts: Sequence[Part], error: StoreError) -> None:
        """Nothing of these parts is stored, nor of what gathered behind them: its place is gone."""
        assert self._tail is not None
        active = self._reader.segments[-1]
        lost = [*parts, *self._tail.group.parts]
        self._tail.rewind(number=active.number, seed=active.seed, end=active.end)
        for part in lost:
            refused = [
                record for record, waiting in zip(part.records, part.waiting, strict=True) if waiting is not None
            ]
            self._tell(self._refusals, refused)
            for waiting in part.waiting:
                if waiting is None:
                    telemetry.ARCHIVE_DROPPED.inc()
                elif not waiting.done():
                    waiting.set_exception(type(error)(*error.args))  # one each: a raise adds its traceback
        if self._writer is not None and self._writer.broken is not None and not self._is_fatal:
            self._is_fatal = True
            self._on_fatal(self._writer.broken)

    # --- reading ------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """Position after the last synced record."""
        last = self._reader.segments[-1]
        return last.base | last.end

    @property
    def start(self) -> int:
        """Lowest position still kept in segments."""
        return self._reader.start

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments, oldest first (for retention)."""
        return self._reader.segments

    def read(self, position: int) -> Record | None:
        """Return one record. See ports.Journal."""
        return self._reader.read(position)

    def find(self, request_id: str) -> Record | None:
        """Return the newest record of that id. See ports.Journal."""
        return self._reader.find(request_id)

    def positions(self, lane: str, *, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return (position, payload bytes) of a lane's events. See ports.Journal."""
        return self._reader.positions(lane, after=after, limit=limit)

    def source_positions(self, source: str, *, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return (position, payload bytes) of a source's events. See ports.Journal."""
        return self._reader.source_positions(source, after=after, limit=limit)

    def source_page(
        self, source: str, *, after: int, limit: int, bytes_max: int, is_archive: bool = False
    ) -> SourcePage:
        """Return a source's next events as columns. See ports.Journal."""
        return self._reader.source_page(source, after=after, limit=limit, bytes_max=bytes_max, is_archive=is_archive)

    def deliveries(self, *, since: float) -> Iterable[tuple[str, str, str, float]]:
        """Yield deliveries since a time. See ports.Journal."""
        return self._reader.deliveries(since=since)

    async def scan(
        self,
        selection: Selection,
        *,
        after: int = -1,
        chunk: int = 512,
        reverse: bool = False,
        on_damage: Callable[[Sequence[int]], object] | None = None,
    ) -> AsyncIterator[Sequence[Record]]:
        """Yield records of a selection in chunks, read off the loop. See ports.Journal."""
        chunks = self._reader.chunks(selection, after=after, chunk=chunk, reverse=reverse, on_damage=on_damage)
        at_once = 1  # the first one soon, the others with fewer changes of thread
        while found := await asyncio.to_thread(list, islice(chunks, at_once)):
            for records in found:
                yield records
            at_once = _CHUNKS_AT_ONCE

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

    async def drop_oldest(self, unfinished: Sequence[int]) -> None:
        """Delete the oldest segment, never the active one; its unfinished events go to a hold file first.

        Raises:
            StoreError: the hold file could not be written; nothing was deleted.
        """
        oldest = self._reader.segments[0]
        assert len(self._reader.segments) > 1
        held = await asyncio.to_thread(self.holds.keep, oldest, unfinished)
        # One step on the loop: readers find an event in its segment or in the hold file, never in both.
        self.holds.show(held)
        self._reader.segments = self._reader.segments[1:]
        await asyncio.to_thread(self._delete, oldest)
        self._measure()

    def _delete(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)
        index_path(segment.path).unlink(missing_ok=True)
        self._files.forget(segment.path)
        try:
            self._disk.sync_folder(self._folder)
        except OSError as error:
            log.warning("journal_folder_unsynced", error=error.strerror)

    def _measure(self) -> None:
        telemetry.JOURNAL_BYTES.set(sum(segment.end for segment in self._reader.segments))
        telemetry.JOURNAL_DAMAGED.set(sum(len(segment.damaged) for segment in self._reader.segments))

    def stats(self) -> JournalStats:
        """Return sizes and ends."""
        segments = self._reader.segments
        self._measure()
        return JournalStats(
            segments=len(segments),
            size_bytes=sum(segment.end for segment in segments),
            start=self.start,
            end=self.end,
            oldest_at=next((s.first_ms / 1000 for s in segments if s.count), None),
            held=len(self.holds),
            damaged=sum(len(segment.damaged) for segment in segments),
            damaged_file=next((segment.path.name for segment in segments if segment.damaged), ""),
        )
