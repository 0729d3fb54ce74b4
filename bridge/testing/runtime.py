"""A runtime that follows a script: what each function answers, how long it takes, and a record of what it was asked."""

import asyncio
from collections.abc import Callable, Collection

import orjson

from bridge.core.function import FunctionVersion
from bridge.core.invocation import Invocation, InvocationResult, ResultKind
from bridge.core.ports import Clock

Handler = Callable[[Invocation], object]
"""Returns the answer (any JSON value), an InvocationResult, or raises: an Exception is a function error."""


class ScriptedRuntime:
    """`ports.Runtime` without processes: `handlers` by function name, `duration_s` on the given clock."""

    def __init__(self, clock: Clock, *, slots: int = 1000) -> None:
        self._clock = clock
        self.slots = slots
        self.handlers: dict[str, Handler] = {}
        self.duration_s: dict[str, float] = {}
        self.invocations: list[tuple[float, str, Invocation]] = []
        """(monotonic time, function name, invocation), in order of start."""
        self.running = 0
        self.running_max = 0
        self.retired: list[tuple[str, str | None]] = []
        self.kept: dict[str, frozenset[str]] = {}
        """Further revisions that the last `retire` of a function kept."""
        self._callbacks: list[Callable[[], None]] = []

    def asked(self, name: str | None = None) -> list[str]:
        """Return the request ids in order of start."""
        return [i.request_id for _, function, i in self.invocations if name in (None, function)]

    async def invoke(self, version: FunctionVersion, invocation: Invocation) -> InvocationResult:
        """Follow the script."""
        self.invocations.append((self._clock.monotonic(), version.name, invocation))
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            duration_s = self.duration_s.get(version.name, 0.0)
            await (self._clock.sleep(duration_s) if duration_s else asyncio.sleep(0))
            return self._result(version, invocation, duration_s)
        finally:
            self.running -= 1
            for callback in self._callbacks:
                callback()

    def _result(self, version: FunctionVersion, invocation: Invocation, duration_s: float) -> InvocationResult:
        duration_ms = duration_s * 1000
        try:
            handler = self.handlers.get(version.name)
            answer = None if handler is None else handler(invocation)
        except Exception as error:  # noqa: BLE001 - a handler may raise anything; that is a function error
            text = orjson.dumps({"errorMessage": str(error), "errorType": type(error).__name__})
            return InvocationResult(
                kind=ResultKind.FUNCTION_ERROR,
                payload=text,
                version=version.version,
                duration_ms=duration_ms,
                error_type=type(error).__name__,
                error_message=str(error),
            )
        if isinstance(answer, InvocationResult):
            return answer
        return InvocationResult(
            kind=ResultKind.OK, payload=orjson.dumps(answer), version=version.version, duration_ms=duration_ms
        )

    def free_slots(self, version: FunctionVersion, *, enough: int | None = None) -> int:
        """Return what is left of `slots`."""
        del version, enough
        return self.slots - self.running

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back after each invocation."""
        self._callbacks.append(callback)

    def retire(self, name: str, *, keep_revision: str | None, also_keep: Collection[str] = ()) -> None:
        """Remember it."""
        self.retired.append((name, keep_revision))
        self.kept.update({name: frozenset(also_keep)})
