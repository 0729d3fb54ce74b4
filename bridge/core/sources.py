"""The seams of pull sources: what the delivery engine asks of a stream. A docstring is the contract its suite tests."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from bridge.core.mapping import EventSourceMapping, MappingState, StartingPosition
from bridge.core.queues import QueueSource, QueueStatus
from bridge.core.record import Record
from bridge.core.stream import Chunk, Mark, Poll, Position, PutRecord, RecordFormat, Shard, StreamRange

ARCHIVE_PREFIX: Final = "mapping:"
"""Before a mapping's name: the source of the records that it copied to the journal (`archive = true`)."""


class ShardEvents(Protocol):
    """Told by a source which shards it has. Awaited inside a rebalance: at most REVOKE_MAX_S each."""

    async def assigned(self, marks: Mapping[Shard, Mark]) -> None:
        """These shards are ours from now on; each is read behind its mark, which carries the epoch for commits.

        Called before the first record of a shard is handed out. A shard may come back that was revoked before.
        """
        ...

    async def revoking(self, shards: AbstractSet[Shard], *, deadline_s: float) -> None:
        """These shards go: finish or hand back, and commit what is done, within `deadline_s` seconds.

        `Source.commit` may be awaited inside it. After it returns nothing of them is committed any more.
        """
        ...

    def lost(self, shards: AbstractSet[Shard]) -> None:
        """These shards are gone already: results for them release nothing. Unknown ones are ignored."""
        ...


class Source(Protocol):
    """An ordered stream with shards: hands out records, is told how far it may forget.

    It never filters, batches, retries or drops. One task reads; `commit` may be called from another.
    """

    @property
    def trouble(self) -> str:
        """What keeps it from reading although it goes on trying, in one line; empty when nothing does. No I/O."""
        ...

    async def open(self, events: ShardEvents) -> None:
        """Connect and begin. Shards are told through `events`, here or later.

        Raises:
            SourceError: it cannot be had (the engine tries again with back-off); the text says what to do.
        """
        ...

    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]) -> Poll:
        """Return the next records: at once when there are some, else after at most `wait_s` seconds, perhaps none.

        At most `records_max` of them, of about `bytes_max` bytes (one record may be larger).
        Records of a shard come in rising order, each once, unless the shard is assigned anew. Of `paused` shards
        none are returned and none are skipped, yet they are polled as far as liveness needs it. Cancel-safe: a
        cancelled read loses nothing. `Poll.chunks` holds whole chunks of shards that are assigned now.

        Raises:
            SourceError: the engine closes the source and opens a new one with back-off.
        """
        ...

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Store how far each shard is finished, with its note and state; durable when it returns.

        Marks of an old epoch, or of shards that are not ours, are ignored. Twice is fine. A position may repeat
        with another note; it never moves back (an earlier one than stored is ignored).

        `Mark.has_ended` comes for a shard that `Poll.ended` named, once everything of it is finished: its records,
        and its tumbling window. A stream whose shards split and merge stores that, then says that the shard is
        `lost`, and only then are the shards that follow it `assigned`: so no record is begun before those of its key
        that came before it. A daemon that dies between finds the stored mark and goes on there. Other streams have
        no use for it.

        Raises:
            SourceError: not stored; it is called again with the same or later marks.
        """
        ...

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Return how many records lie behind each position, None where it is not known; cheap, no I/O."""
        ...

    def behind_s(self) -> Mapping[Shard, float]:
        """Return how many seconds reading is behind the end of shards, where the service says that; cheap, no I/O."""
        ...

    async def close(self) -> None:
        """Leave and release everything; shards are revoked first, in time. Twice is fine."""
        ...


class RangeReader(Source, Protocol):
    """A source that ends: a part of a stream, read for a replay. What it says of itself counts once it is open."""

    @property
    def ends(self) -> Mapping[Shard, Position]:
        """Last position of each shard's part, inclusive, as seen when opened; before its first where it is empty.

        A later reader with these as `StreamRange.last` ends at the same place, whatever was added since.
        """
        ...

    @property
    def gone(self) -> int:
        """How many positions retention took from the part: behind its given first ones, or while it was read.

        0 where that is not known: of what lies before the first record at or after a time.
        """
        ...

    @property
    def follows(self) -> Mapping[Shard, AbstractSet[Shard]]:
        """Shards of the part that come from others of it (resharding), with those: not to be read before they end.

        Nor before what was read of those is finished; the reader cannot know of that, so whoever invokes pauses them.
        Empty where shards are for ever.
        """
        ...


class PartialAnswer(StrEnum):
    """What a partial answer (ReportBatchItemFailures) does, by source (semantics 3.7)."""

    FROM_LOWEST = "from lowest"
    """The lowest named record and everything after it is retried (Kinesis, DynamoDB, push sources as streams)."""
    LISTED = "listed"
    """Just the named records are retried (Kafka)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPart:
    """What a tumbling window adds to an event (semantics 3.11)."""

    start: float
    """Epoch seconds."""
    end: float
    state: bytes
    """JSON object as the function returned it; `{}` at the window's beginning."""
    is_final: bool
    is_terminated_early: bool


class EventShape(Protocol):
    """How a stream's records become the event of an invocation: pure, made per mapping."""

    format: RecordFormat
    mixes_shards: bool
    """Whether one event may hold records of several shards (Kafka)."""
    partial_answer: PartialAnswer
    overhead_bytes: int
    """What an event weighs beside its fragments (at most), separators between records not counted (1 byte each)."""
    shard_overhead_bytes: int
    """What each further shard adds (at most)."""

    def event(self, parts: Sequence[tuple[Shard, Sequence[bytes]]], window: WindowPart | None = None) -> bytes:
        """Return the event: parts hold the fragments of each shard, each shard once."""
        ...

    def identifier(self, chunk: Chunk, index: int) -> object:
        """Return what names a record in a partial answer: hashable (text, or shard and position)."""
        ...

    def read_identifier(self, item: object) -> object | None:
        """Return the same of a parsed `itemIdentifier`; None when it cannot be one."""
        ...

    def batch_info(
        self, shard: Shard, positions: Sequence[Position], times_ms: Sequence[int], *, payload_bytes: int
    ) -> Mapping[str, Any]:
        """Return what names the failed records in an on-failure record (semantics 3.10): `{"KafkaBatchInfo": {…}}`."""
        ...


class EventSource(Protocol):
    """One stream as a mapping names it: makes its readers. Holds no connection itself."""

    shape: EventShape
    is_remote: bool
    """Whether reading it touches anything beyond this daemon (the lock against accidents asks)."""
    is_countable: bool
    """Whether at most so many records lie between two positions as numbers do; not so between sequence numbers."""

    def consumer(self) -> Source:
        """Return a new live reader: it takes shards and commits marks. One at a time."""
        ...

    def reader(self, range_: StreamRange) -> RangeReader:
        """Return a reader of a part of the stream, up to its end as seen when opened.

        Live marks and groups are untouched; `commit` does nothing; each shard is in `Poll.ended` when its part is
        read. The marks it assigns stand before the first record of the part.
        """
        ...

    async def reset(self, start: StartingPosition, *, timestamp: float | None = None) -> Mapping[Shard, Mark]:
        """Move the stored marks of all shards while no consumer of ours is open; returns them.

        Raises:
            SourceError: not done, e.g. while others consume with the same group; the text says what to do.
        """
        ...

    async def others(self) -> Sequence[str]:
        """Return who else would notice: live members of our consumer group, the owner of a stream on AWS.

        As text for a person; empty when nobody does or nobody can. Raises SourceError when it cannot be asked.
        """
        ...

    async def standing(self) -> "Standing":
        """Return the stored marks and what lies behind them, for a mapping that does not read: nothing is joined.

        A shard without a stored mark stands where reading would begin, or is left out. May take seconds; cancel-safe.
        Raises SourceError when it cannot be told.
        """
        ...


class QueueOrigin(Protocol):
    """One queue as a mapping names it: makes its readers. Holds no connection itself."""

    shape: EventShape
    is_remote: bool
    """Whether reading it takes messages from more than this machine (the lock against accidents asks)."""
    has_archive: bool
    """Whether messages can be read again from elsewhere once they are deleted: copying them would double them."""

    def consumer(self) -> QueueSource:
        """Return a new reader. One at a time."""
        ...


class SourceMaker(Protocol):
    """Finds the stream that a mapping names."""

    def event_source(self, mapping: EventSourceMapping) -> EventSource:
        """Return it; raises ConfigError when there is none."""
        ...


class StreamMarks(Protocol):
    """Where marks of streams are kept that cannot keep them themselves (journal and local streams).

    Every call is durable when it returns; a raise (StoreError) means that nothing changed.
    """

    async def load(self, mapping: str) -> Mapping[Shard, Mark]:
        """Return the stored mark of every shard of a mapping (by name)."""
        ...

    async def layout(self, mapping: str) -> str:
        """Return what `replace` was told of how its records are spread over shards; empty when nothing is stored."""
        ...

    async def commit(self, mapping: str, marks: Mapping[Shard, Mark]) -> None:
        """Store, in one transaction: never backwards, and only where the stored epoch is not newer.

        A shard that has no stored mark (never claimed, or forgotten since) is ignored. Twice is fine; a position
        may repeat with another note and state. A shard that has ended once has ended, whatever comes later.
        """
        ...

    async def claim(self, mapping: str, shards: AbstractSet[Shard]) -> Mapping[Shard, Mark]:
        """Raise the epoch of these shards by one and return their marks with it; without a mark: BEFORE_ALL.

        Commits of older owners are ignored from now on.
        """
        ...

    async def discard(self, mapping: str, shards: AbstractSet[Shard]) -> None:
        """Remove the marks of these shards: the stream does not have them any more. Unknown ones are fine."""
        ...

    async def replace(self, mapping: str, marks: Mapping[Shard, Mark], *, layout: str = "") -> None:
        """Make these positions all that is stored of the mapping, backwards too; notes and states are gone (reset).

        Which of the shards have ended is kept. Epochs are above all that were stored: commits of older owners are
        ignored from now on. `layout` is kept beside them.
        """
        ...

    async def forget(self, mapping: str) -> None:
        """Remove a mapping's marks; twice is fine."""
        ...


class MappingStates(Protocol):
    """Which mappings somebody has paused, over restarts. Durable when a call returns."""

    async def paused(self) -> frozenset[str]:
        """Return the names of those that are paused, whether or not such mappings still exist."""
        ...

    async def pause(self, name: str) -> None:
        """Keep it paused; twice is fine."""
        ...

    async def resume(self, name: str) -> None:
        """Let it run; one that is not paused is fine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReader:
    """A mapping that reads a stored record, and whether it is done with it."""

    mapping: str
    shard: Shard
    is_finished: bool
    """Handled, filtered out, or a dead letter of the mapping's."""


class StreamBacklogs(Protocol):
    """What the mappings of push sources and local streams have not finished: what intake and retention ask."""

    def reserve(self, source: str, size: int) -> None:
        """Make room for a record of `size` payload bytes before it is stored; cheap, no I/O.

        A source that no mapping reads always has room. Each reservation ends once the record is appended (the
        backlogs hear from the journal whether it is stored) or, where it never is, by `unreserve`.

        Raises:
            LaneFull: its slowest mapping has not finished as much as a lane may hold.
        """
        ...

    def unreserve(self, source: str, size: int) -> None:
        """Give back what `reserve` took: the record was not appended."""
        ...

    def readers(self, record: Record) -> Sequence[RecordReader]:
        """Return the mappings that read a stored record, by name; those that began behind it are done with it."""
        ...

    async def unfinished(self, low: int, high: int) -> Sequence[int]:
        """Return the journal positions in [low, high) that some mapping has not finished, in order."""
        ...


class LocalStreams(Protocol):
    """Writes into the embedded streams that mappings read as `local://NAME`."""

    async def put(self, stream: str, records: Sequence[PutRecord]) -> Sequence[Position]:
        """Store records in this order and return their positions; durable when it returns.

        Raises:
            StreamNotFound: no mapping reads such a stream; nothing was stored.
            LaneFull: its slowest mapping is too far behind; nothing was stored.
            StoreFull, StoreError: as Journal.append; the first of them may be stored.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One shard of a mapping, as `bridge mappings show` prints it."""

    shard: Shard
    position: Position
    """The mark: everything up to here is finished."""
    behind: int | None
    """Records behind the mark, None where it is not known."""
    behind_s: float | None = None
    """Seconds that reading is behind the shard's end; None where the service does not say."""
    buffered: int = 0
    """Read and not yet finished."""
    oldest_at: float | None = None
    """Arrival of the oldest unfinished record that was read, epoch seconds."""
    running: int = 0
    attempts: int = 0
    """Of the batch that is blocked; 0 when none is."""
    due_at: float | None = None
    """When it is tried again, epoch seconds."""
    reason: str = ""
    """Why it waits, in one line; empty when it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a mapping is that does not read."""

    shards: tuple[ShardStatus, ...] = ()
    """By name; empty where nothing is known."""
    behind: int | None = None
    """Records behind all the marks, where that is known though not by shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingStatus:
    """A mapping as `bridge` shows it."""

    mapping: EventSourceMapping
    state: MappingState
    reason: str
    """StateTransitionReason: why it is in that state, or what keeps it from reading."""
    result: str
    """LastProcessingResult (semantics 3.2)."""
    modified_at: float
    running: int = 0
    """Invocations that run now."""
    shards: tuple[ShardStatus, ...] = ()
    """Empty for queues, and while it does not read and nobody has looked (`Mappings.look`)."""
    behind: int | None = None
    """Records behind its marks, where that is known though not by shard."""
    queue: QueueStatus | None = None
    """Of a queue, while it is read."""


class Mappings(Protocol):
    """What the api may ask of the event source mappings."""

    def status(self) -> Sequence[MappingStatus]:
        """Return every mapping, by name."""
        ...

    async def look(self) -> None:
        """Have `status` tell of paused mappings too where they stand, as of some seconds ago; waits about 1 s at most.

        What takes longer to find out is told after a later look; what cannot be found out, not.
        """
        ...

    async def pause(self, name: str) -> MappingStatus:
        """Disable it: what runs is finished, marks are kept; it stays so over restarts. Twice is fine.

        Raises:
            MappingNotFound: there is none of that name.
        """
        ...

    async def resume(self, name: str) -> MappingStatus:
        """Enable it: it goes on from its marks, whatever its starting position. Raises MappingNotFound."""
        ...

    async def reset(
        self, name: str, start: StartingPosition, *, timestamp: float | None = None
    ) -> Mapping[Shard, Mark]:
        """Move its marks, stopping it for that time; returns them.

        Raises:
            MappingNotFound: there is none of that name.
            SourceError: the marks were not moved.
        """
        ...
