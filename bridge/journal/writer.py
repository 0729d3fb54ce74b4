"""The journal's one writer: a thread that writes and syncs one commit group while the next one gathers."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreError, StoreFull
from bridge.core.ports import Clock
from bridge.journal.ahead import PAGE_BYTES, Ahead
from bridge.journal.disk import NO_SPACE, TRANSIENT, Disk
from bridge.journal.files import OpenFile
from bridge.journal.group import Group, Part
from bridge.journal.layout import segment_path
from bridge.util import telemetry
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.journal")

_SPACE_CHECK_S: Final = 0.25
_ZEROES: Final = bytes(PAGE_BYTES)

Done = Callable[[Group, int, StoreError | None], None]
"""Called in the writer's thread: how many parts of the group are durable, and why the others are not."""


class Writer:
    """Writes groups whose frames are encoded already: all it does in Python is write, sync, report."""

    def __init__(
        self,
        *,
        folder: Path,
        number: int,
        file: OpenFile,
        low_water_bytes: int,
        clock: Clock,
        disk: Disk,
        ahead: Ahead,
        done: Done,
    ) -> None:
        self._folder = folder
        self._number = number
        self._file: OpenFile | None = file
        self._low_water_bytes = low_water_bytes
        self._clock = clock
        self._disk = disk
        self._ahead = ahead
        self._done = done
        self._groups: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._space_checked_at: float | None = None
        self._is_low = False
        self._is_full = False
        self._is_undone = False
        """A partial group was cut off the active segment, and that is not synced yet."""
        self.broken: Exception | None = None
        """Why the journal takes nothing more, ever: the daemon must exit."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End after the group in work; blocks."""
        self._groups.put(None)
        self._thread.join()
        self._file = None

    def put(self, group: Group) -> None:
        """Hand a group over; one at a time."""
        self._groups.put(group)

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while (group := self._groups.get()) is not None:
            parts, error = 0, None
            started = time.perf_counter()
            try:
                self._check()
                for part in group.parts:
                    self._commit(part)
                    parts += 1
            except StoreError as failure:
                error = failure
            except Exception as failure:  # the thread's boundary: nobody may wait for ever
                self.broken = failure
                error = StoreError(f"the journal's writer failed: {failure!r}")
                log.critical("journal_writer_failed", exc_info=failure)
            took_s = time.perf_counter() - started
            self._done(group, parts, error)  # first: somebody waits for it
            if parts:
                telemetry.JOURNAL_COMMIT_SECONDS.observe(took_s)
                telemetry.JOURNAL_COMMITS.inc(parts)

    def _check(self) -> None:
        if self.broken is not None:
            raise StoreError(f"the journal is closed after a failed write: {self.broken}")
        if not self._low_water_bytes:
            return
        now = self._clock.monotonic()
        if self._space_checked_at is None or now - self._space_checked_at >= _SPACE_CHECK_S:
            self._space_checked_at = now
            self._is_low = self._disk.free_bytes(self._folder) < self._low_water_bytes
        if self._is_low:
            self._note_full()
            raise StoreFull("the disk is below the journal's low-water mark; nothing was stored")

    def _note_full(self) -> None:
        if not self._is_full:
            self._is_full = True
            telemetry.STORE_FULL.set(1)
            log.warning("journal_filled", low_water_bytes=self._low_water_bytes)

    def _note_room(self) -> None:
        if self._is_full:
            self._is_full = False
            telemetry.STORE_FULL.set(0)
            log.info("journal_resumed")

    def _commit(self, part: Part) -> None:
        """Make one part durable, in a segment of its own where it begins one."""
        if part.number == self._number and self._file is not None:
            self._ahead.enter(part.end)
            self._write(self._file.fd, part.pieces, part.begin, part.end)
        else:
            self._begin(part)
        self._note_room()

    def _write(self, fd: int, pieces: Sequence[bytes], begin: int, end: int) -> None:
        try:
            # To the end of the page, in zeroes: a page that is written in part is first read from the disk.
            self._disk.write_parts(fd, (*pieces, _ZEROES[: -end % PAGE_BYTES]), begin)
        except OSError as error:
            self._undo(fd, begin, error)
        crash_point("journal.written")
        try:
            self._disk.sync(fd)
        except OSError as error:
            if error.errno in NO_SPACE:
                # Delayed allocation found no room. Only this group was dirty, and it is cut off, not synced again.
                self._undo(fd, begin, error)
            # After a failed fsync the page cache may claim what the disk does not have: never try again.
            raise self._break(f"the journal could not be synced: {error}", error) from error
        self._is_undone = False

    def _undo(self, fd: int, begin: int, error: OSError) -> None:
        """Take a partial group back: the file ends where it was last synced."""
        self._ahead.pause()
        try:
            self._disk.truncate(fd, begin)
        except OSError as second:
            raise self._break(f"the journal could not undo a partial write: {second}", second) from error
        self._is_undone = True
        if error.errno not in NO_SPACE:
            raise self._break(f"the journal could not be written: {error}", error) from error
        raise self._full(error) from error

    def _sync_cut(self, fd: int) -> None:
        """Make a cut durable: a segment that another follows must end where it was synced, after a power loss too."""
        try:
            self._disk.sync(fd)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise self._full(error) from error
            raise self._break(f"the journal could not be synced: {error}", error) from error
        self._is_undone = False

    def _full(self, error: OSError) -> StoreFull:
        self._note_full()  # the ballast stays: it is not for what senders can keep
        return StoreFull(f"no space on the disk; nothing was stored ({error.strerror})")

    def _break(self, text: str, error: Exception) -> StoreError:
        self.broken = error
        return StoreError(text)

    def _begin(self, part: Part) -> None:
        """Make a new segment with its first part. Until that is durable the old one stays the active one."""
        assert part.header is not None
        path = segment_path(self._folder, part.number)
        if self._is_undone and self._file is not None:
            self._sync_cut(self._file.fd)
        try:
            file = self._ahead.make(path)
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno in NO_SPACE:
                raise self._full(error) from error
            if error.errno in TRANSIENT:
                raise StoreFull(f"a new journal segment cannot be made now ({error.strerror})") from error
            raise self._break(f"a new journal segment could not be made: {error}", error) from error
        try:
            self._write(file.fd, (part.header, *part.pieces), 0, part.end)
            self._disk.sync_folder(self._folder)
        except StoreError as error:
            file.close()
            if isinstance(error, StoreFull):
                path.unlink(missing_ok=True)
            raise
        except OSError as error:
            file.close()
            raise self._break(f"the journal's folder could not be synced: {error}", error) from error
        self._number, self._file, part.file = part.number, file, file
        self._ahead.follow(path, end=part.end, is_busy=True)
