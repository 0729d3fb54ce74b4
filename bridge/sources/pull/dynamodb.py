"""DynamoDB Streams for the reader of sharded streams: its calls, its limits, its records.

A stream keeps a day. Its shards are closed and followed by others every few hours, as those of a reshard are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, overload

import orjson

from bridge.aws.errors import AwsTrouble, AwsTroubleKind
from bridge.aws.raw import RAW
from bridge.core.ports import Clock
from bridge.core.stream import Chunk, Position, Shard
from bridge.events.dynamodb import DynamoDbShape, arrival_ms, record_fragment, record_key
from bridge.sources.pull.lineage import ListedShard
from bridge.sources.pull.shard_api import (
    LISTING_PAGES_MAX,
    MakeClient,
    Page,
    ReadLimits,
    SequenceNumbers,
    ShardCallFailed,
    ShardCalls,
    Start,
    StreamFacts,
    parsed_page,
)

AWS_LIMITS: Final = ReadLimits(records_max=1000, call_s=0.25, idle_s=0.25, bytes_per_s=0.0, iterator_max_s=840.0)
"""API_streams_GetRecords: 1,000 records or 1 MB a call; Lambda asks four times a second (semantics 3.4); an iterator
lives 15 minutes."""
OWN_LIMITS: Final = ReadLimits(records_max=1000, call_s=0.0, idle_s=0.1, bytes_per_s=0.0, iterator_max_s=840.0)
"""Of other endpoints."""
_SEQUENCE_DIGITS: Final = 21
"""At least so many has a sequence number: some stand-ins begin it with zeros, and ask for them."""


class DynamoDbApi:
    """`shard_api.ShardApi` of one table's stream.

    Args:
        make_client: returns the client of `dynamodbstreams`.
        table: the table's name.
        arn: the stream's; empty: the table's latest.
        shape: its events; it hears the stream's ARN once that is known.
        read_limits: how often and how much at once is read.
        clock: our time.
    """

    has_times = False

    def __init__(
        self,
        make_client: MakeClient,
        *,
        table: str,
        arn: str = "",
        shape: DynamoDbShape,
        read_limits: ReadLimits = AWS_LIMITS,
        clock: Clock,
    ) -> None:
        self.shape = shape
        self.limits = read_limits
        self._table = table
        self._arn = self._written_arn = arn
        self._calls = ShardCalls(make_client, clock=clock)
        self._numbers = SequenceNumbers(digits=_SEQUENCE_DIGITS)

    @property
    def title(self) -> str:
        """What the stream is called in logs and errors."""
        return self._written_arn or f"dynamodb {self._table}"

    async def _call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        return await self._calls(operation, stream=self.title, **arguments)

    async def describe(self, known: str = "") -> StreamFacts:
        """Return what stream it is: of a table `known` while there is one, else the one with the latest label."""
        if self._written_arn:
            return await self._facts()
        latest = await self._latest_arn()
        before = self._arn
        self._arn = known if known.partition("/stream/")[0] == latest.partition("/stream/")[0] else latest
        try:
            facts = await self._facts()
        except ShardCallFailed as failure:
            if self._arn == latest or failure.trouble.kind is not AwsTroubleKind.NOT_FOUND:
                self._arn = before
                raise
            self._arn = latest
            facts = await self._facts()
        self.shape.name(self._arn)
        return facts

    async def _facts(self) -> StreamFacts:
        answer = await self._call("describe_stream", StreamArn=self._arn, Limit=1)
        return StreamFacts(arn=self._arn, created=str(answer["StreamDescription"].get("CreationRequestDateTime", "")))

    async def _latest_arn(self) -> str:
        found: list[tuple[str, str]] = []
        arguments: dict[str, Any] = {"TableName": self._table}
        for _ in range(LISTING_PAGES_MAX):
            answer = await self._call("list_streams", **arguments)
            found += [(stream["StreamLabel"], stream["StreamArn"]) for stream in answer["Streams"]]
            if not answer.get("LastEvaluatedStreamArn"):
                break
            arguments["ExclusiveStartStreamArn"] = answer["LastEvaluatedStreamArn"]
        if not found:
            missing = AwsTrouble(
                kind=AwsTroubleKind.NOT_FOUND, code="NoStream", message=f"table {self._table} has no stream"
            )
            raise ShardCallFailed(missing, stream=f"table {self._table} has none")
        return max(found)[1]

    async def shards(self) -> Mapping[Shard, ListedShard]:
        """Return all shards that the stream lists."""
        found: dict[Shard, ListedShard] = {}
        arguments: dict[str, Any] = {"StreamArn": self._arn}
        for _ in range(LISTING_PAGES_MAX):
            stream = (await self._call("describe_stream", **arguments))["StreamDescription"]
            found.update((shard.name, shard) for shard in map(_listed, stream["Shards"]))
            self._numbers.seen(shard["SequenceNumberRange"].get("StartingSequenceNumber") for shard in stream["Shards"])
            if not stream.get("LastEvaluatedShardId"):
                break
            arguments["ExclusiveStartShardId"] = stream["LastEvaluatedShardId"]
        return found

    async def iterator(self, shard: Shard, start: Start) -> str:
        """Return an iterator; DynamoDB has none for a time."""
        answer = await self._call(
            "get_shard_iterator", StreamArn=self._arn, ShardId=shard, **self._iterator_type(start)
        )
        return str(answer["ShardIterator"])

    def _iterator_type(self, start: Start) -> dict[str, Any]:
        if start.at is not None:
            return {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "SequenceNumber": self._numbers.text(start.at)}
        if start.after is not None:
            return {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "SequenceNumber": self._numbers.text(start.after),
            }
        assert start.time is None, "DynamoDB has no iterator for a time"
        return {"ShardIteratorType": "LATEST" if start.is_latest else "TRIM_HORIZON"}

    async def page(self, iterator: str, *, records_max: int) -> Page:
        """Return what lies behind an iterator."""
        answer = await self._call("get_records", ShardIterator=iterator, Limit=records_max)
        body = answer[RAW]
        parsed = parsed_page(body, stream=self.title)
        records = parsed["Records"]
        self._numbers.seen(record["dynamodb"]["SequenceNumber"] for record in records[:1])
        return Page(
            records=records,
            iterator=parsed.get("NextShardIterator") or None,
            behind_s=None,
            size=len(body) if records else 0,
        )

    def now(self) -> float:
        """Return the service's time."""
        return self._calls.now()

    # --- records ------------------------------------------------------------------------------

    def position(self, record: Mapping[str, Any]) -> Position:
        """Return the sequence number."""
        return int(record["dynamodb"]["SequenceNumber"])

    def time_ms(self, record: Mapping[str, Any]) -> int:
        """Return when the change was made: AWS says it to the second."""
        return arrival_ms(record)

    def size(self, record: Mapping[str, Any]) -> int:
        """Return how many bytes the change has as JSON: the service's own measure has no names and quotes."""
        return len(orjson.dumps(record["dynamodb"]))

    def chunk(self, shard: Shard, records: Sequence[dict[str, Any]], *, through: Position) -> Chunk:
        """Return them as columns; what order is kept by is the item's key."""
        tail = self.shape.tail
        return Chunk(
            shard=shard,
            positions=[int(record["dynamodb"]["SequenceNumber"]) for record in records],
            times_ms=[arrival_ms(record) for record in records],
            keys=_Column(records, record_key),
            values=_Column(records, _change),
            fragments=[record_fragment(record, tail) for record in records],
            through=through,
        )


class _Column(Sequence[bytes | None]):
    """Something of records that is made when somebody asks: most mappings do not."""

    __slots__ = ("_make", "_records")

    def __init__(self, records: Sequence[Mapping[str, Any]], make: Callable[[Mapping[str, Any]], bytes]) -> None:
        self._records = records
        self._make = make

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes | None] | None:
        if isinstance(index, slice):
            return _Column(self._records[index], self._make)
        return self._make(self._records[index])

    def __iter__(self) -> Iterator[bytes | None]:
        return map(self._make, self._records)


def _change(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record["dynamodb"])


def _listed(shard: Mapping[str, Any]) -> ListedShard:
    numbers = shard["SequenceNumberRange"]
    last = numbers.get("EndingSequenceNumber")
    parent = shard.get("ParentShardId")
    return ListedShard(
        name=shard["ShardId"],
        parents=(parent,) if parent else (),
        first=int(numbers.get("StartingSequenceNumber") or 0),
        last=None if last is None else int(last),
    )
