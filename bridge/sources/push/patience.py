"""Waiting for a function no longer than its format's service would, while the function runs on."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from bridge.core.invocation import InvocationResult
from bridge.core.ports import Clock

log = structlog.get_logger("bridge.webhook")


class Patience:
    """Waits for invocations; keeps those that nobody waits for any more, which the functions' limits bound."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._late: set[asyncio.Future[InvocationResult]] = set()

    async def within(self, limit_s: float, invoking: Coroutine[Any, Any, InvocationResult]) -> InvocationResult | None:
        """Return the result; None when it takes longer than so many seconds, and then the function runs to its end.

        A cancel ends the invocation too: its sender left, as it may leave any other.

        Raises:
            InvokeError: it was not accepted.
        """
        running = asyncio.ensure_future(invoking)
        timer = asyncio.ensure_future(self._clock.sleep(limit_s))
        try:
            await asyncio.wait({running, timer}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            raise
        finally:
            timer.cancel()
        if running.done():
            return running.result()
        self._late.add(running)
        running.add_done_callback(self._end)
        return None

    def _end(self, running: asyncio.Future[InvocationResult]) -> None:
        self._late.discard(running)
        if not running.cancelled() and (error := running.exception()) is not None:
            log.warning("late_invocation_failed", error=str(error))
