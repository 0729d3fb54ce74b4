"""A sharded stream of a service as a mapping names it (`sources.EventSource`): Kinesis, DynamoDB Streams."""

from collections.abc import Mapping, Sequence
from typing import Final

from bridge.core.errors import SourceError, StoreError
from bridge.core.mapping import EventSourceMapping, StartingPosition
from bridge.core.ports import Clock
from bridge.core.sources import EventShape, RangeReader, ShardStatus, Source, Standing, StreamMarks
from bridge.core.stream import Mark, Shard, StreamRange
from bridge.sources.pull.shard_api import ShardApi, ShardCallFailed
from bridge.sources.pull.shard_range import ShardRangeReader
from bridge.sources.pull.shard_reader import Beginning, ShardReader

UNSUPPORTED: Final = "Unsupported starting position for arn type: "
"""What AWS says of AT_TIMESTAMP for DynamoDB Streams (semantics 3.1)."""


class ShardEventSource:
    """`sources.EventSource`. Its marks are this daemon's: two daemons that read one stream both get everything.

    Args:
        api: the stream.
        mapping: its name keeps the marks, its starting position is where it begins without any.
        marks: keeps how far each shard is finished.
        clock: paces the calls.
        of: whose stream it is, for a person; empty: our own, or nobody's who could mind.
    """

    is_remote = True
    is_countable = False

    def __init__(
        self, api: ShardApi, mapping: EventSourceMapping, *, marks: StreamMarks, clock: Clock, of: str = ""
    ) -> None:
        self.shape: EventShape = api.shape
        self._api = api
        self._mapping = mapping
        self._marks = marks
        self._clock = clock
        self._of = of

    def consumer(self) -> Source:
        """Return a new live reader. See sources.EventSource."""
        return ShardReader(
            self._api,
            self._marks,
            mapping=self._mapping.name,
            clock=self._clock,
            position=self._mapping.starting_position,
            time=self._mapping.starting_position_timestamp,
        )

    def reader(self, range_: StreamRange) -> RangeReader:
        """Return a reader of a part. See sources.EventSource."""
        return ShardRangeReader(self._api, range_, marks=self._marks, mapping=self._mapping.name, clock=self._clock)

    async def reset(self, start: StartingPosition, *, timestamp: float | None = None) -> Mapping[Shard, Mark]:
        """Move the stored marks. See sources.EventSource."""
        if start is StartingPosition.AT_TIMESTAMP and not self._api.has_times:
            raise SourceError(f"{UNSUPPORTED}{self._api.title}")
        begin = Beginning(self._api, self._marks, mapping=self._mapping.name, clock=self._clock)
        try:
            facts = await self._api.describe()
            _, marks = await begin.make(facts, await self._api.shards(), start, timestamp)
        except ShardCallFailed as failure:
            raise failure.as_source_error() from failure
        except StoreError as error:
            raise SourceError(f"the marks of mapping {self._mapping.name} were not moved: {error}") from error
        return marks

    async def look(self) -> None:
        """Ask whether the stream is there. Raises SourceError: it is not, or it cannot be asked."""
        try:
            await self._api.describe()
        except ShardCallFailed as failure:
            raise failure.as_source_error() from failure

    async def others(self) -> Sequence[str]:
        """Return whose stream it is: reading takes of what its shards can be read in all. See sources.EventSource."""
        return [self._of] if self._of else []

    async def standing(self) -> Standing:
        """Return the stored marks; the services do not say how much lies behind. See sources.EventSource."""
        try:
            marks = await self._marks.load(self._mapping.name)
        except StoreError as error:
            raise SourceError(f"the marks of mapping {self._mapping.name} are not known: {error}") from error
        return Standing(
            shards=tuple(
                ShardStatus(shard=shard, position=mark.position, behind=None)
                for shard, mark in sorted(marks.items())
                if not mark.has_ended
            )
        )
