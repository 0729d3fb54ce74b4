"""How a record lies on disk: a checked frame in a segment, a fixed-size row in its index (pure)."""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias, overload

from bridge.core.errors import StoreError
from bridge.core.invocation import InvocationType
from bridge.core.record import Record

MAGIC: Final = 0x4A524231
HEADER: Final = struct.Struct("<IIQIIQIBBHHH16s")
"""magic, crc of all that follows it, position, frame length, previous synced end, received ms, payload length, type,
reserved, source, function and delivery id lengths, request id. The client context is what remains of the frame."""
HEADER_BYTES: Final = HEADER.size
_AFTER_CRC: Final = struct.Struct("<QIIQIBBHHH16s")
_CRC: Final = struct.Struct("<II")
_PLACE: Final = struct.Struct("<IIQ")

ROW: Final = struct.Struct("<IIQIIII16s")
"""offset, frame length, received ms, function hash, source hash, payload length, flags, request id."""
ROW_BYTES: Final = ROW.size
Row: TypeAlias = tuple[int, int, int, int, int, int, int, bytes]

FLAG_EVENT: Final = 1
"""An Event invocation: part of a lane."""
FLAG_DELIVERY: Final = 2
"""Has a delivery id."""

_TYPES: Final = (InvocationType.EVENT, InvocationType.REQUEST_RESPONSE, InvocationType.DRY_RUN)
_TYPE_NUMBERS: Final = {kind: number for number, kind in enumerate(_TYPES)}


@lru_cache(maxsize=4096)
def name_hash(name: str) -> int:
    """Return the 32-bit hash by which the index finds a name; a hit is checked against the record."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def id_bytes(request_id: str) -> bytes:
    """Return the 16 bytes of a UUID's text (uuid.UUID costs five times as much)."""
    return bytes.fromhex(request_id.replace("-", ""))


def id_text(raw: bytes) -> str:
    """Return the text of a UUID's 16 bytes."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=4096)
def _names(source: str, function: str) -> tuple[bytes, bytes, int, int]:
    return source.encode(), function.encode(), name_hash(function.partition(":")[0]), name_hash(source)


@lru_cache(maxsize=4096)
def _text(name: bytes) -> str:
    return name.decode()


def encode(record: Record, *, segment: int, offset: int, synced_end: int, received_ms: int) -> tuple[bytes, bytes]:
    """Return the frame and the index row of a record that will lie at `offset` of `segment`."""
    source, function, _, _ = _names(record.source, record.function)
    delivery, context, payload = record.delivery_id.encode(), record.client_context, record.payload
    raw_id = id_bytes(record.id)
    size = len(payload)
    length = HEADER_BYTES + len(source) + len(function) + len(delivery) + len(context) + size
    head = _AFTER_CRC.pack(
        segment << 32 | offset,
        length,
        synced_end,
        received_ms,
        size,
        _TYPE_NUMBERS[record.invocation_type],
        0,
        len(source),
        len(function),
        len(delivery),
        raw_id,
    )
    rest = b"".join((head, source, function, delivery, context, payload))
    row = _row(record, offset=offset, length=length, received_ms=received_ms)
    return _CRC.pack(MAGIC, zlib.crc32(rest)) + rest, row


def _row(record: Record, *, offset: int, length: int, received_ms: int) -> bytes:
    _, _, function_hash, source_hash = _names(record.source, record.function)
    flags = FLAG_EVENT if record.invocation_type is InvocationType.EVENT else 0
    if record.delivery_id:
        flags |= FLAG_DELIVERY
    return ROW.pack(
        offset, length, received_ms, function_hash, source_hash, len(record.payload), flags, id_bytes(record.id)
    )


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame."""

    record: Record
    length: int
    synced_end: int
    received_ms: int

    def row(self, offset: int) -> bytes:
        """Return its index row (used when an index is rebuilt)."""
        record = self.record
        return _row(record, offset=offset, length=self.length, received_ms=self.received_ms)


class FrameBroken(StoreError):
    """These bytes are no frame of this place."""


def decode(data: bytes | memoryview, *, segment: int, offset: int) -> Frame:
    """Return the frame that begins at the start of `data`.

    Raises:
        FrameBroken: bad magic, length, checksum, or a frame of another place (a recycled file).
    """
    if len(data) < HEADER_BYTES:
        raise FrameBroken("short header")
    (
        magic, crc, position, length, synced_end, received_ms, payload_n, kind, _, source_n, function_n, delivery_n,
        raw_id,
    ) = HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC or not HEADER_BYTES <= length <= len(data):
        raise FrameBroken("no frame")
    if position != segment << 32 | offset or zlib.crc32(data[8:length]) != crc:
        raise FrameBroken("wrong checksum, or a frame of another place")
    function_at = HEADER_BYTES + source_n
    delivery_at = function_at + function_n
    context_at = delivery_at + delivery_n
    payload_at = length - payload_n
    record = Record(
        id=id_text(raw_id),
        source=_text(bytes(data[HEADER_BYTES:function_at])),
        function=_text(bytes(data[function_at:delivery_at])),
        invocation_type=_TYPES[kind],
        received_at=received_ms / 1000,
        payload=bytes(data[payload_at:length]),
        client_context=bytes(data[context_at:payload_at]) if payload_at > context_at else b"",
        delivery_id=str(data[delivery_at:context_at], "utf-8") if context_at > delivery_at else "",
        position=position,
    )
    return Frame(record=record, length=length, synced_end=synced_end, received_ms=received_ms)


def frame_length(head: bytes | memoryview) -> int:
    """Return the length that a frame's header claims, 0 when there is no frame."""
    if len(head) < HEADER_BYTES or HEADER.unpack_from(head)[0] != MAGIC:
        return 0
    return int(HEADER.unpack_from(head)[3])


class Chunk(Sequence[Record]):
    """Records of one read as columns: a Record is made only for whom asks for one.

    `positions` and `payloads` (views into one buffer) are there at once, checked against their checksums.
    """

    __slots__ = ("_frames", "payloads", "positions")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.payloads: list[memoryview] = []
        self._frames: list[memoryview] = []

    def take(self, data: memoryview, rows: Iterable[Row], *, segment: int, start: int) -> None:
        """Add frames that lie in `data`, the bytes of a segment from `start` on.

        Raises:
            FrameBroken: a frame is damaged; the ones before it were added.
        """
        base = segment << 32
        for offset, length, _, _, _, size, _, _ in rows:
            at = offset - start
            end = at + length
            magic, crc, position = _PLACE.unpack_from(data, at)
            if magic != MAGIC or position != base | offset or zlib.crc32(data[at + 8 : end]) != crc:
                raise FrameBroken(f"wrong checksum at byte {offset}")
            self.positions.append(position)
            self.payloads.append(data[end - size : end])
            self._frames.append(data[at:end])

    def keep(self, wanted: Sequence[int]) -> None:
        """Keep only the records with those indices."""
        self.positions = [self.positions[i] for i in wanted]
        self.payloads = [self.payloads[i] for i in wanted]
        self._frames = [self._frames[i] for i in wanted]

    def reverse(self) -> None:
        """Turn the order round."""
        self.positions.reverse()
        self.payloads.reverse()
        self._frames.reverse()

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """Return a record, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = self.positions[index]
        return decode(self._frames[index], segment=position >> 32, offset=position & 0xFFFF_FFFF).record
