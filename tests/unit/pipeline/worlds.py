"""A replaying daemon in memory, whose disk can stop taking writes at any moment as kill -9 would have it."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import orjson

from bridge.core.errors import FunctionNotFound, InvokeError
from bridge.core.function import function_arn
from bridge.core.invocation import Attempt, Condition, DeadLetter, InvocationResult, InvocationType, ResultKind
from bridge.core.ports import Job, JobState
from bridge.core.record import Record
from bridge.pipeline.redrive import Redrives
from bridge.pipeline.replay import Replays
from bridge.testing.clock import ManualClock
from bridge.testing.journal import MemoryJournal, MemoryOutcomes
from bridge.testing.store import MemoryDeadLetters, MemoryJobs, MemoryParked
from tests.harness import wait_until

STEPS_MAX = 20_000
"""Steps of virtual time after which a job hangs."""
STANDSTILL = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.PAUSED)
OK = InvocationResult(kind=ResultKind.OK, payload=b"null", version="$LATEST", duration_ms=1.0)
ERROR = InvocationResult(
    kind=ResultKind.FUNCTION_ERROR,
    payload=b'{"errorMessage":"boom","errorType":"ValueError"}',
    version="$LATEST",
    error_type="ValueError",
    error_message="boom",
)
UNKNOWN = InvocationResult(kind=ResultKind.UNKNOWN, payload=b"", version="", error_type="ServiceException")


def uid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


class Disk:
    """Counts writes; after `crash_after` of them nothing is written any more."""

    def __init__(self, crash_after: int | None = None) -> None:
        self.writes = 0
        self.crash_after = crash_after

    @property
    def crashed(self) -> bool:
        return self.crash_after is not None and self.writes >= self.crash_after

    def takes(self) -> bool:
        if self.crashed:
            return False
        self.writes += 1
        return True


class CrashingJobs(MemoryJobs):
    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.disk = disk
        self.updates: list[Job] = []
        self.fail_with: Exception | None = None

    async def update(self, job: Job) -> None:
        await asyncio.sleep(0)
        if self.fail_with is not None:
            raise self.fail_with
        if not self.disk.takes():
            raise asyncio.CancelledError
        self.updates.append(job)
        await super().update(job)


class CrashingOutcomes(MemoryOutcomes):
    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.disk = disk
        self.flushes = 0

    def append(self, attempt: Attempt) -> None:
        if self.disk.takes():
            super().append(attempt)

    async def flush(self) -> None:
        self.flushes += 1


class CrashingDeadLetters(MemoryDeadLetters):
    def __init__(self, disk: Disk, parked: MemoryParked) -> None:
        super().__init__(parked)
        self.disk = disk

    async def put(self, letter: DeadLetter) -> None:
        await asyncio.sleep(0)
        if self.fail_with is None and not self.disk.takes():
            raise asyncio.CancelledError
        await super().put(letter)

    async def redrive(self, letter, entry) -> bool:
        await asyncio.sleep(0)
        if self.fail_with is not None:
            raise self.fail_with
        if not self.disk.takes():
            raise asyncio.CancelledError
        return await super().redrive(letter, entry)


class Call:
    """One invocation that was asked for."""

    def __init__(self, target: str, request_id: str, payload: bytes, context: bytes, at: float) -> None:
        self.target = target
        self.id = request_id
        self.payload = payload
        self.context = context
        self.at = at
        self.is_cut = False


class ScriptedInvoker:
    """`ports.Invoker` that follows `script(call, number)`: number counts the calls of that event from 1."""

    def __init__(self, clock: ManualClock, disk: Disk) -> None:
        self.clock = clock
        self.disk = disk
        self.calls: list[Call] = []
        self.script: Callable[[Call, int], InvocationResult | InvokeError] = lambda _call, _number: OK
        self.duration_s = 0.0
        self.durations_s: dict[str, float] = {}
        """By request id, where it is another."""
        self.functions: set[str] | None = None
        self.running = 0
        self.running_max = 0

    def ids(self) -> list[str]:
        return [call.id for call in self.calls]

    def dry_run(self, target: str) -> None:
        if self.functions is not None and target not in self.functions:
            raise FunctionNotFound(f"Function not found: {function_arn(target)}")

    async def invoke_background(
        self, target: str, *, request_id: str, payload: bytes, client_context: bytes = b""
    ) -> InvocationResult:
        if self.disk.crashed:
            await asyncio.Event().wait()  # a dead daemon asks for nothing
        self.dry_run(target)
        call = Call(target, request_id, payload, client_context, self.clock.monotonic())
        self.calls.append(call)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            await self.clock.sleep(self.durations_s.get(request_id, self.duration_s))
        except asyncio.CancelledError:
            call.is_cut = True
            raise
        finally:
            self.running -= 1
        answer = self.script(call, self.ids().count(request_id))
        if isinstance(answer, InvokeError):
            raise answer
        return answer


class World:
    """Stores that survive, and the daemon parts over them that do not."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.disk = Disk()
        self.journal = MemoryJournal()
        self.outcomes = CrashingOutcomes(self.disk)
        self.parked = MemoryParked()
        self.dead_letters = CrashingDeadLetters(self.disk, self.parked)
        self.jobs = CrashingJobs(self.disk)
        self.invoker = ScriptedInvoker(self.clock, self.disk)
        self.woken: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.boot()

    def boot(self) -> None:
        """Make the parts that a daemon makes at its start."""
        self.replays = Replays(
            journal=self.journal,
            outcomes=self.outcomes,
            dead_letters=self.dead_letters,
            jobs=self.jobs,
            invoker=self.invoker,
            clock=self.clock,
            spawn=self.spawn,
            rng=random.Random(1),
        )
        self.redrives = Redrives(
            dead_letters=self.dead_letters,
            outcomes=self.outcomes,
            jobs=self.jobs,
            clock=self.clock,
            spawn=self.spawn,
            wake=self.woken.append,
        )

    def spawn(self, work, name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def kill(self) -> None:
        """End everything at once; what was not on disk is gone, and so are the pins."""
        self.disk.crash_after = self.disk.writes
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.journal.pins.clear()
        self.disk.crash_after = None
        self.boot()

    async def restart(self) -> None:
        await self.replays.open()
        await self.redrives.open()

    async def close(self) -> None:
        await self.replays.close()
        await self.redrives.close()

    async def store(
        self, number: int, *, source: str = "hook", function: str = "f", kind=InvocationType.EVENT, **body
    ) -> Record:
        record = await self.journal.append(
            Record(
                id=uid(number),
                source=source,
                function=function,
                invocation_type=kind,
                received_at=self.clock.time(),
                payload=orjson.dumps({"n": number, **body}),
            )
        )
        await self.clock.advance(0.001)
        return record

    async def fill(self, count: int, *, routes: int = 1, function: str = "f") -> list[Record]:
        """Store events 1..count, one after the other on `routes` routes."""
        return [await self.store(n, source=f"hook{n % routes}", function=function) for n in range(1, count + 1)]

    async def letter(self, number: int, *, queue: str = "default", **fields) -> DeadLetter:
        """Store a dead letter, one second after the one before."""
        await self.clock.advance(1.0)
        letter = DeadLetter(
            id=uid(number),
            queue=queue,
            function=fields.pop("function", "f"),
            source=fields.pop("source", "hook"),
            received_at=self.clock.time() - 60,
            dead_at=self.clock.time(),
            condition=fields.pop("condition", Condition.RETRIES_EXHAUSTED),
            attempts=3,
            payload=fields.pop("payload", orjson.dumps({"n": number})),
            **fields,
        )
        await self.dead_letters.put(letter)
        return letter

    async def until_state(self, name: str, *states: JobState, step_s: float = 0.05, kind: str = "replays") -> Job:
        """Let time pass until a job is in one of `states` (default: stands still)."""
        runner = getattr(self, kind)

        async def stands() -> Job | None:
            if self.disk.crashed:
                return Job(name=name, kind="", state=JobState.RUNNING, spec=b"")
            await self.clock.advance(step_s)
            job = await runner.get(name)
            return job if job is not None and job.state in (states or STANDSTILL) else None

        for _ in range(STEPS_MAX):
            if (job := await stands()) is not None:
                return job
        raise AssertionError(f"it still runs after {STEPS_MAX} steps: {await runner.get(name)}")

    async def until_calls(self, count: int) -> None:
        """Wait, without time passing, until so many invocations were asked for."""
        await wait_until(lambda: len(self.invoker.calls) >= count, description=f"{count} calls")


def without(record: Record, **changes) -> Record:
    return replace(record, **changes)
