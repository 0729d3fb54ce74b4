"""Makes the worker of a mapping: of a stream or of a queue, with its filters and what it copies to the journal."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import orjson

from bridge.core.invocation import InvocationType
from bridge.core.loops import Loops
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock, Destination, Journal
from bridge.core.queues import Message, QueueStatus
from bridge.core.record import Record
from bridge.core.sources import ARCHIVE_PREFIX, EventShape, EventSource, QueueOrigin, ShardStatus
from bridge.core.stream import Chunk
from bridge.pipeline.criteria import compile_criteria
from bridge.pipeline.queues.settings import QueueWork
from bridge.pipeline.queues.worker import QueueWorker
from bridge.pipeline.streams.lane import Keeps
from bridge.pipeline.streams.settings import Slots, Work
from bridge.pipeline.streams.worker import MappingWorker


class Worker(Protocol):
    """What runs a mapping: what its supervisor asks of either kind."""

    wants_slot: bool
    """Whether a batch waits for nothing but a slot."""
    result: str
    """LastProcessingResult; empty where there is none."""

    @property
    def in_trouble(self) -> str:
        """What keeps it from reading or delivering, in one line; empty when nothing does."""
        ...

    @property
    def running(self) -> int:
        """Invocations that run now."""
        ...

    async def run(self) -> None:
        """Read until asked to stop."""
        ...

    def kick(self) -> None:
        """Look for work to start: a slot may have become free."""
        ...

    async def drain(self, *, deadline_s: float) -> bool:
        """Begin nothing more, let what runs end; True when all ended within `deadline_s` seconds."""
        ...

    async def stop(self) -> None:
        """End at once: what still runs is killed and comes again."""
        ...

    def shards(self) -> tuple[ShardStatus, ...]:
        """Return the shards of a stream."""
        ...


def queue_of(worker: Worker | None) -> QueueStatus | None:
    """Return the queue that a worker reads, None of a stream."""
    return worker.queue() if isinstance(worker, QueueWorker) else None


class Workers:
    """Makes them.

    Args:
        slots: where invocations run.
        spill: the local dead letters.
        journal: where records are copied to.
        clock: time.
        loops: stops functions that call themselves through queues; None: nothing does.
    """

    def __init__(
        self, *, slots: Slots, spill: Destination, journal: Journal, clock: Clock, loops: Loops | None = None
    ) -> None:
        self._slots = slots
        self._spill = spill
        self._journal = journal
        self._clock = clock
        self._loops = loops

    def of_stream(self, mapping: EventSourceMapping, source: EventSource, *, destination: Destination) -> Worker:
        """Return the worker of a stream."""
        return MappingWorker(
            Work(
                mapping=mapping,
                shape=source.shape,
                make_source=source.consumer,
                slots=self._slots,
                destination=destination,
                spill=self._spill,
                clock=self._clock,
                keeps=filters(mapping, source.shape),
                archive=self._archive(mapping, source.shape) if mapping.archive else None,
            )
        )

    def of_queue(self, mapping: EventSourceMapping, origin: QueueOrigin) -> Worker:
        """Return the worker of a queue."""
        return QueueWorker(
            QueueWork(
                mapping=mapping,
                shape=origin.shape,
                make_source=origin.consumer,
                slots=self._slots,
                clock=self._clock,
                spill=self._spill,
                loops=self._loops,
                keeps=_message_filters(mapping, origin.shape),
                archive=self._queue_archive(mapping, origin.shape)
                if mapping.archive and not origin.has_archive
                else None,
            )
        )

    def _archive(self, mapping: EventSourceMapping, shape: EventShape) -> Callable[[Chunk], Awaitable[None]]:
        """Return what copies records to the journal: each as an event of its own, replayed like any other."""

        async def archive(chunk: Chunk) -> None:
            await self._keep(mapping, [shape.event([(chunk.shard, [fragment])]) for fragment in chunk.fragments])

        return archive

    def _queue_archive(
        self, mapping: EventSourceMapping, shape: EventShape
    ) -> Callable[[Sequence[Message]], Awaitable[None]]:
        """Return the same for messages, each copied once: when it is about to be deleted."""

        async def archive(messages: Sequence[Message]) -> None:
            await self._keep(mapping, [shape.event([("", [message.fragment])]) for message in messages])

        return archive

    async def _keep(self, mapping: EventSourceMapping, events: Sequence[bytes]) -> None:
        now = self._clock.time()
        await asyncio.gather(
            *(
                self._journal.append(
                    Record(
                        id=str(uuid.uuid4()),
                        source=ARCHIVE_PREFIX + mapping.name,
                        function=mapping.function,
                        invocation_type=InvocationType.REQUEST_RESPONSE,  # in no lane: it runs by its mapping
                        received_at=now,
                        payload=event,
                    )
                )
                for event in events
            )
        )


def filters(mapping: EventSourceMapping, shape: EventShape) -> Keeps | None:
    """Return what a mapping's filters let pass; None: everything."""
    if not mapping.filters:
        return None
    return compile_criteria(mapping.filters, format=shape.format).kept


def _message_filters(mapping: EventSourceMapping, shape: EventShape) -> Callable[[Message], bool] | None:
    if not mapping.filters:
        return None
    criteria = compile_criteria(mapping.filters, format=shape.format)

    def keeps(message: Message) -> bool:
        return criteria.keeps(key=None, value=message.body, document=partial(orjson.loads, message.fragment))

    return keeps
