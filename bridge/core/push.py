"""The seam of push sources that run by themselves: who receives, stores and acknowledges without being asked."""

from typing import Protocol


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
