"""What an invocation leaves behind: AWS's error payloads (semantics 1.4) and platform log lines (semantics 6.6)."""

import signal
from dataclasses import dataclass, replace
from typing import Final

import orjson

from bridge.core import limits
from bridge.core.invocation import InvocationResult, ResultKind

ERROR_MESSAGE_MAX_CHARS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A function error that the worker could not report itself."""

    error_type: str
    text: str
    """Without request id: `Task timed out after 1.00 seconds`."""
    status: str
    """Word of the REPORT line: `timeout` or `error`."""

    @property
    def report_status(self) -> str:
        """What the REPORT line says after `Status: `."""
        return self.status if self.status == "timeout" else error_status(self.error_type)

    def payload(self, request_id: str) -> bytes:
        """Return the error JSON."""
        return orjson.dumps(
            {
                "errorType": self.error_type,
                "errorMessage": f"RequestId: {request_id} Error: {self.text}",
            }
        )

    def log_line(self, request_id: str, *, time_text: bytes) -> bytes:
        """Return the platform's line."""
        if self.status == "timeout":
            return time_text + f"{request_id} {self.text}\n\n".encode()
        return f"RequestId: {request_id} Error: {self.text}\n{self.error_type}\n".encode()


ERROR_TYPE: Final = "\tError Type: "


def error_status(error_type: str) -> str:
    """Return what a REPORT line says after `Status: ` when the environment ended with an error."""
    return f"error{ERROR_TYPE}{error_type}" if error_type else "error"


def timed_out(timeout_s: float) -> Failure:
    """Return the failure of a timeout, in the words of today's recordings."""
    return Failure(
        error_type="Sandbox.Timedout", text=f"Task timed out after {timeout_s:.2f} seconds", status="timeout"
    )


def exited(status: int) -> Failure:
    """Return the failure of a worker that ended by itself, from its wait status."""
    number = status & 0x7F
    if number:
        words = {signal.SIGKILL: "killed", signal.SIGSEGV: "segmentation fault", signal.SIGABRT: "aborted"}
        name = words.get(number, signal.strsignal(number) or str(number))  # type: ignore[call-overload]
        text = f"Runtime exited with error: signal: {str(name).lower()}"
    elif code := status >> 8 & 0xFF:
        text = f"Runtime exited with error: exit status {code}"
    else:
        text = "Runtime exited without providing a reason"
    return Failure(error_type="Runtime.ExitError", text=text, status="error")


KILLED: Final = exited(signal.SIGKILL)
OUT_OF_MEMORY: Final = replace(KILLED)
"""Its own limit broken, in the same words; told apart by identity: one with `KILLED` itself may tell its extensions."""
GARBLED: Final = replace(KILLED)
TOO_MANY_PROCESSES: Final = Failure(
    error_type=KILLED.error_type,
    text=f"{KILLED.text} (more than {limits.PROCESS_TREE_MAX} processes)",
    status=KILLED.status,
)


def init_report(init_ms: float, *, in_invocation: bool, status: str, error_type: str = "") -> bytes:
    """Return the line of an init that did not end well, as AWS writes it.

    Args:
        init_ms: how long it ran.
        in_invocation: it ran inside an invocation, because the one before it had failed.
        status: `timeout` or `error`.
        error_type: e.g. Runtime.ImportModuleError; empty for a timeout.
    """
    phase = "invoke" if in_invocation else "init"
    error = ERROR_TYPE + error_type if error_type else ""
    return f"INIT_REPORT Init Duration: {init_ms:.2f} ms\tPhase: {phase}\tStatus: {status}{error}\n".encode()


def error_fields(payload: bytes) -> tuple[str, str]:
    """Return type and message (first 1,024 characters) of an error payload; empty where it has none."""
    try:
        error = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("errorType", "")), str(error.get("errorMessage", ""))[:ERROR_MESSAGE_MAX_CHARS]


def platform_failure(payload: bytes) -> Failure | None:
    """Return the failure of an init that is told in AWS's own words; None: the function's words."""
    try:
        error = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(error, dict) or "platformText" not in error:
        return None
    return Failure(error_type=str(error.get("errorType", "")), text=str(error["platformText"]), status="error")


def start_line(request_id: str, version: str) -> bytes:
    """Return the START line."""
    return f"START RequestId: {request_id} Version: {version}\n".encode()


def billed(duration_ms: float) -> int:
    """Return the billed duration: rounded up to whole milliseconds, one at least."""
    return -int(-duration_ms // 1) or 1


class Report:
    """What the REPORT line of an invocation says."""

    __slots__ = ("billed_ms", "duration_ms", "init_ms", "memory_mb", "status", "used_mb")

    def __init__(
        self, duration_ms: float, memory_mb: int, used_mb: int, init_ms: float | None, status: str = ""
    ) -> None:
        self.duration_ms = duration_ms
        self.billed_ms = billed(duration_ms)
        self.memory_mb = memory_mb
        self.used_mb = used_mb
        self.init_ms = init_ms
        """Only on a cold start."""
        self.status = status
        """`timeout`, `error` or `error<tab>Error Type: …`; empty otherwise."""

    def lines(self, request_id: str) -> bytes:
        """Return the END and REPORT lines."""
        name = request_id.encode()
        rest = "" if self.init_ms is None else f"Init Duration: {self.init_ms:.2f} ms\t"
        if self.status:
            rest += f"Status: {self.status}\t"
        figures = (self.duration_ms, self.billed_ms, self.memory_mb, self.used_mb, rest.encode())
        return _END % (name, name, *figures)


_END: Final = (
    b"END RequestId: %b\nREPORT RequestId: %b\tDuration: %.2f ms\tBilled Duration: %d ms\t"
    b"Memory Size: %d MB\tMax Memory Used: %d MB\t%b\n"
)


def quiet_lines(version: str, memory_mb: int) -> bytes:
    """Return a template of START, END and REPORT: request id three times, duration, billed, used memory."""
    figures = f"\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: {memory_mb} MB\tMax Memory Used: %d MB\t\n"
    start = f"START RequestId: %b Version: {version}\n"
    return f"{start}END RequestId: %b\nREPORT RequestId: %b{figures}".encode()


# Through the slots: the __init__ of a frozen dataclass looks up object.__setattr__ for each field, which is a
# third of all that the daemon does for a warm invocation (3.5 us instead of 1.0).
_new: Final = object.__new__
_set: Final = {name: getattr(InvocationResult, name).__set__ for name in InvocationResult.__slots__}
_set_kind, _set_payload, _set_version = _set["kind"], _set["payload"], _set["version"]
_set_duration, _set_billed, _set_used = _set["duration_ms"], _set["billed_ms"], _set["memory_used_mb"]
_set_init, _set_type, _set_message = _set["init_ms"], _set["error_type"], _set["error_message"]
_set_tail, _set_stream, _set_handed = _set["log_tail"], _set["log_stream"], _set["handed_over"]
assert len(_set) == 12, "InvocationResult has other fields than result() sets"


def result(
    version: str,
    duration_ms: float,
    *,
    billed_ms: int,
    used_mb: int,
    init_ms: float | None,
    kind: ResultKind,
    payload: bytes,
    log_tail: bytes,
    log_stream: str,
) -> InvocationResult:
    """Return the value that the caller gets; the fields are those of `InvocationResult`."""
    error_type, message = ("", "") if kind is ResultKind.OK else error_fields(payload)
    made = _new(InvocationResult)
    _set_kind(made, kind)
    _set_payload(made, payload)
    _set_version(made, version)
    _set_duration(made, duration_ms)
    _set_billed(made, billed_ms)
    _set_used(made, used_mb)
    _set_init(made, init_ms)
    _set_type(made, error_type)
    _set_message(made, message)
    _set_tail(made, log_tail)
    _set_stream(made, log_stream)
    _set_handed(made, False)
    return made
