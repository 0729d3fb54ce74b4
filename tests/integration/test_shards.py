"""Kinesis and DynamoDB streams by a real daemon: reshards while it runs and while it does not, kill -9, replay, marks."""

import datetime as dt
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.aws import AwsService
from tests.crash.rig import LedgerServer
from tests.harness import wait_for, write_function

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

# Says each batch to the test over a connection: a sandboxed worker shares no file with it.
TOLD = """
import base64, json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    if any(value == 666 for _, value in told(event, context)):
        raise ValueError("poison")


def mended(event, context):
    told(event, context)


def told(event, context):
    custom = context.client_context.custom if context.client_context else {}
    values = []
    for record in event["Records"]:
        if "kinesis" in record:
            kinesis = record["kinesis"]
            values.append([kinesis["partitionKey"], int(base64.b64decode(kinesis["data"]))])
        else:
            image = record["dynamodb"]["NewImage"]
            values.append([image["id"]["S"], int(image["value"]["N"])])
    line = {"values": values, "replay": (custom or {}).get("bridge-replay")}
    connection.sendall(json.dumps(line).encode() + b"\\n")
    answers.readline()
    return values
"""

CONFIG = """
[functions.told]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}

[functions.mended]
code = "{code}"
handler = "app.mended"
environment = {{ LEDGER = "{ledger}" }}

{connection}

[mappings.orders]
source = "{source}"
function = "told"
batch_size = 20
maximum_retry_attempts = 0
"""
KEYS = [f"key-{number}" for number in range(4)]


class World:
    """A daemon that reads one stream."""

    def __init__(self, daemon: Callable[..., Any], ledger: LedgerServer, folder: Path) -> None:
        self._daemon, self._ledger, self._folder = daemon, ledger, folder
        write_function(folder / "code", TOLD)

    def start(self, service: AwsService, source: str) -> Any:
        self.daemon = self._daemon(
            CONFIG.format(
                code=self._folder / "code",
                ledger=self._ledger.address,
                connection=service.connection(),
                source=source,
            )
        )
        return self.daemon

    def told(self, replay: str | None = None) -> list[tuple[str, int]]:
        lines = [json.loads(line) for line in self._ledger.path.read_text().splitlines()]
        return [(key, value) for line in lines if line["replay"] == replay for key, value in line["values"]]

    def firsts(self, replay: str | None = None) -> dict[str, list[int]]:
        """Return the values of each key in the order in which they were first given."""
        found: dict[str, list[int]] = {}
        for key, value in self.told(replay):
            if value not in found.setdefault(key, []):
                found[key].append(value)
        return found

    def mapping(self) -> dict[str, Any]:
        done = self.daemon.cli("mappings", "show", "orders", "--json")
        return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture
def world(daemon: Callable[..., Any], tmp_path: Path) -> Iterator[World]:
    ledger = LedgerServer(tmp_path / "told.jsonl")
    yield World(daemon, ledger, tmp_path)
    ledger.close()


class Stream:
    """A Kinesis stream that a test writes to, and reshards."""

    def __init__(self, service: AwsService, *, shards: int = 2) -> None:
        self.service, self.name, self.client = service, service.name(), service.client("kinesis")
        self.sent: dict[str, list[int]] = {key: [] for key in KEYS}
        self.numbers = itertools.count()
        self.client.create_stream(StreamName=self.name, ShardCount=shards)
        self.wait()

    def wait(self) -> None:
        def is_active() -> bool:
            summary = self.client.describe_stream_summary(StreamName=self.name)
            return bool(summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")

        wait_for(is_active, description="the stream is active")

    def put(self, count: int = 10) -> None:
        for _ in range(count):
            for key in KEYS:
                value = next(self.numbers)
                self.client.put_record(StreamName=self.name, Data=b"%d" % value, PartitionKey=key)
                self.sent[key].append(value)

    def open_shards(self) -> list[dict[str, Any]]:
        listed = self.client.list_shards(StreamName=self.name)["Shards"]
        is_open = [shard for shard in listed if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        return sorted(is_open, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def split(self) -> None:
        shard = self.open_shards()[0]
        low, high = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        self.client.split_shard(
            StreamName=self.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2 + 1)
        )
        self.wait()

    def merge(self) -> None:
        one, other = (shard["ShardId"] for shard in self.open_shards()[:2])
        self.client.merge_shards(StreamName=self.name, ShardToMerge=one, AdjacentShardToMerge=other)
        self.wait()


def test_reshards_running_and_stopped_with_kills_lose_nothing_and_keep_order(world: World, kinesis: AwsService) -> None:
    stream = Stream(kinesis)
    stream.put(3)
    daemon = world.start(kinesis, f"kinesis://aws/{stream.name}")
    wait_for(lambda: sum(map(len, world.firsts().values())) >= 8, description="the first records")

    for _ in range(2):
        stream.put(4)
        stream.split()
        stream.put(4)
        stream.merge()
        stream.put(4)
        daemon.kill9()
        stream.put(2)
        stream.split()
        stream.put(2)
        stream.split()
        stream.put(2)
        daemon.restart()
    wait_for(lambda: world.firsts() == stream.sent, timeout_s=90, description=f"all of {stream.sent}")

    is_open = {shard["ShardId"] for shard in stream.open_shards()}
    wait_for(
        lambda: {shard["shard"] for shard in world.mapping()["shards"]} == is_open, description="open shards alone"
    )


def test_a_replay_by_sequence_numbers_of_an_on_failure_record(world: World, kinesis: AwsService) -> None:
    stream = Stream(kinesis, shards=1)
    for value in (1, 2, 666, 3):
        stream.client.put_record(StreamName=stream.name, Data=b"%d" % value, PartitionKey="k")
    daemon = world.start(kinesis, kinesis.arn("kinesis", f"stream/{stream.name}"))

    def letters() -> list[dict[str, Any]]:
        return [json.loads(line) for line in daemon.cli("dlq", "list", "--json").stdout.splitlines()]

    wait_for(letters, description="a dead letter")
    (letter,) = letters()
    info = json.loads(daemon.cli("dlq", "show", letter["id"], "--json").stdout)["outcome"]["KinesisBatchInfo"]
    assert info["batchSize"] >= 1
    assert info["streamArn"] == kinesis.arn("kinesis", f"stream/{stream.name}")

    done = daemon.cli("replay", "--from-dead-letter", letter["id"], "--to", "mended", "--name", "again", "--yes")

    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(world.told("again")) == info["batchSize"], description="the replayed records")
    assert ("k", 666) in world.told("again")


def test_a_replay_by_time_over_a_reshard_keeps_order_and_leaves_the_marks_alone(
    world: World, kinesis: AwsService
) -> None:
    stream = Stream(kinesis)
    stream.put(2)
    time.sleep(1.1)
    since = dt.datetime.now(dt.UTC).isoformat()
    before = {key: len(values) for key, values in stream.sent.items()}
    stream.put(5)
    stream.split()
    stream.put(5)
    daemon = world.start(kinesis, f"kinesis://aws/{stream.name}")
    wait_for(lambda: world.firsts() == stream.sent, description="live records")
    wait_for(lambda: all(shard["buffered"] == 0 for shard in world.mapping()["shards"]), description="quiet")
    marks = {shard["shard"]: shard["position"] for shard in world.mapping()["shards"]}

    done = daemon.cli("replay", "--mapping", "orders", "--since", since, "--to", "mended", "--name", "r", "--yes")

    assert done.returncode == 0, done.stderr
    wanted = {key: values[before[key] :] for key, values in stream.sent.items()}
    wait_for(lambda: world.firsts("r") == wanted, description=f"{wanted}")
    assert {shard["shard"]: shard["position"] for shard in world.mapping()["shards"]} == marks


def test_a_stream_that_is_missing_is_told_in_one_line(world: World, kinesis: AwsService) -> None:
    arn = kinesis.arn("kinesis", "stream/nowhere")
    world.start(kinesis, arn)

    wait_for(lambda: world.mapping()["state_transition_reason"] == f"Stream not found: {arn}", description="the reason")


def test_a_tables_stream_is_read_on_over_kills(world: World, ministack: AwsService) -> None:
    table, name = ministack.client("dynamodb"), ministack.name()
    table.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )  # fmt: skip
    sent: dict[str, list[int]] = {key: [] for key in KEYS}
    numbers = itertools.count()

    def put(count: int) -> None:
        for _ in range(count):
            for key in KEYS:
                sent[key].append(next(numbers))
                table.put_item(TableName=name, Item={"id": {"S": key}, "value": {"N": str(sent[key][-1])}})

    put(3)
    daemon = world.start(ministack, f"dynamodb://aws/{name}")
    for _ in range(3):
        put(3)
        daemon.kill9()
        put(3)
        daemon.restart()
    wait_for(lambda: world.firsts() == sent, timeout_s=60, description=f"all of {sent}")

    done = daemon.cli("replay", "--mapping", "orders", "--to", "mended", "--name", "all", "--yes")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: world.firsts("all") == sent, timeout_s=60, description="the replay")
