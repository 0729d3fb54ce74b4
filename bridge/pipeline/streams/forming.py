"""Forms batches: when a lane's records are due, which go together, and what may not be sent (semantics 3.3, 3.11)."""

import math
from collections.abc import Iterable

from bridge.core.invocation import Condition
from bridge.core.stream import Chunk
from bridge.pipeline.streams.batch import Batch, Part
from bridge.pipeline.streams.block import BlockPolicy, Discard
from bridge.pipeline.streams.lane import Lane, ShardWork
from bridge.pipeline.streams.settings import PAYLOAD_MAX_BYTES, Work


class Forming:
    """The batching rules of one mapping. Times are monotonic unless they are called `wall`."""

    def __init__(self, work: Work) -> None:
        mapping = work.mapping
        self._clock = work.clock
        self._shape = work.shape
        self._batch_size = mapping.batch_size
        self._window_s = 0.0 if work.is_bounded else mapping.maximum_batching_window_s
        self._bytes_max = PAYLOAD_MAX_BYTES - work.shape.overhead_bytes
        self._policy = BlockPolicy(mapping, work.shape, work.rng)

    @property
    def policy(self) -> BlockPolicy:
        """The rules for what is too old."""
        return self._policy

    # --- when ---------------------------------------------------------------------------------

    def arrived(self, shard: ShardWork) -> None:
        """Note when the first record of each lane came."""
        now = self._clock.monotonic()
        for lane in shard.lanes:
            if lane.queue and lane.first_at is None:
                lane.first_at = now
            self._due_again(lane, now)

    def restored(self, shard: ShardWork) -> None:
        """A shard was assigned: its lanes begin their windows now."""
        now = self._clock.monotonic()
        for lane in shard.lanes:
            lane.window_from = now

    def _due_again(self, lane: Lane, now: float) -> None:
        """Batches of a former run wait as long as they were to, counted anew: a clock's jump cannot stretch it."""
        for batch in lane.pending:
            tries = batch.tries
            if not batch.is_due_known:
                batch.is_due_known = True
                batch.due = now + min(max(tries.due_at - self._clock.time(), 0.0), tries.delay_s)

    def due(self, lane: Lane, *, now: float) -> float | None:
        """Return when the lane's next batch may start; None when it has none."""
        if lane.pending:
            return lane.pending[0].due
        window = lane.shard.window
        if window is not None and window.is_open and self._closes(lane):
            return now
        if not lane.queue:
            return None
        if lane.records >= self._batch_size or lane.size_bytes >= self._bytes_max or lane.shard.has_ended:
            return now
        return self._window_end(lane, now)

    def _window_end(self, lane: Lane, now: float) -> float:
        """Windows follow each other without a gap from the last batch on; the one with the first record counts."""
        if not self._window_s:
            return now
        since = (lane.first_at if lane.first_at is not None else now) - lane.window_from
        return lane.window_from + max(1, math.ceil(since / self._window_s - 1e-9)) * self._window_s

    def _closes(self, lane: Lane) -> bool:
        """Whether the open tumbling window of the lane's shard is to be ended by the next call."""
        window = lane.shard.window
        assert window is not None
        if window.needs_early_end:
            return True
        if lane.queue:
            piece = lane.queue[0]
            return window.is_later(self._time(piece.track.chunk, piece.indexes[0]))
        return window.has_passed(self._clock.time()) or lane.shard.has_ended

    def _time(self, chunk: Chunk, index: int) -> float:
        time_ms = chunk.times_ms[index]
        return time_ms / 1000 if time_ms >= 0 else self._clock.time()

    # --- which --------------------------------------------------------------------------------

    def form(self, lane: Lane, others: Iterable[Lane], *, now: float) -> Batch | None:
        """Take the next batch off a lane that is due; where shards mix, filled up with what other lanes have."""
        if lane.pending:
            return self._next_pending(lane)
        if lane.shard.window is not None:
            return self._form_windowed(lane, now)
        batch = Batch(parts=[])
        count, size = self._take(batch, lane, records_max=self._batch_size, bytes_max=self._bytes_max, now=now)
        if self._shape.mixes_shards:
            for other in others:
                if count >= self._batch_size:
                    break
                if other is lane or other.busy is not None or other.pending or not other.queue:
                    continue
                left = self._bytes_max - size - self._shape.shard_overhead_bytes
                first = other.queue[0]
                if left < len(first.track.chunk.fragments[first.indexes[0]]) + 1:
                    break
                more, more_bytes = self._take(
                    batch, other, records_max=self._batch_size - count, bytes_max=left, now=now
                )
                count += more
                size += more_bytes + self._shape.shard_overhead_bytes
        return batch if batch.parts else None

    def _take(self, batch: Batch, lane: Lane, *, records_max: int, bytes_max: int, now: float) -> tuple[int, int]:
        before = lane.size_bytes
        pieces = lane.take(records_max=records_max, bytes_max=bytes_max)
        if not pieces:
            return 0, 0
        lane.first_at = now if lane.queue else None
        batch.parts.append(Part(lane=lane, pieces=pieces))
        return sum(map(len, pieces)), before - lane.size_bytes

    def _next_pending(self, lane: Lane) -> Batch:
        """Take the batch that is to be tried again; of one that the window's state leaves no room for, the front."""
        batch = lane.pending.popleft()
        room = self._room(lane)
        if len(batch) < 2 or sum(piece.size() for piece in batch.pieces) <= room:
            return batch
        fits = size = 0
        for chunk, index in batch.records():
            size += len(chunk.fragments[index]) + 1
            if size > room:
                break
            fits += 1
        batch, rest = batch.split(max(1, fits))
        lane.pending.appendleft(rest)
        return batch

    def _room(self, lane: Lane) -> int:
        """Return how many bytes of records an event of that lane may hold."""
        window = lane.shard.window
        return self._bytes_max if window is None else max(1, self._bytes_max - len(window.state))

    def _form_windowed(self, lane: Lane, now: float) -> Batch | None:
        window = lane.shard.window
        assert window is not None
        if window.is_open and self._closes(lane):
            return Batch(parts=[Part(lane=lane, pieces=[])], is_final=True, is_early=window.needs_early_end)
        if not lane.queue:
            return None
        first = lane.queue[0]
        window.open_for(self._time(first.track.chunk, first.indexes[0]))
        pieces = lane.take(
            records_max=self._batch_size,
            bytes_max=self._room(lane),
            until=lambda chunk, index: window.is_later(self._time(chunk, index)),
        )
        lane.first_at = now if lane.queue else None
        return Batch(parts=[Part(lane=lane, pieces=pieces)])

    # --- what may not -------------------------------------------------------------------------

    def sort_out(self, batch: Batch, *, now: float) -> tuple[list[Discard], Batch | None]:
        """Return what of a batch is given up before it is sent, and the rest (`now`: wall clock)."""
        discards, rest = self._policy.expire(batch, now=now)
        if rest is not None and len(rest) == 1:
            (part,) = rest.parts
            if part.pieces[0].size() > self._room(part.lane):
                discards.append(Discard(batch=rest, condition=Condition.RECORD_TOO_LARGE))
                rest = None
        return discards, rest

    def expired(self, lane: Lane, *, now: float) -> Batch | None:
        """Take the lane's next batch if its first record is too old, whether or not it is due (`now`: wall clock).

        Something of it is given up, so it needs no slot: not so the call that ends a window, which goes before.
        """
        if lane.pending:
            batch = lane.pending[0]
            left_s = self._policy.expires_in_s(batch, now=now)
            return lane.pending.popleft() if left_s is not None and left_s <= 0 else None
        window = lane.shard.window
        if not lane.queue or (window is not None and window.is_open and self._closes(lane)):
            return None
        first = lane.queue[0]
        probe = Batch(parts=[Part(lane=lane, pieces=[first.cut(0, 1)])])
        left_s = self._policy.expires_in_s(probe, now=now)
        if left_s is None or left_s > 0:
            return None
        return self.form(lane, (), now=self._clock.monotonic())
