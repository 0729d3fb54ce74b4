"""A part of a sharded stream as a `Source` for replay: no marks are moved, its end is the one seen at the beginning."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.aws.errors import AwsTroubleKind
from bridge.core.errors import SourceError, StoreError
from bridge.core.ports import Clock
from bridge.core.sources import ShardEvents, StreamMarks
from bridge.core.stream import Mark, Position, Shard, StreamRange
from bridge.sources.pull.lineage import ListedShard, Listing, predecessors
from bridge.sources.pull.shard_api import OLDEST, ShardApi, ShardCallFailed, Start
from bridge.sources.pull.shard_cursor import ShardCursor, is_since
from bridge.sources.pull.shard_layout import Layout
from bridge.sources.pull.shard_reading import PARALLEL_READS, ShardReading
from bridge.sources.pull.shard_tip import Tips, is_at_tip

_UNKNOWN_NUMBER: Final = frozenset({AwsTroubleKind.INVALID, AwsTroubleKind.NOT_FOUND})
"""How services say that no record has a sequence number."""
_OUT_OF_ORDER_S: Final = 5.0
"""Arrivals are in about the order of sequence numbers: behind a record that is so much later, none is earlier."""


class ShardRangeReader(ShardReading):
    """`sources.RangeReader` over one sharded stream.

    Args:
        api: the stream.
        range_: what is read.
        marks: those of the live mapping, from which the tip of a shard is found sooner.
        mapping: its name.
        clock: paces the calls.
    """

    def __init__(self, api: ShardApi, range_: StreamRange, *, marks: StreamMarks, mapping: str, clock: Clock) -> None:
        super().__init__(api, mapping=mapping, clock=clock)
        self._range = range_
        self._marks = marks
        self._ends: dict[Shard, Position] = {}
        self._follows: Mapping[Shard, frozenset[Shard]] = {}
        self._opened_at = 0.0

    @property
    def ends(self) -> Mapping[Shard, Position]:
        """Return the last position of each shard's part. See sources.RangeReader."""
        return dict(self._ends)

    @property
    def gone(self) -> int:
        """Return 0: sequence numbers do not say how many records retention took."""
        return 0

    @property
    def follows(self) -> Mapping[Shard, frozenset[Shard]]:
        """Return which shards come from which others of the part. See sources.RangeReader."""
        return self._follows

    async def open(self, events: ShardEvents) -> None:
        """Find where each shard's part begins and ends. See sources.EventSource.reader."""
        try:
            layout = Layout.parse(await self._marks.layout(self._mapping))
            await self._api.describe("" if layout is None else layout.arn)  # the live reader's calls are of that one
            tips = Tips(self._api, self._clock)
            listed = await tips.patiently(self._api.shards)
            self._opened_at = tips.now
            stored = await self._marks.load(self._mapping)
            chosen = self._chosen(listed)
            room = asyncio.Semaphore(PARALLEL_READS)

            async def end(shard: ListedShard) -> Position:
                async with room:
                    return await self._end(shard, stored.get(shard.name), tips)

            ends = await asyncio.gather(*(end(shard) for shard in chosen))
        except ShardCallFailed as failure:
            raise failure.as_source_error() from failure
        except StoreError as error:
            raise SourceError(f"the marks of mapping {self._mapping} cannot be had: {error}") from error
        marks = {
            shard.name: Mark(position=self._cursor(shard, end).through) for shard, end in zip(chosen, ends, strict=True)
        }
        self._follows = predecessors(listed, marks.keys())
        self._events = events
        await events.assigned(marks)

    def _chosen(self, listed: Listing) -> list[ListedShard]:
        """Return the shards of the range: also one that a replay has begun and that retention took since."""
        range_ = self._range
        gone = (range_.shards & range_.first.keys() & range_.last.keys()) - listed.keys()
        return [shard for name, shard in listed.items() if not range_.shards or name in range_.shards] + [
            ListedShard(name=name, first=range_.first[name]) for name in sorted(gone)
        ]

    def _cursor(self, shard: ListedShard, end: Position) -> ShardCursor:
        """Have a shard's part read up to `end`."""
        range_, api = self._range, self._api
        first = max(shard.first, range_.first.get(shard.name, 0))
        end = max(end, first - 1)
        start = OLDEST
        if first > shard.first:
            start = Start(at=first)
        elif range_.since is not None and api.has_times:
            start = Start(time=range_.since)
        cursor = ShardCursor(name=shard.name, api=api, start=start, through=first - 1, last=end)
        cursor.part = self._part(first, end)
        cursor.is_closed = end < first or (range_.since is not None and range_.since >= self._opened_at)
        self._ends[shard.name] = end
        self._cursors[shard.name] = cursor
        return cursor

    def _part(
        self, first: Position, end: Position
    ) -> Callable[[list[dict[str, Any]]], tuple[list[dict[str, Any]], bool]]:
        api, since, until = self._api, self._range.since, self._range.until

        def part(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
            last = api.position(records[-1])
            is_over = last >= end
            if is_over or api.position(records[0]) < first:
                records = [record for record in records if first <= api.position(record) <= end]
            if since is not None:
                records = [record for record in records if is_since(api, record, since)]
            if until is not None and records:
                is_over = is_over or api.time_ms(records[-1]) >= (until + _OUT_OF_ORDER_S) * 1000
                records = [record for record in records if not is_since(api, record, until)]
            return records, is_over

        return part

    def _look_at(self, cursor: ShardCursor) -> None:
        cursor.is_closed = cursor.is_closed or is_at_tip(cursor.behind_s, cursor.empties)

    async def _failed(self, cursor: ShardCursor, failure: ShardCallFailed) -> None:
        is_unknown = failure.trouble.kind in _UNKNOWN_NUMBER and not failure.is_trimmed
        if is_unknown and cursor.seen is None and cursor.start != OLDEST:
            # There is no record of just that number: it follows one that a replay has done, or was written by hand.
            at, cursor.iterator = cursor.start.at, None
            cursor.start = OLDEST if at is None else Start(after=at - 1)
            return
        await super()._failed(cursor, failure)

    # --- the end ------------------------------------------------------------------------------

    async def _end(self, shard: ListedShard, live: Mark | None, tips: Tips) -> Position:
        """Return the last position of a shard's part."""
        last = self._range.last.get(shard.name)
        if last is not None:
            return last if shard.end is None else min(last, shard.end)
        if shard.end is not None:
            return shard.end
        return await tips.find(shard, live=None if live is None else live.position)

    # --- sources.Source -----------------------------------------------------------------------

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Do nothing: live marks are untouched."""

    async def close(self) -> None:
        """Hand the shards back and end. See sources.Source."""
        await self._leave(self._ends)
