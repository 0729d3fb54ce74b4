"""Which stored events a replay is about (time, route, function, outcome, pattern, ids), or which part of a stream."""

import asyncio
import math
import re
import secrets
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import orjson

from bridge.core import limits
from bridge.core.function import TARGET_PATTERN
from bridge.core.invocation import Attempt, AttemptStatus, tries
from bridge.core.ports import Journal, Outcomes, Selection
from bridge.core.record import Record
from bridge.pipeline.filters import PatternInvalid, compile_pattern, matches_event
from bridge.pipeline.jobs import SpecInvalid

NAME: Final = re.compile(r"[.\-_A-Za-z0-9]{1,64}\Z")
OUTCOMES: Final = ("any", "failed", "succeeded", "unfinished")
SCAN_CHUNK: Final = 64
"""Events read at once: an event may have megabytes."""
_LOOKUP_EVENTS: Final = 4096
_LOOKUP_MAX_BYTES: Final = 8 * limits.MIB
_CONCURRENCY_MAX: Final = 1000
_RATE_MAX: Final = 1e6
_RETRIES_MAX: Final = 100
_IDS_MAX: Final = 10_000
_SUCCEEDED: Final = frozenset({AttemptStatus.OK, AttemptStatus.HANDED_OVER, AttemptStatus.REPLAYED_OK})
_SETTLED: Final = frozenset({AttemptStatus.OK, AttemptStatus.HANDED_OVER, AttemptStatus.DEAD, AttemptStatus.ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySpec:
    """What to replay, where to, and how fast. Times in epoch seconds, [since, until)."""

    name: str = ""
    """1..64 of `.-_A-Za-z0-9`; made up when empty."""
    since: float | None = None
    until: float | None = None
    """None: what is stored when the replay starts."""
    source: str | None = None
    function: str | None = None
    """Function that it was for, without qualifier."""
    outcome: str = "any"
    """One of OUTCOMES; `failed` means failed and not since succeeded."""
    pattern: str | None = None
    ids: tuple[str, ...] = ()
    limit: int | None = None
    """The oldest so many."""
    to: str | None = None
    """Another target `name[:qualifier]`; None: where each event went."""
    rate: float | None = None
    """Events a second, above 0 up to 1e6; None: as fast as slots are free."""
    concurrency: int = 10
    """Invocations at once, 1..1000; with `ordered`, at most one a route."""
    ordered: bool = True
    retry_attempts: int = 2
    """Retries of a function error, 0..100."""
    mapping: str | None = None
    """An event source mapping: records of its stream are replayed, not events of the journal."""
    shards: tuple[str, ...] = ()
    """With `mapping`: only these; empty: all, or those that `first` and `last` name."""
    key: str | None = None
    """With `mapping`: only records of this key (UTF-8)."""
    first: Mapping[str, int] = field(default_factory=dict)
    """With `mapping`: first position by shard, inclusive."""
    last: Mapping[str, int] = field(default_factory=dict)
    """With `mapping`: last position by shard, inclusive."""

    def checked(self) -> "ReplaySpec":
        """Return it with a name and with its ids as they are stored.

        Raises:
            SpecInvalid: one line says what is wrong.
        """
        check_common(
            name=self.name, since=self.since, until=self.until, limit=self.limit, rate=self.rate, pattern=self.pattern
        )
        if self.to is not None and not TARGET_PATTERN.match(self.to):
            raise SpecInvalid("to must be a function's name, with or without :qualifier")
        if self.outcome not in OUTCOMES:
            raise SpecInvalid(f"outcome must be one of {', '.join(OUTCOMES)}")
        if not 1 <= self.concurrency <= _CONCURRENCY_MAX:
            raise SpecInvalid(f"concurrency must be between 1 and {_CONCURRENCY_MAX}")
        if not 0 <= self.retry_attempts <= _RETRIES_MAX:
            raise SpecInvalid(f"retry_attempts must be between 0 and {_RETRIES_MAX}")
        self._check_mapping()
        return replace(self, name=self.name or f"replay-{secrets.token_hex(4)}", ids=request_ids(self.ids))

    def _check_mapping(self) -> None:
        """Refuse what belongs to events of the journal alone, or to streams alone."""
        ranged: dict[str, object] = {"shards": self.shards, "key": self.key, "first": self.first, "last": self.last}
        if self.mapping is None:
            for name, value in ranged.items():
                if value:
                    raise SpecInvalid(f"{name} belongs to a mapping: name it")
            return
        stored_only: dict[str, object] = {
            "source": self.source,
            "function": self.function,
            "ids": self.ids,
            "ordered": not self.ordered,
        }
        for name, value in stored_only.items():
            if value:
                raise SpecInvalid(f"{name} does not go with a mapping")
        if self.outcome != "any":
            raise SpecInvalid("outcome does not go with a mapping: what became of its records is not kept")
        if any(position < 0 for position in (*self.first.values(), *self.last.values())):
            raise SpecInvalid("first and last must be positions, 0 or more")
        for shard in {*self.first, *self.last}:
            if self.shards and shard not in self.shards:
                raise SpecInvalid(f"first and last name {shard}, which is none of the shards")
            if self.first.get(shard, 0) > self.last.get(shard, math.inf):
                raise SpecInvalid(f"first must not be behind last ({shard})")

    def to_json(self) -> bytes:
        """Return it as JSON; positions are text, for they may exceed 64 bits."""
        places = {name: {k: str(v) for k, v in getattr(self, name).items()} for name in ("first", "last")}
        return orjson.dumps(asdict(self) | places)

    @classmethod
    def from_json(cls, text: bytes) -> "ReplaySpec":
        """Return what `to_json` wrote; raises SpecInvalid for anything else."""
        try:
            document = orjson.loads(text)
            tuples = {name: tuple(document.get(name, ())) for name in ("ids", "shards")}
            places = {
                name: {shard: int(at) for shard, at in document.get(name, {}).items()} for name in ("first", "last")
            }
            return cls(**(document | tuples | places))
        except (ValueError, TypeError, AttributeError) as error:
            raise SpecInvalid(f"not a replay: {error}") from error


def check_common(
    *,
    name: str,
    since: float | None,
    until: float | None,
    limit: int | None,
    rate: float | None,
    pattern: str | None,
) -> None:
    """Check what replays and redrives have in common; raises SpecInvalid with one line."""
    if name and not NAME.match(name):
        raise SpecInvalid("name must be 1 to 64 of . - _ a-z A-Z 0-9")
    if not all(at is None or math.isfinite(at) for at in (since, until)):
        raise SpecInvalid("since and until must be finite")
    if since is not None and until is not None and since >= until:
        raise SpecInvalid("since must be before until")
    if limit is not None and limit < 1:
        raise SpecInvalid("limit must be at least 1")
    if rate is not None and not 0 < rate <= _RATE_MAX:
        raise SpecInvalid("rate must be above 0 and at most 1000000 events a second")
    if pattern is not None:
        try:
            compile_pattern(pattern)
        except PatternInvalid as error:
            raise SpecInvalid(f"pattern: {error}") from error


def request_ids(ids: Sequence[str]) -> tuple[str, ...]:
    """Return ids as they are stored, each once; raises SpecInvalid."""
    if len(ids) > _IDS_MAX:
        raise SpecInvalid(f"ids: at most {_IDS_MAX} at once")
    try:
        return tuple(dict.fromkeys(str(uuid.UUID(each)) for each in ids))
    except ValueError as error:
        raise SpecInvalid("ids must be whole request ids, 36 characters each") from error


def outcome_of(attempts: Sequence[Attempt]) -> str:
    """Return `succeeded`, `failed` (and not since succeeded) or `unfinished`, replays and redrives included.

    An event that will be tried again by itself is unfinished, not failed: a replay would run it twice. A replay that
    failed makes an event failed again, one that is still on its way stays so.
    """
    attempts = tries(attempts)
    ended = [attempt.status for attempt in attempts if attempt.status is not AttemptStatus.STARTED]
    if ended and ended[-1] in _SUCCEEDED:
        return "succeeded"
    live = [attempt.status for attempt in attempts if attempt.status is not AttemptStatus.REPLAYED_FAILED]
    is_settled = not live or live[-1] in _SETTLED or live[-1] is AttemptStatus.REPLAYED_OK
    return "failed" if ended and is_settled else "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A record that a replay is about."""

    record: Record
    succeeded: bool | None = None
    """What this very replay made of it before it was interrupted; None: nothing that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one read of the journal brought."""

    looked_at: int
    """Position of the last record that was looked at."""
    scanned: int
    """Records whose time, route, function and id fit."""
    chosen: Sequence[Chosen]

    def below(self, end: int) -> Sequence[Chosen]:
        """Return what was chosen of the records below a position."""
        if self.looked_at < end:
            return self.chosen
        return [chosen for chosen in self.chosen if chosen.record.position < end]


async def select(
    journal: Journal,
    outcomes: Outcomes,
    spec: ReplaySpec,
    *,
    after: int = -1,
    is_known: Callable[[], bool] = lambda: False,
    on_damage: Callable[[Sequence[int]], object] | None = None,
) -> AsyncGenerator[Page, None]:
    """Yield what fits a spec page by page, in order; `spec.limit` is the caller's to keep.

    `on_damage` is told the positions of records that cannot be read and are left out, as far as the index says that
    they are selected: pattern and outcome are not looked at.

    `is_known()`, asked for each page, tells whether this replay may have run some of it before: then its own
    attempts are looked up, and what it ended is chosen whatever its outcome is by now.
    """
    pattern = None if spec.pattern is None else compile_pattern(spec.pattern)
    selection = Selection(
        since=spec.since, until=spec.until, source=spec.source, function=spec.function, ids=frozenset(spec.ids)
    )

    def choose(records: Sequence[Record], *, known: bool) -> list[Chosen]:
        if pattern is not None:
            records = [record for record in records if matches_event(pattern, record.payload)]
        if not records or (spec.outcome == "any" and not known):
            return [Chosen(record=record) for record in records]
        attempts = outcomes.for_events(records)
        chosen = []
        for record in records:
            history = attempts.get(record.position, [])
            own = [attempt.status for attempt in history if known and attempt.replay == spec.name]
            if own:
                chosen.append(Chosen(record=record, succeeded=own[-1] is AttemptStatus.REPLAYED_OK))
            elif spec.outcome in ("any", outcome_of(history)):
                chosen.append(Chosen(record=record))
        return chosen

    pages = journal.scan(selection, after=after, chunk=SCAN_CHUNK, on_damage=on_damage)
    async for records in _batches(pages, is_large=spec.outcome != "any"):
        chosen = await asyncio.to_thread(choose, records, known=is_known())
        yield Page(looked_at=records[-1].position, scanned=len(records), chosen=chosen)


def damage_note(count: int) -> str:
    """Say that damaged records were left out; empty for none."""
    if not count:
        return ""
    return f"{count} damaged record{' was' if count == 1 else 's were'} left out; `bridge doctor` says where"


async def _batches(pages: AsyncIterator[Sequence[Record]], *, is_large: bool) -> AsyncGenerator[Sequence[Record], None]:
    """Yield what the journal holds, in large batches where each costs a pass over the index of attempts."""
    batch: list[Record] = []
    size = 0
    async for records in pages:
        if not is_large:
            yield records
            continue
        batch += records
        size += sum(len(record.payload) for record in records)
        if len(batch) >= _LOOKUP_EVENTS or size >= _LOOKUP_MAX_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
