"""Runs one mapping: reads its source, hands batches to its function, commits how far each shard is finished."""

import asyncio
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import structlog

from bridge.core import limits
from bridge.core.errors import FunctionNotFound, SourceError
from bridge.core.mapping import CALL_FAILED, NO_RECORDS, PROCESSED
from bridge.core.sources import ShardStatus, Source
from bridge.core.stream import Mark, Poll, Position, Shard
from bridge.pipeline.streams.batch import Batch, Tries
from bridge.pipeline.streams.buffering import Buffering
from bridge.pipeline.streams.commits import Commits
from bridge.pipeline.streams.delivery import BatchDelivery
from bridge.pipeline.streams.forming import Forming
from bridge.pipeline.streams.lane import Lane, ShardWork
from bridge.pipeline.streams.settings import Work
from bridge.pipeline.streams.settling import settle
from bridge.pipeline.streams.status import shard_status
from bridge.pipeline.waiting import Alarm, Changes, watched
from bridge.util import telemetry
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.mappings")

_READ_RECORDS_MAX: Final = 10_000
_READ_MAX_BYTES: Final = 8 * limits.MIB
_SWEEP_S: Final = 1.0
_REVOKE_WAIT_SHARE: Final = 0.8
"""Of a rebalance's deadline: waiting for what runs; the rest is for the commit of what has ended."""
_REOPEN_MIN_S: Final = 1.0
_REOPEN_MAX_S: Final = 60.0
_NO_FUNCTION_S: Final = 5.0


class MappingWorker:
    """`ShardEvents`, and the loop around a source. One task calls `run`; all else happens on the same loop."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._mapping = work.mapping
        self._clock = work.clock
        self._shards: dict[Shard, ShardWork] = {}
        self._forming = Forming(work)
        self._buffering = Buffering(work)
        self._commits = Commits(
            name=work.mapping.name, clock=work.clock, shards=self._shards.values, tries=self._tries_now
        )
        self._delivery = BatchDelivery(work, before_retry=self._commits.try_now)
        self._waiting: dict[Lane, None] = {}
        """Lanes that may have work, in the order of their turns."""
        self._running: set[Batch] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._alarm = Alarm(work.clock, self.kick)
        self._changed = Changes(work.clock)
        self._is_stopping = False
        self._error: Exception | None = None
        self._failures = 0
        """Of the source in a row, without a read between them that brought something, or a minute that went well."""
        self._handled_records, self._discarded, self._filtered = (
            telemetry.RECORDS.labels(mapping=work.mapping.name, outcome=outcome)
            for outcome in ("handled", "discarded", "filtered")
        )
        self.trouble = ""
        """What keeps it from reading or delivering, in one line; empty when nothing does."""
        self.result = NO_RECORDS
        """LastProcessingResult."""
        self.wants_slot = False
        """Whether a batch waits for nothing but a slot."""

    # --- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until asked to stop, or, of a bounded source, until everything is finished.

        A source that fails is closed and opened anew, with back-off, for ever: `trouble` says so.
        """
        self._failures = 0
        self._error = None
        while not self._is_stopping:
            source = self._work.make_source()
            helpers: list[asyncio.Task[None]] = []
            try:
                await source.open(self)
                self._commits.source = source
                self.trouble = ""
                helpers = [watched(work, self._fail) for work in (self._commits.run(), self._sweep_often())]
                await self._read(source)
            except SourceError as error:
                self.trouble = str(error)
                log.warning("source_failed", mapping=self._mapping.name, error=str(error))
            else:
                return
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                await self._leave(source)
            self._failures += 1
            await self._clock.sleep(min(_REOPEN_MAX_S, _REOPEN_MIN_S * 2 ** min(self._failures - 1, 16)))

    async def _leave(self, source: Source) -> None:
        try:
            await source.close()
        except SourceError as error:
            log.warning("source_failed", mapping=self._mapping.name, error=str(error))
        finally:
            self._commits.source = None
            self.lost(set(self._shards))

    async def drain(self, *, deadline_s: float) -> bool:
        """Begin nothing more, let what runs end, commit; True when all ended within `deadline_s` seconds."""
        self._is_stopping = True
        self._changed.tell()
        is_whole = await self._changed.wait(lambda: not self._running, deadline_s=deadline_s)
        await self._commits.try_now()
        return is_whole

    async def stop(self) -> None:
        """End at once: what still runs is killed and comes again from the mark."""
        self._is_stopping = True
        self._alarm.set(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- reading ------------------------------------------------------------------------------

    async def _read(self, source: Source) -> None:
        records_max = min(_READ_RECORDS_MAX, max(1000, 2 * self._mapping.batch_size))
        holds_at = self._clock.monotonic() + _REOPEN_MAX_S
        while not self._is_stopping:
            if self._error is not None:
                raise self._error
            if self._work.is_bounded and self._has_ended():
                await self._commits.now()
                return
            shards = self._shards.values()
            full = self._buffering.full(shards)
            for name in full:
                self._begin_restored(self._shards[name])
            paused = full | self._buffering.supplied(shards)
            poll = await source.read(
                records_max=records_max,
                bytes_max=_READ_MAX_BYTES,
                wait_s=self._buffering.wait_s(paused),
                paused=paused,
            )
            await self._take_in(poll)
            if poll.chunks or poll.through or self._clock.monotonic() >= holds_at:
                # Not after any read: while a group is being joined, reads are empty and go well.
                self._failures = 0
            # A source that has more at hand does not wait for it: everything else has its turn between two reads.
            await asyncio.sleep(0)
        # The source is kept alive until what runs has ended: its close hands the shards back.
        await self._changed.wait(lambda: not self._running)

    def _has_ended(self) -> bool:
        return bool(self._shards) and not self._running and all(shard.is_finished for shard in self._shards.values())

    async def _take_in(self, poll: Poll) -> None:
        owned = dict(self._shards)
        for chunk in poll.chunks:
            if self._work.archive is not None and len(chunk):
                await self._work.archive(chunk)
            shard = owned.get(chunk.shard)
            if chunk.damaged and shard is not None and shard.is_attached:
                # Before the chunk is taken in: until then no mark passes any of it.
                self.kick()
                await self._delivery.settle_damaged(chunk)
                self._count(0, len(chunk.damaged))
            if shard is None or not shard.is_attached:
                continue  # taken away meanwhile; where it has come back, it is read again from its mark
            filtered = shard.take_in(chunk, self._work.keeps)
            self._forming.arrived(shard)
            if filtered:
                self._filtered.inc(filtered)
            self._commits.changed(shard)
            self._waiting.update(dict.fromkeys(lane for lane in shard.lanes if lane.has_work))
        for name, through in poll.through.items():
            if (shard := owned.get(name)) is not None and shard.is_attached:
                shard.passed(through)
                self._forming.arrived(shard)
                self._commits.changed(shard)
                self._waiting.update(dict.fromkeys(lane for lane in shard.lanes if lane.has_work))
        for name in poll.ended:
            if (shard := owned.get(name)) is not None and shard.is_attached:
                shard.has_ended = True
                self._begin_restored(shard, whole=True)
                self._waiting.update(dict.fromkeys(shard.lanes))
                self._commits.changed(shard)
        self.kick()

    def _begin_restored(self, shard: ShardWork, *, whole: bool = False) -> None:
        """Nothing more is read of it now: batches of a former run go on with the records that are here."""
        if shard.restore_now(whole=whole):
            self._forming.arrived(shard)
            self._waiting.update(dict.fromkeys(lane for lane in shard.lanes if lane.has_work))
            self.kick()

    # --- ShardEvents --------------------------------------------------------------------------

    async def assigned(self, marks: Mapping[Shard, Mark]) -> None:
        """Take shards on; batches of theirs that still run from before are adopted (architecture, rule 6)."""
        now = self._clock.monotonic()
        mapping = self._mapping
        for name, mark in marks.items():
            self._forget({name})
            shard = ShardWork(
                name, mark, lanes=mapping.parallelization_factor, window_s=mapping.tumbling_window_s, now=now
            )
            self._forming.restored(shard)
            for batch in self._running:
                for part in batch.parts:
                    lane = part.lane
                    if lane.shard.name != name or lane.number >= len(shard.lanes):
                        continue
                    positions = (p.track.chunk.positions[index] for p in part.pieces for index in p.indexes)
                    is_known = shard.window is None  # its state belongs to the mark: it is run again from there
                    held = frozenset(p for p in positions if p > mark.position) if is_known else frozenset[int]()
                    shard.lanes[lane.number].adopt(batch, held)
            self._shards[name] = shard
        crash_point("stream.assigned")
        log.info("shards_assigned", mapping=mapping.name, shards=sorted(marks))
        self.kick()

    async def revoking(self, shards: AbstractSet[Shard], *, deadline_s: float) -> None:
        """Let what runs of these shards end, commit what is done, and let them go."""
        leaving = [self._shards[name] for name in shards if name in self._shards]
        for shard in leaving:
            shard.is_leaving = True

        def is_idle() -> bool:
            return all(lane.busy is None for shard in leaving for lane in shard.lanes)

        try:
            await self._changed.wait(is_idle, deadline_s=deadline_s * _REVOKE_WAIT_SHARE)
            await self._commits.try_now()
            crash_point("stream.revoked")
        finally:  # cut short too: whoever has them now must not meet what we still hold
            # One may have come back meanwhile, by a reader that was opened anew: that one stays.
            self._forget(shard.name for shard in leaving if self._shards.get(shard.name) is shard)
        log.info("shards_revoked", mapping=self._mapping.name, shards=sorted(shards))

    def lost(self, shards: AbstractSet[Shard]) -> None:
        """These shards are gone: nothing of them is committed any more."""
        self._forget(shards)

    def _forget(self, shards: Iterable[Shard]) -> None:
        for name in set(shards):
            shard = self._shards.pop(name, None)
            if shard is not None:
                shard.is_attached = False
                for lane in shard.lanes:
                    self._waiting.pop(lane, None)

    # --- starting work ------------------------------------------------------------------------

    def kick(self) -> None:
        """Look for work to start, once in this loop pass."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        self.wants_slot = False
        concurrency = self._mapping.maximum_concurrency
        while self._may_begin and self._waiting and (concurrency is None or len(self._running) < concurrency):
            now = self._clock.monotonic()
            lane, due = self._next_lane(now)
            if lane is None:
                self._alarm.set(due)
                return
            if not self._begin(lane, now):
                return

    @property
    def _may_begin(self) -> bool:
        return not self._is_stopping and self._error is None

    def _next_lane(self, now: float) -> tuple[Lane | None, float | None]:
        """Return the lane whose turn it is, or when the first one will have work."""
        earliest: float | None = None
        idle: list[Lane] = []
        found: Lane | None = None
        for lane in self._waiting:
            due = None if lane.busy is not None or lane.shard.is_leaving else self._forming.due(lane, now=now)
            if due is None:
                idle.append(lane)
            elif due <= now:
                found = lane
                break
            else:
                earliest = due if earliest is None else min(earliest, due)
        for lane in idle:
            del self._waiting[lane]
        return found, earliest

    def _begin(self, lane: Lane, now: float) -> bool:
        """Start a batch of that lane; False when nothing can start now."""
        slots, mapping = self._work.slots, self._mapping
        try:
            target = slots.resolve(mapping.function)
        except FunctionNotFound as error:
            self.trouble = f"FUNCTION_CONFIG_NOT_VALID: {error}"
            self._alarm.set(now + _NO_FUNCTION_S)
            return False
        if slots.room(target) <= 0:
            self.trouble = slots.hindrance(target)
            self.wants_slot = not self.trouble
            return False
        del self._waiting[lane]
        batch = self._forming.form(lane, [each for each in self._waiting if not each.shard.is_leaving], now=now)
        if batch is None:
            return True
        for part in batch.parts:
            part.lane.busy = batch
        self._waiting[lane] = None
        self._start(batch, target, slots)
        return True

    def _start(self, batch: Batch, target: Any, slots: Any) -> None:
        discards, rest = self._forming.sort_out(batch, now=self._clock.time())
        self._running.add(batch)
        slot = slots.begin(target) if rest is not None and not discards else None
        task = asyncio.create_task(self._handle(batch, target, slot, discards=discards, rest=rest))
        self._tasks.add(task)
        task.add_done_callback(self._handled)

    def _fail(self, error: Exception) -> None:
        """Take note of a bug of ours: `_read` raises it, the supervisor restarts the mapping and says so."""
        self._error = error

    def _handled(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # `_read` raises it: the supervisor restarts the mapping and says so

    async def _handle(self, batch: Batch, target: Any, slot: Any, *, discards: list[Any], rest: Batch | None) -> None:
        """One try of a batch, or the discard of what is too old in it, and what follows."""
        try:
            if slot is None:
                step = await self._delivery.give_up(batch, discards, rest, target=target)
            else:
                step = await self._delivery.attempt(batch, target, slot)
                self.trouble = ""
            await self._delivery.settle_discards(
                batch, step, target=target, is_ours=lambda part: self._is_ours(part, batch)
            )
            handled, discarded = settle(
                batch, step, now=self._clock.monotonic(), wall=self._clock.time(), home=self._home
            )
            self._count(handled, discarded)
            if slot is not None:
                self.result = PROCESSED if step.is_ok else CALL_FAILED
        except Exception as error:  # a bug of ours: nothing goes on behind a batch of which nobody knows how it ended
            self._fail(error)
            raise
        finally:
            self._running.discard(batch)
            for part in batch.parts:
                home = self._home(part.lane, batch)
                if home is not None and home.busy is batch:  # a cancel: it comes again from the mark
                    home.busy = None
                self._look_at(part.lane.shard.name)
            self._changed.tell()
            self.kick()

    def _look_at(self, name: Shard) -> None:
        shard = self._shards.get(name)
        if shard is not None:
            self._waiting.update(dict.fromkeys(lane for lane in shard.lanes if lane.busy is None and lane.has_work))
            if shard.window is not None:
                self._waiting.update(dict.fromkeys(shard.lanes))
            self._commits.changed(shard)

    def _home(self, lane: Lane, batch: Batch) -> Lane | None:
        """Return the lane that a batch's outcome counts for: its own, or the one that adopted it; else None."""
        if lane.shard.is_attached:
            return lane
        shard = self._shards.get(lane.shard.name)
        if shard is None or lane.number >= len(shard.lanes):
            return None
        adopter = shard.lanes[lane.number]
        return adopter if adopter.busy is batch else None

    def _is_ours(self, batch: Batch, whole: Batch) -> bool:
        return any(self._home(part.lane, whole) is not None for part in batch.parts) or not batch.parts

    def _count(self, handled: int, discarded: int) -> None:
        if handled:
            self._handled_records.inc(handled)
            self._work.on_delivered(handled, True)
        if discarded:
            self._discarded.inc(discarded)
            self._work.on_delivered(discarded, False)
        self._commits.finished(handled + discarded)

    # --- time ---------------------------------------------------------------------------------

    async def _sweep_often(self) -> None:
        """Give up what became too old while it waited for a slot or a retry; end windows that the clock has passed."""
        while True:
            await self._clock.sleep(_SWEEP_S)
            wall = self._clock.time()
            for shard in list(self._shards.values()):
                for lane in shard.lanes:
                    if lane.busy is None and not shard.is_leaving and self._may_begin:
                        self._sweep(lane, wall)
            self.kick()

    def _sweep(self, lane: Lane, wall: float) -> None:
        batch = self._forming.expired(lane, now=wall)
        if batch is not None:
            try:
                target = self._work.slots.resolve(self._mapping.function)
            except FunctionNotFound:
                target = None
            lane.busy = batch
            self._start(batch, target, self._work.slots)
        elif lane.shard.window is not None:
            self._waiting[lane] = None

    def _tries_now(self, batch: Batch) -> Tries:
        """Return the tries of a batch as the mark's note keeps them: a retry counts from before it runs."""
        tries = batch.tries
        if batch in self._running and (tries.attempts or tries.setbacks):
            tries = tries.copy()
            tries.attempts += 1
        return tries

    # --- status -------------------------------------------------------------------------------

    @property
    def in_trouble(self) -> str:
        """What keeps it from reading or delivering, the source's own word included; empty when nothing does."""
        source = self._commits.source
        return self.trouble or (source.trouble if source is not None else "")

    @property
    def running(self) -> int:
        """Invocations that run now."""
        return len(self._running)

    def shards(self) -> tuple[ShardStatus, ...]:
        """Return every shard as `bridge` shows it."""
        marks: dict[Shard, Position] = {name: shard.track.mark for name, shard in self._shards.items()}
        source = self._commits.source
        behind, behind_s = (source.behind(marks), source.behind_s()) if source is not None else ({}, {})
        return tuple(
            shard_status(shard, behind=behind.get(name), behind_s=behind_s.get(name), wants_slot=self.wants_slot)
            for name, shard in sorted(self._shards.items())
        )
