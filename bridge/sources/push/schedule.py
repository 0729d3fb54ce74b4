"""The schedule source: at each tick an event goes into the journal, once, however often the daemon ends."""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from bridge.core import limits
from bridge.core.errors import InvokeDenied, InvokeError, LaneFull, StoreError
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.invocation import InvocationType
from bridge.core.ports import Clock, Intake
from bridge.core.push import Accepted, Given, NotAccepted
from bridge.core.record import Record
from bridge.core.schedules import UTC_NAME, Missed, ScheduleState, ScheduleStates
from bridge.events.batches import iso_seconds
from bridge.events.schedule import next_tick, parse_schedule, scheduled_event
from bridge.util import telemetry
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.schedule")

_NAMESPACE: Final = uuid.UUID("0d1c8a4e-6f0b-5b7e-9d53-4a1f0c2b7e91")
"""Of the ids of ticks: the same tick of the same schedule has the same id, whoever stores it."""
_WAKE_MIN_S: Final = 0.001

IsStored = Callable[[str, str, int], Awaitable[bool]]
"""(source, request id, journal position) -> whether such a record lies at or above the position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """One schedule as it is configured."""

    name: str
    """`[sources.NAME]`: the record's source, the rule's name in the event, the label in metrics."""
    expression: str
    """`rate(…)`, `cron(…)` or `at(…)`."""
    function: str
    """Target: `name[:qualifier]`; empty where only mappings read the source."""
    zone: str = UTC_NAME
    missed: Missed = Missed.ONCE
    payload: bytes = b""
    """JSON that is the event of every tick; empty: EventBridge's own."""
    region: str = REGION_DEFAULT
    account: str = ACCOUNT_DEFAULT


class ScheduleSource:
    """`push.PushSource` of one schedule.

    A tick is claimed in the store, appended to the journal, and noted as passed. Who finds a claim after a crash looks
    in the journal, above the position that it holds, whether the event is there: so a tick is stored once.

    Ticks go by the system's wall clock with its steps, as people read it: set forward, those between were missed; set
    back, none comes twice.

    Args:
        spec: what ticks.
        intake: stores events.
        states: keeps how far the schedule is.
        is_stored: looks into the journal.
        journal_end: position after the journal's last record.
        clock: says when.

    Raises:
        BadSchedule, UnknownZone: the expression or the zone cannot be read.
    """

    kind: Final = "schedule"

    def __init__(
        self,
        spec: ScheduleSpec,
        *,
        intake: Intake,
        states: ScheduleStates,
        is_stored: IsStored,
        journal_end: Callable[[], int],
        clock: Clock,
    ) -> None:
        self.name = spec.name
        self.function = spec.function
        self.place = spec.expression if spec.zone == UTC_NAME else f"{spec.expression} {spec.zone}"
        self.trouble = ""
        self._spec = spec
        self._schedule = parse_schedule(spec.expression, zone=spec.zone)
        self._intake = intake
        self._states = states
        self._is_stored = is_stored
        self._journal_end = journal_end
        self._clock = clock
        self._state: ScheduleState | None = None
        self._draining = False
        self._storing = asyncio.Lock()
        self._accepted = telemetry.EVENTS_ACCEPTED.labels(source=spec.name, type=InvocationType.EVENT.value)
        self._missed = telemetry.SCHEDULE_MISSED.labels(source=spec.name)

    @property
    def next_at(self) -> int | None:
        """The next tick, epoch seconds; None: there is none any more, or it has not begun. No I/O."""
        if self._state is None:
            return None
        after = max(self._state.passed, math.floor(self._clock.stepped()))
        return next_tick(self._schedule, after, began=self._state.began)

    @property
    def last_at(self) -> int | None:
        """The last tick that was stored or passed over, epoch seconds; None: none yet. No I/O."""
        state = self._state
        if state is None:
            return None
        return next(iter(self._schedule.newest(1, after=state.began - 1, until=state.passed, began=state.began)), None)

    async def run(self) -> None:
        """Store events at their time, until cancelled; what cannot be stored is tried again."""
        backoff_s = limits.SCHEDULE_BACKOFF_MIN_S
        while not self._draining:
            try:
                wait_s = await self._look()
            except (LaneFull, StoreError, InvokeError) as error:
                self.trouble = f"a tick waits to be stored: {error}"
                log.warning("tick_not_stored", source=self.name, error=str(error), again_s=backoff_s)
                wait_s, backoff_s = backoff_s, min(2 * backoff_s, limits.SCHEDULE_BACKOFF_MAX_S)
            else:
                backoff_s = limits.SCHEDULE_BACKOFF_MIN_S
            await self._clock.sleep(wait_s)

    async def drain(self) -> None:
        """Store no further tick; one that is being stored is finished."""
        self._draining = True
        async with self._storing:
            pass

    async def feed(self, given: Given) -> Accepted:
        """Store an event as if it ticked at `given.at`, beside the schedule. See push.Feedable."""
        if given.data:
            raise NotAccepted(f"{self.name} is a schedule: its event is the tick's own, or the `input` of the file")
        request_id = str(uuid.uuid4())
        try:
            await self._submit(request_id, math.floor(self._clock.stepped() if given.at is None else given.at))
        except InvokeError as error:
            raise NotAccepted(str(error), status=403 if isinstance(error, InvokeDenied) else 503) from error
        return Accepted(ids=(request_id,))

    # --- one look at the clock --------------------------------------------------------------------------------------

    async def _look(self) -> float:
        """Store what is due; returns the seconds to the next look."""
        now = self._clock.stepped()
        if self._state is None:
            self._state = await self._begin(math.floor(now))
        due = await self._due(math.floor(now))
        for tick in due:
            if self._draining:
                break
            await self._tick(tick)
        self.trouble = self._trouble(math.floor(now))
        now = self._clock.stepped()
        following = self.next_at
        wait_s = limits.SCHEDULE_LOOK_S if following is None else following - now
        return min(max(wait_s, _WAKE_MIN_S), limits.SCHEDULE_LOOK_S)

    def _trouble(self, now: int) -> str:
        passed = self._state.passed if self._state is not None else now
        if passed <= now + limits.SCHEDULE_LATE_S:
            return ""
        return f"the clock was set back: no tick until {iso_seconds(passed)}, up to which they have passed"

    async def _begin(self, now: int) -> ScheduleState:
        """Return how far it is: as stored, with an open claim settled; or from now on."""
        spec = self._spec
        expression = f"{spec.expression} {spec.zone}"
        state = await self._states.load(spec.name)
        if state is None or state.expression != expression:
            passed = now - 1 if self._schedule.begins_at_once else now
            state = ScheduleState(expression=expression, began=now, passed=passed)
            await self._states.save(spec.name, state)
        elif state.claimed:
            is_stored = await self._is_stored(spec.name, self._tick_id(state.claimed), state.position)
            log.info("tick_found", source=spec.name, tick=iso_seconds(state.claimed), is_stored=is_stored)
            if is_stored:
                state = replace(state, passed=state.claimed, claimed=0)
        return state

    async def _due(self, now: int) -> list[int]:
        """Return the ticks to store now, in order, as the policy says of those that were missed."""
        state = self._known
        following = next_tick(self._schedule, state.passed, began=state.began)
        if following is None or following > now:
            return []
        early = now - limits.SCHEDULE_LATE_S - 1
        most = limits.SCHEDULE_MISSED_MAX
        fresh = self._schedule.newest(most, after=max(state.passed, early), until=now, began=state.began)
        missed = self._schedule.newest(most + 1, after=state.passed, until=early, began=state.began)
        if not missed:
            return fresh
        if self._spec.missed is Missed.ALL:
            wanted = missed[-most:]
        else:
            wanted = [] if fresh or self._spec.missed is Missed.SKIP else missed[-1:]
        dropped = missed[: len(missed) - len(wanted)]
        if dropped:
            self._missed.inc(len(dropped))
            more = "at least " if len(missed) > most else ""
            text = f"{more}{len(dropped)}, the last of {iso_seconds(dropped[-1])}"
            log.warning("ticks_missed", source=self.name, missed=text, policy=self._spec.missed.value)
            self._state = replace(state, passed=dropped[-1])
            if not wanted and not fresh:
                await self._states.save(self.name, self._state)
        return [*wanted, *fresh]

    @property
    def _known(self) -> ScheduleState:
        assert self._state is not None
        return self._state

    async def _tick(self, tick: int) -> None:
        """Store one tick. A cancel waits until it is known whether it is."""
        work = asyncio.ensure_future(self._store(tick))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            raise

    async def _store(self, tick: int) -> None:
        async with self._storing:
            state = self._known
            if state.claimed != tick:
                claim = replace(state, claimed=tick, position=self._journal_end())
                await self._states.save(self.name, claim)
                self._state = claim
            crash_point("schedule.claimed")
            await self._submit(self._tick_id(tick), tick, delivery_id=iso_seconds(tick))
            crash_point("schedule.stored")
            self._state = replace(self._known, passed=tick, claimed=0)
            try:
                await self._states.save(self.name, self._state)
            except StoreError as error:  # the next claim says it, or a look into the journal
                log.warning("tick_not_noted", source=self.name, tick=iso_seconds(tick), error=str(error))

    async def _submit(self, request_id: str, tick: int, *, delivery_id: str = "") -> None:
        spec = self._spec
        record = Record(
            id=request_id,
            source=spec.name,
            function=spec.function,
            invocation_type=InvocationType.EVENT,
            received_at=round(self._clock.time(), 3),
            payload=spec.payload or self.event(request_id, tick),
            delivery_id=delivery_id,
        )
        await self._intake.submit(record)
        self._accepted.inc()

    def event(self, request_id: str, tick: int) -> bytes:
        """Return EventBridge's event of a tick."""
        spec = self._spec
        return scheduled_event(name=spec.name, tick=tick, event_id=request_id, region=spec.region, account=spec.account)

    def _tick_id(self, tick: int) -> str:
        """Return the id of a tick's event: the same whoever asks."""
        spec = self._spec
        return str(uuid.uuid5(_NAMESPACE, f"{spec.account}/{spec.region}/{spec.name}@{tick}"))
