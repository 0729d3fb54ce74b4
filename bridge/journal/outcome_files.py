"""One file of the outcomes log with its index: appended by the loop, sealed when it is full, read by any thread."""

import os
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from bridge.core.errors import StoreError
from bridge.core.invocation import Attempt
from bridge.journal.attempts import MAGIC, PASSED, ROW, ROW_BYTES, ROW_ID_AT, check, decode, frame_length, row_of
from bridge.journal.disk import Disk
from bridge.journal.files import Files, OpenFile

log = structlog.get_logger("bridge.outcomes")

_SEAL: Final = struct.Struct("<8sIQQqII")
"""magic, rows, end, newest ms, highest position, crc of the rows, crc of this; at the end of an index."""
_SEAL_MAGIC: Final = b"BRIDGEO2"
_FEW: Final = 8
"""Up to so many ids are searched for one by one in the rows of the file that grows: memmem reads GBs a second."""
_BLOCK_ROWS: Final = 256
_BLOCK_BYTES: Final = _BLOCK_ROWS * ROW_BYTES
"""A sealed index is sorted by request id: memory holds the first id of each block, a look-up reads one block."""
_READ_BYTES: Final = 2048


class OutcomeFile:
    """Attempts in the order they were noted; the rows of a sealed file are on disk only, sorted by request id."""

    def __init__(self, path: Path, *, files: Files) -> None:
        self.path = path
        self.number = int(path.stem, 16)
        self.end = 0
        """Bytes of whole frames."""
        self.newest_ms = 0
        """When the latest attempt in it started, epoch ms."""
        self.highest = -1
        """Highest journal position in it."""
        self._files = files
        self._rows: bytearray | None = bytearray()
        self._firsts: Sequence[bytes] = ()
        """Of a sealed file: where the request id of each block's first row begins."""
        self._file: OpenFile | None = None

    # --- life ---------------------------------------------------------------------------------

    def create(self, disk: Disk) -> None:
        """Make the file."""
        self._file = OpenFile(disk.create(self.path))

    def open_sealed(self) -> bool:
        """Take what the index says; False when it is missing or damaged (then `recover`)."""
        try:
            data = self._index_path.read_bytes()
            size = self.path.stat().st_size
        except OSError:
            return False
        if len(data) < _SEAL.size:
            return False
        magic, count, end, newest_ms, highest, crc, seal_crc = _SEAL.unpack_from(data, len(data) - _SEAL.size)
        rows = data[: -_SEAL.size]
        if (magic, seal_crc) != (_SEAL_MAGIC, zlib.crc32(data[-_SEAL.size : -4])) or end != size:
            return False
        if len(rows) != count * ROW_BYTES or zlib.crc32(rows) != crc:
            return False
        self.end, self.newest_ms, self.highest = end, newest_ms, highest
        self._firsts, self._rows = _firsts(rows), None
        return True

    def resume(self) -> None:
        """Append to it again after `open_sealed`: its index is stale from now on."""
        self._rows = bytearray(self._load())
        self._file = OpenFile(os.open(self.path, os.O_RDWR | os.O_CLOEXEC))
        self._files.forget(self._index_path)
        self._index_path.unlink()

    def recover(self, disk: Disk) -> None:
        """Read the file frame by frame and cut what is torn; damage between whole frames is stepped over.

        A lost outcome means one more attempt, never a lost event: so it is reported, not refused.
        """
        self._file = OpenFile(os.open(self.path, os.O_RDWR | os.O_CLOEXEC))
        data = self.path.read_bytes()
        with memoryview(data) as view:
            at = self.end = 0
            while at < len(view):
                try:
                    length = check(view[at:])
                except StoreError:
                    following = _next_frame(data, at + 1)
                    log.warning("outcomes_damaged", file=self.path.name, offset=at, lost_bytes=following - at)
                    at = following
                    continue
                self._index(view[at : at + length], at)
                at = self.end = at + length
            if self.end < len(view):
                disk.truncate(self._file.fd, self.end)
        disk.sync(self._file.fd)

    def seal(self, disk: Disk) -> None:
        """Sync it and write its index; from then on its rows are read from there. Blocks; twice is fine."""
        live = self._rows
        if live is None:
            return
        self.sync(disk)
        rows = _by_id(bytes(live))
        body = _SEAL.pack(
            _SEAL_MAGIC, len(rows) // ROW_BYTES, self.end, self.newest_ms, self.highest, zlib.crc32(rows), 0
        )[:-4]
        disk.replace(self._index_path, b"".join((rows, body, struct.pack("<I", zlib.crc32(body)))))
        self._firsts = _firsts(rows)
        self._rows = None  # only now: a reader that finds no rows here finds the index
        self._file = None

    @property
    def is_sealed(self) -> bool:
        """True when it takes no more and its index is on disk."""
        return self._rows is None

    def sync(self, disk: Disk) -> None:
        """Make what was written durable. Blocks."""
        file = self._file
        if file is not None:
            disk.sync(file.fd)

    def close(self) -> None:
        """Let go of the file."""
        self._file = None

    def delete(self) -> None:
        """Remove it and its index."""
        self._file = None
        self._files.forget(self.path)
        self._files.forget(self._index_path)
        self._index_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @property
    def _index_path(self) -> Path:
        return self.path.with_suffix(".idx")

    # --- writing ------------------------------------------------------------------------------

    def write(self, frames: list[bytes], disk: Disk) -> None:
        """Append frames; raises OSError, and then nothing counts as written."""
        assert self._file is not None
        disk.write(self._file.fd, b"".join(frames), self.end)
        for frame in frames:
            self._index(frame, self.end)
            self.end += len(frame)

    def _index(self, frame: bytes | memoryview, offset: int) -> None:
        assert self._rows is not None
        row, position, started_ms = row_of(frame, offset)
        self._rows += row
        self.newest_ms = max(self.newest_ms, started_ms)
        self.highest = max(self.highest, position)

    # --- reading ------------------------------------------------------------------------------

    def _load(self) -> bytes:
        return self._index_path.read_bytes()[: -_SEAL.size]

    def passed(self, *, after: int) -> set[int]:
        """Return positions above `after` whose lane passed them.

        Raises:
            FileNotFoundError: retention took the file meanwhile.
        """
        if self.highest <= after:
            return set()
        rows = self._rows
        data = self._load() if rows is None else bytes(rows)
        return {
            position
            for position, _, _, status in ROW.iter_unpack(data)
            if status in PASSED and position > after
        }  # fmt: skip

    def attempts(self, starts: frozenset[bytes]) -> Iterator[Attempt]:
        """Yield attempts of events whose request id begins with one of `starts` (8 bytes), oldest first.

        Raises:
            FileNotFoundError: retention took the file meanwhile.
        """
        rows = self._rows
        offsets = self._sealed_offsets(starts) if rows is None else _offsets(bytes(rows), starts)
        if not offsets:
            return
        file = self._file or self._files.open(self.path)
        for offset in offsets:
            data = os.pread(file.fd, _READ_BYTES, offset)
            length = frame_length(data)
            if length > len(data):
                data += os.pread(file.fd, length - len(data), offset + len(data))
            try:
                yield decode(data)
            except StoreError as error:
                log.warning("outcome_unreadable", file=self.path.name, offset=offset, error=str(error))

    def _sealed_offsets(self, starts: frozenset[bytes]) -> list[int]:
        found, firsts, index = list[int](), self._firsts, self._files.open(self._index_path)
        end = len(firsts) * _BLOCK_BYTES
        for start in starts:
            block = max(0, bisect_left(firsts, start) - 1)
            last = bisect_right(firsts, start)
            if last > block:
                size = min(end, last * _BLOCK_BYTES) - block * _BLOCK_BYTES
                found += _few_offsets(os.pread(index.fd, size, block * _BLOCK_BYTES), start)
        return sorted(found)


def _by_id(rows: bytes) -> bytes:
    """Return rows sorted by request id, in small steps: a long sort would hold up the loop's thread."""
    buckets = [bytearray() for _ in range(256)]
    for at in range(0, len(rows), ROW_BYTES):
        buckets[rows[at + ROW_ID_AT]] += rows[at : at + ROW_BYTES]
    return b"".join(
        row
        for bucket in buckets
        for row in sorted((bytes(bucket[at : at + ROW_BYTES]) for at in range(0, len(bucket), ROW_BYTES)), key=_id)
    )


def _id(row: bytes) -> bytes:
    return row[ROW_ID_AT : ROW_ID_AT + 8]


def _firsts(rows: bytes) -> list[bytes]:
    return [rows[at + ROW_ID_AT : at + ROW_ID_AT + 8] for at in range(0, len(rows), _BLOCK_BYTES)]


def _offsets(rows: bytes, starts: frozenset[bytes]) -> list[int]:
    if len(starts) > _FEW:
        return [offset for _, start, offset, _ in ROW.iter_unpack(rows) if start in starts]
    return sorted(offset for start in starts for offset in _few_offsets(rows, start))


def _few_offsets(rows: bytes, start: bytes) -> Iterator[int]:
    at = rows.find(start)
    while at >= 0:
        if at % ROW_BYTES == ROW_ID_AT and at + ROW_BYTES - ROW_ID_AT <= len(rows):
            yield int(ROW.unpack_from(rows, at - ROW_ID_AT)[2])
        at = rows.find(start, at + 1)


def _next_frame(data: bytes, at: int) -> int:
    """Return where the next whole frame begins, or the end."""
    with memoryview(data) as view:
        while (at := data.find(MAGIC, at)) >= 0:
            try:
                check(view[at:])
            except StoreError:
                at += 1
            else:
                return at
    return len(data)
