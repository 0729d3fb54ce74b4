"""Which stored events a replay is about: time, route, function, outcome, pattern, ids."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from bridge.core.invocation import Attempt, AttemptStatus
from bridge.core.ports import Journal, Outcomes, Selection
from bridge.core.record import Record
from bridge.pipeline.filters import PatternInvalid, compile_pattern, matches_event
from bridge.pipeline.jobs import SpecInvalid

NAME: Final = re.compile(r"[.\-_A-Za-z0-9]{1,64}\Z")
OUTCOMES: Final = ("any", "failed", "succeeded", "unfinished")
_CONCURRENCY_MAX: Final = 1000
_RATE_MAX: Final = 1e6
_RETRIES_MAX: Final = 100
_SUCCEEDED: Final = frozenset({AttemptStatus.OK, AttemptStatus.REPLAYED_OK})
_FAILED: Final = frozenset({AttemptStatus.DEAD, AttemptStatus.REPLAYED_FAILED, AttemptStatus.ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySpec:
    """What to replay, where to, and how fast. Times in epoch seconds, [since, until)."""

    name: str = ""
    """1..64 of `.-_A-Za-z0-9`; made up when empty."""
    since: float | None = None
    until: float | None = None
    source: str | None = None
    function: str | None = None
    outcome: str = "any"
    pattern: str | None = None
    ids: tuple[str, ...] = ()
    limit: int | None = None
    to: str | None = None
    """Another target `name[:qualifier]`; None: where each event went."""
    rate: float | None = None
    """Events a second, above 0 up to 1e6; None: as fast as slots are free."""
    concurrency: int = 10
    """Invocations at once, 1..1000; with `ordered`, at most one a route."""
    ordered: bool = True
    retry_attempts: int = 2
    """Retries of a function error, 0..100."""

    def checked(self) -> "ReplaySpec":
        """Return it with a name.

        Raises:
            SpecInvalid: one line says what is wrong.
        """
        if self.name and not NAME.match(self.name):
            raise SpecInvalid("name: 1 to 64 of . - _ a-z A-Z 0-9")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise SpecInvalid("since must be before until")
        if self.outcome not in OUTCOMES:
            raise SpecInvalid(f"outcome must be one of {', '.join(OUTCOMES)}")
        if self.limit is not None and self.limit < 1:
            raise SpecInvalid("limit must be at least 1")
        if self.rate is not None and not 0 < self.rate <= _RATE_MAX:
            raise SpecInvalid("rate must be above 0 and at most 1000000 events a second")
        if not 1 <= self.concurrency <= _CONCURRENCY_MAX:
            raise SpecInvalid(f"concurrency must be between 1 and {_CONCURRENCY_MAX}")
        if not 0 <= self.retry_attempts <= _RETRIES_MAX:
            raise SpecInvalid(f"retry_attempts must be between 0 and {_RETRIES_MAX}")
        if self.pattern is not None:
            try:
                compile_pattern(self.pattern)
            except PatternInvalid as error:
                raise SpecInvalid(f"pattern: {error}") from None
        return self if self.name else self._replaced(name=f"replay-{secrets.token_hex(4)}")

    def _replaced(self, **changes: Any) -> "ReplaySpec":
        return ReplaySpec(**(asdict(self) | changes))

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> "ReplaySpec":
        """Return what `to_json` wrote."""
        document = orjson.loads(text)
        return cls(**(document | {"ids": tuple(document["ids"])}))


def outcome_of(attempts: Sequence[Attempt]) -> str:
    """Return `succeeded`, `failed` (and not since succeeded) or `unfinished`, replays included."""
    for attempt in reversed(attempts):
        if attempt.status in _SUCCEEDED:
            return "succeeded"
        if attempt.status in _FAILED:
            return "failed"
    return "unfinished"


async def select(
    journal: Journal, outcomes: Outcomes, spec: ReplaySpec, *, after: int = -1
) -> AsyncIterator[tuple[int, list[Record]]]:
    """Yield (position of the last record looked at, the matching ones) chunk by chunk, in order.

    `spec.limit` is the caller's to keep.
    """
    pattern = None if spec.pattern is None else compile_pattern(spec.pattern)
    selection = Selection(
        since=spec.since, until=spec.until, source=spec.source, function=spec.function, ids=frozenset(spec.ids)
    )

    def keep(chunk: Sequence[Record]) -> list[Record]:
        found = list(chunk) if pattern is None else [r for r in chunk if matches_event(pattern, r.payload)]
        if spec.outcome == "any" or not found:
            return found
        attempts = outcomes.for_events(found)
        return [r for r in found if outcome_of(attempts.get(r.position, ())) == spec.outcome]

    async for chunk in journal.scan(selection, after=after):
        yield chunk[-1].position, await asyncio.to_thread(keep, chunk)
