"""One running replay of a mapping's stream: the delivery engine on a reader of its own, whose marks are the job's."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Final, Protocol

import orjson

from bridge.core.errors import SourceError, StoreError
from bridge.core.ports import Clock, Destination
from bridge.core.sources import RangeReader, ShardEvents
from bridge.core.stream import Chunk, Mark, Poll, Position, Shard
from bridge.pipeline.jobs import Run
from bridge.pipeline.ranges import Range, RangeCursor
from bridge.pipeline.replaying import MARK, queue_of
from bridge.pipeline.streams.lane import Keeps
from bridge.pipeline.streams.settings import Slots, Work
from bridge.pipeline.streams.worker import MappingWorker
from bridge.util import telemetry

_BURST_S: Final = 0.1
"""With a rate: records of so long are handed out at once."""
_DRAIN_S: Final = 60.0
_WINDOW_MAX_S: Final = 0.5
"""Batches are full in a replay but where a rate or the end says else: a long batching window would only delay it."""


_ANY: Final = 1_000_000
"""Without a rate: as many as the engine asks for."""


class BackgroundSlots(Slots, Protocol):
    """Where invocations run, and how many may behind live traffic (invokers/service.py)."""

    def room_behind(self, target: Any) -> int:
        """How many replayed batches could start now."""
        ...

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back when a slot may have become free."""
        ...


class SlotsBehind:
    """`Slots` of a replay: what live traffic leaves."""

    def __init__(self, slots: BackgroundSlots) -> None:
        self.resolve = slots.resolve
        self.room = slots.room_behind
        self.hindrance = slots.hindrance
        self.begin = slots.begin
        self.run = slots.run


class Rereading:
    """One replay from its cursor to its end, or until it is asked to stop.

    Args:
        range_: what is read.
        run: the job.
        save: stores the job's progress; durable when it returns. Raises StoreError.
        slots: where invocations run, behind live traffic.
        spill: the local dead letters.
        clock: time.
        rng: jitter of retries.
    """

    def __init__(
        self,
        *,
        range_: Range,
        run: Run,
        save: Callable[[Run], Awaitable[None]],
        slots: Slots,
        spill: Destination,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._range = range_
        self._run = run
        self._save = save
        self._slots = slots
        self._spill = spill
        self._clock = clock
        self._rng = rng
        self._cursor = RangeCursor.parse(run.job.cursor)
        self._pace = Pace(range_.spec.rate, clock)
        self._worker: MappingWorker | None = None

    @property
    def cursor(self) -> RangeCursor:
        """Where it is."""
        return self._cursor

    @property
    def trouble(self) -> str:
        """What keeps it from reading, in one line; empty when nothing does."""
        return "" if self._worker is None else self._worker.in_trouble

    def kick(self) -> None:
        """A slot may have become free."""
        if self._worker is not None:
            self._worker.kick()

    async def work(self) -> None:
        """Return when all is finished, or nothing runs any more after a stop; raises what made it impossible."""
        if not self._cursor.ends:
            return
        worker = self._worker = MappingWorker(self._work())
        reading = asyncio.create_task(worker.run())
        stopping = asyncio.create_task(self._run.stopping.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
            else:
                while not await worker.drain(deadline_s=_DRAIN_S):
                    pass  # an invocation may take a quarter of an hour
        finally:
            self._worker = None
            await worker.stop()
            for task in (reading, stopping):
                task.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    def _work(self) -> Work:
        spec, mapping = self._range.spec, self._range.mapping
        return Work(
            # Live settings, but what would give up old records, copy them again, or mix them with a live window.
            mapping=replace(
                mapping,
                function=self._range.target,
                maximum_batching_window_s=min(mapping.maximum_batching_window_s, _WINDOW_MAX_S),
                maximum_record_age_s=-1,
                maximum_retry_attempts=spec.retry_attempts,
                maximum_concurrency=spec.concurrency,
                tumbling_window_s=0,
                archive=False,
            ),
            shape=self._range.source.shape,
            make_source=lambda: _RangeSource(self),
            slots=self._slots,
            destination=self._spill,
            spill=self._spill,
            clock=self._clock,
            keeps=self._paced(self._range.keeps),
            client_context=orjson.dumps({"custom": {MARK: spec.name}}),
            queue=queue_of(spec.name),
            is_bounded=True,
            rng=self._rng,
            on_delivered=self._delivered,
        )

    def _paced(self, keeps: Keeps | None) -> Keeps | None:
        """Return the filters that tell the pace what they let pass; None: nothing is filtered, nothing is told."""
        if not self._range.spec.rate:
            return keeps

        def told(chunk: Chunk) -> Sequence[int]:
            kept = range(len(chunk)) if keeps is None else keeps(chunk)
            self._pace.took(len(kept))
            return kept

        return told

    # --- what the reader asks -----------------------------------------------------------------

    def reader(self) -> RangeReader:
        """Return a new reader of what is left."""
        return self._range.reader(self._cursor)

    @property
    def pace(self) -> "Pace":
        """When more may be read."""
        return self._pace

    def begun(self, marks: Mapping[Shard, Mark]) -> Mapping[Shard, Mark]:
        """Return where to go on: the reader's places with the notes of the job's marks."""
        stored = self._cursor.marks
        return {shard: Mark(position=mark.position, note=stored[shard].note) for shard, mark in marks.items()}

    def found_gone(self, positions: int) -> None:
        """Retention took so many more."""
        self._cursor = replace(self._cursor, gone=self._cursor.gone + positions)

    # --- progress -----------------------------------------------------------------------------

    def _delivered(self, records: int, ok: bool) -> None:  # noqa: FBT001 - Work's callback
        run = self._run
        run.ahead_done += records if ok else 0
        run.ahead_failed += 0 if ok else records
        telemetry.REPLAYED.labels(replay=self._range.spec.name, status="ok" if ok else "failed").inc(records)

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Store how far the replay is, durable when it returns. Raises SourceError."""
        run = self._run
        self._cursor = self._cursor.moved(marks)
        done, failed = run.ahead_done, run.ahead_failed
        run.ahead_done = run.ahead_failed = 0
        job = run.job
        run.moved(
            replace(job, cursor=str(self._cursor), done=job.done + done, failed=job.failed + failed),
            events=done + failed,
        )
        try:
            await self._save(run)
        except StoreError as error:
            raise SourceError(f"the progress of replay {job.name} is not stored: {error}") from error


class _RangeSource:
    """`sources.Source` around a reader of a part: its marks are the job's, its pace is the replay's."""

    def __init__(self, replay: Rereading) -> None:
        self._replay = replay
        self._reader = replay.reader()
        self._events: ShardEvents | None = None
        self._shards: frozenset[Shard] = frozenset()
        self._finished: set[Shard] = set()
        self._gone = 0

    @property
    def trouble(self) -> str:
        """Return what the reader says."""
        return self._reader.trouble

    async def open(self, events: ShardEvents) -> None:
        """Begin behind the job's marks."""
        self._events = events
        await self._reader.open(self)
        self._tell_gone()

    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]) -> Poll:
        """Return the next records, as many as the rate allows by now."""
        pace = self._replay.pace
        early_s = pace.wait_s()
        if early_s > 0:
            # Read all the same, of nothing: a reader must be asked to stay alive.
            return await self._reader.read(
                records_max=records_max, bytes_max=bytes_max, wait_s=min(wait_s, early_s), paused=self._shards
            )
        poll = await self._reader.read(
            records_max=min(records_max, pace.records_max),
            bytes_max=bytes_max,
            wait_s=wait_s,
            paused=paused | self._early(),
        )
        self._tell_gone()
        return poll

    def _early(self) -> set[Shard]:
        """Return the shards that come from others of which not all is finished: order is kept over a reshard too."""
        return {shard for shard, others in self._reader.follows.items() if not others <= self._finished}

    def _tell_gone(self) -> None:
        if self._reader.gone > self._gone:
            self._replay.found_gone(self._reader.gone - self._gone)
            self._gone = self._reader.gone

    async def commit(self, marks: Mapping[Shard, Mark]) -> None:
        """Move the job's progress; live marks are untouched."""
        await self._replay.commit(marks)
        self._finished.update(shard for shard, mark in marks.items() if mark.has_ended)

    def behind_s(self) -> Mapping[Shard, float]:
        """Return what the reader says."""
        return self._reader.behind_s()

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Return what the reader says."""
        return self._reader.behind(marks)

    async def close(self) -> None:
        """Close the reader."""
        await self._reader.close()

    # --- ShardEvents --------------------------------------------------------------------------

    async def assigned(self, marks: Mapping[Shard, Mark]) -> None:
        """Pass them on with the job's notes."""
        assert self._events is not None
        self._shards = frozenset(marks)
        await self._events.assigned(self._replay.begun(marks))

    async def revoking(self, shards: AbstractSet[Shard], *, deadline_s: float) -> None:
        """Pass it on."""
        if self._events is not None:
            await self._events.revoking(shards, deadline_s=deadline_s)

    def lost(self, shards: AbstractSet[Shard]) -> None:
        """Pass it on."""
        if self._events is not None:
            self._events.lost(shards)


class Pace:
    """Says when more records may be read: so many a second on average, a tenth of a second's worth at once."""

    def __init__(self, per_s: float | None, clock: Clock) -> None:
        self._step_s = 0.0 if per_s is None else 1 / per_s
        self._clock = clock
        self._next_at = clock.monotonic()

    @property
    def records_max(self) -> int:
        """How many may be read at once."""
        return max(1, int(_BURST_S / self._step_s)) if self._step_s else _ANY

    def took(self, records: int) -> None:
        """So many were read."""
        if self._step_s and records:
            self._next_at = max(self._next_at, self._clock.monotonic() - _BURST_S) + records * self._step_s

    def wait_s(self) -> float:
        """Return how long nothing may be read."""
        return max(0.0, self._next_at - self._clock.monotonic()) if self._step_s else 0.0
