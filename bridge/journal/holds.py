"""Hold files: the unfinished events of segments that retention took, until their lanes have passed them."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bridge.core.record import Record
from bridge.journal.disk import Disk
from bridge.journal.frames import FrameBroken, decode, encode, frame_length
from bridge.journal.segment import Segment

_PREFIX: Final = struct.Struct("<Q")


class Holds:
    """Few events, whole in files, their places in memory: position -> (file, place, lane, payload bytes)."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._places: dict[int, tuple[Path, int, str, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def open(self) -> None:
        """Read what is held; an unfinished file (no rename) is ignored: its segment is still there."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for leftover in self._folder.glob("*.new"):
            leftover.unlink()
        for path in sorted(self._folder.glob("*.hold")):
            self._index(path)

    def _index(self, path: Path) -> None:
        data = path.read_bytes()
        at = 0
        while at + _PREFIX.size < len(data):
            (position,) = _PREFIX.unpack_from(data, at)
            body = at + _PREFIX.size
            frame = decode(data[body:], segment=position >> 32, offset=position & 0xFFFF_FFFF)
            self._places[position] = (path, body, frame.record.lane, len(frame.record.payload))
            at = body + frame.length

    def keep(self, segment: Segment, positions: Iterable[int]) -> None:
        """Copy unfinished events of a segment to a hold file, fsynced, before the segment goes."""
        path = self._folder / f"{segment.number:08x}.hold"
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            for position in positions:
                offset = position & 0xFFFF_FFFF
                record = segment.read(offset)
                frame, _ = encode(
                    record,
                    segment=segment.number,
                    offset=offset,
                    synced_end=0,
                    received_ms=round(record.received_at * 1000),
                )
                file.write(_PREFIX.pack(position) + frame)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        self._disk.sync_folder(self._folder)
        self._index(path)

    def read(self, position: int) -> Record | None:
        """Return a held record."""
        place = self._places.get(position)
        if place is None:
            return None
        path, at, _, _ = place
        try:
            with path.open("rb") as file:
                file.seek(at)
                data = file.read(8192)
                length = frame_length(data)
                if length > len(data):
                    data += file.read(length - len(data))
            return decode(data, segment=position >> 32, offset=position & 0xFFFF_FFFF).record
        except (OSError, FrameBroken):
            return None

    def find(self, request_id: str) -> Record | None:
        """Return a held record by id."""
        for position in reversed(self._places):
            record = self.read(position)
            if record is not None and record.id == request_id:
                return record
        return None

    def positions(self, lane: str, *, after: int, limit: int) -> list[tuple[int, int]]:
        """Return (position, payload bytes) of a lane's held events above `after`."""
        rows = sorted((p, size) for p, (_, _, name, size) in self._places.items() if name == lane and p > after)
        return rows[:limit]

    def release(self, still_unfinished: frozenset[int]) -> None:
        """Forget events that are finished, and delete files that hold none any more."""
        for position in [p for p in self._places if p not in still_unfinished]:
            del self._places[position]
        needed = {path for path, _, _, _ in self._places.values()}
        for path in self._folder.glob("*.hold"):
            if path not in needed:
                path.unlink(missing_ok=True)
