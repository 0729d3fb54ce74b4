"""One segment for its readers: where its records lie, by its index, and their bytes, checked."""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bridge.core.record import DamagedRecord, Record
from bridge.journal.files import Files, OpenFile
from bridge.journal.frames import (
    FLAG_EVENT,
    ROW,
    ROW_BYTES,
    ROW_FUNCTION_AT,
    ROW_ID_AT,
    ROW_SOURCE_AT,
    SPAN,
    FrameBroken,
    Row,
    Span,
    check,
    damaged_frames,
    frame_length,
    salvage,
    unpack,
)
from bridge.journal.layout import Seal, load_index, segment_path

_READ_BYTES: Final = 4096
_READ_MAX_BYTES: Final = 1024 * 1024
_GAP_MAX_BYTES: Final = 16 * 1024
"""Two frames this near to each other are read with one call."""
_BLOCK_ROWS: Final = 4096
DAMAGED_MAX: Final = 1000


class Segment:
    """A segment's synced records, in order of offset.

    The active segment keeps its index rows in memory; a sealed one reads them through a bounded cache. One
    thread extends it; any thread reads.
    """

    def __init__(self, folder: Path, seal: Seal, *, files: Files, live: tuple[bytearray, OpenFile] | None) -> None:
        self.path = segment_path(folder, seal.number)
        self.number = seal.number
        self.seed = seal.seed
        self.count = seal.count
        """Synced records."""
        self.end = seal.end
        """Byte offset behind the last synced frame."""
        self.first_ms = seal.first_ms
        self.newest_ms = seal.newest_ms
        """received_at of the first and the last record, epoch ms; 0 when there is none."""
        self.damaged: set[int] = set()
        """Byte offsets of records that readers found damaged, at most DAMAGED_MAX."""
        self._lanes = seal.lanes
        self._files = files
        self._live = live

    @property
    def is_live(self) -> bool:
        """True while its index is kept in memory."""
        return self._live is not None

    @property
    def base(self) -> int:
        """Journal position of the segment's first byte."""
        return self.number << 32

    @property
    def file(self) -> OpenFile:
        """The open file; keep the reference while its descriptor is used."""
        live = self._live
        return self._files.open(self.path) if live is None else live[1]

    def _rows(self) -> bytes | bytearray:
        live = self._live
        if live is not None:
            return live[0]
        return self._files.index(self.path, lambda: load_index(self.path))

    def extend(self, rows: bytes, *, end: int, newest_ms: int, lanes: set[int]) -> None:
        """Show readers what has just been synced."""
        assert self._live is not None
        if not self.count:
            self.first_ms = ROW.unpack_from(rows)[2]
        self._live[0].extend(rows)
        if self._lanes is not None:
            self._lanes = self._lanes | lanes
        self.newest_ms = newest_ms
        self.end = end
        self.count += len(rows) // ROW_BYTES

    def describe(self) -> tuple[Seal, bytes]:
        """Return what its index file says and holds, once it takes no more."""
        assert self._live is not None
        seal = Seal(
            number=self.number,
            seed=self.seed,
            count=self.count,
            end=self.end,
            first_ms=self.first_ms,
            newest_ms=self.newest_ms,
            lanes=self._lanes,
        )
        return seal, bytes(self._live[0])

    def sealed(self) -> None:
        """Its index is on disk now: let go of the copy in memory."""
        self._live = None

    # --- the index ----------------------------------------------------------------------------

    def first_after(self, offset: int) -> int:
        """Return the number of the first row above a byte offset."""
        rows = self._rows()
        return bisect_right(range(self.count), offset, key=lambda i: ROW.unpack_from(rows, i * ROW_BYTES)[0])

    def first_since(self, received_ms: int) -> int:
        """Return the number of the first row received at that time or later (times never go backwards)."""
        if received_ms <= self.first_ms:
            return 0
        if received_ms > self.newest_ms:
            return self.count
        rows = self._rows()
        return bisect_right(range(self.count), received_ms - 1, key=lambda i: ROW.unpack_from(rows, i * ROW_BYTES)[2])

    def rows(self, begin: int, end: int, *, reverse: bool = False) -> Iterator[Row]:
        """Iterate over the index rows [begin, end) of those synced now."""
        rows, end = self._rows(), min(end, self.count)
        for block in range(begin, end, _BLOCK_ROWS):
            if reverse:
                low, high = max(begin, end - (block - begin) - _BLOCK_ROWS), end - (block - begin)
                yield from reversed(list(ROW.iter_unpack(rows[low * ROW_BYTES : high * ROW_BYTES])))
            else:
                high = min(end, block + _BLOCK_ROWS)
                yield from ROW.iter_unpack(rows[block * ROW_BYTES : high * ROW_BYTES])

    def spans(self, begin: int, end: int) -> list[Span]:
        """Return (offset, frame length, payload length) of the index rows [begin, end)."""
        return list(SPAN.iter_unpack(self._rows()[begin * ROW_BYTES : end * ROW_BYTES]))

    def has_lane(self, wanted: int) -> bool:
        """Tell whether a lane may have events here, by its hash (True when that is not known)."""
        return self._lanes is None or wanted in self._lanes

    def lane_rows(self, wanted: int, *, after: int) -> Iterator[Row]:
        """Iterate over the rows of a lane's events above a byte offset (a hash: check what hangs on it)."""
        return self._event_rows(wanted, ROW_FUNCTION_AT, after=after) if self.has_lane(wanted) else iter(())

    def source_rows(self, wanted: int, *, after: int, is_archive: bool = False) -> Iterator[Row]:
        """Iterate over the rows of a source's events above a byte offset (a hash: check what hangs on it)."""
        return self._event_rows(wanted, ROW_SOURCE_AT, after=after, flags=0 if is_archive else FLAG_EVENT)

    def _event_rows(self, wanted: int, wanted_at: int, *, after: int, flags: int = FLAG_EVENT) -> Iterator[Row]:
        needle = wanted.to_bytes(4, "little")
        rows, end = self._rows(), self.count * ROW_BYTES
        at = self.first_after(after) * ROW_BYTES
        while (at := rows.find(needle, at, end)) >= 0:
            begin, column = at - at % ROW_BYTES, at % ROW_BYTES
            if column == wanted_at:
                row: Row = ROW.unpack_from(rows, begin)
                if row[6] & flags == flags:
                    yield row
            # The next place at which the column can stand.
            at = begin + wanted_at + (ROW_BYTES if column >= wanted_at else 0)

    def find(self, raw_id: bytes) -> int | None:
        """Return the offset of the newest record with that id."""
        rows = self._rows()
        at = self.count * ROW_BYTES
        while (at := rows.rfind(raw_id, 0, at)) >= 0:
            if at % ROW_BYTES == ROW_ID_AT:
                return int(ROW.unpack_from(rows, at - ROW_ID_AT)[0])
            at += len(raw_id) - 1
        return None

    def row(self, offset: int) -> Row | None:
        """Return the row of the synced record that begins at that byte, None when none begins there."""
        rows, at = self._rows(), self.first_after(offset - 1)
        found: Row | None = ROW.unpack_from(rows, at * ROW_BYTES) if at < self.count else None
        return found if found is not None and found[0] == offset else None

    # --- the bytes ----------------------------------------------------------------------------

    def read(self, offset: int) -> Record | None:
        """Return the record that begins at a byte offset, None when none begins there; a damaged one says so.

        Raises:
            FileNotFoundError: retention took the segment meanwhile.
        """
        file = self.file
        data = os.pread(file.fd, _READ_BYTES, offset)
        length = frame_length(data)
        if len(data) < length <= self.end - offset:
            data += os.pread(file.fd, length - len(data), offset + len(data))
        try:
            check(data, seed=self.seed, offset=offset)
        except FrameBroken:
            return self.salvage(offset)
        return unpack(data, position=self.base | offset)

    def salvage(self, offset: int) -> DamagedRecord | None:
        """Return what is left of the damaged record that begins at a byte offset, None when none begins there.

        Raises:
            FileNotFoundError: retention took the segment meanwhile.
        """
        row = self.row(offset)
        if row is None:
            return None
        self._note([offset])
        damage = f"{self.path.name} is damaged at byte {offset}; run `bridge doctor`"
        return salvage(os.pread(self.file.fd, row[1], offset), row, position=self.base | offset, damage=damage)

    def load(self, spans: Sequence[Span]) -> tuple[list[tuple[memoryview, int]], list[int]]:
        """Read the frames at `spans`, in rising order, neighbours with one call.

        Returns:
            for each span what was read and the byte offset at which that begins; the numbers of damaged spans.
        """
        file, found, damaged = self.file, list[tuple[memoryview, int]](), list[int]()
        at = 0
        while at < len(spans):
            begin, end = spans[at][0], spans[at][0] + spans[at][1]
            last = at + 1
            while last < len(spans) and spans[last][0] - end <= _GAP_MAX_BYTES and end - begin < _READ_MAX_BYTES:
                end = spans[last][0] + spans[last][1]
                last += 1
            view = memoryview(os.pread(file.fd, end - begin, begin))
            damaged += [at + number for number in damaged_frames(view, begin, spans[at:last], self.seed)]
            found += [(view, begin)] * (last - at)
            at = last
        if damaged:
            self._note([spans[number][0] for number in damaged])
        return found, damaged

    def _note(self, offsets: Sequence[int]) -> None:
        self.damaged = self.damaged | set(offsets[: DAMAGED_MAX - len(self.damaged)])
