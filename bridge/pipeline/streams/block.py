"""The Block policy: what follows a try of a batch (semantics 3.6 and 3.7). Pure: no clock, no I/O."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bridge.core import limits
from bridge.core.invocation import Condition, InvocationResult
from bridge.core.mapping import EventSourceMapping
from bridge.core.sources import EventShape, PartialAnswer
from bridge.core.stream import Chunk
from bridge.pipeline.streams.answers import Answer
from bridge.pipeline.streams.batch import Batch, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """Records that are given up: they go to the failure destination, then they are finished."""

    batch: Batch
    condition: Condition


@dataclass(slots=True, kw_only=True)
class Step:
    """What is to be done after a try, in this order."""

    finished: list[Part] = field(default_factory=list)
    discards: list[Discard] = field(default_factory=list)
    is_ok: bool = False
    """Whether the invocation went well for every record."""
    follow: list[Batch] = field(default_factory=list)
    """What stands at the front of the lanes now, first first; `tries.delay_s` says how long it waits."""


class BlockPolicy:
    """The rules of one mapping."""

    def __init__(self, mapping: EventSourceMapping, shape: EventShape, rng: random.Random) -> None:
        self._retries_max = mapping.maximum_retry_attempts
        self._age_max_s = mapping.maximum_record_age_s
        self._bisects = mapping.bisect_batch_on_function_error
        self._shape = shape
        self._rng = rng

    # --- age ----------------------------------------------------------------------------------

    def expire(self, batch: Batch, *, now: float) -> tuple[list[Discard], Batch | None]:
        """Take out what is too old: one discard per contiguous part of a lane, and the rest (None: nothing left)."""
        if self._age_max_s < 0 or not self._has_expired(batch, now=now):
            return [], batch

        def is_expired(chunk: Chunk, index: int) -> bool:
            time_ms = chunk.times_ms[index]
            return time_ms >= 0 and self._left_s(time_ms, now=now) <= 0

        discards: list[Discard] = []
        left: list[Part] = []
        for part in batch.parts:
            fresh: list[Part] = []
            for expired, run in _runs(part, is_expired):
                if expired:
                    tries = batch.tries.copy()
                    discards.append(
                        Discard(batch=Batch(parts=[run], tries=tries), condition=Condition.RECORD_AGE_EXCEEDED)
                    )
                else:
                    fresh.append(run)
            if fresh:
                left.append(Part(lane=part.lane, pieces=[piece for run in fresh for piece in run.pieces]))
        rest = Batch(parts=left, tries=batch.tries, due=batch.due) if left else None
        return discards, rest

    def expires_in_s(self, batch: Batch, *, now: float) -> float | None:
        """Return how long until its oldest record is too old; None when none ever is."""
        if self._age_max_s < 0:
            return None
        oldest_ms = min(
            (chunk.times_ms[index] for chunk, index in batch.records() if chunk.times_ms[index] >= 0), default=None
        )
        return None if oldest_ms is None else max(0.0, self._left_s(oldest_ms, now=now))

    def _left_s(self, time_ms: int, *, now: float) -> float:
        return time_ms / 1000 + self._age_max_s - now

    def _has_expired(self, batch: Batch, *, now: float) -> bool:
        left_s = self.expires_in_s(batch, now=now)
        return left_s is not None and left_s <= 0

    # --- after a try --------------------------------------------------------------------------

    def after_answer(self, batch: Batch, answer: Answer, result: InvocationResult, *, now: float) -> Step:
        """Return what follows an invocation that ended without an error."""
        if answer.mistake:
            return self.after_failure(batch, result, now=now)
        if not answer.failed:
            return Step(finished=batch.parts)
        failed = answer.failed
        batch.tries.last = result
        if self._shape.partial_answer is PartialAnswer.LISTED:
            left, done = batch.only(lambda chunk, index: self._shape.identifier(chunk, index) in failed)
        else:
            lowest = next(
                place
                for place, (chunk, index) in enumerate(batch.records())
                if self._shape.identifier(chunk, index) in failed
            )
            done, left = batch.split(lowest)
        # With bisect it is a split at the returned position, which uses no retry: but only where it gets on.
        if self._bisects and len(done):
            left.tries.setbacks = 0
            return Step(finished=_filled(done.parts), follow=_follow(left, self._delayed(left, now=now)))
        step = self._counted(left, now=now)
        step.finished = _filled(done.parts)
        return step

    def after_failure(self, batch: Batch, result: InvocationResult, *, now: float) -> Step:
        """Return what follows a function error, or an answer that counts as one."""
        tries = batch.tries
        tries.last = result
        tries.failed_at = tries.failed_at or now
        if len(batch.parts) > 1:
            return Step(follow=batch.by_lane())
        if self._bisects and len(batch) > 1:
            halves = batch.split((len(batch) + 1) // 2)
            for half in halves:
                half.tries.setbacks = 0
            return Step(follow=list(halves))
        return self._counted(batch, now=now)

    def after_setback(self, batch: Batch, result: InvocationResult, *, now: float) -> Step:
        """Return what follows a throttle, a service error or an unknown outcome: a wait that uses no retry."""
        tries = batch.tries
        tries.last = result
        tries.failed_at = tries.failed_at or now
        tries.setbacks += 1
        return Step(follow=_follow(batch, self._delayed(batch, now=now)))

    def _counted(self, batch: Batch, *, now: float) -> Step:
        tries = batch.tries
        tries.attempts += 1
        tries.setbacks += 1
        if 0 <= self._retries_max < tries.attempts:
            # Each lane's records make a failure of their own, as a shard's do.
            return Step(
                discards=[Discard(batch=one, condition=Condition.RETRY_ATTEMPTS_EXHAUSTED) for one in batch.by_lane()]
            )
        return Step(follow=_follow(batch, self._delayed(batch, now=now)))

    def _delayed(self, batch: Batch, *, now: float) -> float:
        """Return the back-off with full jitter, never slept past the age limit."""
        setbacks = batch.tries.setbacks
        if not setbacks:
            return 0.0
        ceiling = min(limits.STREAM_BACKOFF_MAX_S, limits.STREAM_BACKOFF_MIN_S * 2 ** min(setbacks - 1, 16))
        delay_s = self._rng.uniform(0, ceiling)
        left_s = self.expires_in_s(batch, now=now)
        return delay_s if left_s is None else min(delay_s, left_s)


def _follow(batch: Batch, delay_s: float) -> list[Batch]:
    batch.tries.delay_s = delay_s
    return batch.by_lane() if len(batch.parts) > 1 else [batch]


def _filled(parts: list[Part]) -> list[Part]:
    return [part for part in parts if len(part)]


def _runs(part: Part, is_expired: Callable[[Chunk, int], bool]) -> Iterator[tuple[bool, Part]]:
    """Yield the part cut where the age limit cuts it, in order."""
    flags = [is_expired(piece.track.chunk, index) for piece in part.pieces for index in piece.indexes]
    start = 0
    while start < len(flags):
        stop = start
        while stop < len(flags) and flags[stop] is flags[start]:
            stop += 1
        batch = Batch(parts=[part])
        _, tail = batch.split(start) if start else (None, batch)
        run, _ = tail.split(stop - start)
        yield flags[start], run.parts[0]
        start = stop
