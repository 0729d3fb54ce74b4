"""The outbox in memory, beside the dead letters in memory; and targets that do what a test tells them."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

from bridge.core.errors import ConfigError
from bridge.core.invocation import DeadLetter
from bridge.core.outcome import WAITING, OutboxEntry, OutcomeKind, PlaceStatus, TargetPlace, Transport
from bridge.testing.store import MemoryDeadLetters

_Key = tuple[TargetPlace, OutcomeKind, str, str]


class MemoryOutbox:
    """`outcome.Outbox` in a dict. `fail_with` makes writes raise it."""

    def __init__(self, dead_letters: MemoryDeadLetters | None = None) -> None:
        self._dead = dead_letters or MemoryDeadLetters()
        self.entries: dict[_Key, OutboxEntry] = {}
        self.kept: set[tuple[str, str]] = set()
        """Dead letters (queue, id) that stay when all have what they take."""
        self.fail_with: Exception | None = None
        self._numbers = itertools.count(1)

    async def put(self, entries: Sequence[OutboxEntry], *, letter: DeadLetter | None = None) -> None:
        """Insert or replace."""
        self._writes()
        for entry in entries:
            known = self.entries.get(_key(entry))
            number = next(self._numbers) if known is None else known.number
            self.entries[_key(entry)] = replace(entry, number=number)
        if letter is not None:
            await self._dead.put(letter)
            self.kept.discard((letter.queue, letter.id))

    async def due(self, place: TargetPlace, *, now: float, limit: int) -> list[OutboxEntry]:
        """Return what may be sent, oldest first."""
        return [entry for entry in self._of(place) if entry.due_at <= now][:limit]

    async def clamp(self, *, latest: float) -> None:
        """Shorten waits that a clock step made too long."""
        for key, entry in self.entries.items():
            self.entries[key] = replace(entry, due_at=min(entry.due_at, latest))

    async def next_due(self, place: TargetPlace) -> float | None:
        """Return the earliest due_at."""
        return min((entry.due_at for entry in self._of(place)), default=None)

    async def probe(self, place: TargetPlace) -> OutboxEntry | None:
        """Return what was tried least."""
        return min(self._of(place), key=lambda entry: (entry.attempts, entry.number), default=None)

    async def sent(self, entries: Sequence[OutboxEntry]) -> None:
        """Remove them; keep what they were pointers to."""
        self._writes()
        for entry in entries:
            self._end(entry, is_kept=entry.is_pointer)

    async def failed(self, entries: Sequence[OutboxEntry]) -> None:
        """Store how the last try ended."""
        self._writes()
        for entry in entries:
            known = self._same(entry)
            if known is not None:
                self.entries[_key(entry)] = replace(
                    known, attempts=entry.attempts, due_at=entry.due_at, last_error=entry.last_error,
                    is_pointer=entry.is_pointer,
                )  # fmt: skip

    async def keep(self, entries: Sequence[OutboxEntry]) -> None:
        """Send them no more, and keep all of them."""
        self._writes()
        for entry in entries:
            self._end(entry, is_kept=True)

    async def places(self) -> list[PlaceStatus]:
        """Count by target."""
        found = []
        for place in sorted({entry.place for entry in self.entries.values()}):
            waiting = self._of(place)
            oldest = waiting[0] if waiting else None
            found.append(
                PlaceStatus(
                    place=place,
                    waiting=len(waiting),
                    kept=sum(entry.is_kept and entry.place == place for entry in self.entries.values()),
                    oldest_at=None if oldest is None else oldest.created_at,
                    last_error="" if oldest is None else oldest.last_error,
                )
            )
        return found

    async def of_event(self, event_id: str) -> list[OutboxEntry]:
        """Return what waits or is kept of one event."""
        return [replace(entry, record=b"") for entry in self._ordered() if entry.id == event_id]

    async def page(self, place: TargetPlace | None, *, after: int, limit: int) -> list[OutboxEntry]:
        """Return entries in order of arrival."""
        return [e for e in self._ordered() if e.number > after and place in (None, e.place)][:limit]

    async def give_up(self, place: TargetPlace) -> tuple[int, int]:
        """Send no more there."""
        self._writes()
        gone = [entry for entry in self._ordered() if entry.place == place]
        for entry in gone:
            self._end(entry, is_kept=entry.kind is not OutcomeKind.ON_SUCCESS)
        failures = sum(entry.kind is not OutcomeKind.ON_SUCCESS for entry in gone)
        return failures, len(gone) - failures

    def _writes(self) -> None:
        if self.fail_with is not None:
            raise self.fail_with

    def _ordered(self) -> list[OutboxEntry]:
        return sorted(self.entries.values(), key=lambda entry: entry.number)

    def _of(self, place: TargetPlace) -> list[OutboxEntry]:
        return [entry for entry in self._ordered() if entry.place == place and not entry.is_kept]

    def _same(self, entry: OutboxEntry) -> OutboxEntry | None:
        known = self.entries.get(_key(entry))
        return known if known is not None and known.created_at == entry.created_at else None

    def _end(self, entry: OutboxEntry, *, is_kept: bool) -> None:
        known = self._same(entry)
        if known is None:
            return
        if known.kind is OutcomeKind.ON_SUCCESS:
            if is_kept:
                self.entries[_key(entry)] = replace(known, is_kept=True, last_error=entry.last_error)
            else:
                del self.entries[_key(entry)]
            return
        del self.entries[_key(entry)]
        letter_key = (entry.queue, entry.id)
        if is_kept:
            self.kept.add(letter_key)
        waits = any(
            (e.queue, e.id) == letter_key and e.kind is not OutcomeKind.ON_SUCCESS for e in self.entries.values()
        )
        letter = self._dead.letters.get(letter_key)
        if waits or letter is None or letter.state != WAITING:
            return
        if letter_key in self.kept:
            self._dead.letters[letter_key] = replace(letter, state="dead")
        else:
            del self._dead.letters[letter_key]
        self.kept.discard(letter_key)


def _key(entry: OutboxEntry) -> _Key:
    return entry.place, entry.kind, entry.id, entry.queue


class ScriptedTarget:
    """A transport that keeps what it took; `fail_with` makes it take nothing, `refuses` (ids) not these."""

    def __init__(self, *, concurrency: int = 4) -> None:
        self.concurrency = concurrency
        self.taken: list[tuple[OutboxEntry, DeadLetter | None]] = []
        self.tries = 0
        self.running = 0
        self.running_max = 0
        self.fail_with: Exception | None = None
        self.refuses: dict[str, Exception] = {}
        """What is raised for single events; a pointer to one is taken unless `refuses_pointers`."""
        self.refuses_pointers = False
        self.gate: asyncio.Event | None = None
        """While it is there and not set, nobody gets an answer."""

    async def send(self, entry: OutboxEntry, letter: DeadLetter | None) -> None:
        """Take it, or raise what was asked for."""
        self.tries += 1
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.fail_with is not None:
                raise self.fail_with
            if entry.id in self.refuses and (not entry.is_pointer or self.refuses_pointers):
                raise self.refuses[entry.id]
            self.taken.append((entry, letter))
        finally:
            self.running -= 1


class ScriptedTargets:
    """`outcome.Transports` over scripted targets, by what the file would say."""

    def __init__(self, *, concurrency: int = 4) -> None:
        self.concurrency = concurrency
        self.targets: dict[str, ScriptedTarget] = {}
        self.unknown: set[str] = set()
        """Targets that cannot be reached as the file is now."""

    def __getitem__(self, target: str) -> ScriptedTarget:
        """Return one, made on first use."""
        return self.targets.setdefault(target, ScriptedTarget(concurrency=self.concurrency))

    def transport(self, place: TargetPlace) -> Transport:
        """See Transports.transport."""
        if place.target in self.unknown:
            raise ConfigError(f"there is no connection for {place.target}")
        return self[place.target]
