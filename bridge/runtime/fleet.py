"""The workers of one version of one function, and the invocations that wait for one."""

import os
from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

from bridge.core import limits
from bridge.core.errors import Throttled
from bridge.core.function import FunctionVersion
from bridge.core.invocation import THROTTLE_ACCOUNT
from bridge.runtime import commands, environment
from bridge.runtime.job import Job
from bridge.runtime.process import Worker
from bridge.util import telemetry

AHEAD_DEPTH_MAX: Final = 64
"""Frames on one worker, the running one included; fewer unless it gets through them in `AHEAD_WORTH_S`."""
AHEAD_WORTH_S: Final = 0.005
"""A worker is sent what it handles in this time: one pass of a busy loop lasts as long."""
AHEAD_MEAN_MAX_S: Final = 0.002
WAITING_MAX: Final = limits.ACCOUNT_CONCURRENCY_DEFAULT
"""Invocations of one version that wait for a worker; further ones are refused."""
STARTING_PER_CORE: Final = 2
"""Workers of one version that may be on their way at once, a core."""
MEAN_WEIGHT: Final = 0.1
MEAN_START_S: Final = 0.01

YIELD_AFTER_S: Final = 0.1
"""A function without any worker waits this long before a busy one of another function is given up for it."""
WORKER_ESTIMATE_BYTES: Final = 96 * limits.MIB
WORKERS_PER_CORE: Final = 32


def workers_default() -> int:
    """Return `workers_max` for this machine: 32 a core, while 96 MiB of free memory each are there; 4 at least."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        free = limits.GIB
    return max(4, min((os.cpu_count() or 1) * WORKERS_PER_CORE, free // WORKER_ESTIMATE_BYTES))


class Fleet:
    """State of one revision; the pool decides, this only counts."""

    def __init__(self, version: FunctionVersion) -> None:
        self.version = version
        self.code = os.path.realpath(version.code)
        self.workers: set[Worker] = set()
        self.idle: list[Worker] = []
        """Last used last: the warmest is taken first, the coldest ends first."""
        self.waiting: deque[Job] = deque()
        self.starting = 0
        """Workers asked for and not yet attached."""
        self.provisioned = 0
        """Workers that are kept initialised."""
        self.warming = 0
        """Of those, how many were asked for and have no process yet."""
        self.init_failed_at: float | None = None
        """Monotonic: when the last init of one of them failed; None: it did not."""
        self.init_failure = ""
        self.is_retired = False
        self.needs_exec = environment.needs_exec(version)
        self.has_extensions = commands.is_served(version) and bool(commands.extensions(version.opt))
        """External ones, which an invocation waits for, and which are told of a worker's end."""
        self.free_slots: list[str] = []
        """Scratch spaces whose worker has ended; their content is for the next one."""
        self.mean_s = MEAN_START_S
        """Recent mean run time; high until known, so that nothing unknown is sent ahead."""
        self.starts = telemetry.WORKER_STARTS.labels(function=version.name)

    @property
    def size(self) -> int:
        """Workers that live or start."""
        return len(self.workers) + self.starting

    @property
    def warm(self) -> int:
        """Provisioned workers that live or start."""
        return self.warming + sum(worker.is_provisioned for worker in self.workers)

    @property
    def spare(self) -> int:
        """Idle workers that another function may have the place of."""
        return sum(not worker.is_provisioned for worker in self.idle) if self.provisioned else len(self.idle)

    def take_idle(self) -> Worker:
        """Return the warmest idle worker, a provisioned one before others; there is one."""
        if self.provisioned:
            for index in range(len(self.idle) - 1, -1, -1):
                if self.idle[index].is_provisioned:
                    return self.idle.pop(index)
        return self.idle.pop()

    def retire(self) -> list[Worker]:
        """Let no worker take anything new; return those that idle."""
        self.is_retired = True
        for worker in self.workers:
            worker.retiring = True
        return list(self.idle)

    def refuse_late(self, now: float) -> None:
        """Refuse what has waited for a worker as long as it may: what keeps them busy may wait for its answer.

        A function that invokes itself would wait for ever otherwise, where all workers run it already.
        """
        for job in [job for job in self.waiting if job.is_late(now)]:
            self.waiting.remove(job)
            if not job.future.done():
                job.future.set_exception(Throttled(THROTTLE_ACCOUNT))

    def take_waiting(self) -> list[Job]:
        """Return what waits, and let it wait no more."""
        jobs = list(self.waiting)
        self.waiting.clear()
        return jobs

    def count(self, worker: Worker) -> None:
        """Count an invocation that has ended on a worker, where some are provisioned."""
        metric = telemetry.PROVISIONED if worker.is_provisioned else telemetry.SPILLED
        metric.labels(function=self.version.name).inc()

    @property
    def may_send_ahead(self) -> bool:
        """True when its invocations are short enough."""
        return self.mean_s < AHEAD_MEAN_MAX_S and not self.has_extensions

    @property
    def depth(self) -> int:
        """How many frames a worker may have, the running one included."""
        return max(2, min(AHEAD_DEPTH_MAX, int(AHEAD_WORTH_S / max(self.mean_s, 1e-6))))

    def measure(self) -> None:
        """Set the gauges of its workers."""
        for state, count in (("busy", len(self.workers) - len(self.idle)), ("idle", len(self.idle))):
            telemetry.WORKERS.labels(function=self.version.name, state=state).set(count)

    def fills(self, cores: int) -> bool:
        """True when its invocations are short and keep all cores busy: another worker would only add switches."""
        return self.may_send_ahead and len(self.workers) - len(self.idle) >= cores

    def free_now(self, *, cores: int, may_start: bool) -> int:
        """How many invocations its workers could take now, beyond those that wait; negative when too many do."""
        free = len(self.idle) - len(self.waiting)
        return free if may_start and not self.fills(cores) else free + self.room_ahead()

    def room_ahead(self) -> int:
        """How many further frames its busy workers may be sent."""
        if not self.may_send_ahead:
            return 0
        depth = self.depth
        return sum(depth - len(worker.jobs) for worker in self.workers if _takes_ahead(worker, depth))

    def least_loaded(self) -> Worker | None:
        """Return the busy worker with the fewest frames, if one may take another."""
        if not self.may_send_ahead:
            return None
        best, depth = None, self.depth
        for worker in self.workers:
            if _takes_ahead(worker, depth) and (best is None or len(worker.jobs) < len(best.jobs)):
                best = worker
        return best


def _takes_ahead(worker: Worker, depth: int) -> bool:
    return (
        0 < len(worker.jobs) < depth  # first: most workers idle
        and worker.is_ready
        and not worker.retiring
        and not worker.skipping
        and worker.failure is None
        and not worker.is_lost
    )


def most_urgent(fleets: Iterable[Fleet]) -> Fleet | None:
    """Return the fleet to be served next: those without any worker first, then the longest waiting."""
    return min(
        (fleet for fleet in fleets if fleet.waiting),
        key=lambda fleet: (bool(fleet.size), fleet.waiting[0].arrived_at),
        default=None,
    )


def must_yield(worker: Worker, fleets: Collection[Fleet], now: float) -> bool:
    """Tell whether a worker must be given up: another fleet waits and has none at all."""
    if len(fleets) < 2 or worker.is_provisioned:
        return False
    limit = now - YIELD_AFTER_S
    return any(
        other is not worker.fleet and not other.size and other.waiting and other.waiting[0].arrived_at < limit
        for other in fleets
    )


def coldest_idle(fleets: Iterable[Fleet]) -> Worker | None:
    """Return the worker that has idled longest, over all fleets; provisioned ones are nobody else's."""
    coldest = (next((one for one in fleet.idle if not one.is_provisioned), None) for fleet in fleets if fleet.idle)
    return min((one for one in coldest if one is not None), key=lambda one: one.last_used_at, default=None)
