"""How mappings stand that do not read: their sources are asked now and then, and whoever looks waits little."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from bridge.core.errors import SourceError
from bridge.core.ports import Clock
from bridge.core.sources import EventSource, Standing

log = structlog.get_logger("bridge.mappings")

KEPT_S: Final = 5.0
"""How long an answer from elsewhere counts, also that there was none; of a Kafka mapping it costs a connection."""
LOOK_MAX_S: Final = 1.0
"""How long whoever looks waits; an answer that takes longer is there at the next look."""
_AT_ONCE: Final = 4
_NOT_KNOWN: Final = Standing()


class Standings:
    """The answers of sources, by mapping.

    Args:
        clock: how old they are.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, Standing]] = {}
        self._asking: dict[str, asyncio.Future[None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def of(self, mapping: str) -> Standing:
        """Return how a mapping stood a moment ago; of what was not asked, or not answered, nothing is known."""
        at, standing = self._known.get(mapping, (0.0, _NOT_KNOWN))
        return standing if self._clock.monotonic() - at <= KEPT_S else _NOT_KNOWN

    async def look(self, sources: Mapping[str, EventSource]) -> None:
        """Ask those of these that are here or whose answer is old, and wait for answers, at most `LOOK_MAX_S`."""
        now = self._clock.monotonic()
        for name, source in sources.items():
            is_new = source.is_remote and name in self._known and now - self._known[name][0] <= KEPT_S
            if name not in self._asking and not is_new:
                asking = self._asking[name] = asyncio.ensure_future(self._ask(name, source))
                asking.add_done_callback(_told)
        waits = {self._asking[name] for name in sources if name in self._asking}
        if waits:
            await asyncio.wait(waits, timeout=LOOK_MAX_S)

    async def _ask(self, name: str, source: EventSource) -> None:
        try:
            async with self._turns:
                standing = await source.standing()
        except SourceError as error:
            log.info("mapping_not_known", mapping=name, reason=str(error))
            standing = _NOT_KNOWN
        finally:
            if self._asking.get(name) is asyncio.current_task():
                del self._asking[name]
        if name not in self._asking:  # forgotten and asked again meanwhile: that answer is the newer one
            self._known[name] = self._clock.monotonic(), standing

    def forget(self, mapping: str) -> None:
        """Forget a mapping's answer: its marks move. Unknown ones are fine."""
        self._known.pop(mapping, None)
        asking = self._asking.pop(mapping, None)
        if asking is not None:
            asking.cancel()

    async def close(self) -> None:
        """Ask nobody any more."""
        asking = list(self._asking.values())
        for name in list(self._asking):
            self.forget(name)
        await asyncio.gather(*asking, return_exceptions=True)


def _told(asking: "asyncio.Future[None]") -> None:
    if not asking.cancelled() and (error := asking.exception()) is not None:
        log.error("mapping_look_failed", error=repr(error), exc_info=error)
