"""Structured logs on standard error: one line an entry, secrets masked, control characters escaped.

No payload is ever logged: bytes show as their length, and whoever logs passes ids, names and numbers. What reaches
the log all the same is masked here: values registered with `register_secret`, and every field whose name says secret.
"""

import contextlib
import datetime as dt
import functools
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from bridge.util.text import escape

__all__ = ["LEVELS", "configure", "escape", "forget_secrets", "mask", "register_secret", "to_standard_logging"]

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MASK: Final = "***"
SECRET_MIN_CHARS: Final = 4
"""Shorter values are not masked: every other word would become `***`."""
_SECRET_LINE_MIN_CHARS: Final = 16
_VALUE_MAX_CHARS: Final = 8192
_DEPTH_MAX: Final = 6
_ITEMS_MAX: Final = 100
_SECRET_NAME: Final = re.compile(
    r"authorization|cookie|passw|secret|signature|token\Z|api_?key|private_?key|credential", re.IGNORECASE
)
_QUIET: Final = ("asyncio", "watchfiles")
_FIRST: Final = ("timestamp", "level", "event", "logger")

_lock: Final = threading.Lock()
_secrets: set[str] = set()
_pattern: re.Pattern[str] | None = None


# --- secrets --------------------------------------------------------------------------------------------------------
def register_secret(value: str | bytes) -> None:
    """Mask `value` in every later log entry; of a text of several lines (a PEM key) each long line too.

    Values below `SECRET_MIN_CHARS` characters are ignored. Safe from any thread; twice is fine.
    """
    global _pattern  # noqa: PLW0603 - one set of secrets a process, by design
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    parts = {text, text.strip(), *(line for line in text.splitlines() if len(line) >= _SECRET_LINE_MIN_CHARS)}
    wanted = {part for part in parts if len(part) >= SECRET_MIN_CHARS and not part.startswith("-----")}
    wanted |= {part for part in (text,) if len(part) >= SECRET_MIN_CHARS}
    with _lock:
        if wanted <= _secrets:
            return
        _secrets.update(wanted)
        longest_first = sorted(_secrets, key=len, reverse=True)
        _pattern = re.compile("|".join(map(re.escape, longest_first)))


def forget_secrets() -> None:
    """Forget all registered secrets (tests)."""
    global _pattern  # noqa: PLW0603 - see register_secret
    with _lock:
        _secrets.clear()
        _pattern = None


def mask(text: str) -> str:
    """Return `text` with every registered secret replaced by `***`."""
    return text if _pattern is None else _pattern.sub(MASK, text)


# --- from an entry to a line ----------------------------------------------------------------------------------------
def _clean(value: object, depth: int = 0) -> Any:
    """Return `value` as plain JSON values: masked, escaped, bounded; bytes only as their length."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth < _DEPTH_MAX and isinstance(value, Mapping):
        return {escape(mask(str(key))): _field(str(key), item, depth + 1) for key, item in _first(value.items())}
    if depth < _DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in _first(value)]
    text = value if isinstance(value, str) else str(value)
    text = escape(mask(text))
    return text if len(text) <= _VALUE_MAX_CHARS else text[:_VALUE_MAX_CHARS] + "..."


def _first(items: Any) -> Any:
    return list(items)[:_ITEMS_MAX]


def _field(key: str, value: object, depth: int = 0) -> Any:
    if _SECRET_NAME.search(key) and value not in (None, "", b"") and not isinstance(value, bool):
        return MASK
    return _clean(value, depth)


def _stamp(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    """Add time (UTC, milliseconds), level and the logger's name."""
    now = dt.datetime.now(dt.UTC)
    entry["timestamp"] = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    entry["level"] = "error" if method == "exception" else {"warn": "warning"}.get(method, method)
    name = getattr(logger, "name", "")
    if name:
        entry.setdefault("logger", name)
    return entry


def _traceback(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Turn `exc_info` into text now, so that masking sees it."""
    return structlog.processors.format_exc_info(_logger, _method, entry)


def _sanitise(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    exception = entry.pop("exception", None)
    cleaned: EventDict = {escape(mask(str(key))): _field(str(key), value) for key, value in entry.items()}
    if exception is not None:
        lines = [escape(mask(line)) for line in mask(str(exception)).splitlines()]
        cleaned["exception"] = "\n".join(lines)[: 4 * _VALUE_MAX_CHARS]
    return cleaned


def _as_json(_logger: WrappedLogger, _method: str, entry: EventDict) -> str:
    ordered = {key: entry[key] for key in _FIRST if key in entry} | dict(entry)
    return orjson.dumps(ordered, option=orjson.OPT_NON_STR_KEYS).decode("utf-8")


def _as_console(colours: bool) -> Callable[[WrappedLogger, str, EventDict], str]:  # noqa: FBT001 - internal
    tints = {"debug": "2", "info": "32", "warning": "33", "error": "31"} if colours else {}

    def render(_logger: WrappedLogger, _method: str, entry: EventDict) -> str:
        exception = entry.pop("exception", None)
        entry.pop("logger", None)
        at = dt.datetime.fromisoformat(entry.pop("timestamp")).astimezone()
        level = str(entry.pop("level"))
        word = f"{level:<7}"
        if level in tints:
            word = f"\x1b[{tints[level]}m{word}\x1b[0m"
        event = str(entry.pop("event", ""))
        pairs = " ".join(f"{key}={_shown(value)}" for key, value in entry.items())
        line = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {word} {event}{'  ' if pairs else ''}{pairs}"
        if exception is not None:  # set in, so that no line of it can pass for an entry
            line += "".join(f"\n    | {part}" for part in str(exception).split("\n"))
        return line

    return render


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value if value and not re.search(r'[\s"=]', value) else orjson.dumps(value).decode("utf-8")
    return orjson.dumps(value).decode("utf-8")


# --- where lines go -------------------------------------------------------------------------------------------------
class _Lines:
    """The end of the chain: writes whole lines; a log that cannot be written never stops the daemon."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.name = name
        self._stream = stream

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # closed or full: there is nowhere left to say so
            return

    msg = log = debug = info = warn = warning = error = critical = exception = fatal = failure = err = _write


class _Routed(logging.Handler):
    """Sends the standard library's log records down the same chain."""

    def emit(self, record: logging.LogRecord) -> None:
        method = (
            "error" if record.levelno >= 40 else {10: "debug", 20: "info", 30: "warning"}.get(record.levelno, "info")
        )
        try:
            text = record.getMessage()
        except (
            TypeError,
            ValueError,
        ):  # arguments that do not fit their format are the caller's bug, not the daemon's end
            text = str(record.msg)
        extra = {"exc_info": record.exc_info} if record.exc_info else {}
        getattr(structlog.get_logger(record.name), method)(text, **extra)


def configure(*, level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Set the whole process's logging; may be called again (reload).

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json` (one object a line), `console` (for people; colours only on a terminal), or `auto`
            (console on a terminal, else json).
        stream: where lines go; standard error by default.

    Raises:
        ValueError: unknown level or style.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r}: one of {', '.join(LEVELS)}")
    if style not in ("auto", "json", "console"):
        raise ValueError(f"log format {style!r}: one of auto, json, console")
    out = stream if stream is not None else (sys.stderr or io.StringIO())
    if style == "auto":
        style = "console" if out.isatty() else "json"
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")
    render = _as_json if style == "json" else _as_console(_has_colours(out))
    processors: Sequence[Any] = [structlog.contextvars.merge_contextvars, _stamp, _traceback, _sanitise, render]
    structlog.configure(
        processors=list(processors),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *names: _Lines(out, str(names[0]) if names else ""),
        cache_logger_on_first_use=False,  # a reload may change the level
    )
    root = logging.getLogger()
    root.handlers[:] = [_Routed()]
    root.setLevel(LEVELS[level])
    for name in _QUIET:  # chatty below warning, and nothing in it that our own entries do not say
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
        other.setLevel(max(LEVELS[level], logging.WARNING))
    logging.captureWarnings(capture=True)


def _has_colours(stream: TextIO) -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


# --- inside of somebody else's process ------------------------------------------------------------------------------
@contextlib.contextmanager
def to_standard_logging() -> Iterator[None]:
    """Send our entries to the standard library's logger `bridge`; whatever structlog was set to do comes back after."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=[_handed_on],
        wrapper_class=_wrapper(logging.getLogger("bridge").getEffectiveLevel()),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


@functools.cache
def _wrapper(level: int) -> Any:
    return structlog.make_filtering_bound_logger(level)


def _handed_on(_logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    level = LEVELS.get({"warn": "warning"}.get(method, method), logging.ERROR)
    exc_info = entry.pop("exc_info", None)
    pairs = " ".join(f"{key}={mask(str(value))}" for key, value in entry.items() if key != "event")
    logging.getLogger("bridge").log(level, "%s %s", entry.get("event", ""), pairs, exc_info=exc_info)
    raise structlog.DropEvent
