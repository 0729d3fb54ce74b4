"""A mapping over a scripted stream on virtual time, with a function that follows a script."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Self

import orjson

from bridge.core.errors import DestinationError, FunctionNotFound, InvokeError, SourceError
from bridge.core.invocation import DeadLetter, Invocation, InvocationResult, ResultKind
from bridge.core.mapping import EventSourceMapping, FunctionResponseType
from bridge.core.sources import PartialAnswer
from bridge.pipeline.streams.settings import Work
from bridge.pipeline.streams.worker import MappingWorker
from bridge.testing.clock import ManualClock, settle
from bridge.testing.source import ScriptedShape, ScriptedStream

SOURCE_GONE = SourceError("gone")
REPORTS = (FunctionResponseType.REPORT_BATCH_ITEM_FAILURES,)


class Boom(Exception):
    """What a scripted function raises."""


class Version:
    timeout_s = 3


class Target:
    version = Version()

    def __init__(self, name: str) -> None:
        self.invoked_arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"


class Call:
    def __init__(self, at: float, event: dict[str, Any], invocation: Invocation) -> None:
        self.at = at
        self.event = event
        self.invocation = invocation
        self.ended = False

    @property
    def values(self) -> list[Any]:
        return [record["value"] for record in self.event["Records"]]


class Function:
    """`Slots`: `script(call, number)` returns the answer, raises Boom, InvokeError, or returns an InvocationResult."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.script: Callable[[Call, int], Any] = lambda _call, _number: None
        self.duration_s = 0.0
        self.slots = 100
        self.exists = True
        self.calls: list[Call] = []
        self.running = 0
        self.running_max = 0
        self.freed: Callable[[], None] = lambda: None

    def resolve(self, target: str) -> Target:
        if not self.exists:
            raise FunctionNotFound(f"Function not found: {target}")
        return Target(target)

    def hindrance(self, _target: Target) -> str:
        return ""

    def room(self, _target: Target) -> int:
        return self.slots - self.running

    def begin(self, target: Target) -> Target:
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        return target

    async def run(self, _slot: Target, invocation: Invocation) -> InvocationResult:
        call = Call(self.clock.monotonic(), orjson.loads(invocation.payload), invocation)
        self.calls.append(call)
        try:
            if self.duration_s:
                await self.clock.sleep(self.duration_s)
            else:
                await asyncio.sleep(0)
            answer = self.script(call, len(self.calls))
        except Boom as error:
            text = orjson.dumps({"errorMessage": str(error), "errorType": "Boom"})
            return InvocationResult(
                kind=ResultKind.FUNCTION_ERROR,
                payload=text,
                version="$LATEST",
                error_type="Boom",
                error_message=str(error),
            )
        finally:
            self.running -= 1
            call.ended = True
            self.freed()
        if isinstance(answer, InvocationResult):
            return answer
        return InvocationResult(kind=ResultKind.OK, payload=orjson.dumps(answer), version="$LATEST")

    @property
    def batches(self) -> list[list[Any]]:
        return [call.values for call in self.calls]


class Letters:
    """`ports.Destination` that remembers."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.fail_with: DestinationError | None = None

    async def send(self, letter: DeadLetter) -> None:
        await asyncio.sleep(0)
        if self.fail_with is not None:
            raise self.fail_with
        self.letters.append(letter)

    @property
    def values(self) -> list[list[Any]]:
        return [[record["value"] for record in orjson.loads(letter.payload)["Records"]] for letter in self.letters]

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        return [orjson.loads(letter.outcome) for letter in self.letters]


class World:
    def __init__(
        self,
        *,
        shards: tuple[str, ...] = ("s-0",),
        mixes_shards: bool = False,
        partial_answer: PartialAnswer = PartialAnswer.FROM_LOWEST,
        seed: int = 1,
        keeps: Any = None,
        work: dict[str, Any] | None = None,
        **mapping: Any,
    ) -> None:
        self.clock = ManualClock()
        shape = ScriptedShape(mixes_shards=mixes_shards, partial_answer=partial_answer)
        self.stream = ScriptedStream(self.clock, shards=shards, shape=shape)
        self.function = Function(self.clock)
        self.letters = Letters()
        self.spill = Letters()
        self.mapping = EventSourceMapping(name="m", source="x", function="f", **mapping)
        self.seed = seed
        self.keeps = keeps
        self.more = work or {}
        self.task: asyncio.Task[None] | None = None
        self.worker = self.make()

    def make(self) -> MappingWorker:
        worker = MappingWorker(
            Work(
                mapping=self.mapping,
                shape=self.stream.shape,
                make_source=self.stream.consumer,
                slots=self.function,
                destination=self.letters,
                spill=self.spill,
                clock=self.clock,
                keeps=self.keeps,
                rng=random.Random(self.seed),
                **self.more,
            )
        )
        self.function.freed = worker.kick
        return worker

    async def __aenter__(self) -> Self:
        self.start()
        await settle(30)
        return self

    def start(self) -> None:
        self.task = asyncio.create_task(self.worker.run())

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Stop as a drained daemon does, then cut what still runs."""
        if self.task is None:
            return
        drain = asyncio.create_task(self.worker.drain(deadline_s=0.0))
        await settle(30)
        await self.clock.advance(0.001)
        await drain
        await self.cut()

    async def cut(self) -> None:
        """End at once, as kill -9 does, but for the leave of the source."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.worker.stop()
        self.task = None

    async def crash(self) -> None:
        """End without another commit, and start anew."""
        assert self.stream.live is not None
        self.stream.live._mine.clear()
        self.stream.commit_fails_with = SOURCE_GONE
        await self.cut()
        self.stream.commit_fails_with = None
        self.worker = self.make()
        self.start()
        await settle(30)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await settle(30)


__all__ = ["REPORTS", "Boom", "Call", "Function", "InvokeError", "World"]
