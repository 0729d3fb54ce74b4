"""Asynchronous delivery (the Park policy): one attempt of one event, and how it is settled."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import orjson
import structlog
from prometheus_client import Counter, Histogram

from bridge.core.errors import (
    DestinationError,
    FunctionNotFound,
    InvokeError,
    PayloadTooLarge,
    StoreCorrupt,
    StoreError,
)
from bridge.core.function import EventInvokeConfig
from bridge.core.invocation import (
    Attempt,
    AttemptStatus,
    Condition,
    DeadLetter,
    Invocation,
    InvocationResult,
    ResultKind,
    tries,
)
from bridge.core.ports import Clock, DeadLetters, Destination, Outcomes, ParkedStore
from bridge.core.record import Parked, Record
from bridge.core.retry import GiveUp, after_function_error, after_system_error
from bridge.util import telemetry
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.delivery")

_SETTLE_RETRY_MIN_S = 0.25
_SETTLE_RETRY_MAX_S = 2.0
_HISTORY_MAX = 20

T = TypeVar("T")


class Successes(Protocol):
    """Takes the records of successes (pipeline/outcomes.py)."""

    async def succeeded(self, record: Record, result: InvocationResult, *, attempts: int) -> None:
        """Return once the record is durable; raises StoreError when it is not."""
        ...


class Runner(Protocol):
    """Runs one invocation on a slot that was promised."""

    async def __call__(self, invocation: Invocation) -> InvocationResult:
        """Return how it ended; raises InvokeError when it was not accepted."""
        ...


class Settled:
    """What became of an attempt, for the lane."""

    __slots__ = ("backoff_s", "parked_until", "reason")

    def __init__(self, *, parked_until: float | None = None, backoff_s: float = 0.0, reason: str = "") -> None:
        self.parked_until = parked_until
        """due_at (wall clock) when the event was parked."""
        self.backoff_s = backoff_s
        """Seconds for which the whole lane should hold back (throttled or broken target)."""
        self.reason = reason
        """Why it should, in one line."""


class AsyncDelivery:
    """Runs an attempt and settles it: outcome, parked for a retry, or dead letter; durable before it returns.

    `entry` describes the event in every call: a fresh one has `attempts == 0` and is not in the parked store.
    """

    def __init__(
        self,
        *,
        outcomes: Outcomes,
        parked: ParkedStore,
        dead_letters: DeadLetters,
        destination: Destination,
        clock: Clock,
        successes: Successes | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._outcomes = outcomes
        self._parked = parked
        self._dead_letters = dead_letters
        self._destination = destination
        self._successes = successes
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._meters: dict[tuple[str, ResultKind], tuple[Counter, Histogram, Histogram]] = {}
        """Metrics by function and kind: looking one up by its labels costs more than counting."""
        self.unsettled = 0
        """Attempts that wait for the disk to take their outcome."""

    async def attempt(
        self, entry: Parked, *, config: EventInvokeConfig, invoked_arn: str, run: Runner, stored: bool
    ) -> Settled:
        """Run one attempt and settle it.

        Args:
            entry: the event with its history.
            config: the event-invoke config in force now (not when it was accepted).
            invoked_arn: the function ARN as called.
            run: starts the invocation.
            stored: True when `entry` is in the parked store.
        """
        record = entry.record
        number = entry.attempts + 1
        started_at = self._clock.time()
        if stored:
            # Written before the invocation, so that an event that kills the daemon is counted (architecture).
            self._note(entry, AttemptStatus.STARTED, number=number, started_at=started_at)
        try:
            result = await run(
                Invocation(
                    request_id=record.id,
                    payload=record.payload,
                    invoked_arn=invoked_arn,
                    client_context=record.client_context,
                    ahead=not stored,
                )
            )
        except FunctionNotFound as error:
            await self.give_up(entry, Condition.FUNCTION_NOT_FOUND, stored=stored, message=str(error))
            return Settled()
        except PayloadTooLarge as error:  # and will be the next time
            await self.give_up(entry, Condition.RECORD_TOO_LARGE, stored=stored, message=str(error))
            return Settled()
        except InvokeError as error:
            result = InvocationResult(
                kind=ResultKind.UNKNOWN, payload=b"", version="", error_type=error.code, error_message=str(error)
            )
        if entry.item_failures and result.kind is ResultKind.OK:
            result = _with_item_failures(result)
        self._count(record, result, started_at=started_at)
        crash_point("delivery.handled")
        if result.kind is ResultKind.OK:
            if config.on_success and not result.handed_over:  # else nobody here knows
                await self._tell_success(entry, result, number=number)
            status = AttemptStatus.HANDED_OVER if result.handed_over else AttemptStatus.OK
            self._note(entry, status, number=number, started_at=started_at, result=result)
            if stored:
                await self._settle(self._forget, entry)
            return Settled()
        return await self._failed(entry, result, config=config, number=number, started_at=started_at, stored=stored)

    def _count(self, record: Record, result: InvocationResult, *, started_at: float) -> None:
        meters = self._meters.get((record.lane, result.kind))
        if meters is None:
            name = record.lane
            meters = self._meters[name, result.kind] = (
                telemetry.INVOCATIONS.labels(function=name, status=result.kind.value),
                telemetry.INVOCATION_SECONDS.labels(function=name),
                telemetry.EVENT_AGE_SECONDS.labels(function=name),
            )
        invocations, seconds, age = meters
        invocations.inc()
        seconds.observe(result.duration_ms / 1000)
        age.observe(max(0.0, started_at - record.received_at))

    async def _failed(
        self,
        entry: Parked,
        result: InvocationResult,
        *,
        config: EventInvokeConfig,
        number: int,
        started_at: float,
        stored: bool,
    ) -> Settled:
        age_s = self._clock.time() - self.accepted_at(entry)
        counted = result.kind is ResultKind.FUNCTION_ERROR
        if counted:
            decision = after_function_error(config, attempts=number, age_s=age_s)
        else:
            decision = after_system_error(config, backoffs=entry.backoffs, age_s=age_s, rng=self._rng)
        after = replace(
            entry,
            attempts=number if counted else entry.attempts,
            backoffs=0 if counted else entry.backoffs + 1,
            first_attempt_at=entry.first_attempt_at or started_at,
            error_type=result.error_type,
            error_message=result.error_message,
            response=result.payload,
        )
        if isinstance(decision, GiveUp):
            attempt = self._attempt(entry, AttemptStatus.DEAD, number=number, started_at=started_at, result=result)
            await self.give_up(after, decision.condition, stored=stored, attempt=attempt)
            return Settled()
        due_at = self._clock.time() + decision.delay_s
        waiting = replace(after, due_at=due_at, delay_s=decision.delay_s)
        await self._settle(self._parked.park, waiting)
        self._note(
            entry,
            AttemptStatus.FAILED if counted else AttemptStatus.UNKNOWN,
            number=number,
            started_at=started_at,
            result=result,
        )
        telemetry.RETRIES.labels(function=entry.record.lane).inc()
        log.info(
            "event_parked",
            request_id=entry.record.id,
            function=entry.record.function,
            attempt=number,
            error_type=result.error_type,
            retry_in_s=round(decision.delay_s, 1),
        )
        if counted:
            return Settled(parked_until=due_at)
        reason = f"{result.error_type}: {result.error_message}"
        return Settled(parked_until=due_at, backoff_s=decision.delay_s, reason=reason)

    async def give_up(
        self,
        entry: Parked,
        condition: Condition,
        *,
        stored: bool,
        attempt: Attempt | None = None,
        message: str = "",
    ) -> None:
        """Make `entry` a dead letter, durably, then let go of it."""
        letter = await self._letter(entry, condition, attempt=attempt, message=message)
        await self._settle(self._destination.send, letter)
        crash_point("delivery.dead_letter")
        self._end(entry, letter, attempt=attempt)
        if stored:
            await self._settle(self._parked.done, entry)

    def _end(self, entry: Parked, letter: DeadLetter, *, attempt: Attempt | None) -> None:
        """Tell of an event that is a dead letter now."""
        condition = letter.condition.value
        if attempt is None:
            attempt = self._attempt(
                entry, AttemptStatus.DEAD, number=entry.attempts, started_at=self._clock.time(), error=condition
            )
        self._outcomes.append(attempt)
        telemetry.DEAD_LETTERS.labels(function=entry.record.lane, condition=condition).inc()
        log.warning(
            "event_dead_lettered",
            request_id=entry.record.id,
            function=entry.record.function,
            condition=condition,
            attempts=letter.attempts,
            error_type=letter.error_type,
        )

    async def refuse(self, record: Record, condition: Condition, error: InvokeError) -> None:
        """Return once an event that is not run is a dead letter; it is nowhere else.

        Raises:
            StoreFull, StoreError, DestinationError: it is not.
        """
        now = self._clock.time()
        entry = Parked(record=record, attempts=0, due_at=now, delay_s=0.0, error_type=error.code)
        letter = await self._letter(entry, condition, attempt=None, message=str(error))
        await self._destination.send(letter)
        self._end(entry, letter, attempt=None)

    @staticmethod
    def accepted_at(entry: Parked) -> float:
        """The time from which the event's age counts: its arrival, or its redrive."""
        if entry.redrive:
            return entry.first_attempt_at or (entry.due_at - entry.delay_s)
        return entry.record.received_at

    # --- helpers ------------------------------------------------------------------------------

    async def _tell_success(self, entry: Parked, result: InvocationResult, *, number: int) -> None:
        """Make the record of a success durable before the success counts: a crash between runs the event again.

        A batch of a mapping that was redriven is no asynchronous event, and its success nobody's to be told.
        """
        try:
            before = await self._before(entry)
        except StoreCorrupt as error:  # its mapping is unknown: nothing to tell rather than what may be wrong
            log.error("success_untold", request_id=entry.record.id, error=str(error))  # noqa: TRY400 - one line
            return
        if self._successes is None or entry.queue != "default" or (before is not None and before.mapping):
            return
        attempts = number + (before.attempts if before is not None else 0)
        await self._settle(partial(self._successes.succeeded, entry.record, attempts=attempts), result)
        crash_point("delivery.recorded")

    async def _before(self, entry: Parked) -> DeadLetter | None:
        """Return the dead letter that a redriven event was. Raises StoreCorrupt: it is lost."""
        return await self._dead_letters.get(entry.record.id, queue=entry.queue) if entry.redrive else None

    async def _forget(self, entry: Parked) -> None:
        if entry.redrive:
            await self._dead_letters.resolve(entry.record.id, queue=entry.queue)
        await self._parked.done(entry)

    async def _letter(
        self, entry: Parked, condition: Condition, *, attempt: Attempt | None, message: str
    ) -> DeadLetter:
        record = entry.record
        try:
            before = await self._before(entry)
        except StoreCorrupt as error:  # what is known of this life of the event is kept all the same
            log.error("dead_letter_lost", request_id=record.id, error=str(error))  # noqa: TRY400 - one line
            before = None
        history = tuple(before.history) if before is not None else ()
        if not history and record.position >= 0 and entry.attempts:
            found = await asyncio.to_thread(self._outcomes.for_events, [record])
            found_attempts = found.get(record.position, ())
            history = tuple(each for each in tries(found_attempts) if each.status is not AttemptStatus.STARTED)
        if attempt is not None:
            history += (attempt,)
        return DeadLetter(
            id=record.id,
            queue=entry.queue,
            function=record.function,
            source=record.source,
            received_at=record.received_at,
            dead_at=self._clock.time(),
            condition=condition,
            attempts=entry.attempts + (before.attempts if before is not None else 0),
            payload=record.payload,
            position=record.position,
            client_context=record.client_context,
            error_type=entry.error_type or ("" if not message else condition.value),
            error_message=entry.error_message or message,
            response=entry.response,
            redrives=before.redrives if before is not None else 0,
            mapping=before.mapping if before is not None else "",
            item_failures=entry.item_failures,
            outcome=before.outcome if before is not None else b"",
            history=history[-_HISTORY_MAX:],
        )

    async def _settle(self, write: Callable[[T], Awaitable[None]], value: T) -> None:
        """Write until the disk or the destination has it: for ever, and `unsettled` shows it.

        The event keeps its place meanwhile, and the lane starts nothing new above its bound.
        """
        delay_s = _SETTLE_RETRY_MIN_S
        waits = False
        try:
            while True:
                try:
                    await write(value)
                except (StoreError, DestinationError) as error:
                    if not waits:
                        waits = True
                        self.unsettled += 1
                        log.error("event_unsettled", error=str(error))  # noqa: TRY400 - expected, one line
                    await self._clock.sleep(delay_s)
                    delay_s = min(delay_s * 2, _SETTLE_RETRY_MAX_S)
                else:
                    return
        finally:
            self.unsettled -= waits

    def _attempt(
        self,
        entry: Parked,
        status: AttemptStatus,
        *,
        number: int,
        started_at: float,
        result: InvocationResult | None = None,
        error: str = "",
    ) -> Attempt:
        record = entry.record
        if result is None:
            return Attempt(
                position=record.position,
                request_id=record.id,
                function=record.function,
                number=number,
                status=status,
                started_at=started_at,
                error_type=error,
                replay=entry.job,
            )
        return Attempt(
            position=record.position,
            request_id=record.id,
            function=record.function,
            number=number,
            status=status,
            started_at=started_at,
            duration_ms=result.duration_ms,
            version=result.version,
            error_type=result.error_type,
            error_message=result.error_message,
            log_tail=result.log_tail,
            log_stream=result.log_stream,
            replay=entry.job,
        )

    def _note(
        self,
        entry: Parked,
        status: AttemptStatus,
        *,
        number: int,
        started_at: float,
        result: InvocationResult | None = None,
    ) -> None:
        self._outcomes.append(self._attempt(entry, status, number=number, started_at=started_at, result=result))


def _with_item_failures(result: InvocationResult) -> InvocationResult:
    """Return a function error where the answer to a redriven batch names records that failed (semantics 3.7)."""
    try:
        answer = orjson.loads(result.payload) if result.payload else None
    except orjson.JSONDecodeError:
        answer = result.payload
    named = answer.get("batchItemFailures") if isinstance(answer, dict) else answer
    if named in (None, "", [], {}):
        return result
    count = len(named) if isinstance(named, list) else "some"
    return replace(
        result,
        kind=ResultKind.FUNCTION_ERROR,
        error_type="BatchItemFailures",
        error_message=f"{count} of the batch's records failed again",
    )
