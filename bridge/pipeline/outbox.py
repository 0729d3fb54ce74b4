"""Sends what waits in the outbox: each target by itself, with back-off while it takes nothing, until it has all."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from bridge.core import limits
from bridge.core.errors import ConfigError, DestinationError, StoreCorrupt, StoreError
from bridge.core.invocation import Attempt, AttemptStatus
from bridge.core.outcome import (
    Outbox,
    OutboxEntry,
    OutcomeKind,
    RecordRefused,
    TargetPlace,
    TargetStatus,
    TargetTrouble,
    Transport,
    Transports,
)
from bridge.core.ports import Clock, DeadLetters, Outcomes
from bridge.util import telemetry
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.outbox")

_QUICK_S: Final = (0.2, 0.5)
"""Before the second and third try of a target that just took something; then the back-off begins."""
_STORE_PAUSE_S: Final = 1.0
"""Before the next look when the disk refused one."""


@dataclass(slots=True, eq=False)
class _Line:
    """One target, and how it is."""

    place: TargetPlace
    waiting: int = 0
    failures: int = 0
    failing_since: float | None = None
    retry_at: float = 0.0
    """Monotonic."""
    last_error: str = ""
    suspects: set[int] = field(default_factory=set)
    """Numbers of the first entries that it failed with, two at most: while there is one, that may be to blame."""
    task: "asyncio.Task[None] | None" = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Round:
    """What became of the entries that were sent at once."""

    sent: list[OutboxEntry] = field(default_factory=list)
    refused: list[tuple[OutboxEntry, RecordRefused]] = field(default_factory=list)
    failed: list[tuple[OutboxEntry, TargetTrouble]] = field(default_factory=list)


class OutboxSender:
    """Keeps a task per target with something to send.

    A target that takes nothing is asked with one record, by a back-off of its own (0.2 s, 0.5 s, then 1 s up to
    `limits.TARGET_BACKOFF_MAX_S`), for ever. A record that fails while others pass waits by itself.

    Args:
        store: what waits.
        dead_letters: what failures are formed from.
        transports: reach the targets.
        outcomes: is told where the records of an event went.
        clock: time.
        rng: jitter.
    """

    def __init__(
        self,
        *,
        store: Outbox,
        dead_letters: DeadLetters,
        transports: Transports,
        outcomes: Outcomes,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._transports = transports
        self._outcomes = outcomes
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._lines: dict[TargetPlace, _Line] = {}
        self._changed = asyncio.Event()
        self._draining = False

    # --- what wakes it ------------------------------------------------------------------------

    async def open(self) -> None:
        """Find what a former run left waiting; nothing is sent before `run`."""
        await self._store.clamp(latest=self._clock.time() + limits.TARGET_BACKOFF_MAX_S)
        for status in await self._store.places():
            if status.waiting:
                self._line(status.place).waiting = status.waiting

    def added(self, places: Iterable[TargetPlace]) -> None:
        """Something was put for these targets: send it, unless a target is backing off with several records."""
        for place in places:
            line = self._line(place)
            line.waiting += 1
            if len(line.suspects) == 1:
                line.retry_at = 0.0  # another record tells whether it is the target, once
            line.wake.set()
        self._changed.set()

    async def push(self, place: TargetPlace | None = None) -> int:
        """Try a target again now, all of them where none is named; return for how many something waits."""
        lines = [line for line in self._lines.values() if line.waiting and place in (None, line.place)]
        for line in lines:
            line.retry_at = 0.0
            line.wake.set()
        self._changed.set()
        return len(lines)

    async def give_up(self, place: TargetPlace) -> tuple[int, int]:
        """Send no more of what waits there; see Outbox.give_up."""
        gone = await self._store.give_up(place)
        line = self._line(place)
        line.retry_at = 0.0
        line.wake.set()
        log.warning("target_given_up", target=place.target, dead_letters=gone[0], successes_deleted=gone[1])
        return gone

    def _line(self, place: TargetPlace) -> _Line:
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = _Line(place=place)
            telemetry.TARGET_WAITING.labels(target=place.target).set_function(lambda: line.waiting)
        return line

    # --- how it is ----------------------------------------------------------------------------

    async def status(self) -> list[TargetStatus]:
        """Return every target for which something waits or is kept, by place."""
        found = []
        for stored in await self._store.places():
            line = self._line(stored.place)
            found.append(
                TargetStatus(
                    place=stored.place,
                    waiting=stored.waiting,
                    kept=stored.kept,
                    oldest_at=stored.oldest_at,
                    failures=line.failures,
                    failing_since=line.failing_since,
                    retry_at=self._retry_at(line),
                    last_error=line.last_error or stored.last_error,
                )
            )
        return found

    def _retry_at(self, line: _Line) -> float | None:
        wait_s = line.retry_at - self._clock.monotonic()
        return self._clock.time() + wait_s if line.failures and wait_s > 0 else None

    def troubles(self, *, after_s: float) -> list[str]:
        """Return a line for each target that has taken nothing for longer than `after_s` seconds."""
        now = self._clock.time()
        return [
            f"{line.place.target} takes nothing for {now - line.failing_since:.0f} s, {line.waiting} "
            f"record{'' if line.waiting == 1 else 's'} wait{'s' if line.waiting == 1 else ''}: {line.last_error}"
            for _, line in sorted(self._lines.items())
            if line.failing_since is not None and line.waiting and now - line.failing_since > after_s
        ]

    def facts(self) -> list[tuple[str, bool, str]]:
        """Return (target, does it take records, what is known) of each target that something waits for, or did."""
        return [(line.place.target, line.failing_since is None, _fact(line)) for _, line in sorted(self._lines.items())]

    # --- sending ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send for ever; for the supervisor."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for line in list(self._lines.values()):
                    if line.waiting and line.task is None:
                        line.task = group.create_task(self._serve(line), name=f"outbox:{line.place.target}")
                await self._changed.wait()

    async def drain(self, *, deadline_s: float) -> None:
        """Send what can be sent within `deadline_s` seconds; a target in trouble is left alone. The rest stays."""
        self._draining = True
        for line in self._lines.values():
            line.wake.set()
        end = self._clock.monotonic() + deadline_s
        while (tasks := self._serving()) and (left := end - self._clock.monotonic()) > 0:
            await asyncio.wait(tasks, timeout=min(left, 0.2))

    def _serving(self) -> list["asyncio.Task[None]"]:
        return [line.task for line in self._lines.values() if line.task is not None]

    async def _serve(self, line: _Line) -> None:
        """Send what waits for one target; ends when nothing does."""
        try:
            while not (self._draining and line.failures):
                line.wake.clear()
                wait_s = line.retry_at - self._clock.monotonic()
                if wait_s > 0:
                    await self._sleep(line, wait_s)
                    continue
                try:
                    wait_s = await self._step(line)
                except StoreError as error:
                    # A full disk is no fault of this task, however long it lasts.
                    log.warning("outbox_hindered", target=line.place.target, error=str(error))
                    wait_s = _STORE_PAUSE_S
                if wait_s < 0:
                    return
                if wait_s:
                    if self._draining:
                        return
                    await self._sleep(line, wait_s)
        finally:
            line.task = None
            self._changed.set()

    async def _step(self, line: _Line) -> float:
        """Send a round; return the seconds until the next, below 0 when nothing waits any more."""
        transport: Transport | None = None
        try:
            transport = self._transports.transport(line.place)
        except ConfigError as error:
            unreachable = TargetTrouble(str(error))
        if line.failures or transport is None:
            probe = await self._store.probe(line.place)
            entries = [] if probe is None else [probe]
        else:
            entries = await self._store.due(line.place, now=self._clock.time(), limit=transport.concurrency)
        if not entries:
            due_at = await self._store.next_due(line.place)
            if due_at is None:
                if not line.wake.is_set():
                    _clear(line)
                    line.waiting = 0
                    return -1.0
                return 0.0
            return min(max(due_at - self._clock.time(), 0.01), limits.TARGET_BACKOFF_MAX_S)
        if transport is None:
            await self._settle(line, _Round(failed=[(entry, unreachable) for entry in entries]))
        else:
            await self._settle(line, await self._round(transport, entries))
        return 0.0

    async def _round(self, transport: Transport, entries: Sequence[OutboxEntry]) -> _Round:
        done = _Round()
        ends = await asyncio.gather(*(self._send(transport, entry) for entry in entries))
        for entry, end in zip(entries, ends, strict=True):
            if end is None:
                done.sent.append(entry)
            elif isinstance(end, RecordRefused):
                done.refused.append((entry, end))
            else:
                done.failed.append((entry, end))
        return done

    async def _send(self, transport: Transport, entry: OutboxEntry) -> RecordRefused | TargetTrouble | None:
        try:
            letter = None
            if entry.kind is not OutcomeKind.ON_SUCCESS:
                letter = await self._dead_letters.get(entry.id, queue=entry.queue)
                if letter is None:
                    return RecordRefused("its dead letter is gone")
            await transport.send(entry, letter)
        except StoreCorrupt as error:
            return RecordRefused(str(error))
        except (RecordRefused, TargetTrouble) as error:
            return error
        except DestinationError as error:
            return TargetTrouble(str(error))
        except StoreError:
            raise  # waited for by the whole line
        except Exception as error:  # the boundary of one send: our own fault with one target holds no other up
            log.exception("record_unsent", target=entry.place.target, request_id=entry.id)
            return TargetTrouble(f"{type(error).__name__}: {error}")
        return None

    async def _settle(self, line: _Line, done: _Round) -> None:
        crash_point("outbox.sent")
        if done.sent:
            await self._store.sent(done.sent)
            line.waiting = max(0, line.waiting - len(done.sent))
            for entry in done.sent:
                self._note(entry)
        if done.refused:
            await self._refuse(line, done.refused)
        if done.sent or done.refused:
            self._is_back(line)
        if done.failed:
            await self._put_off(line, done)

    def _note(self, entry: OutboxEntry) -> None:
        telemetry.TARGET_SENT.labels(function=_function(entry), kind=entry.kind.value).inc()
        log.info(
            "record_sent", target=entry.place.target, kind=entry.kind.value, request_id=entry.id,
            function=entry.function, is_pointer=entry.is_pointer, attempts=entry.attempts + 1,
        )  # fmt: skip
        if entry.position >= 0:
            self._outcomes.append(
                Attempt(
                    position=entry.position,
                    request_id=entry.id,
                    function=entry.function,
                    number=entry.attempts + 1,
                    status=AttemptStatus.SENT,
                    started_at=self._clock.time(),
                    error_type=entry.kind.value,
                    error_message=entry.place.target,
                )
            )

    async def _refuse(self, line: _Line, refused: Sequence[tuple[OutboxEntry, RecordRefused]]) -> None:
        """The target will never take these: it gets pointers, and where it refuses those, the whole just stays."""
        after = [
            (entry, replace(entry, attempts=entry.attempts + 1, due_at=0.0, is_pointer=True, last_error=str(error)))
            for entry, error in refused
        ]
        pointers = [entry for before, entry in after if not before.is_pointer]
        kept = [entry for before, entry in after if before.is_pointer]
        for entry in (entry for _, entry in after):
            _count(entry)
            log.error(
                "record_refused", target=entry.place.target, kind=entry.kind.value, request_id=entry.id,
                function=entry.function, error=entry.last_error, stays=entry in kept,
            )  # fmt: skip
        if pointers:
            await self._store.failed(pointers)
        if kept:
            await self._store.keep(kept)
            line.waiting = max(0, line.waiting - len(kept))

    def _is_back(self, line: _Line) -> None:
        if line.failures > len(_QUICK_S):
            log.info("target_takes_again", target=line.place.target, waiting=line.waiting)
        _clear(line)

    async def _put_off(self, line: _Line, done: _Round) -> None:
        """Wait by what failed: the target, when nothing passed; else these records by themselves."""
        now = self._clock.time()
        target_fails = not (done.sent or done.refused)
        after = []
        for entry, error in done.failed:
            _count(entry)
            due_at = 0.0 if target_fails else now + self._backoff_s(entry.attempts + 1)
            after.append(replace(entry, attempts=entry.attempts + 1, due_at=due_at, last_error=str(error)))
        if target_fails:
            line.suspects.update([entry.number for entry, _ in done.failed][: 2 - len(line.suspects)])
            self._is_failing(line, done.failed[0][1])
        await self._store.failed(after)

    def _is_failing(self, line: _Line, error: TargetTrouble) -> None:
        line.failures += 1
        line.last_error = str(error)
        if line.failing_since is None:
            line.failing_since = self._clock.time()
        quick = line.failures <= len(_QUICK_S)
        delay_s = _QUICK_S[line.failures - 1] if quick else self._backoff_s(line.failures - len(_QUICK_S))
        line.retry_at = self._clock.monotonic() + max(delay_s, error.retry_after_s)
        if not quick:
            log.warning(
                "target_failing", target=line.place.target, waiting=line.waiting, retry_in_s=round(delay_s, 1),
                error=line.last_error,
            )  # fmt: skip

    def _backoff_s(self, failures: int) -> float:
        """Return the wait after so many failures in a row: doubling, the upper half of it by chance."""
        ceiling = min(limits.TARGET_BACKOFF_MAX_S, limits.TARGET_BACKOFF_MIN_S * 2 ** min(failures - 1, 16))
        return max(limits.TARGET_BACKOFF_MIN_S, self._rng.uniform(ceiling / 2, ceiling))

    async def _sleep(self, line: _Line, delay_s: float) -> None:
        waits = {asyncio.create_task(self._clock.sleep(delay_s)), asyncio.create_task(line.wake.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()


def _fact(line: _Line) -> str:
    waiting = f"{line.waiting} record{'' if line.waiting == 1 else 's'} waiting"
    return f"{waiting}: {line.last_error}" if line.failing_since is not None else waiting


def _clear(line: _Line) -> None:
    line.failures, line.failing_since, line.last_error, line.retry_at = 0, None, "", 0.0
    line.suspects.clear()


def _function(entry: OutboxEntry) -> str:
    return entry.function.partition(":")[0]


def _count(entry: OutboxEntry) -> None:
    """Count a failed try under AWS's metric: DeadLetterErrors, or DestinationDeliveryFailures."""
    meter = (
        telemetry.DEAD_LETTER_ERRORS
        if entry.kind is OutcomeKind.DEAD_LETTER
        else telemetry.DESTINATION_DELIVERY_FAILURES
    )
    meter.labels(function=_function(entry)).inc()
