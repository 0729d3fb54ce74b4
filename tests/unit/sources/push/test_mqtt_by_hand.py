"""MQTT sources that are given messages by hand: shaped, bounded and stored as a broker's, without one."""

import json

import pytest

from bridge.core.errors import LaneFull
from bridge.core.push import Given, NotAccepted
from bridge.events.mqtt import raw_event, records_event
from bridge.events.select import parse_select
from bridge.sources.push.mqtt import MqttSource, MqttSpec
from bridge.sources.push.mqtt_address import MqttAddress
from bridge.testing.clock import ManualClock
from bridge.testing.push import MemoryIntake


def made(*topics, shape=raw_event, **options):
    intake = MemoryIntake()
    spec = MqttSpec(
        name="sensors", address=MqttAddress(host="broker", port=1883), topics=topics or ("plant/+/temperature",),
        shape=shape, function="f", **options,
    )  # fmt: skip
    source = MqttSource(spec, intake=intake, put_letter=None, sessions=None, clock=ManualClock())
    return source, intake


async def test_a_message_is_stored_in_the_source_s_shape():
    source, intake = made()
    accepted = await source.feed(Given(data=b'{"t": 1}', topic="plant/3/temperature"))

    (record,) = intake.stored
    assert accepted.ids == (record.id,)
    assert (record.source, record.function, record.payload) == ("sensors", "f", b'{"t": 1}')


@pytest.mark.parametrize(
    ("shape", "data", "event"),
    [
        (raw_event, b"\xff", {"data": "/w=="}),
        (parse_select("*, topic(2) AS device"), b'{"t": 1}', {"t": 1, "device": "3"}),
    ],
)
async def test_it_goes_through_the_shape(shape, data, event):
    source, intake = made(shape=shape)
    await source.feed(Given(data=data, topic="plant/3/temperature"))

    assert json.loads(intake.stored[0].payload) == event


async def test_a_record_says_where_it_came_by():
    source, intake = made(shape=records_event)
    await source.feed(Given(data=b"1", topic="plant/3/temperature"))
    (record,) = json.loads(intake.stored[0].payload)["Records"]

    assert (record["topic"], record["qos"], record["retain"]) == ("plant/3/temperature", 0, False)


@pytest.mark.parametrize("topics", [("plant/3",), ("$share/g/plant/3",)])
async def test_the_only_topic_need_not_be_named(topics):
    source, intake = made(*topics, shape=records_event)
    await source.feed(Given(data=b"1"))

    assert json.loads(intake.stored[0].payload)["Records"][0]["topic"] == "plant/3"


@pytest.mark.parametrize(
    ("topics", "topic", "text"),
    [
        (("a/+",), "", r"sensors needs a topic, one of a/\+"),
        (("a", "b"), "", "sensors needs a topic, one of a, b"),
        (("a/+",), "b/c", r"sensors does not receive b/c; its topics are a/\+"),
        (("a/+",), "a/+", r"has no \+ or #"),
        (("#",), "$SYS/x", "does not receive"),
    ],
)
async def test_a_topic_that_would_not_come_is_refused(topics, topic, text):
    source, intake = made(*topics)
    with pytest.raises(NotAccepted, match=text):
        await source.feed(Given(data=b"1", topic=topic))

    assert intake.stored == []


async def test_limits_and_room_are_the_source_s():
    source, intake = made("a", event_max_bytes=10)
    with pytest.raises(NotAccepted, match="the event has 13 bytes") as caught:
        await source.feed(Given(data=b'"aaaaaaaaaaa"'))
    assert caught.value.status == 413
    intake.refusal = LaneFull("too many events wait")
    with pytest.raises(LaneFull):
        await source.feed(Given(data=b"1"))
