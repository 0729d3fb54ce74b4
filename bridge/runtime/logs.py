"""What functions write, kept per function and stream under AWS's names, within a size limit."""

import asyncio
import contextlib
import heapq
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, Protocol

import structlog

from bridge.util.text import JOINED_LINES

log = structlog.get_logger("bridge.runtime.logs")

FUNCTION_MAX_BYTES: Final = 64 * 1024 * 1024
BUFFER_MAX_BYTES: Final = 256 * 1024
FLUSH_S: Final = 0.2
STREAMS_MAX: Final = 200
"""Files kept per function; the oldest go first."""
OPEN_MAX: Final = 64
FOLLOW_S: Final = 1.0
READ_BACK_BYTES: Final = 1024 * 1024
_ROTATED: Final = re.compile(r"\.log\.\d+$")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

Line = tuple[float, str, str]
"""Time (epoch seconds), stream, text without a newline, control characters escaped."""


def shown(text: str) -> str:
    """Escape control characters, so that a line can neither forge another one nor drive a terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def stream_name(version: str, *, at: float, token: str, function: str = "") -> str:
    """Return AWS's name of a log stream: date of its start (UTC), version, 32 hexadecimal digits.

    A log group that functions may share has the function's name in it (monitoring-cloudwatchlogs-loggroups).
    """
    return f"{datetime.fromtimestamp(at, UTC):%Y/%m/%d}/{function}[{version}]{token}"


class LogSink(Protocol):
    """Who else gets what is written."""

    def put(self, group: str, stream: str, written: Sequence[tuple[float, bytes]], *, function: str) -> None:
        """Take whole lines, each part with its time (epoch seconds), in order. Never raises, never waits."""
        ...


class TimeText:
    """Formats the times of log lines; the text of the last millisecond is kept."""

    def __init__(self) -> None:
        self._millisecond = -1
        self._second = -1
        self._text = ""
        self._prefix = b""

    def __call__(self, at: float) -> bytes:
        """Return `2026-01-02T03:04:05.678Z ` with the space."""
        millisecond = int(at * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            second, rest = divmod(millisecond, 1000)
            if second != self._second:
                self._second = second
                self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._prefix = b"%b.%03dZ " % (self._text.encode(), rest)
        return self._prefix


class LogStream:
    """The log of one worker: buffers lines, which reach the file within 0.2 s."""

    __slots__ = ("_logs", "file", "file_size", "function", "group", "name", "path", "pending", "size")

    def __init__(self, logs: "FunctionLogs", *, function: str, name: str, group: str, path: Path) -> None:
        self._logs = logs
        self.group = group
        self.size = 0
        self.function = function
        self.name = name
        self.path = path
        self.pending: list[tuple[float, bytes]] = []
        self.file: IO[bytes] | None = None
        self.file_size = path.stat().st_size if path.exists() else 0

    def write(self, data: bytes, at: float) -> None:
        """Add whole lines that were written at `at` (epoch seconds). Never raises, never waits for the disk."""
        if not self.pending:
            self._logs.mark(self)
        self.pending.append((at, data))
        self.size += len(data)
        if self.size > BUFFER_MAX_BYTES:
            self._logs.flush_stream(self)

    def take(self, time_text: TimeText) -> bytes:
        """Return what is buffered as lines of the file, each after its time, and forget it."""
        parts: list[bytes] = []
        together: list[bytes] = []  # what was written in one millisecond has one prefix
        prefix = b""
        for at, data in self.pending:
            text = time_text(at)
            if text is not prefix and together:
                parts += _prefixed(together, prefix)
                together.clear()
            prefix = text
            together.append(data if data.endswith(b"\n") else data + b"\n")
        if together:
            parts += _prefixed(together, prefix)
        self.pending.clear()
        self.size = 0
        return b"".join(parts)


class NoStream(LogStream):
    """The log of a worker whose execution role has no rights to one: what it writes is kept nowhere."""

    __slots__ = ()

    def write(self, data: bytes, at: float) -> None:
        """Forget it."""


def _prefixed(pieces: list[bytes], prefix: bytes) -> tuple[bytes, bytes, bytes]:
    lines = b"".join(pieces)
    return prefix, lines[:-1].replace(b"\n", b"\n" + prefix), b"\n"


class FunctionLogs:
    """Log files `FOLDER/<function>/<stream with / as _>.log`, each line after its time.

    A function keeps at most `max_bytes_per_function`: a file that reaches a quarter of it is rotated, the
    oldest files go.
    """

    def __init__(self, folder: Path, *, max_bytes_per_function: int = FUNCTION_MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes_per_function
        self._streams: dict[tuple[str, str], LogStream] = {}
        self._files: dict[LogStream, None] = {}
        """Streams with an open file, least recently opened first."""
        self._dirty: dict[LogStream, None] = {}
        self.time_text = TimeText()
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._followers: dict[str, set[asyncio.Event]] = {}
        self.may_write: Callable[[str, str, str], bool] = lambda _function, _stream, _group: True
        """Tells whether a function's execution role lets it have a log stream: function, stream, log group."""
        self.sink: LogSink | None = None
        """Gets all that goes to the files, lines that find no room on the disk too."""

    def stream(self, function: str, name: str, *, group: str = "") -> LogStream:
        """Return the named stream of a function, to be ended by `end_stream`; `group` is for the sink."""
        entry = self._streams.get((function, name))
        if entry is None:
            path = self._path(function, name)
            if not self.may_write(function, name, group):
                return NoStream(self, function=function, name=name, group=group, path=path)
            with contextlib.suppress(OSError):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            entry = self._streams[function, name] = LogStream(
                self, function=function, name=name, group=group, path=path
            )
        return entry

    def write(self, function: str, stream: str, data: bytes, *, at: float) -> None:
        """Add whole lines to a stream; see `LogStream.write`."""
        self.stream(function, stream).write(data, at)

    def mark(self, entry: LogStream) -> None:
        """A stream has something to flush."""
        self._dirty[entry] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def _path(self, function: str, stream: str) -> Path:
        return self._folder / function / f"{stream.replace('/', '_')}.log"

    def flush(self) -> None:
        """Write all buffers to their files."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for entry in list(self._dirty):
            self.flush_stream(entry)

    def flush_stream(self, entry: LogStream) -> None:
        """Write one stream's buffer to its file; what a full disk does not take is lost, functions go on."""
        self._dirty.pop(entry, None)
        if not entry.pending:
            return
        if self.sink is not None:
            self.sink.put(entry.group, entry.name, entry.pending, function=entry.function)
        data = entry.take(self.time_text)
        try:
            self._open_file(entry).write(data)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("function_log_dropped", function=entry.function, error=str(error))
            self._failed = True
            return
        entry.file_size += len(data)
        if entry.file_size >= self._max_bytes // 4:
            self._rotate(entry)
        for event in self._followers.get(entry.function, ()):
            event.set()

    def _open_file(self, entry: LogStream) -> IO[bytes]:
        if entry.file is None:
            descriptor = os.open(entry.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            entry.file = os.fdopen(descriptor, "ab", buffering=0)
            self._files[entry] = None
            self._prune(entry.path.parent)
            if len(self._files) > OPEN_MAX:
                self._close_file(next(iter(self._files)))
        return entry.file

    def _rotate(self, entry: LogStream) -> None:
        self._close_file(entry)
        with contextlib.suppress(OSError):
            entry.path.rename(entry.path.with_name(f"{entry.path.name}.{time.time_ns()}"))
        entry.file_size = 0
        self._prune(entry.path.parent)

    def _prune(self, folder: Path) -> None:
        files: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError):
            for item in os.scandir(folder):
                status = item.stat()
                files.append((status.st_mtime, status.st_size, Path(item.path)))
        files.sort(reverse=True)
        total = 0
        for index, (_, size, path) in enumerate(files):
            total += size
            if index and (total > self._max_bytes * 3 // 4 or index >= STREAMS_MAX):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _close_file(self, entry: LogStream) -> None:
        self._files.pop(entry, None)
        if entry.file is not None:
            entry.file.close()
            entry.file = None

    def end_stream(self, function: str, stream: str) -> None:
        """Flush and close the file of a worker that ended."""
        entry = self._streams.pop((function, stream), None)
        if entry is not None:
            self.flush_stream(entry)
            self._close_file(entry)

    def close(self) -> None:
        """Flush and close all files; twice is fine."""
        self.flush()
        for entry in self._streams.values():
            self._close_file(entry)
        self._streams.clear()

    async def tail(self, *functions: str, lines: int, follow: bool, stream: str = "") -> AsyncIterator[Line]:
        """Yield the last `lines` lines of some functions, then (if `follow`) new ones for ever.

        Of all their streams, or of those whose name begins with `stream`.
        """
        self.flush()
        offsets: dict[Path, int] = {}
        for line in await asyncio.to_thread(self._last, functions, lines, offsets, stream):
            yield line
        if not follow:
            return
        event = asyncio.Event()
        for function in functions:
            self._followers.setdefault(function, set()).add(event)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FOLLOW_S):
                        await event.wait()
                event.clear()
                self.flush()
                for line in await asyncio.to_thread(self._new, functions, offsets, stream):
                    yield line
        finally:
            for function in functions:
                self._unfollow(function, event)

    def _unfollow(self, function: str, event: asyncio.Event) -> None:
        followers = self._followers[function]
        followers.discard(event)
        if not followers:
            del self._followers[function]

    def _paths(self, functions: Sequence[str], stream: str) -> list[Path]:
        beginning = stream.replace("/", "_")
        paths: list[Path] = []
        for function in functions:
            with contextlib.suppress(OSError):
                paths += (path for path in (self._folder / function).iterdir() if path.name.startswith(beginning))
        return sorted(paths)

    def _last(self, functions: Sequence[str], count: int, offsets: dict[Path, int], stream: str) -> list[Line]:
        newest: deque[Line] = deque(maxlen=max(0, count))
        parts = []
        for path in self._paths(functions, stream):
            with contextlib.suppress(OSError):
                size = path.stat().st_size
                offsets[path] = size
                parts.append(_parse(path, max(0, size - READ_BACK_BYTES), size, count))
        newest.extend(heapq.merge(*parts, key=lambda line: line[0]))
        return list(newest)

    def _new(self, functions: Sequence[str], offsets: dict[Path, int], stream: str) -> list[Line]:
        parts = []
        paths = self._paths(functions, stream)
        rotated = [path for path in paths if _ROTATED.search(path.name)]
        for path in (*rotated, *(path for path in paths if path not in rotated)):
            with contextlib.suppress(OSError):
                if path not in offsets and path in rotated:  # what was read of it, was read under its first name
                    offsets[path] = offsets.pop(path.with_name(path.name.rpartition(".")[0]), 0)
                size = path.stat().st_size
                start = offsets.get(path, 0)
                if size > start:
                    parts.append(_parse(path, start, size, None))
                offsets[path] = size
        return list(heapq.merge(*parts, key=lambda line: line[0]))


def _parse(path: Path, start: int, end: int, count: int | None) -> list[Line]:
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(end - start)
    rows = data.split(b"\n")[:-1]
    if start and count is not None:
        rows = rows[1:]  # began in the middle of a line
    if count is not None:
        rows = rows[len(rows) - min(len(rows), count) :]
    stream = re.sub(r"\.log(\.\d+)?$", "", path.name)
    date, _, rest = stream.partition("[")
    stream = date.replace("_", "/", 3) + "[" + rest if rest else stream
    return [line for row in rows for line in _lines(row, stream)]


def _lines(row: bytes, stream: str) -> Iterator[Line]:
    stamp, _, text = row.partition(b" ")
    try:
        at = datetime.fromisoformat(stamp.decode()).timestamp()
    except ValueError:
        return
    decoded = text.decode(errors="backslashreplace").rstrip("\r")
    # AWS's runtimes join the lines of one record by carriage returns: Python's of an error, Node's of any.
    parts = decoded.split("\r") if JOINED_LINES.match(decoded) else [decoded]
    for part in parts:
        yield at, stream, shown(part)
