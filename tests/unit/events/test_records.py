"""Events taken apart: which records they hold, of which source, and what their senders sent."""

import json
from pathlib import Path

import pytest

from bridge.core.stream import RecordFormat
from bridge.events.records import NotARecord, event_records, key_and_data

KAFKA, KINESIS, DYNAMODB, SQS, BRIDGE = RecordFormat
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["kafkaEventMsk", "kafkaEventSelfManaged"])
def test_the_records_of_kafka(name):
    event = json.loads((GOLDEN / "powertools-python" / f"{name}.json").read_bytes())

    [record] = event_records(event)

    assert ("records.mytopic-0[0]", KAFKA) == (record.place, record.format)
    assert (b"recordKey", b'{"key":"value"}') == key_and_data(record.document, KAFKA)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("aws:sqs", SQS), ("aws:kinesis", KINESIS), ("aws:dynamodb", DYNAMODB), ("bridge:webhook", BRIDGE),
        ("aws:s3", None), (5, None),
    ],
)  # fmt: skip
def test_records_name_their_source(source, expected):
    records = event_records({"Records": [{"eventSource": source}, {}]})

    assert [("Records[0]", expected), ("Records[1]", None)] == [(each.place, each.format) for each in records]


@pytest.mark.parametrize("event", [None, [], "x", {}, {"Records": 5}, {"records": []}, {"records": {"a": 1}}])
def test_what_has_no_records(event):
    assert event_records(event) is None


@pytest.mark.parametrize(
    ("record_format", "record", "expected"),
    [
        (KAFKA, {"key": None, "value": "YQ=="}, (None, b"a")),
        (KAFKA, {}, (None, None)),
        (KINESIS, {"kinesis": {"data": "YQ=="}}, (None, b"a")),
        (DYNAMODB, {"dynamodb": {}}, (None, None)),
        (SQS, {"body": "grün"}, (None, "grün".encode())),
        (BRIDGE, {"body": "YQ==", "isBase64Encoded": True}, (None, b"a")),
        (BRIDGE, {"body": "YQ==", "isBase64Encoded": False}, (None, b"YQ==")),
        (BRIDGE, {}, (None, b"{}")),
    ],
)
def test_key_and_data(record_format, record, expected):
    assert expected == key_and_data(record, record_format)


@pytest.mark.parametrize(
    ("record_format", "record", "why"),
    [
        (KAFKA, [], "is an object"),
        (KAFKA, {"value": "not base64"}, "`value` is not base64"),
        (KAFKA, {"value": "ü"}, "`value` is not base64"),
        (KINESIS, {"data": "YQ=="}, "object `kinesis`"),
        (SQS, {"body": {"a": 1}}, "`body` is not text"),
    ],
)
def test_what_is_no_record_of_its_source(record_format, record, why):
    with pytest.raises(NotARecord, match=why):
        key_and_data(record, record_format)


@pytest.mark.parametrize(
    ("record", "data"),
    [
        ({"a": 1, "eventSource": "bridge:webhook", "eventSourceARN": "x", "shardId": "s", "eventID": "i"}, {"a": 1}),
        ({"body": [1, {"a": 2}], "eventSource": "bridge:webhook"}, [1, {"a": 2}]),
        ({"body": '{"a":3}', "isBase64Encoded": False, "headers": {}}, {"a": 3}),
        ({"body": "eyJhIjo0fQ==", "isBase64Encoded": True}, {"a": 4}),
    ],
)
def test_the_body_of_a_push_source_s_event_is_the_event_itself_where_it_is_no_request(record, data):
    assert json.loads(key_and_data(record, RecordFormat.BRIDGE)[1]) == data


@pytest.mark.parametrize(
    "record", [{"isBase64Encoded": False, "body": None}, {"isBase64Encoded": False}, {"eventSource": "bridge:schedule"}]
)
def test_a_request_without_a_body_and_a_tick_have_none(record):
    assert key_and_data(record, RecordFormat.BRIDGE) == (None, None)
