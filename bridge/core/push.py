"""The seams of push sources: those that run by themselves, and how any of them is given an event by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from bridge.core.errors import SourceError

METHOD: Final = "{method}"
"""Stands in a sender's ARN for the method of each request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """As whom a push source invokes: what a function's resource policy is asked about it."""

    service: str
    """Principal: `s3.amazonaws.com`."""
    arn: str
    """SourceArn; see METHOD."""
    account: str
    """SourceAccount."""

    def arn_of(self, method: str) -> str:
        """Return the SourceArn of a request of that method."""
        return self.arn.replace(METHOD, method)


Permits = Callable[[Sender, str, str], None]
"""Raises InvokeDenied unless a sender may invoke a target (`name[:qualifier]`) by a request of a method. No I/O."""


class PushSource(Protocol):
    """One `[sources.X]` that is no route of a listener (MQTT, a schedule): it brings events to an `Intake`."""

    @property
    def name(self) -> str:
        """The record's source: `[sources.NAME]`."""
        ...

    @property
    def kind(self) -> str:
        """The word of its `type`."""
        ...

    @property
    def function(self) -> str:
        """Target of its events: `name[:qualifier]`; empty where only mappings read it."""
        ...

    @property
    def place(self) -> str:
        """Where its events come from, in one line: an address and topics, a schedule. Without secrets."""
        ...

    @property
    def trouble(self) -> str:
        """What keeps it from receiving although it goes on trying, in one line; empty when nothing does. No I/O."""
        ...

    async def run(self) -> None:
        """Receive until cancelled, reconnecting by itself; an event is acknowledged only once it is stored.

        A cancel leaves nothing open. Called again after it ended by an error.
        """
        ...

    async def drain(self) -> None:
        """Take nothing new and finish what was taken: stored and acknowledged, or neither. `run` ends then.

        Cancelled when its time is over. Twice is fine, and so is before `run`.
        """
        ...


@runtime_checkable
class Ticking(Protocol):
    """A source whose events have their times."""

    @property
    def next_at(self) -> int | None:
        """Return when the next one comes, epoch seconds; None: none any more, or it has not begun. No I/O."""
        ...

    @property
    def last_at(self) -> int | None:
        """Return when the last one was due, stored or passed over; None: none yet. No I/O."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An event given by hand, as its sender would have sent it; what a source has no use for is left out."""

    data: bytes = b""
    """The body of a request, the payload of a message."""
    method: str = ""
    """Of a request; empty: POST, or the first that the route takes."""
    query: str = ""
    """As sent, without the question mark."""
    headers: tuple[tuple[str, str], ...] = ()
    topic: str = ""
    """Of a message."""
    at: float | None = None
    """Of a tick, epoch seconds; None: now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of a given event."""

    ids: tuple[str, ...]
    """Request ids of what is stored or ran; empty where the source answers by itself and stores nothing."""
    duplicates: int = 0
    """How many of them were stored before, under these ids."""
    status: int = 202
    """What a sender would have been answered."""
    body: bytes | None = None
    """Likewise, where that is not just the ids: a function's answer."""


class NotAccepted(SourceError):
    """A given event was not taken: nothing was stored. The text says why.

    Args:
        text: one line.
        status: as HTTP has it: 400 it is wrong, 404 no such source, 413 too large, 503 not now.
    """

    def __init__(self, text: str, *, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@runtime_checkable
class Feedable(Protocol):
    """A push source that can be given events by hand, without its broker or sender."""

    async def feed(self, given: Given) -> Accepted:
        """Take one event as if it had come: its shape, its limits, its function; stored when it returns.

        Called while it runs, also several times at once: they are stored in the order of the calls.

        Raises:
            NotAccepted: see there.
            LaneFull, StoreFull: not now; nothing was stored.
        """
        ...


class PushSources(Protocol):
    """What the api may ask of the push sources."""

    def views(self) -> Sequence[Mapping[str, object]]:
        """Return what is known of each source, by name, as JSON values. No I/O."""
        ...

    async def feed(self, name: str, given: Given) -> Accepted:
        """Give one of them an event. As `Feedable.feed`; NotAccepted with 404 where there is no such source."""
        ...
