"""Finds the last record of an open shard: no call tells it, so the end of the shard is read."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from bridge.aws.errors import AwsTroubleKind
from bridge.core.ports import Clock
from bridge.core.stream import Position
from bridge.sources.pull.lineage import ListedShard
from bridge.sources.pull.shard_api import OLDEST, Page, ShardApi, ShardCallFailed, Start
from bridge.sources.pull.shard_cursor import is_since

Found = TypeVar("Found")

CLOCKS_APART_S: Final = 2.0
"""Our clock and the service's are at most so far apart (`ServiceClock`)."""
LOOK_BACK_S: Final = (CLOCKS_APART_S, 60.0, 3600.0, 86_400.0)
"""Before now: how far the last record of an open shard is looked for, one after the other; then in all of it."""
EMPTIES_MAX: Final = 3
"""Pages in a row without a record, where the service does not say how far behind they are: that is the tip."""
_TRIES_MAX: Final = 6
_TRY_AGAIN_S: Final = 1.0
_PASSING: Final = frozenset({AwsTroubleKind.THROTTLED, AwsTroubleKind.SERVICE, AwsTroubleKind.UNKNOWN_OUTCOME})


def is_at_tip(behind_s: float | None, empties: int) -> bool:
    """Whether nothing lies behind a page: so far behind it was, so many pages in a row brought nothing."""
    return empties >= EMPTIES_MAX if behind_s is None else behind_s == 0


class Tips:
    """Looks for the tips of one stream's shards as of now.

    Args:
        api: the stream, described.
        clock: paces the calls.
    """

    def __init__(self, api: ShardApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self.now = api.now()
        """The service's time: what comes a second later does not count."""

    async def find(self, shard: ListedShard, *, live: Position | None) -> Position:
        """Return the last sequence number of an open shard; the one before its first when there is none.

        Args:
            shard: as it is listed.
            live: how far the mapping has read it, which makes it shorter where there are no times.

        Raises:
            ShardCallFailed
        """
        if self._api.has_times:
            for back_s in LOOK_BACK_S:
                found, _ = await self.last_from(shard, Start(time=self.now - back_s))
                if found is not None:
                    return found
        elif live is not None and live >= shard.first:
            try:
                return (await self.last_from(shard, Start(after=live)))[0] or live
            except ShardCallFailed as failure:
                if not failure.is_trimmed:
                    raise
        found, _ = await self.last_from(shard, OLDEST)
        return shard.first - 1 if found is None else found

    async def last_from(
        self, shard: ListedShard, start: Start, *, pages_max: int | None = None
    ) -> tuple[Position | None, bool]:
        """Return the last sequence number from `start` on, None where there is none; and whether the tip was reached.

        Raises:
            ShardCallFailed
        """
        api, found, empties, pages = self._api, None, 0, 0
        iterator: str | None = await self.patiently(lambda: api.iterator(shard.name, start))
        while iterator is not None:
            page = await self.patiently(self._asking(iterator))
            here = [record for record in page.records if not is_since(api, record, self.now + 1)]
            found = api.position(here[-1]) if here else found
            empties = 0 if page.records else empties + 1
            pages += 1
            if len(here) < len(page.records) or is_at_tip(page.behind_s, empties):
                return found, True
            if pages == pages_max:
                return found, False
            iterator = page.iterator
            await self._clock.sleep(api.limits.wait_s(size=page.size, is_behind=True))
        return found, True

    def _asking(self, iterator: str) -> Callable[[], Awaitable[Page]]:
        return lambda: self._api.page(iterator, records_max=self._api.limits.records_max)

    async def patiently(self, call: Callable[[], Awaitable[Found]]) -> Found:
        """Return what a call returns, which is tried again while the service is busy. Raises ShardCallFailed."""
        for number in range(1, _TRIES_MAX):
            try:
                return await call()
            except ShardCallFailed as failure:
                if failure.trouble.kind not in _PASSING:
                    raise
                await self._clock.sleep(_TRY_AGAIN_S * number)
        return await call()
