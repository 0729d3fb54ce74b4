"""What the Kafka destination refuses when it is built, and what it says when nobody takes a letter."""

from base64 import b64encode

import orjson
import pytest

from bridge.core.connection import KafkaConnection
from bridge.core.errors import ConfigError, DestinationError
from bridge.core.invocation import Condition, DeadLetter
from bridge.destinations.kafka import KafkaDestination, _messages

MAIN = KafkaConnection(name="main", bootstrap_servers=("a:1", "b:1"))


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
        destination(source=source, source_topic="failed")


def test_another_topic_or_another_cluster_is_fine():
    destination(source=MAIN, source_topic="orders")
    destination(source=KafkaConnection(name="other", bootstrap_servers=("x:1",)), source_topic="failed")
    destination()


def test_a_damaged_record_is_sent_as_base64_in_one_message():
    letter = DeadLetter(
        id="1", queue="default", function="f", source="m", received_at=0, dead_at=0, attempts=0, payload=b'{"a":\xff',
        condition=Condition.RECORD_DAMAGED, outcome=b'{"version":"1.0"}',
    )  # fmt: skip

    ((key, value, headers),) = _messages(letter)

    assert key is None
    assert orjson.loads(value) == {"version": "1.0", "payload": {"base64": b64encode(letter.payload).decode()}}
    assert ("bridge-condition", b"RecordDamaged") in headers


async def test_a_cluster_that_nobody_answers_at_takes_nothing():
    letter = DeadLetter(
        id="1", queue="default", function="f", source="m", received_at=0, dead_at=0, attempts=1, payload=b"{}",
        condition=Condition.RETRY_ATTEMPTS_EXHAUSTED,
    )  # fmt: skip
    one = destination(arguments=lambda: {"bootstrap_servers": "127.0.0.1:1"}, send_max_s=3.0)

    with pytest.raises(DestinationError, match="kafka://main/failed"):
        await one.send(letter)

    await one.close()
    await one.close()
