"""Tasks that fail loudly: a background task that ends unexpectedly is restarted, counted, and shown."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

log = structlog.get_logger("bridge.tasks")

SWITCH_INTERVAL_S: Final = 0.0005
"""`sys.setswitchinterval` of a daemon: its writer threads need the interpreter for microseconds, often; with Python's
5 ms each hand-over would take most of a commit's time."""


class SupportsTime(Protocol):
    """The part of a clock that supervision needs."""

    def monotonic(self) -> float:
        """Seconds that only move forward."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Sleep; cancellable."""
        ...


@dataclass(slots=True)
class _Supervised:
    name: str
    start: Callable[[], Awaitable[None]]
    task: asyncio.Task[None] | None = None
    failures: deque[float] = field(default_factory=deque)
    state: str = "running"
    reason: str = ""


class Supervisor:
    """Keeps named tasks running: restart after `delays_s`, FAILED after `failures_max` in `window_s`.

    A task that returns is done; a task that raises is restarted. `failed()` names those given up, and
    readiness says so.
    """

    def __init__(
        self,
        *,
        clock: SupportsTime,
        delays_s: tuple[float, ...],
        failures_max: int,
        window_s: float,
    ) -> None:
        self._clock = clock
        self._delays_s = delays_s
        self._failures_max = failures_max
        self._window_s = window_s
        self._tasks: dict[str, _Supervised] = {}
        self._once: set[asyncio.Task[Any]] = set()

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run()` for as long as the daemon lives; `name` shows in logs and readiness."""
        supervised = _Supervised(name=name, start=run)
        self._tasks[name] = supervised
        supervised.task = asyncio.create_task(self._keep(supervised), name=name)

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run a coroutine once; if it raises, that is logged with its name, never lost."""
        task = asyncio.create_task(work, name=name)
        self._once.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._once.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), error=repr(error), exc_info=error)

    async def _keep(self, supervised: _Supervised) -> None:
        while True:
            try:
                await supervised.start()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # the task boundary: nothing may die silently
                now = self._clock.monotonic()
                supervised.failures.append(now)
                while supervised.failures and supervised.failures[0] < now - self._window_s:
                    supervised.failures.popleft()
                supervised.reason = f"{type(error).__name__}: {error}"
                log.exception("task_failed", task=supervised.name)
                if len(supervised.failures) >= self._failures_max:
                    supervised.state = "FAILED"
                    return
                supervised.state = "restarting"
                await self._clock.sleep(self._delays_s[min(len(supervised.failures), len(self._delays_s)) - 1])
                supervised.state = "running"
            else:
                supervised.state = "ended"
                return

    def failed(self) -> dict[str, str]:
        """Return the tasks that were given up, with the last error."""
        return {name: task.reason for name, task in self._tasks.items() if task.state == "FAILED"}

    async def stop(self, name: str) -> None:
        """Cancel one task and wait for its end."""
        supervised = self._tasks.pop(name, None)
        if supervised is not None and supervised.task is not None:
            supervised.task.cancel()
            await asyncio.gather(supervised.task, return_exceptions=True)

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        tasks = [*(s.task for s in self._tasks.values() if s.task is not None), *self._once]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
