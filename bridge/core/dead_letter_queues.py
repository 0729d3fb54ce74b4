"""The seam of dead-letter queues of SQS: looked at without consuming, moved back by SQS, or handed to a function."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class PeekedMessage:
    """A message that was looked at and stays in its queue."""

    id: str
    body: str
    sent_at: float | None
    receive_count: int
    """Looking is a receive, too."""
    group: str = ""
    attributes: Mapping[str, str] | None = None
    """Message attributes that are text or numbers; of Lambda's own dead letters RequestID, ErrorCode, ErrorMessage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterQueue:
    """A queue, as looked at; counts are approximate."""

    arn: str
    visible: int | None
    in_flight: int | None
    delayed: int | None
    sources: tuple[str, ...] | None
    """URLs of the queues whose redrive policy names it; empty: SQS cannot move its messages back; None: not known."""
    messages: tuple[PeekedMessage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTask:
    """A move that SQS does itself (ListMessageMoveTasks)."""

    status: str
    """RUNNING, COMPLETED, CANCELLING, CANCELLED, FAILED."""
    moved: int
    to_move: int | None
    """As counted at its start; None once it has ended."""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What became of the messages that were handed to a function."""

    succeeded: int
    """Handled and deleted."""
    failed: int
    """Still in the queue, hidden for its visibility timeout."""
    errors: Sequence[str] = ()
    """One line for each that failed."""


class DeadLetterQueues(Protocol):
    """Queues by `sqs://CONNECTION/QUEUE` or ARN.

    Every call raises ConfigError (no such name or connection) or SourceError (it cannot be asked, or refuses).
    """

    async def look(self, queue: str, *, limit: int) -> DeadLetterQueue:
        """Return the queue and up to `limit` of its messages, which stay visible to others."""
        ...

    async def start_move(self, queue: str, *, rate: int | None) -> None:
        """Have SQS move its messages back to the queues they came from (StartMessageMoveTask), so many a second."""
        ...

    async def newest_move(self, queue: str) -> MoveTask | None:
        """Return the newest move out of it, None where there was none."""
        ...

    async def hand_over(self, queue: str, *, function: str, limit: int) -> HandedOver:
        """Invoke a function with the bodies of up to `limit` (1..10) messages, delete those it handles.

        Raises also FunctionNotFound: nothing was received.
        """
        ...
