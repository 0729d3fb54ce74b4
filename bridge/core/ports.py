"""The seams: what each layer may ask of another. A docstring here is the contract its suite tests."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bridge.core.function import FunctionVersion
from bridge.core.invocation import Attempt, DeadLetter, Invocation, InvocationResult
from bridge.core.record import DamagedRecord, Parked, Record


class Clock(Protocol):
    """Time, owned by tests. While running, wall time = wall at start + monotonic; a step is reported."""

    def time(self) -> float:
        """Wall clock, epoch seconds; never goes backwards while the daemon runs."""
        ...

    def stepped(self) -> float:
        """The system's own wall clock, steps included: only for signature windows."""
        ...

    def monotonic(self) -> float:
        """Seconds that only move forward: deadlines and delays."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Sleep; cancellable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which stored events: half-open in time, every given field must match."""

    since: float | None = None
    """Epoch seconds, inclusive."""
    until: float | None = None
    """Epoch seconds, exclusive."""
    source: str | None = None
    function: str | None = None
    """Function name without qualifier."""
    ids: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True, eq=False)
class SourcePage:
    """Event records of one source as columns of one length, in order of position: no object per record."""

    positions: list[int]
    times_ms: list[int]
    """received_at, epoch milliseconds."""
    ids: list[str]
    keys: list[bytes]
    """As stored (`Record.key`); empty where its source gave none."""
    payloads: list[bytes]
    through: int
    """Everything of the source up to this position was looked at."""
    damaged: list[DamagedRecord] = field(default_factory=list)
    """What lies among them and is damaged on disk, in order of position; of one whose name cannot be read any more it
    is just likely that it is the source's."""


class Journal(Protocol):
    """The append-only log of stored events. One writer; readers see only what is synced."""

    async def append(self, record: Record) -> Record:
        """Store `record` and return it with its position, once it is durable (group commit).

        `received_at` may be raised so that journal times never go backwards.

        Cancel-safe in this sense: after a cancel the record may be stored or not; the caller must then
        answer neither yes nor no (close the connection).

        Raises:
            StoreFull: no space; nothing was stored.
            StoreError: an fsync failed; the journal is closed and the daemon must exit.
        """
        ...

    def on_commit(self, callback: Callable[[Sequence[Record]], None]) -> None:
        """Call back on the loop, once per commit group, before any append of the group returns.

        It gets the group's appended records (not the archived ones) in order of position, whether or not
        their callers still wait: this is how lanes learn of events.
        """
        ...

    def on_refuse(self, callback: Callable[[Sequence[Record]], None]) -> None:
        """Call back on the loop with appended records that are not stored, before their appends raise.

        So each append that was begun is told of once, by this or by `on_commit`, whether or not its caller still
        waits: what was reserved for it ends there.
        """
        ...

    def archive(self, record: Record) -> None:
        """Store a RequestResponse event without waiting for the disk; dropped (and counted) when full."""
        ...

    def read(self, position: int) -> Record | None:
        """Return the record at `position`; None once retention took it. A damaged one is a DamagedRecord.

        Blocking, microseconds.
        """
        ...

    def find(self, request_id: str) -> Record | None:
        """Return the record with that id, newest first; None when it is not kept. May block for milliseconds."""
        ...

    def scan(
        self,
        selection: Selection,
        *,
        after: int = -1,
        chunk: int = 512,
        reverse: bool = False,
        on_damage: Callable[[Sequence[int]], object] | None = None,
    ) -> AsyncIterator[Sequence[Record]]:
        """Yield synced records of `selection` in chunks, oldest first (newest first if `reverse`).

        `after`: only positions above it. Reads happen off the loop. Records that retention takes during
        the scan are left out. So are damaged ones, whose positions `on_damage` is told, from another thread.
        """
        ...

    def positions(self, lane: str, *, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return up to `limit` (position, payload bytes) of a lane's Event records above `after`, in order.

        From the index alone. An event that retention moved to a hold file is still found.
        """
        ...

    def source_positions(self, source: str, *, after: int, limit: int) -> Sequence[tuple[int, int]]:
        """Return the same of a source's Event records, whatever function they are for. Blocks for milliseconds."""
        ...

    def source_page(
        self, source: str, *, after: int, limit: int, bytes_max: int, is_archive: bool = False
    ) -> SourcePage:
        """Return a source's next Event records above `after`, and the position up to which it was looked.

        With `is_archive` those that are in no lane, too: what mappings copied (`mapping:NAME`).

        About `bytes_max` payload bytes at most (one record may be larger). There may be none although more follow:
        go on behind `through`, until that is one before `end`. What retention moved to a hold file is still found;
        what is damaged comes beside the others (and is logged as an error). Blocking: call it off the loop.
        """
        ...

    def deliveries(self, *, since: float) -> Iterable[tuple[str, str, str, float]]:
        """Yield (source, delivery id, request id, received_at) of records with a delivery id, oldest first.

        Called once at start to rebuild the de-duplication index. Blocking; call it off the loop.
        """
        ...

    def pin(self, name: str, position: int | None) -> None:
        """Keep segments at or above `position` from retention (a replay's range); None lets go."""
        ...

    @property
    def end(self) -> int:
        """Position after the last synced record."""
        ...

    @property
    def start(self) -> int:
        """Lowest position still kept in segments."""
        ...


class Outcomes(Protocol):
    """The log of attempts. Appended within one loop pass, synced every 200 ms."""

    def append(self, attempt: Attempt) -> None:
        """Write one attempt. Never waits for the sync; a kill -9 after it returns loses at most one loop pass."""
        ...

    async def flush(self) -> None:
        """Return once everything appended so far is synced."""
        ...

    def for_events(self, records: Iterable[Record]) -> dict[int, list[Attempt]]:
        """Return the attempts of each record by position, oldest first. May block for milliseconds."""
        ...

    def finished(self, *, after: int) -> set[int]:
        """Return positions above `after` that their lane has passed (a row ok, dead, or failed: parked)."""
        ...


class ParkedStore(Protocol):
    """Asynchronous events that wait for their next attempt. A park is durable when it returns."""

    async def park(self, entry: Parked) -> None:
        """Insert or replace by (queue, request id). Raises StoreFull or StoreError: nothing is settled."""
        ...

    async def done(self, entry: Parked) -> None:
        """Remove this parking of the event: one that was parked anew since (another due_at) stays. Twice is fine."""
        ...

    async def due(self, function: str, *, now: float, limit: int, skip: frozenset[str] = frozenset()) -> list[Parked]:
        """Return parked events of a function (by name) with due_at <= now, oldest due first, without `skip`."""
        ...

    async def next_due(self, *, after: float = float("-inf")) -> dict[str, float]:
        """Return the earliest due_at above `after` per function name."""
        ...

    async def clamp(self, *, now: float) -> None:
        """At start: no entry waits longer than the delay it was parked with (a clock that was set back)."""
        ...

    async def get(self, request_id: str) -> Parked | None:
        """Return the parked entry of an event (any queue), None when it waits for nothing."""
        ...

    async def positions(self) -> set[int]:
        """Return the journal positions of all parked events that still have one."""
        ...

    async def counts(self) -> dict[str, int]:
        """Return how many events are parked per function name."""
        ...


class Marks(Protocol):
    """How far each lane has passed: where the search for unfinished events begins at start."""

    async def load(self) -> dict[str, int]:
        """Return the mark of every known lane: all its events below that position are finished."""
        ...

    async def commit(self, marks: Mapping[str, int]) -> None:
        """Store; a mark never moves backwards."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSelection:
    """Which dead letters; every given field must match."""

    queue: str | None = "default"
    """None: every queue."""
    since: float | None = None
    """dead_at, epoch seconds, inclusive."""
    until: float | None = None
    source: str | None = None
    function: str | None = None
    ids: frozenset[str] = frozenset()
    state: str | None = None


class DeadLetters(Protocol):
    """Spill: the local dead-letter queue, also the last resort when another destination is down."""

    async def put(self, letter: DeadLetter) -> None:
        """Store durably, insert or replace by (queue, id): a redriven event that fails again is one dead letter.

        In the same transaction the event's parking in that queue goes: it is never both. The latest 20
        attempts of its history are kept.

        Uses the ballast when the disk is full. Raises StoreFull or StoreError only when even that fails.
        """
        ...

    async def get(self, letter_id: str, *, queue: str | None = None) -> DeadLetter | None:
        """Return one with its payload."""
        ...

    async def select(
        self, selection: DeadLetterSelection, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[DeadLetter]:
        """Return up to `limit`, oldest dead_at first (ties by id), above the `after` cursor (dead_at, id).

        A page of large payloads may be shorter: only an empty one is the end.
        """
        ...

    async def count(self, selection: DeadLetterSelection) -> int:
        """Return how many there are."""
        ...

    async def redrive(self, letter: DeadLetter, entry: Parked) -> bool:
        """In one transaction: state becomes `redriving`, `redrives` rises, `entry` is parked.

        False, and nothing changes, if the stored letter (by queue and id) was not `dead`.
        """
        ...

    async def resolve(self, letter_id: str, *, queue: str) -> None:
        """Remove after a redrive succeeded; twice is fine."""
        ...

    async def positions(self) -> set[int]:
        """Return the journal positions of all dead letters that have one: never run again by themselves."""
        ...

    async def purge(self, selection: DeadLetterSelection) -> int:
        """Delete those in state `dead` that were there when it was called; returns how many."""
        ...


class Runtime(Protocol):
    """Runs one event on one version in a worker."""

    async def invoke(self, version: FunctionVersion, invocation: Invocation) -> InvocationResult:
        """Run to its end, at most timeout_s + 1 s of run time plus init.

        Raises:
            RuntimeUnavailable: no worker could be started; nothing ran.
        A cancel kills the worker that runs it.
        """
        ...

    def free_slots(self, version: FunctionVersion, *, enough: int | None = None) -> int:
        """How many invocations could start now without waiting for a worker (prefetch frames included).

        From `enough` on nobody needs to count any further.
        """
        ...

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back (on the loop, cheaply) whenever a slot may have become free."""
        ...

    def retire(self, name: str, *, keep_revision: str | None, also_keep: Collection[str] = ()) -> None:
        """End the function's idle workers of all other revisions now, the busy ones after their invocation."""
        ...


class Invoker(Protocol):
    """Invokes a function by name and qualifier: what push sources and the api call."""

    async def invoke(
        self, target: str, *, request_id: str, payload: bytes, client_context: bytes = b""
    ) -> InvocationResult:
        """RequestResponse: run now; over a concurrency limit wait at most 1 s.

        Raises:
            InvokeError: not accepted, nothing ran (FunctionNotFound, Throttled, PayloadTooLarge,
                PayloadInvalid, RuntimeUnavailable).
        """
        ...

    async def invoke_background(
        self, target: str, *, request_id: str, payload: bytes, client_context: bytes = b""
    ) -> InvocationResult:
        """Run when a slot is free and no live work waits for it (replay); never Throttled, else the same errors."""
        ...

    def dry_run(self, target: str) -> None:
        """Check that the function and qualifier exist and the caller is permitted; runs nothing.

        Raises:
            InvokeError: as `invoke` would.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a push source tells its sender."""

    id: str
    """Request id: the first one's, for a duplicate."""
    duplicate: bool = False


class Intake(Protocol):
    """The way in for push sources: de-duplicate, check the lane's room, store, wake the lane."""

    async def submit(self, record: Record, *, deduplicate_s: float = 0.0) -> Receipt:
        """Return once the record (or the first one of its delivery id) is durable.

        Once awaited, a cancel leaves it open whether the record was stored: answer nothing, close the connection.

        Raises:
            StoreFull: no space on disk: 503 with Retry-After.
            LaneFull: the function's lane is at its limit: 503 with Retry-After.
            FunctionNotFound: the target does not exist.
        """
        ...

    def archive(self, record: Record) -> None:
        """Keep a RequestResponse event for replay, without waiting for the disk."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """A lane as `bridge` shows it."""

    function: str
    waiting: int
    """Stored and not yet attempted."""
    waiting_bytes: int
    running: int
    parked: int
    oldest_at: float | None
    """received_at of the oldest waiting event."""
    state: str
    """`active`, `backing off`, `hindered` (its remote is down or throttles, or may not be invoked), `stopped` (reserved
    concurrency 0), `no function`, `draining`."""
    reason: str = ""


class Lanes(Protocol):
    """What the api may ask of asynchronous delivery."""

    def status(self) -> list[LaneStatus]:
        """Return every lane's state, by function name."""
        ...

    async def explain(self, record: Record) -> str:
        """Say in one line what an unfinished event waits for and why; empty when it waits for nothing."""
        ...


class JobState(StrEnum):
    """States of a replay or redrive, EventBridge's words (API_DescribeReplay) and PAUSED, ours."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A named piece of long work that survives a restart: a replay or a redrive."""

    name: str
    kind: str
    """`replay` or `redrive`."""
    state: JobState
    spec: bytes
    """JSON of what was asked."""
    cursor: str = ""
    """Progress mark, owned by the kind; everything up to it is done."""
    total: int | None = None
    done: int = 0
    failed: int = 0
    skipped: int = 0
    """Gone before they could be read (retention), or not matching any more."""
    created_at: float = 0.0
    ended_at: float | None = None
    reason: str = ""


class Jobs(Protocol):
    """Where jobs are kept. Every call is durable when it returns."""

    async def create(self, job: Job) -> bool:
        """Store; False when the name is taken."""
        ...

    async def update(self, job: Job) -> None:
        """Replace by name; a job that was deleted meanwhile stays deleted."""
        ...

    async def get(self, name: str) -> Job | None:
        """Return one."""
        ...

    async def list(self, kind: str | None = None) -> "list[Job]":
        """Return all, newest first."""
        ...

    async def delete(self, name: str) -> None:
        """Remove; twice is fine."""
        ...


class Destination(Protocol):
    """Takes events that could not be handled. Durable when it returns; else it raises and nothing is settled."""

    async def send(self, letter: DeadLetter) -> None:
        """Deliver one; may be called again for the same letter after a crash.

        Raises:
            DestinationError, StoreError: not taken.
        """
        ...
