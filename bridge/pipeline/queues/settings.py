"""What the worker of a queue is made with: the parts it uses and the numbers it keeps to."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bridge.core import limits
from bridge.core.loops import Loops
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock, Destination
from bridge.core.queues import Message, QueueSource
from bridge.core.sources import EventShape
from bridge.pipeline.streams.settings import Slots


@dataclass(slots=True, kw_only=True)
class QueueWork:
    """One mapping of a queue and what its worker works with."""

    mapping: EventSourceMapping
    shape: EventShape
    make_source: Callable[[], QueueSource]
    """Returns a new reader; called again after a SourceError."""
    slots: Slots
    clock: Clock
    spill: Destination | None = None
    """The local dead letters; needed with `loops`."""
    loops: Loops | None = None
    """Which messages came of too many rounds; None: nobody counts."""
    keeps: Callable[[Message], bool] | None = None
    """The mapping's filters; None: everything passes."""
    archive: Callable[[Sequence[Message]], Awaitable[object]] | None = None
    """Copies messages before they are deleted; durable when it returns, raises StoreError."""
    rng: random.Random = field(default_factory=random.Random)
    payload_max_bytes: int = limits.SYNC_PAYLOAD_MAX_BYTES
    buffer_records_max: int = limits.QUEUE_BUFFER_RECORDS_MAX
    buffer_bytes_max: int = limits.QUEUE_BUFFER_MAX_BYTES
