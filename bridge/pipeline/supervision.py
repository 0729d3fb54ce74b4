"""What the supervisor of mappings works with: tasks that are kept running, slots, and the streams of mappings."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Destination
from bridge.core.sources import EventSource, QueueOrigin, SourceMaker
from bridge.pipeline.streams.settings import Slots


class Tasks(Protocol):
    """Keeps tasks running (util/aio.Supervisor)."""

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run for as long as the daemon lives."""
        ...

    async def stop(self, name: str) -> None:
        """Cancel one and wait for its end."""
        ...

    def failed(self) -> dict[str, str]:
        """Return those that were given up, with the last error."""
        ...


class LiveSlots(Slots, Protocol):
    """The slots, and who is told of free ones."""

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back when a slot may have become free."""
        ...

    def live_work(self, waits: Callable[[], bool]) -> None:
        """Ask whether live work waits."""
        ...


class Streams(SourceMaker, Protocol):
    """The streams that mappings read (daemon/streams.py)."""

    def queue(self, mapping: EventSourceMapping) -> QueueOrigin | None:
        """Return the queue of a mapping, None where it reads a stream; raises ConfigError.

        `event_source` of such a mapping is what a replay reads: its archive.
        """
        ...

    async def prepare(self, mapping: EventSourceMapping, source: EventSource | QueueOrigin) -> None:
        """Keep what the mapping has not finished, from now on, whether it runs or is paused. Raises StoreError."""
        ...

    def forget(self, mapping: EventSourceMapping) -> None:
        """The mapping is gone: nothing is kept for it any more."""
        ...

    async def discard(self, mapping: EventSourceMapping) -> None:
        """The mapping was deleted and none of its name will come again: its marks go too. Raises StoreError."""
        ...

    def reached_by(self, mapping: EventSourceMapping) -> object:
        """Return what else decides how its streams are reached (connections): another value is another mapping."""
        ...

    def refusal(self, mapping: EventSourceMapping) -> str:
        """Return why its function's execution role keeps it from its source, in AWS's words; empty: it does not."""
        ...

    def destination(self, mapping: EventSourceMapping) -> Destination:
        """Return where its failures go; raises ConfigError when that cannot work."""
        ...
