"""MQTT messages as Lambda events, as AWS IoT's rules make them (semantics 4.3; pure).

`iot-raw`: the payload, byte for byte, is the event; one that is no JSON becomes `{"data": "<base64>"}`.
`iot-rule`: what a select list names (`select.py`). `records`: `{"Records": [one]}` with `eventSource` `bridge:mqtt`, no
shape of AWS. A number that no double holds (1E400) is no JSON here, as nobody behind could read it.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

EVENT_SOURCE: Final = "bridge:mqtt"
RECORDS_HEAD: Final = b'{"Records":['
RECORDS_TAIL: Final = b"]}"
_SOURCE_MEMBER: Final = b'"eventSource":"bridge:mqtt",'


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageProperties:
    """What MQTT 5 lets a publisher say beside the payload."""

    user: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    is_text: bool = False
    """Payload format indicator 1: UTF-8."""
    expiry_s: int | None = None
    """Message expiry interval, what the broker left of it."""


NO_PROPERTIES: Final = MessageProperties()


class Message:
    """One application message as it was received."""

    __slots__ = ("dup", "identifiers", "mid", "payload", "properties", "qos", "received_ms", "retain", "topic")

    def __init__(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        mid: int = 0,
        retain: bool = False,
        dup: bool = False,
        properties: MessageProperties = NO_PROPERTIES,
        identifiers: tuple[int, ...] = (),
        received_ms: int = 0,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.mid = mid
        """Packet identifier; 0 at QoS 0."""
        self.retain = retain
        self.dup = dup
        self.properties = properties
        self.identifiers = identifiers
        """Of the subscriptions that it came by (MQTT 5)."""
        self.received_ms = received_ms
        """Epoch milliseconds."""


class MessageShape(Protocol):
    """Makes a message the event."""

    def __call__(self, message: Message, /) -> tuple[bytes, bool]:
        """Return the serialised event, and whether the payload was JSON."""
        ...


def is_json(payload: bytes) -> bool:
    """Tell whether a payload is one JSON text in UTF-8, without byte order mark, NaN or lone surrogates."""
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return True


def data_event(payload: bytes) -> bytes:
    """Return what stands for a payload that is no JSON."""
    return b'{"data":"%b"}' % b64encode(payload)


def raw_event(message: Message) -> tuple[bytes, bool]:
    """Return the payload as it is (`iot-raw`)."""
    payload = message.payload
    if is_json(payload):
        return payload, True
    return data_event(payload), False


def records_event(message: Message) -> tuple[bytes, bool]:
    """Return an event of one record (`records`)."""
    return b"%b%b%b" % (RECORDS_HEAD, record(message), RECORDS_TAIL), True


def record(message: Message) -> bytes:
    """Return the record's JSON."""
    members: dict[str, Any] = {
        "eventSource": EVENT_SOURCE,
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
    }
    if message.qos:
        members["messageId"] = message.mid
    members["payload"] = b64encode(message.payload).decode("ascii")
    members["timestamp"] = message.received_ms
    members["userProperties"] = user_properties(message.properties)
    if message.properties.content_type is not None:
        members["contentType"] = message.properties.content_type
    return orjson.dumps(members)


def user_properties(properties: MessageProperties) -> list[dict[str, str]]:
    """Return the user properties in their order; a key may be there more than once."""
    return [{"key": key, "value": value} for key, value in properties.user]


def properties_json(properties: MessageProperties) -> bytes:
    """Return all that is known of a message's properties, as `mqttproperties` selects it."""
    members: dict[str, Any] = {"userProperties": user_properties(properties)}
    if properties.content_type is not None:
        members["contentType"] = properties.content_type
    if properties.response_topic is not None:
        members["responseTopic"] = properties.response_topic
    if properties.correlation_data is not None:
        members["correlationData"] = b64encode(properties.correlation_data).decode("ascii")
    if properties.is_text:
        members["formatIndicator"] = "UTF8_DATA"
    if properties.expiry_s is not None:
        members["messageExpiryInterval"] = properties.expiry_s
    return orjson.dumps(members)


def record_of(event: bytes) -> bytes:
    """Return the one record of an event that `records_event` made, without `eventSource`; another event as it is."""
    head = RECORDS_HEAD + b"{" + _SOURCE_MEMBER
    if event.startswith(head) and event.endswith(RECORDS_TAIL):
        return b"{" + event[len(head) : -len(RECORDS_TAIL)]
    return event


def record_payload(event: bytes) -> bytes:
    """Return the payload of an event that `records_event` made; another event as it is."""
    try:
        return b64decode(orjson.loads(record_of(event))["payload"], validate=True)
    except (KeyError, TypeError, ValueError):
        return event
