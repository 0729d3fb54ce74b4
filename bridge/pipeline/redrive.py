"""Redrives: dead letters parked again for their functions, at a rate, once each, resumable."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import orjson

from bridge.core.function import TARGET_PATTERN
from bridge.core.invocation import Condition, DeadLetter, InvocationType
from bridge.core.ports import Clock, DeadLetters, DeadLetterSelection, Job, Jobs, JobState, Outcomes
from bridge.core.record import Parked, Record
from bridge.pipeline.filters import compile_pattern, matches_event
from bridge.pipeline.jobs import (
    IllegalStatus,
    JobExists,
    JobNotFound,
    JobRunner,
    LimitExceeded,
    Rate,
    Run,
    Spawn,
    SpecInvalid,
    stored,
    until,
)
from bridge.pipeline.selecting import check_common, outcome_of

__all__ = [
    "IllegalStatus",
    "JobExists",
    "JobNotFound",
    "LimitExceeded",
    "RedriveSpec",
    "Redrives",
    "SpecInvalid",
]

_PAGE: Final = 64
_START_WAIT_S: Final = 2.0
_SUCCEEDED: Final = "succeeded"

Place = tuple[float, str]
"""(dead_at, id): the order in which dead letters are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveSpec:
    """Which dead letters, where to, and how fast. Times in epoch seconds of death, [since, until)."""

    name: str = ""
    """1..64 of `.-_A-Za-z0-9`; made up when empty."""
    queue: str | None = "default"
    """None: every queue."""
    since: float | None = None
    until: float | None = None
    source: str | None = None
    function: str | None = None
    ids: tuple[str, ...] = ()
    pattern: str | None = None
    failed: bool = False
    """Only those that have not succeeded since (by a replay)."""
    to: str | None = None
    """Another target `name[:qualifier]`; None: where each went."""
    rate: float | None = None
    """Dead letters a second, above 0 up to 1e6."""
    limit: int | None = None
    """The longest dead so many."""

    def checked(self) -> "RedriveSpec":
        """Return it with a name.

        Raises:
            SpecInvalid: one line says what is wrong.
        """
        check_common(
            name=self.name, since=self.since, until=self.until, limit=self.limit, rate=self.rate, pattern=self.pattern
        )
        if self.to is not None and not TARGET_PATTERN.match(self.to):
            raise SpecInvalid("to must be a function's name, with or without :qualifier")
        return self if self.name else replace(self, name=f"redrive-{secrets.token_hex(4)}")

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> "RedriveSpec":
        """Return what `to_json` wrote; raises SpecInvalid for anything else."""
        try:
            document = orjson.loads(text)
            return cls(**(document | {"ids": tuple(document.get("ids", ()))}))
        except (ValueError, TypeError, AttributeError) as error:
            raise SpecInvalid(f"not a redrive: {error}") from error


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A redrive's place, stored as JSON: all up to `after` was taken, `last` is the last one to take."""

    after: Place | None
    last: Place | None

    def __str__(self) -> str:
        return orjson.dumps([self.after, self.last]).decode()

    @classmethod
    def parse(cls, text: str) -> "_Cursor":
        after, last = orjson.loads(text)
        return cls(after and tuple(after), last and tuple(last))


class Redrives(JobRunner):
    """Starts, counts, watches and stops redrives."""

    kind = "redrive"
    label = "Redrive"

    def __init__(
        self,
        *,
        dead_letters: DeadLetters,
        outcomes: Outcomes,
        jobs: Jobs,
        clock: Clock,
        spawn: Spawn,
        wake: Callable[[str], None],
    ) -> None:
        super().__init__(jobs=jobs, clock=clock, spawn=spawn)
        self._dead_letters = dead_letters
        self._outcomes = outcomes
        self._wake = wake

    async def count(self, spec: RedriveSpec) -> int:
        """Count what would be redriven; changes nothing. Raises SpecInvalid."""
        found, _ = await self._count(spec.checked(), before=self._clock.time(), cursor=_Cursor(None, None))
        return found

    async def _count(
        self, spec: RedriveSpec, *, before: float, cursor: _Cursor, stopping: asyncio.Event | None = None
    ) -> tuple[int, Place | None]:
        """Return how many there are, at most `spec.limit`, and the place of the last one."""
        found, last = 0, None
        async with contextlib.aclosing(self._letters(spec, before=before, cursor=cursor)) as letters:
            async for letter in letters:
                found, last = found + 1, (letter.dead_at, letter.id)
                if found == spec.limit or (stopping is not None and stopping.is_set()):
                    break
        return found, last

    async def start(self, spec: RedriveSpec) -> Job:
        """Start one over the dead letters there are now.

        Returns it RUNNING with its total, or STARTING where counting takes longer.

        Raises:
            SpecInvalid, JobExists, LimitExceeded.
        """
        spec = spec.checked()
        self._check_room()
        if await self._jobs.get(spec.name) is not None:
            raise JobExists(f"Redrive {spec.name} already exists.")
        run = await self._create(
            Job(
                name=spec.name,
                kind=self.kind,
                state=JobState.STARTING,
                spec=spec.to_json(),
                created_at=self._clock.time(),
            )
        )
        await until(run.ready, self._clock, _START_WAIT_S)
        return self._now(run.job)

    async def _letters(self, spec: RedriveSpec, *, before: float, cursor: _Cursor) -> AsyncGenerator[DeadLetter, None]:
        """Yield matching dead letters, longest dead first, that died before a time: who dies again is not met again."""
        pattern = None if spec.pattern is None else compile_pattern(spec.pattern)
        selection = DeadLetterSelection(
            queue=spec.queue,
            since=spec.since,
            until=before if spec.until is None else min(spec.until, before),
            source=spec.source,
            function=spec.function,
            ids=frozenset(spec.ids),
            state="dead",
        )

        def choose(page: Sequence[DeadLetter]) -> list[DeadLetter]:
            # A function must never be given what the disk made of an event.
            sound = (letter for letter in page if letter.condition is not Condition.RECORD_DAMAGED)
            chosen = [letter for letter in sound if pattern is None or matches_event(pattern, letter.payload)]
            return self._not_succeeded(chosen) if spec.failed else chosen

        after = cursor.after
        while page := await self._dead_letters.select(selection, limit=_PAGE, after=after):
            for letter in await asyncio.to_thread(choose, page):
                if cursor.last is not None and (letter.dead_at, letter.id) > cursor.last:
                    return
                yield letter
            after = (page[-1].dead_at, page[-1].id)

    def _not_succeeded(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Leave out events that have succeeded since they died, by a replay."""
        # Histories are found by request id; the positions only say whose is whose.
        numbers = {letter.id: number for number, letter in enumerate(letters)}
        records = [replace(_record(letter, letter.function), position=numbers[letter.id]) for letter in letters]
        attempts = self._outcomes.for_events(records)
        return [letter for letter in letters if outcome_of(attempts.get(numbers[letter.id], [])) != _SUCCEEDED]

    # --- the work -----------------------------------------------------------------------------

    async def _work(self, run: Run) -> None:
        spec = RedriveSpec.from_json(run.job.spec)
        cursor = await self._begin(run, spec)
        if cursor is None or cursor.last is None:
            return
        rate = Rate(spec.rate, self._clock)
        async with contextlib.aclosing(self._letters(spec, before=run.job.created_at, cursor=cursor)) as letters:
            async for letter in letters:
                while run.is_behind and not run.stopping.is_set():
                    run.saved.clear()
                    await until(run.saved, self._clock, 1.0)
                if await until(run.stopping, self._clock, rate.wait_s()):
                    return
                moved = await self._redrive(letter, spec, stopping=run.stopping)
                if moved is None:
                    return
                cursor = replace(cursor, after=(letter.dead_at, letter.id))
                run.moved(replace(run.job, cursor=str(cursor), done=run.job.done + moved))
        total, done = run.job.total or 0, run.job.done
        skipped = max(0, total - done)
        reason = f"{skipped} of {total} dead letters were gone, or taken by another redrive" if skipped else ""
        run.job = replace(run.job, total=max(total, done), skipped=skipped, reason=reason)

    async def _begin(self, run: Run, spec: RedriveSpec) -> _Cursor | None:
        """Count what there is to do and return the place to begin at; None when stopped meanwhile.

        Which letter is the last is settled once, so that a limit holds whatever a kill leaves unsaved; there is none
        when there is nothing to do.
        """
        is_resumed = run.job.total is not None
        cursor = _Cursor.parse(run.job.cursor) if is_resumed else _Cursor(None, None)
        if is_resumed and cursor.last is None:
            return cursor
        found, last = await self._count(spec, before=run.job.created_at, cursor=cursor, stopping=run.stopping)
        if run.stopping.is_set():
            return None
        if is_resumed:
            # What is not dead any more was redriven before the kill, if after the last save.
            done = max(run.job.done, (run.job.total or 0) - found)
            run.begin(replace(run.job, done=done))
            return cursor
        cursor = _Cursor(None, last)
        run.begin(replace(run.job, total=found, cursor=str(cursor)))
        is_stored = await stored(lambda: self._save(run), stopping=run.stopping, clock=self._clock)
        return cursor if is_stored else None

    async def _redrive(self, letter: DeadLetter, spec: RedriveSpec, *, stopping: asyncio.Event) -> bool | None:
        """Park one again; False when it is not dead any more, None when stopped before it was stored."""
        moved = False

        async def write() -> None:
            nonlocal moved
            moved = await self._dead_letters.redrive(letter, self._entry(letter, spec))

        if not await stored(write, stopping=stopping, clock=self._clock):
            return None
        if moved:
            self._wake((spec.to or letter.function).partition(":")[0])
        return moved

    def _entry(self, letter: DeadLetter, spec: RedriveSpec) -> Parked:
        now = self._clock.time()
        return Parked(
            record=_record(letter, spec.to or letter.function),
            attempts=0,
            due_at=now,
            delay_s=0.0,
            first_attempt_at=now,  # its age counts from here
            redrive=True,
            queue=letter.queue,
            job=spec.name,
            item_failures=letter.item_failures,
        )


def _record(letter: DeadLetter, target: str) -> Record:
    return Record(
        id=letter.id,
        source=letter.source,
        function=target,
        invocation_type=InvocationType.EVENT,
        received_at=letter.received_at,
        payload=letter.payload,
        client_context=letter.client_context,
        position=letter.position,
    )
