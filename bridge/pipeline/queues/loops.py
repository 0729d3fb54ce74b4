"""Messages whose function is too often in what led to them: not run, and kept where their queue has no dead letters."""

import uuid
from collections.abc import Sequence

import structlog

from bridge.core.errors import RecursiveInvocation, StoreError
from bridge.core.invocation import Condition, DeadLetter
from bridge.core.queues import Message, QueueFacts
from bridge.pipeline.queues.settings import QueueWork
from bridge.util import telemetry

log = structlog.get_logger("bridge.mappings")

_WAIT_MIN_S = 1.0
_WAIT_MAX_S = 60.0


class LoopGuard:
    """What Lambda's recursive loop detection does to the messages of one mapping (invocation-recursion.html).

    On AWS the invocation is refused and the message goes back, until its queue's redrive policy makes it a dead letter,
    or until it is too old and gone. Here the latter is a dead letter of ours at once.
    """

    def __init__(self, work: QueueWork) -> None:
        self._work = work
        self._name = work.mapping.function.partition(":")[0]

    def why_stopped(self, message: Message) -> str:
        """Say why a message may not be handled; empty: it may."""
        loops = self._work.loops
        return loops.why_stopped(self._name, message.trace_header) if loops is not None and message.trace_header else ""

    async def end(self, messages: Sequence[Message], facts: QueueFacts | None, *, why: str) -> bool:
        """Return whether these belong back in their queue; those that do not are dead letters by now, to be deleted."""
        is_redriven = facts is not None and facts.max_receive_count is not None
        log.warning(
            "recursive_loop_stopped",
            mapping=self._work.mapping.name,
            messages=[message.id for message in messages][:10],
            goes_to="the queue's dead-letter queue" if is_redriven else "the local dead letters",
            reason=why,
        )
        telemetry.RECURSIONS_DROPPED.labels(function=self._name).inc(len(messages))
        if not is_redriven:
            for message in messages:
                await self._keep(message, why)
        return is_redriven

    async def _keep(self, message: Message, why: str) -> None:
        """Make a message a dead letter, for as long as that takes: what is not kept is not deleted."""
        work, now = self._work, self._work.clock.time()
        letter = DeadLetter(
            # Of the message: received again after a crash, it is the same dead letter.
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{work.mapping.name} {work.mapping.source} {message.id}")),
            queue="default",
            function=work.mapping.function,
            source=work.mapping.name,
            received_at=message.sent_at or now,
            dead_at=now,
            condition=Condition.RECURSIVE_LOOP,
            attempts=0,
            payload=work.shape.event([("", [message.fragment])]),
            error_type=RecursiveInvocation.code,
            error_message=why,
            mapping=work.mapping.name,
            item_failures=work.mapping.reports_item_failures,
        )
        wait_s = _WAIT_MIN_S
        while work.spill is not None:
            try:
                await work.spill.send(letter)
            except StoreError as error:
                log.warning("message_not_kept", mapping=work.mapping.name, message_id=message.id, error=str(error))
                await work.clock.sleep(wait_s)
                wait_s = min(2 * wait_s, _WAIT_MAX_S)
            else:
                break
        telemetry.DEAD_LETTERS.labels(function=self._name, condition=letter.condition.value).inc()
