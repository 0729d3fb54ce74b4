"""MQTT's packets as far as we read and write them ourselves: PUBLISH in, PUBACK out (MQTT 3.1.1 and 5; pure)."""

from collections.abc import Iterable
from typing import Final

from bridge.events.mqtt import NO_PROPERTIES, Message, MessageProperties

PUBLISH: Final = 0x30
PUBACK: Final = 0x40
_DUP, _RETAIN = 0x08, 0x01
_LENGTH_MAX_BYTES: Final = 4


class MalformedMqtt(Exception):
    """The broker sent what no packet is; the connection cannot go on."""


def read_length(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return a variable byte integer and the place behind it; (-1, at) where it is not all there yet."""
    value, shift = 0, 0
    for number in range(_LENGTH_MAX_BYTES):
        if at + number >= len(data):
            return -1, at
        byte = data[at + number]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + number + 1
        shift += 7
    raise MalformedMqtt("a length of more than four bytes")


def head_of_publish(first: int, data: bytes | bytearray, at: int, end: int) -> tuple[bytes, int, int] | None:
    """Return topic, packet identifier (0 at QoS 0) and the place behind both; None where they are not all there yet.

    Args:
        first: the packet's first byte.
        data: what has come so far.
        at: place behind the fixed header.
        end: where the packet ends, which may lie behind what has come.

    Raises:
        MalformedMqtt: they do not fit into the packet.
    """
    if len(data) < at + 2 and end >= at + 2:
        return None
    topic_at = at + 2
    topic_end = topic_at + (int.from_bytes(data[at:topic_at], "big") if end >= topic_at else 0)
    head_end = topic_end + (2 if first & 0x06 else 0)
    if head_end > end or end < topic_at:
        raise MalformedMqtt("a PUBLISH that is shorter than its topic")
    if len(data) < head_end:
        return None
    return bytes(data[topic_at:topic_end]), int.from_bytes(data[topic_end:head_end], "big"), head_end


def decode_publish(first: int, data: bytes | bytearray, at: int, end: int, *, is_five: bool, now_ms: int) -> Message:
    r"""Return the message of a whole PUBLISH whose fixed header ends at `at`.

    A topic that is no UTF-8, which brokers should not let pass, has its odd bytes as `\xNN`.

    Raises:
        MalformedMqtt: it is none.
    """
    qos = first >> 1 & 3
    head = head_of_publish(first, data, at, end)
    if head is None or qos == 3:
        raise MalformedMqtt("a PUBLISH that cannot be")
    topic, mid, at = head
    properties, identifiers = NO_PROPERTIES, tuple[int, ...]()
    if is_five:
        length, at = read_length(data, at)
        if length < 0 or at + length > end:
            raise MalformedMqtt("a PUBLISH that is shorter than its properties")
        if length:
            properties, identifiers = _properties(bytes(data[at : at + length]))
            at += length
    return Message(
        topic.decode("utf-8", "backslashreplace"),
        bytes(data[at:end]),
        qos=qos,
        mid=mid,
        retain=bool(first & _RETAIN),
        dup=bool(first & _DUP),
        properties=properties,
        identifiers=identifiers,
        received_ms=now_ms,
    )


def _properties(data: bytes) -> tuple[MessageProperties, tuple[int, ...]]:
    """Return the properties of a PUBLISH, and the subscription identifiers among them (MQTT 5, 3.3.2.3)."""
    at, user, identifiers = 0, list[tuple[str, str]](), list[int]()
    found: dict[str, str | bytes | bool | int] = {}
    try:
        while at < len(data):
            kind, at = data[at], at + 1
            if kind == 0x26:
                key, at = _binary(data, at)
                value, at = _binary(data, at)
                user.append((_text(key), _text(value)))
            elif kind == 0x0B:
                number, at = read_length(data, at)
                identifiers.append(number)
            elif kind == 0x01:
                found["is_text"], at = data[at] == 1, at + 1
            elif kind == 0x02:
                found["expiry_s"], at = int.from_bytes(data[at : at + 4], "big"), at + 4
            elif kind == 0x03:
                value, at = _binary(data, at)
                found["content_type"] = _text(value)
            elif kind == 0x08:
                value, at = _binary(data, at)
                found["response_topic"] = _text(value)
            elif kind == 0x09:
                found["correlation_data"], at = _binary(data, at)
            else:  # 0x23 is an alias of the topic, which we do not offer
                raise MalformedMqtt(f"a PUBLISH with property {kind:#04x}")
    except IndexError:
        at = len(data) + 1
    if at > len(data) or -1 in identifiers:
        raise MalformedMqtt("a PUBLISH whose properties end too early")
    if not user and not found:
        return NO_PROPERTIES, tuple(identifiers)
    return MessageProperties(user=tuple(user), **found), tuple(identifiers)  # type: ignore[arg-type]


def _binary(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    if end > len(data):
        raise IndexError
    return data[at + 2 : end], end


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def pubacks(mids: Iterable[int]) -> bytes:
    """Return PUBACK packets, one behind the other; without a reason code, which in MQTT 5 is success."""
    return b"".join([b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids])
