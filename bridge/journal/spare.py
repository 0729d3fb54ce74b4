"""A thread beside the writer: zeroes the next segment's file in small steps, and writes sealed indexes."""

import mmap
import os
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from bridge.journal.disk import Disk
from bridge.journal.files import OpenFile
from bridge.journal.layout import index_path, write_index
from bridge.journal.segment import Segment

log = structlog.get_logger("bridge.journal")

_STEP_BYTES: Final = 1024 * 1024
_PAUSE_S: Final = 0.004
"""Between two steps: the writer's own syncs come first."""
_PAGE_BYTES: Final = 4096
_WANTED_FROM: Final = 8
"""A next file is prepared when this part of a segment is used."""
_FREE_MIN_SEGMENTS: Final = 4
"""With less free space than this many segments above the low-water mark nothing is reserved ahead."""


class Spare:
    """Keeps one zeroed file ready, so that a sync changes no metadata; the writer does without when there is none."""

    def __init__(self, folder: Path, *, segment_bytes: int, low_water_bytes: int, disk: Disk) -> None:
        self._path = folder / "next.zero"
        self._segment_bytes = segment_bytes
        self._free_min_bytes = low_water_bytes + _FREE_MIN_SEGMENTS * segment_bytes
        self._disk = disk
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._wanted = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-spare", daemon=True)

    def start(self) -> None:
        """Start the thread; what a former run left half done goes."""
        self._path.unlink(missing_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the indexes that were asked for, then end; blocks."""
        self._stopping.set()
        self._jobs.put(None)
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def want(self, *, filled: int) -> None:
        """Ask for a next file once so many bytes of a segment are used: a quiet daemon writes none."""
        if not self._wanted and filled * _WANTED_FROM >= self._segment_bytes:
            self._wanted = True
            self._jobs.put(self._zero)

    def seal(self, segment: Segment) -> None:
        """Ask for the index of a segment that takes no more."""
        self._jobs.put(partial(self._seal, segment))

    def take(self, path: Path) -> OpenFile:
        """Return a new file at `path` (the writer's call): the zeroed one if it is ready."""
        self._wanted = False
        if self._ready.is_set():
            try:
                self._path.rename(path)
                return OpenFile(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            except FileNotFoundError:
                log.debug("journal_spare_vanished")
            finally:
                self._ready.clear()  # only now: until it is cleared the thread leaves the name alone
        return self.make(path)

    def make(self, path: Path) -> OpenFile:
        """Create a file and reserve its blocks where there is room."""
        file = OpenFile(self._disk.create(path))
        self.reserve(file, 0)
        return file

    def reserve(self, file: OpenFile, offset: int) -> None:
        """Reserve blocks from `offset` up to a segment's size, if the disk and the file system let us."""
        try:
            if offset < self._segment_bytes and self._has_room():
                self._disk.reserve(file.fd, offset, self._segment_bytes - offset)
        except OSError as error:
            log.debug("journal_unreserved", error=error.strerror)

    def _has_room(self) -> bool:
        return self._disk.free_bytes(self._path.parent) >= self._free_min_bytes

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except OSError as error:
                log.debug("journal_spare_failed", error=error.strerror)
            del job  # it knows a segment, and with it an open file

    def _seal(self, segment: Segment) -> None:
        try:
            seal, rows = segment.describe()
            write_index(segment.path, seal, rows, disk=self._disk)
        except OSError as error:
            # It stays in memory, and is read again from the segment at the next start.
            log.warning("journal_index_unwritten", segment=segment.path.name, error=error.strerror)
        else:
            segment.sealed()
            if not segment.path.exists():  # retention was quicker
                index_path(segment.path).unlink(missing_ok=True)

    def _zero(self) -> None:
        if self._ready.is_set():
            return
        is_ready = False
        try:
            is_ready = self._fill()
        finally:
            if is_ready:
                self._ready.set()
            else:
                self._path.unlink(missing_ok=True)

    def _fill(self) -> bool:
        """Zero the next file; False when it was not finished."""
        self._path.unlink(missing_ok=True)
        if not self._has_room():
            return False
        file = OpenFile(self._disk.create(self._path))
        self._disk.reserve(file.fd, 0, self._segment_bytes)
        # Past the page cache where that can be: flushing 64 MiB of it would hold up the writer's own syncs.
        is_direct = self._disk.write_directly(file.fd)
        with mmap.mmap(-1, _STEP_BYTES) as zeros, memoryview(zeros) as view:
            for offset in range(0, self._segment_bytes, _STEP_BYTES):
                if self._stopping.is_set():
                    return False
                size = min(_STEP_BYTES, -(-(self._segment_bytes - offset) // _PAGE_BYTES) * _PAGE_BYTES)
                with view[:size] as step:
                    self._disk.write(file.fd, step, offset)
                if not is_direct:
                    self._disk.sync(file.fd)
                time.sleep(_PAUSE_S)
        self._disk.sync(file.fd)
        return True
