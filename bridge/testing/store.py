"""Parked events, dead letters, jobs and marks in memory: the same contract as those in SQLite."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from bridge.core.invocation import DeadLetter
from bridge.core.ports import DeadLetterSelection, Job
from bridge.core.record import Parked

_HISTORY_MAX: Final = 20


class MemoryParked:
    """`ports.ParkedStore` in a dict. `fail_with` makes writes raise it."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Parked] = {}
        self.fail_with: Exception | None = None

    async def park(self, entry: Parked) -> None:
        """Insert or replace."""
        if self.fail_with is not None:
            raise self.fail_with
        self.entries[entry.queue, entry.record.id] = entry

    async def done(self, entry: Parked) -> None:
        """Remove, unless it was parked anew."""
        key = entry.queue, entry.record.id
        if key in self.entries and self.entries[key].due_at == entry.due_at:
            del self.entries[key]

    async def due(self, function: str, *, now: float, limit: int, skip: frozenset[str] = frozenset()) -> list[Parked]:
        """Return what is due, oldest first."""
        found = [e for e in self._of(function) if e.due_at <= now and e.record.id not in skip]
        return sorted(found, key=lambda e: (e.due_at, e.record.position))[:limit]

    def _of(self, function: str) -> list[Parked]:
        return [e for e in self.entries.values() if e.record.function.partition(":")[0] == function]

    async def next_due(self, *, after: float = float("-inf")) -> dict[str, float]:
        """Return the earliest due time above `after` per function."""
        found: dict[str, float] = {}
        for entry in self.entries.values():
            name = entry.record.function.partition(":")[0]
            if entry.due_at > after:
                found[name] = min(found.get(name, entry.due_at), entry.due_at)
        return found

    async def clamp(self, *, now: float) -> None:
        """Shorten waits that a clock step made too long."""
        for key, entry in self.entries.items():
            self.entries[key] = replace(entry, due_at=min(entry.due_at, now + entry.delay_s))

    async def get(self, request_id: str) -> Parked | None:
        """Return the entry of an event."""
        found = (e for (_, known), e in self.entries.items() if known == request_id)
        return min(found, key=lambda e: e.due_at, default=None)

    async def positions(self) -> set[int]:
        """Return the journal positions."""
        return {e.record.position for e in self.entries.values() if e.record.position >= 0}

    async def counts(self) -> dict[str, int]:
        """Count per function."""
        found: dict[str, int] = {}
        for entry in self.entries.values():
            name = entry.record.function.partition(":")[0]
            found[name] = found.get(name, 0) + 1
        return found


class MemoryDeadLetters:
    """`ports.DeadLetters` in a dict, beside a `MemoryParked` for redrives."""

    def __init__(self, parked: MemoryParked | None = None) -> None:
        self._parked = parked or MemoryParked()
        self.letters: dict[tuple[str, str], DeadLetter] = {}
        self.fail_with: Exception | None = None

    async def put(self, letter: DeadLetter) -> None:
        """Insert or replace."""
        if self.fail_with is not None:
            raise self.fail_with
        self.letters[letter.queue, letter.id] = replace(letter, history=letter.history[-_HISTORY_MAX:])
        self._parked.entries.pop((letter.queue, letter.id), None)

    async def get(self, letter_id: str, *, queue: str | None = None) -> DeadLetter | None:
        """Return one; of several queues the default one's first, then the latest."""
        found = (x for (q, i), x in self.letters.items() if i == letter_id and queue in (None, q))
        return min(found, key=lambda x: (x.queue != "default", -x.dead_at), default=None)

    async def select(
        self, selection: DeadLetterSelection, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[DeadLetter]:
        """Return a page, oldest first."""
        found = [x for x in self.letters.values() if matches(selection, x)]
        found = [x for x in found if after is None or (x.dead_at, x.id) > after]
        return sorted(found, key=lambda x: (x.dead_at, x.id))[:limit]

    async def count(self, selection: DeadLetterSelection) -> int:
        """Count."""
        return sum(matches(selection, x) for x in self.letters.values())

    async def positions(self) -> set[int]:
        """Return the journal positions."""
        return {x.position for x in self.letters.values() if x.position >= 0}

    async def redrive(self, letter: DeadLetter, entry: Parked) -> bool:
        """Park it again, once."""
        current = self.letters.get((letter.queue, letter.id))
        if current is None or current.state != "dead":
            return False
        await self._parked.park(entry)
        self.letters[letter.queue, letter.id] = replace(current, state="redriving", redrives=current.redrives + 1)
        return True

    async def resolve(self, letter_id: str, *, queue: str) -> None:
        """Remove after success."""
        self.letters.pop((queue, letter_id), None)

    async def purge(self, selection: DeadLetterSelection) -> int:
        """Delete the dead ones."""
        gone = [key for key, x in self.letters.items() if matches(selection, x) and x.state == "dead"]
        for key in gone:
            del self.letters[key]
        return len(gone)


def matches(selection: DeadLetterSelection, letter: DeadLetter) -> bool:
    """Tell whether a dead letter is part of a selection."""
    return (
        selection.queue in (None, letter.queue)
        and (selection.since is None or letter.dead_at >= selection.since)
        and (selection.until is None or letter.dead_at < selection.until)
        and selection.source in (None, letter.source)
        and (selection.function is None or letter.function.partition(":")[0] == selection.function)
        and (not selection.ids or letter.id in selection.ids)
        and selection.state in (None, letter.state)
    )


class MemoryJobs:
    """`ports.Jobs` in a dict."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}

    async def create(self, job: Job) -> bool:
        """Store unless the name is taken."""
        if job.name in self.jobs:
            return False
        self.jobs[job.name] = job
        return True

    async def update(self, job: Job) -> None:
        """Replace by name, if it is still there."""
        if job.name in self.jobs:
            self.jobs[job.name] = job

    async def get(self, name: str) -> Job | None:
        """Return one."""
        return self.jobs.get(name)

    async def list(self, kind: str | None = None) -> "list[Job]":
        """Return all, newest first."""
        found = [job for job in self.jobs.values() if kind in (None, job.kind)]
        return sorted(found, key=lambda job: (-job.created_at, job.name))

    async def delete(self, name: str) -> None:
        """Remove."""
        self.jobs.pop(name, None)


class MemoryMarks:
    """`ports.Marks` in a dict."""

    def __init__(self) -> None:
        self.marks: dict[str, int] = {}

    async def load(self) -> dict[str, int]:
        """Return all."""
        return dict(self.marks)

    async def commit(self, marks: Mapping[str, int]) -> None:
        """Move forward."""
        for name, mark in marks.items():
            self.marks[name] = max(self.marks.get(name, 0), mark)
