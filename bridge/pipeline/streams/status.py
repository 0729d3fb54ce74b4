"""Says how a shard of a mapping is, as `bridge mappings show` prints it."""

from bridge.core.sources import ShardStatus
from bridge.pipeline.streams.batch import Tries
from bridge.pipeline.streams.lane import ShardWork


def shard_status(shard: ShardWork, *, behind: int | None, behind_s: float | None, wants_slot: bool) -> ShardStatus:
    """Return one shard as it is worked on now; `wants_slot`: whether the mapping waits for nothing but a slot."""
    tries, waits = max(
        (
            (batch.tries, lane.busy is None)
            for lane in shard.lanes
            for batch in ([lane.busy] if lane.busy else [*lane.pending][:1])
        ),
        key=lambda each: each[0].invocations,
        default=(Tries(), False),
    )
    oldest_ms = shard.track.oldest_ms()
    running = sum(lane.busy is not None for lane in shard.lanes)
    reason = tries.unsettled or (tries.reason if tries.setbacks else "")
    if not reason and not running and wants_slot and any(lane.has_work for lane in shard.lanes):
        reason = "waits for a free slot of the function"
    return ShardStatus(
        shard=shard.name,
        position=shard.track.mark,
        behind=behind,
        behind_s=behind_s,
        buffered=shard.track.open_records,
        oldest_at=None if oldest_ms is None else oldest_ms / 1000,
        running=running,
        attempts=tries.attempts,
        due_at=tries.due_at or None if waits and tries.setbacks else None,
        reason=reason,
    )
