"""Redrives: dead letters parked again for their functions, at a rate, once each, resumable."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

import orjson

from bridge.core.invocation import DeadLetter, InvocationType
from bridge.core.ports import Clock, DeadLetters, DeadLetterSelection, Job, Jobs, JobState, Outcomes
from bridge.core.record import Parked, Record
from bridge.pipeline.filters import PatternInvalid, compile_pattern, matches_event
from bridge.pipeline.jobs import (
    IllegalStatus,
    JobExists,
    JobNotFound,
    JobRunner,
    LimitExceeded,
    Run,
    Spawn,
    SpecInvalid,
    until,
)
from bridge.pipeline.selecting import NAME, outcome_of

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
_RATE_MAX: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveSpec:
    """Which dead letters, where to, and how fast. Times in epoch seconds of death, [since, until)."""

    name: str = ""
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
    rate: float | None = None
    limit: int | None = None

    def checked(self) -> "RedriveSpec":
        """Return it with a name.

        Raises:
            SpecInvalid: one line says what is wrong.
        """
        if self.name and not NAME.match(self.name):
            raise SpecInvalid("name: 1 to 64 of . - _ a-z A-Z 0-9")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise SpecInvalid("since must be before until")
        if self.limit is not None and self.limit < 1:
            raise SpecInvalid("limit must be at least 1")
        if self.rate is not None and not 0 < self.rate <= _RATE_MAX:
            raise SpecInvalid("rate must be above 0 and at most 1000000 events a second")
        if self.pattern is not None:
            try:
                compile_pattern(self.pattern)
            except PatternInvalid as error:
                raise SpecInvalid(f"pattern: {error}") from None
        return self if self.name else replace(self, name=f"redrive-{secrets.token_hex(4)}")

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> "RedriveSpec":
        """Return what `to_json` wrote."""
        document = orjson.loads(text)
        return cls(**(document | {"ids": tuple(document["ids"])}))


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
        """Count what would be redriven. Raises SpecInvalid."""
        spec = spec.checked()
        found = 0
        async for _ in self._letters(spec, before=self._clock.time(), after=None):
            found += 1
            if found == spec.limit:
                break
        return found

    async def start(self, spec: RedriveSpec) -> Job:
        """Start one over the dead letters there are now. Raises SpecInvalid, JobExists, LimitExceeded."""
        spec = spec.checked()
        if await self._jobs.get(spec.name) is not None:
            raise JobExists(f"Redrive {spec.name} already exists.")
        total = await self.count(spec)
        return await self._create(
            Job(
                name=spec.name,
                kind=self.kind,
                state=JobState.STARTING,
                spec=spec.to_json(),
                total=total,
                created_at=self._clock.time(),
            )
        )

    async def _letters(
        self, spec: RedriveSpec, *, before: float, after: tuple[float, str] | None
    ) -> AsyncIterator[DeadLetter]:
        """Yield matching dead letters, oldest first, that died before a time: those that die again are not met."""
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
        while page := await self._dead_letters.select(selection, limit=_PAGE, after=after):
            for letter in page:
                after = (letter.dead_at, letter.id)
                if pattern is not None and not matches_event(pattern, letter.payload):
                    continue
                if spec.failed and await asyncio.to_thread(self._has_succeeded, letter):
                    continue
                yield letter

    def _has_succeeded(self, letter: DeadLetter) -> bool:
        record = _record(letter, letter.function)
        attempts = self._outcomes.for_events([record]).get(record.position, [])
        return outcome_of(attempts) == "succeeded"

    async def _work(self, run: Run) -> None:
        spec = RedriveSpec.from_json(run.job.spec)
        after: tuple[float, str] | None = None
        if run.job.cursor:
            dead_at, letter_id = orjson.loads(run.job.cursor)
            after = (dead_at, letter_id)
        left = None if spec.limit is None else spec.limit - run.job.done - run.job.skipped
        next_at = self._clock.monotonic()
        async for letter in self._letters(spec, before=run.job.created_at, after=after):
            if left == 0 or run.stopping.is_set():
                break
            left = None if left is None else left - 1
            if spec.rate is not None:
                now = self._clock.monotonic()
                next_at = max(next_at, now - 1.0)
                if await until(run.stopping, self._clock, next_at - now):
                    break
                next_at += 1 / spec.rate
            moved = await self._dead_letters.redrive(letter, self._entry(letter, spec))
            if moved:
                self._wake((spec.to or letter.function).partition(":")[0])
            job = replace(
                run.job,
                cursor=orjson.dumps([letter.dead_at, letter.id]).decode(),
                done=run.job.done + moved,
                skipped=run.job.skipped + (not moved),
            )
            await self._save(run, job)
        await self._save(run, run.job, now=True)

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
