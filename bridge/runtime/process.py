"""The daemon's side of one worker process: frames in and out, its log pipe, and what is running in it."""

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
import termios
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from bridge.core import limits
from bridge.runtime import frames, results
from bridge.runtime.job import Job
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.platform_lines import platform_lines

if TYPE_CHECKING:
    from bridge.core.ports import Clock
    from bridge.runtime.fleet import Fleet

OUTPUT_MAX_BYTES: Final = 4 * limits.MIB
"""Log output kept of one invocation; the rest is read and dropped, so that neither side stalls or grows."""
PARTIAL_MAX_BYTES: Final = 256 * limits.KIB
"""A line without an end is cut here (CloudWatch's largest log event)."""
READ_BYTES: Final = 64 * limits.KIB

# All workers read into one buffer: the loop fills and empties it without a pause in between.
_shared = bytearray(READ_BYTES)
_shared_view = memoryview(_shared)
_available = bytearray(4)
_unpack = frames.RESULT.unpack_from
_HEAD_BYTES: Final = frames.RESULT.size
_DURATION_MAX_MS: Final = frames.DURATION_MAX_MS
_ANSWERS: Final = (frames.OK, frames.ERROR)
_NOTHING: Final = bytes(4)
_FIONREAD: Final = termios.FIONREAD
_ioctl = fcntl.ioctl


class Owner(Protocol):
    """What a worker tells its pool."""

    def worker_ready(self, worker: "Worker") -> None:
        """Init has ended; the front job, if any, runs from now on."""
        ...

    def worker_answered(self, worker: "Worker", job: Job, ok: bool, payload: bytes, duration_ms: float) -> None:  # noqa: FBT001 - hot
        """The front job has ended and is off the worker."""
        ...

    def worker_skipped(self, worker: "Worker") -> None:
        """The worker has thrown away a frame that was taken back."""
        ...

    def worker_failed_init(self, worker: "Worker", payload: bytes) -> None:
        """The handler could not be imported."""
        ...

    def worker_leaving(self, worker: "Worker") -> None:
        """It ends by itself while nothing runs on it: it takes no further job."""
        ...

    def worker_garbled(self, worker: "Worker") -> None:
        """The worker sent what is no frame, or an answer to nothing."""
        ...

    def worker_lost(self, worker: "Worker") -> None:
        """The socket has closed."""
        ...


class Worker(asyncio.BufferedProtocol):
    """One worker process. Its front job is the one that runs; further ones were sent ahead."""

    __slots__ = (
        "_body",
        "_capturing",
        "_clock",
        "_dropped",
        "_log",
        "_log_fd",
        "_logs",
        "_needed",
        "_owner",
        "_partial",
        "_rest",
        "_segment",
        "_sequence",
        "_socket",
        "_stash",
        "_tokens",
        "_transport",
        "began_at",
        "ended_status",
        "failure",
        "fleet",
        "id",
        "in_invocation",
        "init_ms",
        "is_finished",
        "is_gone",
        "is_lost",
        "is_orphan",
        "is_provisioned",
        "is_ready",
        "jobs",
        "last_used_at",
        "lines",
        "look_again_at",
        "outbox",
        "peak_kb",
        "pid",
        "retiring",
        "skipping",
        "slot",
        "start_error",
        "started_logged",
        "stream",
        "version",
    )

    def __init__(self, owner: Owner, *, worker_id: int, fleet: "Fleet", stream: str, slot: str) -> None:
        self._owner = owner
        self.id = worker_id
        self.fleet = fleet
        self.version = fleet.version
        self.stream = stream
        self.slot = slot
        """Path of its scratch space."""
        self.jobs: deque[Job] = deque()
        self.pid = 0
        """Process id of its keeper: the root of the process tree."""
        self.began_at = 0.0
        self.last_used_at = 0.0
        self.init_ms: float | None = None
        self.peak_kb = 0
        self.is_ready = self.is_lost = self.is_provisioned = False
        self.is_gone = False
        """The process and all its descendants have ended."""
        self.is_finished = False
        """The pool has settled its jobs."""
        self.is_orphan = False
        """Its zygote ended first."""
        self.start_error = ""
        self.in_invocation = False
        """Init runs again inside the first invocation, under the function's timeout."""
        self.retiring = False
        self.look_again_at = 0.0
        """Monotonic: before it, the size of its tree is not taken."""
        self.skipping = 0
        """Frames that were taken back and that the worker has not yet thrown away."""
        self.failure: results.Failure | None = None
        """Why we killed it."""
        self.ended_status: int | None = None
        self.outbox: list[list[bytes]] = []  # frames, each in its parts
        self.started_logged = False
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()
        self._needed = 0
        """Bytes that `_rest` must hold before it is worth a look."""
        self._sequence = 0
        self._socket: socket.socket | None = None
        self._log_fd = -1
        self._tokens = -1
        self._body = bytearray()
        self._partial = b""
        self._dropped = 0
        self._capturing = 0
        self._segment = 0
        self._stash: dict[int, bytearray] = {}
        self.lines = platform_lines(self.version)

    @property
    def used_mb(self) -> int:
        """The most memory that it has used, in MiB."""
        return (self.peak_kb + 1023) >> 10

    def hold(self, sock: socket.socket, *, log_fd: int, tokens: int) -> None:
        """Take over our ends of socket, log pipe and token counter; `close` lets go of them."""
        self._socket = sock
        self._log_fd = log_fd
        self._tokens = tokens

    async def open(self, logs: FunctionLogs, clock: "Clock") -> None:
        """Attach our ends to the loop."""
        loop = asyncio.get_running_loop()
        self._logs = logs
        self._log = logs.stream(self.version.name, self.stream, group=self.version.log_group)
        self._clock = clock
        assert self._socket is not None
        await loop.create_unix_connection(lambda: self, sock=self._socket)
        if not self.is_finished:
            loop.add_reader(self._log_fd, self._read_log)

    # --- frames out -------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send a frame."""
        if self._transport is not None and not self.is_lost:
            self._transport.write(data)

    def _write_parts(self, parts: list[bytes]) -> None:
        """Send frames: small ones as one piece, large ones without a copy."""
        if len(parts) == 1:
            self.write(parts[0])
        elif max(map(len, parts)) < frames.APART_MIN_BYTES:
            self.write(b"".join(parts))
        elif self._transport is not None and not self.is_lost:
            self._transport.writelines(parts)

    def send(self, job: Job, now: float) -> None:
        """Send an event to an idle (or starting) worker; it starts at once."""
        self._sequence = job.sequence = self._sequence + 1
        job.worker = self
        job.started_at = now
        job.attempted = True
        self.jobs.append(job)
        flags = frames.MARK
        if self.is_ready:
            self._segment = job.sequence
            flags = 0
        elif self.in_invocation:
            return  # `begin_first` sends it, with the time that init leaves
        self._write_parts(frames.encode_invoke(job, int(job.timeout_s * 1000), flags))

    def send_ahead(self, job: Job) -> None:
        """Queue an event behind the running one; `flush_ahead` sends it."""
        self._sequence = job.sequence = self._sequence + 1
        job.worker = self
        self.jobs.append(job)
        frame = frames.encode_invoke(job, int(job.timeout_s * 1000), frames.AHEAD | frames.MARK)
        self.outbox.append(frame)

    def flush_ahead(self) -> None:
        """Write all frames queued in this loop pass, each with its token."""
        if self.outbox:
            os.eventfd_write(self._tokens, len(self.outbox))
            parts = [part for frame in self.outbox for part in frame]
            self.outbox.clear()
            self._write_parts(parts)

    def take_back(self, *, is_dead: bool = False) -> list[Job]:
        """Take back the frames that the worker has not started, in order; it will throw them away.

        The counter decides each race: whoever reads a token, owns a frame; the worker takes from the front, so
        the tokens that are left stand for the last ones. The front job of a living worker stays, started or
        not: it runs next. A dead one's is taken back if its token is left: it never started.
        """
        kept = 0 if is_dead else 1
        written = len(self.jobs) - len(self.outbox)
        unsent = min(len(self.outbox), len(self.jobs) - kept)
        del self.outbox[len(self.outbox) - unsent :]
        taken = 0
        with contextlib.suppress(OSError):  # empty (EAGAIN)
            while taken < written - kept:
                os.eventfd_read(self._tokens)
                taken += 1
        self.skipping += taken
        jobs = [self.jobs.pop() for _ in range(taken + unsent)]
        jobs.reverse()
        for job in jobs:
            job.worker = None
        return jobs

    # --- frames in --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]
        if self.is_finished:  # it failed to start meanwhile
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The worker or its end of the socket has gone."""
        self.is_lost = True
        self._owner.worker_lost(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return the buffer that all workers share."""
        return _shared_view

    def buffer_updated(self, nbytes: int) -> None:
        """Split what came into frames."""
        if self._rest:
            self._rest += _shared_view[:nbytes]
            if len(self._rest) < self._needed:
                return
            data, nbytes = self._rest, len(self._rest)
            self._rest = bytearray()
        else:
            data = _shared
        start = 0
        while nbytes - start >= _HEAD_BYTES:
            length, kind, sequence, duration_ms, peak_kb = _unpack(data, start)
            end = start + 4 + length
            if not (frames.RESULT_REST <= length <= frames.FRAME_MAX_BYTES and 0 <= duration_ms <= _DURATION_MAX_MS):
                self._owner.worker_garbled(self)
                return
            if end > nbytes:
                self._needed = 4 + length
                break
            if peak_kb > self.peak_kb:  # noqa: PLR1730 - a call of max() is ten times as slow
                self.peak_kb = peak_kb
            payload = bytes(data[start + _HEAD_BYTES : end])
            start = end
            if kind in _ANSWERS:
                if not self.is_ready or not self.jobs or self.jobs[0].sequence != sequence:
                    self._owner.worker_garbled(self)
                    return
                self.drain_log()
                self._owner.worker_answered(self, self.jobs.popleft(), kind == frames.OK, payload, duration_ms)
            elif not self._take(kind, duration_ms, payload):
                self._owner.worker_garbled(self)
                return
        else:
            self._needed = _HEAD_BYTES
        if start < nbytes:
            self._rest += data[start:nbytes]

    def _take(self, kind: int, duration_ms: float, payload: bytes) -> bool:
        """Handle the rarer frames; False when it is none."""
        if kind == frames.SKIPPED and self.skipping:
            self.skipping -= 1
            self._owner.worker_skipped(self)
        elif kind == frames.LEAVING:
            if not self.jobs and not self.retiring:
                self._owner.worker_leaving(self)
            self.retiring = True
        elif kind == frames.READY and not self.is_ready:
            self._end_init_log(duration_ms)
            self.is_ready = True
            self.init_ms = duration_ms
            self._owner.worker_ready(self)
        elif kind == frames.INIT_ERROR and not self.is_ready and self.failure is None:
            self._owner.worker_failed_init(self, payload)
        else:
            return False
        return True

    # --- log --------------------------------------------------------------------------------------------------

    def _read_log(self) -> None:
        try:
            data = os.read(self._log_fd, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._route(data)
        else:
            asyncio.get_running_loop().remove_reader(self._log_fd)

    def drain_log(self) -> None:
        """Read what is in the pipe now: all that was written before the frame being handled was sent."""
        if self._log_fd < 0:
            return
        _ioctl(self._log_fd, _FIONREAD, _available)
        if _available != _NOTHING:
            left = int.from_bytes(_available, sys.byteorder)
            while left > 0 and (data := os.read(self._log_fd, min(left, READ_BYTES))):
                left -= len(data)
                self._route(data)

    def _route(self, data: bytes) -> None:
        """Give output to the invocation that wrote it, by the marks that frames sent ahead leave."""
        if len(self.jobs) + self.skipping < 2 and not self._stash and frames.MARK_START not in data:
            self._write(data)
            return
        if self._partial.endswith(frames.MARK_START):  # a mark cut in two by the read
            data, self._partial = self._partial + data, b""
        for sequence, piece in frames.split_output(data):
            if self._segment < sequence <= self._sequence:  # else a function wrote it
                self._segment = sequence
            self._give(piece)

    def _give(self, data: bytes) -> None:
        running = self.jobs[0].sequence if self.jobs and self.is_ready else 0
        if self._segment <= running:
            self._write(data)
        elif data:
            stash = self._stash.setdefault(self._segment, bytearray())
            stash += data[: max(0, OUTPUT_MAX_BYTES - len(stash))]

    def begin_next(self, now: float) -> Job:
        """The front job, sent early, has started: init has ended, or the job before it has answered."""
        job = self.jobs[0]
        job.started_at = now
        job.attempted = True
        if stash := self._stash.pop(job.sequence, None):
            self._write(bytes(stash))
        return job

    def begin_first(self, now: float) -> None:
        """Init has ended: the job that waited for it starts, or goes on if init ran inside its invocation."""
        job = self.begin_next(now)
        if self.in_invocation:
            job.started_at = self.began_at
            self._segment = job.sequence
            left_ms = int((self.began_at + job.timeout_s - now) * 1000)
            self._write_parts(frames.encode_invoke(job, max(1, left_ms), 0))

    def _write(self, data: bytes) -> None:
        if not data:
            return
        job = self.jobs[0] if self.jobs and self.is_ready else None
        room = OUTPUT_MAX_BYTES - self._capturing
        if len(data) > room:
            self._dropped += len(data) - max(0, room)
            data = data[: max(0, room)]
        self._capturing += len(data)
        lines, newline, partial = (self._partial + data).rpartition(b"\n")
        self._partial = partial
        if len(partial) > PARTIAL_MAX_BYTES:
            lines, newline, self._partial = lines + newline + partial, b"\n", b""
        if not newline:
            return
        if job is not None:
            self.log_start(job.invocation.request_id)
        lines += newline
        if self.lines.filters:
            lines = self.lines.kept(lines)
        if job is not None or not self.is_ready:
            self._body += lines
            if len(self._body) > 2 * limits.LOG_TAIL_MAX_BYTES:
                del self._body[: -limits.LOG_TAIL_MAX_BYTES]
        self._put(lines)

    def log_start(self, request_id: str) -> None:
        """Write the START line of the running job, once."""
        if not self.started_logged:
            self.started_logged = True
            line = self.lines.start(request_id, at=self._clock.time())
            self._body += line
            self._put(line)

    def finish_quiet(self, request_id: str, duration_ms: float, billed_ms: int) -> bytes | None:
        """Write and return the whole log of a job that wrote nothing; None when it did, or has more to report."""
        if self._body or self._partial or self._dropped or self.started_logged or self.init_ms is not None:
            return None
        now = self._clock.time()
        tail = self.lines.quiet(request_id, duration_ms, billed_ms, (self.peak_kb + 1023) >> 10, at=now)
        if tail:
            self._log.write(tail, now)
        self._capturing = 0
        return tail

    def finish_log(self, request_id: str, report: results.Report, extra: bytes = b"") -> bytes:
        """Write the rest of a job's log with `extra` and its END and REPORT lines; return the log's tail."""
        if not self.started_logged:
            self.log_start(request_id)
        rest = self._take_partial()
        if self._dropped:
            rest += b"[%d bytes of output dropped]\n" % self._dropped
        rest += extra + self.lines.end(request_id, report, at=self._clock.time())
        self._put(rest)
        tail = bytes(self._body + rest)[-limits.LOG_TAIL_MAX_BYTES :]
        self._body.clear()
        self.started_logged = False
        self._capturing = self._dropped = 0
        return tail

    def log_init_failed(self, init_ms: float, *, status: str, error_type: str) -> None:
        """Write the platform's line about an init that did not end well, after what init wrote."""
        lines = self._take_partial() + self.lines.init_failed(
            init_ms, in_invocation=self.in_invocation, status=status, error_type=error_type, at=self._clock.time()
        )
        self._body += lines
        self._put(lines)

    def _end_init_log(self, init_ms: float) -> None:
        """What was written during init does not count against the first invocation."""
        self.drain_log()
        self._put(self._take_partial() + self.lines.initialised(init_ms, at=self._clock.time()))
        self._body.clear()
        self._capturing = self._dropped = 0

    def _take_partial(self) -> bytes:
        """Return what was written of a line that never ended, as a line."""
        rest, self._partial = self._partial, b""
        return self.lines.kept(rest + b"\n") if rest else b""

    def _put(self, lines: bytes) -> None:
        if lines:
            self._log.write(lines, self._clock.time())

    def close(self) -> None:
        """Let go of our ends; twice is fine."""
        if self._transport is not None:
            self._transport.abort()
        elif self._socket is not None:
            self._socket.close()
        if self._log_fd >= 0:
            asyncio.get_running_loop().remove_reader(self._log_fd)
            os.close(self._log_fd)
            os.close(self._tokens)
            self._log_fd = self._tokens = -1
        if self._transport is not None:
            self._logs.end_stream(self.version.name, self.stream)
