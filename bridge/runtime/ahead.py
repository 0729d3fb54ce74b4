"""Frames sent ahead to busy workers: written once per loop pass, taken back when the one before them takes long."""

import asyncio
from collections.abc import Callable
from typing import Final

from bridge.core.ports import Clock
from bridge.runtime.fleet import Fleet
from bridge.runtime.job import Job
from bridge.runtime.process import Worker

TAKE_BACK_S: Final = 0.005
"""An event waits behind a running one for this long at most, while another worker might become free."""


class Ahead:
    """Sends events ahead. Those taken back go to `give_back(worker, jobs)`, in order; they count as no attempt."""

    def __init__(self, *, clock: Clock, give_back: Callable[[Worker, list[Job]], None]) -> None:
        self._clock = clock
        self._give_back = give_back
        self._watched: set[Worker] = set()
        self._unwritten: list[Worker] = []

    def send(self, worker: Worker, job: Job) -> None:
        """Queue an event behind what runs on `worker`; written at the end of this loop pass."""
        loop = asyncio.get_running_loop()
        if not worker.outbox:
            if not self._unwritten:
                loop.call_soon(self._write)
            self._unwritten.append(worker)
        worker.send_ahead(job)
        if worker not in self._watched:
            self._watched.add(worker)
            loop.call_later(TAKE_BACK_S, self._look, worker)

    def fill(self, fleet: Fleet) -> None:
        """Send what waits for a worker of `fleet`, as far as it may go ahead."""
        while fleet.waiting and fleet.waiting[0].invocation.ahead and (least := fleet.least_loaded()) is not None:
            self.send(least, fleet.waiting.popleft())

    def _write(self) -> None:
        for worker in self._unwritten:
            if not worker.is_lost:
                worker.flush_ahead()
        self._unwritten.clear()

    def _look(self, worker: Worker) -> None:
        self._watched.discard(worker)
        if len(worker.jobs) < 2 or worker.is_finished:
            return
        if self._clock.monotonic() - worker.jobs[0].started_at >= TAKE_BACK_S:
            self._give_back(worker, worker.take_back())
        if len(worker.jobs) > 1:
            self._watched.add(worker)
            asyncio.get_running_loop().call_later(TAKE_BACK_S, self._look, worker)
