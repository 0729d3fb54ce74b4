"""How an attempt lies in the outcomes log: a checked frame, and a fixed-size index row (pure)."""

import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from bridge.core import limits
from bridge.core.errors import StoreError
from bridge.core.invocation import Attempt, AttemptStatus
from bridge.journal.frames import id_bytes, id_text

MAGIC: Final = b"OUT1"
_HEAD: Final = struct.Struct("<4sII")
"""magic, frame length, crc of what follows."""
_BODY: Final = struct.Struct("<qQIHBxHHHHHHH16s")
"""position, started ms, duration us, number, status, lengths of function, version, error type, error
message, log tail, log stream and replay, request id; then those texts."""
_SMALLEST: Final = _HEAD.size + _BODY.size

ROW: Final = struct.Struct("<q8sIB3x")
"""position, start of the request id, offset, status."""
ROW_BYTES: Final = ROW.size
ROW_ID_AT: Final = 8
_STATUSES: Final = tuple(AttemptStatus)
_NUMBERS: Final = {status: number for number, status in enumerate(_STATUSES)}
PASSED: Final = frozenset(
    _NUMBERS[status]
    for status in (
        AttemptStatus.OK,
        AttemptStatus.DEAD,
        AttemptStatus.FAILED,
        AttemptStatus.UNKNOWN,
        AttemptStatus.HANDED_OVER,
    )
)
"""Statuses after which a lane has passed the event: done, a dead letter, or parked for another attempt."""
_TEXT_MAX_BYTES: Final = 1024
_NAME_MAX_BYTES: Final = 512
_TAIL_OK_MAX_BYTES: Final = 1024


def encode(attempt: Attempt) -> bytes:
    """Return an attempt as a frame; texts are cut to what a person needs (log tail 4 KiB, 1 KiB when it went well)."""
    tail_max = limits.LOG_TAIL_MAX_BYTES if attempt.error_type else _TAIL_OK_MAX_BYTES
    parts = (
        _name(attempt.function),
        _name(attempt.version),
        _name(attempt.error_type),
        attempt.error_message.encode("utf-8", "replace")[:_TEXT_MAX_BYTES],
        attempt.log_tail[-tail_max:],
        _name(attempt.log_stream),
        _name(attempt.replay),
    )
    body = b"".join((
        _BODY.pack(
            attempt.position,
            max(0, round(attempt.started_at * 1000)),
            min(max(0, round(attempt.duration_ms * 1000)), 0xFFFF_FFFF),
            min(attempt.number, 0xFFFF),
            _NUMBERS[attempt.status],
            *map(len, parts),
            id_bytes(attempt.request_id),
        ),
        *parts,
    ))  # fmt: skip
    return _HEAD.pack(MAGIC, _HEAD.size + len(body), zlib.crc32(body)) + body


def _name(text: str) -> bytes:
    return _cut(text[:_NAME_MAX_BYTES])  # what a function chose may be long, and is not kept whole


@lru_cache(maxsize=1024)
def _cut(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:_NAME_MAX_BYTES]


def check(data: bytes | memoryview) -> int:
    """Return the length of the frame at the start of `data`, once its checksum holds.

    Raises:
        StoreError: there is none.
    """
    if len(data) < _SMALLEST:
        raise StoreError("short frame")
    magic, length, crc = _HEAD.unpack_from(data)
    if magic != MAGIC or not _SMALLEST <= length <= len(data) or zlib.crc32(data[_HEAD.size : length]) != crc:
        raise StoreError("damaged frame")
    return int(length)


def decode(data: bytes | memoryview) -> Attempt:
    """Return the attempt at the start of `data`.

    Raises:
        StoreError: there is none.
    """
    check(data)
    position, started_ms, duration_us, number, status, *sizes, raw_id = _BODY.unpack_from(data, _HEAD.size)
    at, parts = _SMALLEST, list[bytes]()
    for size in sizes:
        parts.append(bytes(data[at : at + size]))
        at += size
    function, version, error_type, error_message, log_tail, log_stream, replay = parts
    return Attempt(
        position=position,
        request_id=id_text(raw_id),
        function=function.decode("utf-8", "replace"),
        number=number,
        status=_STATUSES[status],
        started_at=started_ms / 1000,
        duration_ms=duration_us / 1000,
        version=version.decode("utf-8", "replace"),
        error_type=error_type.decode("utf-8", "replace"),
        error_message=error_message.decode("utf-8", "replace"),
        log_tail=log_tail,
        log_stream=log_stream.decode("utf-8", "replace"),
        replay=replay.decode("utf-8", "replace"),
    )


def frame_length(head: bytes) -> int:
    """Return the length that a frame's header claims, 0 when there is no frame."""
    if len(head) < _HEAD.size or not head.startswith(MAGIC):
        return 0
    return int(_HEAD.unpack_from(head)[1])


def row_of(frame: bytes | memoryview, offset: int) -> tuple[bytes, int, int]:
    """Return the index row of a checked frame that lies at `offset`, its position and its start, epoch ms."""
    position, started_ms, _, _, status, *_, raw_id = _BODY.unpack_from(frame, _HEAD.size)
    return ROW.pack(position, raw_id[:8], offset, status), position, started_ms


def merged(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return attempts in order of their start, without the STARTED rows of those that ended."""
    rows = {(a.number, a.replay, round(a.started_at, 3), a.status): a for a in attempts}
    ended = {key[:3] for key in rows if key[3] is not AttemptStatus.STARTED}
    kept = [a for key, a in rows.items() if key[3] is not AttemptStatus.STARTED or key[:3] not in ended]
    return sorted(kept, key=lambda a: a.started_at)
