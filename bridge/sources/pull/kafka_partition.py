"""One partition that is being read: aiokafka's records into columns, and what was fetched beyond what was asked for."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from aiokafka import TopicPartition

from bridge.core.stream import Chunk, Poll, Position, Shard
from bridge.events.kafka import CREATE_TIME, record_fragments, record_prefix, shard_name


class Partition:
    """What is known of a partition while it is ours."""

    def __init__(self, partition: TopicPartition, *, next_offset: int, epoch: int) -> None:
        """Read from `next_offset` on; `epoch` is that of the assignment."""
        self.partition = partition
        self.shard: Shard = shard_name(partition.topic, partition.partition)
        self.epoch = epoch
        self.stored = next_offset - 1
        """The mark that is committed, and its note."""
        self.note = b""
        self.through: Position = next_offset - 1
        """Handed out up to here."""
        self.backlog: Sequence[Any] = ()
        """Fetched and not handed out, in order."""
        self.is_ready = False
        """Its records may be handed out: whoever reads was told of it, and it is not being revoked."""
        self.end: int | None = None
        """The end of the log when it was last asked for."""
        self.fetched_at_ms: int | None = None
        self.quiet_since = 0.0
        """Monotonic; no fetch of it was answered since."""
        self._prefix = record_prefix(partition.topic, partition.partition)

    def take(self, *, records_max: int, bytes_max: int) -> Chunk | None:
        """Hand out the backlog's beginning: one record at least, else about `bytes_max` bytes of keys and values."""
        backlog = self.backlog
        if not backlog or records_max < 1:
            return None
        count = min(len(backlog), records_max)
        records = backlog if count == len(backlog) else backlog[:count]
        keys = [record.key for record in records]
        values = [record.value for record in records]
        if sum(map(len, filter(None, values))) + sum(map(len, filter(None, keys))) > bytes_max:
            count = _fitting(keys, values, bytes_max)
            records, keys, values = records[:count], keys[:count], values[:count]
        self.backlog = () if count == len(backlog) else backlog[count:]
        offsets = [record.offset for record in records]
        times_ms = [record.timestamp for record in records]
        types = [record.timestamp_type for record in records]
        if None in times_ms or None in types:  # records of Kafka before 0.10 have neither
            times_ms = [-1 if time_ms is None else time_ms for time_ms in times_ms]
            types = [time_type or CREATE_TIME for time_type in types]
        headers = [record.headers for record in records]
        self.through = max(self.through, offsets[-1])
        return Chunk(
            shard=self.shard,
            positions=offsets,
            times_ms=times_ms,
            keys=keys,
            values=values,
            fragments=record_fragments(self._prefix, zip(offsets, times_ms, types, keys, values, headers, strict=True)),
            through=self.through,
        )


def _fitting(keys: Sequence[bytes | None], values: Sequence[bytes | None], bytes_max: int) -> int:
    """Return how many of the first records fit: one at least."""
    sizes = accumulate(len(key or b"") + len(value or b"") for key, value in zip(keys, values, strict=True))
    return max(1, sum(1 for size in sizes if size <= bytes_max))


def take_from(partitions: Iterable[Partition], *, records_max: int, bytes_max: int) -> list[Chunk]:
    """Hand out of several partitions in their order, within both limits together; one record at least."""
    chunks: list[Chunk] = []
    for partition in partitions:
        if records_max < 1 or (chunks and bytes_max < 1):
            break
        chunk = partition.take(records_max=records_max, bytes_max=bytes_max)
        if chunk is not None:
            chunks.append(chunk)
            records_max -= len(chunk)
            bytes_max -= sum(map(len, filter(None, chunk.values))) + sum(map(len, filter(None, chunk.keys)))
    return chunks


def passed_over(partitions: Iterable[Partition], next_offsets: Iterable[int | None], chunks: list[Chunk]) -> Poll:
    """Return the poll of these chunks, with how far the partitions are known to hold nothing else.

    Args:
        partitions: those that were asked.
        next_offsets: what aiokafka fetches next of each.
        chunks: what was handed out of them.
    """
    by_shard = {chunk.shard: chunk for chunk in chunks}
    through: dict[Shard, Position] = {}
    for partition, next_offset in zip(partitions, next_offsets, strict=True):
        if partition.backlog or next_offset is None or next_offset - 1 <= partition.through:
            continue
        partition.through = next_offset - 1
        if partition.shard in by_shard:
            by_shard[partition.shard].through = partition.through
        else:
            through[partition.shard] = partition.through
    return Poll(chunks=chunks, through=through)
