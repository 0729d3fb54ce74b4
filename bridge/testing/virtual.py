"""An event loop whose time passes only when it is told to: hours of retries and windows run in milliseconds."""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what can run and then stops instead of waiting: `run_until_idle`, then `advance` to the next timer.

    `asyncio.sleep`, `asyncio.timeout` and every other timer go by its time. Nothing runs in threads: what is given
    to an executor (`asyncio.to_thread`) runs at once, in the loop.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._idle = _IdleSelector()
        super().__init__(self._idle)
        self._idle.on_idle = self.stop

    def time(self) -> float:
        """Return the virtual seconds so far."""
        return self._now_s

    def run_until_idle(self) -> float | None:
        """Run until nothing is left to do now; returns the seconds to the next timer, None when there is none."""
        self._idle.wait_s = None
        self.run_forever()
        return self._idle.wait_s

    def advance(self, seconds: float) -> None:
        """Let time pass; what becomes due runs in the next `run_until_idle`."""
        self._now_s += seconds

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> "asyncio.Future[_T]":
        """Call it now."""
        del executor
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the caller's, as from a thread
            future.set_exception(error)
        return future


class _IdleSelector(selectors.DefaultSelector):
    """Never waits: says that the loop would."""

    def __init__(self) -> None:
        super().__init__()
        self.wait_s: float | None = None
        self.on_idle: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now."""
        if timeout is not None and timeout <= 0:
            return []
        ready = super().select(0)
        if not ready:
            self.wait_s = timeout
            self.on_idle()
        return ready


class VirtualClock:
    """`ports.Clock` of a `VirtualLoop`; begins at 2026-01-01T00:00:00Z unless told otherwise."""

    def __init__(self, loop: VirtualLoop, *, time: float = 1_767_225_600.0) -> None:
        self._loop = loop
        self._start = time - loop.time()

    def time(self) -> float:
        """Wall clock at start + monotonic."""
        return self._start + self._loop.time()

    def stepped(self) -> float:
        """The same: nobody steps it."""
        return self.time()

    def monotonic(self) -> float:
        """The loop's time."""
        return self._loop.time()

    async def sleep(self, delay_s: float) -> None:
        """Sleep in the loop's time."""
        await asyncio.sleep(delay_s)
