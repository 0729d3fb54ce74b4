"""`bridge generate-event mqtt|schedule`."""

import json

import pytest


def test_every_field(alone):
    found = alone(
        "generate-event", "schedule", "--name", "report", "--timestamp", "1513968228999", "--id", "i", "--region",
        "eu-west-1", "--account", "123456789012",
    )  # fmt: skip

    assert json.loads(found.out) == {
        "version": "0", "id": "i", "detail-type": "Scheduled Event", "source": "aws.events", "account": "123456789012",
        "time": "2017-12-22T18:43:48Z", "region": "eu-west-1",
        "resources": ["arn:aws:events:eu-west-1:123456789012:rule/report"], "detail": {},
    }  # fmt: skip


def test_the_next_ticks_of_an_expression(alone):
    found = alone(
        "generate-event", "schedule", "--schedule", "cron(0 10 ? * MON-FRI *)", "--timezone", "Europe/Berlin",
        "--timestamp", "2026-03-27T12:00:00Z", "--count", "2",
    )  # fmt: skip
    events = [json.loads(line) for line in found.out.splitlines()]

    assert [event["time"] for event in events] == ["2026-03-30T08:00:00Z", "2026-03-31T08:00:00Z"]
    assert events[0]["id"] != events[1]["id"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--schedule", "cron(0 25 * * ? *)"), "--schedule: at character 8: hours is 0 to 23, not 25"),
        (("--schedule", "rate(1 hour)", "--timezone", "Mars"), "--timezone: no time zone of that name"),
        (("--schedule", "at(2020-01-01T00:00:00)"), "--schedule: never ticks any more"),
        (("--name", "\udcff"), "--name is not UTF-8"),
    ],
)
def test_a_mistake_is_told_in_words(alone, arguments, message):
    found = alone("generate-event", "schedule", *arguments)

    assert found.code == 2
    assert message in found.err


def test_a_message_in_each_format(alone):
    payload = ("--topic", "plant/3", "--payload", '{"t": 1}', "--timestamp", "1513968228000")
    raw = alone("generate-event", "mqtt", *payload).out
    rule = alone("generate-event", "mqtt", *payload, "--format", "iot-rule", "--select", "*, topic(2) AS device").out
    records = alone(
        "generate-event", "mqtt", *payload, "--format", "records", "--retain", "--message-id", "7", "--property",
        "a=b", "--content-type", "application/json",
    ).out  # fmt: skip

    assert raw == '{"t": 1}\n'
    assert json.loads(rule) == {"t": 1, "device": "3"}
    assert json.loads(records) == {"Records": [{
        "eventSource": "bridge:mqtt", "topic": "plant/3", "qos": 1, "retain": True, "messageId": 7,
        "payload": "eyJ0IjogMX0=", "timestamp": 1513968228000, "userProperties": [{"key": "a", "value": "b"}],
        "contentType": "application/json",
    }]}  # fmt: skip


def test_a_payload_that_is_no_json(alone):
    assert alone("generate-event", "mqtt", "--payload", "hi").out == '{"data":"aGk="}\n'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "iot-rule"), "--select goes with --format iot-rule"),
        (("--select", "*"), "--select goes with --format iot-rule"),
        (("--format", "iot-rule", "--select", "topic("), "--select:"),
        (("--qos", "2"), "--qos"),
    ],
)
def test_a_mistake_in_a_message_is_told(alone, arguments, message):
    found = alone("generate-event", "mqtt", *arguments)

    assert found.code == 2
    assert message in found.err
