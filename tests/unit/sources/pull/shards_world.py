"""A mapping over a sharded stream in memory, on virtual time, with all of the delivery engine."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any, Self

import orjson

from bridge.core.mapping import EventSourceMapping, StartingPosition
from bridge.core.stream import Mark, Shard
from bridge.events.dynamodb import DynamoDbShape
from bridge.events.kinesis import KinesisShape
from bridge.pipeline.streams.settings import Work
from bridge.pipeline.streams.worker import MappingWorker
from bridge.sources.pull import dynamodb, kinesis
from bridge.sources.pull.shard_api import ShardApi
from bridge.sources.pull.shard_source import ShardEventSource
from bridge.testing.clock import ManualClock, settle
from bridge.testing.shards import MemoryDynamoDb, MemoryKinesis, MemoryShards
from bridge.testing.streams import MemoryStreamMarks
from tests.unit.pipeline.streams.world import Call, Function, Letters


class ShardsWorld:
    """`service` is the stream, `seen` what the function was successfully given, in order, as (key, value)."""

    def __init__(
        self, *, kind: str = "kinesis", shards: int = 1, per_page: int = 100, is_aws: bool = True, **mapping: Any
    ) -> None:
        self.clock = ManualClock()
        self.marks = MemoryStreamMarks()
        self.kind = kind
        make = MemoryKinesis if kind == "kinesis" else MemoryDynamoDb
        self.service: MemoryShards = make(self.clock, shards=shards, per_page=per_page)
        self.mapping = EventSourceMapping(name="m", source=f"{kind}://aws/orders", function="f", **mapping)
        self.is_aws = is_aws
        self.function = Function(self.clock)
        self.letters = Letters()
        self.task: asyncio.Task[None] | None = None
        self.source = self.event_source()
        self.worker = self.make()

    def event_source(self) -> ShardEventSource:
        service, clock = self.service, self.clock
        api: ShardApi
        if isinstance(service, MemoryKinesis):
            limits = kinesis.AWS_LIMITS if self.is_aws else kinesis.OWN_LIMITS
            shape = KinesisShape("arn:aws:kinesis:eu-central-1:000000000000:stream/unknown")
            api = kinesis.KinesisApi(service.client, stream=service.name, shape=shape, read_limits=limits, clock=clock)
        else:
            assert isinstance(service, MemoryDynamoDb)
            limits = dynamodb.AWS_LIMITS if self.is_aws else dynamodb.OWN_LIMITS
            api = dynamodb.DynamoDbApi(
                service.client, table=service.name, shape=DynamoDbShape(service.arn), read_limits=limits, clock=clock
            )
        return ShardEventSource(api, self.mapping, marks=self.marks, clock=clock)

    def make(self) -> MappingWorker:
        worker = MappingWorker(
            Work(
                mapping=self.mapping,
                shape=self.source.shape,
                make_source=self.source.consumer,
                slots=self.function,
                destination=self.letters,
                spill=self.letters,
                clock=self.clock,
            )
        )
        self.function.freed = worker.kick
        return worker

    # --- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.source = self.event_source()
        self.worker = self.make()
        self.task = asyncio.create_task(self.worker.run())
        await settle(50)

    async def stop(self) -> None:
        """Drain, as a daemon does, then cut."""
        if self.task is None:
            return
        drain = asyncio.create_task(self.worker.drain(deadline_s=0.0))
        await settle(30)
        await self.clock.advance(0.001)
        await drain
        await self.cut()

    async def cut(self) -> None:
        assert self.task is not None
        await self.worker.stop()  # first: the leave of the source would wait for what runs
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.task = None

    async def crash(self) -> None:
        """End without another commit."""
        stored = {name: dict(marks) for name, marks in self.marks.marks.items()}
        layouts = dict(self.marks.layouts)
        await self.cut()
        self.marks.marks, self.marks.layouts = stored, layouts
        self.marks.fail_with = None

    async def advance(self, seconds: float, *, step_s: float = 0.25) -> None:
        for _ in range(round(seconds / step_s)):
            await self.clock.advance(step_s)
            await settle(30)

    # --- what happened ------------------------------------------------------------------------

    @property
    def seen(self) -> list[tuple[str, Any]]:
        return [pair for call in self.function.calls if call.ended for pair in records(call)]

    def stored(self) -> dict[Shard, Mark]:
        return self.marks.marks.get("m", {})


def records(call: Call) -> list[tuple[str, Any]]:
    """Return key and value of a call's records."""
    found = []
    for record in call.event["Records"]:
        if "kinesis" in record:
            data = record["kinesis"]
            found.append((data["partitionKey"], orjson.loads(base64.b64decode(data["data"]))))
        else:
            image = record["dynamodb"]["NewImage"]
            found.append((image["id"]["S"], orjson.loads(image["value"]["S"])))
    return found


def once(operation: str, code: str, *, times: int = 1) -> Callable[[str, Any], str | None]:
    """Return what fails the first calls of an operation."""
    left = times

    def fails(called: str, _arguments: Any) -> str | None:
        nonlocal left
        if called != operation or left == 0:
            return None
        left -= 1
        return code

    return fails


LATEST = StartingPosition.LATEST
