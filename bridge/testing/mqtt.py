"""Sessions of MQTT sources in memory."""

from bridge.core.mqtt import MqttSession


class MemoryMqttSessions:
    """`mqtt.MqttSessions` in a dict. `fail_with` makes the next calls raise it."""

    def __init__(self) -> None:
        self.sessions: dict[str, MqttSession] = {}
        self.fail_with: Exception | None = None

    async def load(self, name: str) -> MqttSession | None:
        """Return what was saved."""
        if self.fail_with is not None:
            raise self.fail_with
        return self.sessions.get(name)

    async def save(self, name: str, session: MqttSession) -> None:
        """Keep it."""
        if self.fail_with is not None:
            raise self.fail_with
        self.sessions[name] = session
