"""Local functions: a bounded pool of worker processes, one event at a time each; `ports.Runtime`."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from bridge.core.errors import RuntimeUnavailable
from bridge.core.function import FunctionVersion, Interpreter
from bridge.core.invocation import Invocation, InvocationResult
from bridge.core.ports import Clock
from bridge.runtime import endings, results, syscalls
from bridge.runtime.ahead import Ahead
from bridge.runtime.credentials import WorkerCredentials
from bridge.runtime.fleet import (
    MEAN_WEIGHT,
    STARTING_PER_CORE,
    WAITING_MAX,
    Fleet,
    coldest_idle,
    most_urgent,
    must_yield,
    workers_default,
)
from bridge.runtime.job import Job
from bridge.runtime.logs import FunctionLogs, TimeText
from bridge.runtime.process import Worker
from bridge.runtime.provisioned import Provisioned
from bridge.runtime.reaper import Reaper
from bridge.runtime.starter import Confinement, Starter
from bridge.runtime.watch import Watch
from bridge.util import telemetry

log = structlog.get_logger("bridge.runtime")

IDLE_DEFAULT_S: Final = 300.0


class WorkerPool:
    """Runs functions in worker processes forked from a zygote.

    Args:
        logs: where output goes.
        clock: wall time for logs, monotonic time for deadlines.
        workers_max: most workers over all functions; None: from cores and free memory.
        idle_s: seconds after which an idle worker ends.
        run_folder, sandbox, packages, deny_paths, deny_ports, code_store, region, interpreters: see `Confinement`.
    """

    def __init__(
        self,
        *,
        run_folder: Path,
        logs: FunctionLogs,
        clock: Clock,
        workers_max: int | None = None,
        idle_s: float = IDLE_DEFAULT_S,
        sandbox: str = "auto",
        packages: Path | None = None,
        deny_paths: Sequence[Path] = (),
        deny_ports: Sequence[int] = (),
        code_store: Path | None = None,
        region: str = "us-east-1",
        interpreters: Collection[Interpreter] = (),
    ) -> None:
        self._logs = logs
        self._clock = clock
        self._workers_max = workers_max or workers_default()
        confined = Confinement(
            run_folder=run_folder, sandbox=sandbox, packages=packages, deny_paths=deny_paths, code_store=code_store,
            deny_ports=deny_ports, region=region, interpreters=interpreters,
        )  # fmt: skip
        self._starter = Starter(confined, logs=logs, clock=clock, on_report=self._reported, on_end=self._zygote_ended)
        self._time_text = TimeText()
        self._fleets: dict[tuple[str, str], Fleet] = {}
        self.networks = self._starter.networks
        self.credentials = self._starter.credentials = WorkerCredentials(fleets=self._fleets, end=self._end)
        self._workers: dict[int, Worker] = {}
        self._busy: set[Worker] = set()
        self._cores = os.cpu_count() or 1
        self._count = 0
        """Workers that live or start; those being ended do not count."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch = Watch(clock=clock, busy=self._busy, fleets=self._fleets, living=self._workers, fail=self._fail,
                            reinitialise=self._initialise_again)  # fmt: skip
        self._ahead = Ahead(clock=clock, give_back=self._wait_again)
        self.provisioned = Provisioned(
            clock=clock, places=self._workers_max, fleet_of=self._fleet, start=self._warm, end=self._end
        )
        self._reaper = Reaper(
            clock=clock, fleets=self._fleets, idle_s=idle_s, end=self._end, after=self.provisioned.top_up
        )
        self.trace: Callable[[str, str], str] = lambda _request_id, _name: ""
        """Returns the trace header that a function sees, of a request id and its name."""
        self._callbacks: list[Callable[[], None]] = []
        self._is_closing = False

    # --- life -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """End leftovers of a former daemon, start the zygote and find out what confines its workers.

        Call it on the main thread: the zygote's life hangs on it.

        Raises:
            RuntimeUnavailable: no worker can be started.
        """
        with contextlib.suppress(OSError):
            syscalls.set_dumpable(dumpable=False)
        self._loop = asyncio.get_running_loop()
        await self._starter.open()
        telemetry.SANDBOX_LEVEL.labels(level=self.sandbox_level()).set(1)
        self._reaper.look()

    def sandbox_facts(self) -> list[tuple[str, bool, str]]:
        """Return each mechanism, whether it is in force, and a detail; measured, never assumed."""
        return [(fact.mechanism, fact.in_force, fact.detail) for fact in self._starter.confined.facts]

    def sandbox_level(self, version: FunctionVersion | None = None) -> str:
        """Return the strongest level in force for every worker, or for those of one function; of `confined.LEVELS`."""
        return self._starter.confined.level if version is None else self._starter.confined.level_of(version)

    async def close(self, deadline: float | None = None) -> None:
        """Let what runs finish until `deadline` (clock.monotonic), then end every worker; twice is fine."""
        self._is_closing = True
        self._reaper.stop()
        while deadline is not None and self._busy and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.01)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._watch.stop()
        await self._starter.close()
        for worker in list(self._workers.values()):
            self._finish(worker)
        self._workers.clear()
        for job in [job for fleet in self._fleets.values() for job in fleet.take_waiting()]:
            endings.refuse(job, RuntimeUnavailable("the worker pool is closing"))
        self._logs.flush()

    # --- ports.Runtime ----------------------------------------------------------------------------------------

    async def invoke(self, version: FunctionVersion, invocation: Invocation) -> InvocationResult:
        """Run one event to its end; see `ports.Runtime.invoke`."""
        if self._is_closing:
            raise RuntimeUnavailable("the worker pool is closing")
        fleet = self._fleet(version)
        job = Job(version, invocation, self._loop.create_future(), self._clock.monotonic(), self.trace)
        self._dispatch(fleet, job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._cancelled(fleet, job)
            raise

    def free_slots(self, version: FunctionVersion, *, enough: int | None = None) -> int:
        """How many invocations could start now; see `ports.Runtime.free_slots`."""
        if self._is_closing:
            return 0
        fleet, own = self._fleets.get((version.name, version.revision)), 0
        if fleet is not None and enough is not None and (idle := len(fleet.idle) - len(fleet.waiting)) >= enough:
            return idle
        room = max(0, self._workers_max - self._count)
        if fleet is not None:
            own = fleet.free_now(cores=self._cores, may_start=room > 0)
            # Workers start a few at a time: a burst of short invocations is over before the sixtieth stands.
            room = min(room, max(0, self._cores * STARTING_PER_CORE - fleet.starting))
        others = sum(other.spare for other in self._fleets.values() if other is not fleet)
        return max(0, own + room + others)

    def on_free(self, callback: Callable[[], None]) -> None:
        """Register a callback; see `ports.Runtime.on_free`."""
        self._callbacks.append(callback)

    def retire(self, name: str, *, keep_revision: str | None, also_keep: Collection[str] = ()) -> None:
        """End workers of other revisions; see `ports.Runtime.retire`."""
        for fleet in list(self._fleets.values()):
            if fleet.version.name != name or fleet.version.revision in {keep_revision, *also_keep}:
                continue
            for worker in fleet.retire():
                self._end(worker)
            self._drop_if_empty(fleet)

    # --- dispatch ---------------------------------------------------------------------------------------------

    def _fleet(self, version: FunctionVersion) -> Fleet:
        key = (version.name, version.revision)
        return self._fleets.get(key) or self._fleets.setdefault(key, Fleet(version))

    def _drop_if_empty(self, fleet: Fleet) -> None:
        if fleet.size or fleet.waiting or any(worker.version is fleet.version for worker in self._workers.values()):
            return
        self._fleets.pop((fleet.version.name, fleet.version.revision), None)
        self._starter.drop_slots(fleet)

    def _dispatch(self, fleet: Fleet, job: Job) -> None:
        may_go_ahead = job.invocation.ahead and not fleet.waiting
        if may_go_ahead and fleet.fills(self._cores) and (worker := fleet.least_loaded()) is not None:
            self._ahead.send(worker, job)
        elif fleet.idle:
            self._run(fleet.take_idle(), job)
        elif self._count < self._workers_max or self._give_up_idle():
            self._start(fleet, job)
        elif may_go_ahead and (worker := fleet.least_loaded()) is not None:
            self._ahead.send(worker, job)
        elif len(fleet.waiting) >= WAITING_MAX:
            raise RuntimeUnavailable(f"{WAITING_MAX} invocations of {fleet.version.name} already wait for a worker")
        else:
            fleet.waiting.append(job)

    def _give_up_idle(self) -> bool:
        """End the coldest idle worker of any function to make room."""
        if len(self._busy) >= self._count:
            return False
        coldest = coldest_idle(self._fleets.values())
        if coldest is not None:
            self._end(coldest)
        return coldest is not None

    def _wait_again(self, worker: Worker, jobs: list[Job]) -> None:
        worker.fleet.waiting.extendleft(reversed(jobs))
        self._serve_waiting()

    def _free(self, worker: Worker) -> None:
        """Give a worker without jobs its next one, or let it idle."""
        fleet = worker.fleet
        if worker.retiring or worker.is_lost or worker.failure is not None:
            self._end(worker)
        elif fleet.waiting and not must_yield(worker, self._fleets.values(), self._clock.monotonic()):
            worker.send(fleet.waiting.popleft(), self._clock.monotonic())
            self._fill_ahead(fleet)
        else:
            self._busy.discard(worker)
            worker.last_used_at = self._clock.monotonic()
            fleet.idle.append(worker)
            self._serve_waiting()
        for callback in self._callbacks:
            callback()

    def _fill_ahead(self, fleet: Fleet) -> None:
        """Send waiting events ahead, as far as they may and every worker is busy."""
        if self._count >= self._workers_max:
            self._ahead.fill(fleet)

    def _serve_waiting(self) -> None:
        """Start workers for what waits, the longest waiting first, starved functions before others."""
        while True:
            fleet = most_urgent(self._fleets.values())
            if fleet is None:
                return
            if fleet.idle:
                self._run(fleet.take_idle(), fleet.waiting.popleft())
            elif self._count < self._workers_max or self._give_up_idle():
                self._start(fleet, fleet.waiting.popleft())
            else:
                return

    def _cancelled(self, fleet: Fleet, job: Job) -> None:
        with contextlib.suppress(ValueError):
            fleet.waiting.remove(job)
            return
        worker = job.worker
        if worker is None or job not in worker.jobs:
            return
        if job is not worker.jobs[0]:
            others = [other for other in worker.take_back() if other is not job]
            self._wait_again(worker, others)
        if job in worker.jobs:
            self._kill(worker, results.KILLED)

    # --- life of a worker -------------------------------------------------------------------------------------

    def _warm(self, fleet: Fleet) -> bool:
        """Start a worker that waits for its first invocation; False: there is no place now."""
        may = not self._is_closing and (self._count < self._workers_max or self._give_up_idle())
        if may:
            self._start(fleet, None)
        return may

    def _start(self, fleet: Fleet, job: Job | None, *, in_invocation: bool = False) -> None:
        self._count += 1
        fleet.starting += 1
        fleet.warming += job is None
        task = asyncio.create_task(self._start_worker(fleet, job, in_invocation=in_invocation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_worker(self, fleet: Fleet, job: Job | None, *, in_invocation: bool) -> None:
        worker: Worker | None = None
        try:
            worker = self._starter.make(self, fleet)
            worker.in_invocation = in_invocation
            worker.is_provisioned = job is None
            fleet.warming -= job is None
            self._workers[worker.id] = worker
            fleet.workers.add(worker)
            fleet.starting -= 1
            await self._starter.launch(fleet, worker)
            if worker.is_finished:  # it failed while we attached to it
                raise RuntimeUnavailable(f"no worker for {worker.version.name}: {worker.start_error}")
            fleet.starts.inc()
            worker.retiring = worker.retiring or fleet.is_retired  # or it was told to while it started
            self._busy.add(worker)
            self._watch.start()
            if job is not None and not job.future.done():
                worker.send(job, self._clock.monotonic())
        except BaseException as error:  # the task boundary: whatever it is, the invocation ends, its place is free
            endings.not_started(worker, job, error)
            if worker is None:
                fleet.starting -= 1
                fleet.warming -= job is None
                self._count -= 1
                self._moved()
            else:
                self._finish(worker)
            if not isinstance(error, Exception):
                raise

    def _run(self, worker: Worker, job: Job) -> None:
        self._busy.add(worker)
        worker.send(job, self._clock.monotonic())
        self._watch.start()

    def _kill(self, worker: Worker, failure: results.Failure) -> None:
        """End a worker with its tree; its running job ends with `failure` once it is gone."""
        if worker.failure is None and not worker.is_finished:
            worker.failure = failure
            self._loop.call_later(self._starter.kill(worker), self._finish, worker)

    def _fail(self, worker: Worker, failure: results.Failure) -> None:
        """End a worker that broke a limit or the rules, at work or idle."""
        if not worker.jobs:
            self._uncount(worker)
        self._kill(worker, failure)

    def _end(self, worker: Worker) -> None:
        """End a worker that has nothing to do; its place is free at once."""
        self._uncount(worker)
        self._kill(worker, results.KILLED)

    def _uncount(self, worker: Worker) -> None:
        fleet = worker.fleet
        if worker.is_provisioned and not worker.is_ready:
            self.provisioned.failed(worker)
        if worker in fleet.workers:
            fleet.workers.discard(worker)
            self._count -= 1
        with contextlib.suppress(ValueError):
            fleet.idle.remove(worker)
        self._busy.discard(worker)

    def _reported(self, report: dict[str, Any]) -> None:
        worker = self._workers.get(report["id"])
        if worker is None:
            return
        match report["op"]:
            case "started":
                worker.pid = report["pid"]
            case "ended":
                endings.note(worker, report)
            case "failed":
                worker.start_error = report["error"]
                if not worker.pid:
                    self._finish(worker)
            case "gone":
                worker.is_gone = True
                if worker.is_finished:
                    self._recycle(worker)
                elif worker.is_lost:
                    self._finish(worker)
                else:  # what it sent before its end may still be on its way to us
                    self._loop.call_later(endings.LAST_WORDS_S, self._finish, worker)

    def worker_lost(self, worker: Worker) -> None:
        """The socket has closed: its end follows, or it is helped."""
        if worker.is_finished:
            return
        if worker.is_gone:
            self._finish(worker)
        else:
            self._loop.call_later(endings.EXIT_MAX_S, self._kill, worker, results.KILLED)

    def _finish(self, worker: Worker) -> None:
        """A worker has ended, or is given up on: settle its jobs, free its place."""
        if worker.is_finished:
            return
        worker.is_finished = True
        fleet = worker.fleet
        unstarted = worker.take_back(is_dead=True) if worker.is_ready else []
        worker.drain_log()
        is_ours = self._is_closing or worker.is_orphan
        if not is_ours and endings.may_initialise_again(worker):
            failure = worker.failure or results.exited(worker.ended_status or 0)
            self._initialise_again(worker, failure.status, failure.error_type)
        now, time_text = self._clock.monotonic(), self._time_text(self._clock.time())
        while worker.jobs:
            endings.fail(worker, worker.jobs.popleft(), now=now, time_text=time_text, is_ours=is_ours)
        self._uncount(worker)
        worker.close()
        if worker.is_gone or not worker.pid:
            self._recycle(worker)
        fleet.waiting.extendleft(reversed(unstarted))
        self._moved()

    def _recycle(self, worker: Worker) -> None:
        """Let the next worker of the version have the scratch space."""
        self._workers.pop(worker.id, None)
        fleet = worker.fleet
        fleet.free_slots.append(worker.slot)
        if fleet.is_retired:
            self._drop_if_empty(fleet)

    def _moved(self) -> None:
        """Something became free."""
        if not self._is_closing:
            self._serve_waiting()
            self.provisioned.top_up()
        for callback in self._callbacks:
            callback()

    def _zygote_ended(self) -> None:
        """All workers ended with it: through no fault of the functions."""
        if not self._is_closing:
            log.error("zygote_ended", workers=len(self._workers))
        for worker in list(self._workers.values()):
            worker.is_gone = True
            worker.is_orphan = True
            if worker.is_finished:
                self._recycle(worker)
            else:
                self._finish(worker)

    def _initialise_again(self, worker: Worker, status: str, error_type: str = "") -> None:
        """Init failed or took too long: it runs again inside the invocation, under the function's timeout."""
        fleet = worker.fleet
        jobs = endings.taken(worker)
        endings.report_init(worker, now=self._clock.monotonic(), status=status, error_type=error_type)
        self._end(worker)
        for job in jobs:
            self._start(fleet, job, in_invocation=True)

    # --- ends of invocations ----------------------------------------------------------------------------------

    def worker_ready(self, worker: Worker) -> None:
        """Init has ended: the first invocation starts."""
        if worker.jobs:
            worker.begin_first(self._clock.monotonic())
        else:  # its caller went away meanwhile, or there was none
            self._free(worker)
            if worker.is_provisioned:
                self.provisioned.ready(worker)

    def worker_answered(self, worker: Worker, job: Job, ok: bool, payload: bytes, duration_ms: float) -> None:  # noqa: FBT001
        """The handler returned or raised."""
        fleet = worker.fleet
        endings.answer(worker, job, ok=ok, payload=payload, duration_ms=duration_ms)
        fleet.mean_s += (duration_ms / 1000 - fleet.mean_s) * MEAN_WEIGHT
        if worker.jobs:
            worker.begin_next(self._clock.monotonic())
        elif fleet.waiting and len(self._fleets) == 1 and not (worker.retiring or worker.is_lost or worker.failure):
            worker.send(fleet.waiting.popleft(), self._clock.monotonic())  # the busiest path, shortened
            if fleet.waiting and fleet.waiting[0].invocation.ahead:
                self._fill_ahead(fleet)
        else:
            self._free(worker)
            return
        for callback in self._callbacks:
            callback()

    def worker_skipped(self, worker: Worker) -> None:
        """It may be sent frames ahead again."""
        if not worker.skipping:
            for callback in self._callbacks:
                callback()

    def worker_failed_init(self, worker: Worker, payload: bytes) -> None:
        """The handler cannot be imported: once more inside the invocation, then its caller gets the error."""
        worker.drain_log()
        if not self._is_closing and endings.may_initialise_again(worker):
            self._initialise_again(worker, "error", results.error_fields(payload)[0])
        elif worker.jobs:
            endings.fail_init(worker, worker.jobs.popleft(), payload, now=self._clock.monotonic())
        self._end(worker)
        self._moved()

    def worker_leaving(self, worker: Worker) -> None:
        """It ends by itself, and may take its time: another one takes what comes."""
        if worker in worker.fleet.idle:
            self._end(worker)

    def worker_garbled(self, worker: Worker) -> None:
        """It talks nonsense: it is replaced."""
        log.warning("worker_garbled", function=worker.version.name)
        self._fail(worker, results.GARBLED)
