"""Replays: stored events invoked again, in order, marked, resumable, and never in the way of live traffic."""

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from bridge.core.ports import Clock, DeadLetters, Invoker, Job, Jobs, JobState, Journal, Outcomes
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
from bridge.pipeline.replaying import Cursor, Parts, Replaying
from bridge.pipeline.selecting import ReplaySpec, select

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
    gone: int = 0
    """Of the events asked for by id: how many are not kept any more. Of a time range this is not known."""


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
    ) -> None:
        super().__init__(jobs=jobs, clock=clock, spawn=spawn)
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
        """Count what a replay would invoke; reads, and changes nothing. Raises SpecInvalid."""
        spec = spec.checked()
        return await self._count(spec, end=self._journal.end)

    async def _count(self, spec: ReplaySpec, *, end: int, run: Run | None = None) -> ReplayCount:
        size = scanned = 0
        functions: Counter[str] = Counter()
        sources: Counter[str] = Counter()
        async with contextlib.aclosing(select(self._journal, self._outcomes, spec)) as pages:
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
            gone=len(spec.ids) - scanned if is_by_id_alone and sources.total() != spec.limit else 0,
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

    # --- doing --------------------------------------------------------------------------------

    async def start(self, spec: ReplaySpec) -> Job:
        """Start one; its end is the journal's end now, its range is pinned until it ends.

        Returns it RUNNING with its total, or STARTING where counting takes longer.

        Raises:
            SpecInvalid, JobExists, LimitExceeded, FunctionNotFound.
        """
        spec = spec.checked()
        if spec.to is not None:
            self._invoker.dry_run(spec.to)
        self._check_room()
        if await self._jobs.get(spec.name) is not None:
            raise JobExists(f"Replay {spec.name} already exists.")
        run = await self._create(
            Job(
                name=spec.name,
                kind=self.kind,
                state=JobState.STARTING,
                spec=spec.to_json(),
                cursor=str(Cursor(-1, self._journal.end)),
                created_at=self._clock.time(),
            )
        )
        await until(run.ready, self._clock, _START_WAIT_S)
        return self._now(run.job)

    async def _work(self, run: Run) -> None:
        spec = ReplaySpec.from_json(run.job.spec)
        self._saved(run.job)
        is_resumed = run.job.total is not None
        if is_resumed:
            run.begin(run.job)
        else:
            counted = await self._count(spec, end=Cursor.parse(run.job.cursor).end, run=run)
            if run.stopping.is_set():
                return
            run.begin(replace(run.job, total=counted.events))
            # On disk before the first event runs: with a total, a resumed replay looks for what it has run before.
            if not await stored(lambda: self._save(run), stopping=run.stopping, clock=self._clock):
                return
        await Replaying(parts=self._parts, run=run, spec=spec, is_resumed=is_resumed).work()
        if run.stop is None:
            run.job = _at_its_end(run.job)

    async def _before_save(self, run: Run) -> None:
        """Have the attempts on disk before the progress that stands on them."""
        del run
        await self._outcomes.flush()

    def _saved(self, job: Job) -> None:
        """Let retention have what is finished."""
        self._journal.pin(_pin(job), max(Cursor.parse(job.cursor).position + 1, self._journal.start))

    def _ended(self, job: Job) -> None:
        if job.state in ENDED:
            self._journal.pin(_pin(job), None)


def _pin(job: Job) -> str:
    return f"replay:{job.name}"


def _at_its_end(job: Job) -> Job:
    """Return the job with a count of what was chosen at the start and not met again."""
    total, met = job.total or 0, job.done + job.failed
    skipped = max(0, total - met)
    reason = f"{skipped} of {total} events were gone, or did not match any more" if skipped else ""
    return replace(job, total=max(total, met), skipped=skipped, reason=reason)
