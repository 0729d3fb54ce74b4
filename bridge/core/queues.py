"""The seam of queues: what the Return policy's engine asks of one. A docstring is the contract its suite tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True, kw_only=True, eq=False)
class Message:
    """One message as a receive handed it out; a redelivered one is another object."""

    id: str
    """Stays the same over redeliveries; what a partial answer names."""
    receipt: str
    """Names this receive of it: what deleting and hiding it take."""
    body: bytes
    """As the sender sent it, UTF-8; what filters look into."""
    fragment: bytes
    """Its JSON as the handler gets it, ready to be joined into an event."""
    group: str = ""
    """What order is kept by (FIFO's MessageGroupId); of a standard queue empty."""
    receive_count: int = 1
    """How often it was handed out, this time included."""
    sent_at: float = 0.0
    """Epoch seconds; 0 where it is not known."""
    trace_header: str = ""
    """What its sender said of how it came about (AWSTraceHeader); empty: nothing."""
    received_at: float = 0.0
    """Monotonic seconds, the engine's to set: when it came, never before the queue began to hide it for us."""
    hidden_until: float = 0.0
    """Monotonic seconds, the engine's to keep: it is ours alone until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """What a queue says of itself; counts are approximate and None where it does not know them."""

    visibility_s: float
    """How long a message that was handed out stays hidden unless something else is asked for."""
    is_fifo: bool = False
    """Whether it keeps the order within message groups."""
    arn: str = ""
    max_receive_count: int | None = None
    """Of its redrive policy: a message that was handed out as often becomes a dead letter; None: never."""
    dead_letter_arn: str = ""
    visible: int | None = None
    in_flight: int | None = None
    delayed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What of a call was not done; empty: all was."""

    failed: tuple[Message, ...] = ()
    """May work when it is tried again."""
    gone: tuple[Message, ...] = ()
    """The receipt counts no more: the message was deleted, or belongs to another receive of it."""
    reason: str = ""
    """Of the first of them, in one line."""


class QueueSource(Protocol):
    """A queue whose messages are each settled by themselves. Many receives and calls may run at once.

    Times are seconds. A message is ours from its receive until it is deleted, or as long as it stays hidden; nothing
    else ends it. It never filters, batches, retries or drops. One attempt per call: the engine repeats.
    """

    async def open(self) -> QueueFacts:
        """Connect and return what the queue says of itself.

        Raises:
            SourceError: it cannot be had (the engine tries again with back-off); the text says what to do.
        """
        ...

    async def look(self) -> QueueFacts:
        """Return what it says of itself now. Called often enough to matter little (every 15 s). Raises SourceError."""
        ...

    async def receive(self, *, records_max: int, wait_s: float, hidden_s: float) -> Sequence[Message]:
        """Return messages that are ours from now on: at once when there are some, else after at most `wait_s`.

        At most `records_max` (1..10) of them, each hidden from everybody for `hidden_s` seconds. Messages of one
        group come in their order, and none while an earlier one of the group is hidden. A cancelled receive may have
        taken messages: they come again once `hidden_s` has passed.

        Raises:
            SourceError: nothing is known to have been taken.
        """
        ...

    async def delete(self, messages: Sequence[Message]) -> Refused:
        """Remove at most 10 messages for good: durable for those that are not returned. Twice is fine.

        Raises:
            SourceError: it is not known which were deleted; deleting them again is right.
        """
        ...

    async def hide(self, changes: Sequence[tuple[Message, float]]) -> Refused:
        """Hide each of at most 10 messages for so many seconds from now; 0 hands it back at once.

        Raises:
            SourceError: it is not known what was done.
        """
        ...

    async def close(self) -> None:
        """Release everything; messages that are still ours come again when they are hidden no more. Twice is fine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """The queue of a running mapping, as `bridge mappings show` prints it."""

    facts: QueueFacts | None
    """As last looked at; None before that."""
    waiting: int = 0
    """Received, and waiting for their batch, a slot or a retry."""
    running: int = 0
    """Messages in invocations that run now."""
    settling: int = 0
    """Handled, and not deleted yet."""
    oldest_at: float | None = None
    """When the oldest message that is ours was received, epoch seconds."""
    attempts: int = 0
    """Tries of the batch that waits longest for a retry (throttles and service errors); 0 when none does."""
    due_at: float | None = None
    """When it is tried again, epoch seconds."""
    reason: str = ""
    """Why messages wait, in one line; empty when they do not."""
    failure: str = ""
    """How the last batch failed that did, in one line; empty when none has."""
    notes: tuple[str, ...] = ()
    """What works and should not stay so, one line each."""
