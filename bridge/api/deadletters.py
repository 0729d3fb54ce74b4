"""Endpoints of the local dead letters: list, show, redrive, purge."""

import re
from typing import Final

from bridge.api import views
from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, json_answer
from bridge.api.selection import compile_where
from bridge.api.services import Services
from bridge.core.invocation import DeadLetter
from bridge.core.ports import DeadLetterSelection

_SCANNED_MAX: Final = 20_000
_PREFIX_SCANNED_MAX: Final = 50_000
_PREFIX_MIN_CHARS: Final = 4
_CHUNK: Final = 256
_STATES: Final = ("dead", "redriving", "waiting")
_CURSOR: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)_([0-9a-f-]{36})\Z")


def selection_of(fields: Fields, *, ids: str = "id") -> DeadLetterSelection:
    """Take the fields that select dead letters: since, until, source, function, queue (`*`: every one), state, ids."""
    since, until = fields.span()
    queue, state = fields.text("queue") or "default", fields.text("state")
    if state is not None and state not in _STATES:
        raise fields.wrong("state", f"must be {', '.join(_STATES[:-1])} or {_STATES[-1]}")
    return DeadLetterSelection(
        queue=None if queue == "*" else queue,
        since=since,
        until=until,
        source=fields.text("source"),
        function=fields.text("function"),
        ids=fields.ids(ids),
        state=state,
    )


class DeadLetterEndpoints:
    """Handlers of `/admin/v1/dlq…`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def page(self, request: Request) -> Answer:
        """One page, oldest first: `{"dead_letters": […], "next": …, "count": matches but for `where`}`."""
        fields = Fields.of_query(request)
        selection, limit = selection_of(fields), fields.page()
        after = _cursor(fields, fields.text("after"))
        where = fields.text("where")
        matches = None if where is None else compile_where(where, wrong=lambda what: fields.wrong("where", what))
        fields.finish()
        store = self._services.dead_letters
        page: list[dict[str, object]] = []
        scanned = 0
        while len(page) < limit and scanned < _SCANNED_MAX:
            letters = await store.select(selection, limit=min(_CHUNK, limit - len(page)), after=after)
            for letter in letters:
                if matches is None or matches(letter):
                    page.append(views.dead_letter_view(letter))
                after = (letter.dead_at, letter.id)
            scanned += len(letters)
            if not letters:
                after = None
                break
        count = await store.count(selection)
        return json_answer({"dead_letters": page, "next": _cursor_text(after), "count": count})

    async def one(self, request: Request) -> Answer:
        """One dead letter, whole."""
        fields = Fields.of_query(request)
        queue = fields.text("queue")
        queue = None if queue == "*" else queue
        fields.finish()
        return json_answer(views.whole_dead_letter(await self._find(request.params["id"].lower(), queue)))

    async def purge(self, request: Request) -> Answer:
        """Delete what is selected and not being redriven: `{"count": n, "dry_run": …}`."""
        fields = await Fields.of_body(request)
        inner = fields.inner("selection")
        selection, dry_run = selection_of(inner, ids="ids"), fields.boolean("dry_run")
        inner.finish()
        fields.finish()
        if selection.state in ("redriving", "waiting"):
            raise inner.wrong("state", "only dead ones can be purged")
        store = self._services.dead_letters
        dead = DeadLetterSelection(
            queue=selection.queue, since=selection.since, until=selection.until, source=selection.source,
            function=selection.function, ids=selection.ids, state="dead",
        )  # fmt: skip
        count = await (store.count(dead) if dry_run else store.purge(dead))
        return json_answer({"count": count, "dry_run": dry_run})

    async def _find(self, wanted: str, queue: str | None) -> DeadLetter:
        letter = await self._services.dead_letters.get(wanted, queue=queue)
        if letter is not None:
            return letter
        if not re.fullmatch(r"[0-9a-f-]{%d,35}" % _PREFIX_MIN_CHARS, wanted):  # noqa: UP031 - braces of the pattern
            raise HttpError(404, f"no dead letter {wanted[:64]!r}")
        found: dict[str, DeadLetter] = {}
        after: tuple[float, str] | None = None
        for _ in range(_PREFIX_SCANNED_MAX // _CHUNK):
            letters = await self._services.dead_letters.select(
                DeadLetterSelection(queue=queue), limit=_CHUNK, after=after
            )
            found |= {letter.id: letter for letter in letters if letter.id.startswith(wanted)}
            if not letters:
                break
            after = (letters[-1].dead_at, letters[-1].id)
        if len(found) > 1:
            raise HttpError(409, f"{wanted} begins more than one id: {', '.join(sorted(found)[:5])}")
        if not found:
            raise HttpError(404, f"no dead letter whose id begins with {wanted}")
        found_id = next(iter(found))
        whole = await self._services.dead_letters.get(found_id, queue=queue)
        if whole is None:
            raise HttpError(404, f"no dead letter {found_id}")
        return whole


def _cursor(fields: Fields, text: str | None) -> tuple[float, str] | None:
    if text is None:
        return None
    found = _CURSOR.match(text)
    if found is None:
        raise fields.wrong("after", "must be what `next` said")
    return float(found[1]), found[2]


def _cursor_text(after: tuple[float, str] | None) -> str | None:
    return None if after is None else f"{after[0]!r}_{after[1]}"
