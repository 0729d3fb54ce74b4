"""One running replay: reads ahead, keeps each route's order, invokes, retries in place, settles (the Block policy)."""

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from bridge.core import limits
from bridge.core.errors import FunctionNotFound, InvokeError, PayloadInvalid, PayloadTooLarge, Throttled
from bridge.core.invocation import (
    THROTTLE_RESERVED,
    Attempt,
    AttemptStatus,
    Condition,
    DeadLetter,
    InvocationResult,
    ResultKind,
)
from bridge.core.ports import Clock, DeadLetters, Invoker, Journal, Outcomes
from bridge.core.record import Record
from bridge.pipeline.jobs import Rate, Run, stored, until
from bridge.pipeline.selecting import Chosen, ReplaySpec, select
from bridge.pipeline.tracker import PrefixTracker
from bridge.util import telemetry

MARK: Final = "bridge-replay"
"""Member of the client context's `custom` that names the replay (semantics 7.4)."""
WINDOW_MAX: Final = 1024
"""Events read and not yet in the finished prefix: what waits for a route that is held up, and what a kill can leave."""
WINDOW_MAX_BYTES: Final = limits.LANE_BUFFER_MAX_BYTES
_KNOWN_MAX: Final = 3 * WINDOW_MAX
"""Events behind the saved progress that a killed replay may have run: a window, what was unsaved, what ran."""
_BACKOFF_MIN_S: Final = 0.5
_BACKOFF_MAX_S: Final = 60.0
_SYSTEM_ERRORS_MAX: Final = 20
"""System errors in a row for one event before it becomes a dead letter of the replay: a quarter of an hour."""
_HISTORY_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a replay works with."""

    journal: Journal
    outcomes: Outcomes
    dead_letters: DeadLetters
    invoker: Invoker
    clock: Clock
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Cursor:
    """A replay's place: all up to `position` is finished, and it ends before `end`. Stored as `position/end`."""

    position: int
    end: int

    def __str__(self) -> str:
        return f"{self.position}/{self.end}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Return what `str` made."""
        position, _, end = text.partition("/")
        return cls(int(position), int(end))


class Replaying:
    """One replay from its cursor to its end, or until it is asked to stop."""

    def __init__(self, *, parts: Parts, run: Run, spec: ReplaySpec, is_resumed: bool) -> None:
        self._parts = parts
        self._run = run
        self._spec = spec
        self._cursor = Cursor.parse(run.job.cursor)
        self._is_resumed = is_resumed
        self._tracker: PrefixTracker[bool] = PrefixTracker(self._cursor.position)
        self._rate = Rate(spec.rate, parts.clock)
        self._ready: deque[Chosen] = deque()
        self._behind: dict[str, deque[Chosen]] = {}
        """By route: what waits for the route's event that is ready or running."""
        self._running: set[asyncio.Task[None]] = set()
        self._held_bytes = 0
        self._begun = 0
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._is_over = False
        self._damaged: set[int] = set()

    @property
    def damaged(self) -> int:
        """How many records it could not read."""
        return sum(position < self._cursor.end for position in self._damaged)

    async def work(self) -> None:
        """Return when all is finished, or nothing runs any more after a stop; raises what made it impossible."""
        helpers = [asyncio.create_task(self._pump_when_saved()), asyncio.create_task(self._wake_when_stopping())]
        try:
            is_whole = await self._feed()
            while self._running or (len(self._tracker) and not self._is_stopping):
                await self._change()
            if self._error is not None:
                raise self._error
            if is_whole and not self._is_stopping:
                self._tracker.pass_over(self._cursor.end - 1)
                self._note(events=0)
        finally:
            self._is_over = True  # one that is cut would make room for the next
            tasks = [*helpers, *self._running]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _is_stopping(self) -> bool:
        return self._is_over or self._run.stopping.is_set() or self._error is not None

    async def _change(self) -> None:
        """Wait until an event has settled or the replay is asked to stop: look again at what you wait for."""
        self._changed.clear()
        await self._changed.wait()

    async def _wake_when_stopping(self) -> None:
        await self._run.stopping.wait()
        self._changed.set()

    async def _pump_when_saved(self) -> None:
        """Begin what waited for the progress to be saved."""
        while True:
            await self._run.saved.wait()
            self._run.saved.clear()
            self._pump()

    # --- reading ahead ------------------------------------------------------------------------

    async def _feed(self) -> bool:
        """Hand over what the spec selects, as far as there is room; False when stopped before the end."""
        job = self._run.job
        left = None if self._spec.limit is None else self._spec.limit - job.done - job.failed
        if left is not None and left <= 0:
            return True
        found = select(
            self._parts.journal, self._parts.outcomes, self._spec, after=self._cursor.position,
            is_known=self._is_known, on_damage=self._damaged.update,
        )  # fmt: skip
        async with contextlib.aclosing(found) as pages:
            async for page in pages:
                for chosen in page.below(self._cursor.end):
                    if not (self._spec.to or chosen.record.function):
                        continue
                    if not await self._has_room(chosen.record):
                        return False
                    self._hand_over(chosen)
                    left = None if left is None else left - 1
                    if left == 0:
                        return True
                if self._is_stopping:
                    return False
                if page.looked_at >= self._cursor.end:
                    return True
                self._tracker.pass_over(page.looked_at)
                self._note(events=0)
        return True

    def _is_known(self) -> bool:
        """Tell whether what is read next may have run before an interruption."""
        return self._is_resumed and self._begun < _KNOWN_MAX

    async def _has_room(self, record: Record) -> bool:
        """Wait for room in the window; False when asked to stop."""
        while not self._is_stopping:
            has_bytes = not len(self._tracker) or self._held_bytes + len(record.payload) <= WINDOW_MAX_BYTES
            if len(self._tracker) < WINDOW_MAX and has_bytes:
                return True
            await self._change()
        return False

    def _hand_over(self, chosen: Chosen) -> None:
        record = chosen.record
        self._begun += 1
        self._tracker.begin(record.position)
        self._held_bytes += len(record.payload)
        if self._spec.ordered and (behind := self._behind.get(record.source)) is not None:
            behind.append(chosen)
            return
        if self._spec.ordered:
            self._behind[record.source] = deque()
        self._ready.append(chosen)
        self._pump()

    def _pump(self) -> None:
        while (
            self._ready
            and len(self._running) < self._spec.concurrency
            and not self._is_stopping
            and not self._run.is_behind
        ):
            task = asyncio.create_task(self._handle(self._ready.popleft()))
            self._running.add(task)
            task.add_done_callback(self._handled)

    def _handled(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._changed.set()
        self._pump()

    # --- one event ----------------------------------------------------------------------------

    async def _handle(self, chosen: Chosen) -> None:
        record = chosen.record
        try:
            ok = await self._ended_before(chosen)
            if ok is None:
                if await until(self._run.stopping, self._parts.clock, self._rate.wait_s()):
                    return
                ok = await self._replay(record)
            if ok is not None:
                self._settle(record, ok=ok)
        except Exception as error:  # noqa: BLE001 - the task boundary: the replay ends with this error
            self._error = self._error or error

    async def _ended_before(self, chosen: Chosen) -> bool | None:
        """Return how this replay ended an event before it was interrupted; None: it is to be run."""
        if chosen.succeeded is False:
            letter = await self._parts.dead_letters.get(chosen.record.id, queue=queue_of(self._spec.name))
            return None if letter is None else False
        return chosen.succeeded

    def _settle(self, record: Record, *, ok: bool) -> None:
        run = self._run
        run.ahead_done += ok
        run.ahead_failed += not ok
        folded = self._tracker.finish(record.position, ok)
        done = sum(folded)
        run.ahead_done -= done
        run.ahead_failed -= len(folded) - done
        self._held_bytes -= len(record.payload)
        self._note(done=done, failed=len(folded) - done)
        telemetry.REPLAYED.labels(replay=self._spec.name, status="ok" if ok else "failed").inc()
        behind = self._behind.get(record.source)
        if behind:
            self._ready.append(behind.popleft())
        elif self._spec.ordered:
            self._behind.pop(record.source, None)

    def _note(self, *, done: int = 0, failed: int = 0, events: int = 1) -> None:
        """Move the progress to the finished prefix."""
        job = self._run.job
        cursor = str(replace(self._cursor, position=self._tracker.mark))
        if events or cursor != job.cursor:
            self._run.moved(
                replace(job, cursor=cursor, done=job.done + done, failed=job.failed + failed), events=events
            )

    async def _replay(self, record: Record) -> bool | None:
        """Invoke one event until it ends well or for good; None when asked to stop meanwhile."""
        target = self._spec.to or record.function
        context = marked_context(record.client_context, self._spec.name, record)
        history: list[Attempt] = []
        system_errors = 0
        while True:
            started_at = self._parts.clock.time()
            result, condition = await self._invoke(target, record, context)
            attempt = _attempt(
                record, target, result, number=len(history) + 1, started_at=started_at, name=self._spec.name
            )
            self._parts.outcomes.append(attempt)
            if result.is_ok:
                return True
            if result.kind is ResultKind.FUNCTION_ERROR:
                system_errors = 0
                history.append(attempt)
            else:
                system_errors += 1
            if condition is None and len(history) <= self._spec.retry_attempts and system_errors <= _SYSTEM_ERRORS_MAX:
                ceiling = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2 ** (max(len(history), system_errors) - 1))
                if await until(self._run.stopping, self._parts.clock, self._parts.rng.uniform(ceiling / 2, ceiling)):
                    return None
                continue
            letter = _letter(
                record,
                replay=self._spec.name,
                target=target,
                context=context,
                dead_at=self._parts.clock.time(),
                condition=condition or Condition.RETRIES_EXHAUSTED,
                result=result,
                history=history,
                last=attempt,
            )
            # Durable before the progress moves on.
            is_stored = await stored(
                lambda: self._parts.dead_letters.put(letter),  # noqa: B023 - awaited in this pass
                stopping=self._run.stopping,
                clock=self._parts.clock,
            )
            return False if is_stored else None

    async def _invoke(self, target: str, record: Record, context: bytes) -> tuple[InvocationResult, Condition | None]:
        """Run once; returns how it ended and, where trying again is no use, why."""
        try:
            result = await self._parts.invoker.invoke_background(
                target, request_id=record.id, payload=record.payload, client_context=context
            )
        except FunctionNotFound as error:
            return _refused(error), Condition.FUNCTION_NOT_FOUND
        except (PayloadInvalid, PayloadTooLarge) as error:
            return _refused(error), Condition.RETRIES_EXHAUSTED
        except Throttled as error:
            # Stopped on purpose: straight to the dead letters, as an asynchronous event (semantics 2.1).
            return _refused(error), Condition.ZERO_RESERVED_CONCURRENCY if error.reason == THROTTLE_RESERVED else None
        except InvokeError as error:
            return _refused(error), None
        return result, None


def queue_of(name: str) -> str:
    """Return the dead-letter queue of a replay: of its own, so that it cannot loop into its own source."""
    return f"replay:{name}"


def marked_context(context: bytes, name: str, record: Record) -> bytes:
    """Return the client context with the replay's mark in `custom`; what the sender put there is kept.

    What is no JSON object can hold no mark and is replaced.
    """
    document: Any = {}
    if context:
        try:
            document = orjson.loads(context)
        except orjson.JSONDecodeError:
            document = {}
    if not isinstance(document, dict):
        document = {}
    custom = document.get("custom")
    mark = {MARK: name, f"{MARK}-received-at": f"{record.received_at:.3f}"}
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


def _letter(
    record: Record,
    *,
    replay: str,
    target: str,
    context: bytes,
    dead_at: float,
    condition: Condition,
    result: InvocationResult,
    history: list[Attempt],
    last: Attempt,
) -> DeadLetter:
    return DeadLetter(
        id=record.id,
        queue=queue_of(replay),
        function=target,
        source=record.source,
        received_at=record.received_at,
        dead_at=dead_at,
        condition=condition,
        attempts=len(history),
        payload=record.payload,
        position=-1,  # the live lane has its own word about this position
        client_context=context,
        error_type=result.error_type,
        error_message=result.error_message,
        response=result.payload,
        history=tuple((history or [last])[-_HISTORY_MAX:]),
    )
