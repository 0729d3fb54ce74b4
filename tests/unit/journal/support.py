"""What the journal's tests share: a disk that fails on demand, plain records, journals that get closed."""

import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge.core.invocation import InvocationType
from bridge.core.ports import Selection
from bridge.core.record import Record
from bridge.journal.disk import Disk
from bridge.journal.frames import encode
from bridge.journal.journal import SegmentJournal
from bridge.testing.clock import ManualClock


class FaultyDisk(Disk):
    """A disk that fails where a test says so, for files whose name ends in `only`."""

    def __init__(self) -> None:
        self.fail_write: OSError | None = None
        self.fail_sync: OSError | None = None
        self.fail_truncate: OSError | None = None
        self.fail_create: OSError | None = None
        self.fail_folder: OSError | None = None
        self.fail_direct: OSError | None = None
        self.direct_opens = 0
        self.partial = 0
        """Bytes that a failing write still wrote."""
        self.free = 1 << 40
        self.only = ".seg"
        self.syncs: list[str] = []

    def _concerns(self, fd: int) -> bool:
        return os.readlink(f"/proc/self/fd/{fd}").endswith(self.only)

    def create(self, path: Path) -> int:
        if self.fail_create is not None and path.name.endswith(self.only):
            raise self.fail_create
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        if self.fail_write is not None and self._concerns(fd):
            os.pwrite(fd, data[: self.partial], offset)
            raise self.fail_write
        super().write(fd, data, offset)

    def open_direct(self, path: Path) -> int:
        self.direct_opens += 1
        if self.fail_direct is not None:
            raise self.fail_direct
        return super().open_direct(path)

    def write_parts(self, fd: int, parts: Sequence[bytes], offset: int) -> None:
        if self.fail_write is not None and self._concerns(fd):
            self.write(fd, b"".join(parts), offset)
        super().write_parts(fd, parts, offset)

    def sync(self, fd: int) -> None:
        if self.fail_sync is not None and self._concerns(fd):
            raise self.fail_sync
        self.syncs.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        super().sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        if self.fail_truncate is not None:
            raise self.fail_truncate
        super().truncate(fd, size)

    def sync_folder(self, folder: Path) -> None:
        if self.fail_folder is not None:
            raise self.fail_folder
        super().sync_folder(folder)

    def free_bytes(self, folder: Path) -> int:
        return self.free


def record(n: int = 0, **fields: Any) -> Record:
    plain = Record(
        id=str(uuid.UUID(int=n + 1)),
        source="orders",
        function="handle",
        invocation_type=InvocationType.EVENT,
        received_at=1000.0 + n,
        payload=b'{"n":%d}' % n,
    )
    return replace(plain, **fields)


def framed(original: Record, seed: int, offset: int, *, synced_end: int = 0) -> bytes:
    """A whole frame."""
    head, _, _ = encode(original, seed, offset, synced_end, 1)
    return head + original.payload


@asynccontextmanager
async def opened(folder: Path, *, disk: Disk | None = None, **options: Any) -> AsyncIterator[SegmentJournal]:
    """A journal in `folder`, closed at the end."""
    settings: dict[str, Any] = {
        "segment_bytes": 1 << 20,
        "low_water_bytes": 0,
        "on_fatal": lambda error: None,
        "clock": ManualClock(),
    }
    journal = SegmentJournal(folder=folder, disk=disk, **(settings | options))
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


async def everything(journal: SegmentJournal, selection: Selection | None = None, **options: Any) -> list[Record]:
    return [each async for chunk in journal.scan(selection or Selection(), **options) for each in chunk]


async def append_all(journal: SegmentJournal, count: int, *, start: int = 0, **fields: Any) -> list[Record]:
    return [await journal.append(record(n, **fields)) for n in range(start, start + count)]
