"""Hold files: payloads too large for a database row, each in a file of its own, on disk before its row."""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Final

import structlog

from bridge.core import limits
from bridge.core.errors import StoreError, StoreFull
from bridge.store.folder import NO_SPACE, sync_folder

log = structlog.get_logger("bridge.store")

_SUFFIX: Final = ".payload"
_REPORTED_MAX: Final = 1000


class Hold:
    """The folder of payload files. A name is used once, so a late removal can never hit a newer payload."""

    def __init__(self, folder: Path, *, release_ballast: Callable[[], object] | None = None) -> None:
        self._folder = folder
        self._release_ballast = release_ballast
        self._reported: set[str] = set()

    def open(self) -> None:
        """Make the folder. Blocking."""
        self._folder.mkdir(mode=0o700, exist_ok=True)

    @contextlib.asynccontextmanager
    async def kept(self, payload: bytes) -> AsyncIterator[tuple[str, bytes]]:
        """Yield (file name, bytes for the row) for the block that commits the row; small payloads have no file.

        If the block raises, the file goes again. If it is cancelled the row may be there or not, so the file
        stays, and `sweep` decides at the next start.

        Raises:
            StoreFull: no space, even without the ballast.
            StoreError: the file could not be written.
        """
        if len(payload) <= limits.PARKED_INLINE_MAX_BYTES:
            yield "", payload
            return
        name = await asyncio.to_thread(self._keep, payload)
        try:
            yield name, b""
        except Exception:  # whatever it was: without its row the file is nobody's, and the error goes on
            await self.remove(name)
            raise

    async def remove(self, *names: str) -> None:
        """Remove files whose rows are gone; empty names and missing files are fine."""
        wanted = [name for name in names if name]
        if wanted:
            await asyncio.to_thread(self._remove, wanted)

    def read(self, name: str, *, size: int) -> bytes | None:
        """Return a payload of `size` bytes; None (logged once) when the file is gone or cut short. Blocking."""
        try:
            payload = (self._folder / name).read_bytes()
        except OSError:
            payload = None
        if payload is not None and len(payload) == size:
            return payload
        if name not in self._reported and len(self._reported) < _REPORTED_MAX:
            self._reported.add(name)
            log.error("hold_file_lost", file=name, bytes_expected=size)
        return None

    def sweep(self, known: Collection[str]) -> int:
        """Remove files that no row names (their row never committed, or went); return how many. At open only."""
        orphans = [path.name for path in self._folder.glob("*" + _SUFFIX) if path.name not in known]
        self._remove(orphans)
        if orphans:
            log.info("hold_swept", files=len(orphans))
        return len(orphans)

    def set_aside(self, known: Collection[str] = ()) -> int:
        """Move files that no row of a new or repaired database names out of the sweep's way; return how many.

        They are all that is left of their events.
        """
        orphans = [path for path in self._folder.glob("*" + _SUFFIX) if path.name not in known]
        if orphans:
            aside = self._folder.with_name(f"{self._folder.name}.lost-{time.time_ns()}")
            aside.mkdir(mode=0o700)
            for path in orphans:
                path.rename(aside / path.name)
            sync_folder(aside)
            sync_folder(self._folder.parent)
            log.warning("hold_set_aside", folder=aside.name, files=len(orphans))
        return len(orphans)

    def _keep(self, payload: bytes) -> str:
        try:
            return self._write(payload)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise StoreError(f"a hold file could not be written: {error.strerror}") from error
        if self._release_ballast is not None:
            self._release_ballast()
        try:
            return self._write(payload)
        except OSError as error:
            kind = StoreFull if error.errno in NO_SPACE else StoreError
            raise kind(f"a hold file could not be written: {error.strerror}; nothing was stored") from error

    def _write(self, payload: bytes) -> str:
        name = uuid.uuid4().hex + _SUFFIX
        path = self._folder / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                view = memoryview(payload)
                while view:
                    view = view[file.write(view) or 0 :]
                os.fsync(fd)
            sync_folder(self._folder)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return name

    def _remove(self, names: list[str]) -> None:
        # Not synced: a file that comes back after a power loss is an orphan, and swept.
        for name in names:
            with contextlib.suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)
