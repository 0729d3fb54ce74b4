"""How a record lies on disk: a checked frame in a segment, a fixed-size row in its index (pure)."""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from bridge.core.errors import StoreError
from bridge.core.invocation import InvocationType
from bridge.core.record import DamagedRecord, Record

MAGIC: Final = 0x4A524231
_CRC: Final = struct.Struct("<II")
"""magic, crc of everything behind it; the checksum begins with the frame's place."""
_BODY: Final = struct.Struct("<IIQIBBHHH16s")
"""frame length, previous synced end, received ms, payload length, invocation type, lengths of key, source, function and
delivery id, request id; then source, function, delivery id and key, then the client context (what remains), then the
payload. A journal from before there were keys has a zero in the place of their length."""
_HEADER: Final = struct.Struct("<IIIIQIBBHHH16s")
_LEAD: Final = struct.Struct("<III")
CHECKED_FROM: Final = _CRC.size
HEADER_BYTES: Final = _HEADER.size

ROW: Final = struct.Struct("<IIQIIII16s")
"""offset, frame length, received ms, function hash, source hash, payload length, flags, request id."""
ROW_BYTES: Final = ROW.size
ROW_FUNCTION_AT: Final = 16
"""Byte of the function hash in a row."""
ROW_SOURCE_AT: Final = 20
"""Byte of the source hash in a row."""
ROW_ID_AT: Final = 32
"""Byte of the request id in a row."""
Row = tuple[int, int, int, int, int, int, int, bytes]
SPAN: Final = struct.Struct("<II16xI20x")
"""A row again, but only offset, frame length and payload length: what reading needs."""
Span = tuple[int, int, int]

FLAG_EVENT: Final = 1
"""An Event invocation: part of a lane."""
FLAG_DELIVERY: Final = 2
"""Has a delivery id."""

_TYPES: Final = (InvocationType.EVENT, InvocationType.REQUEST_RESPONSE, InvocationType.DRY_RUN)
_TYPE_NUMBERS: Final = {kind: number for number, kind in enumerate(_TYPES)}
_NAME_MAX_BYTES: Final = 0xFFFF
_KEY_MAX_BYTES: Final = 0xFF
ID_BYTES: Final = 16
_PLACE: Final = struct.Struct("<I8s")


class FrameBroken(StoreError):
    """These bytes are no frame of this place."""


class Head(NamedTuple):
    """A frame's checked header."""

    length: int
    synced_end: int
    received_ms: int
    payload_n: int
    kind: int
    key_n: int
    source_n: int
    function_n: int
    delivery_n: int
    raw_id: bytes


def place_seed(segment: int, salt: bytes = bytes(8)) -> int:
    """Return what the checksums of a segment begin with.

    `salt` is random and kept in the segment's header: a frame of another segment, or one that a sender wrote
    into a payload, never passes for a frame of this one.
    """
    return zlib.crc32(_PLACE.pack(segment, salt))


@lru_cache(maxsize=4096)
def name_hash(name: str) -> int:
    """Return the 32-bit hash by which the index finds a name; a hit is checked against the record."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def lane_hash(function: str) -> int:
    """Return the hash of a target's function name, without the qualifier."""
    return name_hash(function.partition(":")[0])


def id_bytes(request_id: str) -> bytes:
    """Return the 16 bytes of a UUID's text (uuid.UUID costs five times as much)."""
    return bytes.fromhex(request_id.replace("-", ""))


def id_text(raw: bytes) -> str:
    """Return the text of a UUID's 16 bytes."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=4096)
def _names(source: str, function: str) -> tuple[bytes, int, int, int, int]:
    """Return both names as bytes, their lengths and their hashes."""
    names = source.encode(), function.encode()
    if max(map(len, names)) > _NAME_MAX_BYTES:
        raise ValueError("a name of a record is longer than 65,535 bytes")
    return b"".join(names), len(names[0]), len(names[1]), lane_hash(function), name_hash(source)


@lru_cache(maxsize=4096)
def _name(raw: bytes) -> str:
    return raw.decode()


def encode(record: Record, seed: int, offset: int, synced_end: int, received_ms: int) -> tuple[bytes, int, bytes]:
    """Return a frame without its payload (which follows as it is), the whole length, and the index row.

    `offset` is the frame's place in its segment.

    Raises:
        ValueError: the id is no UUID, a name is longer than 65,535 bytes, or a key than 255.
    """
    names, source_n, function_n, function_hash, source_hash = _names(record.source, record.function)
    payload, context, key = record.payload, record.client_context, record.key
    payload_n, delivery_n, kind, flags = len(payload), 0, 0, FLAG_EVENT
    if record.invocation_type is not InvocationType.EVENT:
        kind, flags = _TYPE_NUMBERS[record.invocation_type], 0
    if record.delivery_id:
        delivery = record.delivery_id.encode()
        delivery_n, flags, names = len(delivery), flags | FLAG_DELIVERY, names + delivery
    key_n = 0
    if key:
        key_n, names = len(key), names + key
    if context:
        names += context
    raw_id = id_bytes(record.id)
    if len(raw_id) != ID_BYTES or delivery_n > _NAME_MAX_BYTES or key_n > _KEY_MAX_BYTES:
        raise ValueError("a record needs a UUID as its id, a delivery id of at most 65,535 bytes, a key of at most 255")
    length = HEADER_BYTES + len(names) + payload_n
    body = _BODY.pack(length, synced_end, received_ms, payload_n, kind, key_n, source_n, function_n, delivery_n, raw_id)
    checked = body + names
    crc = zlib.crc32(payload, zlib.crc32(checked, seed ^ offset))
    row = ROW.pack(offset, length, received_ms, function_hash, source_hash, payload_n, flags, raw_id)
    return _CRC.pack(MAGIC, crc) + checked, length, row


def frame_length(data: bytes | memoryview) -> int:
    """Return the length that a frame's header claims, 0 when there is no frame."""
    if len(data) < HEADER_BYTES:
        return 0
    magic, _, length = _LEAD.unpack_from(data)
    return int(length) if magic == MAGIC else 0


def check(data: bytes | memoryview, *, seed: int, offset: int) -> Head:
    """Return the header of the frame that begins at the start of `data`, once its checksum holds.

    Raises:
        FrameBroken: bad magic, length or checksum, or a frame of another place.
    """
    if len(data) < HEADER_BYTES:
        raise FrameBroken("short header")
    magic, crc, *fields = _HEADER.unpack_from(data)
    head = Head(*fields)
    if magic != MAGIC or not HEADER_BYTES <= head.length <= len(data):
        raise FrameBroken("no frame")
    if zlib.crc32(memoryview(data)[CHECKED_FROM : head.length], seed ^ offset) != crc:
        raise FrameBroken("wrong checksum")
    return head


def damaged_frames(view: memoryview, begin: int, spans: Sequence[Span], seed: int) -> list[int]:
    """Return which of `spans` are damaged, by their number; `view` is a segment's bytes from `begin` on.

    The scan's inner loop: `check`, without what a scan does not look at.
    """
    damaged, unpack_lead, crc32, available = list[int](), _LEAD.unpack_from, zlib.crc32, len(view)
    for number, (offset, length, _) in enumerate(spans):
        at = offset - begin
        if at + length > available or length < HEADER_BYTES:
            damaged.append(number)
            continue
        magic, crc, stored = unpack_lead(view, at)
        if crc32(view[at + CHECKED_FROM : at + length], seed ^ offset) != crc or stored != length or magic != MAGIC:
            damaged.append(number)
    return damaged


def unpack(data: bytes | memoryview, *, position: int) -> Record:
    """Return the record of a frame whose checksum holds."""
    (_, _, length, _, received_ms, payload_n, kind, key_n, source_n, function_n, delivery_n, raw_id) = (
        _HEADER.unpack_from(data)
    )
    function_at = HEADER_BYTES + source_n
    delivery_at = function_at + function_n
    key_at = delivery_at + delivery_n
    context_at = key_at + key_n
    payload_at = length - payload_n
    return Record(
        id=id_text(raw_id),
        source=_name(bytes(data[HEADER_BYTES:function_at])),
        function=_name(bytes(data[function_at:delivery_at])),
        invocation_type=_TYPES[kind],
        received_at=received_ms / 1000,
        payload=bytes(data[payload_at:length]),
        client_context=bytes(data[context_at:payload_at]) if payload_at > context_at else b"",
        delivery_id=str(data[delivery_at:key_at], "utf-8") if delivery_n else "",
        key=bytes(data[key_at:context_at]) if key_n else b"",
        position=position,
    )


def salvage(data: bytes, row: Row, *, position: int, damage: str) -> DamagedRecord:
    """Return what is left of a record whose checksum does not hold: what its index row knows, and the payload's bytes.

    The names are read from the frame where they fit the hashes in the row.
    """
    _, length, received_ms, function_hash, source_hash, payload_n, flags, raw_id = row
    source = function = ""
    if len(data) >= HEADER_BYTES:
        *_, source_n, function_n, _, _ = _HEADER.unpack_from(data)
        function_at = HEADER_BYTES + source_n
        source = str(data[HEADER_BYTES:function_at], "utf-8", "replace")
        function = str(data[function_at : function_at + function_n], "utf-8", "replace")
    return DamagedRecord(
        id=id_text(raw_id),
        source=source if name_hash(source) == source_hash else "",
        function=function if lane_hash(function) == function_hash else "",
        invocation_type=InvocationType.EVENT if flags & FLAG_EVENT else InvocationType.REQUEST_RESPONSE,
        received_at=received_ms / 1000,
        payload=data[length - payload_n : length],
        position=position,
        damage=damage,
    )


def stream_head(data: bytes | memoryview, at: int) -> tuple[int, bytes, int, int, int, int]:
    """Return what a stream needs of a checked frame that begins at `at`.

    Received ms, raw id, place and length of the source's name, place and length of the key.
    """
    _, _, _, _, received_ms, _, _, key_n, source_n, function_n, delivery_n, raw_id = _HEADER.unpack_from(data, at)
    source_at = at + HEADER_BYTES
    return received_ms, raw_id, source_at, source_n, source_at + source_n + function_n + delivery_n, key_n


def names_of(data: bytes | memoryview) -> tuple[str, str]:
    """Return source and function of a frame whose checksum holds."""
    *_, source_n, function_n, _, _ = _HEADER.unpack_from(data)
    function_at = HEADER_BYTES + source_n
    return _name(bytes(data[HEADER_BYTES:function_at])), _name(bytes(data[function_at : function_at + function_n]))


def row_of(data: bytes | memoryview, head: Head, *, offset: int) -> bytes:
    """Return the index row of a checked frame (when an index is rebuilt)."""
    source, function = names_of(data)
    flags = (0 if head.kind else FLAG_EVENT) | (FLAG_DELIVERY if head.delivery_n else 0)
    return ROW.pack(
        offset,
        head.length,
        head.received_ms,
        lane_hash(function),
        name_hash(source),
        head.payload_n,
        flags,
        head.raw_id,
    )
