"""Kinesis and DynamoDB Streams in memory, as clients of aiobotocore: shards split and merge, calls fail on demand."""

import asyncio
import base64
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import orjson
from botocore.exceptions import ClientError

from bridge.aws.raw import RAW
from bridge.core.ports import Clock

_FIRST: Final = 49590338271490256608559692538361571095921575989136588898
"""A sequence number of Kinesis: more than 64 bits."""
_STEP: Final = 7
"""Numbers between two records: nobody may count by them."""
REGION: Final = "eu-central-1"

Fails = Callable[[str, Mapping[str, Any]], str | Exception | None]
"""Returns the error code (or the error) of a call that is to fail, by operation and arguments; None: it does not."""


@dataclass(slots=True, kw_only=True)
class MemoryShard:
    """One shard."""

    name: str
    parents: tuple[str, ...] = ()
    first: int
    last: int | None = None
    """None while it is open."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """As the API's JSON has them."""
    trimmed: int = -1
    """All up to there was taken by retention."""


class MemoryShards(ABC):
    """What both services share. `fails` says which calls fail; `calls` counts them; `log` has every one."""

    service = ""
    title = ""
    iterator_s = 300.0
    records_max = 10_000

    def __init__(self, clock: Clock, *, shards: int = 1, name: str = "orders", per_page: int = 100) -> None:
        self.clock = clock
        self.name = name
        self.shards: dict[str, MemoryShard] = {}
        """Those that are listed."""
        self.per_page = per_page
        """Shards of one page of a listing."""
        self.fails: Fails = lambda _operation, _arguments: None
        self.calls: Counter[str] = Counter()
        self.log: list[tuple[float, str, Mapping[str, Any]]] = []
        self.created = clock.time()
        self.is_deleted = False
        self.made = 1
        """How often there was a stream of this name: an iterator of an older one is not known."""
        self.made_up_end: int | None = None
        """What is listed as the end of closed shards, as kinesis-local does; None: their end."""
        self._next = _FIRST
        self._made = 0
        self.meta = SimpleNamespace(
            service_model=SimpleNamespace(service_id=SimpleNamespace(hyphenize=lambda: self.service)),
            events=SimpleNamespace(register=lambda *_, **__: None),
        )
        for _ in range(shards):
            self.add()

    async def client(self) -> "MemoryShards":
        """Return itself: what makes clients."""
        return self

    # --- what a test does ---------------------------------------------------------------------

    def add(self, *parents: str) -> str:
        """Add an open shard."""
        self._made += 1
        name = f"shardId-{self._made - 1:012d}"
        self.shards[name] = MemoryShard(name=name, parents=parents, first=self._number())
        return name

    def split(self, name: str) -> list[str]:
        """Close a shard and add two that follow it."""
        self.end(name)
        return [self.add(name), self.add(name)]

    def merge(self, one: str, other: str) -> str:
        """Close two shards and add one that follows them."""
        self.end(one)
        self.end(other)
        return self.add(one, other)

    def end(self, name: str) -> None:
        """Close a shard."""
        self.shards[name].last = self._number()

    def make_anew(self, *, shards: int = 1) -> None:
        """Delete the stream and make another of its name, whose shards have the same names."""
        self.shards = {}
        self._made = 0
        self.made += 1
        self.created = self.clock.time()
        for _ in range(shards):
            self.add()

    def unlist(self, name: str) -> None:
        """Let retention have a shard with all of its records."""
        del self.shards[name]

    def trim(self, name: str, count: int) -> None:
        """Let retention have the first `count` records of a shard."""
        shard = self.shards[name]
        shard.trimmed = self._sequence(shard.records[count - 1])
        del shard.records[:count]

    def put(self, name: str, values: Iterable[bytes], *, key: str = "k") -> list[int]:
        """Add records, arrived now; returns their sequence numbers."""
        shard = self.shards[name]
        assert shard.last is None, "the shard is closed"
        numbers = []
        for value in values:
            numbers.append(self._number())
            shard.records.append(self._record(numbers[-1], value, key))
        return numbers

    def _number(self) -> int:
        self._next += _STEP
        return self._next

    @abstractmethod
    def _record(self, number: int, value: bytes, key: str) -> dict[str, Any]:
        """Return that of a record as the API has it."""

    @abstractmethod
    def _sequence(self, record: Mapping[str, Any]) -> int:
        """Return that of a record as the API has it."""

    @abstractmethod
    def _time(self, record: Mapping[str, Any]) -> float:
        """Return that of a record as the API has it."""

    # --- calls --------------------------------------------------------------------------------

    async def _called(self, operation: str, arguments: Mapping[str, Any]) -> None:
        self.calls[operation] += 1
        self.log.append((self.clock.monotonic(), operation, arguments))
        await asyncio.sleep(0)
        failure = self.fails(operation, arguments)
        if failure is None and self.is_deleted:
            failure = "ResourceNotFoundException"
        if failure is not None:
            raise failure if isinstance(failure, Exception) else self._error(operation, failure)

    @staticmethod
    def _error(operation: str, code: str, text: str = "no") -> ClientError:
        status = 500 if code == "InternalFailure" else 400
        answer: Any = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return ClientError(answer, operation)

    def _find(self, name: str) -> MemoryShard | None:
        return self.shards.get(name)

    def _page_of(self, after: str | None, shards: Mapping[str, MemoryShard]) -> tuple[list[dict[str, Any]], str | None]:
        names = list(shards)
        begin = names.index(after) + 1 if after is not None and after in shards else 0
        chosen = names[begin : begin + self.per_page]
        is_last = begin + self.per_page >= len(names)
        return [self._listed(shards[name]) for name in chosen], None if is_last else chosen[-1]

    def _listed(self, shard: MemoryShard) -> dict[str, Any]:
        numbers = {"StartingSequenceNumber": str(shard.first)}
        if shard.last is not None:
            numbers["EndingSequenceNumber"] = str(self.made_up_end or shard.last)
        parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
        return {"ShardId": shard.name, "SequenceNumberRange": numbers, **parents}

    async def _iterator(self, arguments: Mapping[str, Any], number: str | None) -> dict[str, Any]:
        await self._called("GetShardIterator", arguments)
        shard = self._find(arguments["ShardId"])
        if shard is None:
            raise self._error("GetShardIterator", "ResourceNotFoundException", "Shard does not exist")
        kind, at = arguments["ShardIteratorType"], -1
        known = [self._sequence(record) for record in shard.records]
        if kind == "LATEST":
            at = known[-1] if known else -1
        elif kind == "AT_TIMESTAMP":
            before = [self._sequence(record) for record in shard.records if self._time(record) < arguments["Timestamp"]]
            at = before[-1] if before else -1
        elif kind != "TRIM_HORIZON":
            assert number is not None
            at = self._numbered(shard, int(number), known, kind=kind)
        return {"ShardIterator": self._written(shard.name, at)}

    def _written(self, name: str, at: int) -> str:
        return f"{name}|{at}|{self.clock.monotonic()}|{self.made}"

    def _numbered(self, shard: MemoryShard, number: int, known: list[int], *, kind: str) -> int:
        """Return behind which record an iterator by number stands."""
        if number not in known and number > shard.trimmed:
            raise self._error("GetShardIterator", "InvalidArgumentException", f"{number} is invalid")
        return number if kind == "AFTER_SEQUENCE_NUMBER" else number - 1

    async def _records(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        await self._called("GetRecords", arguments)
        name, at, issued, made = arguments["ShardIterator"].split("|")
        if int(made) != self.made:
            raise self._error("GetRecords", "InvalidArgumentException", "the iterator is of another stream")
        if self.clock.monotonic() - float(issued) > self.iterator_s:
            raise self._error("GetRecords", "ExpiredIteratorException")
        shard = self._find(name)
        if shard is None:
            raise self._error("GetRecords", "ResourceNotFoundException", "Shard does not exist")
        limit = min(arguments["Limit"], self.records_max)
        ahead = [record for record in shard.records if self._sequence(record) > int(at)]
        records = ahead[:limit]
        answer: dict[str, Any] = {"Records": records}
        if len(records) < len(ahead) or shard.last is None:
            last = self._sequence(records[-1]) if records else int(at)
            answer["NextShardIterator"] = self._written(name, last)
        return answer | self._behind(ahead, limit)

    @abstractmethod
    def _behind(self, ahead: list[dict[str, Any]], limit: int) -> dict[str, Any]:
        """Return what an answer says of how far behind it is."""


class MemoryKinesis(MemoryShards):
    """A Kinesis stream."""

    service = "kinesis"

    @property
    def arn(self) -> str:
        """The stream's ARN."""
        return f"arn:aws:kinesis:{REGION}:000000000000:stream/{self.name}"

    def _record(self, number: int, value: bytes, key: str) -> dict[str, Any]:
        return {
            "SequenceNumber": str(number),
            "ApproximateArrivalTimestamp": int(self.clock.time() * 1000) / 1000,
            "Data": base64.b64encode(value).decode(),
            "PartitionKey": key,
        }

    def _sequence(self, record: Mapping[str, Any]) -> int:
        return int(record["SequenceNumber"])

    def _time(self, record: Mapping[str, Any]) -> float:
        return float(record["ApproximateArrivalTimestamp"])

    def _behind(self, ahead: list[dict[str, Any]], limit: int) -> dict[str, Any]:
        left = ahead[limit:]
        behind_s = self.clock.time() - self._time(left[0]) if left else 0.0
        return {"MillisBehindLatest": max(1, int(behind_s * 1000)) if left else 0}

    async def describe_stream_summary(self, **arguments: Any) -> dict[str, Any]:
        """Answer as the service does."""
        await self._called("DescribeStreamSummary", arguments)
        return {"StreamDescriptionSummary": {"StreamARN": self.arn, "StreamCreationTimestamp": self.created}}

    async def list_shards(self, **arguments: Any) -> dict[str, Any]:
        """Answer as the service does."""
        await self._called("ListShards", arguments)
        shards, more = self._page_of(arguments.get("NextToken"), self.shards)
        return {"Shards": shards} | ({} if more is None else {"NextToken": more})

    async def get_shard_iterator(self, **arguments: Any) -> dict[str, Any]:
        """Answer as the service does."""
        return await self._iterator(arguments, arguments.get("StartingSequenceNumber"))

    async def get_records(self, **arguments: Any) -> dict[str, Any]:
        """Answer as the service does, unparsed."""
        return {RAW: orjson.dumps(await self._records(arguments))}


class MemoryDynamoDb(MemoryShards):
    """The stream of a table with the key `id`."""

    service = "dynamodb-streams"
    iterator_s = 900.0
    records_max = 1000

    def __init__(self, clock: Clock, *, shards: int = 1, name: str = "orders", per_page: int = 100) -> None:
        self.disabled: dict[str, dict[str, MemoryShard]] = {}
        """By ARN; what is taken out was deleted a day later."""
        super().__init__(clock, shards=shards, name=name, per_page=per_page)

    @property
    def arn(self) -> str:
        """The latest stream's ARN."""
        return self._arn(len(self.disabled))

    def _arn(self, number: int) -> str:
        return f"arn:aws:dynamodb:{REGION}:000000000000:table/{self.name}/stream/2026-01-{number + 1:02d}T00:00:00.000"

    def enable_anew(self) -> None:
        """Disable the stream, which can be read for a day, and enable another one of the table."""
        for shard in self.shards.values():
            shard.last = self._number() if shard.last is None else shard.last
        self.disabled[self.arn] = self.shards
        self.shards = {}
        self.add()

    def _find(self, name: str) -> MemoryShard | None:
        return next((shards[name] for shards in (self.shards, *self.disabled.values()) if name in shards), None)

    def _record(self, number: int, value: bytes, key: str) -> dict[str, Any]:
        image = {"id": {"S": key}, "value": {"S": value.decode()}}
        return {
            "eventID": f"{number % 2**128:032x}",
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": REGION,
            "dynamodb": {
                "ApproximateCreationDateTime": float(int(self.clock.time())),
                "Keys": {"id": {"S": key}},
                "NewImage": image,
                "SequenceNumber": str(number),
                "SizeBytes": len(value),
                "StreamViewType": "NEW_IMAGE",
            },
        }

    def _sequence(self, record: Mapping[str, Any]) -> int:
        return int(record["dynamodb"]["SequenceNumber"])

    def _time(self, record: Mapping[str, Any]) -> float:
        return float(record["dynamodb"]["ApproximateCreationDateTime"])

    def _behind(self, ahead: list[dict[str, Any]], limit: int) -> dict[str, Any]:
        del ahead, limit
        return {}

    def _numbered(self, shard: MemoryShard, number: int, known: list[int], *, kind: str) -> int:
        if number <= shard.trimmed:
            raise self._error("GetShardIterator", "TrimmedDataAccessException", "beyond the trim horizon")
        return super()._numbered(shard, number, known, kind=kind)

    async def list_streams(self, **arguments: Any) -> dict[str, Any]:
        """Answer as the service does: older streams of the table, then the latest."""
        await self._called("ListStreams", arguments)
        older = self._arn(0).replace("2026-", "2025-")
        return {
            "Streams": [
                {"TableName": self.name, "StreamArn": arn, "StreamLabel": arn.rpartition("/")[2]}
                for arn in (older, *self.disabled, self.arn)
            ]
        }

    async def describe_stream(self, **arguments: Any) -> dict[str, Any]:
        """Answer as the service does."""
        await self._called("DescribeStream", arguments)
        arn = arguments["StreamArn"]
        if arn != self.arn and arn not in self.disabled:
            raise self._error("DescribeStream", "ResourceNotFoundException", f"Stream: {arn} not found")
        shards, more = self._page_of(arguments.get("ExclusiveStartShardId"), self.disabled.get(arn, self.shards))
        told: dict[str, Any] = {"StreamArn": arn, "CreationRequestDateTime": self.created, "Shards": shards}
        return {"StreamDescription": told | ({} if more is None else {"LastEvaluatedShardId": more})}

    async def get_shard_iterator(self, **arguments: Any) -> dict[str, Any]:
        """Answer as the service does."""
        return await self._iterator(arguments, arguments.get("SequenceNumber"))

    async def get_records(self, **arguments: Any) -> dict[str, Any]:
        """Answer as the service does, unparsed."""
        answer = await self._records(arguments)
        answer["Records"] = answer["Records"][: arguments["Limit"]]
        return {RAW: orjson.dumps(answer)}
