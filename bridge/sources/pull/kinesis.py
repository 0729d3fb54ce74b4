"""Kinesis Data Streams for the reader of sharded streams: its calls, its limits, its records.

Records pass as they came: their base64 is decoded only by a filter that asks for data, and what a producer library has
aggregated (KPL) stays so, as on AWS. A consumer's ARN (enhanced fan-out) is taken and its stream polled.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.aws.raw import RAW
from bridge.core import limits
from bridge.core.ports import Clock
from bridge.core.stream import Chunk, Position, Shard
from bridge.events.kinesis import DataColumn, KinesisShape, RecordFrame, arrival_ms, record_fragments
from bridge.sources.pull.lineage import ListedShard
from bridge.sources.pull.shard_api import (
    LISTING_PAGES_MAX,
    MakeClient,
    Page,
    ReadLimits,
    SequenceNumbers,
    ShardCalls,
    Start,
    StreamFacts,
    parsed_page,
)

AWS_LIMITS: Final = ReadLimits(
    records_max=10_000, call_s=0.2, idle_s=1.0, bytes_per_s=2 * limits.MIB, iterator_max_s=240.0
)
"""docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html: 5 calls and 2 MiB a second and shard, 10,000
records or 10 MB a call; an iterator lives 5 minutes. Lambda asks once a second."""
OWN_LIMITS: Final = ReadLimits(records_max=10_000, call_s=0.0, idle_s=0.2, bytes_per_s=0.0, iterator_max_s=240.0)
"""Of other endpoints: stand-ins have no such limits, and say so when they have."""


class KinesisApi:
    """`shard_api.ShardApi` of one stream.

    Args:
        make_client: returns the client of `kinesis`.
        stream: its name.
        arn: as the mapping names it, perhaps a consumer's; empty: the stream is named.
        shape: its events; it hears the stream's ARN once that is known.
        read_limits: how often and how much at once is read.
        clock: our time.
    """

    has_times = True

    def __init__(
        self,
        make_client: MakeClient,
        *,
        stream: str,
        arn: str = "",
        shape: KinesisShape,
        read_limits: ReadLimits = AWS_LIMITS,
        clock: Clock,
    ) -> None:
        self.shape = shape
        self.limits = read_limits
        self._stream = stream
        self._arn = arn
        self._calls = ShardCalls(make_client, clock=clock)
        self._named = {"StreamARN": arn.partition("/consumer/")[0]} if arn else {"StreamName": stream}
        self._frames: dict[Shard, RecordFrame] = {}
        self._numbers = SequenceNumbers()

    @property
    def title(self) -> str:
        """What the stream is called in logs and errors."""
        return self._arn or f"kinesis {self._stream}"

    async def _call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        return await self._calls(operation, stream=self.title, **arguments)

    async def describe(self, known: str = "") -> StreamFacts:
        """Return what stream it is: a name has one at a time."""
        del known
        answer = await self._call("describe_stream_summary", **self._named)
        facts = answer["StreamDescriptionSummary"]
        if not self._arn:
            self.shape.name(facts["StreamARN"])
            self._frames.clear()
        return StreamFacts(arn=facts["StreamARN"], created=str(facts.get("StreamCreationTimestamp", "")))

    async def shards(self) -> Mapping[Shard, ListedShard]:
        """Return all shards that the stream lists."""
        found: dict[Shard, ListedShard] = {}
        arguments: dict[str, Any] = dict(self._named)
        for _ in range(LISTING_PAGES_MAX):
            answer = await self._call("list_shards", **arguments)
            found.update((shard.name, shard) for shard in map(_listed, answer["Shards"]))
            self._numbers.seen(shard["SequenceNumberRange"]["StartingSequenceNumber"] for shard in answer["Shards"])
            if not answer.get("NextToken"):
                break
            arguments = {"NextToken": answer["NextToken"]}
        return found

    async def iterator(self, shard: Shard, start: Start) -> str:
        """Return an iterator."""
        answer = await self._call("get_shard_iterator", **self._named, ShardId=shard, **self._iterator_type(start))
        return str(answer["ShardIterator"])

    def _iterator_type(self, start: Start) -> dict[str, Any]:
        if start.at is not None:
            return {
                "ShardIteratorType": "AT_SEQUENCE_NUMBER",
                "StartingSequenceNumber": self._numbers.text(start.at),
            }
        if start.after is not None:
            return {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "StartingSequenceNumber": self._numbers.text(start.after),
            }
        if start.time is not None:
            return {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": start.time}
        return {"ShardIteratorType": "LATEST" if start.is_latest else "TRIM_HORIZON"}

    async def page(self, iterator: str, *, records_max: int) -> Page:
        """Return what lies behind an iterator."""
        answer = await self._call("get_records", ShardIterator=iterator, Limit=records_max)
        body = answer[RAW]
        parsed = parsed_page(body, stream=self.title)
        self._numbers.seen(record["SequenceNumber"] for record in parsed["Records"][:1])
        behind_ms = parsed.get("MillisBehindLatest")
        return Page(
            records=parsed["Records"],
            iterator=parsed.get("NextShardIterator") or None,
            behind_s=None if behind_ms is None else behind_ms / 1000,
            size=len(body) * 3 // 4 if parsed["Records"] else 0,
        )

    def now(self) -> float:
        """Return the service's time."""
        return self._calls.now()

    # --- records ------------------------------------------------------------------------------

    def position(self, record: Mapping[str, Any]) -> Position:
        """Return the sequence number."""
        return int(record["SequenceNumber"])

    def time_ms(self, record: Mapping[str, Any]) -> int:
        """Return the arrival."""
        return arrival_ms(record)

    def size(self, record: Mapping[str, Any]) -> int:
        """Return about how many bytes its data has."""
        return len(record["Data"]) * 3 // 4

    def chunk(self, shard: Shard, records: Sequence[dict[str, Any]], *, through: Position) -> Chunk:
        """Return them as columns; what order is kept by is the partition key."""
        frame = self._frames.get(shard)
        if frame is None:
            frame = self._frames[shard] = self.shape.frame(shard)
        times_ms = [arrival_ms(record) for record in records]
        return Chunk(
            shard=shard,
            positions=[int(record["SequenceNumber"]) for record in records],
            times_ms=times_ms,
            keys=[record["PartitionKey"].encode() for record in records],
            values=DataColumn([record["Data"] for record in records]),
            fragments=record_fragments(frame, records, times_ms),
            through=through,
        )


def _listed(shard: Mapping[str, Any]) -> ListedShard:
    numbers = shard["SequenceNumberRange"]
    last = numbers.get("EndingSequenceNumber")
    parents = [shard.get("ParentShardId"), shard.get("AdjacentParentShardId")]
    return ListedShard(
        name=shard["ShardId"],
        parents=tuple(parent for parent in parents if parent),
        first=int(numbers["StartingSequenceNumber"]),
        last=None if last is None else int(last),
    )
