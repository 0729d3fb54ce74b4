"""What a worker is made with: the parts it uses and the numbers it keeps to."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge.core import limits
from bridge.core.invocation import Invocation, InvocationResult
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock, Destination
from bridge.core.sources import EventShape, Source
from bridge.core.stream import Chunk
from bridge.pipeline.streams.lane import Keeps

PAYLOAD_MAX_BYTES = limits.SYNC_PAYLOAD_MAX_BYTES


class Slots(Protocol):
    """Where invocations run (invokers/service.py)."""

    def resolve(self, target: str) -> Any:
        """Return the target; raises FunctionNotFound."""
        ...

    def room(self, target: Any) -> int:
        """How many could start now."""
        ...

    def hindrance(self, target: Any) -> str:
        """Say why none starts now, whatever the limits allow; empty: it waits for a slot alone."""
        ...

    def begin(self, target: Any) -> Any:
        """Take a slot that `room` promised."""
        ...

    async def run(self, slot: Any, invocation: Invocation) -> InvocationResult:
        """Run on that slot and give it back; raises InvokeError when it was not accepted."""
        ...


@dataclass(slots=True, kw_only=True)
class Work:
    """One mapping and what its worker works with."""

    mapping: EventSourceMapping
    shape: EventShape
    make_source: Callable[[], Source]
    """Returns a new reader; called again after a SourceError."""
    slots: Slots
    destination: Destination
    spill: Destination
    clock: Clock
    keeps: Keeps | None = None
    """The mapping's filters; None: everything passes."""
    archive: Callable[[Chunk], Awaitable[None]] | None = None
    """Copies a chunk to the journal; durable when it returns."""
    client_context: bytes = b""
    queue: str = "default"
    """Dead-letter queue."""
    is_bounded: bool = False
    """A replay: it ends when all its shards have."""
    rng: random.Random = field(default_factory=random.Random)
    on_delivered: Callable[[int, bool], None] = lambda records, ok: None  # noqa: ARG005
    """Told how many records ended, and whether they were handled (else discarded)."""
    buffer_records_max: int = limits.STREAM_BUFFER_RECORDS_MAX
    buffer_bytes_max: int = limits.STREAM_BUFFER_MAX_BYTES
