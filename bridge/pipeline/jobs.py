"""Named long work that survives a restart: what replays and redrives have in common."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

import structlog

from bridge.core import limits
from bridge.core.errors import BridgeError, StoreError
from bridge.core.ports import Clock, Job, Jobs, JobState

log = structlog.get_logger("bridge.jobs")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]

ACTIVE: Final = frozenset({JobState.STARTING, JobState.RUNNING, JobState.CANCELLING})
ENDED: Final = frozenset({JobState.CANCELLED, JobState.COMPLETED, JobState.FAILED})
SAVE_S: Final = 0.2
"""Progress is on disk this long after it was made, at the latest…"""
SAVE_EVENTS: Final = 100
"""…or as soon as this many events have ended since the last save."""
UNSAVED_MAX: Final = 2 * SAVE_EVENTS
"""Nothing new begins while so many ended events are not in the saved progress: it bounds what a kill repeats."""
NAME_KEPT_S: Final = 90 * 86_400.0
"""An ended job is shown, and its name is taken, for 90 days (as EventBridge keeps a replay's name)."""
_WATCH_S: Final = 0.1
_STOP_WAIT_S: Final = 5.0
"""How long pause and cancel wait for what is in flight before they answer with the state as it is."""
_STORE_RETRY_MIN_S: Final = 0.25
_STORE_RETRY_MAX_S: Final = 2.0


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
    """One running job: its progress as it will be saved next, and what was asked of it meanwhile."""

    def __init__(self, job: Job) -> None:
        self.job = job
        """Progress of the finished prefix only: what may be saved."""
        self.ahead_done = 0
        self.ahead_failed = 0
        """Ended behind something that is still in flight: shown, not saved."""
        self.stop: JobState | None = None
        """State to end in at the next opportunity: PAUSED, CANCELLED, or RUNNING (the daemon goes)."""
        self.stopping = asyncio.Event()
        self.ready = asyncio.Event()
        """Set once the job knows how much there is to do."""
        self.saved = asyncio.Event()
        """Set whenever a save made room for more; whoever waits clears it."""
        self.task: asyncio.Task[None] | None = None
        self.unsaved = 0
        """Events that ended since the last save, those ahead included."""
        self._moved = asyncio.Event()
        self._many = asyncio.Event()
        self._saving = asyncio.Lock()

    def ask(self, state: JobState) -> None:
        """Ask it to stop in `state`; who asked first is heard."""
        if self.stop is None:
            self.stop = state
            self.stopping.set()

    def moved(self, job: Job, *, events: int = 1) -> None:
        """Take new progress, made by `events` events that ended."""
        self.job = job
        self.unsaved += events
        self._moved.set()
        if self.unsaved >= SAVE_EVENTS:
            self._many.set()

    @property
    def is_behind(self) -> bool:
        """True while nothing new may begin because the saved progress lags too far."""
        return self.unsaved >= UNSAVED_MAX

    def begin(self, job: Job) -> None:
        """Take what is known now that the work begins; a job that is asked to stop keeps its state."""
        self.moved(replace(job, state=job.state if self.stop else JobState.RUNNING), events=0)
        self.ready.set()

    async def save(self, jobs: Jobs, before: Callable[["Run"], Awaitable[None]]) -> Job:
        """Save the progress there is now; `before` makes durable what it builds upon. One save at a time.

        Raises:
            StoreError: not saved; `due` will return again.
        """
        async with self._saving:
            self._moved.clear()
            self._many.clear()
            job, counted = self.job, self.unsaved
            try:
                await before(self)
                await jobs.update(job)
            except StoreError:
                self._moved.set()
                raise
            self.unsaved -= counted
            self.saved.set()
            return job

    async def due(self, clock: Clock) -> None:
        """Return when progress should be saved."""
        await self._moved.wait()
        await until(self._many, clock, SAVE_S)


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
        self._deciding = asyncio.Lock()
        """Held from the look at a job that is paused to what became of it: one of two who ask at once is second."""
        self._closing = False

    # --- what a kind of job adds --------------------------------------------------------------

    @abstractmethod
    async def _work(self, run: Run) -> None:
        """Do the work from `run.job.cursor` on; returns when done or when `run.stopping` is set."""

    async def _before_save(self, run: Run) -> None:  # noqa: B027 - a hook, nothing by default
        """Make durable what the progress builds upon."""

    def _saved(self, job: Job) -> None:  # noqa: B027 - a hook, nothing by default
        """Progress is on disk."""

    def _ended(self, job: Job) -> None:  # noqa: B027 - a hook, nothing by default
        """The job runs no more: it ended, was paused, or the daemon goes."""

    # --- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Go on with what a former run left in work; forget what ended long ago."""
        now = self._clock.time()
        for job in await self._jobs.list(self.kind):
            if job.state is JobState.CANCELLING:
                await self._jobs.update(replace(job, state=JobState.CANCELLED, ended_at=now))
            elif job.state in ACTIVE:
                log.info("job_resumed", kind=self.kind, name=job.name, done=job.done)
                self._launch(job)
            elif job.state in ENDED and (job.ended_at or job.created_at) < now - NAME_KEPT_S:
                await self._jobs.delete(job.name)

    async def close(self, *, deadline_s: float = 0.0) -> None:
        """Stop cleanly; what runs goes on at the next start. Waits `deadline_s` for what is in flight, then cuts it.

        What is cut off is not in the progress: it is done again at the next start.
        """
        self._closing = True
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for run in self._runs.values():
            run.ask(JobState.RUNNING)
        await self._wait(tasks, deadline_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, tasks: "list[asyncio.Task[None]]", wait_s: float) -> None:
        if not tasks or wait_s <= 0:
            return
        timer = asyncio.create_task(self._clock.sleep(wait_s))
        ends = asyncio.create_task(asyncio.wait(tasks))
        try:
            await asyncio.wait({timer, ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            ends.cancel()  # the wait, not what it waits for

    # --- running ------------------------------------------------------------------------------

    async def _create(self, job: Job) -> Run:
        self._check_room()
        if not await self._jobs.create(job):
            raise JobExists(f"{self.label} {job.name} already exists.")
        return self._launch(job)

    def _check_room(self) -> None:
        if self._closing:
            raise LimitExceeded("the daemon is stopping")
        if len(self._runs) >= limits.REPLAYS_ACTIVE_MAX:
            raise LimitExceeded(f"{len(self._runs)} {self.kind}s run already; wait for one, or cancel one")

    def _launch(self, job: Job) -> Run:
        run = self._runs[job.name] = Run(job)
        run.task = self._spawn(self._run(run), f"{self.kind}:{job.name}")
        return run

    async def _run(self, run: Run) -> None:
        saver = asyncio.create_task(self._keep_saved(run))
        state, reason = JobState.FAILED, ""
        try:
            await self._work(run)
            state, reason = run.stop or JobState.COMPLETED, run.job.reason
        except asyncio.CancelledError:
            state = run.stop or JobState.RUNNING
            raise
        except Exception as error:  # the task boundary: the job says FAILED and why
            log.exception("job_failed", kind=self.kind, name=run.job.name)
            reason = f"{type(error).__name__}: {error}"
        finally:
            saver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await saver
            ended_at = self._clock.time() if state in ENDED else None
            run.job = replace(run.job, state=state, reason=reason, ended_at=ended_at)
            run.ready.set()
            await self._save_end(run)

    async def _save(self, run: Run) -> None:
        self._saved(await run.save(self._jobs, self._before_save))

    async def _save_end(self, run: Run) -> None:
        """Save how it ended. Where the disk does not take it, the job goes on from its last save at the next start."""
        try:
            await run.save(self._jobs, self._before_save)
        except StoreError as error:
            log.error("job_unsaved", kind=self.kind, name=run.job.name, error=str(error))  # noqa: TRY400 - one line
        finally:
            del self._runs[run.job.name]
            self._ended(run.job)
            log.info("job_ended", kind=self.kind, name=run.job.name, state=run.job.state.value, done=run.job.done)

    async def _keep_saved(self, run: Run) -> None:
        """Save progress 200 ms or 100 events after it was made; a full disk is waited for."""
        delay_s = _STORE_RETRY_MIN_S
        while True:
            await run.due(self._clock)
            try:
                await self._save(run)
                delay_s = _STORE_RETRY_MIN_S
            except StoreError as error:
                log.warning("job_unsaved", kind=self.kind, name=run.job.name, error=str(error))
                await self._clock.sleep(delay_s)
                delay_s = min(delay_s * 2, _STORE_RETRY_MAX_S)

    # --- asking -------------------------------------------------------------------------------

    async def list(self) -> "list[Job]":
        """Return all, newest first, as they are now."""
        return [self._now(job) for job in await self._jobs.list(self.kind)]

    async def get(self, name: str) -> Job | None:
        """Return one as it is now."""
        job = await self._jobs.get(name)
        return None if job is None or job.kind != self.kind else self._now(job)

    def _now(self, job: Job) -> Job:
        run = self._runs.get(job.name)
        if run is None:
            return job
        return replace(run.job, done=run.job.done + run.ahead_done, failed=run.job.failed + run.ahead_failed)

    async def watch(self, name: str) -> AsyncIterator[Job]:
        """Yield the job whenever it has moved, until it runs no more (paused is a stop, too)."""
        last: Job | None = None
        while True:
            job = await self._known(name)
            if job != last:
                last = job
                yield job
            if job.state not in ACTIVE or (self._closing and name not in self._runs):
                return
            await self._clock.sleep(_WATCH_S)

    async def _known(self, name: str) -> Job:
        job = await self.get(name)
        if job is None:
            raise JobNotFound(f"{self.label} {name} does not exist.")
        return job

    async def pause(self, name: str) -> Job:
        """Begin nothing new; what is in flight ends. Durable when it returns; raises JobNotFound, IllegalStatus."""
        return await self._stop(name, JobState.PAUSED, "paused")

    async def cancel(self, name: str) -> Job:
        """Stop for good. Returns it CANCELLING when what is in flight takes longer than a few seconds.

        Raises:
            JobNotFound, IllegalStatus.
        """
        async with self._deciding:
            job = await self._known(name)
            run = self._runs.get(name)
            if job.state is JobState.PAUSED:
                if run is None:
                    job = replace(job, state=JobState.CANCELLED, ended_at=self._clock.time())
                    await self._jobs.update(job)
                    self._ended(job)
                    return job
                run.stop = JobState.CANCELLED  # paused, with something still in flight
        return await self._stop(name, JobState.CANCELLED, "cancelled")

    async def _stop(self, name: str, state: JobState, verb: str) -> Job:
        job = await self._known(name)
        run = self._runs.get(name)
        may_stop = job.state in ACTIVE or (job.state is JobState.PAUSED and state is JobState.CANCELLED)
        if run is None or run.task is None or not may_stop or run.stop not in (None, state):
            raise IllegalStatus(f"{self.label} {name} is {job.state.value}: it cannot be {verb}.")
        run.ask(state)
        run.job = replace(run.job, state=JobState.CANCELLING if state is JobState.CANCELLED else state)
        with contextlib.suppress(StoreError):  # the saver goes on trying
            await self._save(run)
        await self._wait([run.task], _STOP_WAIT_S)
        return await self._known(name)

    async def resume(self, name: str) -> Job:
        """Go on from where it stopped; raises JobNotFound, IllegalStatus, LimitExceeded."""
        await self._paused(name)
        run = self._runs.get(name)
        if run is not None and run.task is not None:
            await self._wait([run.task], _STOP_WAIT_S)
        async with self._deciding:
            job = await self._paused(name)  # still: it may have been cancelled meanwhile
            if name in self._runs:
                raise IllegalStatus(f"{self.label} {name} still has invocations in flight from before: try again.")
            self._check_room()
            job = replace(job, state=JobState.RUNNING)
            await self._jobs.update(job)
            # Where the daemon began to stop meanwhile, it goes on at the next start.
            return job if self._closing else self._launch(job).job

    async def _paused(self, name: str) -> Job:
        job = await self._known(name)
        if job.state is not JobState.PAUSED:
            raise IllegalStatus(f"{self.label} {name} is {job.state.value}: only a paused one can be resumed.")
        return job


async def until(event: asyncio.Event, clock: Clock, delay_s: float) -> bool:
    """Sleep, or return True at once when `event` is set."""
    if event.is_set():
        return True
    if delay_s <= 0:
        return False
    waits = {asyncio.create_task(clock.sleep(delay_s)), asyncio.create_task(event.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
    return event.is_set()


async def stored(write: Callable[[], Awaitable[None]], *, stopping: asyncio.Event, clock: Clock) -> bool:
    """Write until the disk takes it; False when asked to stop first: then it is not known to be stored."""
    delay_s = _STORE_RETRY_MIN_S
    while True:
        try:
            await write()
        except StoreError as error:
            log.warning("job_waits_for_disk", error=str(error))
            if await until(stopping, clock, delay_s):
                return False
            delay_s = min(delay_s * 2, _STORE_RETRY_MAX_S)
        else:
            return True


class Rate:
    """Says when the next event may go: so many a second on average, a tenth of a second's worth at once."""

    _BURST_S: Final = 0.1

    def __init__(self, per_s: float | None, clock: Clock) -> None:
        self._step_s = 0.0 if per_s is None else 1 / per_s
        self._clock = clock
        self._next_at = clock.monotonic()

    def wait_s(self) -> float:
        """Take a turn; returns how long to wait for it."""
        if not self._step_s:
            return 0.0
        now = self._clock.monotonic()
        turn_at = max(self._next_at, now - self._BURST_S)
        self._next_at = turn_at + self._step_s
        return turn_at - now
