"""Calls back at the earliest of the times it was told of."""

import asyncio
from collections.abc import Callable

from bridge.core.ports import Clock


class Alarm:
    """One timer: `set` plans a call of `ring` unless an earlier one is planned already."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._planned: tuple[float, asyncio.Task[None]] | None = None

    def set(self, due: float | None) -> None:
        """Call back at that monotonic time; None: not at all."""
        if self._planned is not None:
            at, task = self._planned
            if due is not None and not task.done() and at <= due:
                return
            task.cancel()
            self._planned = None
        if due is not None:
            self._planned = due, asyncio.create_task(self._wait(due))

    async def _wait(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        self._planned = None
        self._ring()
