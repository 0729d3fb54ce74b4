"""What the platform writes into a function's log, as text (semantics 6.6) or as JSON (semantics 6.7)."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson

from bridge.core import logging_config
from bridge.core.function import FunctionVersion
from bridge.runtime import results
from bridge.runtime.logs import TimeText
from bridge.runtime.results import Failure, Report

_DEBUG, _INFO, _WARN = range(3)
_SUCCESS: Final = "success"
_LEVELS: Final = {name: rank for rank, name in enumerate(logging_config.APPLICATION_LEVELS)} | {
    "WARNING": logging_config.APPLICATION_LEVELS.index("WARN"),
    "CRITICAL": logging_config.APPLICATION_LEVELS.index("FATAL"),
}


class PlatformLines(Protocol):
    """Each method returns whole lines, none at all where the level leaves them out. `at` is epoch seconds."""

    filters: bool
    """`kept` may leave something out."""

    def start(self, request_id: str, *, at: float) -> bytes:
        """An invocation starts."""
        ...

    def quiet(self, request_id: str, duration_ms: float, billed_ms: int, used_mb: int, *, at: float) -> bytes:
        """An invocation that wrote nothing started and ended well, on a worker that was warm."""
        ...

    def end(self, request_id: str, report: Report, *, at: float) -> bytes:
        """An invocation has ended."""
        ...

    def failure(self, failure: Failure, request_id: str, *, time_text: bytes) -> bytes:
        """The platform ended an invocation; `end` follows."""
        ...

    def init_failed(self, init_ms: float, *, in_invocation: bool, status: str, error_type: str, at: float) -> bytes:
        """An init did not end well."""
        ...

    def initialised(self, init_ms: float, *, at: float) -> bytes:
        """An init has ended well."""
        ...

    def kept(self, lines: bytes) -> bytes:
        """Return what is kept of whole lines that the function wrote."""
        ...


def platform_lines(version: FunctionVersion) -> PlatformLines:
    """Return the lines in a version's format."""
    return JsonLines(version) if version.logging.is_json else TextLines(version)


class TextLines:
    """START, END and REPORT."""

    filters = False

    def __init__(self, version: FunctionVersion) -> None:
        self._version = version.version
        self._quiet = results.quiet_lines(version.version, version.memory_mb)

    def start(self, request_id: str, *, at: float) -> bytes:  # noqa: ARG002
        """See `PlatformLines`."""
        return results.start_line(request_id, self._version)

    def quiet(self, request_id: str, duration_ms: float, billed_ms: int, used_mb: int, *, at: float) -> bytes:  # noqa: ARG002
        """See `PlatformLines`."""
        name = request_id.encode()
        return self._quiet % (name, name, name, duration_ms, billed_ms, used_mb)

    def end(self, request_id: str, report: Report, *, at: float) -> bytes:  # noqa: ARG002
        """See `PlatformLines`."""
        return report.lines(request_id)

    def failure(self, failure: Failure, request_id: str, *, time_text: bytes) -> bytes:
        """See `PlatformLines`."""
        return failure.log_line(request_id, time_text=time_text)

    def init_failed(
        self,
        init_ms: float,
        *,
        in_invocation: bool,
        status: str,
        error_type: str,
        at: float,  # noqa: ARG002
    ) -> bytes:
        """See `PlatformLines`."""
        return results.init_report(init_ms, in_invocation=in_invocation, status=status, error_type=error_type)

    def initialised(self, init_ms: float, *, at: float) -> bytes:  # noqa: ARG002
        """See `PlatformLines`."""
        return b""

    def kept(self, lines: bytes) -> bytes:
        """See `PlatformLines`."""
        return lines


class JsonLines:
    """`platform.start`, `platform.report` and so on, each at its level (monitoring-cloudwatchlogs-log-level.html)."""

    def __init__(self, version: FunctionVersion) -> None:
        self._version = version.version
        self._memory_mb = version.memory_mb
        self._least = logging_config.SYSTEM_LEVELS.index(version.logging.system_level)
        self._least_written = _LEVELS[version.logging.application_level]
        self.filters = self._least_written > 0
        self._time_text = TimeText()

    def start(self, request_id: str, *, at: float) -> bytes:
        """See `PlatformLines`."""
        return self._line(_INFO, "start", {"requestId": request_id, "version": self._version}, at)

    def quiet(self, request_id: str, duration_ms: float, billed_ms: int, used_mb: int, *, at: float) -> bytes:
        """See `PlatformLines`."""
        del billed_ms  # the report counts it again
        report = Report(duration_ms, self._memory_mb, used_mb, None)
        return self.start(request_id, at=at) + self.end(request_id, report, at=at)

    def end(self, request_id: str, report: Report, *, at: float) -> bytes:
        """See `PlatformLines`."""
        status, _, error_type = report.status.partition(results.ERROR_TYPE)
        ended = {"status": status or _SUCCESS} | ({"errorType": error_type} if error_type else {})
        metrics: dict[str, Any] = {
            "durationMs": round(report.duration_ms, 2),
            "billedDurationMs": report.billed_ms,
            "memorySizeMB": report.memory_mb,
            "maxMemoryUsedMB": report.used_mb,
        }
        if report.init_ms is not None:
            metrics["initDurationMs"] = round(report.init_ms, 2)
        done = {"requestId": request_id, **ended, "metrics": {"durationMs": metrics["durationMs"]}}
        return self._line(_WARN if status else _DEBUG, "runtimeDone", done, at) + self._line(
            _WARN if status else _INFO, "report", {"requestId": request_id, "metrics": metrics, **ended}, at
        )

    def failure(self, failure: Failure, request_id: str, *, time_text: bytes) -> bytes:
        """See `PlatformLines`: `end` says it all."""
        del failure, request_id, time_text
        return b""

    def init_failed(self, init_ms: float, *, in_invocation: bool, status: str, error_type: str, at: float) -> bytes:
        """See `PlatformLines`."""
        ended = {"status": status} | ({"errorType": error_type} if error_type else {})
        return self._init(_WARN, init_ms, "invoke" if in_invocation else "init", ended, at)

    def initialised(self, init_ms: float, *, at: float) -> bytes:
        """See `PlatformLines`."""
        return self._init(_DEBUG, init_ms, "init", {"status": _SUCCESS}, at)

    def _init(self, level: int, init_ms: float, phase: str, ended: Mapping[str, str], at: float) -> bytes:
        record = {"initializationType": "on-demand", "phase": phase, **ended}
        return self._line(level, "initReport", {**record, "metrics": {"durationMs": round(init_ms, 2)}}, at)

    def _line(self, level: int, kind: str, record: Mapping[str, Any], at: float) -> bytes:
        if level < self._least:
            return b""
        found = {"time": self._time_text(at)[:-1].decode(), "type": f"platform.{kind}", "record": record}
        return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)

    def kept(self, lines: bytes) -> bytes:
        """Leave out JSON objects of a lower level; one that has no level AWS knows counts as INFO, text stays."""
        return b"".join(line for line in lines.splitlines(keepends=True) if self._is_kept(line))

    def _is_kept(self, line: bytes) -> bool:
        if not line.startswith(b"{"):
            return True
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            return True
        level = found.get("level", found.get("log_level"))  # the runtime's own word for an error that nobody caught
        rank = _LEVELS.get(level.upper()) if isinstance(level, str) else None
        return (_LEVELS[logging_config.LEVEL_DEFAULT] if rank is None else rank) >= self._least_written
