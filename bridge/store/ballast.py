"""A file that is given up when the disk is full, so that dead letters, outcomes and pruning have room."""

import os
import threading
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger("bridge.ballast")

_MARGIN: Final = 4
"""It is laid down again when that many times its size is free."""


class Ballast:
    """`size_bytes` really allocated, released at once, restored when there is room. Safe from any thread."""

    def __init__(self, path: Path, *, size_bytes: int) -> None:
        self._path = path
        self._size = size_bytes
        self._lock = threading.Lock()

    def ensure(self) -> bool:
        """Lay it down if it is not there and the disk has room; True when it lies there. Blocking."""
        with self._lock:
            if self._size <= 0:
                return True
            try:
                if self._path.stat().st_size >= self._size:
                    return True
            except FileNotFoundError:
                pass
            return self._allocate()

    def _allocate(self) -> bool:
        stat = os.statvfs(self._path.parent)
        if stat.f_bavail * stat.f_frsize < _MARGIN * self._size:
            return False
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._size)
        except OSError:
            os.close(fd)
            self._path.unlink(missing_ok=True)
            return False
        os.close(fd)
        log.info("ballast_restored", size_bytes=self._size)
        return True

    def release(self) -> None:
        """Give it up; twice is fine."""
        with self._lock:
            if self._path.exists():
                self._path.unlink(missing_ok=True)
                log.warning("ballast_released", size_bytes=self._size)
