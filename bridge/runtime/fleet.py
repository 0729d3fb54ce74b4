"""The workers of one version of one function, and the invocations that wait for one."""

import os
from collections import deque
from typing import Final

from bridge.core.function import FunctionVersion
from bridge.runtime import environment
from bridge.runtime.process import Job, Worker
from bridge.util import telemetry

AHEAD_DEPTH_MAX: Final = 16
"""Frames on one worker, the running one included."""
AHEAD_MEAN_MAX_S: Final = 0.002
AHEAD_TAKE_BACK_S: Final = 0.005
MEAN_WEIGHT: Final = 0.1
MEAN_START_S: Final = 0.01


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
        self.is_retired = False
        self.needs_exec = environment.needs_exec(version)
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
    def may_send_ahead(self) -> bool:
        """True when its invocations are short enough."""
        return self.mean_s < AHEAD_MEAN_MAX_S

    def fills(self, cores: int) -> bool:
        """True when its invocations are short and keep all cores busy: another worker would only add switches."""
        return self.may_send_ahead and len(self.workers) - len(self.idle) >= cores

    def room_ahead(self) -> int:
        """How many further frames its busy workers may be sent."""
        if not self.may_send_ahead:
            return 0
        return sum(AHEAD_DEPTH_MAX - len(worker.jobs) for worker in self.workers if _takes_ahead(worker))

    def least_loaded(self) -> Worker | None:
        """Return the busy worker with the fewest frames, if one may take another."""
        if not self.may_send_ahead:
            return None
        best = None
        for worker in self.workers:
            if _takes_ahead(worker) and (best is None or len(worker.jobs) < len(best.jobs)):
                best = worker
        return best


def _takes_ahead(worker: Worker) -> bool:
    return (
        worker.is_ready
        and not worker.retiring
        and not worker.skipping
        and worker.failure is None
        and not worker.is_lost
        and 0 < len(worker.jobs) < AHEAD_DEPTH_MAX
    )
