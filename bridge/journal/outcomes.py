"""The log of attempts: written within one loop pass, synced every 200 ms, found again by the event's id."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import structlog

from bridge.core import limits
from bridge.core.errors import StoreError
from bridge.core.invocation import Attempt
from bridge.core.ports import Clock
from bridge.core.record import Record
from bridge.journal.attempts import encode, merged
from bridge.journal.disk import NO_SPACE, TRANSIENT, Disk
from bridge.journal.files import Files
from bridge.journal.frames import id_bytes
from bridge.journal.outcome_files import OutcomeFile

log = structlog.get_logger("bridge.outcomes")

_FILE_MAX_BYTES: Final = 64 * limits.MIB
_BUFFER_MAX_BYTES: Final = 32 * limits.MIB
"""Attempts that wait for room on the disk; beyond it the oldest are dropped, and counted."""
_CLOCKS_APART_MS: Final = 60_000
"""An attempt may seem to start before its event arrived: the wall clock was set back between two runs."""


class OutcomesLog:
    """`ports.Outcomes` on disk. All methods but `for_events` and `finished` are for the loop's thread.

    Args:
        folder: where the files live; made if need be (0700).
        retention_s: a file goes when its latest attempt is older, seconds.
        on_fatal: called on the loop, once, when a write or a sync failed for another reason than room: from
            then on `flush` raises and nothing more is written. The daemon must exit.
        file_max_bytes: size at which a new file begins.
    """

    def __init__(
        self,
        *,
        folder: Path,
        clock: Clock,
        retention_s: float,
        on_fatal: Callable[[Exception], None] | None = None,
        file_max_bytes: int = _FILE_MAX_BYTES,
        disk: Disk | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._retention_s = retention_s
        self._on_fatal = on_fatal
        self._file_max_bytes = file_max_bytes
        self._disk = disk or Disk()
        self._cache = Files(files_max=64)
        self._files: tuple[OutcomeFile, ...] = ()
        """Oldest first; the last one takes what is appended."""
        self._unsealed: list[OutcomeFile] = []
        self._buffer: deque[tuple[Attempt, bytes]] = deque()
        self._buffered_bytes = 0
        self._scheduled = False
        self._is_dirty = False
        self._is_waiting = False
        self._broken: OSError | None = None
        self._is_fatal = False
        self._syncing = asyncio.Lock()
        self.dropped = 0
        """Attempts that were never written because the disk was full for too long."""

    # --- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the indexes of what is there.

        Raises:
            StoreError: the folder or its newest file could not be read or made.
        """
        try:
            self._files = await asyncio.to_thread(self._recover)
        except OSError as error:
            raise StoreError(f"the outcomes in {self._folder} could not be opened: {error.strerror}") from error

    def _recover(self) -> tuple[OutcomeFile, ...]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._folder.glob("*.new"):
            leftover.unlink()
        files = [OutcomeFile(path, files=self._cache) for path in sorted(self._folder.glob("*.out"))]
        for file in files:
            if not file.open_sealed():
                file.recover(self._disk)
                if file is not files[-1]:
                    file.seal(self._disk)
        if files and files[-1].is_sealed and files[-1].end < self._file_max_bytes:
            files[-1].resume()
        if not files or files[-1].is_sealed:
            files.append(self._created(files[-1].number + 1 if files else 1))
            self._disk.sync_folder(self._folder)
        return tuple(files)

    def _created(self, number: int) -> OutcomeFile:
        file = OutcomeFile(self._folder / f"{number:08x}.out", files=self._cache)
        file.create(self._disk)
        return file

    def configure(self, *, retention_s: float) -> None:
        """Take a new limit."""
        self._retention_s = retention_s

    async def run(self) -> None:
        """Sync every 200 ms and delete what is too old, one file a second at most; for the supervisor."""
        deleted_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(limits.OUTCOME_SYNC_S)
            if self._is_dirty or self._buffer:
                await self.flush()
            if self._clock.monotonic() - deleted_at >= 1.0:
                deleted_at = self._clock.monotonic()
                await self._expire()

    async def close(self) -> None:
        """Sync and release; twice is fine."""
        if not self._files:
            return
        files = self._files
        try:
            await self.flush()
        except StoreError as error:
            log.warning("outcomes_unsynced", error=str(error))
            self._files = ()
        else:
            self._files = ()  # what is appended from now on comes too late for the file that is being sealed
            await asyncio.to_thread(self._seal, files[-1])
        for file in files:
            file.close()
        self._cache.clear()

    # --- writing ------------------------------------------------------------------------------

    def append(self, attempt: Attempt) -> None:
        """Write within this loop pass. See ports.Outcomes.

        On a full disk it waits in memory, up to 32 MiB; an attempt that is lost there was still handled.
        """
        frame = encode(attempt)
        self._buffer.append((attempt, frame))
        self._buffered_bytes += len(frame)
        while self._buffered_bytes > _BUFFER_MAX_BYTES:
            self._buffered_bytes -= len(self._buffer.popleft()[1])
            self.dropped += 1
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._scheduled = False
        if not self._buffer or not self._files or self._broken is not None:
            return
        try:
            if self._files[-1].end >= self._file_max_bytes:
                self._roll()
            self._files[-1].write([frame for _, frame in self._buffer], self._disk)
        except OSError as error:
            if error.errno not in TRANSIENT:
                self._broken = error
                self._report()
            elif not self._is_waiting:
                self._is_waiting = True
                log.warning("outcomes_waiting", error=error.strerror, is_full=error.errno in NO_SPACE)
            return  # tried again at the next append and at the next sync
        if self._is_waiting:
            self._is_waiting = False
            log.info("outcomes_resumed", dropped=self.dropped)
        self._buffer.clear()
        self._buffered_bytes = 0
        self._is_dirty = True

    def _roll(self) -> None:
        """Go on in a new file; the full one is synced and sealed with the next sync.

        So is an older one whose index found no room then.
        """
        fresh = self._created(self._files[-1].number + 1)
        self._unsealed = [file for file in self._files if not file.is_sealed]
        self._files = (*self._files, fresh)

    def _report(self) -> None:
        """Tell, once, that the log is broken: it may lack what it was given, and the daemon must not go on."""
        if self._broken is not None and not self._is_fatal:
            self._is_fatal = True
            log.critical("outcomes_broken", error=str(self._broken))
            if self._on_fatal is not None:
                self._on_fatal(self._broken)

    async def flush(self) -> None:
        """Return once what was written is synced. See ports.Outcomes.

        On a full disk it returns all the same: what could not be written stays in memory and is tried again.

        Raises:
            StoreError: a write or a sync failed, now or earlier; it is never tried again.
        """
        async with self._syncing:
            self._write()
            if self._broken is not None:
                self._report()
                raise StoreError(f"outcomes cannot be synced any more: {self._broken}")
            if not self._is_dirty or not self._files:
                return
            self._is_dirty = False
            unsealed, self._unsealed = self._unsealed, []
            try:
                await asyncio.to_thread(self._sync, unsealed, self._files[-1])
            except OSError as error:
                self._report()
                raise StoreError(f"outcomes could not be synced: {error}") from error

    def _sync(self, unsealed: list[OutcomeFile], active: OutcomeFile) -> None:
        try:
            for file in (*unsealed, active):
                file.sync(self._disk)
            if unsealed:
                self._disk.sync_folder(self._folder)
        except OSError as error:
            self._broken = error  # noted here: who waited for this thread may have been cancelled
            raise
        for file in unsealed:
            self._seal(file)

    def _seal(self, file: OutcomeFile) -> None:
        try:
            file.seal(self._disk)
        except OSError as error:  # it stays in memory; tried again with the next full file
            log.warning("outcomes_index_unwritten", file=file.path.name, error=error.strerror)

    async def _expire(self) -> None:
        oldest_ms = (self._clock.time() - self._retention_s) * 1000
        async with self._syncing:  # no file goes while it is being synced or sealed
            if len(self._files) > 1 and self._files[0] not in self._unsealed and self._files[0].newest_ms < oldest_ms:
                gone, self._files = self._files[0], self._files[1:]
                await asyncio.to_thread(gone.delete)

    # --- reading ------------------------------------------------------------------------------

    def for_events(self, records: Iterable[Record]) -> dict[int, list[Attempt]]:
        """Return the attempts of each record by position. See ports.Outcomes. For any thread."""
        wanted = {record.id: record for record in records}
        if not wanted:
            return {}
        found: dict[str, list[Attempt]] = {request_id: [] for request_id in wanted}
        # What waits in memory first: it may move to the file meanwhile, and is then seen twice, not never.
        waiting = [attempt for attempt, _ in tuple(self._buffer) if attempt.request_id in wanted]
        starts = frozenset(id_bytes(request_id)[:8] for request_id in wanted)
        oldest_ms = min(record.received_at for record in wanted.values()) * 1000 - _CLOCKS_APART_MS
        for file in self._files:
            if file.newest_ms < oldest_ms:
                continue
            try:
                for attempt in file.attempts(starts):
                    if attempt.request_id in wanted:
                        found[attempt.request_id].append(attempt)
            except FileNotFoundError:
                continue  # retention took it
        for attempt in waiting:
            found[attempt.request_id].append(attempt)
        return {wanted[request_id].position: merged(rows) for request_id, rows in found.items() if rows}

    def finished(self, *, after: int) -> set[int]:
        """Return positions that their lane has passed. See ports.Outcomes. For any thread."""
        found: set[int] = set()
        for file in self._files:
            with contextlib.suppress(FileNotFoundError):  # retention took it
                found |= file.passed(after=after)
        return found
