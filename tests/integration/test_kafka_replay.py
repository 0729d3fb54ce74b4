"""Replays of a Kafka topic by a real daemon: beside live traffic, over kill -9, with the group's offsets untouched."""

import asyncio
import json
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.crash.rig import LedgerServer
from tests.harness import write_function

pytestmark = [pytest.mark.integration]

# Says each batch to the test over a connection: a sandboxed worker shares no file with it.
TOLD = """
import base64, json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    if any(666 in values for values in told(event, context).values()):
        raise ValueError("poison")


def mended(event, context):
    told(event, context)


def told(event, context):
    custom = context.client_context.custom if context.client_context else {}
    values = {
        shard: [int(base64.b64decode(record["value"])) for record in records]
        for shard, records in event["records"].items()
    }
    connection.sendall(json.dumps({"values": values, "replay": (custom or {}).get("bridge-replay")}).encode() + b"\\n")
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

[mappings.orders]
source = "kafka://{bootstrap}/{topic}"
function = "told"
starting_position = "{position}"
batch_size = 20
maximum_batching_window_s = 0.05
maximum_retry_attempts = 0
consumer_group_id = "of-{topic}"
group_instance_id = "one"
allow_remote = true
"""


class World:
    def __init__(self, daemon, ledger, tmp_path, bootstrap):
        self._daemon, self._ledger, self._folder = daemon, ledger, tmp_path
        self.bootstrap = bootstrap
        write_function(tmp_path / "code", TOLD)

    def start(self, topic, *, position="TRIM_HORIZON"):
        self.daemon = self._daemon(
            CONFIG.format(
                code=self._folder / "code",
                ledger=self._ledger.address,
                bootstrap=self.bootstrap,
                topic=topic,
                position=position,
            )
        )

    def values(self, replay=None):
        """Return the values that invocations were given, by shard and in order; `replay`: those of that replay."""
        found: dict[str, list[int]] = {}
        for line in self._ledger.path.read_text().splitlines():
            told = json.loads(line)
            if told["replay"] == replay:
                for shard, values in told["values"].items():
                    found.setdefault(shard, []).extend(values)
        return found

    def count(self, replay=None):
        return len({value for values in self.values(replay).values() for value in values})

    async def cli(self, *arguments):
        return await asyncio.to_thread(self.daemon.cli, *arguments)

    async def job(self, name):
        return (await asyncio.to_thread(self.daemon.admin, "GET", f"/admin/v1/replays/{name}")).json()


@pytest.fixture
def world(daemon, tmp_path, kafka):
    ledger = LedgerServer(tmp_path / "told.jsonl")
    yield World(daemon, ledger, tmp_path, kafka.bootstrap)
    ledger.close()


async def committed(bootstrap, topic):
    """Return the committed offset of each partition, and what is stored beside it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(f"of-{topic}")
    finally:
        await admin.close()
    return {each.partition: (at.offset, at.metadata) for each, at in offsets.items() if each.topic == topic}


async def put(producer, topic, values, *, partition, at=None):
    sent = [
        await producer.send(
            topic, b"%d" % value, partition=partition, timestamp_ms=None if at is None else round(at * 1000)
        )
        for value in values
    ]
    await asyncio.gather(*sent)


@asynccontextmanager
async def traffic(producer, topic):
    """Send live records to partition 0, a hundred a second, until the block ends; yields what was sent."""
    sent = []

    async def keep():
        for value in range(100_000, 200_000):
            await producer.send_and_wait(topic, b"%d" % value, partition=0)
            sent.append(value)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(keep())
    try:
        yield sent
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def iso(at):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


async def test_check_33_an_hour_is_replayed_beside_live_traffic_and_over_a_kill_and_the_groups_offsets_stand(
    world, kafka, kafka_topic, wait_until
):
    topic = await kafka_topic(3)
    since = int(time.time()) - 7200
    hour = {f"{topic}-{partition}": [*range(partition * 1000, partition * 1000 + 200)] for partition in range(3)}
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for partition, values in enumerate(hour.values()):
            await put(producer, topic, range(50_000, 50_010), partition=partition, at=since - 60)
            await put(producer, topic, values, partition=partition, at=since + 1800)
            await put(producer, topic, range(60_000, 60_010), partition=partition, at=since + 3600)
        world.start(topic)
        await wait_until(lambda: world.count() >= 620, 60, "all is read live")
        ends = {0: (220, ""), 1: (220, ""), 2: (220, "")}
        await wait_until_async(lambda: committed(kafka.bootstrap, topic), ends)
        counted = await world.cli("replay", "--mapping", "orders", "--since", iso(since), "--until", iso(since + 3600), "--dry-run", "--json")  # fmt: skip
        assert json.loads(counted.stdout)["shards"] == dict.fromkeys(hour, 200)

        async with traffic(producer, topic) as sent:
            body = {"selection": {"mapping": "orders", "since": since, "until": since + 3600}}
            body |= {"name": "hour", "rate": 100}
            started = await asyncio.to_thread(world.daemon.admin, "POST", "/admin/v1/replays", body)
            assert (started.status, started.json()["total"]) == (201, 600)
            await wait_until(lambda: world.count("hour") >= 100, description="it is in the middle")
            world.daemon.kill9()
            before = world.count("hour")
            await asyncio.to_thread(world.daemon.restart)
            live = len(sent)
            await wait_until(lambda: world.count("hour") >= 600, 60, "it goes on to its end")
            assert before < 600
            await wait_until(lambda: set(sent[:live]) <= set(world.values()[f"{topic}-0"]), 60, "live goes on, too")
    job = await world.job("hour")
    while job["state"] == "RUNNING":
        await asyncio.sleep(0.1)
        job = await world.job("hour")
    replayed = world.values("hour")
    offsets = await committed(kafka.bootstrap, topic)

    assert (job["state"], job["failed"], job["skipped"]) == ("COMPLETED", 0, 0)
    assert {shard: list(dict.fromkeys(values)) for shard, values in replayed.items()} == hour
    repeated = sum(sum(Counter(values).values()) - 200 for values in replayed.values())
    assert repeated <= 200, "what ran at the kill, and 0.2 s of what had ended"
    assert (offsets[1], offsets[2]) == (ends[1], ends[2])
    assert offsets[0][0] > 220, "partition 0 has moved with its live records"
    assert set(world.values()[f"{topic}-1"]) == {*range(50_000, 50_010), *hour[f"{topic}-1"], *range(60_000, 60_010)}
    assert len(world.values()[f"{topic}-1"]) == 220, "nothing was read live again"


async def wait_until_async(ask, expected, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while (found := await ask()) != expected:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.2)


async def test_a_dead_letters_range_is_read_anew_from_the_topic(world, kafka, kafka_topic, wait_until):
    topic = await kafka_topic(1)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await put(producer, topic, [1, 2, 666, 3], partition=0)
        world.start(topic)
        await wait_until(lambda: world.count() == 4, description="all was tried")
        await wait_until_async(lambda: committed(kafka.bootstrap, topic), {0: (4, "")})
        await put(producer, topic, [9], partition=0)
    listed = await world.cli("dlq", "list", "--json")
    letter = json.loads(listed.stdout)

    done = await world.cli("replay", "--from-dead-letter", letter["id"], "--name", "anew", "--yes")
    assert (done.returncode, done.stdout) == (1, "4 replayed: 0 succeeded, 4 failed\n"), done.stderr
    assert set(world.values("anew")[f"{topic}-0"]) == {1, 2, 666, 3}
    failed = await world.cli("dlq", "list", "--queue", "replay:anew", "--json")
    assert json.loads(failed.stdout)["condition"] == "RetryAttemptsExhausted"

    redriven = await world.cli("dlq", "redrive", "--queue", "replay:anew", "--to", "mended", "--yes")
    assert (redriven.returncode, redriven.stdout) == (0, "1 redriven: 1 succeeded, 0 failed again\n"), redriven.stderr
    assert world.values()[f"{topic}-0"][-4:] == [1, 2, 666, 3]


async def test_a_beginning_that_retention_took_is_counted(world, kafka, kafka_topic):
    topic = await kafka_topic(1)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await put(producer, topic, range(10), partition=0)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=4)})
    finally:
        await admin.close()
    world.start(topic, position="LATEST")

    done = await world.cli("replay", "--mapping", "orders", "--first", f"{topic}-0:0", "--last", f"{topic}-0:7", "--name", "part", "--yes")  # fmt: skip

    assert done.stdout == "4 replayed: 4 succeeded, 0 failed, 4 left out (gone or not matching any more)\n", done.stderr
    assert world.values("part") == {f"{topic}-0": [4, 5, 6, 7]}
    assert await committed(kafka.bootstrap, topic) in ({}, {0: (10, "")})
