"""Handlers written with Powertools for AWS Lambda, behind mappings of a whole daemon on a real broker."""

import json
import shutil
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.crash.rig import LedgerServer
from tests.harness import write_function

pytestmark = [pytest.mark.integration]

SITE = Path(sysconfig.get_path("purelib"))
SHIPPED = (
    "aws_lambda_powertools", "jmespath", "typing_extensions.py", "pydantic", "pydantic_core", "annotated_types",
    "typing_inspection",
)  # fmt: skip
ARN = "arn:aws:kafka:eu-central-1:123456789012:cluster/orders/1a2b3c-4"
TELL = """
import json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def tell(context, **what):
    connection.sendall(json.dumps({"function": context.function_name, **what}).encode() + b"\\n")
    answers.readline()
"""
CODE = """
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes import KafkaEvent, event_source
from aws_lambda_powertools.utilities.kafka import ConsumerRecords, SchemaConfig, kafka_consumer
from aws_lambda_powertools.utilities.parser import BaseModel, envelopes, event_parser
from aws_lambda_powertools.utilities.parser.models import KafkaMskEventModel, KafkaSelfManagedEventModel
from tell import tell

processor = BatchProcessor(event_type=EventType.Kafka)


class Order(BaseModel):
    id: int
    total: float


@event_source(data_class=KafkaEvent)
def classes(event, context):
    assert event.decoded_bootstrap_servers == [event.bootstrap_servers]
    for record in event.records:
        tell(
            context, source=event.event_source, arn=event.event_source_arn, topic=record.topic, partition=record.partition,
            offset=record.offset, timestamp=record.timestamp, kind=record.timestamp_type,
            key=record.decoded_key and record.decoded_key.decode(), value=record.json_value,
            headers={name: value.hex() for name, value in record.decoded_headers.items()},
        )


@kafka_consumer(schema_config=SchemaConfig(value_schema_type="JSON"))
def consumer(event: ConsumerRecords, context):
    for record in event.records:
        tell(context, key=record.key, value=record.value, header=record.headers["TRACE"].hex(), offset=record.offset)


def one(record, context=None):
    order = record.json_value
    tell(one.context, id=order["id"])
    if order["total"] < 0:
        raise ValueError("a negative total")


def batch(event, context):
    one.context = context
    return process_partial_response(event=event, record_handler=one, processor=processor, context=context)


@event_parser(model=KafkaSelfManagedEventModel)
def parsed(event, context):
    for records in event.records.values():
        for record in records:
            tell(context, source=event.eventSource, key=record.key and record.key.decode(), value=record.value)


@event_parser(model=KafkaMskEventModel)
def parsed_msk(event, context):
    tell(context, source=event.eventSource, arn=event.eventSourceArn)


@event_parser(model=Order, envelope=envelopes.KafkaEnvelope)
def enveloped(event, context):
    for order in event:
        tell(context, id=order.id, total=order.total)
"""
MAPPING = """
[functions.{name}]
code = "{code}"
handler = "app.{name}"
timeout_s = 100
memory_mb = 512
environment = {{ LEDGER = "{ledger}", POWERTOOLS_SERVICE_NAME = "orders" }}

[mappings.{name}]
source = "kafka://{bootstrap}/{topic}"
function = "{name}"
consumer_group_id = "{name}-of-{topic}"
"""
SETTINGS = {
    "classes": "",
    "consumer": "",
    "parsed": "",
    "enveloped": "",
    "parsed_msk": f'event_source_arn = "{ARN}"\n',
    "batch": 'function_response_types = ["ReportBatchItemFailures"]\nmaximum_retry_attempts = 2\n',
}
ORDERS = [{"id": number, "total": -1.5 if number == 3 else 2.5} for number in range(6)]


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A function's folder as one ships it: with what it needs beside it."""
    folder = write_function(tmp_path_factory.mktemp("code"), CODE)
    write_function(folder, TELL, module="tell")
    for name in SHIPPED:
        if (SITE / name).is_dir():
            shutil.copytree(SITE / name, folder / name)
        else:
            shutil.copy(SITE / name, folder)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def ledger(tmp_path):
    server = LedgerServer(tmp_path / "told.jsonl")
    yield server
    server.close()


@pytest.fixture
def told(ledger):
    """Return `told(function)`: what it has told so far."""

    def told(function):
        lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "function"} for line in lines if line["function"] == function]

    return told


async def put(bootstrap, topic):
    """Send the orders to two partitions, keyed, with a header of bytes that are no text."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for order in ORDERS:
            await producer.send_and_wait(
                topic, json.dumps(order).encode(), key=b"order-%d" % order["id"] if order["id"] else None,
                partition=order["id"] % 2, headers=[("trace", b"\x00\x80\xff")], timestamp_ms=1_700_000_000_000 + order["id"],
            )  # fmt: skip


def key(number):
    return f"order-{number}" if number else None


async def test_every_kind_of_handler_reads_its_records(daemon, code, ledger, told, kafka, kafka_topic, wait_until):
    topic = await kafka_topic(2)
    await put(kafka.bootstrap, topic)
    places = {"code": code, "ledger": ledger.address, "bootstrap": kafka.bootstrap, "topic": topic}
    running = daemon("".join(MAPPING.format(name=name, **places) + more for name, more in SETTINGS.items()))

    for name in ("classes", "consumer", "parsed", "enveloped"):
        await wait_until(lambda name=name: len(told(name)) >= len(ORDERS), description=f"{name} has read all")
    await wait_until(lambda: told("parsed_msk"))
    await wait_until(
        lambda: Counter(line["id"] for line in told("batch"))[3] >= 3, description="the bad one was tried thrice"
    )

    assert sorted(told("classes"), key=lambda line: line["value"]["id"]) == [
        {
            "source": "SelfManagedKafka", "arn": None, "topic": topic, "partition": number % 2, "offset": number // 2,
            "timestamp": 1_700_000_000_000 + number, "kind": "CREATE_TIME", "key": key(number), "value": ORDERS[number],
            "headers": {"trace": "0080ff"},
        }
        for number in range(6)
    ]  # fmt: skip
    assert sorted(told("consumer"), key=lambda line: line["value"]["id"]) == [
        {"key": key(number), "value": ORDERS[number], "header": "0080ff", "offset": number // 2} for number in range(6)
    ]
    assert sorted(told("parsed"), key=lambda line: line["value"]) == [
        {"source": "SelfManagedKafka", "key": key(number), "value": json.dumps(ORDERS[number])} for number in range(6)
    ]
    assert sorted(told("enveloped"), key=lambda line: line["id"]) == ORDERS
    assert told("parsed_msk")[0] == {"source": "aws:kafka", "arn": ARN}
    await only_the_bad_one_was_tried_again(running, told, wait_until)


async def only_the_bad_one_was_tried_again(running, told, wait_until):
    def letters():
        return [json.loads(line) for line in running.cli("dlq", "list", "--json").stdout.splitlines()]

    await wait_until(letters, description="it is a dead letter")
    assert Counter(line["id"] for line in told("batch")) == {0: 1, 1: 1, 2: 1, 3: 3, 4: 1, 5: 1}
    assert [(letter["source"], letter["condition"]) for letter in letters()] == [("batch", "RetryAttemptsExhausted")]
