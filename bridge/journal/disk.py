"""The few system calls of the journal, in one object, so that tests can make a disk fail at any of them."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors that go away by themselves when somebody makes room (EFBIG: a file-size limit of the process)."""
_PARTS_MAX: Final = 1024
"""IOV_MAX of Linux."""

TRANSIENT: Final = NO_SPACE | {errno.EMFILE, errno.ENFILE}
"""Errors after which trying again later is safe: nothing that was written is in doubt."""


class Disk:
    """The real disk."""

    def create(self, path: Path) -> int:
        """Create a file for reading and writing (0600); it must not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        written = os.pwrite(fd, data, offset)
        while written < len(data):
            written += os.pwrite(fd, memoryview(data)[written:], offset + written)

    def write_parts(self, fd: int, parts: Sequence[bytes], offset: int) -> None:
        """Write all of `parts` side by side at `offset`, without joining them first."""
        for first in range(0, len(parts), _PARTS_MAX):
            some = parts[first : first + _PARTS_MAX]
            size = sum(map(len, some))
            written = os.pwritev(fd, some, offset)
            if written < size:
                self.write(fd, b"".join(some)[written:], offset + written)
            offset += size

    def open_direct(self, path: Path) -> int:
        """Open a file for writing whole pages, from aligned memory, past the page cache.

        Raises:
            OSError: the file system cannot.
        """
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)

    def reserve(self, fd: int, offset: int, length: int) -> None:
        """Allocate blocks without writing them, so that syncs change less metadata."""
        os.posix_fallocate(fd, offset, length)

    def sync(self, fd: int) -> None:
        """Make written data durable."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(fd, size)

    def sync_folder(self, folder: Path) -> None:
        """Make creations, renames and deletions in a folder durable."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def replace(self, path: Path, data: bytes) -> None:
        """Write a whole file, synced, under a temporary name, then rename it (the folder is not synced)."""
        temporary = path.with_name(f"{path.name}.new")
        temporary.unlink(missing_ok=True)
        fd = self.create(temporary)
        try:
            self.write(fd, data, 0)
            self.sync(fd)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        temporary.rename(path)

    def free_bytes(self, folder: Path) -> int:
        """Return the bytes that may still be written on the folder's file system."""
        stat = os.statvfs(folder)
        return stat.f_bavail * stat.f_frsize
