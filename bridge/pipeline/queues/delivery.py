"""One try of a batch of messages: its event, its invocation, and which messages it handled (semantics 3.7)."""

import uuid
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter, Histogram

from bridge.core.errors import InvokeError, PayloadInvalid, PayloadTooLarge
from bridge.core.invocation import Invocation, InvocationResult, ResultKind
from bridge.core.queues import Message
from bridge.pipeline.queues.buffer import Batch
from bridge.pipeline.queues.settings import QueueWork
from bridge.pipeline.streams.answers import read_queue_answer
from bridge.util import telemetry
from bridge.util.crash import crash_point


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a try ended."""

    handled: list[Message] = field(default_factory=list)
    """To be deleted."""
    returned: list[Message] = field(default_factory=list)
    """Failed: back to the queue, whose redrive policy counts."""
    is_setback: bool = False
    """A throttle or a service error: nothing is known of any message, the batch is tried again."""
    reason: str = ""
    """Why it failed, in one line."""


class QueueDelivery:
    """Delivers the batches of one mapping."""

    def __init__(self, work: QueueWork) -> None:
        self._work = work
        self._mapping = work.mapping
        self._meters: dict[ResultKind, tuple[Counter, Counter, Histogram]] = {}
        """Metrics by kind: looking one up by its labels costs more than counting."""

    async def attempt(self, batch: Batch, target: Any, slot: Any) -> Ended:
        """Run a batch on its slot."""
        request_id, loops = str(uuid.uuid4()), self._work.loops
        if loops is not None:
            loops.follow(request_id, (message.trace_header for message in batch.messages))
        invocation = Invocation(
            request_id=request_id,
            payload=self._work.shape.event([("", [message.fragment for message in batch.messages])]),
            invoked_arn=target.invoked_arn,
            # A frame that is sent ahead to a busy worker runs later than it seems: the queue's clock ticks meanwhile.
            ahead=not batch.setbacks,
        )
        try:
            result = await self._work.slots.run(slot, invocation)
        except (PayloadTooLarge, PayloadInvalid) as error:  # it never gets better: the queue's redrive policy decides
            return Ended(returned=batch.messages, reason=f"{error.code}: {error}"[:200])
        except InvokeError as error:
            result = InvocationResult(
                kind=ResultKind.UNKNOWN, payload=b"", version="", error_type=error.code, error_message=str(error)
            )
        finally:
            if loops is not None:
                loops.leave(request_id)
        crash_point("queue.handled")
        self._count(result)
        return self._ended(batch, result)

    def _ended(self, batch: Batch, result: InvocationResult) -> Ended:
        reason = f"{result.error_type}: {result.error_message}"[:200] if result.error_type else ""
        if result.kind is ResultKind.UNKNOWN:
            return Ended(is_setback=True, reason=reason)
        if result.kind is ResultKind.FUNCTION_ERROR:
            return Ended(returned=batch.messages, reason=reason)
        if not self._mapping.reports_item_failures:
            return Ended(handled=batch.messages)
        answer = read_queue_answer(result.payload, lambda: {message.id for message in batch.messages})
        if answer.mistake:
            return Ended(returned=batch.messages, reason=answer.mistake)
        return Ended(
            handled=[message for message in batch.messages if message.id not in answer.failed],
            returned=[message for message in batch.messages if message.id in answer.failed],
            reason="named in batchItemFailures",
        )

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
