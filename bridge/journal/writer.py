"""The journal's one writer: a thread that commits groups; the next group gathers while one is synced."""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreError, StoreFull
from bridge.core.record import Record
from bridge.journal.disk import NO_SPACE, Disk
from bridge.journal.frames import encode
from bridge.journal.segment import FILE_HEADER, FILE_HEADER_BYTES, FILE_MAGIC, Segment, segment_path
from bridge.util import telemetry
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.journal")

_GROUP_MAX: Final = 4096
"""Records in one commit group at most."""
_GROUP_MAX_BYTES: Final = 8 * 1024 * 1024
_SPACE_CHECK_S: Final = 0.25
_ZERO_STEP_BYTES: Final = 1024 * 1024
_ZERO_PAUSE_S: Final = 0.01

Batch = list[Record]
Done = Callable[[Sequence[Record], Exception | None], None]
"""Called in the writer's thread: the stored records in order, or why none of them was stored."""


class Writer:
    """Appends batches to the active segment and rolls it. Owned by SegmentJournal."""

    def __init__(
        self,
        *,
        folder: Path,
        segment_bytes: int,
        low_water_bytes: int,
        newest_ms: int,
        active: Segment,
        rolled: Callable[[Segment], None],
        disk: Disk,
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._low_water_bytes = low_water_bytes
        self._newest_ms = newest_ms
        self._active = active
        self._rolled = rolled
        self._disk = disk
        self._queue: queue.SimpleQueue[tuple[Batch, Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._zero = _Preparer(folder, segment_bytes, disk)
        self._space_checked_at = 0.0
        self._is_full = False
        self.broken: Exception | None = None

    def start(self) -> None:
        """Start the thread."""
        self._zero.start()
        self._thread.start()

    def stop(self) -> None:
        """Commit what was handed over, then end; blocks."""
        self._queue.put(None)
        self._thread.join()
        self._zero.stop()

    def put(self, batch: Batch, done: Done) -> None:
        """Hand a batch over; `done` is called once, in the thread."""
        self._queue.put((batch, done))

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        stopping = False
        while not stopping:
            item = self._queue.get()
            group: list[tuple[Batch, Done]] = []
            count = 0
            while True:
                if item is None:
                    stopping = True
                else:
                    group.append(item)
                    count += len(item[0])
                if stopping or count >= _GROUP_MAX:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if group:
                self._commit(group)

    def _commit(self, group: list[tuple[Batch, Done]]) -> None:
        for batch, done in self._joined(group):
            stored: list[Record] = []
            try:
                self._check()
                for part in self._parts(batch):
                    self._write(part, stored)
            except StoreError as error:
                done(stored, error)
            else:
                done(stored, None)

    @staticmethod
    def _joined(group: list[tuple[Batch, Done]]) -> list[tuple[Batch, Done]]:
        """Make one batch of several, so that one sync serves them all."""
        if len(group) == 1:
            return group
        records = [record for batch, _ in group for record in batch]

        def done(stored: Sequence[Record], error: Exception | None) -> None:
            at = 0
            for batch, each in group:
                part = stored[at : at + len(batch)]
                at += len(batch)
                each(part, error if len(part) < len(batch) else None)

        return [(records, done)]

    def _check(self) -> None:
        if self.broken is not None:
            raise StoreError(f"the journal is closed after a failed sync: {self.broken}")
        now = time.monotonic()
        if now - self._space_checked_at >= _SPACE_CHECK_S:
            self._space_checked_at = now
            self._note_full(self._low_water_bytes > 0 and self._disk.free_bytes(self._folder) < self._low_water_bytes)
        if self._is_full:
            raise StoreFull("the disk is below its low-water mark; nothing was stored")

    def _note_full(self, is_full: bool) -> None:  # noqa: FBT001 - a state, not an option
        if is_full != self._is_full:
            self._is_full = is_full
            telemetry.STORE_FULL.set(int(is_full))
            log.warning("journal_filled" if is_full else "journal_resumed", folder=self._folder.name)

    def _parts(self, batch: Batch) -> list[Batch]:
        """Split a batch so that each part fits into memory comfortably."""
        parts: list[Batch] = [[]]
        size = 0
        for record in batch:
            size += len(record.payload)
            if size > _GROUP_MAX_BYTES and parts[-1]:
                parts.append([])
                size = len(record.payload)
            parts[-1].append(record)
        return parts

    def _write(self, batch: Batch, stored: list[Record]) -> None:
        """Write and sync one part, rolling to a new segment where it is full."""
        frames: list[bytes] = []
        rows: list[bytes] = []
        placed: list[Record] = []
        offset = begin = self._active.end
        for record in batch:
            received_ms = max(self._newest_ms, round(record.received_at * 1000))
            frame, row = encode(
                record, segment=self._active.number, offset=offset, synced_end=begin, received_ms=received_ms
            )
            if offset + len(frame) > self._segment_bytes and offset > FILE_HEADER_BYTES:
                self._sync(frames, rows, placed, stored, begin)
                self._roll()
                frames, rows, placed = [], [], []
                offset = begin = self._active.end
                frame, row = encode(
                    record, segment=self._active.number, offset=offset, synced_end=begin, received_ms=received_ms
                )
            self._newest_ms = received_ms
            frames.append(frame)
            rows.append(row)
            placed.append(_placed(record, self._active.base | offset, received_ms))
            offset += len(frame)
        self._sync(frames, rows, placed, stored, begin)

    def _sync(
        self, frames: list[bytes], rows: list[bytes], placed: list[Record], stored: list[Record], begin: int
    ) -> None:
        if not frames:
            return
        data = b"".join(frames)
        started = time.perf_counter()
        try:
            self._disk.write(self._active.fd, data, begin)
        except OSError as error:
            self._undo(begin, error)
        crash_point("journal.written")
        try:
            self._disk.sync(self._active.fd)
        except OSError as error:
            if error.errno in NO_SPACE:
                self._undo(begin, error)
            # After a failed fsync the page cache may claim what the disk does not have: never try again.
            self.broken = error
            raise StoreError(f"the journal could not be synced: {error}") from error
        self._active.extend(b"".join(rows), end=begin + len(data))
        stored += placed
        telemetry.JOURNAL_COMMIT_SECONDS.observe(time.perf_counter() - started)
        telemetry.JOURNAL_COMMITS.inc()
        telemetry.JOURNAL_APPENDS.inc(len(placed))

    def _undo(self, begin: int, error: OSError) -> None:
        """Take a partial group back: the file ends where it was last synced."""
        try:
            self._disk.truncate(self._active.fd, begin)
        except OSError as second:
            self.broken = second
            raise StoreError(f"the journal could not undo a partial write: {second}") from error
        if error.errno not in NO_SPACE:
            self.broken = error
            raise StoreError(f"the journal could not be written: {error}") from error
        self._note_full(True)
        self._space_checked_at = time.monotonic()
        raise StoreFull(f"no space on the disk; nothing was stored ({error.strerror})") from error

    def _roll(self) -> None:
        number = self._active.number + 1
        try:
            fresh = create_segment(self._folder, number, disk=self._disk, prepared=self._zero.take())
            self._active.seal()
        except OSError as error:
            segment_path(self._folder, number).unlink(missing_ok=True)
            if error.errno in NO_SPACE:
                self._note_full(True)
                raise StoreFull(f"no space for a new journal segment ({error.strerror})") from error
            self.broken = error
            raise StoreError(f"a new journal segment could not be made: {error}") from error
        self._active = fresh
        self._rolled(fresh)
        self._zero.start_next()


def _placed(record: Record, position: int, received_ms: int) -> Record:
    """Return the record with its place.

    It is the journal's own since it was appended, so it is completed, not copied: a copy of ten fields costs more
    than all else that a record costs here.
    """
    object.__setattr__(record, "position", position)
    object.__setattr__(record, "received_at", received_ms / 1000)
    return record


def create_segment(folder: Path, number: int, *, disk: Disk, prepared: Path | None = None) -> Segment:
    """Create segment `number`, from a prezeroed file where one is ready; durable when it returns."""
    path = segment_path(folder, number)
    if prepared is not None:
        prepared.rename(path)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    else:
        fd = disk.create(path)
    try:
        disk.write(fd, FILE_HEADER.pack(FILE_MAGIC, number, 1, time.time_ns() // 1_000_000), 0)
        disk.sync(fd)
        disk.sync_folder(folder)
    except OSError:
        os.close(fd)
        raise
    return Segment(folder, number, fd=fd, rows=bytearray(), end=FILE_HEADER_BYTES)


class _Preparer:
    """Zeroes the next segment's file in small steps in a thread of its own: syncs then change no metadata."""

    def __init__(self, folder: Path, size: int, disk: Disk) -> None:
        self._path = folder / "next.zero"
        self._size = size
        self._disk = disk
        self._wanted = threading.Event()
        self._ready = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="journal-zero", daemon=True)

    def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._thread.start()
        self._wanted.set()

    def start_next(self) -> None:
        self._wanted.set()

    def take(self) -> Path | None:
        """Return the file if it is ready; it is the caller's then."""
        if not self._ready.is_set():
            return None
        self._ready.clear()
        return self._path

    def stop(self) -> None:
        self._stopping = True
        self._wanted.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._stopping:
                return
            if self._ready.is_set():
                continue
            try:
                done = self._fill()
            except OSError:
                done = False  # short of space: segments are then made without it
            if done:
                self._ready.set()
            else:
                self._path.unlink(missing_ok=True)

    def _fill(self) -> bool:
        if self._disk.free_bytes(self._path.parent) < 4 * self._size:
            return False
        self._path.unlink(missing_ok=True)
        fd = self._disk.create(self._path)
        try:
            zeros = bytes(_ZERO_STEP_BYTES)
            for offset in range(0, self._size, _ZERO_STEP_BYTES):
                if self._stopping:
                    return False
                self._disk.write(fd, zeros[: min(_ZERO_STEP_BYTES, self._size - offset)], offset)
                time.sleep(_ZERO_PAUSE_S)
            self._disk.sync(fd)
        finally:
            os.close(fd)
        return True
