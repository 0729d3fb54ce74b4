"""One try of a batch: its event, its invocation, and what the Block policy says about how it ended."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import Counter, Histogram

from bridge.core.errors import FunctionNotFound, InvokeError, PayloadTooLarge
from bridge.core.invocation import Attempt, AttemptStatus, Invocation, InvocationResult, ResultKind
from bridge.core.sources import WindowPart
from bridge.core.stream import Chunk, Shard
from bridge.pipeline.streams.answers import SUCCESS, Answer, read_answer
from bridge.pipeline.streams.batch import HISTORY_MAX, Batch
from bridge.pipeline.streams.block import BlockPolicy, Discard, Step
from bridge.pipeline.streams.failures import Failures
from bridge.pipeline.streams.settings import Work
from bridge.util import telemetry
from bridge.util.crash import crash_point

_STATUS = {
    ResultKind.OK: AttemptStatus.OK,
    ResultKind.FUNCTION_ERROR: AttemptStatus.FAILED,
    ResultKind.UNKNOWN: AttemptStatus.UNKNOWN,
}


class BatchDelivery:
    """Delivers the batches of one mapping.

    Args:
        work: the mapping and its parts.
        before_retry: commits the marks, so that a try that kills the daemon is counted.
    """

    def __init__(self, work: Work, *, before_retry: Callable[[], Awaitable[object]]) -> None:
        self._work = work
        self._mapping = work.mapping
        self._shape = work.shape
        self._clock = work.clock
        self._before_retry = before_retry
        self._policy = BlockPolicy(work.mapping, work.shape, work.rng)
        self._failures = Failures(
            mapping=work.mapping,
            shape=work.shape,
            destination=work.destination,
            spill=work.spill,
            clock=work.clock,
            queue=work.queue,
        )
        self._meters: dict[ResultKind, tuple[Counter, Counter, Histogram]] = {}
        """Metrics by kind: looking one up by its labels costs more than counting."""

    async def attempt(self, batch: Batch, target: Any, slot: Any) -> Step:
        """Run a batch on its slot and return what follows."""
        tries = batch.tries
        is_retry = bool(tries.attempts or tries.setbacks)
        if is_retry:
            for part in batch.parts:
                part.lane.shard.is_dirty = True
            await self._before_retry()
        invocation = Invocation(
            request_id=str(uuid.uuid4()),
            payload=self._event(batch),
            invoked_arn=target.invoked_arn,
            client_context=self._work.client_context,
            ahead=not is_retry,
        )
        started_at = self._clock.time()
        tries.invocations += 1
        try:
            result = await self._work.slots.run(slot, invocation)
        except InvokeError as error:
            tries.invocations -= 1
            # Too large for a remote function it stays: that counts, so that the batch is split or given up.
            kind = ResultKind.FUNCTION_ERROR if isinstance(error, PayloadTooLarge) else ResultKind.UNKNOWN
            result = InvocationResult(
                kind=kind, payload=b"", version="", error_type=error.code, error_message=str(error)
            )
        crash_point("stream.handled")
        self._count(result)
        answer = self._answer(batch, result)
        is_ok = result.is_ok and not answer.mistake and not answer.failed
        if not is_ok:  # before it is split: every part keeps the history
            self._remember(batch, invocation.request_id, result, started_at=started_at)
        step = self._follow(batch, result, answer)
        step.is_ok = is_ok
        if not is_ok:
            telemetry.RETRIES.labels(function=self._mapping.function).inc(bool(step.follow))
        return step

    def _event(self, batch: Batch) -> bytes:
        parts: dict[Shard, list[bytes]] = {}
        for part in batch.parts:
            fragments = parts.setdefault(part.lane.shard.name, [])
            for piece in part.pieces:
                fragments += piece.fragments()
        return self._shape.event(list(parts.items()), self._window(batch))

    @staticmethod
    def _window(batch: Batch) -> WindowPart | None:
        window = batch.parts[0].lane.shard.window if batch.parts else None
        return None if window is None else window.part(is_final=batch.is_final, is_early=batch.is_early)

    def _answer(self, batch: Batch, result: InvocationResult) -> Answer:
        if not result.is_ok:
            return SUCCESS
        windowed = batch.parts[0].lane.shard.window is not None and not batch.is_final
        return read_answer(
            result.payload, batch, self._shape, reports=self._mapping.reports_item_failures, windowed=windowed
        )

    def _follow(self, batch: Batch, result: InvocationResult, answer: Answer) -> Step:
        now = self._clock.time()
        batch.tries.reason = f"{result.error_type}: {result.error_message}"[:200] if result.error_type else ""
        if result.kind is ResultKind.UNKNOWN:
            return self._policy.after_setback(batch, result, now=now)
        if result.kind is ResultKind.FUNCTION_ERROR:
            return self._policy.after_failure(batch, result, now=now)
        if answer.mistake or answer.failed:
            batch.tries.reason = answer.mistake or f"{len(answer.failed)} records failed (batchItemFailures)"
        step = self._policy.after_answer(batch, answer, result, now=now)
        window = batch.parts[0].lane.shard.window
        if window is not None and not answer.mistake:
            window.answered(answer.state, is_final=batch.is_final, is_early=batch.is_early)
        return step

    def _count(self, result: InvocationResult) -> None:
        meters = self._meters.get(result.kind)
        if meters is None:
            name, status = self._mapping.function.partition(":")[0], result.kind.value
            meters = self._meters[result.kind] = (
                telemetry.BATCHES.labels(mapping=self._mapping.name, status=status),
                telemetry.INVOCATIONS.labels(function=name, status=status),
                telemetry.INVOCATION_SECONDS.labels(function=name),
            )
        batches, invocations, seconds = meters
        batches.inc()
        invocations.inc()
        seconds.observe(result.duration_ms / 1000)

    def _remember(self, batch: Batch, request_id: str, result: InvocationResult, *, started_at: float) -> None:
        attempt = Attempt(
            position=-1,
            request_id=request_id,
            function=self._mapping.function,
            number=batch.tries.invocations,
            status=_STATUS[result.kind],
            started_at=started_at,
            duration_ms=result.duration_ms,
            version=result.version,
            error_type=result.error_type,
            error_message=result.error_message,
            log_tail=result.log_tail,
            log_stream=result.log_stream,
        )
        history = (*batch.tries.history, attempt)[-HISTORY_MAX:]
        batch.tries.history = history

    async def give_up(self, batch: Batch, discards: list[Discard], rest: Batch | None, *, target: Any) -> Step:
        """Return the step for what is too old or too large before it is sent."""
        del batch, target
        follow = [] if rest is None else rest.by_lane() if len(rest.parts) > 1 else [rest]
        for each in follow:
            each.tries.delay_s = 0.0
        return Step(discards=discards, follow=follow)

    async def settle_damaged(self, chunk: Chunk) -> None:
        """Make dead letters of what is damaged in a chunk, filtered or not: nobody can say what it was."""
        try:
            arn = self._work.slots.resolve(self._mapping.function).invoked_arn
        except FunctionNotFound:
            arn = self._mapping.function
        for record in chunk.damaged:
            await self._failures.damaged(record, shard=chunk.shard, function_arn=arn)
        crash_point("stream.dead_letter")

    async def settle_discards(self, batch: Batch, step: Step, *, target: Any, is_ours: Callable[[Batch], bool]) -> None:
        """Make what is given up of a batch durable elsewhere; what is not ours any more is its new owner's."""

        def waits(why: str) -> None:
            batch.tries.unsettled = f"given up, not settled yet: {why}"

        for discard in step.discards:
            if not is_ours(discard.batch):
                continue
            window = self._window(discard.batch)
            arn = target.invoked_arn if target is not None else self._mapping.function
            await self._failures.discard(discard, function_arn=arn, window=window, waits=waits)
            if discard.batch.is_final and (work := discard.batch.parts[0].lane.shard.window) is not None:
                work.answered(None, is_final=True, is_early=discard.batch.is_early)
        batch.tries.unsettled = ""
        if step.discards:
            crash_point("stream.dead_letter")
