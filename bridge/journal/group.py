"""A commit group: records placed and encoded on the loop, written and synced together by the writer."""

import asyncio
import os
from typing import Final

from bridge.core.invocation import InvocationType
from bridge.core.record import Record
from bridge.journal.files import OpenFile
from bridge.journal.frames import encode, lane_hash, place_seed
from bridge.journal.layout import FILE_HEADER_BYTES, file_header

_PART_MAX_BYTES: Final = 8 * 1024 * 1024
"""A part is one write and one sync: bounded, so that one buffer and one sync are."""

Waiting = asyncio.Future[Record] | None


class Part:
    """The records of a group that lie side by side in one segment: all of them become durable, or none."""

    __slots__ = (
        "begin",
        "end",
        "file",
        "functions",
        "header",
        "limit",
        "number",
        "pieces",
        "records",
        "rows",
        "seed",
        "waiting",
    )

    def __init__(self, *, number: int, seed: int, begin: int, limit: int) -> None:
        self.number = number
        self.seed = seed
        self.begin = begin
        """Byte offset of the first frame: the synced end that its frames record."""
        self.end = begin
        self.limit = limit
        """A record that would end behind it belongs to a following part."""
        self.header: bytes | None = None
        """The file header, when this part begins a new segment."""
        self.file: OpenFile | None = None
        """The new segment's file, once the writer made it."""
        self.pieces: list[bytes] = []
        """The frames: of each record its head, then its payload as it came, uncopied."""
        self.rows: list[bytes] = []
        self.records: list[Record] = []
        self.waiting: list[Waiting] = []
        """Who waits for each record; None for an archived one."""
        self.functions: set[str] = set()
        """Targets of the Event records."""

    def lanes(self) -> set[int]:
        """Return the hashes of the functions that have events here."""
        return {lane_hash(function) for function in self.functions}


class Group:
    """What becomes durable with the next sync (a few, where it crosses segments)."""

    __slots__ = ("archived", "archived_bytes", "parts")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.archived = 0
        self.archived_bytes = 0

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(part.end - part.begin for part in self.parts)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for one of the records."""
        return sum(len(part.records) for part in self.parts) > self.archived


class Tail:
    """Where the next record goes, supposing that what was handed over becomes durable. Used on the loop only."""

    def __init__(self, *, number: int, seed: int, end: int, newest_ms: int, segment_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._newest_ms = newest_ms
        self.group = Group()
        self.rewind(number=number, seed=seed, end=end)

    def rewind(self, *, number: int, seed: int, end: int) -> None:
        """Go back to what is durable: a group failed, and what gathered behind it was placed in vain."""
        self.group = Group()
        self._part = self._part_at(number, seed, end)

    def take(self) -> Group:
        """Return what gathered, and begin the next group behind it."""
        group, self.group = self.group, Group()
        self._part = self._part_at(self._part.number, self._part.seed, self._part.end)
        return group

    def add(self, record: Record, waiting: Waiting) -> None:
        """Place a record, encode it, and put it into the gathering group.

        Raises:
            ValueError: the record cannot be written; nothing has changed.
        """
        part = self._part
        received_ms = round(record.received_at * 1000)
        if received_ms < self._newest_ms:  # noqa: PLR1730 - half the cost of max(), for each event
            received_ms = self._newest_ms
        offset = part.end
        head, size, row = encode(record, part.seed, offset, part.begin, received_ms)
        if offset + size > part.limit and (following := self._following(part, size)) is not part:
            part, offset = following, following.end
            head, size, row = encode(record, part.seed, offset, part.begin, received_ms)
        if not part.rows:
            self._part = part
            self.group.parts.append(part)
        part.pieces += (head, record.payload)
        part.rows.append(row)
        part.records.append(_placed(record, received_ms / 1000, part.number << 32 | offset))
        part.waiting.append(waiting)
        if record.invocation_type is InvocationType.EVENT:
            part.functions.add(record.function)
        part.end = offset + size
        self._newest_ms = received_ms
        if waiting is None:
            self.group.archived += 1
            self.group.archived_bytes += size

    def _part_at(self, number: int, seed: int, end: int) -> Part:
        limit = min(self._segment_bytes, end + _PART_MAX_BYTES)
        return Part(number=number, seed=seed, begin=end, limit=limit)

    def _following(self, part: Part, size: int) -> Part:
        """Return the part for a record that this one has no room for: behind it, or in a new segment."""
        if part.end == FILE_HEADER_BYTES:
            return part  # a record larger than a segment has one to itself
        if part.end + size <= self._segment_bytes:
            return self._part_at(part.number, part.seed, part.end) if part.rows else part
        number, salt = part.number + 1, os.urandom(8)
        begun = self._part_at(number, place_seed(number, salt), FILE_HEADER_BYTES)
        begun.header = file_header(number, salt=salt, newest_ms=self._newest_ms)
        return begun


_new = object.__new__
_FIELDS: Final = ("id", "source", "function", "invocation_type", "payload", "client_context", "delivery_id", "key")
(
    _set_id,
    _set_source,
    _set_function,
    _set_type,
    _set_payload,
    _set_context,
    _set_delivery,
    _set_key,
    _set_at,
    _set_position,
) = (Record.__dict__[name].__set__ for name in (*_FIELDS, "received_at", "position"))


def _placed(record: Record, received_at: float, position: int) -> Record:
    """Return a copy with its time and place: dataclasses.replace at a third of its cost, on the hottest path."""
    placed = _new(Record)
    _set_id(placed, record.id)
    _set_source(placed, record.source)
    _set_function(placed, record.function)
    _set_type(placed, record.invocation_type)
    _set_payload(placed, record.payload)
    _set_context(placed, record.client_context)
    _set_delivery(placed, record.delivery_id)
    _set_key(placed, record.key)
    _set_at(placed, received_at)
    _set_position(placed, position)
    return placed
