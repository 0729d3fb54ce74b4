"""MQTT messages as events: IoT's rules, records of our own, bytes that pass unchanged."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events.mqtt import Message, MessageProperties, raw_event, records_event
from bridge.events.select import SelectMistake, members, parse_select

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abctopic"), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def message(payload=b"{}", topic="plant/7/temperature", **more):
    return Message(topic, payload, received_ms=1700000000123, **more)


def selected(text, payload=b"{}", **more):
    return parse_select(text)(message(payload, **more))[0]


@given(JSON, st.sampled_from([None, 1]))
def test_json_is_the_event_byte_for_byte(value, indent):
    payload = json.dumps(value, indent=indent).encode()

    assert raw_event(message(payload)) == (payload, True)
    assert selected("*", payload) == payload


@pytest.mark.parametrize(
    "payload", [b"", b"21,5", b"\xff\x00", b"NaN", b"{", b"\xef\xbb\xbf{}", b'"\\ud800"', b"[" * 2000, b"1E400"]
)
def test_what_is_no_json_becomes_data(payload):
    event, is_json = raw_event(message(payload))

    assert not is_json
    assert base64.b64decode(json.loads(event)["data"]) == payload
    assert json.loads(selected("*, topic() AS topic", payload)) == {
        "data": base64.b64encode(payload).decode(), "topic": "plant/7/temperature",
    }  # fmt: skip


def test_a_record_says_what_mqtt_says():
    properties = MessageProperties(user=(("k", "1"), ("k", "2")), content_type="text/plain")
    event, _ = records_event(message(b"\x00hi", qos=1, mid=7, retain=True, properties=properties))

    assert json.loads(event) == {
        "Records": [
            {
                "eventSource": "bridge:mqtt", "topic": "plant/7/temperature", "qos": 1, "retain": True, "messageId": 7,
                "payload": "AGhp", "timestamp": 1700000000123,
                "userProperties": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}], "contentType": "text/plain",
            }
        ]
    }  # fmt: skip
    assert "messageId" not in json.loads(records_event(message(b""))[0])["Records"][0]


def test_the_example_of_the_guide():
    text = "*, topic() AS topic, clientid() AS clientid, timestamp() AS ts"
    event = selected(text, b'{"row":"10"}')

    assert json.loads(event) == {
        "row": "10", "topic": "plant/7/temperature", "clientid": "n/a", "ts": 1700000000123,
    }  # fmt: skip
    assert event.startswith(b'{"row":"10",')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b", {"b": 1.50}),
        ("a.b AS deep, c", {"deep": 1.5, "c": [1]}),
        ("nothing, c AS d", {"d": [1]}),
        ("a.b.c", {}),
        ("topic(2), topic(9) AS far", {"topic": "7"}),
        ("TOPIC() as t", {"t": "plant/7/temperature"}),
        ("encode(*, 'base64') AS data", {"data": base64.b64encode(b'{"a": {"b": 1.50}, "c": [1], "x-y": 2}').decode()}),
        ('"x-y" AS xy', {"xy": 2}),
        ("*, c AS a", {"c": [1], "x-y": 2, "a": [1]}),
        ("clientid()", {"clientid": "pump-7"}),
        (
            "mqttproperties",
            {
                "mqttproperties": {
                    "userProperties": [{"key": "clientid", "value": "pump-7"}], "responseTopic": "r", "correlationData": "AQ==",
                    "formatIndicator": "UTF8_DATA", "messageExpiryInterval": 9,
                }
            },
        ),
    ],
)  # fmt: skip
def test_a_list_takes_what_it_names(text, expected):
    properties = MessageProperties(
        user=(("clientid", "pump-7"),), response_topic="r", correlation_data=b"\x01", is_text=True, expiry_s=9
    )

    assert json.loads(selected(text, b'{"a": {"b": 1.50}, "c": [1], "x-y": 2}', properties=properties)) == expected


def test_numbers_keep_their_digits():
    payload = b'{"big": 123456789012345678901234567890, "a": {"exact": 0.10000000000000000000001}}'

    assert selected("big, a.exact", payload) == (
        b'{"big":123456789012345678901234567890,"exact":0.10000000000000000000001}'
    )


def test_another_value_than_an_object_is_data_beside_a_column():
    assert json.loads(selected("*, topic() AS t", b"21.5")) == {"data": "MjEuNQ==", "t": "plant/7/temperature"}
    assert selected("*", b"21.5") == b"21.5"
    assert json.loads(selected("a, topic() AS t", b"[1]")) == {"t": "plant/7/temperature"}


@given(JSON, JSON, st.sampled_from(["", " ", "\n\t"]))
def test_members_are_the_texts_of_the_values(one, other, space):
    text = f'{space}{{{space}"a"{space}:{space}{json.dumps(one)}{space},"b\\"":{json.dumps(other)}{space}}}{space}'

    assert members(text) == {"a": json.dumps(one), 'b"': json.dumps(other)}
    assert members("[1]") is None
    assert members("{}") == {}
    assert members('{"a":1,"a":2}') == {"a": "2"}


@given(
    st.dictionaries(st.sampled_from(["a", "b", "t"]), JSON),
    st.sampled_from(["*, topic() AS t", "*, a AS b", "*, topic() AS n, a.b"]),
)
def test_whatever_is_selected_is_json(value, text):
    json.loads(selected(text, json.dumps(value).encode()))


def test_an_own_name_wins_over_that_of_the_payload():
    assert json.loads(selected("*, topic() AS a", b' {"a":1,"b":2} ')) == {"b": 2, "a": "plant/7/temperature"}
    assert selected("*, topic() AS a", b"{ }") == b'{ "a":"plant/7/temperature"}'


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "expected *, a field or a function at the end (character 1)"),
        ("*,", "at the end (character 3)"),
        ("a b", "expected AS name, a comma or the end before b (character 3)"),
        ("SELECT *", "without SELECT and FROM (character 1)"),
        ("topic(0)", "counts levels from 1 (character 7)"),
        ("topic('a')", "expected ) before 'a' (character 7)"),
        ("upper(a)", "no function upper(); there are topic(), topic(n),"),
        ("encode(*, 'hex')", "encode knows 'base64' only (character 11)"),
        ("encode(a, 'base64')", "expected * before a (character 8)"),
        ("a AS", "AS wants a name (character 5)"),
        ("a. , b", "field's name was expected behind the dot (character 4)"),
        ("*, *", "* is there twice (character 4)"),
        ("a, c.a", "the name a is there twice"),
        ("a; b", "';' has no meaning here (character 2)"),
        ("* AS x", "* has no AS before AS (character 3)"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text, mistake):
    with pytest.raises(SelectMistake) as caught:
        parse_select(text)
    assert mistake in str(caught.value)


@given(st.text(alphabet="*,. ()'\"aASncodetpi64", max_size=20))
def test_any_text_is_a_list_or_a_mistake(text):
    try:
        select = parse_select(text)
    except SelectMistake:
        return
    json.loads(select(message(b'{"a":1}'))[0])
