"""Named long work that survives a restart: what replays and redrives have in common."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

import structlog

from bridge.core import limits
from bridge.core.errors import BridgeError
from bridge.core.ports import Clock, Job, Jobs, JobState

log = structlog.get_logger("bridge.jobs")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]

ACTIVE: Final = frozenset({JobState.STARTING, JobState.RUNNING, JobState.CANCELLING})
ENDED: Final = frozenset({JobState.CANCELLED, JobState.COMPLETED, JobState.FAILED})
SAVE_S: Final = 0.2
_WATCH_S: Final = 0.1


class JobError(BridgeError):
    """What was asked of a job cannot be done."""


class SpecInvalid(JobError):
    """The request itself is wrong; one line says what."""


class JobExists(JobError):
    """The name is taken (EventBridge's ResourceAlreadyExistsException)."""


class JobNotFound(JobError):
    """No job of that name (ResourceNotFoundException)."""


class IllegalStatus(JobError):
    """Not in the state the job is in (IllegalStatusException)."""


class LimitExceeded(JobError):
    """Too many run already (LimitExceededException)."""


class Run:
    """One running job: its state as it will be saved next, and what was asked of it meanwhile."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stop: JobState | None = None
        """State to end in at the next opportunity: PAUSED, CANCELLED, or RUNNING (the daemon goes)."""
        self.stopping = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.saved_at = float("-inf")

    def ask(self, state: JobState) -> None:
        """Ask it to stop in `state`."""
        self.stop = state
        self.stopping.set()


class JobRunner(ABC):
    """Starts, saves, stops and resumes the jobs of one kind."""

    kind: str
    label: str
    """The word for people: Replay, Redrive."""

    def __init__(self, *, jobs: Jobs, clock: Clock, spawn: Spawn) -> None:
        self._jobs = jobs
        self._clock = clock
        self._spawn = spawn
        self._runs: dict[str, Run] = {}

    @abstractmethod
    async def _work(self, run: Run) -> None:
        """Do the work from `run.job.cursor` on; returns when done or when `run.stopping` is set."""

    async def open(self) -> None:
        """Go on with what a former run left in work."""
        for job in await self._jobs.list(self.kind):
            if job.state is JobState.CANCELLING:
                await self._jobs.update(replace(job, state=JobState.CANCELLED, ended_at=self._clock.time()))
            elif job.state in ACTIVE:
                log.info("job_resumed", kind=self.kind, name=job.name, done=job.done)
                self._launch(job)

    async def close(self, *, deadline_s: float = 5.0) -> None:
        """Stop cleanly; what runs goes on at the next start. Invocations in flight are waited for, then cut."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for run in self._runs.values():
            run.ask(JobState.RUNNING)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=max(0.0, deadline_s))
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _create(self, job: Job) -> Job:
        if len(self._runs) >= limits.REPLAYS_ACTIVE_MAX:
            raise LimitExceeded(f"{len(self._runs)} {self.kind}s run already; wait for one, or cancel one")
        if not await self._jobs.create(job):
            raise JobExists(f"{self.label} {job.name} already exists.")
        self._launch(job)
        return job

    def _launch(self, job: Job) -> None:
        run = self._runs[job.name] = Run(replace(job, state=JobState.RUNNING))
        run.task = self._spawn(self._run(run), f"{self.kind}:{job.name}")

    async def _run(self, run: Run) -> None:
        state, reason = JobState.FAILED, ""
        try:
            await self._jobs.update(run.job)
            await self._work(run)
            state = run.stop or JobState.COMPLETED
        except asyncio.CancelledError:
            state = JobState.RUNNING
            raise
        except Exception as error:  # the task boundary: the job says FAILED and why
            log.exception("job_failed", kind=self.kind, name=run.job.name)
            reason = f"{type(error).__name__}: {error}"
        finally:
            ended_at = self._clock.time() if state in ENDED else None
            run.job = replace(run.job, state=state, reason=reason, ended_at=ended_at)
            await self._jobs.update(run.job)
            self._runs.pop(run.job.name, None)
            log.info("job_ended", kind=self.kind, name=run.job.name, state=state.value, done=run.job.done)

    async def _save(self, run: Run, job: Job, *, now: bool = False) -> None:
        """Take the new progress; on disk at least every 200 ms."""
        run.job = job
        at = self._clock.monotonic()
        if now or at - run.saved_at >= SAVE_S:
            run.saved_at = at
            await self._jobs.update(job)

    async def list(self) -> "list[Job]":
        """Return all, newest first, as they are now."""
        return [self._now(job) for job in await self._jobs.list(self.kind)]

    async def get(self, name: str) -> Job | None:
        """Return one as it is now."""
        job = await self._jobs.get(name)
        return None if job is None or job.kind != self.kind else self._now(job)

    def _now(self, job: Job) -> Job:
        run = self._runs.get(job.name)
        return job if run is None else run.job

    async def watch(self, name: str) -> AsyncIterator[Job]:
        """Yield the job whenever it has moved, until it runs no more."""
        last: Job | None = None
        while True:
            job = await self._known(name)
            if job != last:
                last = job
                yield job
            if job.state not in ACTIVE:
                return
            await self._clock.sleep(_WATCH_S)

    async def _known(self, name: str) -> Job:
        job = await self.get(name)
        if job is None:
            raise JobNotFound(f"{self.label} {name} does not exist.")
        return job

    async def pause(self, name: str) -> Job:
        """Stop for now; what is in flight ends. Returns the job once it stands still."""
        return await self._stop(name, JobState.PAUSED, "paused")

    async def cancel(self, name: str) -> Job:
        """Stop for good."""
        job = await self._known(name)
        if job.state is JobState.PAUSED:
            job = replace(job, state=JobState.CANCELLED, ended_at=self._clock.time())
            await self._jobs.update(job)
            return job
        return await self._stop(name, JobState.CANCELLED, "cancelled")

    async def _stop(self, name: str, state: JobState, verb: str) -> Job:
        job = await self._known(name)
        run = self._runs.get(name)
        if run is None or run.task is None or job.state not in ACTIVE:
            raise IllegalStatus(f"{self.label} {name} is {job.state.value}: it cannot be {verb}.")
        run.ask(state)
        await asyncio.wait({run.task})
        return await self._known(name)

    async def resume(self, name: str) -> Job:
        """Go on from where it stopped."""
        job = await self._known(name)
        if job.state is not JobState.PAUSED:
            raise IllegalStatus(f"{self.label} {name} is {job.state.value}: only a paused one can be resumed.")
        self._launch(job)
        return self._now(job)


async def until(stopping: asyncio.Event, clock: Clock, delay_s: float) -> bool:
    """Sleep, or return True at once when `stopping` is set."""
    if stopping.is_set():
        return True
    if delay_s <= 0:
        return False
    waits = {asyncio.create_task(clock.sleep(delay_s)), asyncio.create_task(stopping.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
    return stopping.is_set()
