"""What an invocation leaves behind: AWS's error payloads (semantics 1.4) and platform log lines (semantics 6.6)."""

import math
import signal
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.core.function import FunctionVersion
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

    def payload(self, request_id: str) -> bytes:
        """Return the error JSON."""
        return orjson.dumps(
            {
                "errorType": self.error_type,
                "errorMessage": f"RequestId: {request_id} Error: {self.text}",
            }
        )

    def log_line(self, request_id: str, *, time_text: str) -> bytes:
        """Return the platform's line."""
        if self.status == "timeout":
            return f"{time_text} {request_id} {self.text}\n\n".encode()
        return f"RequestId: {request_id} Error: {self.text}\n{self.error_type}\n".encode()


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
INIT_TIMEOUT_LINE: Final = b"INIT_REPORT Init Duration: 10000.00 ms\tPhase: init\tStatus: timeout\n"


def error_fields(payload: bytes) -> tuple[str, str]:
    """Return type and message (first 1,024 characters) of an error payload; empty where it has none."""
    try:
        error = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("errorType", "")), str(error.get("errorMessage", ""))[:ERROR_MESSAGE_MAX_CHARS]


def start_line(request_id: str, version: str) -> bytes:
    """Return the START line."""
    return f"START RequestId: {request_id} Version: {version}\n".encode()


def end_lines(
    request_id: str, *, duration_ms: float, memory_mb: int, used_mb: int, init_ms: float | None, status: str
) -> bytes:
    """Return the END and REPORT lines."""
    line = (
        f"END RequestId: {request_id}\nREPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\t"
        f"Billed Duration: {billed(duration_ms)} ms\tMemory Size: {memory_mb} MB\tMax Memory Used: {used_mb} MB\t"
    )
    if init_ms is not None:
        line += f"Init Duration: {init_ms:.2f} ms\t"
    if status:
        line += f"Status: {status}\t"
    return f"{line}\n".encode()


def billed(duration_ms: float) -> int:
    """Return the billed duration: rounded up to whole milliseconds, one at least."""
    return max(1, math.ceil(duration_ms))


def result(
    version: FunctionVersion,
    *,
    kind: ResultKind,
    payload: bytes,
    duration_ms: float,
    used_mb: int,
    init_ms: float | None,
    log_tail: bytes,
    log_stream: str,
) -> InvocationResult:
    """Return the value that the caller gets."""
    error_type, message = ("", "") if kind is ResultKind.OK else error_fields(payload)
    return InvocationResult(
        kind=kind,
        payload=payload,
        version=version.version,
        duration_ms=duration_ms,
        billed_ms=billed(duration_ms),
        memory_used_mb=used_mb,
        init_ms=init_ms,
        error_type=error_type,
        error_message=message,
        log_tail=log_tail,
        log_stream=log_stream,
    )
