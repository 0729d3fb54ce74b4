"""One segment: its file, its index rows in memory or mapped, and the recovery of both."""

import mmap
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bridge.core.errors import StoreCorrupt
from bridge.core.record import Record
from bridge.journal.frames import (
    HEADER_BYTES,
    MAGIC,
    ROW,
    ROW_BYTES,
    Chunk,
    Frame,
    FrameBroken,
    Row,
    decode,
    frame_length,
)

FILE_HEADER: Final = struct.Struct("<8sIIQ40x")
"""magic, segment number, format, created ms; padded to 64 bytes."""
FILE_HEADER_BYTES: Final = FILE_HEADER.size
FILE_MAGIC: Final = b"BRIDGEJ1"
_SEAL: Final = struct.Struct("<8sIIII24x")
"""magic, rows, end offset, crc of the rows, reserved: one row long, last in a sealed index."""
_SEAL_MAGIC: Final = b"SEALEDIX"
_READ_BYTES: Final = 8192
_GAP_MAX_BYTES: Final = 16 * 1024
"""Frames this far apart are read together, with what lies between."""
_RUN_MAX_BYTES: Final = 4 * 1024 * 1024


class Segment:
    """A segment for readers: rows sorted by offset. `rows` only ever holds what is synced."""

    def __init__(self, folder: Path, number: int, *, fd: int, rows: bytearray | mmap.mmap | bytes, end: int) -> None:
        self.folder = folder
        self.number = number
        self.fd = fd
        self.end = end
        """Byte offset behind the last synced frame."""
        self._rows = rows
        self._count = len(rows) // ROW_BYTES if not isinstance(rows, mmap.mmap) else len(rows) // ROW_BYTES - 1
        self.closed = False

    @property
    def path(self) -> Path:
        """The segment's file."""
        return segment_path(self.folder, self.number)

    @property
    def base(self) -> int:
        """Journal position of the segment's first byte."""
        return self.number << 32

    @property
    def count(self) -> int:
        """How many synced records it has."""
        return self._count

    def extend(self, rows: bytes, *, end: int) -> None:
        """Show readers what has just been synced (the writer's call)."""
        assert isinstance(self._rows, bytearray)
        self._rows += rows
        self.end = end
        self._count += len(rows) // ROW_BYTES

    def row(self, index: int) -> Row:
        """Return one index row."""
        return ROW.unpack_from(self._rows, index * ROW_BYTES)

    def rows(self, begin: int, end: int) -> Iterator[Row]:
        """Iterate over rows [begin, end) of those synced when it is called."""
        end = min(end, self._count)
        return ROW.iter_unpack(bytes(self._rows[begin * ROW_BYTES : end * ROW_BYTES]))

    def first_after(self, offset: int) -> int:
        """Return the index of the first row above a byte offset."""
        return bisect_right(range(self._count), offset, key=lambda i: self.row(i)[0])

    def first_since(self, received_ms: int) -> int:
        """Return the index of the first row received at that time or later (times never go backwards)."""
        return bisect_right(range(self._count), received_ms - 1, key=lambda i: self.row(i)[2])

    def find(self, raw_id: bytes) -> int | None:
        """Return the offset of the newest record with that id."""
        data = bytes(self._rows[: self._count * ROW_BYTES])
        at = len(data)
        while (at := data.rfind(raw_id, 0, at)) >= 0:
            if at % ROW_BYTES == ROW_BYTES - 16:
                return int(ROW.unpack_from(data, at - ROW_BYTES + 16)[0])
            at += 15
        return None

    def read(self, offset: int) -> Record:
        """Return the record at a byte offset.

        Raises:
            StoreCorrupt: the frame there is damaged.
        """
        data = os.pread(self.fd, _READ_BYTES, offset)
        length = frame_length(data)
        if length > len(data):
            data = os.pread(self.fd, length, offset)
        try:
            return decode(data, segment=self.number, offset=offset).record
        except FrameBroken as error:
            raise StoreCorrupt(
                f"{self.path.name} is damaged at byte {offset} ({error}); run `bridge doctor`"
            ) from error

    def read_into(self, chunk: Chunk, rows: Sequence[Row]) -> None:
        """Add the frames of rows in rising order, near ones with one read.

        Raises:
            FrameBroken: a frame is damaged; the ones before it were added.
        """
        first = 0
        while first < len(rows):
            last = first
            while (
                last + 1 < len(rows)
                and rows[last + 1][0] - (rows[last][0] + rows[last][1]) <= _GAP_MAX_BYTES
                and rows[last + 1][0] - rows[first][0] <= _RUN_MAX_BYTES
            ):
                last += 1
            start, end = rows[first][0], rows[last][0] + rows[last][1]
            data = os.pread(self.fd, end - start, start)
            if len(data) < end - start:
                raise FrameBroken(f"{self.path.name} ends before byte {end}")
            chunk.take(memoryview(data), rows[first : last + 1], segment=self.number, start=start)
            first = last + 1

    def seal(self) -> None:
        """Write the index to disk for good, when the segment takes no more (fsynced)."""
        rows = bytes(self._rows)
        seal = _SEAL.pack(_SEAL_MAGIC, self._count, self.end, zlib.crc32(rows), 0)
        path = index_path(self.folder, self.number)
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(rows + seal)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)

    def close(self) -> None:
        """Release the file; rows that a reader is looking at stay readable."""
        if not self.closed:
            self.closed = True
            os.close(self.fd)
            if isinstance(self._rows, mmap.mmap):
                mapped, self._rows = self._rows, bytes(self._rows)[: self._count * ROW_BYTES]
                mapped.close()


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment's file."""
    return folder / f"{number:08x}.seg"


def index_path(folder: Path, number: int) -> Path:
    """Return the path of a segment's sealed index."""
    return folder / f"{number:08x}.idx"


def open_sealed(folder: Path, number: int) -> Segment:
    """Open a segment that takes no more; rebuild its index when that is missing or damaged.

    Raises:
        StoreCorrupt: the segment itself is damaged.
    """
    fd = os.open(segment_path(folder, number), os.O_RDONLY | os.O_CLOEXEC)
    path = index_path(folder, number)
    try:
        with path.open("rb") as file:
            rows = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        rows = None
    if rows is not None and len(rows) >= _SEAL.size and len(rows) % ROW_BYTES == 0:
        magic, count, end, crc, _ = _SEAL.unpack_from(rows, len(rows) - _SEAL.size)
        body = len(rows) - _SEAL.size
        if magic == _SEAL_MAGIC and count * ROW_BYTES == body and zlib.crc32(memoryview(rows)[:body]) == crc:
            return Segment(folder, number, fd=fd, rows=rows, end=end)
    try:
        found, end, torn = recover(fd, folder=folder, number=number)
        if torn:
            raise StoreCorrupt(f"{segment_path(folder, number).name} ends in a damaged frame at byte {end}")
    except BaseException:
        os.close(fd)
        raise
    segment = Segment(folder, number, fd=fd, rows=found, end=end)
    segment.seal()
    return segment


def recover(fd: int, *, folder: Path, number: int) -> tuple[bytearray, int, bool]:
    """Read a segment frame by frame; return its index rows, its end, and whether a torn tail follows.

    Damage below a synced end that a later commit group recorded is corruption; above it is a torn tail.

    Raises:
        StoreCorrupt: with file, offset and what to do.
    """
    name = segment_path(folder, number).name
    size = os.fstat(fd).st_size
    rows = bytearray()
    if size < FILE_HEADER_BYTES:
        return rows, FILE_HEADER_BYTES, size > 0
    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as mapped:
        magic, stored, _, _ = FILE_HEADER.unpack_from(mapped)
        if magic == b"\0" * 8 and not any(mapped[FILE_HEADER_BYTES : FILE_HEADER_BYTES + HEADER_BYTES]):
            return rows, FILE_HEADER_BYTES, True
        if magic != FILE_MAGIC or stored != number:
            raise StoreCorrupt(f"{name} is no journal segment {number:08x}; run `bridge doctor`")
        view = memoryview(mapped)
        try:
            offset = FILE_HEADER_BYTES
            while offset < size:
                try:
                    frame = decode(view[offset:], segment=number, offset=offset)
                except FrameBroken:
                    break
                rows += frame.row(offset)
                offset += frame.length
            later = _later_frame(mapped, view, number=number, after=offset)
            if later is not None and later.synced_end > offset:
                raise StoreCorrupt(
                    f"{name} is damaged at byte {offset}, below its synced end {later.synced_end}; run `bridge doctor`"
                )
            torn = bool(mapped[offset:].strip(b"\0"))
        finally:
            view.release()
    return rows, offset, torn


def _later_frame(mapped: mmap.mmap, view: memoryview, *, number: int, after: int) -> Frame | None:
    """Return the last valid frame of this segment behind a damaged place."""
    found: Frame | None = None
    magic = MAGIC.to_bytes(4, "little")
    at = mapped.find(magic, after)
    while at >= 0:
        try:
            found = decode(view[at:], segment=number, offset=at)
            at = mapped.find(magic, at + found.length)
        except FrameBroken:
            at = mapped.find(magic, at + 1)
    return found
