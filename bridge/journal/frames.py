"""How a record lies on disk: a checked frame in a segment, a fixed-size row in its index (pure)."""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bridge.core.errors import StoreError
from bridge.core.invocation import InvocationType
from bridge.core.record import Record

MAGIC: Final = 0x4A524231
HEADER: Final = struct.Struct("<IIIIQIBBHHH16s")
"""magic, crc, frame length, previous synced end, received ms, payload length, type, reserved,
source, function and delivery id lengths, request id. The client context is what remains of the frame."""
HEADER_BYTES: Final = HEADER.size
_AFTER_CRC: Final = struct.Struct("<IIQIBBHHH16s")
_PLACE: Final = struct.Struct("<II")
_CRC: Final = struct.Struct("<II")

ROW: Final = struct.Struct("<IIQIIII16s")
"""offset, frame length, received ms, function hash, source hash, payload length, flags, request id."""
ROW_BYTES: Final = ROW.size

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


def encode(record: Record, *, segment: int, offset: int, synced_end: int, received_ms: int) -> tuple[bytes, bytes]:
    """Return the frame and the index row of a record that will lie at `offset` of `segment`."""
    source, function, function_hash, source_hash = _names(record.source, record.function)
    delivery, context, payload = record.delivery_id.encode(), record.client_context, record.payload
    raw_id = id_bytes(record.id)
    length = HEADER_BYTES + len(source) + len(function) + len(delivery) + len(context) + len(payload)
    rest = b"".join((
        _AFTER_CRC.pack(
            length,
            synced_end,
            received_ms,
            len(payload),
            _TYPE_NUMBERS[record.invocation_type],
            0,
            len(source),
            len(function),
            len(delivery),
            raw_id,
        ),
        source,
        function,
        delivery,
        context,
        payload,
    ))  # fmt: skip
    crc = zlib.crc32(rest, zlib.crc32(_PLACE.pack(segment, offset)))
    flags = (FLAG_EVENT if record.invocation_type is InvocationType.EVENT else 0) | (FLAG_DELIVERY if delivery else 0)
    row = ROW.pack(offset, length, received_ms, function_hash, source_hash, len(payload), flags, raw_id)
    return _CRC.pack(MAGIC, crc) + rest, row


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
        flags = (FLAG_EVENT if record.invocation_type is InvocationType.EVENT else 0) | (
            FLAG_DELIVERY if record.delivery_id else 0
        )
        return ROW.pack(
            offset,
            self.length,
            self.received_ms,
            name_hash(record.function.partition(":")[0]),
            name_hash(record.source),
            len(record.payload),
            flags,
            id_bytes(record.id),
        )


class FrameBroken(StoreError):
    """These bytes are no frame of this place."""


def decode(data: bytes | memoryview, *, segment: int, offset: int) -> Frame:
    """Return the frame that begins at the start of `data`.

    Raises:
        FrameBroken: bad magic, length, checksum, or a frame of another place (a recycled file).
    """
    if len(data) < HEADER_BYTES:
        raise FrameBroken("short header")
    magic, crc, length, synced_end, received_ms, payload_n, kind, _, source_n, function_n, delivery_n, raw_id = (
        HEADER.unpack_from(data)
    )
    if magic != MAGIC or not HEADER_BYTES <= length <= len(data):
        raise FrameBroken("no frame")
    if zlib.crc32(data[8:length], zlib.crc32(_PLACE.pack(segment, offset))) != crc:
        raise FrameBroken("wrong checksum")
    function_at = HEADER_BYTES + source_n
    delivery_at = function_at + function_n
    context_at = delivery_at + delivery_n
    payload_at = length - payload_n
    record = Record(
        id=id_text(raw_id),
        source=str(data[HEADER_BYTES:function_at], "utf-8"),
        function=str(data[function_at:delivery_at], "utf-8"),
        invocation_type=_TYPES[kind],
        received_at=received_ms / 1000,
        payload=bytes(data[payload_at:length]),
        client_context=bytes(data[context_at:payload_at]),
        delivery_id=str(data[delivery_at:context_at], "utf-8"),
        position=segment << 32 | offset,
    )
    return Frame(record=record, length=length, synced_end=synced_end, received_ms=received_ms)


def frame_length(head: bytes | memoryview) -> int:
    """Return the length that a frame's header claims, 0 when there is no frame."""
    if len(head) < HEADER_BYTES or HEADER.unpack_from(head)[0] != MAGIC:
        return 0
    return int(HEADER.unpack_from(head)[2])
