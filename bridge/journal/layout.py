"""The journal's files: names, headers, the index beside a sealed segment, and how each is recovered."""

import contextlib
import mmap
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.core.errors import StoreCorrupt
from bridge.journal.disk import Disk
from bridge.journal.frames import FLAG_EVENT, MAGIC, ROW, ROW_BYTES, FrameBroken, Head, check, place_seed, row_of

_FILE_HEADER: Final = struct.Struct("<8sII8sQ28xI")
"""magic, segment number, format, salt, newest ms of the journal when it was made, crc; 64 bytes."""
FILE_HEADER_BYTES: Final = _FILE_HEADER.size
_FILE_MAGIC: Final = b"BRIDGEJ1"
_FORMAT: Final = 1
_SEAL: Final = struct.Struct("<8sIIIIQQIII")
"""magic, number, seed, rows, end offset, first and newest ms, lanes, crc of rows and lanes, crc of this."""
_SEAL_MAGIC: Final = b"BRIDGEX1"
_LANES_MAX: Final = 4096
_LANES_UNKNOWN: Final = 0xFFFF_FFFF
_MARK: Final = struct.Struct("<8sIIII")
"""magic, segment number, seed, synced end, crc: written when the journal is closed in peace."""
_MARK_MAGIC: Final = b"BRIDGEC1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What is known of a segment without its rows."""

    number: int
    seed: int
    count: int = 0
    end: int = FILE_HEADER_BYTES
    first_ms: int = 0
    newest_ms: int = 0
    lanes: frozenset[int] | None = frozenset()
    """Hashes of the functions that have events here; None: too many to keep."""


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment's file."""
    return folder / f"{number:08x}.seg"


def index_path(segment: Path) -> Path:
    """Return the path of the index beside a sealed segment's file."""
    return segment.with_suffix(".idx")


# --- headers ----------------------------------------------------------------------------------


def file_header(number: int, *, salt: bytes, newest_ms: int) -> bytes:
    """Return the first bytes of a segment."""
    header = _FILE_HEADER.pack(_FILE_MAGIC, number, _FORMAT, salt, newest_ms, 0)[:-4]
    return header + struct.pack("<I", zlib.crc32(header))


def read_header(data: bytes | mmap.mmap, *, name: str, number: int) -> tuple[int, int] | None:
    """Return (seed, newest ms before it) of a segment; None when its header was never written.

    Raises:
        StoreCorrupt: something else lies there.
    """
    head = data[:FILE_HEADER_BYTES]
    if len(head) < FILE_HEADER_BYTES or not any(head):
        return None
    magic, stored, version, salt, newest_ms, crc = _FILE_HEADER.unpack(head)
    if magic != _FILE_MAGIC or stored != number or crc != zlib.crc32(head[:-4]):
        raise StoreCorrupt(f"{name} is no journal segment {number:08x}; run `bridge doctor`")
    if version != _FORMAT:
        raise StoreCorrupt(f"{name} has format {version}, written by another release; this one reads {_FORMAT}")
    return place_seed(number, salt), newest_ms


# --- the index of a sealed segment --------------------------------------------------------------


def write_index(path: Path, seal: Seal, rows: bytes, *, disk: Disk) -> None:
    """Write the index beside a segment's file: rows, lanes, seal."""
    lanes = b"" if seal.lanes is None else struct.pack(f"<{len(seal.lanes)}I", *sorted(seal.lanes))
    is_known = seal.lanes is not None and len(seal.lanes) <= _LANES_MAX
    if not is_known:
        lanes = b""
    crc = zlib.crc32(lanes, zlib.crc32(rows))
    body = _SEAL.pack(
        _SEAL_MAGIC, seal.number, seal.seed, seal.count, seal.end, seal.first_ms, seal.newest_ms,
        len(lanes) // 4 if is_known else _LANES_UNKNOWN, crc, 0,
    )[:-4]  # fmt: skip
    disk.replace(index_path(path), b"".join((rows, lanes, body, struct.pack("<I", zlib.crc32(body)))))


def read_seal(path: Path) -> Seal | None:
    """Return the seal of a segment from the end of its index; None when that is missing or damaged."""
    try:
        with index_path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _SEAL.size))
            data = file.read()
            if len(data) < _SEAL.size:
                return None
            magic, number, seed, count, end, first_ms, newest_ms, lanes_n, _, crc = _SEAL.unpack(data)
            known = 0 if lanes_n == _LANES_UNKNOWN else lanes_n
            is_whole = size == count * ROW_BYTES + known * 4 + _SEAL.size and path.stat().st_size >= end
            if magic != _SEAL_MAGIC or crc != zlib.crc32(data[:-4]) or not is_whole:
                return None
            file.seek(count * ROW_BYTES)
            lanes = struct.unpack(f"<{known}I", file.read(known * 4))
    except OSError:
        return None
    return Seal(
        number=number,
        seed=seed,
        count=count,
        end=end,
        first_ms=first_ms,
        newest_ms=newest_ms,
        lanes=None if lanes_n == _LANES_UNKNOWN else frozenset(lanes),
    )


def load_index(path: Path) -> bytes:
    """Return the index rows of a sealed segment, read again from the segment where the index is damaged.

    Raises:
        FileNotFoundError: retention took the segment.
        StoreCorrupt: the segment is damaged too.
    """
    with contextlib.suppress(FileNotFoundError):
        data = index_path(path).read_bytes()
        if len(data) >= _SEAL.size:
            _, _, _, count, _, _, _, _, crc, _ = _SEAL.unpack_from(data, len(data) - _SEAL.size)
            if zlib.crc32(memoryview(data)[: -_SEAL.size]) == crc:
                return data[: count * ROW_BYTES]
    return bytes(recover(path, number=int(path.stem, 16)).rows)


# --- the mark of a clean close --------------------------------------------------------------------


def write_mark(folder: Path, *, number: int, seed: int, end: int, disk: Disk) -> None:
    """Note how far the newest segment is synced: from then on damage below it is no torn tail."""
    body = _MARK.pack(_MARK_MAGIC, number, seed, end, 0)[:-4]
    disk.replace(folder / "closed", body + struct.pack("<I", zlib.crc32(body)))


def read_mark(folder: Path, number: int) -> tuple[int, int] | None:
    """Return (seed, synced end) of a segment at the last clean close; None when that was another one's."""
    try:
        data = (folder / "closed").read_bytes()
    except OSError:
        return None
    if len(data) != _MARK.size:
        return None
    magic, marked, seed, end, crc = _MARK.unpack(data)
    return (seed, end) if (magic, marked, crc) == (_MARK_MAGIC, number, zlib.crc32(data[:-4])) else None


# --- recovery ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a segment holds, read frame by frame."""

    seal: Seal
    rows: bytearray
    torn: bool
    """Bytes that are no frame lie behind its end."""
    has_header: bool


def recover(path: Path, *, number: int, floor: tuple[int, int] | None = None) -> Recovered:
    """Read a segment frame by frame.

    Damage below a synced end that a later commit group (or `floor`, the seed and end of a clean close)
    recorded is corruption; above it is a torn tail.

    Raises:
        StoreCorrupt: with file, offset and what to do.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if not size:
            return _nothing(number, is_torn=False, path=path, floor=floor)
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as mapped:
            header = read_header(mapped, name=path.name, number=number)
            if header is None:
                return _nothing(number, is_torn=True, path=path, floor=floor)
            seed, newest_ms = header
            with memoryview(mapped) as view:
                return _read_frames(mapped, view, path=path, number=number, seed=seed, newest_ms=newest_ms, floor=floor)
    finally:
        os.close(fd)


def _nothing(number: int, *, is_torn: bool, path: Path, floor: tuple[int, int] | None) -> Recovered:
    if floor is not None and floor[1] > FILE_HEADER_BYTES:
        raise StoreCorrupt(f"{path.name} lost its header, below its synced end {floor[1]}; run `bridge doctor`")
    return Recovered(seal=Seal(number=number, seed=0), rows=bytearray(), torn=is_torn, has_header=False)


def _read_frames(
    mapped: mmap.mmap,
    view: memoryview,
    *,
    path: Path,
    number: int,
    seed: int,
    newest_ms: int,
    floor: tuple[int, int] | None,
) -> Recovered:
    rows, lanes, first_ms, offset = bytearray(), set[int](), 0, FILE_HEADER_BYTES
    while True:
        with view[offset:] as rest:
            try:
                head = check(rest, seed=seed, offset=offset)
            except FrameBroken:
                break
            row = row_of(rest, head, offset=offset)
        rows += row
        _, _, newest_ms, function_hash, _, _, flags, _ = ROW.unpack(row)
        if flags & FLAG_EVENT:
            lanes.add(function_hash)
        first_ms = first_ms or newest_ms
        offset += head.length
    synced_end = _synced_end(mapped, view, seed=seed, after=offset)
    if floor is not None and floor[0] == seed:
        synced_end = max(synced_end, floor[1])
    if synced_end > offset:
        raise StoreCorrupt(
            f"{path.name} is damaged at byte {offset}, below its synced end {synced_end}; run `bridge doctor`"
        )
    seal = Seal(
        number=number,
        seed=seed,
        count=len(rows) // ROW_BYTES,
        end=offset,
        first_ms=first_ms,
        newest_ms=newest_ms,
        lanes=frozenset(lanes),
    )
    return Recovered(seal=seal, rows=rows, torn=_has_bytes(view, offset), has_header=True)


def _has_bytes(view: memoryview, offset: int) -> bool:
    """Tell whether anything but zeros lies behind an offset."""
    step, zeros = 1 << 20, bytes(1 << 20)
    return any(bytes(view[at : at + step]) != zeros[: len(view) - at] for at in range(offset, len(view), step))


def _synced_end(mapped: mmap.mmap, view: memoryview, *, seed: int, after: int) -> int:
    """Return the furthest synced end that a whole frame behind a damaged place recorded, 0 when none did."""
    synced_end = 0
    magic = MAGIC.to_bytes(4, "little")
    at = mapped.find(magic, after)
    while at >= 0:
        with view[at:] as rest:
            head: Head | None
            try:
                head = check(rest, seed=seed, offset=at)
            except FrameBroken:
                head = None
        if head is not None:
            synced_end = max(synced_end, head.synced_end)
        at = mapped.find(magic, at + (1 if head is None else head.length))
    return synced_end
