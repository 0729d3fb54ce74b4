"""Hold files: the unfinished events of segments that retention took, until their lanes have passed them."""

import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from bridge.core.errors import StoreCorrupt, StoreError, StoreFull
from bridge.core.invocation import InvocationType
from bridge.core.record import DamagedRecord, Record
from bridge.journal.disk import NO_SPACE, Disk
from bridge.journal.frames import FrameBroken, check, encode, id_bytes, id_text, place_seed, unpack
from bridge.journal.segment import Segment

log = structlog.get_logger("bridge.journal")

_PREFIX: Final = struct.Struct("<Q")
"""Journal position, before each frame; the frame's own place is its place in the hold file."""


class Held(NamedTuple):
    """Where a held event lies."""

    position: int
    path: Path
    offset: int
    length: int
    lane: str
    payload_bytes: int
    raw_id: bytes
    received_at: float
    source: str
    is_event: bool
    """Part of the source's stream, too."""


class Holds:
    """Few events, whole in files; their places in memory. `keep` may run in a thread, the rest is the loop's."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._held: dict[int, Held] = {}
        self._order: list[int] = []
        """Positions, ascending."""

    def __len__(self) -> int:
        return len(self._held)

    def open(self) -> None:
        """Read what is held; an unfinished file (never renamed) goes: its segment is still there.

        Raises:
            StoreCorrupt: a hold file is damaged.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for leftover in self._folder.glob("*.new"):
            leftover.unlink()
        self._held.clear()
        self._order.clear()
        for path in sorted(self._folder.glob("*.hold")):
            self.show(_scan(path))

    def keep(self, segment: Segment, positions: Iterable[int]) -> list[Held]:
        """Copy events of a segment to a hold file, synced, before the segment goes; blocks.

        Readers do not see them until `show`.

        Raises:
            StoreFull: no space; StoreError: the file could not be written.
            StoreCorrupt: an event is damaged.
        """
        path = self._folder / f"{segment.number:08x}.hold"
        seed, parts, at = place_seed(segment.number), list[bytes](), 0
        for position in positions:
            record = segment.read(position & 0xFFFF_FFFF)
            if record is None:
                continue
            if isinstance(record, DamagedRecord):
                raise StoreCorrupt(record.damage)  # a new checksum would call it sound
            at += _PREFIX.size
            received_ms = round(record.received_at * 1000)
            head, length, _ = encode(record, seed, at, 0, received_ms)
            parts += (_PREFIX.pack(position), head, record.payload)
            at += length
        if not parts:
            return []
        try:
            self._disk.replace(path, b"".join(parts))
            self._disk.sync_folder(self._folder)
        except OSError as error:
            kind = StoreFull if error.errno in NO_SPACE else StoreError
            raise kind(f"unfinished events could not be put aside: {error.strerror}") from error
        return _scan(path)

    def show(self, held: Sequence[Held]) -> None:
        """Let readers find these events: their segment is gone, or about to go unseen."""
        fresh = [entry.position for entry in held if entry.position not in self._held]
        self._held |= {entry.position: entry for entry in held}
        self._order = sorted((*self._order, *fresh))  # anew: a thread may be walking the old one

    def read(self, position: int) -> Record | None:
        """Return a held record; None when it is not held. One that was damaged since the start says so."""
        entry = self._held.get(position)
        if entry is None:
            return None
        try:
            with entry.path.open("rb") as file:
                data = os.pread(file.fileno(), entry.length, entry.offset)
            check(data, seed=place_seed(position >> 32), offset=entry.offset)
        except FileNotFoundError:
            return None
        except FrameBroken as error:
            damage = str(_damage(entry.path, entry.offset))
            log.error("record_unreadable", position=position, error=damage, reason=str(error))  # noqa: TRY400 - a line
            return DamagedRecord(
                id=id_text(entry.raw_id),
                source=entry.source,
                function=entry.lane,
                invocation_type=InvocationType.EVENT,
                received_at=entry.received_at,
                payload=data[max(0, entry.length - entry.payload_bytes) :],
                position=position,
                damage=damage,
            )
        return unpack(data, position=position)

    def find(self, raw_id: bytes) -> Record | None:
        """Return a held record by the bytes of its id, the newest first."""
        for position in self._order[::-1]:
            entry = self._held.get(position)  # None: released while this thread looks
            if entry is not None and entry.raw_id == raw_id:
                return self.read(position)
        return None

    def positions(self, lane: str, *, after: int, below: int, limit: int) -> list[tuple[int, int]]:
        """Return (position, payload bytes) of a lane's held events above `after` and below `below`."""
        return self._places(lambda entry: entry.lane == lane, after=after, below=below, limit=limit)

    def source_positions(self, source: str, *, after: int, below: int, limit: int) -> list[tuple[int, int]]:
        """Return the same of a source's held events."""
        return self._places(
            lambda entry: entry.is_event and entry.source == source, after=after, below=below, limit=limit
        )

    def _places(
        self, is_wanted: Callable[[Held], bool], *, after: int, below: int, limit: int
    ) -> list[tuple[int, int]]:
        rows: list[tuple[int, int]] = []
        order = self._order
        for index in range(bisect_right(order, after), len(order)):
            position = order[index]
            entry = self._held.get(position)  # None: released while this thread looks
            if position >= below or len(rows) >= limit:
                break
            if entry is not None and is_wanted(entry):
                rows.append((position, entry.payload_bytes))
        return rows

    def release(self, still_unfinished: frozenset[int]) -> None:
        """Forget events that are finished, and delete files that hold none any more."""
        self._held = {position: entry for position, entry in self._held.items() if position in still_unfinished}
        self._order = sorted(self._held)
        needed = {entry.path for entry in self._held.values()}
        for path in self._folder.glob("*.hold"):
            if path not in needed:
                path.unlink(missing_ok=True)


def _scan(path: Path) -> list[Held]:
    """Return the places of a hold file's events."""
    data = memoryview(path.read_bytes())
    number, at, found = int(path.stem, 16), 0, list[Held]()
    while at < len(data):
        offset = at + _PREFIX.size
        try:
            head = check(data[offset:], seed=place_seed(number), offset=offset)
        except FrameBroken as error:
            raise _damage(path, at) from error
        (position,) = _PREFIX.unpack_from(data, at)
        record = unpack(data[offset:], position=position)
        found.append(
            Held(
                position, path, offset, head.length, record.lane, head.payload_n, id_bytes(record.id),
                record.received_at, record.source, record.invocation_type is InvocationType.EVENT,
            )
        )  # fmt: skip
        at = offset + head.length
    return found


def _damage(path: Path, offset: int) -> StoreCorrupt:
    return StoreCorrupt(f"hold/{path.name} is damaged at byte {offset}; run `bridge doctor`")
