"""What is asked of a function, what came of it, and the history of both."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class InvocationType(StrEnum):
    """AWS's invocation types (API_Invoke)."""

    EVENT = "Event"
    REQUEST_RESPONSE = "RequestResponse"
    DRY_RUN = "DryRun"


class ResultKind(StrEnum):
    """How an invocation that was accepted ended."""

    OK = "ok"
    FUNCTION_ERROR = "function_error"
    """The function's own fault: raise, timeout, exit, memory, oversize or unserialisable answer."""
    UNKNOWN = "unknown"
    """It may or may not have run to its end (reset after send, daemon's own fault)."""


class Condition(StrEnum):
    """Why an asynchronous event left its queue (AWS destination record `condition`, semantics 2.3)."""

    SUCCESS = "Success"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"
    ZERO_RESERVED_CONCURRENCY = "ZeroReservedConcurrency"
    FUNCTION_NOT_FOUND = "FunctionNotFound"
    """Ours: the function or qualifier was removed while the event waited."""
    RETRY_ATTEMPTS_EXHAUSTED = "RetryAttemptsExhausted"
    """Of event source mappings, which have words of their own (semantics 3.10)."""
    RECORD_AGE_EXCEEDED = "RecordAgeExceeded"
    RECORD_TOO_LARGE = "RecordTooLarge"
    """Ours: a single record makes an event above 6 MB, or an event is larger than its remote function takes."""
    RECURSIVE_LOOP = "RecursiveLoop"
    """Ours: the function was too often in what led to it, and was not run (AWS's word is not known)."""
    RECORD_DAMAGED = "RecordDamaged"
    """Ours: the disk gave other bytes back than were stored; the function never saw them."""


NO_ANSWER: Final = "Remote.NoAnswer"
"""Error type of an invocation elsewhere that was given up: no answer came in time."""
THROTTLE_RESERVED: Final = "ReservedFunctionConcurrentInvocationLimitExceeded"
THROTTLE_ACCOUNT: Final = "ConcurrentInvocationLimitExceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One run of one event that a runtime is asked for."""

    request_id: str
    """UUID; the same on every retry, redrive and replay of an event."""
    payload: bytes
    """The event's JSON, the original bytes."""
    invoked_arn: str
    """Function ARN as called: without qualifier, with `:alias` or with `:N`."""
    client_context: bytes = b""
    """JSON text, empty when none."""
    deadline_s: float | None = None
    """Overrides the function's timeout when shorter (seconds from start)."""
    is_awaited: bool = False
    """A caller waits for the answer: it is never handed over."""
    wait_max_s: float | None = None
    """How long it waits for a worker before it is refused; None: as long as it takes."""
    ahead: bool = False
    """May be sent to a busy worker ahead of time (asynchronous and stream work only)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationResult:
    """How one accepted invocation ended."""

    kind: ResultKind
    payload: bytes
    """Serialised answer, or the error JSON of semantics 1.4 for a function error."""
    version: str
    """Version that ran: `$LATEST` or a number."""
    duration_ms: float = 0.0
    billed_ms: int = 0
    memory_used_mb: int = 0
    init_ms: float | None = None
    """Only on a cold start."""
    error_type: str = ""
    error_message: str = ""
    """First 1,024 characters."""
    log_tail: bytes = b""
    """The last 4,096 bytes of this invocation's log, START, END and REPORT included."""
    log_stream: str = ""
    handed_over: bool = False
    """The remote's own asynchronous queue has the event; how it ends is known there alone."""

    @property
    def is_ok(self) -> bool:
        """True when the handler returned."""
        return self.kind is ResultKind.OK

    @property
    def is_late(self) -> bool:
        """True when no answer came in time: it may run to its end yet."""
        return self.kind is ResultKind.UNKNOWN and self.error_type == NO_ANSWER


class AttemptStatus(StrEnum):
    """What an attempt left behind: the status of a row of the outcomes log."""

    STARTED = "started"
    """Written before invoking, from the second attempt on: a batch that kills the daemon is counted."""
    OK = "ok"
    FAILED = "failed"
    """Function error; the event was parked for a retry."""
    DEAD = "dead"
    """Final failure: the event is a dead letter."""
    UNKNOWN = "unknown"
    """System error or unknown outcome: tried again, not counted."""
    ERROR = "error"
    """Function error of a synchronous invocation: its caller has it, nothing is tried again."""
    REPLAYED_OK = "replayed_ok"
    REPLAYED_FAILED = "replayed_failed"
    SENT = "sent"
    """No attempt: a target took the record of how it ended; `error_type` says for which setting, `error_message` where
    it went. `tries` leaves it out."""
    HANDED_OVER = "handed_over"
    """The remote function's own asynchronous queue has the event (`handover = true`): done, for us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row of an event's history, as `bridge events show` prints it."""

    position: int
    """Journal position of the event; -1 when it has none (redriven from a file)."""
    request_id: str
    function: str
    """Target as written: `name[:qualifier]`."""
    number: int
    """1 for the first attempt."""
    status: AttemptStatus
    started_at: float
    """Wall clock, epoch seconds."""
    duration_ms: float = 0.0
    version: str = ""
    error_type: str = ""
    error_message: str = ""
    log_tail: bytes = b""
    log_stream: str = ""
    replay: str = ""
    """Name of the replay or redrive that ran it; empty for live delivery."""


def tries(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return the rows of a history that are attempts, not what became of their records."""
    return [attempt for attempt in attempts if attempt.status is not AttemptStatus.SENT]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that could not be handled, whole, with why."""

    id: str
    """Request id of the event."""
    queue: str
    """`default`, or `replay:NAME` for the failures of a replay."""
    function: str
    source: str
    received_at: float
    dead_at: float
    condition: Condition
    attempts: int
    """approximateInvokeCount of semantics 2.3: attempts that ran, over all redrives."""
    payload: bytes
    position: int = -1
    client_context: bytes = b""
    error_type: str = ""
    error_message: str = ""
    response: bytes = b""
    """The last error payload, empty when the function never ran."""
    state: str = "dead"
    """`dead` (waiting for a person), `redriving` (parked again) or `waiting` (its targets have not taken it yet)."""
    redrives: int = 0
    history: tuple[Attempt, ...] = field(default=())
    mapping: str = ""
    """Name of the event source mapping whose records these are; empty for asynchronous events. Then `payload` is the
    event with all discarded records, `id` one made for it, `source` the mapping's name."""
    item_failures: bool = False
    """Whether the function's answer names the records that failed (ReportBatchItemFailures): a redrive looks at it."""
    outcome: bytes = b""
    """AWS's record of the failure (semantics 3.10, without `payload`); of an asynchronous event (2.3, without payloads)
    only where it is sent to a destination, else empty."""
