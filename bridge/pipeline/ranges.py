"""Parts of a mapping's stream that are read again: where one begins and ends, what is chosen of it, counted, listed."""

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import orjson

from bridge.core import limits
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock
from bridge.core.sources import EventShape, EventSource, RangeReader
from bridge.core.stream import Chunk, Mark, Poll, Position, Shard, StreamRange
from bridge.pipeline.criteria import PatternInvalid, compile_criteria
from bridge.pipeline.jobs import SpecInvalid
from bridge.pipeline.selecting import ReplaySpec
from bridge.pipeline.streams.lane import Keeps
from bridge.pipeline.workers import filters

COUNT_S: Final = 10.0
"""A part is counted for so long; of what is left then, the positions are counted: more than there are records."""
_READ_RECORDS_MAX: Final = 10_000
_READ_MAX_BYTES: Final = 8 * limits.MIB
_READ_S: Final = 0.1


class KnownMappings(Protocol):
    """Where mappings and their streams are found (pipeline/mappings.py)."""

    def get(self, name: str) -> EventSourceMapping:
        """Return one; raises MappingNotFound."""
        ...

    def source(self, name: str) -> EventSource:
        """Return its stream, whether it runs or not; raises MappingNotFound or ConfigError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeCursor:
    """A replay's place in its part of a stream. Stored as JSON: a resumed replay reads the same part."""

    ends: Mapping[Shard, Position]
    """Last position of each shard, inclusive, as seen at the start."""
    marks: Mapping[Shard, Mark]
    """How far each is finished, with its note."""
    gone: int = 0
    """Positions that retention took."""
    is_exact: bool = False
    """Whether all of it was counted."""
    is_journal: bool = False
    """Whether positions are those of the journal, which is kept for as long as the replay needs it."""
    is_countable: bool = True
    """Whether at most so many records lie between two positions as numbers do."""

    def __str__(self) -> str:
        # Positions as text: they may exceed 64 bits.
        return orjson.dumps({
            "ends": {shard: str(end) for shard, end in self.ends.items()},
            "marks": {shard: [str(mark.position), mark.note.decode()] for shard, mark in self.marks.items()},
            "gone": self.gone,
            "exact": self.is_exact,
            "journal": self.is_journal,
            "countable": self.is_countable,
        }).decode()  # fmt: skip

    @classmethod
    def parse(cls, text: str) -> "RangeCursor":
        """Return what `str` made."""
        stored = orjson.loads(text)
        return cls(
            ends={shard: int(end) for shard, end in stored["ends"].items()},
            marks={
                shard: Mark(position=int(position), note=note.encode())
                for shard, (position, note) in stored["marks"].items()
            },
            gone=stored["gone"],
            is_exact=stored["exact"],
            is_journal=stored["journal"],
            is_countable=stored.get("countable", True),
        )

    def moved(self, marks: Mapping[Shard, Mark]) -> "RangeCursor":
        """Return it with these marks, which never move back."""
        ahead = {
            shard: Mark(position=mark.position, note=mark.note)
            for shard, mark in marks.items()
            if shard in self.marks and mark.position >= self.marks[shard].position
        }
        return replace(self, marks={**self.marks, **ahead})

    @property
    def kept_from(self) -> Position | None:
        """First position of the journal that is still needed; None: it keeps nothing for this replay."""
        if not self.is_journal or not self.marks:
            return None
        return min(mark.position for mark in self.marks.values()) + 1

    def left(self) -> StreamRange:
        """Return what is not finished; times are the spec's to add."""
        return StreamRange(
            first={shard: mark.position + 1 for shard, mark in self.marks.items()},
            last=self.ends,
            shards=frozenset(self.ends),
        )

    def positions_left(self, reached: Mapping[Shard, Position]) -> int:
        """Return how many positions lie between `reached` and the ends: at most so many records do.

        0 where numbers say nothing about that: there may be any number.
        """
        if not self.is_countable:
            return 0
        spans = [(place, self.ends[shard]) for shard, place in reached.items() if place < self.ends[shard]]
        if not spans:
            return 0
        if self.is_journal:  # the shards share them
            return max(end for _, end in spans) - min(place for place, _ in spans)
        return sum(end - place for place, end in spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeCount:
    """What a part holds that a replay would invoke."""

    by_shard: Mapping[Shard, int] = field(default_factory=dict)
    bytes: int = 0
    left: int = 0
    """Positions that were not looked at, for it would have taken too long: at most so many records more."""
    gone: int = 0
    """Positions that retention took."""
    is_whole: bool = True
    """Whether all was looked at."""

    @property
    def records(self) -> int:
        """Records at most; exactly where nothing is `left`."""
        return sum(self.by_shard.values()) + self.left


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRecord:
    """A record as it is listed."""

    shard: Shard
    position: Position
    time_ms: int
    """Epoch milliseconds; -1 where it is not known."""
    fragment: bytes
    """Its JSON as the handler gets it."""


class Range:
    """What a spec says about one mapping's stream, ready to be read.

    Raises:
        MappingNotFound, ConfigError: the mapping or its stream cannot be had.
        SpecInvalid: the pattern asks for what its records do not have.
    """

    def __init__(self, spec: ReplaySpec, mappings: KnownMappings, clock: Clock) -> None:
        assert spec.mapping is not None
        self.spec = spec
        self.mapping = mappings.get(spec.mapping)
        self.source = mappings.source(spec.mapping)
        self.keeps = _chosen(spec, self.mapping, self.source.shape)
        self._clock = clock

    @property
    def target(self) -> str:
        """The function that gets it."""
        return self.spec.to or self.mapping.function

    async def begin(self) -> RangeCursor:
        """Return where it begins and ends now.

        Raises:
            SourceError: the stream cannot be reached.
            SpecInvalid: it names a shard that there is not.
        """
        spec = self.spec
        wanted = StreamRange(
            since=spec.since,
            until=spec.until,
            first=spec.first,
            last=spec.last,
            shards=frozenset(spec.shards) or frozenset(spec.first) | frozenset(spec.last),
        )
        async with self._opened(wanted) as (reader, marks):
            unknown = sorted(wanted.shards - set(marks))
            if unknown:
                name = self.mapping.name
                raise SpecInvalid(f"shards: {name} has no {', '.join(unknown)}; see: bridge mappings show {name}")
            return RangeCursor(
                ends=dict(reader.ends),
                marks=marks,
                gone=reader.gone,
                is_journal=not self.source.is_remote,
                is_countable=self.source.is_countable,
            )

    def reader(self, cursor: RangeCursor) -> RangeReader:
        """Return a reader of what is left behind a cursor."""
        return self.source.reader(replace(cursor.left(), since=self.spec.since, until=self.spec.until))

    async def count(self, cursor: RangeCursor, *, is_stopping: Callable[[], bool] = lambda: False) -> RangeCount:
        """Count what is left behind a cursor, for COUNT_S at most. Raises SourceError."""
        by_shard: Counter[Shard] = Counter()
        size = 0
        reached = {shard: mark.position for shard, mark in cursor.marks.items()}
        until = self._clock.monotonic() + COUNT_S
        async with contextlib.aclosing(self._polls(cursor)) as polls:
            async for poll, gone in polls:
                for chunk in poll.chunks:
                    kept = self._kept(chunk)
                    by_shard[chunk.shard] += len(kept) + len(chunk.damaged)
                    size += sum(len(chunk.fragments[index]) for index in kept)
                    reached[chunk.shard] = chunk.through
                reached.update(poll.through)
                reached.update({shard: cursor.ends[shard] for shard in poll.ended})
                cursor = replace(cursor, gone=cursor.gone + gone)
                if self._clock.monotonic() >= until or is_stopping():
                    break
        return RangeCount(
            by_shard=by_shard,
            bytes=size,
            left=cursor.positions_left(reached),
            gone=cursor.gone,
            is_whole=all(reached[shard] >= end for shard, end in cursor.ends.items()),
        )

    async def records(self, cursor: RangeCursor) -> AsyncIterator[RangeRecord]:
        """Yield what is chosen behind a cursor, in order within each shard. Raises SourceError."""
        left = self.spec.limit
        async with contextlib.aclosing(self._polls(cursor)) as polls:
            async for poll, _ in polls:
                for chunk in poll.chunks:
                    for index in self._kept(chunk):
                        yield RangeRecord(
                            shard=chunk.shard,
                            position=chunk.positions[index],
                            time_ms=chunk.times_ms[index],
                            fragment=chunk.fragments[index],
                        )
                        left = None if left is None else left - 1
                        if left == 0:
                            return

    def _kept(self, chunk: Chunk) -> Sequence[int]:
        return range(len(chunk)) if self.keeps is None else self.keeps(chunk)

    async def _polls(self, cursor: RangeCursor) -> AsyncGenerator[tuple[Poll, int], None]:
        """Yield what each read brings, and how many positions were found gone since, until all shards have ended."""
        gone = 0
        async with self._opened(self.reader(cursor)) as (reader, marks):
            open_shards = set(marks)
            while open_shards:
                poll = await reader.read(
                    records_max=_READ_RECORDS_MAX, bytes_max=_READ_MAX_BYTES, wait_s=_READ_S, paused=frozenset()
                )
                open_shards.difference_update(poll.ended)
                found, gone = reader.gone - gone, reader.gone
                yield poll, found

    @contextlib.asynccontextmanager
    async def _opened(self, part: StreamRange | RangeReader) -> AsyncIterator[tuple[RangeReader, dict[Shard, Mark]]]:
        """Open a reader that nobody follows; yields it and where each of its shards begins."""
        reader = self.source.reader(part) if isinstance(part, StreamRange) else part
        told = _Told()
        try:
            await reader.open(told)
            yield reader, told.marks
        finally:
            await reader.close()


class _Told:
    """`sources.ShardEvents` that remembers where shards begin."""

    def __init__(self) -> None:
        self.marks: dict[Shard, Mark] = {}

    async def assigned(self, marks: Mapping[Shard, Mark]) -> None:
        """Remember them."""
        self.marks.update(marks)

    async def revoking(self, shards: AbstractSet[Shard], *, deadline_s: float) -> None:
        """Nothing runs."""

    def lost(self, shards: AbstractSet[Shard]) -> None:
        """Nothing runs."""


def _chosen(spec: ReplaySpec, mapping: EventSourceMapping, shape: EventShape) -> Keeps | None:
    """Return what lets pass what the mapping's filters, the key and the pattern all do; None: everything."""
    tests: list[Callable[[Chunk], Sequence[int]]] = []
    if (live := filters(mapping, shape)) is not None:
        tests.append(live)
    if spec.pattern is not None:
        try:
            tests.append(compile_criteria((spec.pattern,), format=shape.format).kept)
        except PatternInvalid as error:
            raise SpecInvalid(f"pattern: {error}") from error
    if spec.key is not None:
        key = spec.key.encode()
        tests.append(lambda chunk: [index for index, own in enumerate(chunk.keys) if own == key])
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]

    def keeps(chunk: Chunk) -> Sequence[int]:
        kept: set[Any] = set.intersection(*(set(test(chunk)) for test in tests))
        return sorted(kept)

    return keeps
