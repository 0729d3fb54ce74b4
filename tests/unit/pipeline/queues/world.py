"""A mapping over a scripted queue on virtual time, with a function that follows a script."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Self

import orjson

from bridge.core.errors import FunctionNotFound
from bridge.core.invocation import Invocation, InvocationResult, ResultKind
from bridge.core.mapping import EventSourceMapping, FunctionResponseType
from bridge.pipeline.queues.settings import QueueWork
from bridge.pipeline.queues.worker import QueueWorker
from bridge.testing.queue import ScriptedQueue
from bridge.testing.virtual import VirtualClock, VirtualLoop

REPORTS = (FunctionResponseType.REPORT_BATCH_ITEM_FAILURES,)


class Boom(Exception):
    """What a scripted function raises."""


class Version:
    timeout_s = 3


class Target:
    invoked_arn = "arn:aws:lambda:us-east-1:000000000000:function:f"

    def __init__(self) -> None:
        self.version = Version()


class Call:
    def __init__(self, at: float, event: dict[str, Any]) -> None:
        self.at = at
        self.records = event["Records"]
        self.trace = ""

    @property
    def values(self) -> list[Any]:
        return [record["body"] for record in self.records]

    @property
    def ids(self) -> list[str]:
        return [record["messageId"] for record in self.records]


class Function:
    """`Slots`: `script(call)` returns the answer, or raises Boom or an InvokeError."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.script: Callable[[Call], Any] = lambda _call: None
        self.duration_s: Callable[[Call], float] = lambda _call: 0.01
        self.slots = 100
        self.exists = True
        self.target = Target()
        self.calls: list[Call] = []
        self.running = 0
        self.running_max = 0
        self.freed: Callable[[], None] = lambda: None
        self.trace: Callable[[str, str], str] = lambda _request_id, _name: ""

    def resolve(self, target: str) -> Target:
        if not self.exists:
            raise FunctionNotFound(f"Function not found: {target}")
        return self.target

    def hindrance(self, _target: Target) -> str:
        return ""

    def room(self, _target: Target) -> int:
        return self.slots - self.running

    def begin(self, target: Target) -> Target:
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        return target

    async def run(self, _slot: Target, invocation: Invocation) -> InvocationResult:
        call = Call(self.clock.monotonic(), orjson.loads(invocation.payload))
        call.trace = self.trace(invocation.request_id, "f")
        self.calls.append(call)
        try:
            await self.clock.sleep(self.duration_s(call))
            answer = self.script(call)
        except Boom as error:
            return InvocationResult(
                kind=ResultKind.FUNCTION_ERROR,
                payload=b"{}",
                version="$LATEST",
                error_type="Boom",
                error_message=str(error),
            )
        finally:
            self.running -= 1
            self.freed()
        payload = answer if isinstance(answer, bytes) else orjson.dumps(answer)
        return InvocationResult(kind=ResultKind.OK, payload=payload, version="$LATEST")

    @property
    def batches(self) -> list[list[Any]]:
        return [call.values for call in self.calls]


class World:
    """A queue, a function and the worker between them."""

    def __init__(
        self,
        clock: VirtualClock,
        *,
        queue: dict[str, Any] | None = None,
        work: dict[str, Any] | None = None,
        **mapping: Any,
    ) -> None:
        self.clock = clock
        self.queue = ScriptedQueue(clock, **(queue or {}))
        self.function = Function(clock)
        self.mapping = EventSourceMapping(name="m", source="x", function="f", **({"batch_size": 10} | mapping))
        self.more = work or {}
        self.tasks: list[asyncio.Task[None]] = []
        self.make()

    def make(self) -> None:
        self.worker = QueueWorker(
            QueueWork(
                mapping=self.mapping,
                shape=self.queue.shape,
                make_source=self.queue.consumer,
                slots=self.function,
                clock=self.clock,
                rng=random.Random(1),
                **self.more,
            )
        )
        self.function.freed = self.worker.kick

    async def __aenter__(self) -> Self:
        self.start()
        await self.clock.sleep(0)
        return self

    def start(self) -> None:
        self.task = asyncio.create_task(self.worker.run())

    async def __aexit__(self, *_: object) -> None:
        await self.worker.drain(deadline_s=0.0)
        await self.cut()

    async def cut(self) -> None:
        """End at once, as kill -9 does."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.worker.stop()

    async def crash(self) -> None:
        """End without another word to the queue, and start anew."""
        await self.cut()
        self.make()
        self.start()

    async def until(self, holds: Callable[[], bool], *, within_s: float = 300.0) -> None:
        """Wait in virtual time."""
        until = self.clock.monotonic() + within_s
        while not holds():
            assert self.clock.monotonic() < until, "it does not come to hold"
            await self.clock.sleep(0.05)

    async def empty(self, *, within_s: float = 300.0) -> None:
        await self.until(lambda: not self.queue.stored, within_s=within_s)


def virtually(story: Callable[[VirtualClock], Awaitable[None]]) -> None:
    """Run a story on a loop whose time jumps to the next timer."""
    loop = VirtualLoop()
    try:
        task = loop.create_task(story(VirtualClock(loop)))  # type: ignore[arg-type]
        while not task.done():
            wait_s = loop.run_until_idle()
            if task.done():
                break
            assert wait_s is not None, "nothing is left that could happen"
            loop.advance(wait_s)
        task.result()
    finally:
        for left in asyncio.all_tasks(loop):
            left.cancel()
        loop.run_until_idle()
        loop.close()
