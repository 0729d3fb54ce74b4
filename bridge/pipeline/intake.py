"""The way in for push sources: de-duplicate, check the lane's room, store durably, wake the lane."""

import asyncio
from collections.abc import Sequence

from bridge.core import limits
from bridge.core.errors import LaneFull
from bridge.core.ports import Clock, Journal, Receipt
from bridge.core.record import Record
from bridge.core.sources import StreamBacklogs
from bridge.pipeline.deduplication import DeliveryIndex
from bridge.pipeline.dispatcher import Dispatcher
from bridge.util import telemetry
from bridge.util.crash import crash_point


class JournalIntake:
    """`ports.Intake` over the journal and the lanes."""

    def __init__(
        self,
        *,
        journal: Journal,
        dispatcher: Dispatcher,
        clock: Clock,
        streams: StreamBacklogs | None = None,
    ) -> None:
        self._journal = journal
        self._dispatcher = dispatcher
        self._clock = clock
        self._streams = streams
        self._deliveries = DeliveryIndex()
        self._pending: dict[bytes, asyncio.Future[str]] = {}
        """Deliveries whose first request is being stored: a second one waits and shares its answer."""
        self._window_s = float(limits.DEDUPLICATION_WINDOW_DEFAULT_S)
        journal.on_commit(self._remember)
        journal.on_refuse(self._refused)

    async def open(self, *, window_s: float) -> None:
        """Rebuild the de-duplication index from what the journal holds of the last `window_s` seconds."""
        self._window_s = window_s
        since = self._clock.time() - window_s
        rows = await asyncio.to_thread(lambda: list(self._journal.deliveries(since=since)))
        for source, delivery_id, request_id, received_at in rows:
            self._deliveries.add(DeliveryIndex.key(source, delivery_id), request_id, received_at=received_at)

    def _remember(self, records: Sequence[Record]) -> None:
        """Note the deliveries of a commit group: what is stored is known, whether or not its sender still waits."""
        for record in records:
            if record.delivery_id:
                key = DeliveryIndex.key(record.source, record.delivery_id)
                self._deliveries.add(key, record.id, received_at=record.received_at)

    def _refused(self, records: Sequence[Record]) -> None:
        """Give their room in the lanes back: they are not stored, whether or not their senders still wait."""
        for record in records:
            if record.lane:
                self._dispatcher.lane(record.lane).unreserve(len(record.payload))

    def set_window(self, window_s: float) -> None:
        """Remember deliveries for at least that long from now on."""
        self._window_s = window_s

    async def submit(self, record: Record, *, deduplicate_s: float = 0.0) -> Receipt:
        """Store once. See ports.Intake."""
        if not record.delivery_id or deduplicate_s <= 0:
            return Receipt(id=(await self._store(record)).id)
        key = DeliveryIndex.key(record.source, record.delivery_id)
        while (first := self._pending.get(key)) is not None:
            await asyncio.wait({first})
            if not first.cancelled() and first.exception() is None:
                return self._duplicate(record, first.result())
        known = self._deliveries.find(key, now=self._clock.time(), window_s=deduplicate_s)
        if known is not None:
            return self._duplicate(record, known)
        pending = self._pending[key] = asyncio.get_running_loop().create_future()
        try:
            stored = await self._store(record)
        except BaseException:
            pending.cancel()
            raise
        else:
            pending.set_result(stored.id)
        finally:
            del self._pending[key]
        return Receipt(id=stored.id)

    def _duplicate(self, record: Record, request_id: str) -> Receipt:
        telemetry.DUPLICATES.labels(source=record.source).inc()
        return Receipt(id=request_id, duplicate=True)

    async def _store(self, record: Record) -> Record:
        # The function's lane, and the mappings that read the source: either may have no room.
        lane = self._dispatcher.lane(record.lane) if record.lane else None
        size = len(record.payload)
        if self._streams is not None:
            self._streams.reserve(record.source, size)
        try:
            if lane is not None:
                lane.reserve(size)
        except LaneFull:
            if self._streams is not None:
                self._streams.unreserve(record.source, size)
            raise
        # Its reservations end through on_commit or on_refuse, whether or not this caller still waits.
        stored = await self._journal.append(record)
        crash_point("intake.committed")
        return stored

    def archive(self, record: Record) -> None:
        """Keep a RequestResponse event for replay, without waiting for the disk."""
        self._journal.archive(record)

    def sweep(self) -> None:
        """Forget deliveries older than the window; cheap, called every second."""
        self._deliveries.forget(before=self._clock.time() - self._window_s)
