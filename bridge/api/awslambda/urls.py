"""CreateFunctionUrlConfig and the other four of function URLs (semantics 5.9)."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from bridge.api.awslambda.control import MadeFunctions, stamp
from bridge.api.awslambda.errors import Refused, not_found, violated
from bridge.api.awslambda.names import read_name
from bridge.api.awslambda.paging import page
from bridge.api.awslambda.reading import ReadOperations
from bridge.api.awslambda.shapes import Body
from bridge.api.http import Answer, Request, json_answer
from bridge.core.errors import FunctionNotFound
from bridge.core.function import function_arn
from bridge.core.ports import Clock
from bridge.registry.access import Caller
from bridge.registry.attached import Place, place_arn
from bridge.registry.urls import OPEN, SIGNED, FunctionUrl, FunctionUrls, new_url_id

QUALIFIER_PATTERN: Final = r"((?!^\d+$)^[0-9a-zA-Z-_]+$)"
PAGE_MAX: Final = 50
MAX_AGE_MAX_S: Final = 86_400
_ALIAS: Final = re.compile(r"(?!\d+\Z)[0-9a-zA-Z_-]{1,128}\Z")
_MODES: Final = ("BUFFERED", "RESPONSE_STREAM")
_LISTS: Final = (
    ("AllowHeaders", 100, 1024),
    ("AllowMethods", 6, 6),
    ("AllowOrigins", 100, 253),
    ("ExposeHeaders", 100, 1024),
)
"""Member of Cors, entries at most, characters of one at most."""


class UrlOperations:
    """Handlers of function URL configurations, of declared functions, too.

    Args:
        urls: they are kept there.
        made: whose changes none of theirs may come between: URLs go with their function or alias.
        reading: finds functions.
        address: returns where an id is reached, for a region.
        clock: the daemon's.
    """

    def __init__(
        self,
        urls: FunctionUrls,
        made: MadeFunctions,
        reading: ReadOperations,
        *,
        address: Callable[[str, str], str],
        clock: Clock,
    ) -> None:
        self._urls = urls
        self._made = made
        self._reading = reading
        self._address = address
        self._clock = clock

    async def create(self, request: Request, caller: Caller) -> Answer:
        """API_CreateFunctionUrlConfig."""
        body = Body.of(await request.body())
        body.text("AuthType", required=True)
        auth_type = body.choice("AuthType", (OPEN, SIGNED))
        mode, cors = body.choice("InvokeMode", _MODES), _cors(body)
        body.finish()
        assert auth_type is not None
        now = stamp(self._clock)
        async with self._made.changing():
            place = self._place(request, caller)
            if self._urls.get(place) is not None:
                text = (
                    f"Failed to create function url config for [functionArn = {place_arn(place)}]. Error message:  "
                    "FunctionUrlConfig exists for this Lambda function"
                )
                raise Refused("ResourceConflictException", text, status=409)
            url = FunctionUrl(
                id=new_url_id(),
                function=place[0],
                qualifier=place[1],
                auth_type=auth_type,
                invoke_mode=mode or _MODES[0],
                cors=cors,
                created_at=now,
                modified_at=now,
            )
            await self._urls.put(url)
        shown = self._view(url)
        del shown["LastModifiedTime"]
        return json_answer(shown, status=201)

    async def update(self, request: Request, caller: Caller) -> Answer:
        """API_UpdateFunctionUrlConfig: what is left out stays; Cors is replaced as a whole, an empty one removed."""
        body = Body.of(await request.body())
        auth_type, mode = body.choice("AuthType", (OPEN, SIGNED)), body.choice("InvokeMode", _MODES)
        cors = _cors(body)
        body.finish()
        async with self._made.changing():
            before = self._existing(request, caller)
            url = replace(
                before,
                auth_type=auth_type or before.auth_type,
                invoke_mode=mode or before.invoke_mode,
                cors=before.cors if cors is None else cors or None,
                modified_at=stamp(self._clock),
            )
            await self._urls.put(url)
        return json_answer(self._view(url))

    async def get(self, request: Request, caller: Caller) -> Answer:
        """API_GetFunctionUrlConfig."""
        return json_answer(self._view(self._existing(request, caller)))

    async def delete(self, request: Request, caller: Caller) -> Answer:
        """API_DeleteFunctionUrlConfig: from now on its id is unknown."""
        async with self._made.changing():
            url = self._existing(request, caller)
            await self._urls.forget(url.function, url.qualifier)
        return Answer(204)

    async def list(self, request: Request, caller: Caller) -> Answer:
        """API_ListFunctionUrlConfigs: the function's, then its aliases'."""
        arn, _ = self._place(request, caller)
        urls, query = self._urls.of_function(arn), dict(request.query())
        return page(query, "FunctionUrlConfigs", urls, key=lambda url: url.arn, show=self._view, most=PAGE_MAX)

    def _existing(self, request: Request, caller: Caller) -> FunctionUrl:
        url = self._urls.get(self._place(request, caller))
        if url is None:
            raise not_found("The resource you requested does not exist.")
        return url

    def _place(self, request: Request, caller: Caller) -> Place:
        """Return the function or alias of a request. Raises Refused."""
        name = read_name(request.params["fn"], caller, qualifier=dict(request.query()).get("Qualifier"))
        if name.qualifier and not _ALIAS.match(name.qualifier):
            raise violated(name.qualifier, "qualifier", f"satisfy regular expression pattern: {QUALIFIER_PATTERN}")
        try:
            self._reading.find(name, caller).version(name.qualifier)
        except (Refused, FunctionNotFound) as error:
            raise not_found("Function does not exist") from error
        return function_arn(name.name, region=caller.region, account=caller.account), name.qualifier

    def _view(self, url: FunctionUrl) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "FunctionUrl": self._address(url.id, url.region),
            "FunctionArn": url.arn,
            "AuthType": url.auth_type,
            "CreationTime": url.created_at,
            "LastModifiedTime": url.modified_at,
            "InvokeMode": url.invoke_mode,
        }
        if url.cors:
            shown["Cors"] = dict(url.cors)
        return shown


def _cors(body: Body) -> dict[str, Any] | None:
    """Return Cors; None where it is left out."""
    inner = body.inner("Cors")
    if inner is None:
        return None
    found: dict[str, Any] = {member: _texts(inner, member, most, chars) for member, most, chars in _LISTS}
    found["AllowCredentials"] = inner.get("AllowCredentials", bool)
    found["MaxAge"] = inner.number("MaxAge", 0, MAX_AGE_MAX_S)
    return {member: value for member, value in found.items() if value is not None}


def _texts(body: Body, member: str, most: int, chars: int) -> Sequence[str] | None:
    found = body.get(member, list)
    if found is None:
        return None
    path = f"cors.{member[:1].lower()}{member[1:]}"
    if len(found) > most:
        raise violated(f"[{len(found)} entries]", path, f"have length less than or equal to {most}")
    for value in found:
        if not isinstance(value, str):
            raise Refused("SerializationException", f"Cors.{member} holds texts")
        if len(value) > chars or not value.isprintable() or not value.isascii():
            raise violated(value, path, f"satisfy constraint: [Member must have length less than or equal to {chars}]")
    return list(found)
