"""Invokes functions by name and qualifier: which version, is there room, and who goes first."""

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import orjson

from bridge.core import limits
from bridge.core.errors import FunctionNotFound, InvokeError, PayloadInvalid, PayloadTooLarge, Throttled
from bridge.core.function import LATEST, Function, FunctionVersion, space_name, split_target
from bridge.core.invocation import (
    THROTTLE_ACCOUNT,
    THROTTLE_RESERVED,
    Attempt,
    AttemptStatus,
    Invocation,
    InvocationResult,
    ResultKind,
)
from bridge.core.ports import Clock, Outcomes, Runtime
from bridge.util import telemetry
from bridge.util.quick import maker


class Catalog(Protocol):
    """Where functions are looked up."""

    def get(self, name: str) -> Function:
        """Return the function; raises FunctionNotFound with AWS's text."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A resolved `name[:qualifier]`."""

    function: Function
    version: FunctionVersion
    invoked_arn: str


_target: Final = maker(Target)
_invocation: Final = maker(Invocation)
_attempt: Final = maker(Attempt)


class Draw(Enum):
    """What of the account's concurrency an invocation draws on."""

    UNRESERVED = "unreserved"
    RESERVED = "reserved"
    PROVISIONED = "provisioned"


class Concurrency:
    """Counts running invocations against the account's pool, one of each name space, and functions' reservations.

    A reservation is guarantee and cap (semantics 5.6): reserved functions draw on their own, the others on
    what is left of the account. What is provisioned of a version of the others is a guarantee and no cap.
    """

    def __init__(self, *, account: int) -> None:
        self._account = account
        self._set_aside: Counter[str] = Counter()
        """Of an account, by name space: what is reserved, and what is provisioned of functions that reserve nothing."""
        self._unreserved_running: Counter[str] = Counter()
        """By name space."""
        self._provisioned: Mapping[tuple[str, str], int] = {}
        """By function and version, of functions that reserve nothing."""
        self._provisioned_running: dict[tuple[str, str], int] = {}
        self._running: dict[str, int] = {}
        self._known: set[str] = set()
        """Functions whose gauge reads from here."""

    def configure(
        self, *, account: int, reserved: Mapping[str, int], provisioned: Mapping[tuple[str, str], int] | None = None
    ) -> None:
        """Take new limits; what runs is not interrupted.

        Args:
            account: invocations at once, of each name space.
            reserved: what functions keep for themselves, by name space (`space_name`).
            provisioned: of functions that reserve nothing, by function and version.
        """
        self._account = account
        self._provisioned = dict(provisioned or {})
        self._set_aside = Counter(reserved)
        for (name, _), count in self._provisioned.items():
            self._set_aside[space_name(name)] += count

    def running(self, name: str) -> int:
        """How many invocations of a function run now."""
        return self._running.get(name, 0)

    def room(self, function: Function, version: str = LATEST) -> int:
        """How many more of a version may start now (>= 0)."""
        if function.reserved_concurrency is not None:
            return max(0, function.reserved_concurrency - self.running(function.name))
        space = space_name(function.name)
        room = max(0, self._account - self._set_aside[space] - self._unreserved_running[space])
        return room + self._own_room((function.name, version)) if self._provisioned else room

    def _own_room(self, key: tuple[str, str]) -> int:
        return max(0, self._provisioned.get(key, 0) - self._provisioned_running.get(key, 0))

    def reason(self, function: Function) -> str:
        """AWS's Reason for a 429 of this function."""
        return THROTTLE_ACCOUNT if function.reserved_concurrency is None else THROTTLE_RESERVED

    def begin(self, function: Function, version: str = LATEST) -> Draw:
        """Count one more; returns what it draws on, which `end` wants back."""
        name = function.name
        if name not in self._known:
            self._known.add(name)
            telemetry.RUNNING.labels(function=name).set_function(lambda: self.running(name))
        self._running[name] = self._running.get(name, 0) + 1
        if function.reserved_concurrency is not None:
            return Draw.RESERVED
        if self._provisioned and self._own_room(key := (name, version)):
            self._provisioned_running[key] = self._provisioned_running.get(key, 0) + 1
            return Draw.PROVISIONED
        self._unreserved_running[space_name(name)] += 1
        return Draw.UNRESERVED

    def end(self, name: str, version: str = LATEST, *, draw: Draw) -> None:
        """Count one less."""
        left = self._running[name] - 1
        if left:
            self._running[name] = left
        else:
            del self._running[name]
        if draw is Draw.UNRESERVED:
            self._unreserved_running[space_name(name)] -= 1
        elif draw is Draw.PROVISIONED:
            key = (name, version)
            self._provisioned_running[key] -= 1
            if not self._provisioned_running[key]:
                del self._provisioned_running[key]


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one invocation, counted from `begin` to the end of `run`."""

    target: Target
    draw: Draw


_slot: Final = maker(Slot)


@dataclass(slots=True, eq=False)
class _Waiter:
    target: Target
    future: "asyncio.Future[Slot]"


class FunctionService:
    """`ports.Invoker`, and the slots that asynchronous delivery starts its work on.

    Priority when a slot becomes free: callers that wait for an answer, then asynchronous lanes
    (`on_free`), then replays.

    Args:
        catalog: where functions are looked up.
        runtime: where they run.
        clock: the daemon's.
        outcomes: gets the history of synchronous calls; None: nobody does.
        account_concurrency: invocations at once of each name space.
        sync_wait_s: how long a caller waits at a limit.
        draw: returns a number from 0..1, drawn evenly, for each attempt: which version of a weighted alias it gets.
        hindrance: why nothing of a version starts now, whatever the limits allow (a remote that is down).
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        runtime: Runtime,
        clock: Clock,
        outcomes: Outcomes | None = None,
        account_concurrency: int = limits.ACCOUNT_CONCURRENCY_DEFAULT,
        sync_wait_s: float = limits.SYNC_CONCURRENCY_WAIT_S,
        draw: Callable[[], float] = random.random,
        hindrance: Callable[[FunctionVersion], InvokeError | None] = lambda _: None,
    ) -> None:
        self._draw = draw
        self._hindrance = hindrance
        self._catalog = catalog
        self._runtime = runtime
        self._clock = clock
        self._outcomes = outcomes
        self._sync_wait_s = sync_wait_s
        self._waiting: deque[_Waiter] = deque()
        self._background: deque[_Waiter] = deque()
        self._callbacks: list[Callable[[], None]] = []
        self._live_work: list[Callable[[], bool]] = []
        self._ended: dict[tuple[str, ResultKind], Any] = {}
        self._durations: dict[str, Any] = {}
        """Metrics of functions that were invoked; they stay, as their names do in what is scraped."""
        self._scheduled = False
        self._promised = 0
        """Slots begun whose invocation has not reached the runtime yet."""
        self.concurrency = Concurrency(account=account_concurrency)
        runtime.on_free(self._slot_freed)

    def configure(
        self,
        *,
        account_concurrency: int,
        reserved: Mapping[str, int],
        sync_wait_s: float,
        provisioned: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        """Take new limits from now on; see `Concurrency.configure`."""
        self.concurrency.configure(account=account_concurrency, reserved=reserved, provisioned=provisioned)
        self._sync_wait_s = sync_wait_s

    # --- lookup -------------------------------------------------------------------------------

    def resolve(self, target: str) -> Target:
        """Return what `name[:qualifier]` names; raises FunctionNotFound with the qualifier that was asked for."""
        name, qualifier = split_target(target)
        try:
            function = self._catalog.get(name)
        except FunctionNotFound as error:
            if not qualifier:
                raise
            raise FunctionNotFound(f"{str(error).removesuffix(f':{LATEST}')}:{qualifier}") from None
        version = function.version(qualifier, chance=self._draw())
        function = function.qualified(qualifier)
        arn = f"{version.arn}:{qualifier}" if qualifier else version.arn
        return _target(function=function, version=version, invoked_arn=arn)

    def dry_run(self, target: str) -> None:
        """Check that the target exists; raises InvokeError as `invoke` would. Runs nothing."""
        self.resolve(target)

    # --- slots --------------------------------------------------------------------------------

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back, at most once a loop pass, when a slot may have become free."""
        self._callbacks.append(callback)

    def live_work(self, waits: Callable[[], bool]) -> None:
        """Ask `waits()` whether asynchronous work could use the next slot: replays let it pass."""
        self._live_work.append(waits)

    def _waits_live(self) -> bool:
        return any(waits() for waits in self._live_work)

    def room_behind(self, target: Target) -> int:
        """How many replayed batches could start now: none while anything live waits for a slot."""
        return 0 if self._waiting or self._waits_live() else self.room(target)

    def room(self, target: Target, *, enough: int | None = None) -> int:
        """How many asynchronous invocations of this version could start now; from `enough` on nobody needs to count."""
        promised = self._promised
        most = None if enough is None else enough + promised
        workers = self._runtime.free_slots(target.version, enough=most) - promised
        return max(0, min(self.concurrency.room(target.function, target.version.version), workers))

    def hindrance(self, target: Target) -> str:
        """Say why nothing of this version starts now, whatever the limits allow; empty: it waits for a slot alone."""
        error = self._hindrance(target.version)
        return "" if error is None else str(error)

    def begin(self, target: Target) -> Slot:
        """Take a slot that `room` promised, in the same loop pass; `run` must follow."""
        self._promised += 1
        return _slot(target=target, draw=self.concurrency.begin(target.function, target.version.version))

    async def run(self, slot: Slot, invocation: Invocation) -> InvocationResult:
        """Run on a slot and give it back. Raises InvokeError when it was not accepted."""
        self._promised -= 1
        try:
            return await self._runtime.invoke(slot.target.version, invocation)
        finally:
            self._end(slot)

    def _end(self, slot: Slot) -> None:
        target = slot.target
        self.concurrency.end(target.function.name, target.version.version, draw=slot.draw)
        self._slot_freed()

    def _slot_freed(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._hand_out)

    def _hand_out(self) -> None:
        self._scheduled = False
        self._wake(self._waiting)
        for callback in self._callbacks:
            callback()
        # Who looked first looks last the next time: lanes and mappings share what there is.
        self._callbacks = [*self._callbacks[1:], *self._callbacks[:1]]
        if self._background and not self._waits_live():
            self._wake(self._background)

    def _wake(self, waiting: deque[_Waiter]) -> None:
        for waiter in list(waiting):
            # Taken here on the waiter's behalf: a lane that looks before the waiter's task runs finds it gone.
            if not waiter.future.done() and self.room(waiter.target) > 0:
                waiter.future.set_result(self.begin(waiter.target))

    def _is_awaited(self, function: Function) -> bool:
        """Say whether a caller waits for an answer of that function: nobody else may go before it."""
        return any(
            waiter.target.function.name == function.name and not waiter.future.done() for waiter in self._waiting
        )

    async def _slot(self, target: Target) -> Slot:
        """Wait at most `sync_wait_s` for a slot (semantics 1.5).

        Raises:
            Throttled: there was none.
            InvokeError: there will be none soon, and why.
        """
        if self.room(target, enough=1) and not (self._waiting and self._is_awaited(target.function)):
            return self.begin(target)
        if target.function.reserved_concurrency == 0:
            raise Throttled(THROTTLE_RESERVED)
        error = self._hindrance(target.version)
        if error is not None and (not isinstance(error, Throttled) or error.retry_after_s > self._sync_wait_s):
            raise error
        slot = await self._granted(target, self._waiting, wait_s=self._sync_wait_s)
        if slot is None:
            raise self._hindrance(target.version) or Throttled(self.concurrency.reason(target.function))
        return slot

    async def _granted(self, target: Target, waiting: deque[_Waiter], *, wait_s: float) -> Slot | None:
        """Queue for a slot; None when there was none within `wait_s`."""
        waiter = _Waiter(target=target, future=asyncio.get_running_loop().create_future())
        waiting.append(waiter)
        timer = asyncio.create_task(self._clock.sleep(wait_s))
        try:
            awaited: set[asyncio.Future[Any]] = {timer, waiter.future}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if waiter.future.done():  # granted, but nobody is left to use it
                self._promised -= 1
                self._end(waiter.future.result())
            raise
        finally:
            timer.cancel()
            with contextlib.suppress(ValueError):
                waiting.remove(waiter)
        return waiter.future.result() if waiter.future.done() else None

    # --- ports.Invoker ------------------------------------------------------------------------

    async def invoke(
        self, target: str, *, request_id: str, payload: bytes, client_context: bytes = b""
    ) -> InvocationResult:
        """RequestResponse: run now, or wait at most a second for room. See ports.Invoker."""
        resolved = self.resolve(target)
        payload = checked_payload(payload, max_bytes=limits.SYNC_PAYLOAD_MAX_BYTES, kind="RequestResponse")
        slot = await self._slot(resolved)
        started_at = self._clock.time()
        result = await self.run(
            slot,
            _invocation(
                request_id=request_id,
                payload=payload,
                invoked_arn=resolved.invoked_arn,
                client_context=client_context,
                is_awaited=True,
                wait_max_s=self._sync_wait_s,
            ),
        )
        self._count(resolved.function.name, result)
        if self._outcomes is not None:
            self._outcomes.append(_answered(target, request_id, result, started_at=started_at))
        return result

    def _count(self, name: str, result: InvocationResult) -> None:
        ended = self._ended.get((name, result.kind))
        if ended is None:
            ended = telemetry.INVOCATIONS.labels(function=name, status=result.kind.value)
            self._ended[name, result.kind] = ended
        ended.inc()
        duration = self._durations.get(name)
        if duration is None:
            duration = self._durations[name] = telemetry.INVOCATION_SECONDS.labels(function=name)
        duration.observe(result.duration_ms / 1000)

    async def invoke_background(
        self, target: str, *, request_id: str, payload: bytes, client_context: bytes = b""
    ) -> InvocationResult:
        """Run when nothing live waits for the slot. See ports.Invoker."""
        while True:
            resolved = self.resolve(target)
            if resolved.function.reserved_concurrency == 0:
                raise Throttled(THROTTLE_RESERVED)
            if self.room(resolved) > 0 and not self._waiting and not self._waits_live():
                slot = self.begin(resolved)
                break
            # Looked at again each second: a reload may have changed the limits.
            granted = await self._granted(resolved, self._background, wait_s=1.0)
            if granted is not None:
                slot = granted
                break
        return await self.run(
            slot,
            Invocation(
                request_id=request_id,
                payload=payload or b"{}",
                invoked_arn=resolved.invoked_arn,
                client_context=client_context,
            ),
        )


def _answered(target: str, request_id: str, result: InvocationResult, *, started_at: float) -> Attempt:
    """Return the history of a synchronous call: one attempt, whose caller has the answer."""
    return _attempt(
        position=-1,
        request_id=request_id,
        function=target,
        number=1,
        status=AttemptStatus.OK if result.is_ok else AttemptStatus.ERROR,
        started_at=started_at,
        duration_ms=result.duration_ms,
        version=result.version,
        error_type=result.error_type,
        error_message=result.error_message,
        log_tail=result.log_tail,
        log_stream=result.log_stream,
    )


def checked_payload(payload: bytes, *, max_bytes: int, kind: str) -> bytes:
    """Return the event to run: `{}` for an empty payload (semantics 1.1).

    Raises:
        PayloadTooLarge: more than `max_bytes` bytes.
        PayloadInvalid: not JSON in UTF-8.
    """
    if not payload:
        return b"{}"
    if len(payload) > max_bytes:
        raise PayloadTooLarge(
            f"{len(payload)} byte payload is too large for the {kind} invocation type (limit {max_bytes} bytes)"
        )
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise PayloadInvalid(
            f"Could not parse request body into json: Could not parse payload into json: {error}"
        ) from error
    return payload
