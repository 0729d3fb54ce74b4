"""PUBLISH and PUBACK, against paho's own writing of them, and against bytes that nobody should send."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.events.mqtt import MessageProperties
from bridge.sources.push.mqtt_packets import MalformedMqtt, decode_publish, head_of_publish, pubacks, read_length

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def packet(topic: bytes, payload: bytes, *, qos=0, mid=1, properties=b"", retain=False, dup=False):
    """Return the first byte and what lies behind the length."""
    first = 0x30 | dup << 3 | qos << 1 | retain
    return first, struct.pack("!H", len(topic)) + topic + (
        struct.pack("!H", mid) if qos else b""
    ) + properties + payload


def decoded(first, body, *, is_five=False):
    return decode_publish(first, b"**" + body + b"**", 2, 2 + len(body), is_five=is_five, now_ms=5)


@given(
    topic=TEXT,
    payload=st.binary(max_size=50),
    qos=st.integers(0, 2),
    mid=st.integers(1, 65535),
    retain=st.booleans(),
    dup=st.booleans(),
)
def test_a_message_of_3_1_1(topic, payload, qos, mid, retain, dup):
    message = decoded(*packet(topic.encode(), payload, qos=qos, mid=mid, retain=retain, dup=dup))

    assert (message.topic, message.payload, message.qos, message.mid) == (topic, payload, qos, mid if qos else 0)
    assert (message.retain, message.dup, message.received_ms) == (retain, dup, 5)


@given(
    user=st.lists(st.tuples(TEXT, TEXT), max_size=3), content_type=st.none() | TEXT, response_topic=st.none() | TEXT.filter(lambda t: not set(t) & set("+#")),
    data=st.none() | st.binary(max_size=9), is_text=st.booleans(), expiry=st.none() | st.integers(0, 2**32 - 1), identifiers=st.lists(st.integers(1, 268_435_455), max_size=3, unique=True),
)  # fmt: skip
def test_properties_as_paho_writes_them(user, content_type, response_topic, data, is_text, expiry, identifiers):
    written = Properties(PacketTypes.PUBLISH)
    for pair in user:
        written.UserProperty = pair
    for name, value in {
        "ContentType": content_type,
        "ResponseTopic": response_topic,
        "CorrelationData": data,
        "MessageExpiryInterval": expiry,
    }.items():
        if value is not None:
            setattr(written, name, value)
    if is_text:
        written.PayloadFormatIndicator = 1
    for identifier in identifiers:
        written.SubscriptionIdentifier = identifier

    message = decoded(*packet(b"t", b"p", properties=written.pack()), is_five=True)

    assert message.properties == MessageProperties(
        user=tuple(user), content_type=content_type, response_topic=response_topic, correlation_data=data, is_text=is_text, expiry_s=expiry
    )  # fmt: skip
    assert sorted(message.identifiers) == sorted(identifiers)
    assert message.payload == b"p"


@pytest.mark.parametrize(
    ("body", "is_five"),
    [(b"", False), (b"\0", False), (b"\0\5abc", False), (b"\0\1t", True), (b"\0\1t\5\x26\0", True), (b"\0\1t\2\x0b\xff", True), (b"\0\1t\3\x23\0\1", True), (b"\0\1t\2\x03\0", True)],
)  # fmt: skip
def test_what_cannot_be_is_told(body, is_five):
    with pytest.raises(MalformedMqtt):
        decoded(0x30, body, is_five=is_five)


@given(st.binary(max_size=40), st.integers(0, 15), st.booleans())
def test_any_bytes_are_a_message_or_malformed(body, flags, is_five):
    try:
        decoded(0x30 | flags, body, is_five=is_five)
    except MalformedMqtt:
        return


def test_a_topic_that_is_no_text_is_shown():
    assert decoded(*packet(b"a/\xff\xfe", b"")).topic == "a/\\xff\\xfe"


def test_a_head_that_is_not_all_there_waits():
    _, body = packet(b"topic", b"payload", qos=1, mid=9)

    assert [head_of_publish(0x32, body[:n], 0, len(body)) for n in range(9)] == [None] * 9
    assert head_of_publish(0x32, body[:9], 0, len(body)) == (b"topic", 9, 9)


@given(st.integers(0, 268_435_455))
def test_lengths(value):
    data, rest = bytearray(), value
    while True:
        rest, byte = rest >> 7, rest & 0x7F
        data.append(byte | (0x80 if rest else 0))
        if not rest:
            break

    assert read_length(bytes(data) + b"\1", 0) == (value, len(data))
    assert read_length(bytes(data[:-1]), 0) == (-1, 0)
    with pytest.raises(MalformedMqtt):
        read_length(b"\xff\xff\xff\xff\x01", 0)


def test_acknowledgements_lie_one_behind_the_other():
    assert pubacks([1, 0x1234]) == b"\x40\x02\x00\x01\x40\x02\x12\x34"
