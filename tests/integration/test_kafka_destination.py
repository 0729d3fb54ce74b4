"""Failed records on a Kafka topic: each with its key, its headers, why, and the event that holds just it."""

import asyncio
import json
import random
import time
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer

from bridge.core.connection import KafkaConnection
from bridge.core.invocation import Condition, DeadLetter
from bridge.core.outcome import OutboxEntry, OutcomeKind, RecordRefused, TargetPlace, TargetTrouble
from bridge.destinations.kafka import KafkaDestination
from bridge.events.kafka import KafkaShape, parse_event, record_fragment, record_prefix
from bridge.sources.pull.kafka_client import client_arguments
from tests.harness import DaemonProcess, write_function

pytestmark = pytest.mark.integration

ENTRY = OutboxEntry(
    place=TargetPlace(target="kafka://main/failed"), kind=OutcomeKind.ON_FAILURE, function="f", created_at=0.0,
    id="11111111-1111-4111-8111-111111111111",
)  # fmt: skip
OUTCOME = {
    "requestContext": {"condition": "RetryAttemptsExhausted", "approximateInvokeCount": 2},
    "version": "1.0",
    "KafkaBatchInfo": {"batchSize": 3},
}


def letter(payload, *, outcome=OUTCOME, **more):
    return DeadLetter(
        id="11111111-1111-4111-8111-111111111111", queue="default", function="f", source="orders", received_at=0,
        dead_at=0, condition=Condition.RETRY_ATTEMPTS_EXHAUSTED, attempts=2, payload=payload, mapping="orders",
        error_type="ValueError", outcome=json.dumps(outcome).encode() if outcome else b"", **more,
    )  # fmt: skip


def event(*records):
    prefix = record_prefix("orders", 2)
    fragments = [
        record_fragment(
            prefix, offset, timestamp_ms=1000 + offset, timestamp_type=0, key=key, value=value, headers=headers
        )
        for offset, key, value, headers in records
    ]
    return KafkaShape(topic="orders", bootstrap_servers="b:1").event([("orders-2", fragments)])


async def messages(bootstrap, topic, count):
    found = []
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        end = time.monotonic() + 60
        while len(found) < count and time.monotonic() < end:
            for some in (await consumer.getmany(timeout_ms=300)).values():
                found += some
    return found


def destination(kafka, topic, **more):
    connection = KafkaConnection(name="main", bootstrap_servers=(kafka.bootstrap,))
    return KafkaDestination(topic=topic, connection=connection, arguments=lambda: client_arguments(connection), **more)


async def test_each_record_is_a_message_of_its_own(kafka, kafka_topic):
    topic = await kafka_topic(1)
    records = [(5, b"k\xff", b'{"n":1}', (("trace", b"\x80"), ("trace", b""))), (6, None, None, ()), (9, b"", b"", ())]
    one = destination(kafka, topic)

    await one.send(ENTRY, letter(event(*records)))
    await one.close()

    found = await messages(kafka.bootstrap, topic, 3)
    assert [message.key for message in found] == [b"k\xff", None, b""]
    first = json.loads(found[0].value)
    assert {name: first[name] for name in OUTCOME} == OUTCOME
    (record,) = parse_event(json.dumps(first["payload"]).encode())
    assert (record.offset, record.key, record.value, record.headers) == records[0]
    assert [parse_event(json.dumps(json.loads(m.value)["payload"]).encode())[0].offset for m in found] == [5, 6, 9]
    assert found[0].headers == (
        ("trace", b"\x80"), ("trace", b""), ("bridge-mapping", b"orders"),
        ("bridge-dead-letter", b"11111111-1111-4111-8111-111111111111"),
        ("bridge-condition", b"RetryAttemptsExhausted"), ("bridge-attempts", b"2"),
        ("bridge-error-type", b"ValueError"), ("bridge-topic", b"orders"), ("bridge-partition", b"2"),
        ("bridge-offset", b"5"), ("bridge-timestamp", b"1005"),
    )  # fmt: skip


async def test_an_asynchronous_event_is_one_message_under_its_id(kafka, kafka_topic):
    topic = await kafka_topic(1)
    one = destination(kafka, topic)

    await one.send(ENTRY, replace(letter(b'{"n": 1}'), mapping=""))
    await one.close()

    (found,) = await messages(kafka.bootstrap, topic, 1)
    assert found.key == ENTRY.id.encode()
    assert json.loads(found.value)["requestPayload"] == {"n": 1}


async def test_a_header_without_a_value_stays_one(kafka, kafka_topic):
    topic = await kafka_topic(1)
    one = destination(kafka, topic)

    await one.send(ENTRY, letter(event((1, b"k", b"v", (("none", None),)))))
    await one.close()

    (found,) = await messages(kafka.bootstrap, topic, 1)
    assert found.headers[0] == ("none", None)


async def test_what_is_no_event_of_kafkas_is_one_message(kafka, kafka_topic):
    topic = await kafka_topic(1)
    one = destination(kafka, topic)

    await one.send(ENTRY, letter(b'{"Records":[]}'))
    await one.send(ENTRY, letter(b'{"Records":[1]}', outcome=None))
    await one.close()

    first, second = await messages(kafka.bootstrap, topic, 2)
    assert (first.key, json.loads(first.value)["payload"]) == (None, {"Records": []})
    assert second.value == b'{"Records":[1]}'
    assert ("bridge-topic", b"orders") not in first.headers


async def test_a_record_of_a_megabyte_fits(kafka, kafka_topic):
    topic = await kafka_topic(1)
    value = json.dumps({"text": "the same again and again " * 40_000}).encode()
    one = destination(kafka, topic)

    await one.send(ENTRY, letter(event((1, b"k", value, ()))))
    await one.close()

    (found,) = await messages(kafka.bootstrap, topic, 1)
    assert parse_event(json.dumps(json.loads(found.value)["payload"]).encode())[0].value == value


@pytest.mark.apache_kafka("a limit on what it takes")
async def test_what_the_brokers_refuse_is_an_error_and_the_next_letter_goes_through(kafka, kafka_topic):
    topic = await kafka_topic(1, {"max.message.bytes": "2000"})
    one = destination(kafka, topic)
    noise = random.Random(7).randbytes(9000)

    with pytest.raises(RecordRefused, match="main"):
        await one.send(ENTRY, letter(event((1, b"k", noise, ()))))
    await one.send(ENTRY, letter(event((2, b"k", b"small", ()))))
    await one.close()

    (found,) = await messages(kafka.bootstrap, topic, 1)
    assert parse_event(json.dumps(json.loads(found.value)["payload"]).encode())[0].offset == 2


@pytest.mark.apache_kafka("topics that are not made by asking")
async def test_a_topic_that_does_not_exist_takes_nothing(kafka):
    one = destination(kafka, "there-is-no-such-topic", send_max_s=2.0)

    with pytest.raises(TargetTrouble, match="there-is-no-such-topic"):
        await one.send(ENTRY, letter(event((1, b"k", b"v", ()))))
    await one.close()


async def test_letters_of_several_mappings_at_once_share_the_producer(kafka, kafka_topic):
    topic = await kafka_topic(2)
    one = destination(kafka, topic)

    await asyncio.gather(*(one.send(ENTRY, letter(event((number, b"%d" % number, b"v", ())))) for number in range(20)))
    await one.close()

    assert {message.key for message in await messages(kafka.bootstrap, topic, 20)} == {b"%d" % n for n in range(20)}


@pytest.mark.timeout(180)
async def test_a_daemon_tells_a_topic_how_asynchronous_events_ended(kafka, kafka_topic, tmp_path):
    done, failed = await kafka_topic(1), await kafka_topic(1)
    code = write_function(
        tmp_path / "code", "def handler(event, context):\n    if event['fail']: raise ValueError('no')\n    return 7\n"
    )
    config = f"""
[connections.main]
type = "kafka"
bootstrap_servers = ["{kafka.bootstrap}"]
[functions.f]
code = "{code}"
handler = "app.handler"
event_invoke = {{ retry_delays_s = [0.1], on_success = "kafka://main/{done}", on_failure = "kafka://main/{failed}" }}
"""
    process = await asyncio.to_thread(DaemonProcess(tmp_path / "daemon", config).start)
    try:
        for event in ('{"fail": true}', '{"fail": false}'):
            told = await asyncio.to_thread(process.cli, "invoke", "f", "--type", "event", "--payload", event)
            assert told.returncode == 0, told.stderr
        (success,) = await messages(kafka.bootstrap, done, 1)
        (failure,) = await messages(kafka.bootstrap, failed, 1)
    finally:
        await asyncio.to_thread(process.stop)

    one, other = json.loads(success.value), json.loads(failure.value)
    assert (one["requestContext"]["condition"], one["requestPayload"], one["responsePayload"]) == (
        "Success", {"fail": False}, 7,
    )  # fmt: skip
    assert (other["requestContext"]["condition"], other["requestContext"]["approximateInvokeCount"]) == (
        "RetriesExhausted", 3,
    )  # fmt: skip
    assert (other["requestPayload"], other["responsePayload"]["errorType"]) == ({"fail": True}, "ValueError")
