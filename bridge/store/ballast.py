"""Ballast: space held on the disk in good times, given up when it is full, taken back when there is room again."""

import os
import threading
from pathlib import Path

import structlog

from bridge.core import limits
from bridge.util import telemetry

log = structlog.get_logger("bridge.store")


class Ballast:
    """A file of `size_bytes` (0: none). Any thread may call; each call is cheap when nothing changes.

    A full disk refuses even the deletes and checkpoints that would make room on it (reliability, b): the
    ballast is what dead letters, outcomes and pruning live on until an operator acts.
    """

    def __init__(self, path: Path, *, size_bytes: int = limits.BALLAST_DEFAULT_BYTES) -> None:
        self._path = path
        self._size = size_bytes
        self._lock = threading.Lock()

    @property
    def is_held(self) -> bool:
        """True while the space is there to be given up (or none was asked for)."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return self._size == 0
        # A sparse copy of the file, as a restored backup may be, holds no space.
        return stat.st_size == self._size and stat.st_blocks * 512 >= self._size

    def ensure(self) -> bool:
        """Take the space if it is not held; return whether it is held now. Blocking, usually microseconds.

        It is taken only when the disk has room for it twice over, so that it is never the ballast that
        fills the disk, and does not come and go with every write.
        """
        with self._lock:
            if self.is_held:
                return True
            if self._size and free_bytes(self._path.parent) < 2 * self._size:
                return False
            try:
                self._allocate()
            except OSError as error:
                self._drop()
                log.warning("ballast_refused", size_bytes=self._size, error=error.strerror)
                return False
            telemetry.STORE_FULL.set(0)
            log.info("ballast_restored", size_bytes=self._size)
            return True

    def release(self) -> bool:
        """Give the space up; return whether there was any. Twice is fine."""
        with self._lock:
            if not self._drop():
                return False
            telemetry.STORE_FULL.set(1)
            log.warning("ballast_released", size_bytes=self._size)
            return True

    def _allocate(self) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, self._size)
            if self._size:
                os.posix_fallocate(fd, 0, self._size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _drop(self) -> bool:
        try:
            had_some = self._path.stat().st_blocks > 0
            os.truncate(self._path, 0)
        except FileNotFoundError:
            return False
        return had_some


def free_bytes(path: Path) -> int:
    """Return the bytes an unprivileged user may still write on the file system of `path`."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize
