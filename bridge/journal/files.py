"""Open files and loaded indexes of many segments, a bounded number at a time."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

_FILES_MAX: Final = 32
_INDEXES_MAX_BYTES: Final = 32 * 1024 * 1024


class OpenFile:
    """A descriptor that is closed when its last user lets go: a reader keeps it through an eviction.

    `fd` is for one call; hold the object meanwhile.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it now, when nobody else has it; twice is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Files:
    """Bounded caches, shared by the segments of a journal; for every thread."""

    def __init__(self, *, files_max: int = _FILES_MAX, indexes_max_bytes: int = _INDEXES_MAX_BYTES) -> None:
        self._files_max = files_max
        self._indexes_max_bytes = indexes_max_bytes
        self._files: OrderedDict[Path, OpenFile] = OrderedDict()
        self._indexes: OrderedDict[Path, bytes] = OrderedDict()
        self._indexes_bytes = 0
        self._lock = threading.Lock()

    def open(self, path: Path) -> OpenFile:
        """Return the file, opened for reading; raises FileNotFoundError when retention took it."""
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                if len(self._files) > self._files_max:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(path)
            return file

    def index(self, path: Path, load: Callable[[], bytes]) -> bytes:
        """Return the index of a segment file, from memory or by `load()`."""
        with self._lock:
            rows = self._indexes.get(path)
            if rows is not None:
                self._indexes.move_to_end(path)
                return rows
        rows = load()
        with self._lock:
            self._drop_index(path)
            self._indexes[path] = rows
            self._indexes_bytes += len(rows)
            while self._indexes_bytes > self._indexes_max_bytes and len(self._indexes) > 1:
                self._drop_index(next(iter(self._indexes)))
        return rows

    def forget(self, path: Path) -> None:
        """Let go of a segment's file and index."""
        with self._lock:
            self._files.pop(path, None)
            self._drop_index(path)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._files.clear()
            self._indexes.clear()
            self._indexes_bytes = 0

    def _drop_index(self, path: Path) -> None:
        self._indexes_bytes -= len(self._indexes.pop(path, b""))
