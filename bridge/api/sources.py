"""Endpoints of push sources: look, and give them events by hand."""

import asyncio
from base64 import b64decode, b64encode
from typing import Any, Final

import orjson

from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, json_answer
from bridge.api.services import Services
from bridge.core import limits
from bridge.core.errors import LaneFull, StoreFull
from bridge.core.invocation import InvocationType
from bridge.core.push import Accepted, Given, NotAccepted

_MEMBERS: Final = frozenset({"data", "method", "query", "headers", "topic", "at"})
_AT_MAX: Final = 253_402_300_799.0
"""The end of the year 9999."""
_UNAVAILABLE: Final = 503
_TOGETHER_MAX: Final = 100
_NOT_BEGUN: Final[dict[str, object]] = {"status": _UNAVAILABLE, "error": "not begun: one before it was refused"}


class SourceEndpoints:
    """Handlers of `/admin/v1/sources…`."""

    def __init__(self, services: Services) -> None:
        self._sources = services.sources
        self._mappings = services.mappings

    async def page(self, request: Request) -> Answer:
        """All, by name."""
        Fields.of_query(request).finish()
        return json_answer({"sources": self._views()})

    async def one(self, request: Request) -> Answer:
        """One."""
        Fields.of_query(request).finish()
        return json_answer(self._known(request.params["name"]))

    async def feed(self, request: Request) -> Answer:
        """Give it the body's `events` as if their sender had sent them, in this order.

        Each has `data` (base64) and what its source has a use for: `method`, `query` and `headers` (pairs) of a
        request, `topic` of a message, `at` (epoch seconds) of a tick. Answers `results`, one for each: its `ids` and
        `status`, or `status` and `error`. Behind a refused one none is begun: those have status 503, to be given again.
        Where none was taken the first one's status and error are the answer's own.
        """
        name = request.params["name"]
        events = _events(await request.body(limits.PUT_MAX_BYTES))
        # Stored side by side, one commit has many; functions that are waited for run one after the other.
        together = _TOGETHER_MAX if self._known(name)["invocation_type"] == InvocationType.EVENT else 1
        results: list[dict[str, object]] = []
        for begin in range(0, len(events), together):
            results += await self._feed(name, events[begin : begin + together])
            if "error" in results[-1]:
                break
        results += [_NOT_BEGUN] * (len(events) - len(results))
        if all("error" in result for result in results):
            raise HttpError(int(str(results[0]["status"])), str(results[0]["error"]))
        return json_answer({"results": results})

    async def _feed(self, name: str, events: list[Given]) -> list[dict[str, object]]:
        """Give some of them side by side. Tasks begin in order, and an event takes its place in its first step."""
        has_refused = False

        async def one(given: Given) -> dict[str, object]:
            nonlocal has_refused
            if has_refused:
                return _NOT_BEGUN
            try:
                return _result(await self._sources.feed(name, given))
            except (NotAccepted, LaneFull, StoreFull) as error:
                has_refused = True
                status = error.status if isinstance(error, NotAccepted) else _UNAVAILABLE
                return {"status": status, "error": str(error)}

        outcomes = await asyncio.gather(*map(one, events), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]

    def _views(self) -> list[dict[str, object]]:
        readers: dict[str, list[str]] = {}
        for status in self._mappings.status():
            readers.setdefault(status.mapping.source, []).append(status.mapping.name)
        return [{**view, "mappings": readers.get(str(view["name"]), [])} for view in self._sources.views()]

    def _known(self, name: str) -> dict[str, object]:
        views = self._views()
        for view in views:
            if view["name"] == name:
                return view
        known = ", ".join(str(view["name"]) for view in views) or "none"
        raise HttpError(404, f"no source {name[:100]}; known are {known}")


def _result(accepted: Accepted) -> dict[str, object]:
    made: dict[str, object] = {"ids": list(accepted.ids), "status": accepted.status}
    if accepted.duplicates:
        made["duplicates"] = accepted.duplicates
    if accepted.body is not None:
        made["body"] = b64encode(accepted.body).decode("ascii")
    return made


def _events(body: bytes) -> list[Given]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"the body is not JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != {"events"} or not isinstance(document["events"], list):
        raise HttpError(400, 'the body must be {"events": […]}')
    if not 1 <= len(document["events"]) <= limits.GIVEN_EVENTS_MAX:
        raise HttpError(400, f"events: must be 1 to {limits.GIVEN_EVENTS_MAX}")
    return [_given(event, f"events[{number}]") for number, event in enumerate(document["events"])]


def _given(event: Any, where: str) -> Given:
    if not isinstance(event, dict) or set(event) - _MEMBERS:
        raise HttpError(400, f"{where}: must be an object with {', '.join(sorted(_MEMBERS))}, each where it is needed")
    at = event.get("at")
    if at is not None and not (isinstance(at, int | float) and not isinstance(at, bool) and 0 <= at <= _AT_MAX):
        raise HttpError(400, f"{where}.at: must be epoch seconds")
    return Given(
        data=_data(event.get("data", ""), f"{where}.data"),
        method=_text(event.get("method", ""), f"{where}.method"),
        query=_text(event.get("query", ""), f"{where}.query"),
        headers=_headers(event.get("headers", []), f"{where}.headers"),
        topic=_text(event.get("topic", ""), f"{where}.topic"),
        at=at,
    )


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > limits.HEADER_MAX_BYTES:
        raise HttpError(400, f"{where}: must be text, up to {limits.HEADER_MAX_BYTES} characters")
    return value


def _data(value: Any, where: str) -> bytes:
    try:
        return b64decode(value, validate=True)
    except (TypeError, ValueError) as error:
        raise HttpError(400, f"{where}: must be base64") from error


def _headers(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    pairs: list[Any] = value if isinstance(value, list) else [None]
    if len(pairs) > limits.HEADERS_MAX or any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise HttpError(400, f"{where}: must be up to {limits.HEADERS_MAX} pairs of a name and a value")
    return tuple((_text(pair[0], where), _text(pair[1], where)) for pair in pairs)
