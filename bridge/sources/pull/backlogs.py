"""What mappings have not finished of the journal's streams: counted for intake and status, found for retention."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import structlog

from bridge.core import limits
from bridge.core.errors import LaneFull
from bridge.core.invocation import InvocationType
from bridge.core.mapping import StartingPosition
from bridge.core.ports import Journal, Selection
from bridge.core.record import DamagedRecord, Record
from bridge.core.sources import RecordReader, ShardStatus, Standing, StreamMarks
from bridge.core.stream import BEFORE_ALL, Mark, Position, Shard
from bridge.sources.pull.sharding import Sharding

log = structlog.get_logger("bridge.streams")

_PAGE_RECORDS: Final = 1024
_PAGE_MAX_BYTES: Final = 4 * limits.MIB
_ROWS_AT_ONCE: Final = 65_536


class Backlog:
    """What one mapping has not finished of its stream. Changed on the loop only.

    Exact in sum, from the marks and the journal at `open`, from commits since. By shard it is known of what was
    read and not finished, and of what was stored since `open`.
    """

    def __init__(
        self, mapping: str, source: str, *, shards: Sequence[Shard], sharding: Sharding, journal: Journal
    ) -> None:
        self.mapping = mapping
        self.source = source
        self.shards = tuple(shards)
        self.sharding = sharding
        self.marks: dict[Shard, Position] = {}
        """As stored."""
        self.waiting = 0
        self.waiting_bytes = 0
        self.owner: object | None = None
        """The reader whose commits count."""
        self.counted_from = -1
        """Records above it were told by the journal, and placed; those up to it were counted in sum."""
        self.is_open = False
        self._journal = journal
        self._handed: dict[Shard, deque[tuple[Position, int]]] = {shard: deque() for shard in shards}
        """Position and bytes of what the owner has read and not finished: as bounded as the engine's buffers."""
        self._ahead: dict[Shard, int] = dict.fromkeys(shards, 0)
        """Stored above `counted_from` and not read."""
        self._held_in: dict[Position, int] = {}
        """Shards of unfinished records that retention asked for."""

    @property
    def layout(self) -> str:
        """What its marks mean."""
        return f"{self.source} {self.sharding.layout}"

    async def recount(self, marks: Mapping[Shard, Position]) -> None:
        """Count what lies above these marks: the shards of what lies between them are looked at, the rest by index."""
        self.marks = dict(marks)
        self.counted_from = self._journal.end - 1
        self.waiting = self.waiting_bytes = 0
        self._ahead = dict.fromkeys(self.shards, 0)
        for handed in self._handed.values():
            handed.clear()
        self.is_open = True
        count, size = await asyncio.to_thread(self._count, dict(marks), self.counted_from)
        self.waiting += count
        self.waiting_bytes += size

    def _count(self, marks: Mapping[Shard, Position], end: Position) -> tuple[int, int]:
        count = size = 0
        highest = min(max(marks.values()), end)
        after = min(marks.values())
        while after < highest:
            page = self._journal.source_page(self.source, after=after, limit=_PAGE_RECORDS, bytes_max=_PAGE_MAX_BYTES)
            for position, record_id, key, payload in zip(
                page.positions, page.ids, page.keys, page.payloads, strict=True
            ):
                if marks[self._shard_of(record_id, payload, key)] < position <= highest:
                    count += 1
                    size += len(payload)
            for record in page.damaged:
                if record.position <= highest and self._is_open(record, marks):
                    count += 1
                    size += len(record.payload)
            if page.through <= after:
                break
            after = page.through
        for _, payload_bytes in self._rows(highest, end + 1):
            count += 1
            size += payload_bytes
        return count, size

    def _rows(self, after: Position, high: Position) -> Iterable[tuple[Position, int]]:
        while rows := self._journal.source_positions(self.source, after=after, limit=_ROWS_AT_ONCE):
            for row in rows:
                if row[0] >= high:
                    return
                yield row
            after = rows[-1][0]

    def _is_open(self, record: DamagedRecord, marks: Mapping[Shard, Position]) -> bool:
        """Whether a damaged record is still to become a dead letter."""
        number, is_sure = self.sharding.place_damaged(record.id, record.payload)
        return record.position > (marks[self.shards[number]] if is_sure else min(marks.values()))

    def _shard_of(self, record_id: str, payload: bytes, key: bytes) -> Shard:
        return self.shards[self.sharding.place(record_id, payload, key)[0]]

    def stored(self, record: Record) -> None:
        """The journal has a new record of the source."""
        if self.is_open and record.position > self.counted_from:
            self._ahead[self._shard_of(record.id, record.payload, record.key)] += 1
            self.waiting += 1
            self.waiting_bytes += len(record.payload)

    def handed(self, owner: object, shard: Shard, records: Iterable[tuple[Position, int]]) -> None:
        """The reader gave these (position, bytes) out."""
        if owner is self.owner:
            for position, size in records:
                self._handed[shard].append((position, size))
                self._ahead[shard] -= position > self.counted_from

    def finished(self, owner: object, marks: Mapping[Shard, Position]) -> None:
        """These marks are stored."""
        if owner is not self.owner:
            return
        for shard, position in marks.items():
            self.marks[shard] = max(self.marks[shard], position)
            handed = self._handed[shard]
            while handed and handed[0][0] <= position:
                # Never below nothing: a damaged record may be handed to two shards.
                self.waiting = max(0, self.waiting - 1)
                self.waiting_bytes = max(0, self.waiting_bytes - handed.popleft()[1])

    def released(self, owner: object) -> None:
        """The reader is gone: what it read and did not finish will be read again."""
        if owner is self.owner:
            self.owner = None
            for shard, handed in self._handed.items():
                self._ahead[shard] += sum(position > self.counted_from for position, _ in handed)
                handed.clear()

    def reader(self, record: Record) -> RecordReader:
        """Return whether the mapping is done with a record of its source."""
        is_damaged = isinstance(record, DamagedRecord)
        number, _ = (
            self.sharding.place_damaged(record.id, record.payload)
            if is_damaged
            else self.sharding.place(record.id, record.payload, record.key)
        )
        shard = self.shards[number]
        return RecordReader(
            mapping=self.mapping, shard=shard, is_finished=self.is_open and record.position <= self.marks[shard]
        )

    def behind(self, shard: Shard, position: Position, *, read_to: Position) -> int | None:
        """Return how many records of a shard lie above `position`, of which was read up to `read_to`."""
        if read_to < self.counted_from:
            return None
        handed = self._handed[shard]
        passed = 0
        for at, _ in handed:
            if at > position:
                break
            passed += 1
        return max(0, len(handed) - passed + self._ahead[shard])

    def standing(self) -> Standing:
        """Return the stored marks and what lies behind them, while nobody reads.

        What was there at `open` was counted in sum; by shard it is known once all of that is finished.
        """
        is_placed = sum(self._ahead.values()) == self.waiting
        sole = self.waiting if len(self.shards) == 1 else None
        ahead = self._ahead if is_placed else dict.fromkeys(self.shards, sole)
        shards = [ShardStatus(shard=name, position=self.marks[name], behind=ahead[name]) for name in sorted(self.marks)]
        return Standing(shards=tuple(shards), behind=self.waiting)

    def unfinished(self, low: int, high: int, marks: Mapping[Shard, Position]) -> list[int]:
        """Return its unfinished positions in [low, high). Blocks; one call at a time."""
        lowest, highest = min(marks.values()), max(marks.values())
        found, places = list[int](), dict[Position, int]()
        for position, _ in self._rows(max(low - 1, lowest), high):
            if position <= highest:
                place = self._held_in.get(position)
                if place is None:
                    record = self._journal.read(position)
                    if record is None or record.source not in {self.source, ""}:
                        continue  # nothing to hand out, or another source of the same hash
                    if isinstance(record, DamagedRecord):
                        # Retention cannot put it aside and waits until it is a dead letter.
                        if self._is_open(record, marks):
                            found.append(position)
                        continue
                    place = self.sharding.place(record.id, record.payload, record.key)[0]
                if position <= marks[self.shards[place]]:
                    continue
                places[position] = place
            found.append(position)
        kept = {position: place for position, place in self._held_in.items() if not low <= position < high}
        self._held_in = kept | places
        return found


class JournalStreams:
    """`sources.StreamBacklogs`: the streams of the journal that mappings read, and who waits for their records.

    Register every mapping, also one that is paused, before intake and retention begin: what is not registered has
    no limit and is not kept. Used on the loop.

    Args:
        journal: where the records are.
        marks: where mappings keep how far they are.
        events_max: what the slowest mapping of a source may not have finished.
        bytes_max: likewise, payload bytes.
    """

    def __init__(
        self,
        journal: Journal,
        marks: StreamMarks,
        *,
        events_max: int = limits.LANE_EVENTS_MAX,
        bytes_max: int = limits.LANE_MAX_BYTES,
    ) -> None:
        self.journal = journal
        self.marks = marks
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._backlogs: dict[str, Backlog] = {}
        self._by_source: dict[str, list[Backlog]] = {}
        self._reserved: dict[str, list[int]] = {}
        """Events and bytes by source."""
        self._newest: dict[str, Position] = {}
        self._opened_at = journal.end - 1
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._opening = asyncio.Lock()
        journal.on_commit(self._committed)
        journal.on_refuse(self._refused)

    # --- mappings -----------------------------------------------------------------------------

    async def register(
        self,
        mapping: str,
        source: str,
        *,
        shards: Sequence[Shard],
        sharding: Sharding,
        start: StartingPosition,
        timestamp: float | None = None,
    ) -> Backlog:
        """Return what a mapping has not finished, counted. Again with the same stream: what is there already.

        A mapping without marks begins at its starting position, which is stored at once: what comes from now on is
        its own, whether or not it is ever read before the next start. Where the layout changed, every shard begins
        at the lowest mark there was: nothing is lost, what other shards had finished above it comes again.

        Raises:
            StoreError: the marks could not be read or stored.
        """
        async with self._opening:
            known = self._backlogs.get(mapping)
            wanted = Backlog(mapping, source, shards=shards, sharding=sharding, journal=self.journal)
            if known is not None and known.layout == wanted.layout and known.shards == wanted.shards:
                return known
            stored = await self.marks.load(mapping)
            layout = await self.marks.layout(mapping)
            self._add(wanted)  # first: what is stored while it counts is told to it
            try:
                if set(stored) == set(shards) and layout == wanted.layout:
                    await wanted.recount({shard: mark.position for shard, mark in stored.items()})
                elif stored and layout.partition(" ")[0] == source:
                    low = min(mark.position for mark in stored.values())
                    log.info("stream_resharded", mapping=mapping, source=source, position=low, layout=wanted.layout)
                    await self._place(wanted, low)
                else:
                    await self._place(wanted, await self.position(source, start, timestamp))
            except BaseException:
                self.remove(mapping)
                raise
            return wanted

    def _add(self, backlog: Backlog) -> None:
        self.remove(backlog.mapping)
        self._backlogs[backlog.mapping] = backlog
        self._by_source[backlog.source] = [*self._by_source.get(backlog.source, ()), backlog]

    async def _place(self, backlog: Backlog, position: Position) -> None:
        marks = {shard: Mark(position=position) for shard in backlog.shards}
        await self.marks.replace(backlog.mapping, marks, layout=backlog.layout)
        await backlog.recount(dict.fromkeys(backlog.shards, position))

    async def move(self, backlog: Backlog, position: Position) -> Mapping[Shard, Mark]:
        """Move all marks of a mapping that nobody reads; returns them."""
        async with self._opening:
            await self._place(backlog, position)
            return await self.marks.load(backlog.mapping)

    def remove(self, mapping: str) -> None:
        """Keep and count nothing for a mapping any more; its marks stay stored. Unknown ones are fine."""
        gone = self._backlogs.pop(mapping, None)
        if gone is not None:
            left = [backlog for backlog in self._by_source[gone.source] if backlog is not gone]
            self._by_source[gone.source] = left
            if not left:
                del self._by_source[gone.source]
                self._reserved.pop(gone.source, None)

    def is_read(self, source: str) -> bool:
        """Tell whether a mapping reads a source."""
        return source in self._by_source

    def waiting(self, mapping: str) -> int:
        """Return how many records a mapping has not finished, 0 for an unknown one."""
        backlog = self._backlogs.get(mapping)
        return 0 if backlog is None else backlog.waiting

    # --- positions ----------------------------------------------------------------------------

    async def position(self, source: str, start: StartingPosition, timestamp: float | None = None) -> Position:
        """Return the mark that a starting position in a source stands for."""
        if start is StartingPosition.TRIM_HORIZON:
            return BEFORE_ALL
        if start is StartingPosition.LATEST:
            return self.journal.end - 1
        assert timestamp is not None, "AT_TIMESTAMP without a timestamp"
        return await self.position_before(source, timestamp)

    async def position_before(self, source: str, at: float) -> Position:
        """Return a position behind which a source's records of that time and later lie, and no older ones."""
        first = await asyncio.to_thread(self._first_held, source, at)
        if first is not None:
            return first - 1
        async with aclosing(_generator(self.journal.scan(Selection(since=at), chunk=1))) as chunks:
            async for chunk in chunks:
                return chunk[0].position - 1
        return self.journal.end - 1

    def _first_held(self, source: str, at: float) -> Position | None:
        after, start = BEFORE_ALL, self.journal.start
        while rows := self.journal.source_positions(source, after=after, limit=_PAGE_RECORDS):
            for position, _ in rows:
                if position >= start:
                    return None
                record = self.journal.read(position)
                if record is not None and record.received_at >= at:
                    return position
            after = rows[-1][0]
        return None

    # --- readers ------------------------------------------------------------------------------

    def newest(self, source: str) -> Position:
        """Return the position up to which records of a source may lie: looking further is of no use."""
        return self._newest.get(source, self._opened_at)

    def listen(self, source: str, wake: asyncio.Event) -> None:
        """Set `wake` whenever a record of the source is stored, until `unlisten`."""
        self._listeners.setdefault(source, set()).add(wake)

    def unlisten(self, source: str, wake: asyncio.Event) -> None:
        """Undo `listen`; twice is fine."""
        self._listeners.get(source, set()).discard(wake)

    def _committed(self, records: Sequence[Record]) -> None:
        """A commit group is durable (`Journal.on_commit`)."""
        sources = set[str]()
        for record in records:
            if record.invocation_type is not InvocationType.EVENT:
                continue
            source = record.source
            sources.add(source)
            self._newest[source] = record.position
            for backlog in self._by_source.get(source, ()):
                backlog.stored(record)
            if source in self._reserved:
                self.unreserve(source, len(record.payload))
        for source in sources:
            for wake in self._listeners.get(source, ()):
                wake.set()

    def _refused(self, records: Sequence[Record]) -> None:
        """These are not stored (`Journal.on_refuse`)."""
        for record in records:
            if record.invocation_type is InvocationType.EVENT:
                self.unreserve(record.source, len(record.payload))

    # --- what intake and retention ask ------------------------------------------------------------

    def reserve(self, source: str, size: int) -> None:
        """Make room for a record. See sources.StreamBacklogs."""
        backlogs = self._by_source.get(source)
        if backlogs is None:
            return
        reserved = self._reserved.setdefault(source, [0, 0])
        for backlog in backlogs:
            events, size_total = backlog.waiting + reserved[0], backlog.waiting_bytes + reserved[1]
            if events >= self._events_max or size_total + size > self._bytes_max:
                raise LaneFull(
                    f"mapping {backlog.mapping} has {events} events ({size_total} bytes) of {source} unfinished, "
                    "which is its limit; try again later"
                )
        reserved[0] += 1
        reserved[1] += size

    def unreserve(self, source: str, size: int) -> None:
        """Give back what `reserve` took. See sources.StreamBacklogs."""
        reserved = self._reserved.get(source)
        if reserved is not None:
            # Never below nothing: a mapping may have come between a record's reservation and its commit.
            reserved[0], reserved[1] = max(0, reserved[0] - 1), max(0, reserved[1] - size)

    def readers(self, record: Record) -> Sequence[RecordReader]:
        """Return the mappings that read a record. See sources.StreamBacklogs."""
        backlogs = self._by_source.get(record.source, ()) if record.invocation_type is InvocationType.EVENT else ()
        return [backlog.reader(record) for backlog in sorted(backlogs, key=lambda each: each.mapping)]

    async def unfinished(self, low: int, high: int) -> Sequence[int]:
        """Return what some mapping has not finished. See sources.StreamBacklogs."""
        found = set[int]()
        for backlog in list(self._backlogs.values()):
            # One that is being opened: all of it.
            marks = dict(backlog.marks) or dict.fromkeys(backlog.shards, BEFORE_ALL)
            found.update(await asyncio.to_thread(backlog.unfinished, low, high, marks))
        return sorted(found)


async def _generator(chunks: AsyncIterator[Sequence[Record]]) -> AsyncGenerator[Sequence[Record], None]:
    """A scan as a generator: one that can be closed before its end."""
    async for chunk in chunks:
        yield chunk
