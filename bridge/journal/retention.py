"""Retention: the oldest segments go by age and size, slowly, and take no unfinished event with them."""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from bridge.core.errors import StoreCorrupt, StoreFull
from bridge.core.ports import Clock
from bridge.core.sources import StreamBacklogs
from bridge.journal.journal import SegmentJournal

log = structlog.get_logger("bridge.retention")

_PAUSE_S: Final = 1.0
"""At most one segment a second: a wrong clock cannot take everything at once."""
_IDLE_S: Final = 10.0
_JUMP_S: Final = 60.0
_JUMP_PAUSE_S: Final = 3600.0


class Retention:
    """Deletes segments past their age or above the size; evacuates what is unfinished first."""

    def __init__(
        self,
        journal: SegmentJournal,
        *,
        clock: Clock,
        retention_s: float,
        retention_bytes: int,
        unfinished: Callable[[int, int], Sequence[int]],
        streams: StreamBacklogs | None = None,
        release_ballast: Callable[[], object] | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._retention_s = retention_s
        self._retention_bytes = retention_bytes
        self._lanes_unfinished = unfinished
        self._streams = streams
        self._release_ballast = release_ballast
        self._paused_until = 0.0
        self._offset = clock.stepped() - clock.monotonic()

    def configure(self, *, retention_s: float, retention_bytes: int) -> None:
        """Take new limits."""
        self._retention_s = retention_s
        self._retention_bytes = retention_bytes

    async def run(self) -> None:
        """Delete what is due, for ever; for the supervisor."""
        while True:
            try:
                deleted = await self.step()
            except StoreFull as error:
                # The hold file found no room: the next step has what the ballast left.
                log.warning("retention_waiting", error=str(error))
                if self._release_ballast is not None:
                    self._release_ballast()
                deleted = True
            except StoreCorrupt as error:
                # An unfinished event cannot be copied: its lane makes it a dead letter first, then the segment may go.
                log.error("retention_waiting", error=str(error))  # noqa: TRY400 - expected, one line
                deleted = False
            await self._clock.sleep(_PAUSE_S if deleted else _IDLE_S)

    async def step(self) -> bool:
        """Delete at most one segment; True when one went."""
        self._watch_clock()
        await self._release_holds()
        if self._clock.monotonic() < self._paused_until or not self._is_due():
            return False
        segment = self._journal.segments[0]
        unfinished = await self._unfinished(segment.base, (segment.number + 1) << 32)
        await self._journal.drop_oldest(unfinished)
        log.info("segment_deleted", segment=f"{segment.number:08x}", evacuated=len(unfinished))
        return True

    def _watch_clock(self) -> None:
        offset = self._clock.stepped() - self._clock.monotonic()
        if abs(offset - self._offset) > _JUMP_S:
            self._paused_until = self._clock.monotonic() + _JUMP_PAUSE_S
            log.warning("retention_paused", clock_step_s=round(offset - self._offset), pause_s=_JUMP_PAUSE_S)
        self._offset = offset

    def _is_due(self) -> bool:
        segments = self._journal.segments
        if len(segments) < 2:
            return False
        oldest, following = segments[0], segments[1]
        pinned = self._journal.pinned
        if pinned is not None and pinned < following.base:
            return False
        if sum(segment.end for segment in segments) > self._retention_bytes:
            return True
        return oldest.newest_ms / 1000 < self._clock.time() - self._retention_s

    async def _release_holds(self) -> None:
        if len(self._journal.holds):
            self._journal.holds.release(frozenset(await self._unfinished(0, self._journal.start)))

    async def _unfinished(self, low: int, high: int) -> Sequence[int]:
        """Return what a lane or a mapping still needs. Nothing is added to it meanwhile: these segments are full."""
        of_streams = () if self._streams is None else await self._streams.unfinished(low, high)
        return sorted({*self._lanes_unfinished(low, high), *of_streams})
