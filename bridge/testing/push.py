"""What a push source talks to, in memory: an intake that keeps or refuses, an invoker that answers by script."""

import asyncio
from collections.abc import Callable

from bridge.core.errors import FunctionNotFound
from bridge.core.invocation import InvocationResult, ResultKind
from bridge.core.ports import Receipt
from bridge.core.push import Accepted, Given, NotAccepted
from bridge.core.record import Record

Answer = Callable[[str, bytes], bytes | InvocationResult]
"""(request id, payload) -> JSON or a whole result; raises an InvokeError where nothing is to run."""


class MemoryIntake:
    """`ports.Intake` that keeps records in a list. `gate`, while closed, holds every submit back."""

    def __init__(self) -> None:
        self.stored: list[Record] = []
        self.archived: list[Record] = []
        self.refusal: Exception | None = None
        """Raised by `submit` instead of storing."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self._first: dict[tuple[str, str], str] = {}

    async def submit(self, record: Record, *, deduplicate_s: float = 0.0) -> Receipt:
        """Store once per delivery id."""
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        if self.refusal is not None:
            raise self.refusal
        key = (record.source, record.delivery_id)
        if record.delivery_id and deduplicate_s > 0:
            if key in self._first:
                return Receipt(id=self._first[key], duplicate=True)
            self._first[key] = record.id
        self.stored.append(record)
        return Receipt(id=record.id)

    def archive(self, record: Record) -> None:
        """Keep it aside."""
        self.archived.append(record)


class ScriptedInvoker:
    """`ports.Invoker` that runs `answers[target]`; a target without one is not found."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.invoked: list[tuple[str, str, bytes]] = []
        """(target, request id, payload) of what ran."""

    async def invoke(
        self, target: str, *, request_id: str, payload: bytes, client_context: bytes = b""
    ) -> InvocationResult:
        """Follow the script."""
        del client_context
        self.dry_run(target)
        answer = self.answers[target](request_id, payload)
        self.invoked.append((target, request_id, payload))
        if isinstance(answer, InvocationResult):
            return answer
        return InvocationResult(kind=ResultKind.OK, payload=answer, version="$LATEST")

    async def invoke_background(
        self, target: str, *, request_id: str, payload: bytes, client_context: bytes = b""
    ) -> InvocationResult:
        """Follow the script, as `invoke`."""
        return await self.invoke(target, request_id=request_id, payload=payload, client_context=client_context)

    def dry_run(self, target: str) -> None:
        """Raise FunctionNotFound unless there is an answer for the target."""
        if target not in self.answers:
            raise FunctionNotFound(f"Function not found: {target}")


class MemoryPushSources:
    """`push.PushSources` that keeps what it is given. `refusals` are raised first, one a call."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, object]] = {}
        """By name, what `views` returns."""
        self.given: list[tuple[str, Given]] = []
        self.answers: list[Accepted] = []
        """What is returned, in order; without one: an id of its number, `id-1`."""
        self.refusals: list[Exception | None] = []

    def add(self, name: str, *, kind: str = "webhook", **known: object) -> None:
        """Have a source."""
        view = {"place": f"/{name}", "function": "hello", "invocation_type": "Event", "trouble": "", "accepted": 0}
        self.known[name] = {"name": name, "type": kind, **view, **known}

    def views(self) -> list[dict[str, object]]:
        """Return them by name."""
        return [view for _, view in sorted(self.known.items())]

    async def feed(self, name: str, given: Given) -> Accepted:
        """Keep it."""
        if name not in self.known:
            raise NotAccepted(f"no source {name}", status=404)
        if self.refusals and (refusal := self.refusals.pop(0)) is not None:
            raise refusal
        self.given.append((name, given))
        return self.answers.pop(0) if self.answers else Accepted(ids=(f"id-{len(self.given)}",))
