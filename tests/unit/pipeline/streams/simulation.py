"""A seeded life of one mapping: random settings, functions and faults, watched by a model that knows only the rules.

One seed is one run: `simulate(seed)` raises `Broken` with the seed when a rule of the delivery engine does not hold.
"""

import asyncio
import heapq
import random
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from bridge.core.errors import DestinationError, FunctionNotFound, SourceError, Throttled
from bridge.core.invocation import THROTTLE_RESERVED, DeadLetter, Invocation, InvocationResult, ResultKind
from bridge.core.sources import PartialAnswer
from bridge.core.stream import Chunk
from bridge.pipeline.streams import forming
from bridge.pipeline.streams.settings import PAYLOAD_MAX_BYTES
from bridge.testing.clock import ManualClock
from bridge.testing.source import ScriptedShape, ScriptedSource, ScriptedStream
from tests.unit.pipeline.streams.model import Broken, CheckedCommits, Id, Model, named
from tests.unit.pipeline.streams.world import REPORTS, SOURCE_GONE, Target, World

HANGS_S = 120
"""Real seconds: no run takes a tenth of it."""
BAD_ANSWERS: tuple[Any, ...] = (
    "hello",
    5,
    [1],
    {"batchItemFailures": "x"},
    {"batchItemFailures": [{"itemIdentifier": ""}]},
    {"batchItemFailures": [{"itemIdentifier": None}]},
    {"batchItemFailures": [{"foo": 1}]},
    {"batchItemFailures": [{"itemIdentifier": "s-9:999"}]},
    {"batchItemFailures": [{"itemIdentifier": 7}]},
)


class _NoFiles(selectors.SelectSelector):
    """Nothing here waits for a file: a pass of the loop need not ask the system."""

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout:  # nothing is left to run: only a deadlock waits for real time
            time.sleep(min(timeout, 0.05))
        return []


class SimLoop(asyncio.SelectorEventLoop):
    """Runs what is ready in an order that a seed decides (None: first come): nothing may lean on that of callbacks."""

    def __init__(self, rng: random.Random | None) -> None:
        super().__init__(_NoFiles())
        self._rng = rng

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        if self._rng is not None and len(ready) > 1:
            shuffled = list(ready)
            self._rng.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        super()._run_once()  # type: ignore[misc]


async def quiesce() -> None:
    """Let everything run that can."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    for _ in range(200):
        if not ready:
            break
        await asyncio.sleep(0)


class SimClock(ManualClock):
    """Moves on as soon as nothing is left to run, instead of after a number of passes."""

    async def advance(self, seconds: float) -> None:
        target = self._monotonic + seconds
        await quiesce()
        while (due := self.next_due()) is not None and due <= target:
            self._monotonic = max(self._monotonic, due)
            heapq.heappop(self._sleepers)[2].set_result(None)
            await quiesce()
        self._monotonic = target


# --- the world around the engine ------------------------------------------------------------------


class SimSource(ScriptedSource):
    """Reads in pieces of random size, now and then slowly; tells the model of every assignment."""

    async def assign(self, names: Any) -> None:
        for name in names:
            self._stream.model.assigned(name)
            self._stream.away.discard(name)
        await super().assign(names)

    async def read(self, *, records_max: int, bytes_max: int, wait_s: float, paused: Any) -> Any:
        rng = self._stream.rng
        if rng.random() < self._stream.slowness:
            await self._stream.clock.sleep(rng.uniform(0, 3))
        most = rng.choice((1, 2, 5, 1000))
        return await super().read(records_max=min(records_max, most), bytes_max=bytes_max, wait_s=wait_s, paused=paused)


class SimStream(ScriptedStream):
    model: Model
    rng: random.Random
    clock: ManualClock
    away: set[str]
    slowness: float
    """How likely a read takes long."""

    def consumer(self) -> SimSource:
        return SimSource(self, self._clock)


class SimFunction:
    """`Slots` of a function that does anything."""

    def __init__(self, world: "SimWorld") -> None:
        self.world = world
        self.slots = 100
        self.running = 0
        self.exists = True
        self.trouble = 0.0
        """How likely an invocation does not go well."""
        self.slow_s = 0.0
        self.calls = 0
        self.freed = lambda: None

    def resolve(self, target: str) -> Target:
        if not self.exists:
            raise FunctionNotFound(f"Function not found: {target}")
        return Target(target)

    def hindrance(self, _target: Target) -> str:
        return ""

    def room(self, _target: Target) -> int:
        return self.slots - self.running

    def begin(self, target: Target) -> Target:
        if target is None or self.room(target) <= 0:
            self.world.model.fail("begun without a slot")
        self.running += 1
        return target

    async def run(self, _slot: Target, invocation: Invocation) -> InvocationResult:
        world, rng = self.world, self.world.rng
        self.calls += 1
        number = self.calls
        event = orjson.loads(invocation.payload)
        records = [named(record) for record in event["Records"]]
        try:
            world.model.start(number, records, len(invocation.payload))
            await world.clock.sleep(rng.choice((0.0, rng.uniform(0, 1), self.slow_s)))
            return self._outcome(number, event, records)
        finally:
            world.model.running.pop(number, None)
            self.running -= 1
            self.freed()

    def _outcome(self, number: int, event: dict[str, Any], records: list[Id]) -> InvocationResult:
        rng, model = self.world.rng, self.world.model
        is_poisoned = self.trouble and any(record["value"]["poison"] for record in event["Records"])
        kind = "error" if is_poisoned and rng.random() < 0.9 else "ok"
        if kind == "ok" and rng.random() < self.trouble:
            kind = rng.choice(("error", "throttle", "unknown", "partial", "partial", "bad"))
        reports = self.world.mapping.reports_item_failures
        answer: Any = {"state": {"n": event["state"].get("n", 0) + len(records)}} if "state" in event else None
        if kind == "error":
            model.stop(number, [], in_order=False)
            return result(ResultKind.FUNCTION_ERROR, {"errorMessage": "no"})
        if kind == "throttle":
            model.stop(number, [], in_order=False)
            raise Throttled(THROTTLE_RESERVED)
        if kind == "unknown":
            model.stop(number, [], in_order=False)
            return result(ResultKind.UNKNOWN, None)
        if kind == "bad" and (reports or answer is not None):
            model.stop(number, [], in_order=False)
            return result(ResultKind.OK, rng.choice(BAD_ANSWERS))
        listed = [record for record in records if rng.random() < 0.5] if kind == "partial" else []
        handled = list(records)
        if listed:
            answer = {**(answer or {}), "batchItemFailures": [{"itemIdentifier": f"{s}:{p}"} for s, p in listed]}
        if listed and reports:
            if self.world.stream.shape.partial_answer is PartialAnswer.LISTED:
                handled = [record for record in records if record not in listed]
            else:
                handled = records[: records.index(listed[0])]
        in_order = self.world.stream.shape.partial_answer is PartialAnswer.FROM_LOWEST or not reports
        model.stop(number, handled, in_order=in_order)
        return result(ResultKind.OK, answer)


def result(kind: ResultKind, answer: Any) -> InvocationResult:
    return InvocationResult(kind=kind, payload=orjson.dumps(answer), version="1", error_type="E" * (kind != "ok"))


class SimLetters:
    """`Destination` that the model hears of."""

    def __init__(self, world: "SimWorld") -> None:
        self.world = world
        self.fails = False

    async def send(self, letter: DeadLetter) -> None:
        model = self.world.model
        records = {named(record) for record in orjson.loads(letter.payload)["Records"]}
        model.sending.append(records)
        try:
            await self.world.clock.sleep(self.world.rng.choice((0.0, 0.0, 0.5)))
            if self.fails:
                raise DestinationError("down")
            model.letter(letter)
        except DestinationError:
            model.unsent |= records
            raise
        finally:
            model.sending.remove(records)


class SimWorld(World):
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        mixes = rng.random() < 0.3
        windowed = not mixes and rng.random() < 0.12
        partial = PartialAnswer.LISTED if mixes else rng.choice(list(PartialAnswer))
        settings: dict[str, Any] = {
            "batch_size": rng.choice((1, 2, 3, 5, 10)),
            "maximum_batching_window_s": rng.choice((0, 0, 0.5, 2)),
            "parallelization_factor": 1 if windowed else rng.choice((1, 1, 2, 4)),
            "maximum_retry_attempts": rng.choice((-1, -1, 0, 1, 3)),
            "maximum_record_age_s": rng.choice((-1, -1, 60, 61)),
            "bisect_batch_on_function_error": rng.random() < 0.4,
            "function_response_types": rng.choice(((), REPORTS)),
            "maximum_concurrency": rng.choice((None, None, 1, 2, 3)),
            "tumbling_window_s": rng.choice((7, 30)) if windowed else 0,
        }
        work: dict[str, Any] = {"buffer_records_max": rng.choice((4, 20, 20_000))}
        if rng.random() < 0.2:
            work["archive"] = self.archive
        shards = tuple(f"s-{number}" for number in range(rng.randint(1, 4)))
        super().__init__(seed=rng.getrandbits(32), work=work, **settings)
        self.payload_max = PAYLOAD_MAX_BYTES if rng.random() < 0.7 else 900
        self.filters = rng.random() < 0.3
        if self.filters:
            self.keeps = lambda chunk: [i for i, value in enumerate(chunk.values) if orjson.loads(value)["keep"]]
        self.clock = SimClock()
        shape = ScriptedShape(mixes_shards=mixes, partial_answer=partial)
        shape.overhead_bytes = 250 if windowed else 64
        self.stream: SimStream = SimStream(self.clock, shards=shards, shape=shape)
        self.stream.rng, self.stream.clock = rng, self.clock
        self.stream.slowness = rng.choice((0.0, 0.1, 0.6))
        self.stream.away = set()
        self.model = self.stream.model = Model(self.stream, self.clock, self.mapping)
        self.stream.commits = CheckedCommits()
        self.stream.commits.model = self.model
        self.function: Any = SimFunction(self)
        self.letters: Any = SimLetters(self)
        self.spill: Any = SimLetters(self)
        self.takes: set[asyncio.Task[None]] = set()
        self.trouble_at = -100.0
        """When commits or the source failed last."""
        self.numbers = 0

    async def archive(self, _chunk: Chunk) -> None:
        await self.clock.sleep(self.rng.choice((0.0, 0.2, 6.0)))

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def cut(self) -> None:
        """End at once; the leave of the source may wait for what runs."""
        assert self.task is not None
        self.task.cancel()
        while not self.task.done():
            await self.advance(0.5)
        await self.worker.stop()
        self.task = None

    # --- steps ---

    def put(self) -> None:
        rng = self.rng
        shard = rng.choice(list(self.stream.shards))
        for _ in range(rng.randint(1, 15)):
            self.numbers += 1
            keep = not self.filters or rng.random() < 0.6
            pad = rng.choice((0, 0, 10, 100, 100, 100, 1000)) if self.payload_max < 1000 else 0
            key = rng.choice((None, b"a", b"b", b"c", b"d"))
            value = {"n": self.numbers, "keep": keep, "poison": rng.random() < 0.04, "pad": "x" * pad}
            age = rng.choice((0.0,) * 8 + (50.0, 100.0)) if self.mapping.maximum_record_age_s > 0 else 0.0
            self.stream.put(value, shard=shard, key=key, time=self.clock.time() - age)
            if keep:
                self.model.put(shard, self.stream.shards[shard].records[-1].position, key)
            if rng.random() < 0.05:
                self.stream.skip(rng.randint(1, 3), shard=shard)

    def take(self) -> None:
        live = self.stream.live
        names = [name for name in live._mine if name not in self.stream.away] if live is not None else []
        if names and self.stream.fail_with is None:
            name = self.rng.choice(names)
            self.stream.away.add(name)
            self.takes.add(asyncio.create_task(self.stream.take(name)))

    def lose(self) -> None:
        live = self.stream.live
        names = [name for name in live._mine if name not in self.stream.away] if live is not None else []
        if names:
            name = self.rng.choice(names)
            live._mine.pop(name)
            live._events.lost({name})
            self.stream.away.add(name)

    async def give(self) -> None:
        live = self.stream.live
        names = [name for name in self.stream.away if live is not None and name not in live._mine]
        if names and self.stream.fail_with is None and live._mine is not None and self.is_open:
            await self.stream.give(self.rng.choice(sorted(names)))

    @property
    def is_open(self) -> bool:
        return self.worker._commits.source is self.stream.live and self.stream.live is not None

    async def finish_takes(self) -> None:
        while self.takes:
            await self.advance(1)
            self.takes = {task for task in self.takes if not task.done()}

    async def die(self) -> None:
        """Crash and start anew."""
        for task in self.takes:
            task.cancel()
        await asyncio.gather(*self.takes, return_exceptions=True)
        self.takes.clear()
        if self.clock.monotonic() - self.trouble_at > 2 and self.is_open:
            self.model.crashes()
        broken = self.stream.commit_fails_with
        self.stream.live = self.stream.live or self.stream.consumer()
        await self.crash()
        self.stream.commit_fails_with = broken

    async def restart(self) -> None:
        """Drain, and start anew."""
        await self.finish_takes()
        drain = asyncio.create_task(self.worker.drain(deadline_s=self.rng.choice((0.0, 1.0, 25.0))))
        while not drain.done():
            await self.advance(1)
        await self.cut()
        self.worker = self.make()
        self.start()
        await self.advance(0)

    async def step(self, faulty: bool) -> None:
        rng, stream, function = self.rng, self.stream, self.function
        for _ in range(rng.randint(0, 2)):
            self.put()
        if faulty:
            match rng.randint(0, 17):
                case 0 | 1:
                    await self.die()
                case 2 | 3:
                    self.take()
                case 4:
                    self.lose()
                case 5 | 6 | 7:
                    await self.give()
                case 8:
                    stream.commit_fails_with = SOURCE_GONE if rng.random() < 0.5 else None
                case 9:
                    await self.finish_takes()
                    stream.fail_with = SourceError("broken") if rng.random() < 0.5 else None
                    stream.arrived.set()
                case 10:
                    self.letters.fails = rng.random() < 0.5
                    self.spill.fails = rng.random() < 0.2
                case 11:
                    function.exists = rng.random() < 0.6
                case 12 | 13:
                    function.slots = rng.choice((0, 1, 2, 100))
                    self.worker.kick()
                case 14:
                    await self.restart()
                case 15:
                    function.trouble = rng.choice((0.0, 0.3, 0.8))
                case _:
                    pass
        if stream.commit_fails_with is not None or stream.fail_with is not None:
            self.trouble_at = self.clock.monotonic()
        longest = rng.choice((0.0, 0.1, 1.0, 1.0, 5.0, 5.0, 5.0, 40.0))
        await self.advance(rng.uniform(0, longest))
        if stream.commit_fails_with is not None or stream.fail_with is not None:
            self.trouble_at = self.clock.monotonic()
        self.takes = {task for task in self.takes if not task.done() or task.result() is not None}
        self.check()

    def check(self) -> None:
        assert self.task is not None
        if self.model.broken:
            raise Broken(self.model.broken)
        if self.task.done():
            self.task.result()
            self.model.fail("the worker has ended")
        if self.worker._error is not None:
            raise self.worker._error
        most = max(self.more["buffer_records_max"], 2 * self.mapping.batch_size) + 1000
        for status in self.worker.shards():
            if status.buffered > most:
                self.model.fail(f"{status.buffered} records held")

    async def heal(self) -> None:
        """Repair everything and wait until all is quiet."""
        stream, function = self.stream, self.function
        await self.finish_takes()
        stream.commit_fails_with = stream.fail_with = None
        function.trouble = function.slow_s = 0.0
        function.exists, function.slots = True, 100
        self.letters.fails = self.spill.fails = False
        self.worker.kick()
        for _ in range(60):
            if self.is_open:
                for name in sorted(stream.away - set(stream.live._mine)):
                    await stream.give(name)
            await self.advance(5)
            self.check()
            if self.is_quiet():
                break
        else:
            self.model.fail(
                f"never quiet: {[(s.shard, s.position, s.buffered, s.reason) for s in self.worker.shards()]}"
            )
        self.model.check_end()
        assert not self.function.running

    def is_quiet(self) -> bool:
        ends = {
            name: max(held.records[-1].position if held.records else -1, held.through)
            for name, held in self.stream.shards.items()
        }
        return not self.worker.running and all(self.stream.mark(name) == end for name, end in ends.items())


@contextmanager
def payload_limit(size: int) -> Iterator[None]:
    before = forming.PAYLOAD_MAX_BYTES
    forming.PAYLOAD_MAX_BYTES = size  # type: ignore[misc]
    try:
        yield
    finally:
        forming.PAYLOAD_MAX_BYTES = before  # type: ignore[misc]


async def live(rng: random.Random) -> Model:
    world = SimWorld(rng)
    with payload_limit(world.payload_max):
        world.worker = world.make()
        faulty = rng.random() < 0.8
        world.function.trouble = rng.choice((0.0, 0.2, 0.6))
        world.function.slow_s = rng.choice((0.0, 3.0, 30.0))
        mapping, is_plain = (
            world.mapping,
            world.payload_max == PAYLOAD_MAX_BYTES and not world.stream.shape.mixes_shards,
        )
        world.model.is_calm = (
            not faulty and is_plain and not mapping.tumbling_window_s and mapping.maximum_record_age_s < 0
        )
        if rng.random() < 0.5:
            world.put()
        world.start()
        try:
            async with asyncio.timeout(HANGS_S):
                await world.advance(0)
                for _ in range(rng.randint(5, 20)):
                    await world.step(faulty)
                await world.heal()
                await world.end()
        except Exception as error:
            world.stream.live._mine.clear()  # lets the worker go at once
            told = world.model.broken or repr(error)
            raise Broken(f"{told}; {world.mapping} {world.more} {world.stream.shape.__dict__}") from error
    if not faulty and world.model.exposed:
        raise Broken("something was exposed without a fault")
    return world.model


def simulate(seed: int) -> Model:
    """Run one seed to its end; every other one on a loop of random order."""
    rng = random.Random(seed)
    shuffle = random.Random(rng.getrandbits(32))
    is_shuffled = seed % 2 == 1
    try:
        with asyncio.Runner(loop_factory=lambda: SimLoop(shuffle if is_shuffled else None)) as runner:
            runner.get_loop().set_exception_handler(lambda _loop, _context: None)  # what is cut off in a failed run
            return runner.run(live(rng))
    except Exception as error:
        raise Broken(f"seed {seed}: {error!r}") from error
