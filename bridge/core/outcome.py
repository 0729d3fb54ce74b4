"""What is told to a destination of how an invocation ended, and the seams of what waits for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from bridge.core.errors import DestinationError
from bridge.core.invocation import DeadLetter

LOCAL: Final = "spill"
"""The local dead letters, as `on_failure` writes them."""
WAITING: Final = "waiting"
"""State of a dead letter whose targets have not all taken it yet."""


class OutcomeKind(StrEnum):
    """Which of a function's or mapping's settings a record is sent for."""

    ON_SUCCESS = "on_success"
    ON_FAILURE = "on_failure"
    DEAD_LETTER = "dead_letter"
    """Of a function's `dead_letter_config`: the event itself (semantics 2.4)."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TargetPlace:
    """Where records are sent, as the file writes it: what back-off and status go by."""

    target: str
    """ARN, or `kafka://CONNECTION/topic`."""
    connection: str = ""
    """The `connection` written beside it; empty: found by the ARN's region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """One record that one target has to get: durable, sent until it was taken."""

    place: TargetPlace
    kind: OutcomeKind
    id: str
    """Request id of the event; the dead letter's id for a mapping's failure."""
    queue: str = "default"
    """Of the dead letter with everything that is sent; successes have none."""
    function: str
    """Target as written: `name[:qualifier]`."""
    role: str | None = None
    """ARN of the function's execution role when this was stored, for when the function is gone; empty: it had none.

    None: nobody noted it, an earlier version stored this.
    """
    created_at: float
    """Wall clock, epoch seconds."""
    position: int = -1
    """Journal position of the event, -1 when it has none."""
    record: bytes = b""
    """The whole record of a success; failures are formed from their dead letter when they are sent."""
    number: int = -1
    """Order of arrival; -1 before it is stored."""
    attempts: int = 0
    due_at: float = 0.0
    """Not sent before (wall clock); 0: at once."""
    last_error: str = ""
    is_pointer: bool = False
    """The target does not take the whole (too large): it gets a pointer, and the whole stays here."""
    is_kept: bool = False
    """Of a success: its pointer was sent, or refused as well; the record stays here to be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceStatus:
    """What waits for one target, as the store counts it."""

    place: TargetPlace
    waiting: int
    kept: int
    """Successes that stay here: the target does not take them whole."""
    oldest_at: float | None
    """created_at of the oldest that waits."""
    last_error: str
    """Of the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStatus:
    """A target as `bridge dlq targets` shows it."""

    place: TargetPlace
    waiting: int
    kept: int
    oldest_at: float | None
    failures: int = 0
    """Failed rounds in a row: 0 when it takes what it gets."""
    failing_since: float | None = None
    """Wall clock of the first of them."""
    retry_at: float | None = None
    """Wall clock of the next try."""
    last_error: str = ""


class RecordRefused(DestinationError):
    """A target refuses this one record, now and later: too large, or holding what it may not. Others may pass."""


class TargetTrouble(DestinationError):
    """A target takes nothing now: down, throttled, denied, not there. Sent again later."""

    def __init__(self, text: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
        """What it asked for; 0 when it said nothing."""


class Transport(Protocol):
    """Sends records to one target: one attempt a call, within a deadline of its own."""

    concurrency: int
    """Calls that may run at once."""

    async def send(self, entry: OutboxEntry, letter: DeadLetter | None) -> None:
        """Return once the target has it. Called again for the same entry after a failure or a crash.

        `letter` is None for a success.

        Raises:
            RecordRefused: this record will never be taken.
            TargetTrouble: nothing is taken now.
        """
        ...


class Transports(Protocol):
    """Finds the transport of a target."""

    def transport(self, place: TargetPlace) -> Transport:
        """Return it, as the file now says; cheap, nothing is connected. Raises ConfigError: it cannot be reached."""
        ...


class Outbox(Protocol):
    """What waits for targets: a call is durable when it returns; StoreFull or StoreError: nothing changed."""

    async def put(self, entries: Sequence[OutboxEntry], *, letter: DeadLetter | None = None) -> None:
        """Store, insert or replace by (place, kind, id, queue), in one transaction.

        With `letter` (failures, in state `waiting`) it is stored too, in the place of an older one of the event in
        that queue, and the event's parking goes. It goes itself when the last of its entries is sent, unless a target
        did not take it whole. Uses the ballast when the disk is full.
        """
        ...

    async def due(self, place: TargetPlace, *, now: float, limit: int) -> list[OutboxEntry]:
        """Return entries to send, oldest first; at most `limit`, fewer where they are large (at least one)."""
        ...

    async def clamp(self, *, latest: float) -> None:
        """At start: nothing is due later than that (a clock that was set back)."""
        ...

    async def next_due(self, place: TargetPlace) -> float | None:
        """Return the earliest due_at there, None when nothing waits."""
        ...

    async def probe(self, place: TargetPlace) -> OutboxEntry | None:
        """Return the entry that was tried least (then the oldest), due or not: to find out whether a target is back."""
        ...

    async def sent(self, entries: Sequence[OutboxEntry]) -> None:
        """Remove what the target has; what it got a pointer of stays: a success kept, a failure a dead letter.

        Twice is fine; an entry that was put anew since stays.
        """
        ...

    async def failed(self, entries: Sequence[OutboxEntry]) -> None:
        """Store attempts, due_at, last_error and is_pointer of these."""
        ...

    async def keep(self, entries: Sequence[OutboxEntry]) -> None:
        """The target refuses even a pointer: a success is kept, a failure stays a dead letter. Twice is fine."""
        ...

    async def places(self) -> list[PlaceStatus]:
        """Return every target for which something waits or is kept, by place."""
        ...

    async def of_event(self, event_id: str) -> list[OutboxEntry]:
        """Return what waits or is kept of one event or dead letter, without the records."""
        ...

    async def page(self, place: TargetPlace | None, *, after: int, limit: int) -> list[OutboxEntry]:
        """Return entries with numbers above `after`, in order, with the records of successes."""
        ...

    async def give_up(self, place: TargetPlace) -> tuple[int, int]:
        """Send no more of what waits there: failures stay dead letters, successes are deleted; return how many each."""
        ...
