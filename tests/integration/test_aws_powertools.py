"""Handlers written with Powertools for AWS Lambda, unchanged, behind mappings of AWS's sources of a whole daemon."""

import json
import shutil
from collections import Counter

import pytest

from tests.crash.aws_feeds import DynamoDbFeed, KinesisFeed, SqsFeed
from tests.crash.aws_rig import event_id
from tests.harness import wait_for, write_function
from tests.integration.test_kafka_powertools import SHIPPED, SITE, TELL

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CODE = """
import os

from aws_lambda_powertools.utilities.batch import (
    BatchProcessor, EventType, SqsFifoPartialProcessor, process_partial_response,
)
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function,
)
from tell import tell

kinesis_processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
dynamodb_processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
sqs_processor = BatchProcessor(event_type=EventType.SQS)
fifo_processor = SqsFifoPartialProcessor()
once_processor = BatchProcessor(event_type=EventType.SQS)


def take(order):
    tell(take.context, id=int(order["id"]), key=order["key"])
    if order.get("poison"):
        raise ValueError("poison")


def of_kinesis(record):
    take(record.kinesis.data_as_json())


def of_dynamodb(record):
    assert record.event_name.name in ("INSERT", "MODIFY")
    take(record.dynamodb.new_image)


def of_sqs(record):
    take(record.json_body)


def answer(event, context, record_handler, processor):
    take.context = context
    return process_partial_response(
        event=event, record_handler=record_handler, processor=processor, context=context
    )


def kinesis(event, context):
    return answer(event, context, of_kinesis, kinesis_processor)


def dynamodb(event, context):
    return answer(event, context, of_dynamodb, dynamodb_processor)


def sqs(event, context):
    return answer(event, context, of_sqs, sqs_processor)


def fifo(event, context):
    return answer(event, context, of_sqs, fifo_processor)


if "IDEMPOTENCY_TABLE" in os.environ:
    settings = IdempotencyConfig(event_key_jmespath="id")

    @idempotent_function(
        data_keyword_argument="order", config=settings,
        persistence_store=DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"]),
    )
    def charge(order):
        tell(take.context, id=order["id"])
        return {"charged": order["id"]}

    def of_order(record):
        charge(order=record.json_body)


def once(event, context):
    settings.register_lambda_context(context)
    return answer(event, context, of_order, once_processor)
"""
FUNCTION = """
{connection}
[functions.{name}]
code = "{code}"
handler = "app.{name}"
timeout_s = 60
memory_mb = 512
environment = {{ LEDGER = "{ledger}", POWERTOOLS_SERVICE_NAME = "orders"{more} }}

[mappings.{name}]
source = "{source}"
function = "{name}"
batch_size = 5
function_response_types = ["ReportBatchItemFailures"]
"""
STREAM = 'starting_position = "TRIM_HORIZON"\nmaximum_retry_attempts = 2\nbisect_batch_on_function_error = true\n'
POISON = 4


def orders(count: int, keys: int = 2) -> list[dict]:
    made = [{"id": n, "key": f"key-{n % keys}", "seq": n} for n in range(1, count + 1)]
    made[POISON - 1]["poison"] = True
    return made


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
    (folder / "credentials").write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")
    folder.chmod(0o755)
    return folder


@pytest.fixture
def run(daemon, code, told):
    """Return `run(name, feed, more="", mapping="")`: a daemon with one function behind one mapping."""

    def start(name, feed, *, more="", mapping=""):
        text = FUNCTION.format(
            connection=feed.service.connection(),
            name=name,
            code=code,
            ledger=told.address,
            source=feed.source,
            more=more,
        )
        return daemon(text + mapping)

    return start


def tries(told) -> dict[int, int]:
    return Counter(line["id"] for line in told())


@pytest.mark.parametrize("name", ["kinesis", "dynamodb"])
def test_a_stream_s_batch_processor_says_which_record_failed(kinesis, ministack, run, told, name) -> None:
    feed = KinesisFeed(kinesis, shards=1) if name == "kinesis" else DynamoDbFeed(ministack)
    feed.put(orders(8))
    running = run(name, feed, mapping=STREAM)

    wait_for(lambda: set(tries(told)) == set(range(1, 9)), 60, "all orders are read")
    wait_for(lambda: tries(told)[POISON] >= 3, 60, "the bad one was tried thrice")
    wait_for(lambda: running.cli("dlq", "list", "--json").stdout.strip(), 30, "it is a dead letter")

    before = [line["id"] for line in told()].index(POISON)
    assert all(tries(told)[number] == 1 for number in range(1, POISON)), "what was done before it is not done again"
    assert [line["id"] for line in told()][:before] == list(range(1, POISON))
    (letter,) = map(json.loads, running.cli("dlq", "list", "--json").stdout.splitlines())
    event = running.admin("GET", f"/admin/v1/dlq/{letter['id']}").json()["event"]
    numbers = [event_id(record) for record in event["Records"]]
    assert numbers == [POISON, POISON + 1], "what the batch had left, from the bad one on, as on AWS"


def test_a_standard_queue_returns_only_what_failed(ministack, run, told) -> None:
    feed = SqsFeed(ministack, fifo=False, visibility_s=2, receives_max=2)
    feed.put(orders(8))
    run("sqs", feed)

    dead: list[dict] = []
    wait_for(lambda: dead.extend(feed.returned()) or dead, 60, "its redrive policy puts the bad one aside")

    assert [order["id"] for order in dead] == [POISON]
    assert tries(told) == {number: 2 if number == POISON else 1 for number in range(1, 9)}


def test_a_fifo_queue_keeps_the_order_of_its_groups(ministack, run, told) -> None:
    feed = SqsFeed(ministack, fifo=True, visibility_s=2, receives_max=3)
    feed.put(orders(8))
    run("fifo", feed)

    dead: list[dict] = []

    def is_over() -> bool:
        dead.extend(feed.returned())
        return feed.is_empty() and set(tries(told)) | {order["id"] for order in dead} == set(range(1, 9))

    wait_for(is_over, 90, "every order is handled, or received too often behind the bad one of its batch")

    assert POISON in [order["id"] for order in dead]
    assert 1 <= tries(told)[POISON] <= 3, "it may have come behind another one that was returned"
    firsts = list(dict.fromkeys((line["key"], line["id"]) for line in told()))
    for key in ("key-0", "key-1"):
        numbers = [number for each, number in firsts if each == key]
        assert numbers == sorted(numbers)


def test_idempotency_against_dynamodb_charges_once(ministack, run, told) -> None:
    table = ministack.name()
    ministack.client("dynamodb").create_table(
        TableName=table, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    feed = SqsFeed(ministack, fifo=False, visibility_s=10)
    made = [{"id": n, "key": "k", "seq": n} for n in (1, 2, 3)]
    feed.put(made)
    feed.client.send_message_batch(
        QueueUrl=feed.url, Entries=[{"Id": f"again-{n['id']}", "MessageBody": json.dumps(n)} for n in made]
    )
    environment = {
        "IDEMPOTENCY_TABLE": table,
        "AWS_ENDPOINT_URL_DYNAMODB": ministack.endpoint_url,
        "AWS_SHARED_CREDENTIALS_FILE": "credentials",  # beside the code, which is the working folder
    }
    run("once", feed, more="".join(f", {key} = {json.dumps(value)}" for key, value in environment.items()))

    wait_for(feed.is_empty, 90, "all six messages are handled")

    assert tries(told) == {1: 1, 2: 1, 3: 1}
    items = ministack.client("dynamodb").scan(TableName=table)["Items"]
    assert [item["status"]["S"] for item in items] == ["COMPLETED"] * 3
