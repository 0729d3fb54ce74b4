"""EventBridge: AWS's samples reproduced; envelopes, entries and other JSON become events of a bus."""

import datetime as dt
import json
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent
from aws_lambda_powertools.utilities.parser.models import EventBridgeModel
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events.bodies import Unreadable
from bridge.events.eventbridge import BusDefaults, BusEvent, eventbridge_event, put_events_entry, read_eventbridge

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = (
    "powertools-python/eventBridgeEvent.json",
    "powertools-python/s3EventBridgeNotificationObjectCreatedEvent.json",
)
BARE = BusDefaults(region="eu-west-1", account="123456789012")
NAMED = BusDefaults(region="eu-west-1", account="123456789012", source="com.example", detail_type="Thing happened")
AT = 1_600_000_000.0


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def read(value, *, defaults=BARE):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_eventbridge(body, defaults=defaults, received_at=AT)


def bus_event(sample):
    return BusEvent(
        event_id=sample["id"],
        source=sample["source"],
        detail_type=sample["detail-type"],
        detail=sample["detail"],
        time=dt.datetime.fromisoformat(sample["time"]).timestamp(),
        region=sample["region"],
        account=sample["account"],
        resources=sample["resources"],
        replay_name=sample.get("replay-name", ""),
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_reproduced_member_by_member_in_its_order(name):
    sample = golden(name)

    assert json.dumps(sample) == json.dumps(json.loads(eventbridge_event(bus_event(sample))))


@pytest.mark.parametrize("name", SAMPLES)
def test_an_envelope_is_kept_byte_for_byte_and_named_by_its_id(name):
    body = (GOLDEN / name).read_bytes()

    (event,) = read(body)

    assert (body.strip(), golden(name)["id"]) == (event.payload, event.delivery_id)


def test_an_entry_of_putevents_becomes_an_envelope():
    (event,) = read(golden("vendors/putevents-entry.json"))

    made = json.loads(event.payload)
    assert {
        "version": "0",
        "id": made["id"],
        "detail-type": "myDetailType",
        "source": "com.mycompany.myapp",
        "account": "123456789012",
        "time": "2018-02-01T00:00:00Z",
        "region": "eu-west-1",
        "resources": ["resource1", "resource2"],
        "detail": {"key1": "value1", "key2": "value2"},
    } == made
    assert "" == event.delivery_id
    assert 36 == len(made["id"])


def test_an_entry_without_a_time_has_that_of_its_receipt_and_a_number_is_a_time_too():
    entry = {"Source": "a", "DetailType": "b", "Detail": {"id": 1}}

    assert "2020-09-13T12:26:40Z" == json.loads(read(entry)[0].payload)["time"]
    assert "1970-01-01T00:00:01Z" == json.loads(read(entry | {"Time": 1})[0].payload)["time"]


def test_entries_become_as_many_events_in_their_order():
    entries = [{"Source": "a", "DetailType": "b", "Detail": json.dumps({"id": number})} for number in range(3)]

    events = [json.loads(event.payload) for event in read({"Entries": entries})]

    assert [{"id": 0}, {"id": 1}, {"id": 2}] == [event["detail"] for event in events]
    assert 3 == len({event["id"] for event in events})


def test_other_json_is_the_detail_where_the_route_has_names_for_it():
    (event,) = read({"id": 7}, defaults=NAMED)

    made = json.loads(event.payload)
    assert ({"id": 7}, "com.example", "Thing happened") == (made["detail"], made["source"], made["detail-type"])
    assert ("2020-09-13T12:26:40Z", "eu-west-1", []) == (made["time"], made["region"], made["resources"])


def test_powertools_reads_all_of_them():
    for event in (
        *read(golden("powertools-python/eventBridgeEvent.json")),
        *read(golden("vendors/putevents-entry.json")),
        *read({"id": 7}, defaults=NAMED),
    ):
        made = json.loads(event.payload)
        assert made["detail-type"] == EventBridgeEvent(made).detail_type
        assert made["detail"] == EventBridgeModel.model_validate(made).detail


def test_what_generate_event_prints_as_sent_is_read():
    event = bus_event(golden("powertools-python/eventBridgeEvent.json"))

    made = json.loads(read(put_events_entry(event))[0].payload)

    assert (event.source, event.detail_type, event.detail) == (made["source"], made["detail-type"], made["detail"])
    assert "2017-12-22T18:43:48Z" == made["time"]


ENVELOPE = golden("powertools-python/eventBridgeEvent.json")
ENTRY = golden("vendors/putevents-entry.json")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "the body is no JSON object"),
        (
            {"id": 7},
            "neither an event of EventBridge (detail-type, detail) nor an entry (Source, DetailType, Detail); ",
        ),
        (ENVELOPE | {"version": "1"}, "version is '1'; it must be \"0\""),
        (ENVELOPE | {"version": 0}, "version is no text"),
        (ENVELOPE | {"id": ""}, "id is empty"),
        (ENVELOPE | {"account": None}, "account is missing"),
        (ENVELOPE | {"detail": "text"}, "detail is no JSON object"),
        (ENVELOPE | {"resources": [1]}, "resources is no list of text"),
        (ENTRY | {"Source": ""}, "Source is empty"),
        (ENTRY | {"Detail": "{"}, "Detail is not JSON: "),
        (ENTRY | {"Detail": "[1]"}, "Detail is no JSON object"),
        (ENTRY | {"Detail": '{"a":' * 250 + "1" + "}" * 250}, "Detail is nested deeper than 200 levels"),
        (ENTRY | {"Time": "soon"}, "Time is no time"),
        (ENTRY | {"Time": True}, "Time is no time"),
        (ENTRY | {"Time": 1e300}, "Time is no time"),
        (ENTRY | {"Resources": "r"}, "resources is no list"),
        ({"Entries": []}, "Entries is empty"),
        ({"Entries": [ENTRY, {"Source": "a"}]}, "entry 1: DetailType is missing"),
        ({"Entries": {}}, "Entries is no list"),
    ],
)
def test_what_is_no_event_of_a_bus_is_said_in_one_line(value, text):
    with pytest.raises(Unreadable) as refusal:
        read(value)

    assert str(refusal.value).startswith(text)
    assert "\n" not in str(refusal.value)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([ENVELOPE, ENTRY]),
    st.data(),
    st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.just({}),
)
def test_an_event_with_any_member_of_any_kind_is_read_or_refused_in_one_line(sample, data, value):
    try:
        events = read(sample | {data.draw(st.sampled_from(sorted(sample))): value}, defaults=NAMED)
    except Unreadable as error:
        assert "\n" not in str(error)
    else:
        assert "0" == json.loads(events[0].payload)["version"]


def test_a_detail_is_kept_as_its_sender_wrote_it():
    number = b"123456789012345678901234567890"
    entry = b'{"Source":"s","DetailType":"t","Detail":"{\\"n\\": %b, \\"x\\": 1.10}"}' % number
    (made,) = read(entry)
    assert b'{"n": %b, "x": 1.10}' % number in made.payload
    with_object = b'{"Source":"s","DetailType":"t","Detail":{"n":%b,"x":1.10,"y":[1e3]}}' % number
    for body in (with_object, b'{"Entries":[%b]}' % with_object):
        (made,) = read(body)
        assert b'"detail":{"n":%b,"x":1.10,"y":[1e3]}' % number in made.payload
    (made,) = read(b' {"n": %b} ' % number, defaults=BusDefaults(region="r", account="a", source="s", detail_type="t"))
    assert b'"detail":{"n": %b}' % number in made.payload
