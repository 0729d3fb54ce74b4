"""A stream that follows a script: tests say what its shards hold, who has them, and see every commit."""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from bridge.core.errors import SourceError
from bridge.core.invocation import InvocationType
from bridge.core.mapping import StartingPosition
from bridge.core.ports import Clock
from bridge.core.record import DamagedRecord
from bridge.core.sources import PartialAnswer, ShardEvents, ShardStatus, Standing, WindowPart
from bridge.core.stream import BEFORE_ALL, Chunk, Mark, Poll, Position, RecordFormat, Shard, StreamRange


class ScriptedShape:
    """`EventShape`: `{"Records": [{"id": "SHARD:POSITION", "value": …}], "window": …}`."""

    format = RecordFormat.BRIDGE
    overhead_bytes = 64
    shard_overhead_bytes = 0

    def __init__(
        self, *, mixes_shards: bool = False, partial_answer: PartialAnswer = PartialAnswer.FROM_LOWEST
    ) -> None:
        self.mixes_shards = mixes_shards
        self.partial_answer = partial_answer

    def event(self, parts: Sequence[tuple[Shard, Sequence[bytes]]], window: WindowPart | None = None) -> bytes:
        """Join the fragments of all shards."""
        records = b",".join(fragment for _, fragments in parts for fragment in fragments)
        if window is None:
            return b'{"Records":[' + records + b"]}"
        more = {
            "window": {"start": window.start, "end": window.end},
            "isFinalInvokeForWindow": window.is_final,
            "isWindowTerminatedEarly": window.is_terminated_early,
        }
        head = orjson.dumps(more)[:-1] + b',"state":' + window.state
        return head + b',"Records":[' + records + b"]}"

    def identifier(self, chunk: Chunk, index: int) -> object:
        """Return `SHARD:POSITION`."""
        return f"{chunk.shard}:{chunk.positions[index]}"

    def read_identifier(self, item: object) -> object | None:
        """Return text as it is."""
        return item if isinstance(item, str) else None

    def batch_info(
        self, shard: Shard, positions: Sequence[Position], times_ms: Sequence[int], *, payload_bytes: int
    ) -> Mapping[str, Any]:
        """Name shard, positions and size."""
        del times_ms, payload_bytes
        return {"ScriptedBatchInfo": {"shardId": shard, "positions": list(positions), "batchSize": len(positions)}}


@dataclass(frozen=True, slots=True)
class ScriptedRecord:
    """One record: its arrival (epoch seconds, -1 unknown), key and value (JSON)."""

    position: Position
    value: object
    time: float = -1.0
    key: bytes | None = None
    damage: str = ""
    """Why it cannot be read; empty: it can."""


@dataclass(slots=True)
class _Shard:
    records: list[ScriptedRecord] = field(default_factory=list)
    mark: Mark = field(default_factory=lambda: Mark(position=BEFORE_ALL))
    cursor: Position = BEFORE_ALL
    through: Position = BEFORE_ALL
    forgotten: Position = BEFORE_ALL
    is_ended: bool = False

    @property
    def last(self) -> Position:
        """The end of what is known."""
        return max(self.records[-1].position if self.records else BEFORE_ALL, self.through)


class ScriptedStream:
    """`EventSource` in memory. `put` adds records; `take` and `give` move shards away and back, as a rebalance does."""

    is_remote = False
    is_countable = True

    def __init__(self, clock: Clock, *, shards: Sequence[Shard] = ("s-0",), shape: ScriptedShape | None = None) -> None:
        self._clock = clock
        self.shape = shape or ScriptedShape()
        self.shards: dict[Shard, _Shard] = {name: _Shard() for name in shards}
        self.commits: list[tuple[Shard, Mark]] = []
        """Every mark that was stored, in order."""
        self.fail_with: SourceError | None = None
        """Raised by open, read and commit while it is set."""
        self.commit_fails_with: SourceError | None = None
        self.reads = 0
        self.epoch = 0
        self.arrived = asyncio.Event()
        self.live: ScriptedSource | None = None
        self.opened = 0
        self.ranges: list[ScriptedRange] = []
        """Readers of parts that were opened, in order."""
        self.range_fails_with: SourceError | None = None
        """Raised by open and read of readers of parts while it is set."""
        self.follows: dict[Shard, frozenset[Shard]] = {}
        """Which shards come from which others, as readers of parts say it."""

    def put(self, *values: object, shard: Shard = "s-0", key: bytes | None = None, time: float | None = None) -> None:
        """Add records behind the last one of a shard, arrived now."""
        held = self.shards[shard]
        for value in values:
            last = max(held.records[-1].position if held.records else BEFORE_ALL, held.through)
            arrived = self._clock.time() if time is None else time
            held.records.append(ScriptedRecord(last + 1, value, arrived, key))
        self.arrived.set()

    def damage(self, *positions: Position, shard: Shard = "s-0") -> None:
        """Let records that were put be unreadable from now on."""
        records = self.shards[shard].records
        self.shards[shard].records = [
            replace(record, damage=f"{shard} is damaged at {record.position}")
            if record.position in positions
            else record
            for record in records
        ]

    def skip(self, count: int, *, shard: Shard = "s-0") -> None:
        """Leave a hole of `count` positions, as compaction and transaction markers do."""
        held = self.shards[shard]
        held.through = max(held.records[-1].position if held.records else BEFORE_ALL, held.through) + count
        self.arrived.set()

    def end(self, shard: Shard = "s-0") -> None:
        """Close a shard behind its last record."""
        self.shards[shard].is_ended = True
        self.arrived.set()

    def mark(self, shard: Shard = "s-0") -> Position:
        """Return the stored position of a shard."""
        return self.shards[shard].mark.position

    async def take(self, *names: Shard, deadline_s: float = 5.0) -> None:
        """Take shards from the live reader, as a rebalance does."""
        assert self.live is not None
        await self.live.revoke(frozenset(names), deadline_s=deadline_s)

    async def give(self, *names: Shard) -> None:
        """Give shards to the live reader."""
        assert self.live is not None
        await self.live.assign(names)

    def consumer(self) -> "ScriptedSource":
        """Return a reader of all shards."""
        return ScriptedSource(self, self._clock)

    def reader(self, range_: StreamRange) -> "ScriptedRange":
        """Return a reader of a part."""
        return ScriptedRange(self, range_, self._clock)

    def forget(self, through: Position, *, shard: Shard = "s-0") -> None:
        """Take what retention takes: all up to `through`."""
        held = self.shards[shard]
        held.records = [record for record in held.records if record.position > through]
        held.through = max(held.through, through)
        held.forgotten = max(held.forgotten, through)

    async def reset(self, start: StartingPosition, *, timestamp: float | None = None) -> Mapping[Shard, Mark]:
        """Move all marks to the beginning or the end."""
        del timestamp
        for held in self.shards.values():
            last = held.records[-1].position if held.records else BEFORE_ALL
            held.mark = Mark(position=BEFORE_ALL if start is StartingPosition.TRIM_HORIZON else last)
        return {name: held.mark for name, held in self.shards.items()}

    async def others(self) -> Sequence[str]:
        """Nobody."""
        return ()

    async def standing(self) -> Standing:
        """How the stored marks stand."""
        return Standing(
            shards=tuple(
                ShardStatus(
                    shard=name,
                    position=held.mark.position,
                    behind=sum(record.position > held.mark.position for record in held.records),
                )
                for name, held in sorted(self.shards.items())
            )
        )


class ScriptedSource:
    """`Source` over a `ScriptedStream`."""

    def __init__(self, stream: ScriptedStream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._events: ShardEvents | None = None
        self._mine: dict[Shard, int] = {}
        """Epoch by shard."""

    trouble = ""

    async def open(self, events: ShardEvents) -> None:
        """Take all shards."""
        self._check()
        self._events = events
        self._stream.live = self
        self._stream.opened += 1
        await self.assign(self._stream.shards)

    async def assign(self, names: Sequence[Shard] | Mapping[Shard, object]) -> None:
        """Take shards on, each from its mark."""
        assert self._events is not None
        self._stream.epoch += 1
        marks = {}
        for name in names:
            held = self._stream.shards[name]
            held.cursor = held.mark.position
            self._mine[name] = self._stream.epoch
            marks[name] = Mark(
                position=held.mark.position, epoch=self._stream.epoch, note=held.mark.note, state=held.mark.state
            )
        await self._events.assigned(marks)
        self._stream.arrived.set()

    async def revoke(self, names: AbstractSet[Shard], *, deadline_s: float) -> None:
        """Let shards go."""
        assert self._events is not None
        await self._events.revoking(names, deadline_s=deadline_s)
        for name in names:
            self._mine.pop(name, None)

    def _check(self) -> None:
        if self._stream.fail_with is not None:
            raise self._stream.fail_with

    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]) -> Poll:
        """Return what lies behind the cursors, or wait."""
        self._check()
        poll = self._poll(records_max, bytes_max, paused)
        if not poll.chunks and not poll.through and not poll.ended:
            self._stream.arrived.clear()
            timer = asyncio.create_task(self._clock.sleep(wait_s))
            arrival = asyncio.create_task(self._stream.arrived.wait())
            try:
                await asyncio.wait({timer, arrival}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                arrival.cancel()
            self._check()
            poll = self._poll(records_max, bytes_max, paused)
        self._stream.reads += 1
        return poll

    def _poll(self, records_max: int, bytes_max: int, paused: AbstractSet[Shard]) -> Poll:
        chunks: list[Chunk] = []
        through: dict[Shard, Position] = {}
        ended: list[Shard] = []
        for name in self._mine:
            held = self._stream.shards[name]
            if name in paused or (records_max <= 0 and held.cursor < self._last(name)):
                continue
            records = [record for record in held.records if record.position > held.cursor][:records_max]
            size = 0
            for count, record in enumerate(records):
                size += len(orjson.dumps(record.value))
                if size > bytes_max and count:
                    records = records[:count]
                    break
            records_max -= len(records)
            last_known = max(self._last(name), held.through)
            is_last = not records or records[-1] is held.records[-1]
            reached = last_known if is_last else records[-1].position
            if records:
                chunks.append(_chunk(name, records, reached))
            elif reached > held.cursor:
                through[name] = reached
            held.cursor = max(held.cursor, reached)
            if held.is_ended and held.cursor >= last_known:
                ended.append(name)
        for name in ended:
            del self._mine[name]
        return Poll(chunks=chunks, through=through, ended=ended)

    def _last(self, shard: Shard) -> Position:
        records = self._stream.shards[shard].records
        return records[-1].position if records else BEFORE_ALL

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Store; old epochs and earlier positions are ignored."""
        self._check()
        if self._stream.commit_fails_with is not None:
            raise self._stream.commit_fails_with
        for name, mark in marks.items():
            held = self._stream.shards[name]
            if mark.position >= held.mark.position and mark.epoch >= self._mine.get(name, mark.epoch):
                held.mark = mark
                self._stream.commits.append((name, mark))

    def behind_s(self) -> Mapping[Shard, float]:
        """Return nothing: records are counted."""
        return {}

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Count what lies behind."""
        return {
            name: sum(record.position > position for record in self._stream.shards[name].records)
            for name, position in marks.items()
        }

    async def close(self) -> None:
        """Let all shards go."""
        if self._events is not None and self._mine:
            await self.revoke(frozenset(self._mine), deadline_s=5.0)
        self._mine.clear()


def _damaged(shard: Shard, record: ScriptedRecord) -> DamagedRecord:
    return DamagedRecord(
        id=f"{shard}:{record.position}",
        source="",
        function="",
        invocation_type=InvocationType.EVENT,
        received_at=record.time,
        payload=b"\xff" + orjson.dumps(record.value),
        position=record.position,
        damage=record.damage,
    )


class ScriptedRange:
    """`RangeReader` over a `ScriptedStream`: takes no shard from the live reader and stores no mark."""

    def __init__(self, stream: ScriptedStream, range_: StreamRange, clock: Clock) -> None:
        self._stream = stream
        self._range = range_
        self._clock = clock
        self._cursors: dict[Shard, Position] = {}
        """Of the shards that have not ended."""
        self.ends: dict[Shard, Position] = {}
        self.gone = 0
        self.trouble = ""
        self.follows = stream.follows

    def _is_inside(self, record: ScriptedRecord) -> bool:
        since, until = self._range.since, self._range.until
        return (since is None or record.time >= since) and (until is None or record.time < until)

    async def open(self, events: ShardEvents) -> None:
        """Look where each shard ends now."""
        self._check()
        marks = {}
        for name, held in self._stream.shards.items():
            if self._range.shards and name not in self._range.shards:
                continue
            first = self._range.first.get(name, 0)
            begin = max(first - 1, held.forgotten)
            end = min(self._range.last.get(name, held.last), held.last)
            if name in self._range.first:
                self.gone += max(0, min(held.forgotten, end) - (first - 1))
            self.ends[name] = max(begin, end)
            self._cursors[name] = begin
            marks[name] = Mark(position=begin)
        self._stream.ranges.append(self)
        await events.assigned(marks)

    def _check(self) -> None:
        if self._stream.range_fails_with is not None:
            raise self._stream.range_fails_with

    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]) -> Poll:
        """Return what lies between the cursors and the ends, or wait."""
        del bytes_max
        self._check()
        chunks: list[Chunk] = []
        through: dict[Shard, Position] = {}
        ended: list[Shard] = []
        for name, cursor in list(self._cursors.items()):
            if name in paused:
                continue
            end, held = self.ends[name], self._stream.shards[name]
            self.gone += max(0, min(held.forgotten, end) - cursor)
            ahead = [record for record in held.records if cursor < record.position <= end]
            records = [record for record in ahead if self._is_inside(record)][:records_max]
            records_max -= len(records)
            is_last = not records or records[-1] is ahead[-1]
            reached = end if is_last else records[-1].position
            if records:
                chunks.append(_chunk(name, records, reached))
            elif reached > cursor:
                through[name] = reached
            self._cursors[name] = reached
            if reached >= end:
                ended.append(name)
                del self._cursors[name]
            if records_max <= 0:
                break
        if not chunks and not through and not ended:
            await self._clock.sleep(wait_s)
        return Poll(chunks=chunks, through=through, ended=ended)

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Do nothing."""

    def behind_s(self) -> Mapping[Shard, float]:
        """Return nothing: records are counted."""
        return {}

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Count what lies behind, up to the end."""
        return {name: max(0, self.ends.get(name, BEFORE_ALL) - position) for name, position in marks.items()}

    async def close(self) -> None:
        """End."""
        self._cursors.clear()


def _chunk(shard: Shard, all_records: Sequence[ScriptedRecord], through: Position) -> Chunk:
    records = [record for record in all_records if not record.damage]
    values = [orjson.dumps(record.value) for record in records]
    return Chunk(
        shard=shard,
        positions=[record.position for record in records],
        times_ms=[-1 if record.time < 0 else round(record.time * 1000) for record in records],
        keys=[record.key for record in records],
        values=values,
        fragments=[
            b'{"id":"%s:%d","value":%s}' % (shard.encode(), record.position, value)
            for record, value in zip(records, values, strict=True)
        ],
        through=through,
        damaged=[_damaged(shard, record) for record in all_records if record.damage],
    )
