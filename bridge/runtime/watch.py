"""Looks at busy workers twenty times a second: init and run deadlines, memory, processes; at idle ones once."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bridge.core import limits
from bridge.core.ports import Clock
from bridge.runtime import memory, results
from bridge.runtime.fleet import Fleet
from bridge.runtime.process import Worker

TICK_S: Final = 0.05
IDLE_TICK_S: Final = 1.0
"""What a handler left running behind its answer is found within this time."""
SHARE: Final = 20.0
"""A worker's tree is not measured again before this many times the processor time that it took: hundreds of
processes take 10 ms, which the daemon has better use for."""
THREADS_MAX: Final = 4
"""Trees whose shared memory is counted at the same time."""


class Watch:
    """A timer that runs while there are workers.

    Args:
        clock: monotonic time of deadlines.
        busy: the pool's own set of busy workers.
        fleets: the pool's own: what has waited too long in them is refused.
        living: the pool's own workers by id, busy, idle or on their way out.
        fail: ends a worker with a failure.
        reinitialise: replaces a worker whose init took too long, given the word `timeout`.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        busy: Collection[Worker],
        fleets: Mapping[tuple[str, str], Fleet],
        living: Mapping[int, Worker],
        fail: Callable[[Worker, results.Failure], None],
        reinitialise: Callable[[Worker, str], None],
    ) -> None:
        self._clock = clock
        self._busy = busy
        self._fleets = fleets
        self._living = living
        self._fail = fail
        self._reinitialise = reinitialise
        self._timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="memory")
        self._exact: dict[Worker, asyncio.Future[int]] = {}
        """Trees whose memory a thread is counting."""

    def start(self) -> None:
        """Look from now on; cheap when it already does."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(TICK_S, self._look)
            if self._idle_timer is None:
                self._idle_timer = loop.call_later(IDLE_TICK_S, self._look_at_idle)

    def stop(self) -> None:
        """Stop looking, for ever; twice is fine."""
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._idle_timer = None
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for worker in list(self._busy):
            if worker.failure is None:
                self._check(worker, now)
        for fleet in self._fleets.values():
            if fleet.waiting:
                fleet.refuse_late(now)
        if self._busy:
            self.start()

    def _look_at_idle(self) -> None:
        self._idle_timer = None
        for worker in list(self._living.values()):
            if worker.pid and worker.failure is None and worker not in self._busy:
                self._check_tree(worker)
        if self._living:
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE_TICK_S, self._look_at_idle)

    def _check(self, worker: Worker, now: float) -> None:
        job = worker.jobs[0] if worker.jobs else None
        if not worker.is_ready:
            limit_s: float = limits.PROVISIONED_INIT_MAX_S if worker.is_provisioned else limits.INIT_MAX_S
            if worker.in_invocation and job is not None:
                limit_s = job.timeout_s
            if now - worker.began_at >= limit_s:
                if worker.in_invocation:
                    self._fail(worker, results.timed_out(limit_s))
                else:
                    self._reinitialise(worker, "timeout")
                return
        elif job is not None:
            if now - job.started_at >= job.timeout_s:
                self._fail(worker, results.timed_out(job.timeout_s))
                return
            worker.log_start(job.invocation.request_id)
        if worker.pid:
            self._check_tree(worker)

    def _check_tree(self, worker: Worker) -> None:
        began, spent = self._clock.monotonic(), time.thread_time()
        if began < worker.look_again_at:
            return
        self._measure(worker)
        worker.look_again_at = began + SHARE * (time.thread_time() - spent)

    def _measure(self, worker: Worker) -> None:
        tree, resident_kb = memory.measure(worker.pid, processes_max=limits.PROCESS_TREE_MAX)
        if len(tree) > limits.PROCESS_TREE_MAX:
            self._fail(worker, results.TOO_MANY_PROCESSES)
        elif len(tree) < 2 or resident_kb <= worker.version.memory_mb * 1024:
            self._judge(worker, resident_kb)
        elif worker not in self._exact:
            self._exact[worker] = asyncio.get_running_loop().run_in_executor(self._threads, memory.exact_kb, tree)
            self._exact[worker].add_done_callback(lambda done: self._measured(worker, done))

    def _measured(self, worker: Worker, done: "asyncio.Future[int]") -> None:
        del self._exact[worker]
        if not done.cancelled() and worker.failure is None and not worker.is_finished:
            self._judge(worker, done.result())

    def _judge(self, worker: Worker, used_kb: int) -> None:
        limit_kb = worker.version.memory_mb * 1024
        worker.peak_kb = max(worker.peak_kb, min(used_kb, limit_kb))
        if used_kb > limit_kb:
            self._fail(worker, results.OUT_OF_MEMORY)
