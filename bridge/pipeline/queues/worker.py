"""Runs one mapping of a queue: receives messages, hands batches to its function, deletes or returns them."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from bridge.core import limits
from bridge.core.errors import FunctionNotFound, SourceError
from bridge.core.queues import Message, QueueFacts, QueueSource, QueueStatus
from bridge.core.sources import ShardStatus
from bridge.pipeline.queues.buffer import Batch, Buffer
from bridge.pipeline.queues.delivery import Ended, QueueDelivery
from bridge.pipeline.queues.loops import LoopGuard
from bridge.pipeline.queues.receiving import Receiving
from bridge.pipeline.queues.settings import QueueWork
from bridge.pipeline.queues.settling import Settling
from bridge.pipeline.waiting import Alarm, Changes, watched
from bridge.util import telemetry
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.mappings")

_SWEEP_S: Final = 1.0
_REOPEN_MIN_S: Final = 1.0
_REOPEN_MAX_S: Final = 60.0
_NO_FUNCTION_S: Final = 5.0
_RATE_SHARE: Final = 0.3
"""How much the last second counts in the rate of messages."""


class QueueWorker:
    """The loop around a queue. One task calls `run`; all else happens on the same loop."""

    result = ""
    """A queue's mapping has no LastProcessingResult (semantics 3.2)."""

    def __init__(self, work: QueueWork) -> None:
        self._work = work
        self._mapping = work.mapping
        self._clock = work.clock
        self._facts: QueueFacts | None = None
        self._buffer = self._new_buffer(is_fifo=False)
        self._settling = Settling(work)
        self._delivery = QueueDelivery(work)
        self._loops = LoopGuard(work)
        self._receiving = Receiving(
            work, received=self._received, room=self._room, hidden_s=self._hidden_s, failed=self._fail
        )
        self._retries: list[Batch] = []
        """Throttled, waiting for their next try."""
        self._running: set[Batch] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        """Invocations, and what settles messages."""
        self._pumping = False
        self._alarm = Alarm(work.clock, self.kick)
        self._changed = Changes(work.clock)
        self._is_stopping = False
        self._error: Exception | None = None
        self._ended_count = 0
        self._rate = 0.0
        """Messages that ended per second, lately."""
        self._failure = ""
        self._noted = ""
        self._handled, self._returned, self._filtered = (
            telemetry.RECORDS.labels(mapping=work.mapping.name, outcome=outcome)
            for outcome in ("handled", "returned", "filtered")
        )
        self.trouble = ""
        """What keeps it from receiving or delivering, in one line; empty when nothing does."""
        self.wants_slot = False
        """Whether a batch waits for nothing but a slot."""

    def _new_buffer(self, *, is_fifo: bool) -> Buffer:
        mapping = self._mapping
        return Buffer(
            is_fifo=is_fifo,
            size_max=min(mapping.batch_size, limits.FIFO_BATCH_SIZE_MAX) if is_fifo else mapping.batch_size,
            bytes_max=self._work.payload_max_bytes - self._work.shape.overhead_bytes,
            window_s=0.0 if is_fifo else mapping.maximum_batching_window_s,
        )

    # --- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Receive until asked to stop. A queue that cannot be had is opened anew with back-off, for ever."""
        failures = 0
        self._error = None
        while not self._is_stopping:
            source = self._work.make_source()
            try:
                self._facts = await source.open()
                self.trouble, failures = "", 0
                await self._serve(source, self._facts)
            except SourceError as error:
                self.trouble = str(error)
                log.warning("source_failed", mapping=self._mapping.name, error=str(error))
            else:
                return
            finally:
                await self._leave(source)
            failures += 1
            await self._pause(min(_REOPEN_MAX_S, _REOPEN_MIN_S * 2 ** min(failures - 1, 16)))

    async def _pause(self, delay_s: float) -> None:
        await self._changed.wait(lambda: self._is_stopping, deadline_s=delay_s)

    async def _serve(self, source: QueueSource, facts: QueueFacts) -> None:
        # What runs is of a former run: its groups are not known here.
        await self._changed.wait(lambda: not self._running)
        self._settling.source = source
        self._buffer = self._new_buffer(is_fifo=facts.is_fifo)
        helpers = [
            watched(work, self._fail)
            for work in (self._sweep_often(), self._keep_hidden_often(), self._look_often(source))
        ]
        try:
            self._note()
            self._receiving.begin(source)
            await self._changed.wait(lambda: self._is_stopping or self._error is not None)
            if self._error is not None:
                raise self._error
            await self._receiving.end()
            self._hand_back_waiting()
            # What is ours stays hidden until the last of it is settled: the helpers end last.
            await self._changed.wait(self._is_idle)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _leave(self, source: QueueSource) -> None:
        await self._receiving.end()
        self._settling.source = None
        self._settling.let_go(self._buffer.drop_all())
        self._settling.let_go(message for batch in self._retries for message in batch.messages)
        self._retries = []
        try:
            await source.close()
        except SourceError as error:
            log.warning("source_failed", mapping=self._mapping.name, error=str(error))

    def _is_idle(self) -> bool:
        return not self._running and not self._tasks

    async def drain(self, *, deadline_s: float) -> bool:
        """Begin nothing more, hand back what waits, let what runs end; True when all ended within `deadline_s`."""
        self._is_stopping = True
        self._changed.tell()
        self._hand_back_waiting()
        return await self._changed.wait(self._is_idle, deadline_s=deadline_s)

    async def stop(self) -> None:
        """End at once: what still runs is killed and comes again once it is hidden no more."""
        self._is_stopping = True
        self._alarm.set(None)
        await self._receiving.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._settling.stop()

    def _hand_back_waiting(self) -> None:
        if self._settling.source is None:
            return
        waiting = [message for batch in self._retries for message in batch.messages] + self._buffer.drop_all()
        self._retries = []
        if waiting:
            self._spawn(self._return(waiting, at_once=True))

    # --- receiving ----------------------------------------------------------------------------

    def _hidden_s(self) -> float:
        """Return how long messages are hidden from their receive on (semantics 3.8b)."""
        facts = self._facts
        queue_s = facts.visibility_s if facts is not None else 0.0
        own_s = self._mapping.maximum_batching_window_s + self._timeout_s() + limits.QUEUE_HIDDEN_SPARE_S
        return min(limits.QUEUE_HIDDEN_MAX_S, max(queue_s, own_s))

    def _timeout_s(self) -> float:
        try:
            target = self._work.slots.resolve(self._mapping.function)
        except FunctionNotFound:
            return float(limits.TIMEOUT_DEFAULT_S)
        return float(target.version.timeout_s)

    def _room(self) -> int:
        """Return how many more messages should be here: for what can run now, and ahead for about a second."""
        if not self._may_begin or self._buffer.bytes >= self._work.buffer_bytes_max:
            return 0
        slots, mapping = self._work.slots, self._mapping
        try:
            free = slots.room(slots.resolve(mapping.function))
        except FunctionNotFound:
            return 0
        if mapping.maximum_concurrency is not None:
            free = min(free, mapping.maximum_concurrency - len(self._running))
        ahead = max(mapping.batch_size, round(self._rate))
        wanted = min(max(0, free) * mapping.batch_size + ahead, self._work.buffer_records_max)
        waiting = len(self._buffer) + sum(map(len, self._retries))
        return max(0, wanted - waiting)

    def _received(self, messages: list[Message], hidden_s: float) -> None:
        """Take in what a receive brought: filtered, then to be batched."""
        crash_point("queue.received")
        keeps = self._work.keeps
        dropped: list[Message] = []
        for message in messages:
            if not self._settling.take(message, hidden_s=hidden_s):
                continue
            if keeps is not None and not keeps(message):
                dropped.append(message)
            elif why := self._loops.why_stopped(message):
                self._spawn(self._stop_loop(message, why))
            else:
                self._buffer.put(message)
        if dropped:  # deleted, not returned (semantics 3.9)
            self._filtered.inc(len(dropped))
            self._spawn(self._delete(dropped))
        if self._is_stopping:
            self._hand_back_waiting()
        else:
            self.kick()

    # --- starting work ------------------------------------------------------------------------

    def kick(self) -> None:
        """Look for work to start, once in this loop pass."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        self.wants_slot = False
        concurrency = self._mapping.maximum_concurrency
        now = self._clock.monotonic()
        while self._may_begin and (concurrency is None or len(self._running) < concurrency):
            due = self._due(now)
            if due is None or due > now:
                self._alarm.set(due)
                break
            if not self._begin(now):
                break
        self._receiving.top_up()

    @property
    def _may_begin(self) -> bool:
        return not self._is_stopping and self._error is None and self._settling.source is not None

    def _due(self, now: float) -> float | None:
        """Return when the next batch may run, None when there is none."""
        dues = [batch.due for batch in self._retries]
        if (due := self._buffer.due(now)) is not None:
            dues.append(due)
        return min(dues, default=None)

    def _begin(self, now: float) -> bool:
        """Start a batch; False when nothing can start now."""
        slots = self._work.slots
        try:
            target = slots.resolve(self._mapping.function)
        except FunctionNotFound as error:
            self.trouble = f"FUNCTION_CONFIG_NOT_VALID: {error}"
            self._alarm.set(now + _NO_FUNCTION_S)
            return False
        if slots.room(target) <= 0:
            self.trouble = slots.hindrance(target)
            self.wants_slot = not self.trouble
            return False
        batch = self._next_batch(now)
        if batch is not None and all(map(self._settling.is_ours, batch.messages)):
            self._running.add(batch)
            self._spawn(self._handle(batch, target, slots.begin(target)))
        elif batch is not None:
            self._spawn(self._return_batch(batch, at_once=True))
        return True

    def _next_batch(self, now: float) -> Batch | None:
        """Take the retry that is due longest, else a new batch."""
        retry = min(self._retries, key=lambda batch: batch.due, default=None)
        if retry is not None and retry.due <= now:
            self._retries.remove(retry)
            return retry
        due = self._buffer.due(now)
        return self._buffer.take() if due is not None and due <= now else None

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)

    def _spawned_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._fail(error)
        self._changed.tell()
        self.kick()

    def _fail(self, error: Exception) -> None:
        """Take note of a bug of ours: `run` raises it, the supervisor restarts the mapping and says so."""
        self._error = error
        self._changed.tell()

    async def _handle(self, batch: Batch, target: Any, slot: Any) -> None:
        """One try of a batch, and what follows."""
        is_known = False
        try:
            ended = await self._delivery.attempt(batch, target, slot)
            is_known = True
        finally:
            self._running.discard(batch)
            if not is_known:  # a cancel, or a bug of ours: they come again once they are hidden no more
                self._settling.let_go(batch.messages)
        self.kick()
        if ended.is_setback:
            if not self._again(batch, ended):
                await self._return_batch(batch)
            return
        self.trouble = ""
        if ended.returned:
            self._failure = f"{len(ended.returned)} of {len(batch)} messages failed: {ended.reason}"
        await asyncio.gather(self._delete(ended.handled, counts=True), self._return(ended.returned))
        self._buffer.release(batch.groups)
        self.kick()

    def _again(self, batch: Batch, ended: Ended) -> bool:
        """Have a throttled batch wait for its next try; False when its time is up (semantics 3.8b)."""
        batch.setbacks += 1
        batch.reason = ended.reason
        ceiling = min(limits.STREAM_BACKOFF_MAX_S, limits.STREAM_BACKOFF_MIN_S * 2 ** min(batch.setbacks - 1, 16))
        batch.due = self._clock.monotonic() + self._work.rng.uniform(ceiling / 2, ceiling)
        received_at = min(message.received_at for message in batch.messages)
        if not self._may_begin or batch.due >= received_at + self._hidden_s():
            return False
        self._retries.append(batch)
        return True

    # --- settling -----------------------------------------------------------------------------

    async def _delete(self, messages: list[Message], *, counts: bool = False) -> None:
        if not messages:
            return
        try:
            await self._settling.delete(messages)
        finally:
            self._settling.let_go(messages)
        self._ended_count += len(messages)
        if counts:
            self._handled.inc(len(messages))

    async def _stop_loop(self, message: Message, why: str) -> None:
        self._failure = why
        if await self._loops.end([message], self._facts, why=why):
            await self._return([message], alone=True)
        else:
            await self._delete([message])

    async def _return_batch(self, batch: Batch, *, at_once: bool = False) -> None:
        await self._return(batch.messages, at_once=at_once)
        self._buffer.release(batch.groups)

    async def _return(self, messages: list[Message], *, at_once: bool = False, alone: bool = False) -> None:
        """Hand messages back, and, unless `alone`, what waits behind them in their groups: it would overtake them.

        Unless `at_once`, they are seen again when the queue's own timeout says.
        """
        if not messages:
            return
        behind = [] if alone else self._buffer.drop_groups({message.group for message in messages})
        own = set() if at_once else {message.id for message in messages}
        self._returned.inc(len(messages) + len(behind))
        self._ended_count += len(messages)
        try:
            await self._settling.give_back(
                [*messages, *behind],
                visible_in_s=lambda message: self._visible_in_s(message) if message.id in own else 0.0,
            )
        finally:
            self._settling.let_go([*messages, *behind])

    def _visible_in_s(self, message: Message) -> float:
        """Return what is left of the queue's own timeout: its redrive policy and its delays count, not ours."""
        facts = self._facts
        visibility_s = facts.visibility_s if facts is not None else 0.0
        return max(0.0, message.received_at + visibility_s - self._clock.monotonic())

    def _return_waiting(self, is_over: Callable[[Message], bool], *, at_once: bool) -> int:
        """Return what waits and is over, with what waits behind it; returns how many."""
        found = [m for first in self._buffer.select(is_over) for m in self._buffer.drop(first)]
        count = len(found)
        if found:
            self._spawn(self._return(found, at_once=at_once))
        for batch in [batch for batch in self._retries if any(map(is_over, batch.messages))]:
            self._retries.remove(batch)
            count += len(batch)
            self._spawn(self._return_batch(batch, at_once=at_once))
        return count

    # --- time ---------------------------------------------------------------------------------

    async def _sweep_often(self) -> None:
        """Return what has waited too long, look for room."""
        while True:
            await self._clock.sleep(_SWEEP_S)
            self._rate += (self._ended_count / _SWEEP_S - self._rate) * _RATE_SHARE
            self._ended_count = 0
            if lost := self._return_waiting(lambda message: not self._settling.is_ours(message), at_once=True):
                log.warning("messages_lost", mapping=self._mapping.name, messages=lost)
            # No slot for as long as it may be hidden: others may have one, and the queue counts (semantics 3.8b).
            self._return_waiting(self._has_waited_long(), at_once=False)
            self.kick()

    def _has_waited_long(self) -> Callable[[Message], bool]:
        since = self._clock.monotonic() - self._hidden_s()
        return lambda message: message.received_at <= since

    async def _keep_hidden_often(self) -> None:
        while True:
            await self._clock.sleep(_SWEEP_S)
            await self._settling.keep_hidden(self._hidden_s())

    async def _look_often(self, source: QueueSource) -> None:
        while True:
            await self._clock.sleep(limits.QUEUE_LOOK_S)
            try:
                facts = await source.look()
            except SourceError as error:
                log.info("queue_not_looked_at", mapping=self._mapping.name, error=str(error))
                continue
            self._facts = facts
            self._note()

    def _note(self) -> None:
        notes = "; ".join(self._notes())
        if notes != self._noted and notes:
            log.warning("mapping_noted", mapping=self._mapping.name, note=notes)
        self._noted = notes

    def _notes(self) -> list[str]:
        """Say what AWS would refuse, in its words (semantics 3.2), and what deletes for good."""
        facts, notes = self._facts, []
        timeout_s = self._timeout_s()
        if facts is not None and facts.visibility_s < timeout_s:
            notes.append(
                f"Queue visibility timeout: {facts.visibility_s:.0f} seconds is less than "
                f"Function timeout: {timeout_s:.0f} seconds"
            )
        return notes

    # --- status -------------------------------------------------------------------------------

    @property
    def in_trouble(self) -> str:
        """What keeps it from receiving or delivering; empty when nothing does."""
        return self._receiving.trouble or self.trouble

    @property
    def running(self) -> int:
        """Invocations that run now."""
        return len(self._running)

    def shards(self) -> tuple[ShardStatus, ...]:
        """Return nothing: a queue has no shards."""
        return ()

    def queue(self) -> QueueStatus:
        """Return the queue as `bridge` shows it."""
        held = self._settling.held
        waiting = len(self._buffer) + sum(map(len, self._retries))
        running = sum(map(len, self._running))
        oldest = min((message.received_at for message in held), default=None)
        age_s = 0.0 if oldest is None else self._clock.monotonic() - oldest
        retry = min(self._retries, key=lambda batch: batch.due, default=None)
        reason = retry.reason if retry is not None else ""
        if not reason and waiting and self.wants_slot:
            reason = "waits for a free slot of the function"
        return QueueStatus(
            facts=self._facts,
            waiting=waiting,
            running=running,
            settling=max(0, len(held) - waiting - running),
            oldest_at=None if oldest is None else self._clock.time() - age_s,
            attempts=max((batch.setbacks for batch in self._retries), default=0),
            due_at=None if retry is None else self._clock.time() + retry.due - self._clock.monotonic(),
            reason=reason,
            failure=self._failure,
            notes=tuple(self._notes()),
        )
