"""The log of attempts: appended within one loop pass, synced every 200 ms, found again by the event's position."""

import asyncio
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import structlog

from bridge.core import limits
from bridge.core.errors import StoreError
from bridge.core.invocation import Attempt, AttemptStatus
from bridge.core.ports import Clock
from bridge.core.record import Record
from bridge.journal.frames import id_bytes, id_text

log = structlog.get_logger("bridge.outcomes")

_HEAD: Final = struct.Struct("<II")
"""frame length, crc of what follows."""
_BODY: Final = struct.Struct("<qQIHBxHHHHHHH16s")
"""position, started ms, duration us, number, status, lengths of function, version, error type, error
message, log tail, log stream and replay, request id."""
_ROW: Final = struct.Struct("<q8sIBxxx")
"""position, start of the request id, offset, status: the index, in memory, and beside a sealed file."""
_STATUSES: Final = tuple(AttemptStatus)
_STATUS_NUMBERS: Final = {status: number for number, status in enumerate(_STATUSES)}
_PASSED: Final = frozenset(
    _STATUS_NUMBERS[status]
    for status in (AttemptStatus.OK, AttemptStatus.DEAD, AttemptStatus.FAILED, AttemptStatus.UNKNOWN)
)
_REPLAY_FLAG: Final = 0x80
"""Set in an index row whose attempt belongs to a replay: it says nothing about the lane."""
_TEXT_MAX: Final = 1024
_TAIL_OK_MAX: Final = 1024
_SEGMENT_BYTES: Final = 64 * limits.MIB
_BUFFER_MAX_BYTES: Final = 32 * limits.MIB
_FEW: Final = 8


def encode(attempt: Attempt) -> bytes:
    """Return an attempt as a frame."""
    tail_max = limits.LOG_TAIL_MAX_BYTES if attempt.error_type else _TAIL_OK_MAX
    parts = (
        attempt.function.encode(),
        attempt.version.encode(),
        attempt.error_type.encode("utf-8", "replace")[:_TEXT_MAX],
        attempt.error_message.encode("utf-8", "replace")[:_TEXT_MAX],
        attempt.log_tail[-tail_max:],
        attempt.log_stream.encode(),
        attempt.replay.encode(),
    )
    body = _BODY.pack(
        attempt.position,
        int(attempt.started_at * 1000),
        min(int(attempt.duration_ms * 1000), 0xFFFF_FFFF),
        min(attempt.number, 0xFFFF),
        _STATUS_NUMBERS[attempt.status],
        *map(len, parts),
        id_bytes(attempt.request_id),
    ) + b"".join(parts)
    return _HEAD.pack(_HEAD.size + len(body), zlib.crc32(body)) + body


def decode(data: bytes | memoryview) -> tuple[Attempt, int]:
    """Return the attempt at the start of `data` and its frame's length; raises StoreError when there is none."""
    if len(data) < _HEAD.size + _BODY.size:
        raise StoreError("short frame")
    length, crc = _HEAD.unpack_from(data)
    if not _HEAD.size + _BODY.size <= length <= len(data) or zlib.crc32(data[_HEAD.size : length]) != crc:
        raise StoreError("damaged frame")
    position, started_ms, duration_us, number, status, *sizes, raw_id = _BODY.unpack_from(data, _HEAD.size)
    at = _HEAD.size + _BODY.size
    parts = []
    for size in sizes:
        parts.append(bytes(data[at : at + size]))
        at += size
    function, version, error_type, error_message, log_tail, log_stream, replay = parts
    attempt = Attempt(
        position=position,
        request_id=id_text(raw_id),
        function=function.decode(),
        number=number,
        status=_STATUSES[status],
        started_at=started_ms / 1000,
        duration_ms=duration_us / 1000,
        version=version.decode(),
        error_type=error_type.decode("utf-8", "replace"),
        error_message=error_message.decode("utf-8", "replace"),
        log_tail=log_tail,
        log_stream=log_stream.decode("utf-8", "replace"),
        replay=replay.decode(),
    )
    return attempt, length


class _File:
    """One file of the log with its index rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.rows = bytearray()
        self.end = 0
        self.newest_ms = 0

    @property
    def number(self) -> int:
        return int(self.path.stem, 16)

    def recover(self) -> None:
        """Read the file frame by frame; cut what is torn (a lost outcome means one more attempt, never a loss)."""
        sealed = self.path.with_suffix(".idx")
        size = os.fstat(self.fd).st_size
        if sealed.exists():
            data = sealed.read_bytes()
            newest_ms, end, crc = struct.unpack_from("<QQI", data)
            if end == size and zlib.crc32(data[20:]) == crc:
                self.rows, self.end, self.newest_ms = bytearray(data[20:]), end, newest_ms
                return
        view = memoryview(os.pread(self.fd, size, 0)) if size <= 4 * _SEGMENT_BYTES else memoryview(b"")
        while self.end < size:
            try:
                attempt, length = decode(view[self.end :])
            except StoreError:
                log.warning("outcomes_cut", file=self.path.name, offset=self.end, lost_bytes=size - self.end)
                os.ftruncate(self.fd, self.end)
                os.fsync(self.fd)
                break
            self.note(attempt, length)

    def note(self, attempt: Attempt, length: int) -> None:
        """Index a frame that lies at the end."""
        flag = _REPLAY_FLAG if attempt.replay and attempt.status not in _LIVE else 0
        self.rows += _ROW.pack(
            attempt.position, id_bytes(attempt.request_id)[:8], self.end, _STATUS_NUMBERS[attempt.status] | flag
        )
        self.end += length
        self.newest_ms = max(self.newest_ms, int(attempt.started_at * 1000))

    def seal(self) -> None:
        """Write the index beside the file."""
        rows = bytes(self.rows)
        data = struct.pack("<QQI", self.newest_ms, self.end, zlib.crc32(rows)) + rows
        temporary = self.path.with_suffix(".new")
        temporary.write_bytes(data)
        temporary.rename(self.path.with_suffix(".idx"))

    def offsets(self, ids: frozenset[bytes]) -> Iterator[int]:
        """Yield the offsets of the attempts of those request ids (their first 8 bytes), oldest first."""
        rows = bytes(self.rows)
        if len(ids) > _FEW:
            for _, start, offset, _ in _ROW.iter_unpack(rows):
                if start in ids:
                    yield offset
            return
        found = []
        for wanted in ids:
            at = rows.find(wanted)
            while at >= 0:
                if at % _ROW.size == 8:
                    found.append(_ROW.unpack_from(rows, at - 8)[2])
                at = rows.find(wanted, at + 1)
        yield from sorted(found)

    def read(self, offset: int) -> Attempt:
        data = os.pread(self.fd, 8192, offset)
        length = _HEAD.unpack_from(data)[0]
        if length > len(data):
            data = os.pread(self.fd, length, offset)
        return decode(data)[0]


_LIVE: Final = frozenset(AttemptStatus) - {AttemptStatus.REPLAYED_OK, AttemptStatus.REPLAYED_FAILED}


class OutcomesLog:
    """`ports.Outcomes` on disk."""

    def __init__(self, *, folder: Path, clock: Clock, retention_s: float) -> None:
        self._folder = folder
        self._clock = clock
        self._retention_s = retention_s
        self._files: list[_File] = []
        self._buffer: list[tuple[Attempt, bytes]] = []
        self._buffered_bytes = 0
        self._writing = False
        self._dirty = False
        self._failing = False
        self._lock = threading.Lock()
        """Appends come from the loop, look-ups from threads: both write what is buffered first."""
        self.dropped = 0

    async def open(self) -> None:
        """Read the index of what is there."""
        await asyncio.to_thread(self._recover)

    def _recover(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*.out")):
            file = _File(path)
            file.recover()
            self._files.append(file)
        if not self._files:
            self._files.append(_File(self._folder / f"{1:08x}.out"))

    def append(self, attempt: Attempt) -> None:
        """Write within this loop pass. See ports.Outcomes."""
        frame = encode(attempt)
        with self._lock:
            self._buffer.append((attempt, frame))
            self._buffered_bytes += len(frame)
            while self._buffered_bytes > _BUFFER_MAX_BYTES:
                self._buffered_bytes -= len(self._buffer.pop(0)[1])
                self.dropped += 1
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        with self._lock:
            self._writing = False
            if self._buffer and self._files:
                self._write_buffer()

    def _write_buffer(self) -> None:
        file = self._files[-1]
        buffer = list(self._buffer)
        data = b"".join(frame for _, frame in buffer)
        try:
            view, at = memoryview(data), file.end
            while view:
                written = os.pwrite(file.fd, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            if not self._failing:
                self._failing = True
                log.warning("outcomes_waiting", error=error.strerror)
            return  # tried again at the next append or sync
        if self._failing:
            self._failing = False
            log.info("outcomes_resumed")
        for attempt, frame in buffer:
            file.note(attempt, len(frame))
        del self._buffer[: len(buffer)]
        self._buffered_bytes -= len(data)
        self._dirty = True
        if file.end > _SEGMENT_BYTES:
            self._roll(file)

    def _roll(self, file: _File) -> None:
        os.fdatasync(file.fd)
        file.seal()
        self._files.append(_File(self._folder / f"{file.number + 1:08x}.out"))
        oldest_ms = (self._clock.time() - self._retention_s) * 1000
        while len(self._files) > 1 and self._files[0].newest_ms < oldest_ms:
            gone = self._files.pop(0)
            os.close(gone.fd)
            gone.path.with_suffix(".idx").unlink(missing_ok=True)
            gone.path.unlink(missing_ok=True)

    async def run(self) -> None:
        """Sync every 200 ms, for ever; for the supervisor."""
        while True:
            await self._clock.sleep(limits.OUTCOME_SYNC_S)
            if self._dirty or self._buffer:
                await self.flush()

    async def flush(self) -> None:
        """Return once everything appended so far is synced (or the disk is full: then it stays buffered)."""
        self._write()
        if self._dirty and self._files:
            self._dirty = False
            await asyncio.to_thread(os.fdatasync, self._files[-1].fd)

    async def close(self) -> None:
        """Sync and release; twice is fine."""
        if not self._files:
            return
        await self.flush()
        for file in self._files:
            os.close(file.fd)
        self._files.clear()

    def for_events(self, records: Iterable[Record]) -> dict[int, list[Attempt]]:
        """Return the attempts of each record by position. See ports.Outcomes."""
        wanted = list(records)
        if not wanted:
            return {}
        self._write()
        positions = {record.id: record.position for record in wanted}
        ids = frozenset(id_bytes(request_id)[:8] for request_id in positions)
        oldest_ms = min(record.received_at for record in wanted) * 1000
        found: dict[int, list[Attempt]] = {}
        for file in list(self._files):
            if file.newest_ms < oldest_ms - 1000:
                continue
            for offset in file.offsets(ids):
                attempt = file.read(offset)
                if attempt.request_id in positions:
                    found.setdefault(positions[attempt.request_id], []).append(attempt)
        return {position: _merged(attempts) for position, attempts in found.items()}

    def finished(self, *, after: int) -> set[int]:
        """Return positions that their lane has passed. See ports.Outcomes."""
        return {
            position
            for file in self._files
            for position, _, _, status in _ROW.iter_unpack(bytes(file.rows))
            if position > after and status in _PASSED
        }


def _merged(attempts: list[Attempt]) -> list[Attempt]:
    """Leave out STARTED rows whose attempt has an outcome."""
    ended = {(a.number, a.replay, round(a.started_at, 3)) for a in attempts if a.status is not AttemptStatus.STARTED}
    return [
        a
        for a in attempts
        if a.status is not AttemptStatus.STARTED or (a.number, a.replay, round(a.started_at, 3)) not in ended
    ]
