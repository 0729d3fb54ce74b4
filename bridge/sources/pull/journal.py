"""Streams of the journal: one sequential read, a cursor per shard, woken by commits instead of polling."""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from bridge.core import limits
from bridge.core.errors import SourceError, StoreError
from bridge.core.mapping import EventSourceMapping, StartingPosition
from bridge.core.ports import Clock
from bridge.core.record import DamagedRecord
from bridge.core.sources import EventShape, RangeReader, ShardEvents, Source, Standing
from bridge.core.stream import Chunk, Mark, Poll, Position, Shard, StreamRange
from bridge.sources.pull.backlogs import Backlog, JournalStreams
from bridge.sources.pull.sharding import Sharding

log = structlog.get_logger("bridge.streams")

_PAGE_RECORDS_MAX: Final = 2048
_PAGE_MAX_BYTES: Final = 4 * limits.MIB
"""One page is read in a thread: bounded, so that a cancelled read ends soon."""


@dataclass(slots=True, eq=False)
class Columns:
    """Stored records of one shard."""

    positions: list[Position] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)


class Codec(Protocol):
    """How stored records of a stream become columns."""

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk; runs in a thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """What the readers of one mapping's stream share."""

    mapping: str
    source: str
    """As in the records."""
    shards: tuple[Shard, ...]
    sharding: Sharding
    codec: Codec
    streams: JournalStreams
    clock: Clock
    is_archive: bool = False
    """Whether its records are in no lane: copies that a mapping made."""


class _Reader:
    """`sources.Source` over the journal.

    Every shard has a cursor: all its records up to there were handed out. A read goes on behind the cursor of the
    shard whose turn it is, and serves all shards that stand there or further on. So shards that keep up are read
    together, once; one that was paused is read again from where it stood, in turn with the others.
    """

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._events: ShardEvents | None = None
        self._cursors: dict[Shard, Position] = {}
        self._ends: dict[Shard, Position] = {}
        """Where the part of a shard ends that is read; none: it has no end."""
        self._turns: dict[Shard, int] = {}
        self._turn = 0
        self._through: dict[Shard, Position] = {}
        """Positions passed over and not told yet."""
        self._ended: list[Shard] = []
        """Shards at their end and not told yet."""
        self._wake = asyncio.Event()

    trouble = ""
    """A journal that cannot be read ends the daemon."""

    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]) -> Poll:
        """Return the next records. See sources.Source."""
        if self._events is None:
            raise SourceError(f"{self._stream.source} is not open")
        until = self._stream.clock.monotonic() + wait_s
        while True:
            self._wake.clear()
            shard = self._next(paused)
            chunks: list[Chunk] = []
            if shard is not None:
                chunks = await self._page(self._cursors[shard], records_max, bytes_max, paused)
            left_s = until - self._stream.clock.monotonic()
            if chunks or self._ended or left_s <= 0:
                return self._poll(chunks)
            if shard is None:
                await self._wait(left_s)

    def _next(self, paused: AbstractSet[Shard]) -> Shard | None:
        """Return the shard whose turn it is of those that may have more, None when there is none."""
        newest = self._stream.streams.newest(self._stream.source)
        waiting = [
            shard
            for shard, cursor in self._cursors.items()
            if shard not in paused and cursor < self._ends.get(shard, newest)
        ]
        return min(waiting, key=self._turns.__getitem__, default=None)

    async def _page(self, after: Position, records_max: int, bytes_max: int, paused: AbstractSet[Shard]) -> list[Chunk]:
        """Read a page behind a cursor. Nothing changes before it is there: a cancelled read loses nothing."""
        served = {s: c for s, c in self._cursors.items() if c >= after and s not in paused}
        try:
            found, through = await asyncio.to_thread(
                self._load, after, served, min(records_max, _PAGE_RECORDS_MAX), min(bytes_max, _PAGE_MAX_BYTES)
            )
        except StoreError as error:
            raise SourceError(f"{self._stream.source} cannot be read from the journal: {error}") from error
        self._turn += 1
        for shard, cursor in served.items():
            if cursor < through:
                self._turns[shard] = self._turn
                self._advance(shard, through)
        for chunk, records in found:
            self._through.pop(chunk.shard, None)
            self._handed(chunk.shard, records)
        return [chunk for chunk, _ in found]

    def _load(
        self, after: Position, cursors: Mapping[Shard, Position], records_max: int, bytes_max: int
    ) -> tuple[list[tuple[Chunk, list[tuple[Position, int]]]], Position]:
        """Read and shape a page, in a thread; beside each chunk its positions and their bytes in the journal."""
        stream = self._stream
        page = stream.streams.journal.source_page(
            stream.source, after=after, limit=records_max, bytes_max=bytes_max, is_archive=stream.is_archive
        )
        place, names, ends, through = stream.sharding.place, stream.shards, self._ends, page.through
        columns: dict[Shard, Columns] = {}
        for position, time_ms, record_id, stored_key, payload in zip(
            page.positions, page.times_ms, page.ids, page.keys, page.payloads, strict=True
        ):
            number, key = place(record_id, payload, stored_key)
            shard = names[number]
            if position > cursors.get(shard, position) and position <= ends.get(shard, position):
                column = columns.get(shard)
                if column is None:
                    column = columns[shard] = Columns()
                column.positions.append(position)
                column.times_ms.append(time_ms)
                column.ids.append(record_id)
                column.keys.append(key)
                column.payloads.append(payload)
        damaged: dict[Shard, list[DamagedRecord]] = {}
        for record in page.damaged:
            owner = self._damaged_shard(record, cursors)
            if owner is not None:
                damaged.setdefault(owner, []).append(record)
                columns.setdefault(owner, Columns())
        found = [
            (
                stream.codec.chunk(shard, column, through=min(through, ends.get(shard, through))),
                list(zip(column.positions, map(len, column.payloads), strict=True)),
            )
            for shard, column in columns.items()
        ]
        for chunk, records in found:
            if chunk.shard in damaged:
                chunk.damaged = damaged[chunk.shard]
                records += [(record.position, len(record.payload)) for record in chunk.damaged]
                records.sort()
        return found, through

    def _damaged_shard(self, record: DamagedRecord, served: Mapping[Shard, Position]) -> Shard | None:
        """Return the shard that has a damaged record now: its own or, where that has passed it, one that has not.

        Which one was its own is known of records that are placed by their id; a key may be what is damaged. So two
        shards may have it one after the other, but none that has not passed it lets it go by.
        """
        at, ends = record.position, self._ends
        number, is_sure = self._stream.sharding.place_damaged(record.id, record.payload)
        own = self._stream.shards[number]
        if is_sure or self._cursors.get(own, at) < at <= ends.get(own, at):
            return own if served.get(own, at) < at <= ends.get(own, at) else None
        return next((s for s, cursor in served.items() if cursor < at <= ends.get(s, at)), None)

    def _advance(self, shard: Shard, through: Position) -> None:
        """A shard was read up to `through`."""
        end = self._ends.get(shard)
        if end is not None and through >= end:
            through = end
            self._ended.append(shard)
            del self._cursors[shard]
        else:
            self._cursors[shard] = through
        self._through[shard] = through

    def _handed(self, shard: Shard, records: Sequence[tuple[Position, int]]) -> None:
        """Records, as position and bytes, are about to be handed out."""

    def _poll(self, chunks: Sequence[Chunk]) -> Poll:
        poll = Poll(chunks=chunks, through=self._through, ended=self._ended)
        self._through, self._ended = {}, []
        return poll

    async def _wait(self, delay_s: float) -> None:
        """Wait until something of the source is stored, at most so long."""
        waits = {
            asyncio.create_task(self._stream.clock.sleep(delay_s)),
            asyncio.create_task(self._wake.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    def behind_s(self) -> Mapping[Shard, float]:
        """Return nothing: records are counted. See sources.Source."""
        return {}

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Return what is known of how far behind positions are. See sources.Source."""
        return dict.fromkeys(marks)

    async def close(self) -> None:
        """Hand the shards back and end. See sources.Source."""
        events, self._events = self._events, None
        if events is None:
            return
        try:
            async with asyncio.timeout(limits.REVOKE_MAX_S):
                await events.revoking(frozenset(self._turns), deadline_s=limits.REVOKE_MAX_S)
        except TimeoutError:
            log.warning("revocation_late", mapping=self._stream.mapping, waited_s=limits.REVOKE_MAX_S)
        finally:
            self._stream.streams.unlisten(self._stream.source, self._wake)


class _Consumer(_Reader):
    """Reads on behind the marks, and moves them."""

    def __init__(self, stream: _Stream, source: "JournalEventSource") -> None:
        super().__init__(stream)
        self._source = source
        self._backlog: Backlog | None = None
        self._epochs: dict[Shard, int] = {}

    async def open(self, events: ShardEvents) -> None:
        """Claim the marks and begin. See sources.Source."""
        stream = self._stream
        try:
            backlog = await self._source.prepare()
            marks = await stream.streams.marks.claim(stream.mapping, frozenset(stream.shards))
        except StoreError as error:
            raise SourceError(f"the marks of mapping {stream.mapping} cannot be had: {error}") from error
        if backlog.owner is not None:
            backlog.released(backlog.owner)
        backlog.owner, self._backlog = self, backlog
        self._events = events
        self._cursors = {shard: mark.position for shard, mark in marks.items()}
        self._turns = dict.fromkeys(self._cursors, 0)
        self._epochs = {shard: mark.epoch for shard, mark in marks.items()}
        stream.streams.listen(stream.source, self._wake)
        await events.assigned(marks)

    def _handed(self, shard: Shard, records: Sequence[tuple[Position, int]]) -> None:
        assert self._backlog is not None
        self._backlog.handed(self, shard, records)

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Store the marks. See sources.Source."""
        ours = {shard: mark for shard, mark in marks.items() if self._epochs.get(shard) == mark.epoch}
        if not ours or self._backlog is None:
            return
        try:
            await self._stream.streams.marks.commit(self._stream.mapping, ours)
        except StoreError as error:
            raise SourceError(f"the marks of mapping {self._stream.mapping} are not stored: {error}") from error
        self._backlog.finished(self, {shard: mark.position for shard, mark in ours.items()})

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Return how many records lie behind each position. See sources.Source."""
        backlog = self._backlog
        if backlog is None:
            return dict.fromkeys(marks)
        return {
            shard: backlog.behind(shard, position, read_to=self._cursors[shard]) if shard in self._cursors else None
            for shard, position in marks.items()
        }

    async def close(self) -> None:
        """Hand the shards back and end. See sources.Source."""
        try:
            await super().close()
        finally:
            if self._backlog is not None:
                self._backlog.released(self)
            self._epochs = {}


class _RangeReader(_Reader):
    """Reads a part, and moves nothing."""

    def __init__(self, stream: _Stream, range_: StreamRange) -> None:
        super().__init__(stream)
        self._range = range_

    async def open(self, events: ShardEvents) -> None:
        """Find where the part begins and ends. See sources.EventSource.reader."""
        stream, wanted = self._stream, self._range
        low, high = -1, stream.streams.journal.end - 1
        if wanted.since is not None:
            low = await stream.streams.position_before(stream.source, wanted.since)
        if wanted.until is not None:
            high = min(high, await stream.streams.position_before(stream.source, wanted.until))
        marks: dict[Shard, Mark] = {}
        for shard in stream.shards:
            if wanted.shards and shard not in wanted.shards:
                continue
            begin = max(low, wanted.first.get(shard, 0) - 1)
            self._ends[shard] = max(begin, min(high, wanted.last.get(shard, high)))
            marks[shard] = Mark(position=begin)
            if begin < self._ends[shard]:
                self._cursors[shard] = begin
            else:
                self._ended.append(shard)
        self._turns = dict.fromkeys(marks, 0)
        self._events = events
        await events.assigned(marks)

    @property
    def ends(self) -> Mapping[Shard, Position]:
        """Return the last position of each shard's part. See sources.RangeReader."""
        return dict(self._ends)

    @property
    def gone(self) -> int:
        """Return 0: the journal's positions are those of all sources."""
        return 0

    @property
    def follows(self) -> Mapping[Shard, AbstractSet[Shard]]:
        """Return none: shards are for ever."""
        return {}

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Do nothing: live marks are untouched."""


class JournalEventSource:
    """`sources.EventSource` over records of the journal.

    Args:
        mapping: its name keeps the marks, its starting position is where it begins without any.
        source: as in the records.
        shards: names of the shards, in order of their number.
        sharding: which shard a record belongs to.
        codec: how records become columns.
        shape: how they become events.
        streams: the journal's streams.
        clock: bounds the waits of reads.
        is_archive: the records are copies that a mapping made, which no other reads.
    """

    is_remote = False
    is_countable = True

    def __init__(
        self,
        mapping: EventSourceMapping,
        *,
        source: str,
        shards: Sequence[Shard],
        sharding: Sharding,
        codec: Codec,
        shape: EventShape,
        streams: JournalStreams,
        clock: Clock,
        is_archive: bool = False,
    ) -> None:
        self.shape = shape
        self._mapping = mapping
        self._stream = _Stream(
            mapping=mapping.name, source=source, shards=tuple(shards), sharding=sharding, codec=codec,
            streams=streams, clock=clock, is_archive=is_archive,
        )  # fmt: skip

    async def prepare(self) -> Backlog:
        """Register the mapping with the journal's streams: from then on what it has not finished is kept.

        Called at start for every mapping, also one that is paused, before intake and retention begin. Twice is fine.

        Raises:
            StoreError: the marks could not be read or stored.
        """
        return await self._stream.streams.register(
            self._mapping.name,
            self._stream.source,
            shards=self._stream.shards,
            sharding=self._stream.sharding,
            start=self._mapping.starting_position,
            timestamp=self._mapping.starting_position_timestamp,
        )

    def consumer(self) -> Source:
        """Return a new live reader. See sources.EventSource."""
        return _Consumer(self._stream, self)

    def reader(self, range_: StreamRange) -> RangeReader:
        """Return a reader of a part. See sources.EventSource."""
        return _RangeReader(self._stream, range_)

    async def reset(self, start: StartingPosition, *, timestamp: float | None = None) -> Mapping[Shard, Mark]:
        """Move the stored marks. See sources.EventSource."""
        streams = self._stream.streams
        try:
            backlog = await self.prepare()
            if backlog.owner is not None:
                raise SourceError(f"mapping {self._mapping.name} is being read; pause it first")
            position = await streams.position(self._stream.source, start, timestamp)
            return await streams.move(backlog, position)
        except StoreError as error:
            raise SourceError(f"the marks of mapping {self._mapping.name} were not moved: {error}") from error

    async def others(self) -> Sequence[str]:
        """Return nobody: these marks are this daemon's own."""
        return []

    async def standing(self) -> Standing:
        """Return how the stored marks stand. See sources.EventSource."""
        try:
            return (await self.prepare()).standing()
        except StoreError as error:
            raise SourceError(f"the marks of mapping {self._mapping.name} are not known: {error}") from error
