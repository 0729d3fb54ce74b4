"""Provisioned concurrency: workers that are initialised before anything is asked of them (semantics 5.6)."""

import os
from collections.abc import Callable, Iterable
from typing import Final

from bridge.core.function import FunctionVersion, Warmth
from bridge.core.ports import Clock
from bridge.runtime.fleet import STARTING_PER_CORE, Fleet
from bridge.runtime.process import Worker

AGAIN_S: Final = 60.0
"""After an init that failed, the next one is tried then: what it needed may have come back."""
INIT_FAILED: Final = "FUNCTION_ERROR_INIT_FAILURE"


class Provisioned:
    """Starts what is missing, within the places there are; the pool does what it is told.

    Args:
        clock: monotonic time.
        places: most workers of all functions; a quarter, and one at least, is left to what is not provisioned.
        fleet_of: returns a version's fleet, making it.
        start: starts a worker that waits; False: there is no place now.
        end: ends an idle worker.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        places: int,
        fleet_of: Callable[[FunctionVersion], Fleet],
        start: Callable[[Fleet], bool],
        end: Callable[[Worker], None],
    ) -> None:
        self._clock = clock
        self._most = places - max(1, places // 4)
        self._at_once = (os.cpu_count() or 1) * STARTING_PER_CORE
        self._fleet_of = fleet_of
        self._start = start
        self._end = end
        self._fleets: dict[tuple[str, str], Fleet] = {}
        """By function and revision: those that have some."""

    def configure(self, name: str, wanted: Iterable[tuple[FunctionVersion, int]]) -> None:
        """Keep this many workers of a function's versions from now on, and of its other versions none."""
        keep = {(name, version.revision): (version, count) for version, count in wanted if not version.unrunnable}
        for key, fleet in list(self._fleets.items()):
            if key[0] == name and key not in keep:
                del self._fleets[key]
                self._shrink(fleet, 0)
        for key, (version, count) in keep.items():
            fleet = self._fleets[key] = self._fleet_of(version)
            if fleet.provisioned != count:
                fleet.init_failed_at = None
            self._shrink(fleet, count)
        self.top_up()

    def _shrink(self, fleet: Fleet, wanted: int) -> None:
        fleet.provisioned = wanted
        warm = sorted((worker for worker in fleet.workers if worker.is_provisioned), key=lambda one: one in fleet.idle)
        while len(warm) > wanted:
            worker = warm.pop()  # idle ones first
            worker.is_provisioned = False
            if worker in fleet.idle:
                self._end(worker)

    def top_up(self) -> None:
        """Start what is missing, a few at a time."""
        for fleet in list(self._fleets.values()):
            while self._may_start(fleet) and self._start(fleet):
                pass

    def _may_start(self, fleet: Fleet) -> bool:
        if fleet.init_failed_at is not None and self._clock.monotonic() - fleet.init_failed_at < AGAIN_S:
            return False
        starting = fleet.warming + sum(not worker.is_ready for worker in fleet.workers if worker.is_provisioned)
        at_once = 1 if fleet.init_failed_at is not None else self._at_once
        return fleet.warm < fleet.provisioned and starting < at_once and self._total() < self._most

    def _total(self) -> int:
        return sum(fleet.warm for fleet in self._fleets.values())

    def ready(self, worker: Worker) -> None:
        """One is initialised: the next one starts."""
        worker.fleet.init_failed_at = None
        self.top_up()

    def failed(self, worker: Worker) -> None:
        """One has ended before it was initialised."""
        if not (worker.retiring or worker.is_orphan):
            worker.fleet.init_failed_at = self._clock.monotonic()
            worker.fleet.init_failure = worker.start_error or INIT_FAILED

    def state(self, version: FunctionVersion) -> Warmth:
        """Return how many there are of a version, and why no more of them will be."""
        if version.unrunnable:
            return Warmth(trouble=version.unrunnable)
        fleet = self._fleets.get((version.name, version.revision))
        if fleet is None:
            return Warmth()
        ready = sum(worker.is_provisioned and worker.is_ready for worker in fleet.workers)
        trouble = ""
        if fleet.init_failed_at is not None:
            trouble = fleet.init_failure
        elif fleet.warm < fleet.provisioned and self._total() >= self._most:
            trouble = f"all {self._most} workers that may be provisioned are (workers_max of [runtime])"
        return Warmth(allocated=fleet.warm, ready=ready, trouble=trouble)
