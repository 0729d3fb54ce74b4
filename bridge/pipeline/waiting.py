"""What the workers of streams and of queues wait with: a timer, a condition, the first of several things, helpers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bridge.core.ports import Clock


class Alarm:
    """One timer: `set` plans a call of `ring` unless an earlier one is planned already."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._planned: tuple[float, asyncio.Task[None]] | None = None

    def set(self, due: float | None) -> None:
        """Call back at that monotonic time; None: not at all."""
        if self._planned is not None:
            at, task = self._planned
            if due is not None and not task.done() and at <= due:
                return
            task.cancel()
            self._planned = None
        if due is not None:
            self._planned = due, asyncio.create_task(self._wait(due))

    async def _wait(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        self._planned = None
        self._ring()


class Changes:
    """Wakes whoever waits for a condition: `tell` says that something it depends on has changed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Have the conditions looked at again."""
        self._event.set()

    async def wait(self, predicate: Callable[[], bool], *, deadline_s: float | None = None) -> bool:
        """Wait until `predicate()` holds, at most `deadline_s` seconds; returns whether it does."""
        timer = None if deadline_s is None else asyncio.create_task(self._clock.sleep(deadline_s))
        try:
            while not predicate() and (timer is None or not timer.done()):
                self._event.clear()
                await first_of(self._event.wait(), timer)
        finally:
            if timer is not None:
                timer.cancel()
        return predicate()


def watched(work: Coroutine[Any, Any, None], failed: Callable[[Exception], None]) -> "asyncio.Task[None]":
    """Run it as a task; `failed` hears what ended it by a bug of ours: nobody awaits it while all goes well."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            failed(error)

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    return task


async def first_of(*work: "Coroutine[Any, Any, Any] | asyncio.Task[Any] | None") -> None:
    """Wait until one of them ends; what was no task before ends with it."""
    tasks = [each if isinstance(each, asyncio.Task) else asyncio.create_task(each) for each in work if each]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if task not in work:
                task.cancel()
