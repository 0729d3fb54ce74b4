"""How far a mapping reads ahead of its function: which shards are left out of a read, and how long a read may wait."""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Final

from bridge.core import limits
from bridge.core.stream import Shard
from bridge.pipeline.streams.lane import ShardWork
from bridge.pipeline.streams.settings import Work

AHEAD_RECORDS: Final = 4_000
"""Of a shard, waiting for their batch: above it nothing more is read. What is used soon is still in the caches: with
20,000 records between reading and use, a record of 200 B took a quarter more time in all."""
AHEAD_BATCHES: Final = 2
"""…and so many batches of each lane, if that is more."""
WAIT_S: Final = 1.0
WAIT_PAUSED_MIN_S: Final = 0.01
WAIT_PAUSED_MAX_S: Final = 0.1
"""A read while shards are left out: how soon they are looked at again, doubling while the same ones are."""


class Buffering:
    """The limits of one mapping's buffers."""

    def __init__(self, work: Work) -> None:
        mapping = work.mapping
        self._records_max = max(work.buffer_records_max, 2 * mapping.batch_size)
        self._bytes_max = work.buffer_bytes_max
        lanes = mapping.parallelization_factor
        self._lane_records = max(AHEAD_BATCHES * mapping.batch_size, AHEAD_RECORDS // lanes)
        self._idle_s = WAIT_PAUSED_MAX_S if work.is_bounded else WAIT_S
        self._paused: AbstractSet[Shard] = frozenset()
        self._paused_s = WAIT_PAUSED_MIN_S

    def full(self, shards: Collection[ShardWork]) -> set[Shard]:
        """Return the shards that hold all they may: records read and not finished, or their part of the bytes."""
        share = max(limits.MIB, limits.STREAM_BUFFERS_MAX_BYTES // max(1, len(shards)))
        bytes_max = min(self._bytes_max, share)
        return {
            shard.name
            for shard in shards
            if shard.track.open_records >= self._records_max or shard.track.open_bytes >= bytes_max
        }

    def supplied(self, shards: Collection[ShardWork]) -> set[Shard]:
        """Return the shards of which every lane has enough for its next batches."""
        enough = self._lane_records
        return {shard.name for shard in shards if all(lane.records >= enough for lane in shard.lanes)}

    def wait_s(self, paused: AbstractSet[Shard]) -> float:
        """Return how long the next read may wait for records while these shards are left out of it."""
        if not paused:
            self._paused = paused
            return self._idle_s
        self._paused_s = min(WAIT_PAUSED_MAX_S, 2 * self._paused_s) if paused == self._paused else WAIT_PAUSED_MIN_S
        self._paused = paused
        return self._paused_s
