"""Commits marks: at least every 200 ms or 1,000 finished records, at once before a retry and inside a rebalance."""

import asyncio
from collections.abc import Callable, Collection

import structlog

from bridge.core import limits
from bridge.core.errors import SourceError
from bridge.core.ports import Clock
from bridge.core.sources import Source
from bridge.pipeline.streams.batch import Batch, Tries
from bridge.pipeline.streams.lane import ShardWork
from bridge.pipeline.waiting import first_of
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.mappings")


class Commits:
    """Stores how far the shards of one mapping are finished.

    Args:
        name: of the mapping, for logs.
        clock: time between commits.
        shards: returns the shards that are ours now.
        tries: returns a batch's tries as a mark's note keeps them.
    """

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        shards: Callable[[], Collection[ShardWork]],
        tries: Callable[[Batch], Tries],
    ) -> None:
        self._name = name
        self._clock = clock
        self._shards = shards
        self._tries = tries
        self._finished = 0
        """Records finished since the last commit."""
        self._dirty = asyncio.Event()
        self._many = asyncio.Event()
        self._lock = asyncio.Lock()
        self.source: Source | None = None
        """Where marks go; None while there is none open."""

    def finished(self, records: int) -> None:
        """So many records have ended, or a try of them has."""
        self._finished += records
        self._dirty.set()
        if self._finished >= limits.COMMIT_RECORDS:
            self._many.set()

    def changed(self, shard: ShardWork) -> None:
        """Look whether a shard has something to commit: that it is finished, too, for the source waits to hear it."""
        if shard.is_dirty or shard.is_finished:
            shard.is_dirty = True
            self._dirty.set()

    async def run(self) -> None:
        """Commit as often as promised, for ever."""
        while True:
            await self._dirty.wait()
            await first_of(self._clock.sleep(limits.COMMIT_S), self._many.wait())
            if not await self.try_now():
                await self._clock.sleep(limits.COMMIT_S)

    async def try_now(self) -> bool:
        """Commit; False, and it is tried again later, when the source could not."""
        try:
            await self.now()
        except SourceError as error:
            log.warning("marks_uncommitted", mapping=self._name, error=str(error))
            return False
        return True

    async def now(self) -> None:
        """Commit what has changed. Raises SourceError: nothing is forgotten, the next call has it."""
        async with self._lock:
            source = self.source
            if source is None:
                return
            dirty = [shard for shard in self._shards() if shard.is_dirty]
            marks = {shard.name: shard.mark(now_tries=self._tries) for shard in dirty}
            for shard in dirty:
                shard.is_dirty = False
            self._dirty.clear()
            self._many.clear()
            self._finished = 0
            if not marks:
                return
            crash_point("stream.committing")
            try:
                await source.commit(marks)
            except BaseException:
                for shard in dirty:
                    shard.is_dirty = True
                self._dirty.set()
                raise
            crash_point("stream.committed")
