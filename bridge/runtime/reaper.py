"""Ends workers that have idled too long, and measures the others."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from bridge.core.ports import Clock
from bridge.runtime.fleet import Fleet
from bridge.runtime.process import Worker

REAP_S: Final = 5.0


class Reaper:
    """A timer for as long as the pool is open.

    Args:
        clock: monotonic time.
        fleets: the pool's own.
        idle_s: seconds after which an idle worker ends, unless it is provisioned.
        end: ends one.
        after: called after each look.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        fleets: Mapping[tuple[str, str], Fleet],
        idle_s: float,
        end: Callable[[Worker], None],
        after: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._fleets = fleets
        self._idle_s = idle_s
        self._end = end
        self._after = after
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Look now, and from now on every few seconds."""
        limit = self._clock.monotonic() - self._idle_s
        for fleet in self._fleets.values():
            for worker in [idle for idle in fleet.idle if idle.last_used_at <= limit and not idle.is_provisioned]:
                self._end(worker)
            fleet.measure()
        self._after()
        pause = min(REAP_S, max(0.05, self._idle_s / 4))
        self._timer = asyncio.get_running_loop().call_later(pause, self.look)

    def stop(self) -> None:
        """Look no more; twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
