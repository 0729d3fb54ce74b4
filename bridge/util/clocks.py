"""The system's clock: wall time that never steps while the daemon runs, and a report when the system's did."""

import asyncio
import time


class SystemClock:
    """`ports.Clock` over the operating system: wall time is wall at start + monotonic."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def time(self) -> float:
        """Wall clock, epoch seconds, without steps."""
        return self._offset + time.monotonic()

    def stepped(self) -> float:
        """The system's own wall clock, steps included."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only move forward."""
        return time.monotonic()

    def step_s(self) -> float:
        """Seconds by which the system's clock has been stepped since the start (positive: forward)."""
        return time.time() - self.time()

    async def sleep(self, delay_s: float) -> None:
        """Sleep; cancellable."""
        await asyncio.sleep(delay_s)
