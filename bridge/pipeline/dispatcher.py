"""Decides which lane runs next: free slots go round over waiting lanes, fewest running first, retries beside."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from bridge.core import limits
from bridge.core.errors import FunctionNotFound, StoreError
from bridge.core.function import Function
from bridge.core.invocation import Condition, Invocation, InvocationResult
from bridge.core.ports import Clock, DeadLetters, Journal, LaneStatus, Marks, Outcomes, ParkedStore
from bridge.core.record import DamagedRecord, Parked, Record
from bridge.pipeline.delivery import AsyncDelivery, Settled
from bridge.pipeline.lanes import HINDERED, Lane, parked_text
from bridge.util import telemetry

log = structlog.get_logger("bridge.lanes")

_RETRY_BUFFER_MAX = 64
_UNSETTLED_MAX = 64
"""Attempts that wait for the disk at once, over all lanes, before nothing new is started."""
_EXPIRING_MAX = 32
"""Events a lane gives up at once without a slot (stopped or removed function, too old)."""
_SWEEP_S = 1.0
_BROKEN_PAUSE_S = 5.0


class Target(Protocol):
    """What the service resolves a target to."""

    function: Function
    invoked_arn: str


class Service(Protocol):
    """The slots that lanes start their work on (invokers/service.py)."""

    def resolve(self, target: str) -> Any:
        """Return the Target; raises FunctionNotFound."""
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
        """Run on that slot and give it back."""
        ...

    def on_free(self, callback: Callable[[], None]) -> None:
        """Call back when a slot may have become free."""
        ...

    def live_work(self, waits: Callable[[], bool]) -> None:
        """Tell replays whether live work waits."""
        ...


class _Flow:
    """A lane with what the dispatcher knows about it."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.running = 0
        self.retries_running = 0
        self.expiring = 0
        self.backoff_until = 0.0
        self.due_at: float | None = None
        """Wall clock of the next parked event that was not read yet; None: none parked."""
        self.reading = False
        self.state = "active"
        self.reason = ""
        self.turn = 0
        self.parked = 0

    @property
    def has_work(self) -> bool:
        return self.lane.fresh > 0 or bool(self.lane.retries)

    def look_at(self, due_at: float) -> None:
        """Read what is parked at that time, unless it is read sooner."""
        self.due_at = due_at if self.due_at is None else min(self.due_at, due_at)


class Dispatcher:
    """`ports.Lanes`: starts attempts of stored events, oldest first in each lane, as slots allow."""

    def __init__(
        self,
        *,
        service: Service,
        delivery: AsyncDelivery,
        journal: Journal,
        outcomes: Outcomes,
        parked: ParkedStore,
        dead_letters: DeadLetters,
        marks: Marks,
        clock: Clock,
        lane_events_max: int = limits.LANE_EVENTS_MAX,
        lane_bytes_max: int = limits.LANE_MAX_BYTES,
    ) -> None:
        self._service = service
        self._delivery = delivery
        self._journal = journal
        self._outcomes = outcomes
        self._parked = parked
        self._dead_letters = dead_letters
        self._marks = marks
        self._clock = clock
        self._lane_events_max = lane_events_max
        self._lane_bytes_max = lane_bytes_max
        self._flows: dict[str, _Flow] = {}
        self._running: dict[str, Parked] = {}
        """Every event being attempted or settled, by request id."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._draining = False
        self._turn = 0
        self._wake = asyncio.Event()
        self._saved: dict[str, int] = {}
        self._end = 0
        """Journal positions below it have reached their lanes: no mark may pass it."""
        service.on_free(self.kick)
        service.live_work(self._waits_for_slot)
        journal.on_commit(self.stored)

    # --- start --------------------------------------------------------------------------------

    async def open(self, functions: Sequence[str]) -> None:
        """Find what a former run left unfinished and make it wait again; then nothing runs before `kick`."""
        marks = await self._marks.load()
        self._end = self._journal.end
        await self._parked.clamp(now=self._clock.time())
        names = {*marks, *functions, *(await self._parked.counts())}
        low = min((marks.get(name, self._journal.start) for name in names), default=0)
        skip = await asyncio.to_thread(self._outcomes.finished, after=low - 1)
        skip |= await self._parked.positions()
        skip |= await self._dead_letters.positions()
        for name in sorted(names):
            flow = self._flow(name)
            # Never beyond the journal's end: a journal begun anew starts below what was marked in the old one.
            mark = min(max(marks.get(name, 0), 0), self._end)
            behind = await asyncio.to_thread(self._stored, name, mark)
            flow.lane.restore(mark=mark, skip=skip, behind=behind)
            if flow.lane.fresh:
                log.info("lane_restored", function=name, waiting=flow.lane.fresh)
        for name, due_at in (await self._parked.next_due()).items():
            self._flow(name).due_at = due_at
        for name, count in (await self._parked.counts()).items():
            self._flow(name).parked = count
        await self._save_marks()

    def _stored(self, name: str, mark: int) -> list[tuple[int, int]]:
        rows: list[tuple[int, int]] = []
        after = mark - 1
        while chunk := self._journal.positions(name, after=after, limit=65_536):
            rows += chunk
            after = chunk[-1][0]
        return rows

    def _flow(self, name: str) -> _Flow:
        flow = self._flows.get(name)
        if flow is None:
            lane = Lane(name, events_max=self._lane_events_max, bytes_max=self._lane_bytes_max)
            flow = self._flows[name] = _Flow(lane)
            telemetry.LANE_WAITING.labels(function=name).set_function(lambda: lane.fresh)
            telemetry.PARKED.labels(function=name).set_function(partial(getattr, flow, "parked"))
        return flow

    def lane(self, name: str) -> Lane:
        """Return a function's lane, made on first use."""
        return self._flow(name).lane

    # --- what wakes it ------------------------------------------------------------------------

    def stored(self, records: Sequence[Record]) -> None:
        """A commit group is durable: put its events into their lanes (`Journal.on_commit`)."""
        for record in records:
            if name := record.lane:
                lane = self._flow(name).lane
                lane.unreserve(len(record.payload))
                lane.add(record)
        self._end = max(self._end, records[-1].position + 1)
        self.kick()

    def due(self, function: str) -> None:
        """Something of that function was parked to be due now (redrive)."""
        flow = self._flow(function)
        flow.due_at = self._clock.time()
        flow.parked += 1
        self._wake.set()

    def kick(self) -> None:
        """Look for work to start, once in this loop pass."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _waits_for_slot(self) -> bool:
        now = self._clock.monotonic()
        return any(
            flow.has_work and flow.state == "active" and flow.backoff_until <= now for flow in self._flows.values()
        )

    # --- starting work ------------------------------------------------------------------------

    def _pump(self) -> None:
        self._pumping = False
        while not self._draining:
            flows = [flow for flow in self._flows.values() if flow.has_work]
            flows.sort(key=lambda flow: (flow.running, flow.turn))
            # A list, so that every lane has its turn before the first one has a second.
            if not any([self._start(flow) for flow in flows]):  # noqa: C419
                return

    def _start(self, flow: _Flow) -> bool:
        """Start one attempt of a lane if it may; True when one was started."""
        lane = flow.lane
        if self._delivery.unsettled >= _UNSETTLED_MAX:
            flow.reason = "waits for the disk to take outcomes"
            return False
        if lane.needs_refill:
            lane.refill(self._journal)
        record = lane.peek()
        retry = self._retry_turn(flow, has_fresh=record is not None)
        entry = lane.retries[0] if retry else None if record is None else fresh(record)
        if entry is None:
            return False
        record = entry.record
        if isinstance(record, DamagedRecord):
            return self._expire(flow, retry=retry, condition=Condition.RECORD_DAMAGED, message=record.damage)
        try:
            target = self._service.resolve(entry.record.function)
        except FunctionNotFound as error:
            flow.state, flow.reason = "no function", str(error)
            return self._expire(flow, retry=retry, condition=Condition.FUNCTION_NOT_FOUND, message=str(error))
        function = target.function
        if function.reserved_concurrency == 0:
            flow.state, flow.reason = "stopped", "reserved concurrency is 0"
            return self._expire(flow, retry=retry, condition=Condition.ZERO_RESERVED_CONCURRENCY)
        if self._clock.time() - self._delivery.accepted_at(entry) >= function.event_invoke.maximum_event_age_s:
            return self._expire(flow, retry=retry, condition=Condition.EVENT_AGE_EXCEEDED)
        if flow.backoff_until > self._clock.monotonic():
            return False
        flow.state, flow.reason = "active", ""
        if self._service.room(target) <= 0:
            if hindrance := self._service.hindrance(target):
                flow.state, flow.reason = HINDERED, hindrance
            return False
        self._take(flow, entry, retry=retry)
        flow.running += 1
        flow.retries_running += retry
        self._turn += 1
        flow.turn = self._turn
        self._spawn(self._attempt(flow, entry, self._service.begin(target), retry=retry))
        return True

    def _retry_turn(self, flow: _Flow, *, has_fresh: bool) -> bool:
        """Due retries get at most half of what the function runs, at least one, while fresh events wait."""
        if not flow.lane.retries:
            return False
        return not has_fresh or flow.retries_running < max(1, (flow.running + 1) // 2)

    def _take(self, flow: _Flow, entry: Parked, *, retry: bool) -> None:
        if retry:
            flow.lane.retries.popleft()
        else:
            flow.lane.take()
        self._running[entry.record.id] = entry

    def _expire(self, flow: _Flow, *, retry: bool, condition: Condition, message: str = "") -> bool:
        """Give an event up without a slot; a few at once."""
        if flow.expiring >= _EXPIRING_MAX:
            return False
        entry = flow.lane.retries[0] if retry else fresh(flow.lane.peek())
        self._take(flow, entry, retry=retry)
        flow.expiring += 1
        self._spawn(self._give_up(flow, entry, condition, message=message, retry=retry))
        return True

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, flow: _Flow, entry: Parked, slot: Any, *, retry: bool) -> None:
        target = slot.target
        try:
            settled = await self._delivery.attempt(
                entry,
                config=target.function.event_invoke,
                invoked_arn=target.invoked_arn,
                run=partial(self._service.run, slot),
                stored=retry,
            )
        except asyncio.CancelledError:
            raise
        except Exception:  # the task boundary: the event stays unfinished and is run again
            log.exception("attempt_broken", request_id=entry.record.id, function=entry.record.function)
            settled = None
        flow.running -= 1
        flow.retries_running -= retry
        self._finish(flow, entry, settled, retry=retry)

    async def _give_up(self, flow: _Flow, entry: Parked, condition: Condition, *, message: str, retry: bool) -> None:
        settled: Settled | None = Settled()
        try:
            await self._delivery.give_up(entry, condition, stored=retry, message=message)
        except asyncio.CancelledError:
            raise
        except Exception:  # the task boundary, as above
            log.exception("attempt_broken", request_id=entry.record.id, function=entry.record.function)
            settled = None
        flow.expiring -= 1
        self._finish(flow, entry, settled, retry=retry)

    def _finish(self, flow: _Flow, entry: Parked, settled: Settled | None, *, retry: bool) -> None:
        self._running.pop(entry.record.id, None)
        flow.lane.retry_ids.discard(entry.record.id)
        if settled is None:
            self._try_again(flow, entry, retry=retry)
            return
        if not retry:
            flow.lane.passed(entry.record.position)
        flow.parked -= retry
        if settled.parked_until is not None:
            flow.parked += 1
            flow.look_at(settled.parked_until)
            self._wake.set()
        if settled.backoff_s:
            flow.backoff_until = self._clock.monotonic() + settled.backoff_s
            flow.state, flow.reason = "backing off", f"{settled.backoff_s:.0f} s after {settled.reason}"
        self.kick()

    def _try_again(self, flow: _Flow, entry: Parked, *, retry: bool) -> None:
        """Our own fault broke an attempt: nothing was settled, so the event runs again after a pause."""
        if retry:
            flow.look_at(self._clock.time() + _BROKEN_PAUSE_S)
        else:
            flow.lane.put_back(entry.record)
        flow.backoff_until = self._clock.monotonic() + _BROKEN_PAUSE_S
        flow.state, flow.reason = "backing off", "an attempt broke on our side; the log says why"

    # --- retries that become due, marks, age --------------------------------------------------

    async def run(self) -> None:
        """Keep reading what is due and saving marks; for the supervisor."""
        while True:
            self._wake.clear()
            try:
                wait_s = await self._look()
            except StoreError as error:
                # A full disk is no fault of this task, however long it lasts: retries go on when it is over.
                log.warning("lanes_hindered", error=str(error))
                wait_s = _SWEEP_S
            self.kick()
            await self._sleep(max(wait_s, 0.005))

    async def _look(self) -> float:
        """Read what is due and save the marks; returns the seconds until there is more to do."""
        now = self._clock.time()
        for flow in list(self._flows.values()):
            if flow.due_at is not None and flow.due_at <= now:
                await self._read_due(flow, now=now)
        await self._save_marks()
        dues = [flow.due_at for flow in self._flows.values() if flow.due_at is not None]
        return max(0.0, min([_SWEEP_S, *(due - self._clock.time() for due in dues)]))

    async def _sleep(self, delay_s: float) -> None:
        waits = {asyncio.create_task(self._clock.sleep(delay_s)), asyncio.create_task(self._wake.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _read_due(self, flow: _Flow, *, now: float) -> None:
        lane = flow.lane
        room = _RETRY_BUFFER_MAX - len(lane.retries)
        if room <= 0:
            flow.due_at = now + 0.05  # looked at again when some have run
            return
        name = lane.function
        # What is parked while this reads sets due_at anew: a read from before that must not undo it.
        flow.due_at = None
        following: float | None = now
        try:
            found = await self._parked.due(name, now=now, limit=room, skip=frozenset(lane.retry_ids))
            for entry in found:
                lane.retry_ids.add(entry.record.id)
                lane.retries.append(entry)
            if len(found) < room:
                following = (await self._parked.next_due(after=now)).get(name)
        finally:
            if following is not None:
                flow.look_at(following)

    async def _save_marks(self) -> None:
        marks = {name: flow.lane.mark(self._end) for name, flow in self._flows.items()}
        moved = {name: mark for name, mark in marks.items() if self._saved.get(name) != mark}
        if moved:
            await self._outcomes.flush()
            await self._marks.commit(moved)
            self._saved |= moved

    # --- what retention, the api and the end ask ----------------------------------------------

    def unfinished(self, low: int, high: int) -> list[int]:
        """Return positions in [low, high) that some lane still needs."""
        return sorted(p for flow in self._flows.values() for p in flow.lane.unfinished(low, high, self._journal))

    def status(self) -> list[LaneStatus]:
        """Return every lane's state. See ports.Lanes."""
        now = self._clock.monotonic()
        return [
            LaneStatus(
                function=name,
                waiting=flow.lane.fresh,
                waiting_bytes=flow.lane.waiting_bytes,
                running=flow.running,
                parked=flow.parked,
                oldest_at=flow.lane.oldest_at,
                state="draining"
                if self._draining
                else "active"
                if flow.backoff_until <= now and flow.state == "backing off"
                else flow.state,
                reason=flow.reason,
            )
            for name, flow in sorted(self._flows.items())
        ]

    async def explain(self, record: Record) -> str:
        """Say what an event waits for. See ports.Lanes."""
        running = self._running.get(record.id)
        if running is not None:
            return f"running now: attempt {running.attempts + 1}"
        entry = await self._parked.get(record.id)
        flow = self._flows.get(record.lane)
        if entry is not None:
            why = flow.reason if flow is not None and flow.state == HINDERED else ""
            return parked_text(entry, now=self._clock.time(), hindrance=why)
        if flow is None or not flow.lane.fresh:
            return ""
        head = flow.lane.peek()
        if head is not None and record.position < head.position:
            return ""
        if flow.state != "active":
            return f"waits: {flow.state}, {flow.reason}"
        return (
            f"waits for a free slot: {flow.lane.ahead_of(record.position)} events of {record.lane} before it, "
            f"{flow.running} running"
        )

    async def drain(self, *, deadline_s: float) -> int:
        """Start nothing new and wait for what runs; returns how many were cut off.

        What is cut off stays unfinished in the journal or parked, and runs at the next start.
        """
        self._draining = True
        end = self._clock.monotonic() + deadline_s
        while self._tasks and (left := end - self._clock.monotonic()) > 0:
            await asyncio.wait(list(self._tasks), timeout=min(left, 0.5))
        cut = list(self._tasks)
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        return len(cut)

    async def close(self) -> None:
        """Save the marks a last time; without them a few outcomes are read again at the next start."""
        try:
            await self._save_marks()
        except StoreError as error:
            log.warning("marks_unsaved", error=str(error))


def fresh(record: Record | None) -> Parked:
    """Return a stored event as an entry that was never attempted."""
    assert record is not None
    return Parked(record=record, attempts=0, due_at=0.0, delay_s=0.0)
