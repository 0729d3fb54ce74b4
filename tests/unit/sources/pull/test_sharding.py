"""Which shard a record belongs to: by a header, a field of the body, or its id."""

import base64
import json
from zlib import crc32

import pytest

from bridge.core.topics import stored_key
from bridge.events.http import HttpOrigin, HttpRequest
from bridge.sources.pull.sharding import body_of, push_sharding
from bridge.sources.push.formats import FormatContext, make_format
from bridge.testing.clock import ManualClock

ID = "00000000-0000-4000-8000-000000000001"


def key_of(key, event):
    payload = event if isinstance(event, bytes) else json.dumps(event).encode()
    number, found = push_sharding(shards=7, key=key).place(ID, payload)
    assert number == crc32(found) % 7
    return found


def test_without_a_key_every_record_is_its_own():
    assert key_of("", {"body": "x"}) == ID.encode()


def test_a_header_whatever_its_case():
    assert key_of("header:X-Device", {"headers": {"x-device": "d7"}}) == b"d7"


HTTP = HttpRequest(
    method="POST",
    path=b"/h",
    headers=[(b"x-device", b"d1"), (b"x-device", b"d7"), (b"content-type", b"application/json")],
    sent_names=[b"X-Device", b"x-device", b"Content-Type"],
    body=b'{"user":{"id":"u1"}}',
)


@pytest.mark.parametrize(
    ("name", "options", "device"),
    [
        ("apigateway-v2", {}, b"d1,d7"),
        ("apigateway-v1", {}, b"d7"),
        ("apigateway-v1", {"binary_media_types": ["*/*"]}, b"d7"),
        ("alb", {"multi_value_headers": False}, b"d7"),
        ("alb", {"multi_value_headers": True}, b"d7"),
    ],
)
async def test_keys_are_found_in_what_every_http_format_makes(name, options, device):
    origin = HttpOrigin(account_id="0" * 12, api_id="r")
    made = make_format(name, FormatContext(origin=origin, clock=ManualClock(), options=options))
    payload = await made.read(HTTP, request_id=ID, received_at=0.0)

    assert key_of("header:X-Device", payload) == device
    assert key_of("header:x-other", payload) == ID.encode()
    assert key_of("body:user.id", payload) == b"u1"
    assert body_of(payload) == HTTP.body


@pytest.mark.parametrize(
    ("body", "key"),
    [('{"user":{"id":"u1"}}', b"u1"), ('{"user":{"id":12}}', b"12"), ('{"user":{"id":["a"]}}', b'["a"]'),
     ('{"user":{"id":false}}', b"false"), ('{"user":{"id":"\\u00e9"}}', "é".encode())],
)  # fmt: skip
def test_a_field_of_the_body(body, key):
    assert key_of("body:user.id", {"body": body}) == key
    packed = base64.b64encode(body.encode()).decode()
    assert key_of("body:user.id", {"body": packed, "isBase64Encoded": True}) == key
    assert key_of("body:user.id", {"body": json.loads(body)}) == key


def test_a_number_counts_in_a_list_and_is_a_name_in_an_object():
    event = {"body": '{"Records":[{"s3":{"object":{"key":"a"}}},{"7":"b"}]}'}

    assert key_of("body:Records.0.s3.object.key", event) == b"a"
    assert key_of("body:Records.1.7", event) == b"b"
    for beyond in ("2", "9999999999999", "-1", "x", "٠"):
        assert key_of(f"body:Records.{beyond}.7", event) == ID.encode()


@pytest.mark.parametrize(
    "event",
    [{}, {"headers": {}}, {"headers": None, "body": None}, {"body": "no json"}, {"body": '{"user":5}'}, [1], b"\xff",
     {"multiValueHeaders": {"x-device": []}}, {"multiValueHeaders": {"x-device": "d"}}, {"headers": None},
     {"body": "***", "isBase64Encoded": True}, {"body": '{"user":{"id":null}}'}],
)  # fmt: skip
def test_a_record_without_it_is_kept_apart_by_its_id(event):
    assert key_of("header:x-device", event) == ID.encode()
    assert key_of("body:user.id", event) == ID.encode()


@pytest.mark.parametrize(
    "key", ["x-device", "header:", "body:", "body:a..b", "body:.", "query:a", "topic:0", "topic:", "topic:x"]
)
def test_other_keys_are_refused(key):
    with pytest.raises(ValueError, match="header:NAME or body:FIELD"):
        push_sharding(shards=4, key=key)


def test_a_key_stays_in_its_shard_in_every_release():
    places = [push_sharding(shards=4, key="header:k").place(ID, b'{"headers":{"k":"%d"}}' % n)[0] for n in range(12)]

    assert places == [1, 3, 1, 3, 0, 2, 0, 2, 3, 1, 1, 3]


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ({"body": '{"a":1}'}, b'{"a":1}'),
        ({"body": "AAH/", "isBase64Encoded": True}, b"\x00\x01\xff"),
        ({"body": "no base64!", "isBase64Encoded": True}, b"no base64!"),
        ({"body": ""}, b""),
        ({"body": {"a": 1}}, b'{"a":1}'),
        ({"body": None}, None),
        ({}, None),
        ([1], None),
    ],
)
def test_the_body_is_what_the_sender_sent(event, body):
    assert body_of(json.dumps(event).encode()) == body


@pytest.mark.parametrize(
    ("key", "topic", "expected"),
    [
        ("topic", b"plant/7/t", b"plant/7/t"),
        ("topic:1", b"plant/7/t", b"plant"),
        ("topic:2", b"plant/7/t", b"7"),
        ("topic:3", b"plant/7/t", b"t"),
        ("topic:2", b"a//b", b""),
        ("topic:4", b"plant/7/t", ID.encode()),
        ("topic", b"", ID.encode()),
        ("topic:1", b"", ID.encode()),
        ("", b"plant/7/t", ID.encode()),
    ],
)
def test_a_topic_or_a_level_of_it(key, topic, expected):
    number, found = push_sharding(shards=7, key=key).place(ID, b"{}", stored_key(topic))

    assert (number, found) == (crc32(expected) % 7, expected)


def test_a_topic_too_long_for_a_record_is_kept_by_its_hash():
    one, other = (b"t/" + letter * 300 for letter in (b"a", b"b"))
    keys = {
        push_sharding(shards=7, key=key).place(ID, b"{}", stored_key(topic))[1]
        for key in ("topic", "topic:1")
        for topic in (one, other)
    }

    assert stored_key(b"t" * 255) == b"t" * 255
    assert len(keys) == 2
    assert all(len(key) <= 255 and key.startswith(b"\0") for key in keys)


def test_the_body_of_another_source_is_looked_into_too():
    sharding = push_sharding(shards=7, key="body:device", body=lambda payload: payload)

    assert sharding.place(ID, b'{"device":"d7","body":"{}"}')[1] == b"d7"
