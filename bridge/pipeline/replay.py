"""Replays: stored events, or records of a mapping's stream, invoked again: in order, marked, resumable, behind live."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from bridge.core.errors import SourceError
from bridge.core.ports import Clock, DeadLetters, Destination, Invoker, Job, Jobs, JobState, Journal, Outcomes
from bridge.core.record import Record
from bridge.pipeline.jobs import (
    ENDED,
    IllegalStatus,
    JobExists,
    JobNotFound,
    JobRunner,
    LimitExceeded,
    Run,
    Spawn,
    SpecInvalid,
    stored,
    until,
)
from bridge.pipeline.ranges import KnownMappings, Range, RangeCount, RangeCursor, RangeRecord
from bridge.pipeline.replaying import Cursor, Parts, Replaying
from bridge.pipeline.rereading import BackgroundSlots, Rereading, SlotsBehind
from bridge.pipeline.selecting import ReplaySpec, damage_note, select

__all__ = [
    "IllegalStatus",
    "JobExists",
    "JobNotFound",
    "LimitExceeded",
    "ReplayCount",
    "ReplaySpec",
    "Replays",
    "SpecInvalid",
]

_START_WAIT_S = 2.0
"""How long `start` waits for the count before it answers without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCount:
    """What a dry run says: what a replay would invoke."""

    events: int = 0
    bytes: int = 0
    by_function: dict[str, int] = field(default_factory=dict)
    """By target."""
    by_source: dict[str, int] = field(default_factory=dict)
    by_shard: dict[str, int] = field(default_factory=dict)
    """Of a mapping's stream."""
    gone: int = 0
    """Of the events asked for by id, or by position: how many are not kept any more. Of a time range this is not
    known."""
    damaged: int = 0
    """How many more could not be read."""
    is_upper_bound: bool = False
    """Whether some of a stream was not looked at, for it would have taken too long: there may be fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParts:
    """What replays of mappings work with."""

    mappings: KnownMappings
    slots: BackgroundSlots
    spill: Destination
    """The local dead letters."""


class Replays(JobRunner):
    """Starts, counts, watches and stops replays."""

    kind = "replay"
    label = "Replay"

    def __init__(
        self,
        *,
        journal: Journal,
        outcomes: Outcomes,
        dead_letters: DeadLetters,
        jobs: Jobs,
        invoker: Invoker,
        clock: Clock,
        spawn: Spawn,
        rng: random.Random | None = None,
        streams: StreamParts | None = None,
    ) -> None:
        super().__init__(jobs=jobs, clock=clock, spawn=spawn)
        self._streams = streams
        self._rereading: dict[str, Rereading] = {}
        """Replays of mappings that run, by name."""
        if streams is not None:
            streams.slots.on_free(self._kick)
        self._journal = journal
        self._outcomes = outcomes
        self._invoker = invoker
        self._parts = Parts(
            journal=journal,
            outcomes=outcomes,
            dead_letters=dead_letters,
            invoker=invoker,
            clock=clock,
            rng=rng or random.Random(),  # noqa: S311 - jitter, not a secret
        )

    async def open(self) -> None:
        """Go on with what a former run left; paused replays keep their range pinned."""
        for job in await self._jobs.list(self.kind):
            if job.state in (JobState.STARTING, JobState.RUNNING, JobState.PAUSED):
                self._saved(job)
        await super().open()

    # --- looking ------------------------------------------------------------------------------

    async def count(self, spec: ReplaySpec) -> ReplayCount:
        """Count what a replay would invoke; reads, and changes nothing.

        Raises:
            SpecInvalid; with a mapping also MappingNotFound, ConfigError, SourceError.
        """
        spec = spec.checked()
        if spec.mapping is not None:
            return await self._count_range(self._range(spec))
        return await self._count(spec, end=self._journal.end)

    async def _count(self, spec: ReplaySpec, *, end: int, run: Run | None = None) -> ReplayCount:
        size = scanned = 0
        functions: Counter[str] = Counter()
        sources: Counter[str] = Counter()
        damaged: set[int] = set()
        found = select(self._journal, self._outcomes, spec, on_damage=damaged.update)
        async with contextlib.aclosing(found) as pages:
            async for page in pages:
                scanned += page.scanned
                for chosen in page.below(end):
                    record = chosen.record
                    target = spec.to or record.function
                    if not target or sources.total() == spec.limit:
                        continue
                    size += len(record.payload)
                    functions[target] += 1
                    sources[record.source] += 1
                is_asked_to_stop = run is not None and run.stopping.is_set()
                if page.looked_at >= end or sources.total() == spec.limit or is_asked_to_stop:
                    break
        is_by_id_alone = bool(spec.ids) and (spec.since, spec.until, spec.source, spec.function) == (None,) * 4
        return ReplayCount(
            events=sources.total(),
            bytes=size,
            by_function=dict(functions),
            by_source=dict(sources),
            damaged=sum(position < end for position in damaged),
            gone=len(spec.ids) - scanned - len(damaged) if is_by_id_alone and sources.total() != spec.limit else 0,
        )

    async def events(self, spec: ReplaySpec) -> AsyncIterator[Record]:
        """Yield the selected records (for a file or standard output). Raises SpecInvalid."""
        spec = spec.checked()
        end = self._journal.end
        left = spec.limit
        async with contextlib.aclosing(select(self._journal, self._outcomes, spec)) as pages:
            async for page in pages:
                for chosen in page.below(end):
                    yield chosen.record
                    left = None if left is None else left - 1
                    if left == 0:
                        return
                if page.looked_at >= end:
                    return

    async def _count_range(self, range_: Range) -> ReplayCount:
        counted = await range_.count(await range_.begin())
        return ReplayCount(
            events=counted.records,
            bytes=counted.bytes,
            by_function={range_.target: counted.records},
            by_source={range_.mapping.name: counted.records},
            by_shard={shard: records for shard, records in sorted(counted.by_shard.items()) if records},
            gone=counted.gone,
            is_upper_bound=counted.left > 0,
        )

    async def records(self, spec: ReplaySpec) -> AsyncIterator[RangeRecord]:
        """Return the selected records of a mapping's stream, to be iterated (for a file or standard output).

        Raises:
            SpecInvalid, MappingNotFound, ConfigError, SourceError: at once; SourceError later, too.
        """
        range_ = self._range(spec.checked(), lists=True)
        return range_.records(await range_.begin())

    def _range(self, spec: ReplaySpec, *, lists: bool = False) -> Range:
        if self._streams is None:
            raise SpecInvalid("this daemon reads no streams")
        if spec.limit is not None and not lists:
            raise SpecInvalid("limit does not go with a mapping: name positions")
        return Range(spec, self._streams.mappings, self._clock)

    # --- doing --------------------------------------------------------------------------------

    async def start(self, spec: ReplaySpec) -> Job:
        """Start one; its end is the journal's (or the stream's) end now, its range is pinned until it ends.

        Returns it RUNNING with its total, or STARTING where counting takes longer.

        Raises:
            SpecInvalid, JobExists, LimitExceeded, FunctionNotFound; with a mapping also MappingNotFound, ConfigError,
            SourceError.
        """
        spec = spec.checked()
        range_ = None if spec.mapping is None else self._range(spec)
        if (target := spec.to if range_ is None else range_.target) is not None:
            self._invoker.dry_run(target)
        self._check_room()
        if await self._jobs.get(spec.name) is not None:
            raise JobExists(f"Replay {spec.name} already exists.")
        cursor = Cursor(-1, self._journal.end) if range_ is None else await range_.begin()
        run = await self._create(
            Job(
                name=spec.name,
                kind=self.kind,
                state=JobState.STARTING,
                spec=spec.to_json(),
                cursor=str(cursor),
                created_at=self._clock.time(),
            )
        )
        await until(run.ready, self._clock, _START_WAIT_S)
        return self._now(run.job)

    async def _work(self, run: Run) -> None:
        spec = ReplaySpec.from_json(run.job.spec)
        self._saved(run.job)
        if spec.mapping is not None:
            await self._work_range(run, spec)
            return
        is_resumed = run.job.total is not None
        if is_resumed:
            run.begin(run.job)
        else:
            counted = await self._count(spec, end=Cursor.parse(run.job.cursor).end, run=run)
            if run.stopping.is_set():
                return
            run.begin(replace(run.job, total=counted.events, reason=damage_note(counted.damaged)))
            # On disk before the first event runs: with a total, a resumed replay looks for what it has run before.
            if not await stored(lambda: self._save(run), stopping=run.stopping, clock=self._clock):
                return
        replaying = Replaying(parts=self._parts, run=run, spec=spec, is_resumed=is_resumed)
        left_out = run.job.reason if is_resumed else ""
        await replaying.work()
        if run.stop is None:
            run.job = _ended_with(run.job, gone=None, what="events")
            left_out = left_out or damage_note(replaying.damaged)
            run.job = replace(run.job, reason="; ".join(filter(None, (run.job.reason, left_out))))

    async def _work_range(self, run: Run, spec: ReplaySpec) -> None:
        range_ = self._range(spec)
        assert self._streams is not None
        if run.job.total is not None:
            run.begin(run.job)
        elif not await self._begin_range(run, range_):
            return
        rereading = self._rereading[spec.name] = Rereading(
            range_=range_,
            run=run,
            save=self._save,
            slots=SlotsBehind(self._streams.slots),
            spill=self._streams.spill,
            clock=self._clock,
            rng=self._parts.rng,
        )
        try:
            await rereading.work()
        finally:
            del self._rereading[spec.name]
        if run.stop is None:
            cursor = rereading.cursor
            run.job = _ended_with(run.job, gone=None if cursor.is_exact else cursor.gone, what="records")

    async def _begin_range(self, run: Run, range_: Range) -> bool:
        """Count what there is to do and store it; False when stopped meanwhile."""
        cursor = RangeCursor.parse(run.job.cursor)
        try:
            counted = await range_.count(cursor, is_stopping=run.stopping.is_set)
        except SourceError:  # the work waits for the source, and meets what there is
            left = cursor.positions_left({shard: mark.position for shard, mark in cursor.marks.items()})
            counted = RangeCount(left=left, gone=cursor.gone, is_whole=False)
        if run.stopping.is_set():
            return False
        cursor = replace(cursor, is_exact=counted.is_whole)
        run.begin(replace(run.job, cursor=str(cursor), total=counted.records + counted.gone))
        return await stored(lambda: self._save(run), stopping=run.stopping, clock=self._clock)

    def _kick(self) -> None:
        """Tell the replays of mappings of a free slot: once live traffic, told in this loop pass, has looked."""
        for rereading in self._rereading.values():
            asyncio.get_running_loop().call_soon(rereading.kick)

    def _now(self, job: Job) -> Job:
        job = super()._now(job)
        rereading = self._rereading.get(job.name)
        return replace(job, reason=rereading.trouble) if rereading is not None and rereading.trouble else job

    async def _before_save(self, run: Run) -> None:
        """Have the attempts on disk before the progress that stands on them."""
        del run
        await self._outcomes.flush()

    def _saved(self, job: Job) -> None:
        """Let retention have what is finished."""
        if job.cursor.startswith("{"):
            needed = RangeCursor.parse(job.cursor).kept_from
        else:
            needed = Cursor.parse(job.cursor).position + 1
        if needed is not None:
            self._journal.pin(_pin(job), max(needed, self._journal.start))

    def _ended(self, job: Job) -> None:
        if job.state in ENDED:
            self._journal.pin(_pin(job), None)


def _pin(job: Job) -> str:
    return f"replay:{job.name}"


def _ended_with(job: Job, *, gone: int | None, what: str) -> Job:
    """Return the job with a count of what was chosen at the start and not met again.

    Args:
        job: at its end.
        gone: how many were gone; None: its total was exact, what is missing of it says so.
        what: the word for them.
    """
    met = job.done + job.failed
    skipped = max(0, (job.total or 0) - met) if gone is None else gone
    total = met + skipped
    reason = f"{skipped} of {total} {what} were gone, or did not match any more" if skipped else ""
    return replace(job, total=total, skipped=skipped, reason=reason)
