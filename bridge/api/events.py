"""Endpoints that read stored events: list, show, follow, export."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bridge.api import views
from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, Stream, json_answer
from bridge.api.jobs import replay_spec
from bridge.api.selection import compile_where
from bridge.api.services import Services
from bridge.core.invocation import Attempt, AttemptStatus, tries
from bridge.core.ports import Selection
from bridge.core.record import Record
from bridge.core.sources import RecordReader
from bridge.pipeline.selecting import ReplaySpec, outcome_of

POLL_S: Final = 0.2
_SCANNED_MAX: Final = 50_000
"""Events looked at for one page; a page that ends there still says where the next one begins."""
_PREFIX_SCANNED_MAX: Final = 100_000
_PREFIX_MIN_CHARS: Final = 4
_AMBIGUOUS_SHOWN: Final = 5
_WATCHED_MAX: Final = 1000
"""Unfinished events that one `tail` follows to their end; the oldest are let go."""
_PREFIX: Final = re.compile(r"[0-9a-f-]{1,36}\Z")
_CURSOR: Final = re.compile(r"([0-9]{1,12}\.[0-9]{3})-([0-9]{1,19})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events a request asks for."""

    selection: Selection
    failed: bool
    matches: Callable[[Record], bool] | None

    def keeps(self, record: Record, attempts: Sequence[Attempt]) -> bool:
        """Tell what the index could not: outcome and pattern."""
        if self.failed and outcome_of(attempts) != "failed":
            return False
        return self.matches is None or self.matches(record)


def wanted_of(fields: Fields) -> Wanted:
    """Take the fields that select events: since, until, source, function, id, failed, where."""
    since, until = fields.span()
    where = fields.text("where")
    return Wanted(
        selection=Selection(
            since=since,
            until=until,
            source=fields.text("source"),
            function=fields.text("function"),
            ids=fields.ids("id"),
        ),
        failed=fields.boolean("failed"),
        matches=None if where is None else compile_where(where, wrong=lambda what: fields.wrong("where", what)),
    )


class Events:
    """Handlers of `/admin/v1/events…`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def page(self, request: Request) -> Answer:
        """One page, newest first: `{"events": […], "next": cursor or null, "damaged": how many could not be read}`."""
        fields = Fields.of_query(request)
        wanted, limit, after = wanted_of(fields), fields.page(), fields.text("after")
        below = _cursor(fields, after)
        fields.finish()
        selection = wanted.selection
        if below is not None:
            at, _ = below
            until = at + 0.001 if selection.until is None else min(selection.until, at + 0.001)
            selection = replace(selection, until=until)
        page: list[dict[str, object]] = []
        scanned = 0
        last: Record | None = None
        damaged: set[int] = set()
        found = self._services.journal.scan(
            selection, reverse=True, chunk=min(512, max(limit, 32)), on_damage=damaged.update
        )

        def answer(low: int, following: str | None) -> Answer:
            """Each damaged record is told with one page: the one that ends below it."""
            left_out = sum(low < position and (below is None or position < below[1]) for position in damaged)
            return json_answer({"events": page, "next": following, "damaged": left_out})

        async for records in found:
            history = await self._history(records)
            for record in records:
                if below is not None and record.position >= below[1]:
                    continue
                if len(page) == limit or scanned == _SCANNED_MAX:
                    return answer(-1 if last is None else last.position, _cursor_text(last))
                scanned, last = scanned + 1, record
                attempts = history.get(record.position, [])
                if wanted.keeps(record, attempts):
                    page.append(views.event_view(record, attempts, self._services.readers(record)))
        return answer(-1, None)

    async def one(self, request: Request) -> Answer:
        """One event, whole: payload, attempts, what it waits for, its dead letter."""
        fields = Fields.of_query(request)
        fields.finish()
        services = self._services
        record = await self._find(request.params["id"].lower())
        attempts = (await self._history([record])).get(record.position, [])
        parked = await services.parked.get(record.id)
        letter = await services.dead_letters.get(record.id)
        readers = services.readers(record)
        settled = views.is_settled(record, attempts, readers) and parked is None
        view = views.event_view(record, attempts, readers) | views.whole_event(record)
        view["position"] = record.position
        view["history"] = [views.attempt_view(attempt) for attempt in tries(attempts)]
        view["sent"] = [views.sent_view(attempt) for attempt in attempts if attempt.status is AttemptStatus.SENT]
        view["to_send"] = [views.outbox_view(entry) for entry in await services.outbox.of_event(record.id)]
        view["parked"] = None if parked is None else views.parked_view(parked)
        view["read_by"] = [views.reader_view(reader) for reader in readers]
        view["waits_for"] = "" if settled else await self._explain(record, readers)
        view["dead_letter"] = None if letter is None else views.dead_letter_view(letter)
        return json_answer(view)

    async def _explain(self, record: Record, readers: Sequence[RecordReader]) -> str:
        """Say in one line what an unfinished event waits for."""
        if record.function:
            return await self._services.lanes.explain(record)
        waiting = [f"{reader.mapping} ({reader.shard})" for reader in readers if not reader.is_finished]
        return f"mapping {', '.join(waiting)}; `bridge mappings show` says why"

    async def tail(self, request: Request) -> Stream:
        """Follow: a line for each new event, and one for each attempt of those seen."""
        fields = Fields.of_query(request)
        wanted = wanted_of(fields)
        fields.finish()
        await request.body()
        return Stream(self._follow(wanted))

    async def export(self, request: Request) -> Stream:
        """Write whole events, oldest first: what a replay of the same selection would send."""
        fields = Fields.of_query(request)
        spec = replay_spec(fields, fields, ids="id")
        fields.finish()
        await request.body()
        return Stream(self._export(spec))

    async def _export(self, spec: ReplaySpec) -> AsyncIterator[object]:
        async for record in self._services.replays.events(spec):
            yield views.whole_event(record)

    async def _history(self, records: Sequence[Record]) -> dict[int, list[Attempt]]:
        """Look attempts up off the loop: milliseconds, over a long log."""
        return await asyncio.to_thread(self._services.outcomes.for_events, records)

    async def _find(self, wanted: str) -> Record:
        if not _PREFIX.match(wanted):
            raise HttpError(404, f"no event {wanted[:64]!r}: an id has hexadecimal digits and dashes")
        journal = self._services.journal
        if len(wanted) == 36:
            record = await asyncio.to_thread(journal.find, wanted)
            if record is None:
                raise HttpError(404, f"no event {wanted}: never stored here, or gone after the journal's retention")
            return record
        if len(wanted) < _PREFIX_MIN_CHARS:
            raise HttpError(400, f"id: give at least {_PREFIX_MIN_CHARS} characters")
        return await self._find_prefix(wanted)

    async def _find_prefix(self, prefix: str) -> Record:
        found: dict[str, Record] = {}
        scanned = 0
        async for records in self._services.journal.scan(Selection(), reverse=True):
            for record in records:
                if record.id.startswith(prefix):
                    found.setdefault(record.id, record)
            scanned += len(records)
            if scanned >= _PREFIX_SCANNED_MAX or len(found) > _AMBIGUOUS_SHOWN:
                break
        if not found:
            raise HttpError(404, f"no event whose id begins with {prefix} among the last {scanned}; give the whole id")
        if len(found) > 1:
            raise HttpError(409, f"{prefix} begins more than one id: {', '.join(list(found)[:_AMBIGUOUS_SHOWN])}")
        return next(iter(found.values()))

    async def _follow(self, wanted: Wanted) -> AsyncIterator[object]:
        services = self._services
        position = services.journal.end - 1
        watched: OrderedDict[int, tuple[Record, int]] = OrderedDict()
        while True:
            end = services.journal.end  # where nothing fits, what was looked at is not looked at again
            async for records in services.journal.scan(wanted.selection, after=position):
                for record in records:
                    if wanted.matches is not None and not wanted.matches(record):
                        continue
                    watched[record.position] = (record, 0)
                    if not wanted.failed:
                        yield {"type": "event"} | views.event_view(record, [], self._services.readers(record))
                position = max(position, records[-1].position)
                while len(watched) > _WATCHED_MAX:
                    watched.popitem(last=False)
            position = max(position, end - 1)
            for item in await self._news(watched, failed=wanted.failed):
                yield item
            await services.clock.sleep(POLL_S)

    async def _news(self, watched: OrderedDict[int, tuple[Record, int]], *, failed: bool) -> list[object]:
        """Return lines for attempts not told yet; events that settled are let go."""
        if not watched:
            return []
        lines: list[object] = []
        history = await self._history([record for record, _ in watched.values()])
        for position, attempts in history.items():
            record, told = watched[position]
            head = {"type": "attempt", "id": record.id, "source": record.source}
            news = [attempt for attempt in attempts[told:] if not failed or attempt.status in views.FAILURES]
            lines += [head | views.attempt_view(attempt) for attempt in news]
            watched[position] = (record, len(attempts))
            if views.is_settled(record, attempts, self._services.readers(record)):
                del watched[position]
        return lines


def _cursor(fields: Fields, text: str | None) -> tuple[float, int] | None:
    if text is None:
        return None
    found = _CURSOR.match(text)
    if found is None:
        raise fields.wrong("after", "must be what `next` said")
    return float(found[1]), int(found[2])


def _cursor_text(record: Record | None) -> str | None:
    return None if record is None else f"{record.received_at:.3f}-{record.position}"
