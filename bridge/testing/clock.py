"""A clock that tests own: time moves when the test says so, and whoever sleeps wakes in order."""

import asyncio
import heapq
import itertools


class ManualClock:
    """`ports.Clock` for tests: `advance()` moves it and lets due sleepers run."""

    def __init__(self, *, time: float = 1_767_225_600.0) -> None:
        self._wall = time
        self._monotonic = 0.0
        self._step = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Wall clock at start + monotonic."""
        return self._wall + self._monotonic

    def stepped(self) -> float:
        """The wall clock with the steps that `step()` made."""
        return self.time() + self._step

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._monotonic

    def step(self, seconds: float) -> None:
        """Step the system's wall clock, as an operator or NTP would; monotonic time does not move."""
        self._step += seconds

    async def sleep(self, delay_s: float) -> None:
        """Sleep until `advance()` has passed the due time."""
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + delay_s, next(self._order), future))
        await future

    @property
    def sleepers(self) -> int:
        """How many sleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def next_due(self) -> float | None:
        """Monotonic time of the next sleeper; None when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`, waking sleepers in order of their due time."""
        target = self._monotonic + seconds
        await settle()
        while (due := self.next_due()) is not None and due <= target:
            self._monotonic = max(self._monotonic, due)
            heapq.heappop(self._sleepers)[2].set_result(None)
            await settle()
        self._monotonic = target
        await settle()


async def settle(passes: int = 10) -> None:
    """Let every task that can run do so: `passes` rounds of the loop."""
    for _ in range(passes):
        await asyncio.sleep(0)
