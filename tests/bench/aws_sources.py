"""ministack with sources that are full before anything is measured: a stream, a table's stream, a queue."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import scratch
from tests.brokers.aws import AwsService
from tests.brokers.emulators import HOW_TO_GET_IT, Ministack

KINDS = ("kinesis", "dynamodb", "sqs")
SHARDS = 2
VALUE_BYTES = 1000
_FILLING = "abcdefghijklmnopqrstuvwxyz0123456789" * 64
_PUTTERS = 4
_A_CALL = {"kinesis": 500, "dynamodb": 25, "sqs": 10}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One full source; `name` is its stream, table or queue."""

    kind: str
    name: str
    records: int
    endpoint_url: str
    arn: str
    """As an event source mapping names it."""
    url: str = ""
    """Of a queue."""


@contextlib.contextmanager
def emulator() -> Iterator[AwsService]:
    """Give ministack, started here and ended with the bench."""
    assert Ministack.is_installed(), f"no ministack: {HOW_TO_GET_IT}"
    with scratch() as folder:
        process = Ministack(folder / "ministack").start()
        service = AwsService(process.endpoint_url, folder=folder, stem="bench", account=process.account)
        try:
            yield service
        finally:
            service.close()
            process.stop()


def full_source(service: AwsService, kind: str, *, records: int) -> Source:
    """Return a new source of so many records of about 1 KB, evenly over its shards."""
    name = f"bench-{kind}-{uuid.uuid4().hex[:8]}"
    arn, url = _create(service, kind, name)
    size = _A_CALL[kind]
    client = service.client(kind)
    with ThreadPoolExecutor(_PUTTERS) as pool:
        starts = range(0, records, size)
        list(pool.map(lambda first: _put(client, kind, name, url, range(first, min(first + size, records))), starts))
    return Source(kind=kind, name=name, records=records, endpoint_url=service.endpoint_url, arn=arn, url=url)


def _create(service: AwsService, kind: str, name: str) -> tuple[str, str]:
    client = service.client(kind)
    if kind == "kinesis":
        client.create_stream(StreamName=name, ShardCount=SHARDS)
        return client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"], ""
    if kind == "sqs":
        url = client.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "300"})["QueueUrl"]
        return client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"], url
    table = client.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )  # fmt: skip
    return table["TableDescription"]["LatestStreamArn"], ""


def _put(client: Any, kind: str, name: str, url: str, numbers: range) -> None:
    values = {number: json.dumps({"number": number, "text": _FILLING[: VALUE_BYTES - 40]}) for number in numbers}
    if kind == "kinesis":
        records = [{"Data": value.encode(), "PartitionKey": f"key{n % 1000}"} for n, value in values.items()]
        assert not client.put_records(StreamName=name, Records=records)["FailedRecordCount"]
    elif kind == "sqs":
        entries = [{"Id": str(number), "MessageBody": value} for number, value in values.items()]
        assert not client.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")
    else:
        items = [{"id": {"S": str(number)}, "value": {"S": value}} for number, value in values.items()]
        requests = [{"PutRequest": {"Item": item}} for item in items]
        assert not client.batch_write_item(RequestItems={name: requests}).get("UnprocessedItems")


def write_source(source: Source, folder: Path) -> str:
    """Write it for a process of its own and return the file's name."""
    file = folder / f"{source.name}.json"
    file.write_text(json.dumps({name: getattr(source, name) for name in Source.__slots__}))
    return str(file)


def read_source(file: str) -> Source:
    return Source(**json.loads(Path(file).read_text()))
