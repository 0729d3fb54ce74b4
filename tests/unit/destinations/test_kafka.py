"""What the Kafka destination refuses when it is built, and what it says when nobody takes a letter."""

from base64 import b64encode
from dataclasses import replace

import orjson
import pytest

from bridge.core.connection import KafkaConnection
from bridge.core.errors import ConfigError
from bridge.core.invocation import Condition, DeadLetter
from bridge.core.outcome import OutboxEntry, OutcomeKind, TargetPlace, TargetTrouble
from bridge.destinations.kafka import KafkaDestination, _messages, refuse_loop
from bridge.events.outcomes import failure_outcome, success_record
from bridge.util.library_log import tame

MAIN = KafkaConnection(name="main", bootstrap_servers=("a:1", "b:1"))


def entry(**more):
    place = TargetPlace(target="kafka://main/failed")
    return OutboxEntry(
        **{"place": place, "kind": OutcomeKind.ON_FAILURE, "id": "1", "function": "f", "created_at": 0.0} | more
    )


def destination(**more):
    return KafkaDestination(**{"topic": "failed", "connection": MAIN, "arguments": dict} | more)


@pytest.mark.parametrize(
    "source",
    [
        MAIN,
        KafkaConnection(name="", bootstrap_servers=("b:1",)),
        KafkaConnection(name="main", bootstrap_servers=("x:1",)),
    ],
)
def test_the_topic_that_is_read_is_refused(source):
    with pytest.raises(ConfigError, match="kafka://main/failed is what the mapping reads"):
        refuse_loop("failed", MAIN, source_topic="failed", source=source)


def test_another_topic_or_another_cluster_is_fine():
    refuse_loop("failed", MAIN, source_topic="orders", source=MAIN)
    other = KafkaConnection(name="other", bootstrap_servers=("x:1",))
    refuse_loop("failed", MAIN, source_topic="failed", source=other)


def test_a_damaged_record_is_sent_as_base64_in_one_message():
    letter = DeadLetter(
        id="1", queue="default", function="f", source="m", received_at=0, dead_at=0, attempts=0, payload=b'{"a":\xff',
        condition=Condition.RECORD_DAMAGED, outcome=b'{"version":"1.0"}', mapping="m",
    )  # fmt: skip

    ((key, value, headers),) = _messages(entry(), letter, daemon="d")

    assert key is None
    assert orjson.loads(value) == {"version": "1.0", "payload": {"base64": b64encode(letter.payload).decode()}}
    assert ("bridge-condition", b"RecordDamaged") in headers


async def test_a_cluster_that_nobody_answers_at_takes_nothing():
    letter = DeadLetter(
        id="1", queue="default", function="f", source="m", received_at=0, dead_at=0, attempts=1, payload=b"{}",
        condition=Condition.RETRY_ATTEMPTS_EXHAUSTED,
    )  # fmt: skip
    tame("aiokafka")
    one = destination(arguments=lambda: {"bootstrap_servers": "127.0.0.1:1"}, send_max_s=3.0)

    with pytest.raises(TargetTrouble, match=r"^kafka://main/failed: 127\.0\.0\.1:1: \S") as caught:
        await one.send(entry(), letter)
    assert "Unable to bootstrap" not in str(caught.value)

    await one.close()
    await one.close()


ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"


def test_an_asynchronous_event_is_one_message_with_its_record():
    letter = DeadLetter(
        id="1", queue="default", function="f", source="s", received_at=0, dead_at=0, attempts=3, payload=b'{"n": 1}',
        condition=Condition.RETRIES_EXHAUSTED, error_type="ValueError",
    )  # fmt: skip
    letter = replace(letter, outcome=failure_outcome(letter, function_arn=ARN))

    ((key, value, headers),) = _messages(entry(), letter, daemon="d")

    record = orjson.loads(value)
    assert (key, record["requestPayload"], record["requestContext"]["condition"]) == (
        b"1", {"n": 1}, "RetriesExhausted",
    )  # fmt: skip
    assert {("bridge-kind", b"on_failure"), ("bridge-error-type", b"ValueError")} < set(headers)


def test_a_success_and_a_pointer_are_one_message_each():
    record = success_record(
        request_id="1", function_arn=ARN, attempts=1, payload=b"{}", version="$LATEST", response=b"2", time=0.0
    )
    success = entry(kind=OutcomeKind.ON_SUCCESS, record=record)

    assert _messages(success, None, daemon="d") == [
        (b"1", record, [("bridge-kind", b"on_success"), ("bridge-function", b"f")])
    ]
    ((_, value, _),) = _messages(replace(success, is_pointer=True, last_error="large"), None, daemon="d")
    assert orjson.loads(value)["bridge"]["event"] == "1"
