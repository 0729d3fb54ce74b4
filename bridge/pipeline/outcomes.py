"""Decides where the records of ended invocations go, and has them durable there or in the outbox before it returns."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

import structlog

from bridge.core.errors import FunctionNotFound
from bridge.core.function import Function, FunctionVersion
from bridge.core.invocation import Condition, DeadLetter, InvocationResult
from bridge.core.outcome import LOCAL, WAITING, Outbox, OutboxEntry, OutcomeKind, TargetPlace
from bridge.core.ports import Clock, Destination
from bridge.core.record import Record
from bridge.events.outcomes import failure_outcome, success_record

log = structlog.get_logger("bridge.delivery")


Added = Callable[[Iterable[TargetPlace]], None]
"""Told of places for which something was put: `OutboxSender.added`."""


class Resolved(Protocol):
    """What the service resolves a target to."""

    function: Function
    version: FunctionVersion
    invoked_arn: str


class AsyncOutcomes:
    """Where asynchronous events end: `on_success`, `on_failure` and the dead-letter target of their function.

    `ports.Destination` for failures: those of functions that are gone or have no targets, of replays and of mappings'
    redriven batches go to the local dead letters; so do events that the disk damaged.

    Args:
        outbox: what targets wait for.
        spill: the local dead letters.
        resolve: finds a function by `name[:qualifier]`; raises FunctionNotFound.
        added: is told of each place that something was put for.
        clock: time of successes.
    """

    def __init__(
        self, *, outbox: Outbox, spill: Destination, resolve: Callable[[str], Any], added: Added, clock: Clock
    ) -> None:
        self._outbox = outbox
        self._spill = spill
        self._resolve = resolve
        self._added = added
        self._clock = clock

    async def send(self, letter: DeadLetter) -> None:
        """Return once a failure is a dead letter, waiting for its targets where it has some.

        Raises:
            StoreFull, StoreError: nothing was stored.
        """
        entries = self._targets(letter)
        if not entries:
            await self._spill.send(letter)
            return
        resolved: Resolved = self._resolve(letter.function)
        outcome = failure_outcome(letter, function_arn=resolved.invoked_arn)
        await self._outbox.put(entries, letter=replace(letter, state=WAITING, outcome=outcome))
        self._added([entry.place for entry in entries])

    def _targets(self, letter: DeadLetter) -> list[OutboxEntry]:
        if letter.mapping or letter.queue != "default" or letter.condition is Condition.RECORD_DAMAGED:
            return []
        try:
            resolved: Resolved = self._resolve(letter.function)
        except FunctionNotFound:
            return []
        config = resolved.function.event_invoke
        wanted = (
            (OutcomeKind.ON_FAILURE, "" if config.on_failure == LOCAL else config.on_failure),
            (OutcomeKind.DEAD_LETTER, resolved.version.dead_letter_target),
        )
        return [
            OutboxEntry(
                place=TargetPlace(target=target, connection=resolved.function.connection),
                kind=kind,
                id=letter.id,
                queue=letter.queue,
                function=letter.function,
                role=resolved.version.role,
                created_at=letter.dead_at,
                position=letter.position,
            )
            for kind, target in wanted
            if target
        ]

    async def succeeded(self, record: Record, result: InvocationResult, *, attempts: int) -> None:
        """Return once the record of a success is durable, where its function wants one sent.

        Raises:
            StoreFull, StoreError: it is not; the event is unsettled.
        """
        try:
            resolved: Resolved = self._resolve(record.function)
        except FunctionNotFound:  # removed while it ran
            return
        target = resolved.function.event_invoke.on_success
        if not target:
            return
        now = self._clock.time()
        entry = OutboxEntry(
            place=TargetPlace(target=target, connection=resolved.function.connection),
            kind=OutcomeKind.ON_SUCCESS,
            id=record.id,
            function=record.function,
            role=resolved.version.role,
            created_at=now,
            position=record.position,
            record=success_record(
                request_id=record.id,
                function_arn=resolved.invoked_arn,
                attempts=attempts,
                payload=record.payload,
                version=result.version,
                response=result.payload,
                time=now,
            ),
        )
        await self._outbox.put([entry])
        self._added([entry.place])


class OutboxDestination:
    """`ports.Destination` of a mapping whose failures go to a target: taken as soon as they are durable here.

    Args:
        place: the target.
        outbox: what it waits in.
        added: is told of the place.
        role_of: returns the ARN of a function's execution role, empty where it has none, None where it is gone.
    """

    def __init__(
        self, place: TargetPlace, *, outbox: Outbox, added: Added, role_of: Callable[[str], str | None]
    ) -> None:
        self._place = place
        self._outbox = outbox
        self._added = added
        self._role_of = role_of

    async def send(self, letter: DeadLetter) -> None:
        """Return once it is a dead letter that waits for the target. Raises StoreFull or StoreError: it is not."""
        entry = OutboxEntry(
            place=self._place,
            kind=OutcomeKind.ON_FAILURE,
            id=letter.id,
            queue=letter.queue,
            function=letter.function,
            role=self._role_of(letter.function),
            created_at=letter.dead_at,
        )
        await self._outbox.put([entry], letter=replace(letter, state=WAITING))
        self._added([self._place])
