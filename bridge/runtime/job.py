"""One invocation on its way through the pool: who waits for it, where it runs, since when."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.core.function import FunctionVersion
from bridge.core.invocation import Invocation, InvocationResult

if TYPE_CHECKING:
    from bridge.runtime.process import Worker


class Job:
    """One invocation on its way through the pool; `trace` returns the header that it sees, of its id and function."""

    __slots__ = (
        "arrived_at",
        "attempted",
        "future",
        "invocation",
        "sequence",
        "started_at",
        "timeout_s",
        "trace",
        "version",
        "worker",
    )

    def __init__(
        self,
        version: FunctionVersion,
        invocation: Invocation,
        future: "asyncio.Future[InvocationResult]",
        now: float,
        trace: Callable[[str, str], str],
    ) -> None:
        self.version = version
        self.invocation = invocation
        self.future = future
        self.arrived_at = now
        self.trace = trace(invocation.request_id, version.name)
        self.started_at = 0.0
        self.sequence = 0
        self.worker: Worker | None = None
        self.attempted = False
        limit = invocation.deadline_s
        self.timeout_s: float = version.timeout_s if limit is None else min(limit, version.timeout_s)

    def is_late(self, now: float) -> bool:
        """Tell whether it has waited as long as it may; `now` is monotonic."""
        limit = self.invocation.wait_max_s
        return limit is not None and now - self.arrived_at >= limit
