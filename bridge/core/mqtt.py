"""What is remembered of an MQTT session, so that a restarted daemon goes on with it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSession:
    """The session of one source at its broker, as we left it."""

    client_id: str
    broker: str
    """Where it is: `host:port`, with the version of the protocol. Elsewhere nobody knows of it."""
    filters: tuple[str, ...] = ()
    """What it is subscribed to, as the broker was told."""


class MqttSessions(Protocol):
    """Keeps sessions by the source's name. Every call is durable when it returns.

    A raise (StoreError) means that nothing changed.
    """

    async def load(self, name: str) -> MqttSession | None:
        """Return what was saved last, None for nothing."""
        ...

    async def save(self, name: str, session: MqttSession) -> None:
        """Store in the place of what was there; twice is fine."""
        ...
