"""Every event source under one fixture, and what listens to it in its suite."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import pytest

from bridge.aws.clients import AwsClients
from bridge.core.connection import AwsConnection, KafkaConnection
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock
from bridge.core.sources import EventSource, Source
from bridge.core.stream import Chunk, Mark, Poll, Position, Shard
from bridge.events.dynamodb import DynamoDbShape
from bridge.events.kinesis import KinesisShape
from bridge.sources.pull.dynamodb import DynamoDbApi
from bridge.sources.pull.kafka import KafkaEventSource
from bridge.sources.pull.kinesis import KinesisApi
from bridge.sources.pull.shard_api import ReadLimits, ShardApi
from bridge.sources.pull.shard_source import ShardEventSource
from bridge.testing.shards import MemoryDynamoDb, MemoryKinesis, MemoryShards
from bridge.testing.streams import MemoryStreamMarks
from bridge.util.clocks import SystemClock
from tests.brokers.aws import KEY, AwsService
from tests.contract.journal_streams import MakeJournalStream, OpenJournal, local_stream, push_stream

READ_MAX_S = 60.0
QUICK = ReadLimits(records_max=1000, call_s=0.0, idle_s=0.02, bytes_per_s=0.0, iterator_max_s=240.0)
"""How streams in memory are read."""
NOBODY: frozenset[Shard] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream of its own for a test."""

    source: EventSource
    shards: tuple[Shard, ...]
    put: Callable[[Shard, Sequence[bytes]], Awaitable[None]]
    """Append records with these values (JSON), keys `k`; returns once they can be read."""
    value: Callable[[bytes | None], bytes | None] = lambda value: value
    """Finds what was put in what is read."""


MakeStream = Callable[[int], Awaitable[Stream]]
"""Makes a new, empty stream with so many shards, of which nobody has read anything; TRIM_HORIZON."""


def kafka_streams(request: pytest.FixtureRequest) -> MakeStream:
    """Topics on the broker of the run."""
    bootstrap: str = request.getfixturevalue("kafka").bootstrap
    make_topic = request.getfixturevalue("kafka_topic")

    async def make(shards: int) -> Stream:
        from aiokafka import AIOKafkaProducer

        topic: str = await make_topic(shards)

        async def put(shard: Shard, values: Sequence[bytes]) -> None:
            async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=1 << 22) as producer:
                partition = int(shard.removeprefix(f"{topic}-"))
                sent = [await producer.send(topic, value, key=b"k", partition=partition) for value in values]
                await asyncio.gather(*sent)

        source = KafkaEventSource(
            KafkaConnection(name="tests", bootstrap_servers=(bootstrap,)),
            topic=topic,
            group=f"group-{uuid.uuid4().hex}",
            clock=SystemClock(),
        )
        return Stream(source=source, shards=tuple(f"{topic}-{number}" for number in range(shards)), put=put)

    return make


def journal_streams(make: MakeJournalStream, kind: str) -> Callable[[pytest.FixtureRequest], MakeStream]:
    """Streams of a journal of that kind."""

    def streams(request: pytest.FixtureRequest) -> MakeStream:
        open_journal: OpenJournal = request.getfixturevalue("open_journal")

        async def make_stream(shards: int) -> Stream:
            source, names, put = make(await open_journal(kind), shards)
            return Stream(source=source, shards=names, put=put)

        return make_stream

    return streams


def memory_streams(kind: str) -> Callable[[pytest.FixtureRequest], MakeStream]:
    """Streams of the services of AWS in memory, behind the real readers."""

    async def make(shards: int) -> Stream:
        clock, mapping = SystemClock(), EventSourceMapping(name="orders", source="kinesis://x/orders", function="f")
        api: ShardApi
        if kind == "kinesis":
            kinesis = MemoryKinesis(clock, shards=shards)
            service: MemoryShards = kinesis
            api = kinesis_api(kinesis, clock)
        else:
            service = dynamodb = MemoryDynamoDb(clock, shards=shards)
            api = dynamodb_api(dynamodb, clock)

        async def put(shard: Shard, values: Sequence[bytes]) -> None:
            service.put(shard, values)

        return Stream(
            source=ShardEventSource(api, mapping, marks=MemoryStreamMarks(), clock=clock),
            shards=tuple(service.shards),
            put=put,
            value=put_value if kind == "dynamodb" else lambda value: value,
        )

    return lambda _request: make


def emulated_streams(kind: str, fixture: str) -> Callable[[pytest.FixtureRequest], MakeStream]:
    """Streams of an emulator of AWS, reached by the daemon's own clients."""

    def streams(request: pytest.FixtureRequest) -> MakeStream:
        service: AwsService = request.getfixturevalue(fixture)
        clients: AwsClients = request.getfixturevalue("aws_clients")
        make = kinesis_stream if kind == "kinesis" else dynamodb_stream

        async def make_stream(shards: int) -> Stream:
            connection = AwsConnection(
                name="tests", region=service.region, endpoint_url=service.endpoint_url,
                access_key_id=KEY, secret_access_key=KEY,
            )  # fmt: skip
            return await make(service, clients, connection, shards)

        return make_stream

    return streams


async def kinesis_stream(service: AwsService, clients: AwsClients, connection: AwsConnection, shards: int) -> Stream:
    """Make a stream; its shards share the hash keys evenly."""
    client, clock, name = await clients.client(connection, "kinesis"), SystemClock(), service.name()

    async def make_client() -> Any:
        return client

    await client.create_stream(StreamName=name, ShardCount=shards)
    async with asyncio.timeout(READ_MAX_S):
        while (await client.describe_stream_summary(StreamName=name))["StreamDescriptionSummary"][
            "StreamStatus"
        ] != "ACTIVE":
            await asyncio.sleep(0.05)
    listed = (await client.list_shards(StreamName=name))["Shards"]
    hashes = {shard["ShardId"]: shard["HashKeyRange"]["StartingHashKey"] for shard in listed}

    async def put(shard: Shard, values: Sequence[bytes]) -> None:
        for start in range(0, len(values), 500):
            answer = await client.put_records(
                StreamName=name,
                Records=[
                    {"Data": value, "PartitionKey": "k", "ExplicitHashKey": hashes[shard]}
                    for value in values[start : start + 500]
                ],
            )
            assert not answer["FailedRecordCount"]

    shape = KinesisShape(service.arn("kinesis", f"stream/{name}"))
    api = KinesisApi(make_client, stream=name, shape=shape, read_limits=QUICK, clock=clock)
    mapping = EventSourceMapping(name=name, source=f"kinesis://tests/{name}", function="f")
    source = ShardEventSource(api, mapping, marks=MemoryStreamMarks(), clock=clock)
    return Stream(source=source, shards=tuple(hashes), put=put)


async def dynamodb_stream(service: AwsService, clients: AwsClients, connection: AwsConnection, shards: int) -> Stream:
    """Make a table with a stream, of one shard: DynamoDB alone decides how many there are, the emulator has one."""
    assert shards == 1
    table, name, clock = await clients.client(connection, "dynamodb"), service.name(), SystemClock()
    await table.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )  # fmt: skip
    api = DynamoDbApi(
        partial(clients.client, connection, "dynamodbstreams"), table=name,
        shape=DynamoDbShape(service.arn("dynamodb", f"table/{name}/stream/x")), read_limits=QUICK, clock=clock,
    )  # fmt: skip
    await api.describe()

    async def put(_shard: Shard, values: Sequence[bytes]) -> None:
        for value in values:
            await table.put_item(TableName=name, Item={"id": {"S": "k"}, "value": {"S": value.decode()}})

    mapping = EventSourceMapping(name=name, source=f"dynamodb://tests/{name}", function="f")
    source = ShardEventSource(api, mapping, marks=MemoryStreamMarks(), clock=clock)
    return Stream(source=source, shards=tuple(await api.shards()), put=put, value=put_value)


def kinesis_api(client: MemoryKinesis, clock: Clock, *, read_limits: ReadLimits = QUICK) -> KinesisApi:
    """Return what calls a stream in memory."""
    shape = KinesisShape(client.arn)
    return KinesisApi(client.client, stream=client.name, shape=shape, read_limits=read_limits, clock=clock)


def dynamodb_api(client: MemoryDynamoDb, clock: Clock, *, read_limits: ReadLimits = QUICK) -> DynamoDbApi:
    """Return what calls a table's stream in memory."""
    shape = DynamoDbShape(client.arn)
    return DynamoDbApi(client.client, table=client.name, shape=shape, read_limits=read_limits, clock=clock)


def put_value(value: bytes | None) -> bytes | None:
    """Return what was put, of a change of DynamoDB's."""
    return None if value is None else str(orjson.loads(value)["NewImage"]["value"]["S"]).encode()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One implementation."""

    streams: Callable[[pytest.FixtureRequest], MakeStream]
    """Called for each test."""
    counts_behind: bool = True
    """Whether it ever knows how many records are behind."""
    starts_at_times: bool = True
    """Whether marks can be moved to a time."""
    time_step_s: float = 0.05
    """How far records must be apart so that a time between them tells them apart."""
    needs: tuple[str, ...] = ()
    """Fixtures of the session that it works with: started before the test, so that nothing of theirs is its leak."""


SUBJECTS = [
    pytest.param(
        Subject(streams=kafka_streams, needs=("kafka_shared",)),
        id="kafka",
        marks=[pytest.mark.kafka, pytest.mark.integration],
    ),
    *(
        pytest.param(Subject(streams=journal_streams(make, journal)), id=f"{name}-{journal}")
        for name, make in (("push", push_stream), ("local", local_stream))
        for journal in ("memory", "disk")
    ),
    *(
        pytest.param(Subject(streams=journal_streams(partial(local_stream, kind=kind), "memory")), id=f"local-{kind}")
        for kind in ("kinesis", "dynamodb")
    ),
    pytest.param(Subject(streams=memory_streams("kinesis"), counts_behind=False), id="kinesis-memory"),
    pytest.param(
        Subject(streams=memory_streams("dynamodb"), counts_behind=False, starts_at_times=False, time_step_s=1.1),
        id="dynamodb-memory",
    ),
    pytest.param(
        Subject(streams=emulated_streams("kinesis", "kinesis"), counts_behind=False, needs=("kinesis_shared",)),
        id="kinesis-local",
        marks=[pytest.mark.aws, pytest.mark.integration],
    ),
]
"""Add what claims to be an event source."""
OF_ONE_SHARD = [
    pytest.param(
        Subject(
            streams=emulated_streams("dynamodb", "ministack"),
            counts_behind=False,
            starts_at_times=False,
            time_step_s=2.1,
            needs=("ministack_shared",),
        ),
        id="dynamodb-ministack",
        marks=[pytest.mark.aws, pytest.mark.integration],
    ),
]
"""…and where no test can have more than one shard."""


@dataclass
class Listener:
    """`ShardEvents` that remember what they were told, and check it."""

    marks: dict[Shard, Mark] = field(default_factory=dict)
    """Of the shards that are ours now."""
    log: list[tuple[str, frozenset[Shard]]] = field(default_factory=list)
    when_revoked: Callable[[], Awaitable[None]] | None = None

    async def assigned(self, marks: Mapping[Shard, Mark]) -> None:
        assert not marks.keys() & self.marks.keys(), "assigned twice"
        self.log.append(("assigned", frozenset(marks)))
        self.marks.update(marks)

    async def revoking(self, shards: AbstractSet[Shard], *, deadline_s: float) -> None:
        assert deadline_s > 0
        assert shards <= self.marks.keys(), "revoked what was not ours"
        self.log.append(("revoking", frozenset(shards)))
        if self.when_revoked is not None:
            await self.when_revoked()
        for shard in shards:
            del self.marks[shard]

    def lost(self, shards: AbstractSet[Shard]) -> None:
        self.log.append(("lost", frozenset(shards)))
        for shard in shards:
            self.marks.pop(shard, None)


@dataclass
class Reading:
    """What a source has handed out so far, and every rule of `Source.read` checked on the way."""

    source: Source
    listener: Listener
    value: Callable[[bytes | None], bytes | None] = lambda value: value
    positions: dict[Shard, list[Position]] = field(default_factory=dict)
    values: dict[Shard, list[bytes | None]] = field(default_factory=dict)
    through: dict[Shard, Position] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    ended: set[Shard] = field(default_factory=set)

    @property
    def count(self) -> int:
        return sum(len(positions) for positions in self.positions.values())

    async def read(
        self,
        *,
        records_max: int = 1000,
        bytes_max: int = 1 << 20,
        wait_s: float = 0.5,
        paused: AbstractSet[Shard] = NOBODY,
    ) -> Poll:
        """Read once."""
        poll = await self.source.read(records_max=records_max, bytes_max=bytes_max, wait_s=wait_s, paused=paused)
        assert sum(len(chunk) for chunk in poll.chunks) <= records_max
        for chunk in poll.chunks:
            self._check(chunk, paused)
        for shard, through in poll.through.items():
            assert through > self.through.get(shard, self._start(shard))
            self.through[shard] = through
        assert not self.ended & set(poll.ended), "ended twice"
        self.ended.update(poll.ended)
        return poll

    def _start(self, shard: Shard) -> Position:
        return self.listener.marks[shard].position

    def _check(self, chunk: Chunk, paused: AbstractSet[Shard]) -> None:
        assert chunk.shard in self.listener.marks, "a record before its shard was assigned"
        assert chunk.shard not in paused
        assert chunk.shard not in self.ended
        assert len(chunk) > 0
        columns = (chunk.times_ms, chunk.keys, chunk.values, chunk.fragments)
        assert {len(column) for column in columns} == {len(chunk)}
        assert list(chunk.positions) == sorted(set(chunk.positions))
        assert chunk.positions[0] > self.through.get(chunk.shard, self._start(chunk.shard))
        assert chunk.through >= chunk.positions[-1]
        self.through[chunk.shard] = chunk.through
        self.positions.setdefault(chunk.shard, []).extend(chunk.positions)
        self.values.setdefault(chunk.shard, []).extend(map(self.value, chunk.values))
        self.chunks.append(chunk)

    async def until(
        self,
        condition: Callable[[], bool],
        *,
        records_max: int = 1000,
        bytes_max: int = 1 << 20,
        paused: AbstractSet[Shard] = NOBODY,
    ) -> "Reading":
        """Read until it holds."""
        end = time.monotonic() + READ_MAX_S
        while not condition():
            assert time.monotonic() < end, (self.count, self.listener.log, self.ended)
            await self.read(records_max=records_max, bytes_max=bytes_max, wait_s=0.2, paused=paused)
        return self

    def marks(self, *, note: bytes = b"") -> dict[Shard, Mark]:
        """Return the marks behind everything read."""
        return {
            shard: Mark(position=through, epoch=self.listener.marks[shard].epoch, note=note)
            for shard, through in self.through.items()
        }


async def open_consumer(stream: Stream) -> Reading:
    """Open the live reader and wait for its shards."""
    return await opened(stream.source.consumer(), set(stream.shards), value=stream.value)


async def opened(
    source: Source, shards: set[Shard], *, value: Callable[[bytes | None], bytes | None] = lambda value: value
) -> Reading:
    """Open a reader and wait until these shards are its own."""
    listener = Listener()
    await source.open(listener)
    reading = Reading(source, listener, value)
    try:
        # Not a record yet: all are paused.
        await reading.until(lambda: set(listener.marks) == shards, paused=shards)
    except BaseException:
        await source.close()
        raise
    return reading
