"""Replays: stored events invoked again, in order, marked, resumable, and never in the way of live traffic."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from bridge.core.errors import FunctionNotFound, InvokeError, Throttled
from bridge.core.invocation import Attempt, AttemptStatus, Condition, DeadLetter, InvocationResult, ResultKind
from bridge.core.ports import Clock, DeadLetters, Invoker, Job, Jobs, JobState, Journal, Outcomes
from bridge.core.record import Record
from bridge.pipeline.jobs import (
    IllegalStatus,
    JobExists,
    JobNotFound,
    JobRunner,
    LimitExceeded,
    Run,
    Spawn,
    SpecInvalid,
    until,
)
from bridge.pipeline.selecting import ReplaySpec, select
from bridge.pipeline.tracker import PrefixTracker
from bridge.util import telemetry

__all__ = [
    "IllegalStatus",
    "JobExists",
    "JobNotFound",
    "LimitExceeded",
    "ReplayCount",
    "ReplaySpec",
    "Replays",
    "SpecInvalid",
]

_BACKOFF_MIN_S: Final = 0.5
_BACKOFF_MAX_S: Final = 60.0
_SYSTEM_ERRORS_MAX: Final = 20
"""System errors in a row for one event before it becomes a dead letter of the replay."""
_QUEUE_MAX: Final = 64
_MARK: Final = "bridge-replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCount:
    """What a dry run says."""

    events: int = 0
    bytes: int = 0
    by_function: dict[str, int] = field(default_factory=dict)
    by_source: dict[str, int] = field(default_factory=dict)
    gone: int = 0
    """1 when retention has already taken part of the asked time range, else 0: how many is not known."""


class Replays(JobRunner):
    """Starts, counts, watches and stops replays."""

    kind = "replay"
    label = "Replay"

    def __init__(
        self,
        *,
        journal: Journal,
        outcomes: Outcomes,
        dead_letters: DeadLetters,
        jobs: Jobs,
        invoker: Invoker,
        clock: Clock,
        spawn: Spawn,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(jobs=jobs, clock=clock, spawn=spawn)
        self._journal = journal
        self._outcomes = outcomes
        self._dead_letters = dead_letters
        self._invoker = invoker
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret

    async def open(self) -> None:
        """Go on with what a former run left; paused replays keep their range pinned."""
        for job in await self._jobs.list(self.kind):
            if job.state is JobState.PAUSED:
                self._journal.pin(job.name, int(job.cursor or -1) + 1)
        await super().open()

    async def count(self, spec: ReplaySpec) -> ReplayCount:
        """Count what a replay would invoke; reads, and changes nothing. Raises SpecInvalid."""
        spec = spec.checked()
        size = 0
        functions: Counter[str] = Counter()
        sources: Counter[str] = Counter()
        async for record in self.events(spec):
            size += len(record.payload)
            functions[spec.to or record.function] += 1
            sources[record.source] += 1
        return ReplayCount(events=sources.total(), bytes=size, by_function=dict(functions), by_source=dict(sources))

    async def events(self, spec: ReplaySpec) -> AsyncIterator[Record]:
        """Yield the selected records (for a file or standard output). Raises SpecInvalid."""
        spec = spec.checked()
        left = spec.limit
        end = self._journal.end
        async for _, records in select(self._journal, self._outcomes, spec):
            for record in records:
                if record.position >= end or left == 0:
                    return
                left = None if left is None else left - 1
                yield record

    async def start(self, spec: ReplaySpec) -> Job:
        """Start one; its end is the journal's end now, its range is pinned until it ends.

        Raises:
            SpecInvalid, JobExists, LimitExceeded, FunctionNotFound.
        """
        spec = spec.checked()
        if spec.to is not None:
            self._invoker.dry_run(spec.to)
        if spec.until is None:
            spec = replace(spec, until=self._clock.time() + 0.001)
        if await self._jobs.get(spec.name) is not None:
            raise JobExists(f"Replay {spec.name} already exists.")
        counted = await self.count(spec)
        return await self._create(
            Job(
                name=spec.name,
                kind=self.kind,
                state=JobState.STARTING,
                spec=spec.to_json(),
                total=counted.events,
                created_at=self._clock.time(),
            )
        )

    # --- the work -----------------------------------------------------------------------------

    async def _work(self, run: Run) -> None:
        spec = ReplaySpec.from_json(run.job.spec)
        cursor = int(run.job.cursor or -1)
        self._journal.pin(spec.name, max(cursor + 1, self._journal.start))
        tracker: PrefixTracker[bool] = PrefixTracker(cursor)
        flow = _Flow(self, run, spec, tracker)
        try:
            await self._feed(run, spec, flow, cursor)
            await flow.join()
        finally:
            await flow.close()
            await self._save(run, run.job, now=True)
            if run.stop is None or run.stop is JobState.CANCELLED:
                self._journal.pin(spec.name, None)
        if run.stop is None and run.job.total is not None:
            gone = max(0, run.job.total - run.job.done - run.job.failed)
            run.job = replace(run.job, skipped=gone)

    async def _feed(self, run: Run, spec: ReplaySpec, flow: "_Flow", cursor: int) -> None:
        left = None if spec.limit is None else spec.limit - run.job.done - run.job.failed
        next_at = self._clock.monotonic()
        async for looked_at, records in select(self._journal, self._outcomes, spec, after=cursor):
            for record in records:
                if left == 0 or run.stopping.is_set():
                    return
                left = None if left is None else left - 1
                if spec.rate is not None:
                    now = self._clock.monotonic()
                    next_at = max(next_at, now - 1.0)  # after a wait, catch up by a second at most
                    if await until(run.stopping, self._clock, next_at - now):
                        return
                    next_at += 1 / spec.rate
                await flow.put(record)
            flow.passed_over(looked_at)

    async def finished(self, run: Run, tracker: PrefixTracker[bool], position: int, *, ok: bool) -> None:
        """Note one event's end; progress moves with the finished prefix only."""
        folded = tracker.finish(position, ok)
        done = sum(folded)
        job = replace(
            run.job,
            cursor=str(tracker.mark),
            done=run.job.done + done,
            failed=run.job.failed + len(folded) - done,
        )
        await self._save(run, job)
        self._journal.pin(run.job.name, max(tracker.mark + 1, self._journal.start))

    async def replay_one(self, run: Run, spec: ReplaySpec, record: Record) -> bool | None:
        """Invoke one event until it ends well or badly; None when the replay was stopped meanwhile."""
        target = spec.to or record.function
        context = marked_context(record.client_context, spec.name, record)
        history: list[Attempt] = []
        system_errors = 0
        while True:
            started_at = self._clock.time()
            condition = Condition.RETRIES_EXHAUSTED
            try:
                result = await self._invoker.invoke_background(
                    target, request_id=record.id, payload=record.payload, client_context=context
                )
            except FunctionNotFound as error:
                result, condition = _refused(error), Condition.FUNCTION_NOT_FOUND
            except Throttled as error:
                result, condition = _refused(error), Condition.ZERO_RESERVED_CONCURRENCY
            except InvokeError as error:
                result = _refused(error)
            ok = result.kind is ResultKind.OK
            attempt = _attempt(record, target, result, number=len(history) + 1, started_at=started_at, name=spec.name)
            self._outcomes.append(attempt)
            telemetry.REPLAYED.labels(replay=spec.name, status="ok" if ok else "failed").inc()
            if ok:
                return True
            system_errors = 0 if result.kind is ResultKind.FUNCTION_ERROR else system_errors + 1
            if not system_errors:
                history.append(attempt)
            if (
                condition is not Condition.RETRIES_EXHAUSTED
                or len(history) > spec.retry_attempts
                or system_errors > _SYSTEM_ERRORS_MAX
            ):
                history = history or [attempt]
                await self._give_up(spec, record, target, result, condition, history)
                return False
            ceiling = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2 ** (max(len(history), system_errors) - 1))
            if await until(run.stopping, self._clock, self._rng.uniform(ceiling / 2, ceiling)):
                return None

    async def _give_up(
        self,
        spec: ReplaySpec,
        record: Record,
        target: str,
        result: InvocationResult,
        condition: Condition,
        history: list[Attempt],
    ) -> None:
        await self._dead_letters.put(
            DeadLetter(
                id=record.id,
                queue=f"replay:{spec.name}",
                function=target,
                source=record.source,
                received_at=record.received_at,
                dead_at=self._clock.time(),
                condition=condition,
                attempts=len(history) if condition is Condition.RETRIES_EXHAUSTED else 0,
                payload=record.payload,
                position=-1,  # the live lane has its own word about this position
                client_context=record.client_context,
                error_type=result.error_type,
                error_message=result.error_message,
                response=result.payload,
                history=tuple(history[-20:]),
            )
        )


class _Flow:
    """The events of one replay in flight: a queue and a worker a route, or one queue with many workers."""

    def __init__(self, replays: Replays, run: Run, spec: ReplaySpec, tracker: PrefixTracker[bool]) -> None:
        self._replays = replays
        self._run = run
        self._spec = spec
        self._tracker = tracker
        self._slots = asyncio.Semaphore(spec.concurrency)
        self._queues: dict[str, asyncio.Queue[Record]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._error: Exception | None = None

    async def put(self, record: Record) -> None:
        """Hand an event over; waits while too much is in flight."""
        if self._error is not None:
            raise self._error
        key = record.source if self._spec.ordered else ""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = asyncio.Queue(_QUEUE_MAX)
            for _ in range(1 if self._spec.ordered else self._spec.concurrency):
                task = asyncio.create_task(self._worker(queue))
                self._workers.add(task)
        self._tracker.begin(record.position)
        putting = asyncio.create_task(queue.put(record))
        stopping = asyncio.create_task(self._run.stopping.wait())
        await asyncio.wait({putting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not putting.done():
            putting.cancel()

    def passed_over(self, position: int) -> None:
        """Everything up to `position` was looked at: with nothing in flight the mark may move there."""
        if not len(self._tracker) and not self._run.stopping.is_set():
            self._tracker.mark = max(self._tracker.mark, position)

    async def _worker(self, queue: "asyncio.Queue[Record]") -> None:
        while True:
            record = await queue.get()
            try:
                if self._run.stopping.is_set() or self._error is not None:
                    continue
                async with self._slots:
                    ok = await self._replays.replay_one(self._run, self._spec, record)
                if ok is not None:
                    await self._replays.finished(self._run, self._tracker, record.position, ok=ok)
            except Exception as error:  # noqa: BLE001 - the task boundary: the replay fails with this error
                self._error = error
                self._run.stopping.set()
            finally:
                queue.task_done()

    async def join(self) -> None:
        """Wait for everything handed over; raises what a worker met."""
        for queue in self._queues.values():
            await queue.join()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """End the workers."""
        for queue in self._queues.values():
            await queue.join()
        for task in self._workers:
            task.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)


def marked_context(context: bytes, name: str, record: Record) -> bytes:
    """Return the client context with the replay's mark in `custom`; what the sender put there is kept."""
    document: Any = {}
    if context:
        try:
            document = orjson.loads(context)
        except orjson.JSONDecodeError:
            document = {}
    if not isinstance(document, dict):
        document = {}
    custom = document.get("custom")
    mark = {_MARK: name, f"{_MARK}-received-at": f"{record.received_at:.3f}"}
    return orjson.dumps(document | {"custom": (custom if isinstance(custom, dict) else {}) | mark})


def _refused(error: InvokeError) -> InvocationResult:
    return InvocationResult(
        kind=ResultKind.UNKNOWN, payload=b"", version="", error_type=error.code, error_message=str(error)
    )


def _attempt(
    record: Record, target: str, result: InvocationResult, *, number: int, started_at: float, name: str
) -> Attempt:
    return Attempt(
        position=record.position,
        request_id=record.id,
        function=target,
        number=number,
        status=AttemptStatus.REPLAYED_OK if result.is_ok else AttemptStatus.REPLAYED_FAILED,
        started_at=started_at,
        duration_ms=result.duration_ms,
        version=result.version,
        error_type=result.error_type,
        error_message=result.error_message,
        log_tail=result.log_tail,
        log_stream=result.log_stream,
        replay=name,
    )
