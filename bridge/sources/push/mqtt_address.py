"""Where an MQTT broker is, who we are to it, and what keeps it from serving us, in one line."""

import ssl
from dataclasses import dataclass, field
from typing import Final

import aiomqtt

from bridge.core import limits


class MqttTrouble(Exception):
    """The broker cannot be reached, does not let us in, or went; says so in one line."""


@dataclass(frozen=True, slots=True)
class MqttWill:
    """What the broker publishes for us when we are gone without a word."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttAddress:
    """Where a broker is, and who we are to it."""

    host: str
    port: int
    is_five: bool = True
    """MQTT 5; else 3.1.1."""
    tls: bool = False
    ca: str = ""
    """Path of a PEM file; empty: the system's authorities."""
    cert: str = ""
    key: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    keepalive_s: int = 60
    session_expiry_s: int = 0
    """How long the broker keeps the session without us; 0: it ends with the connection."""
    will: MqttWill | None = None

    @property
    def broker(self) -> str:
        """Name the broker and what is spoken with it."""
        return f"{self.host}:{self.port} MQTT {'5' if self.is_five else '3.1.1'}"


@dataclass(frozen=True, slots=True)
class Oversized:
    """A message that was not taken into memory."""

    topic: str
    mid: int
    qos: int
    dup: bool
    size: int
    """Bytes of its packet."""


def reason(error: BaseException) -> str:
    """Say in one line why."""
    if isinstance(error, TimeoutError):
        return f"no answer within {limits.MQTT_ANSWER_S:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there (connection refused)"
    if isinstance(error, aiomqtt.MqttCodeError):
        return _TOLD.get(str(error.rc), f"{error.rc}")
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__


_TOLD: Final = {
    "Session taken over": "another client with our client_id connected: every daemon needs one of its own",
    "Unsupported protocol version": 'the broker does not speak this version of MQTT; write version = "3.1.1"',
    "Not authorized": "not authorized: user, password, certificate or the client_id is refused",
    "Bad user name or password": "user or password is refused",
    "Unspecified error": "the connection was lost",
}
