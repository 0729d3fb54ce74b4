"""Reads many shards side by side: a page of each is fetched while others are handled, within the service's limits."""

import asyncio
import random
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import structlog

from bridge.aws.errors import AwsTroubleKind
from bridge.core import limits
from bridge.core.errors import SourceError
from bridge.core.ports import Clock
from bridge.core.sources import ShardEvents
from bridge.core.stream import Chunk, Poll, Position, Shard
from bridge.sources.pull.shard_api import ShardApi, ShardCallFailed
from bridge.sources.pull.shard_cursor import ShardCursor
from bridge.util import telemetry

log = structlog.get_logger("bridge.sources.shards")

PARALLEL_READS: Final = 32
"""Calls at once of one mapping."""
HELD_MAX_BYTES: Final = 64 * limits.MIB
"""While so much was fetched and not handed out, nothing more is fetched (answers on their way come on top)."""
_EXPIRIES_MAX: Final = 3
"""Iterators in a row that had expired when they were used: then the next one waits."""


class ShardReading:
    """What live readers and readers of a part share: cursors, and the calls that fill them.

    Args:
        api: the stream.
        mapping: its name, for logs.
        clock: paces the calls.
        rng: jitter of back-offs.
    """

    def __init__(self, api: ShardApi, *, mapping: str, clock: Clock, rng: random.Random | None = None) -> None:
        self._api = api
        self._mapping = mapping
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._events: ShardEvents | None = None
        self._cursors: dict[Shard, ShardCursor] = {}
        """In the order of their turns."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = asyncio.Semaphore(PARALLEL_READS)
        self._wake = asyncio.Event()
        self._error: BaseException | None = None
        """Raised by the next read."""

    @property
    def trouble(self) -> str:
        """Return what keeps it from reading. See sources.Source."""
        return next((f"{cursor.name}: {cursor.reason}" for cursor in self._cursors.values() if cursor.reason), "")

    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: AbstractSet[Shard]) -> Poll:
        """Return the next records. See sources.Source."""
        until = self._clock.monotonic() + wait_s
        while True:
            if self._events is None:
                raise SourceError(f"{self._api.title} is not open")
            if self._error is not None:
                raise self._error
            self._wake.clear()
            poll = self._take(records_max, bytes_max, paused)
            self._feed(paused)
            left_s = until - self._clock.monotonic()
            if poll.chunks or poll.through or poll.ended or left_s <= 0:
                return poll
            await self._wait(left_s)

    def _take(self, records_max: int, bytes_max: int, paused: AbstractSet[Shard]) -> Poll:
        """Hand out what is at hand; nothing is awaited here, so a cancelled read loses nothing."""
        chunks: list[Chunk] = []
        through: dict[Shard, Position] = {}
        ended: list[Shard] = []
        for cursor in [cursor for name, cursor in self._cursors.items() if name not in paused]:
            if cursor.has_records:
                if records_max <= 0:
                    continue
                chunk, size = cursor.take(records_max=records_max, bytes_max=bytes_max, is_first=not chunks)
                if chunk is None:
                    records_max = 0
                    continue
                chunks.append(chunk)
                records_max -= len(chunk)
                bytes_max -= size
                self._cursors[cursor.name] = self._cursors.pop(cursor.name)  # the others first, next time
            elif (passed := cursor.take_passed()) is not None:
                through[cursor.name] = passed
            if cursor.has_ended:
                ended.append(cursor.name)
                del self._cursors[cursor.name]
                self._has_ended(cursor)
        return Poll(chunks=chunks, through=through, ended=ended)

    def _has_ended(self, cursor: ShardCursor) -> None:
        """Nothing follows; it is no cursor any more."""

    def _feed(self, paused: AbstractSet[Shard]) -> None:
        """Fetch a page of every shard that is wanted and has none."""
        held = sum(cursor.held_bytes for cursor in self._cursors.values())
        for name, cursor in self._cursors.items():
            cursor.is_wanted = name not in paused and held < HELD_MAX_BYTES
            if cursor.is_wanted and not cursor.is_fetching and not cursor.has_records and not cursor.is_closed:
                cursor.is_fetching = True
                self._spawn(self._fetch(cursor), cursor)

    def _spawn(self, work: "asyncio._CoroutineLike[None]", cursor: ShardCursor | None = None) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if cursor is not None:
                cursor.is_fetching = False
            if not task.cancelled() and (error := task.exception()) is not None:
                self._error = error
            self._wake.set()

        task.add_done_callback(done)
        return task

    async def _fetch(self, cursor: ShardCursor) -> None:
        """Get one page, when it may be asked for; what fails is asked for again, later."""
        if (early_s := cursor.due_at - self._clock.monotonic()) > 0:
            await self._clock.sleep(early_s)
        if not cursor.is_wanted:
            return
        async with self._calls:
            try:
                if cursor.needs_iterator(self._clock.monotonic()):
                    cursor.iterator = await self._api.iterator(cursor.name, cursor.next_start)
                    cursor.iterator_at = self._clock.monotonic()
                assert cursor.iterator is not None
                page = await self._api.page(cursor.iterator, records_max=self._api.limits.records_max)
            except ShardCallFailed as failure:
                await self._failed(cursor, failure)
            else:
                cursor.arrived(page, now=self._clock.monotonic())
                self._look_at(cursor)

    def _look_at(self, cursor: ShardCursor) -> None:
        """A page has come."""

    async def _failed(self, cursor: ShardCursor, failure: ShardCallFailed) -> None:
        """Decide what follows a call that failed. Raises SourceError: reading cannot go on."""
        now, trouble = self._clock.monotonic(), failure.trouble
        if failure.is_trimmed:
            self._lost(cursor, f"retention took what follows {cursor.seen}")
            cursor.trimmed()
            return
        if trouble.kind is AwsTroubleKind.EXPIRED_ITERATOR and cursor.failures < _EXPIRIES_MAX:
            cursor.expired()
            return
        if trouble.kind is AwsTroubleKind.NOT_FOUND and await self._is_gone(cursor):
            return
        if trouble.kind not in (AwsTroubleKind.THROTTLED, AwsTroubleKind.SERVICE, AwsTroubleKind.UNREACHABLE):
            cursor.iterator = None
        cursor.failed(trouble, now=now, rng=self._rng)
        log.warning(
            "shard_waits", mapping=self._mapping, shard=cursor.name, reason=trouble.message,
            wait_s=round(cursor.due_at - now, 1),
        )  # fmt: skip

    async def _is_gone(self, cursor: ShardCursor) -> bool:
        """Whether the stream lists a shard no more, of which the service says that it knows none; it ends then.

        Raises:
            SourceError: the stream itself is gone.
        """
        try:
            listed = await self._api.shards()
        except ShardCallFailed as failure:
            if failure.trouble.kind is AwsTroubleKind.NOT_FOUND:
                raise failure.as_source_error() from failure
            return False
        if cursor.name in listed:
            return False
        self._lost(cursor, "the stream has it no more")
        cursor.is_closed = True
        return True

    def _lost(self, cursor: ShardCursor, reason: str) -> None:
        telemetry.RECORDS_LOST.labels(mapping=self._mapping).inc()
        log.error("records_lost", mapping=self._mapping, shard=cursor.name, position=str(cursor.through), reason=reason)

    async def _wait(self, delay_s: float) -> None:
        """Wait until something has come, at most so long."""
        waits = {
            asyncio.create_task(self._clock.sleep(delay_s)),
            asyncio.create_task(self._wake.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    def behind_s(self) -> Mapping[Shard, float]:
        """Return what the last page of each shard said (Kinesis). See sources.Source."""
        return {name: cursor.behind_s for name, cursor in self._cursors.items() if cursor.behind_s is not None}

    def behind(self, marks: Mapping[Shard, Position]) -> Mapping[Shard, int | None]:
        """Return None for each: sequence numbers say nothing about how many there are. See sources.Source."""
        return dict.fromkeys(marks)

    async def _leave(self, shards: Collection[Shard]) -> None:
        """Hand the shards back, while marks may still be committed, then end every call."""
        events, self._events = self._events, None
        try:
            if events is not None and shards:
                async with asyncio.timeout(limits.REVOKE_MAX_S):
                    await events.revoking(frozenset(shards), deadline_s=limits.REVOKE_MAX_S)
        except TimeoutError:
            log.warning("revocation_late", mapping=self._mapping, waited_s=limits.REVOKE_MAX_S)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._cursors.clear()
            self._wake.set()
