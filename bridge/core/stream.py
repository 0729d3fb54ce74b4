"""Streams as values: shards, positions, marks, and the chunks of records that a source hands out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from bridge.core.record import DamagedRecord

Shard: TypeAlias = str
"""Name of an ordered part of a stream: `orders-0` (Kafka partition, as in events), `shardId-000000000000`."""
Position: TypeAlias = int
"""Where a record is in its shard, rising: Kafka offset, journal position, sequence number (may exceed 64 bits)."""

BEFORE_ALL: Final[Position] = -1
"""The mark of a shard of which nothing is finished, where positions start at 0."""


class RecordFormat(StrEnum):
    """How the data of a record is read by filters (semantics 3.9)."""

    KAFKA = "kafka"
    KINESIS = "kinesis"
    DYNAMODB = "dynamodb"
    SQS = "sqs"
    BRIDGE = "bridge"
    """Ours: the event of a push source read as a stream; its `body` is read as that of SQS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a shard is finished: what is committed, and what reading goes on from."""

    position: Position
    """Last position whose whole prefix is finished; reading goes on behind it."""
    epoch: int = 0
    """The assignment it belongs to: a commit with an old epoch is ignored."""
    note: bytes = b""
    """Small JSON that travels with the position (core/limits.MARK_NOTE_MAX_BYTES): attempts and due times of what
    is blocked, ranges that are finished above the gap."""
    state: bytes = b""
    """Tumbling window and its state (at most WINDOW_STATE_MAX_BYTES), stored in one transaction with the position;
    only streams that can do that keep it."""
    has_ended: bool = False
    """The shard is closed and every record of it is finished (SHARD_END): once stored it stays so until a reset."""


@dataclass(slots=True, kw_only=True, eq=False)
class Chunk:
    """Records of one shard as columns of one length, in rising order of position; never changed once handed out.

    A chunk holds raw bytes and finished JSON, no object per record: that object alone would cost more than the
    rest of the path.
    """

    shard: Shard
    positions: Sequence[Position]
    times_ms: Sequence[int]
    """Arrival, epoch milliseconds; -1 where the source does not know it."""
    keys: Sequence[bytes | None]
    """What order is kept by where one shard is split in lanes; also what filters see as the key."""
    values: Sequence[bytes | None]
    """The data as the sender sent it; what filters look into."""
    fragments: Sequence[bytes]
    """Each record's JSON as the handler gets it, ready to be joined into an event."""
    through: Position
    """The source has seen everything of the shard up to here; at least the last position. Positions that hold no
    record (compacted, transaction markers, of other shards) are passed over with it."""
    damaged: Sequence[DamagedRecord] = ()
    """Records that are stored and cannot be read any more, up to `through`, in no column: each becomes a dead letter
    before the mark passes it. A chunk may hold nothing else."""

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(slots=True, kw_only=True, eq=False)
class Poll:
    """What one read brought."""

    chunks: Sequence[Chunk] = ()
    through: Mapping[Shard, Position] = field(default_factory=dict)
    """Shards that brought no record, but of which positions up to there are known to hold none."""
    ended: Sequence[Shard] = ()
    """Shards that are closed (resharding) or read up to the end of their range (replay): nothing follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRange:
    """The part of a stream that a replay reads; every given bound must hold.

    Its end is where the stream ended when the range was opened, or the given one, whichever comes first.
    """

    since: float | None = None
    """Epoch seconds, inclusive: the first record at or after."""
    until: float | None = None
    """Epoch seconds, exclusive."""
    first: Mapping[Shard, Position] = field(default_factory=dict)
    """Inclusive first position by shard."""
    last: Mapping[Shard, Position] = field(default_factory=dict)
    """Inclusive last position by shard."""
    shards: frozenset[Shard] = frozenset()
    """Empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRecord:
    """One record for an embedded stream."""

    value: bytes | None
    """None: a tombstone."""
    key: bytes | None = None
    """Records of one key share a shard; None: each its own."""
    headers: tuple[tuple[str, bytes | None], ...] = ()
    """In order, duplicates allowed."""
    timestamp_ms: int | None = None
    """Epoch milliseconds; None: now."""


def shard_index(shard: Shard) -> int:
    """Return the number at the end of a shard's name, 0 when there is none: `orders-3` gives 3."""
    digits = shard[len(shard.rstrip("0123456789")) :]
    return int(digits) if digits else 0
