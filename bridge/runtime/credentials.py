"""What workers are given of their function's execution role, and their replacement before it expires."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from bridge.core.function import FunctionVersion

if TYPE_CHECKING:
    from bridge.runtime.fleet import Fleet
    from bridge.runtime.process import Worker


async def _none(_version: FunctionVersion) -> Mapping[str, str]:
    return {}


class WorkerCredentials:
    """Asks for the variables of each worker that starts.

    Args:
        fleets: the pool's, by function and revision.
        end: ends an idle worker.
    """

    def __init__(self, *, fleets: "Mapping[tuple[str, str], Fleet]", end: "Callable[[Worker], None]") -> None:
        self._fleets = fleets
        self._end = end
        self.source: Callable[[FunctionVersion], Awaitable[Mapping[str, str]]] = _none
        """Returns the variables of a new worker, which no function can set; raises RuntimeUnavailable: none start."""

    def renew(self, name: str) -> None:
        """Let a function's workers begin no further invocation: what they were given is about to expire."""
        for fleet in [fleet for fleet in self._fleets.values() if fleet.version.name == name]:
            for worker in list(fleet.workers):
                worker.retiring = True
            for worker in list(fleet.idle):
                self._end(worker)
