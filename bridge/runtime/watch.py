"""Looks at busy workers twenty times a second: init and run deadlines, memory."""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from bridge.core import limits
from bridge.core.ports import Clock
from bridge.runtime import memory, results
from bridge.runtime.process import Worker

TICK_S: Final = 0.05


class Watch:
    """A timer that runs while there are busy workers.

    Args:
        clock: monotonic time of deadlines.
        busy: the pool's own set of busy workers.
        fail: ends a worker with a failure.
        reinitialise: replaces a worker whose init took too long.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        busy: Collection[Worker],
        fail: Callable[[Worker, results.Failure], None],
        reinitialise: Callable[[Worker], None],
    ) -> None:
        self._clock = clock
        self._busy = busy
        self._fail = fail
        self._reinitialise = reinitialise
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on; cheap when it already does."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._look)

    def stop(self) -> None:
        """Stop looking; twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for worker in list(self._busy):
            if worker.failure is None:
                self._check(worker, now)
        if self._busy:
            self.start()

    def _check(self, worker: Worker, now: float) -> None:
        job = worker.jobs[0] if worker.jobs else None
        if not worker.is_ready:
            limit_s: float = limits.INIT_MAX_S
            if worker.in_invocation and job is not None:
                limit_s = job.timeout_s
            if now - worker.began_at >= limit_s:
                if worker.in_invocation:
                    self._fail(worker, results.timed_out(limit_s))
                else:
                    self._reinitialise(worker)
                return
        elif job is not None:
            began_at = worker.began_at if worker.in_invocation and worker.init_ms is not None else job.started_at
            if now - began_at >= job.timeout_s:
                self._fail(worker, results.timed_out(job.timeout_s))
                return
            worker.log_start(job.invocation.request_id)
        if worker.pid:
            self._check_memory(worker)

    def _check_memory(self, worker: Worker) -> None:
        limit_kb = worker.version.memory_mb * 1024
        resident_kb = memory.resident_kb(worker.pid, limit_kb=limit_kb)
        worker.peak_kb = max(worker.peak_kb, resident_kb)
        if resident_kb > limit_kb:
            worker.peak_kb = max(worker.peak_kb, limit_kb)
            self._fail(worker, results.KILLED)
