"""Embedded queues: what is put into the journal and read as if it came from SQS, dead letters of their own included."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import orjson
import structlog

from bridge.core import limits
from bridge.core.errors import DestinationError, SourceError, StoreError
from bridge.core.invocation import Condition, DeadLetter
from bridge.core.mapping import EventSourceMapping, parse_source
from bridge.core.ports import Clock, Destination
from bridge.core.queues import Message, QueueFacts, QueueSource, Refused
from bridge.core.record import DamagedRecord
from bridge.core.sources import EventShape, Source
from bridge.core.stream import Chunk, Mark, Shard
from bridge.events.sqs import SqsShape, message_id
from bridge.sources.pull.journal import JournalEventSource
from bridge.sources.pull.queue_state import Entry, Known, QueueState, parse_state
from bridge.util.telemetry import DEAD_LETTERS

log = structlog.get_logger("bridge.streams")

VISIBILITY_S: Final = 30.0
"""SQS's own default."""
MAX_RECEIVE_COUNT: Final = 5
"""AWS recommends at least as many for a queue that a function reads."""
_LOADED_MAX: Final = 10_000
"""Messages that are read and not finished: what is kept of them over restarts is written with the mark."""
_LOADED_MAX_BYTES: Final = 32 * limits.MIB
_VISIBLE_MIN: Final = 1000
"""So many visible ones are enough: more are read when they have gone."""
_READ_S: Final = 20.0
_BURY_AGAIN_S: Final = 1.0


class LocalQueue:
    """`sources.QueueOrigin` of `local://NAME?as=sqs`; every mapping on a name has a queue of its own (fan-out).

    Args:
        mapping: its source says name, `visibility_timeout_s` and `max_receive_count`.
        stream: its records in the journal.
        spill: the local dead letters, its dead-letter queue.
        clock: time.
    """

    is_remote = False
    has_archive = True

    def __init__(
        self, mapping: EventSourceMapping, stream: JournalEventSource, *, spill: Destination, clock: Clock
    ) -> None:
        self.shape: EventShape = stream.shape
        self._mapping = mapping
        self._stream = stream
        self._spill = spill
        self._clock = clock

    async def prepare(self) -> None:
        """Have the journal keep what is not finished. See JournalEventSource.prepare."""
        await self._stream.prepare()

    def consumer(self) -> QueueSource:
        """Return a reader. See sources.QueueOrigin."""
        return _Consumer(self._mapping, self._stream.consumer(), shape=self.shape, spill=self._spill, clock=self._clock)


class _Consumer:
    """`queues.QueueSource`, and the `ShardEvents` of the stream beneath."""

    def __init__(
        self, mapping: EventSourceMapping, stream: Source, *, shape: EventShape, spill: Destination, clock: Clock
    ) -> None:
        assert isinstance(shape, SqsShape)
        address = parse_source(mapping.source)
        self._mapping = mapping
        self._stream = stream
        self._shape = shape
        self._spill = spill
        self._clock = clock
        self._is_fifo = address.name.endswith(".fifo")
        self._visibility_s = float(address.options.get("visibility_timeout_s", VISIBILITY_S))
        self._receives_max = int(address.options.get("max_receive_count", MAX_RECEIVE_COUNT))
        self._state = QueueState(is_fifo=self._is_fifo, mark=-1)
        self._known: Mapping[int, Known] = {}
        self._known_to: int | None = None
        self._shard: Shard = ""
        self._epoch = 0
        self._feeding: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._committing = asyncio.Lock()
        self._changes = 0
        self._committed = 0

    # --- life ---------------------------------------------------------------------------------

    async def open(self) -> QueueFacts:
        """Take the marks and begin to read. See queues.QueueSource."""
        await self._stream.open(self)
        self._feeding = asyncio.create_task(self._feed())
        return await self.look()

    async def look(self) -> QueueFacts:
        """Return what is known. See queues.QueueSource."""
        now = self._clock.monotonic()
        behind = self._stream.behind({self._shard: self._state.mark}).get(self._shard)
        visible = self._state.visible(now)
        return QueueFacts(
            visibility_s=self._visibility_s,
            is_fifo=self._is_fifo,
            arn=self._shape.arn,
            max_receive_count=self._receives_max,
            dead_letter_arn="",
            visible=visible + max(0, (behind or 0) - len(self._state)),
            in_flight=len(self._state) - visible,
            delayed=0,
        )

    async def close(self) -> None:
        """Keep what is known, and hand the stream back. See queues.QueueSource."""
        feeding, self._feeding = self._feeding, None
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            self._changes += 1
            try:
                await self._commit()
            except SourceError as error:
                log.warning("marks_uncommitted", mapping=self._mapping.name, error=str(error))
        await self._stream.close()

    # --- ShardEvents --------------------------------------------------------------------------

    async def assigned(self, marks: Mapping[Shard, Mark]) -> None:
        """Go on from the mark: what was read behind it and is not named as open is finished."""
        ((self._shard, mark),) = marks.items()
        self._epoch = mark.epoch
        self._known_to, self._known = parse_state(mark.state)
        self._state = QueueState(is_fifo=self._is_fifo, mark=mark.position)

    async def revoking(self, shards: AbstractSet[Shard], *, deadline_s: float) -> None:
        """Nothing of the stream's runs: messages are settled by themselves."""

    def lost(self, shards: AbstractSet[Shard]) -> None:
        """Nothing of the stream's runs."""

    # --- reading ------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Read ahead, as far as there is room."""
        try:
            while True:
                if not self._has_room():
                    self._room.clear()
                    await self._room.wait()
                    continue
                poll = await self._stream.read(
                    records_max=_VISIBLE_MIN, bytes_max=limits.MIB, wait_s=_READ_S, paused=frozenset()
                )
                for chunk in poll.chunks:
                    self._take_in(chunk)
                    for record in chunk.damaged:
                        await self._bury_damaged(record)
                    self._state.passed(chunk.through)
                for through in poll.through.values():
                    self._state.passed(through)
                self._changed.set()
        except Exception as error:  # noqa: BLE001 - the next receive raises it: a queue that is not fed must not look idle
            self._error = error
            self._changed.set()

    def _has_room(self) -> bool:
        state = self._state
        if len(state) >= _LOADED_MAX or state.bytes >= _LOADED_MAX_BYTES:
            return False
        return len(state) < _VISIBLE_MIN or state.visible(self._clock.monotonic()) < _VISIBLE_MIN

    def _take_in(self, chunk: Chunk) -> None:
        for index, position in enumerate(chunk.positions):
            known = self._known.get(position)
            if known is None and self._known_to is not None and position <= self._known_to:
                continue  # finished before the daemon ended
            fragment = chunk.fragments[index]
            key = chunk.keys[index]
            self._state.add(
                Entry(
                    position=position,
                    id=message_id(fragment),
                    body=chunk.values[index] or b"",
                    fragment=fragment,
                    group=key.decode("utf-8", "replace") if self._is_fifo and key is not None else "",
                    sent_ms=chunk.times_ms[index],
                    count=0 if known is None else known.count,
                    first_ms=0 if known is None else known.first_ms,
                )
            )

    # --- queues.QueueSource -------------------------------------------------------------------

    async def receive(self, *, records_max: int, wait_s: float, hidden_s: float) -> Sequence[Message]:
        """Return what is visible, once something is. See queues.QueueSource."""
        until = self._clock.monotonic() + wait_s
        while True:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            if found := await self._take(records_max, hidden_s):
                return found
            now = self._clock.monotonic()
            if now >= until:
                return []
            upcoming = self._state.next_visible(now)
            await self._wait(min(until, until if upcoming is None else upcoming) - now)

    async def _take(self, count: int, hidden_s: float) -> list[Message]:
        now = self._clock.monotonic()
        taken = self._state.take(count, now=now, until=now + hidden_s)
        if not taken:
            return []
        self._room.set()
        dead = [entry for entry in taken if entry.count >= self._receives_max]
        alive = [entry for entry in taken if entry.count < self._receives_max]
        wall_ms = round(self._clock.time() * 1000)
        is_again = any(entry.count for entry in alive)
        for entry in alive:
            entry.count += 1
            entry.first_ms = entry.first_ms or wall_ms
        self._changes += 1
        for entry in dead:
            await self._bury(entry)
        if is_again or dead:  # a message that kills the daemon is counted
            await self._commit()
        return [self._message(entry) for entry in alive]

    def _message(self, entry: Entry) -> Message:
        record: dict[str, Any] = orjson.loads(entry.fragment)
        receipt = f"{entry.position}-{entry.count}"
        record["receiptHandle"] = receipt
        record["attributes"] |= {
            "ApproximateReceiveCount": str(entry.count),
            "ApproximateFirstReceiveTimestamp": str(entry.first_ms),
        }
        return Message(
            id=entry.id,
            receipt=receipt,
            body=entry.body,
            fragment=orjson.dumps(record),
            group=entry.group,
            receive_count=entry.count,
            sent_at=entry.sent_ms / 1000,
        )

    async def delete(self, messages: Sequence[Message]) -> Refused:
        """Finish them. See queues.QueueSource."""
        for message in messages:
            entry = self._entry(message)
            if entry is not None:
                self._state.finish(entry)
        self._changes += 1
        self._room.set()
        self._changed.set()
        await self._commit()
        return Refused()

    async def hide(self, changes: Sequence[tuple[Message, float]]) -> Refused:
        """Hide them. See queues.QueueSource."""
        now = self._clock.monotonic()
        gone = []
        for message, seconds in changes:
            entry = self._entry(message)
            if entry is None:
                gone.append(message)
            else:
                self._state.hide(entry, now + seconds)
        self._changed.set()
        return Refused(gone=tuple(gone), reason="the receipt handle has expired" if gone else "")

    def _entry(self, message: Message) -> Entry | None:
        """Return the message that a receipt names; None when it names none any more."""
        position, _, count = message.receipt.partition("-")
        entry = self._state.get(int(position))
        is_current = entry is not None and entry.count == int(count) and entry.visible_at > self._clock.monotonic()
        return entry if is_current else None

    async def _bury(self, entry: Entry) -> None:
        """Make a dead letter of a message that was received too often; durable when it returns."""
        await self._spill_letter(
            entry.id,
            received_at=entry.sent_ms / 1000,
            condition=Condition.RETRY_ATTEMPTS_EXHAUSTED,
            attempts=entry.count,
            payload=self._shape.event([("", [self._message(entry).fragment])]),
            error_message=f"received {entry.count} times (max_receive_count)",
        )
        self._state.finish(entry)

    async def _bury_damaged(self, record: DamagedRecord) -> None:
        """Make a dead letter of what the disk gave back otherwise than it was stored."""
        await self._spill_letter(
            record.id,
            received_at=record.received_at,
            condition=Condition.RECORD_DAMAGED,
            attempts=0,
            payload=record.payload,
            error_message=f"event {record.id}: {record.damage}",
        )

    async def _spill_letter(self, message: str, **of_message: Any) -> None:
        letter = DeadLetter(
            # Of the message, not of this try: after a crash it is the same dead letter.
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._mapping.name} {message}")),
            queue="default",
            function=self._mapping.function,
            source=self._mapping.name,
            dead_at=self._clock.time(),
            mapping=self._mapping.name,
            item_failures=self._mapping.reports_item_failures,
            **of_message,
        )
        while True:
            try:
                await self._spill.send(letter)
                break
            except (DestinationError, StoreError) as error:
                log.warning("message_unsettled", mapping=self._mapping.name, dead_letter=letter.id, error=str(error))
                await self._clock.sleep(_BURY_AGAIN_S)
        DEAD_LETTERS.labels(function=self._mapping.function, condition=letter.condition.value).inc()
        log.warning("message_dead_lettered", mapping=self._mapping.name, dead_letter=letter.id, tries=letter.attempts)

    async def _commit(self) -> None:
        """Store what changed before this call; calls at once share a write. Raises SourceError: not stored."""
        wanted = self._changes
        async with self._committing:
            if self._committed >= wanted:
                return
            reached = self._changes
            state = self._state
            mark = Mark(position=state.mark, epoch=self._epoch, state=state.to_json())
            await self._stream.commit({self._shard: mark})
            self._committed = reached

    async def _wait(self, delay_s: float) -> None:
        waits = {
            asyncio.create_task(self._clock.sleep(max(0.0, delay_s))),
            asyncio.create_task(self._changed.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
