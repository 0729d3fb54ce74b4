"""The webhook source: verifies a request, makes it an event, stores it before the 202, or answers what was returned."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import structlog

from bridge.core import limits
from bridge.core.errors import ConfigError, FunctionNotFound, InvokeError, LaneFull, StoreError, StoreFull, Throttled
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.invocation import InvocationType
from bridge.core.ports import Clock, Intake, Invoker
from bridge.core.record import Record
from bridge.events.http import HttpOrigin, HttpRequest, TooManyParameters, http_event
from bridge.events.responses import result_response
from bridge.sources.push.proxies import TrustedProxies
from bridge.sources.push.signatures import Verdict, Verifier
from bridge.util import telemetry
from bridge.util.asgi import (
    CLOSE,
    JSON_TYPE,
    BodyTooLarge,
    ClientGone,
    ConnectionAbandoned,
    Receive,
    Scope,
    Send,
    error_line,
    read_body,
    respond,
)

log = structlog.get_logger("bridge.webhook")

RETRY_AFTER_S: Final = 1
"""What a sender is told when the disk, a lane or the daemon's end is in the way."""
_ANY_METHOD: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What `Allow` says where every method is taken."""
_NEVER: Final = frozenset({"TRACE", "CONNECT"})
_PATH_SAFE: Final = "/:@!$&'()*+,;=~-._%"
_ACCEPTED = HTTPStatus.ACCEPTED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One webhook as it is configured."""

    name: str
    """`[sources.NAME]`: the record's source, the event's apiId, the label in metrics."""
    path: str
    """Matched whole, as sent: `//x`, `/%2e%2e/` and other spellings are other paths."""
    function: str
    """Target: `name[:qualifier]`; empty where only mappings read the source."""
    verifier: Verifier
    methods: tuple[str, ...] = ()
    """Empty: POST, or any for RequestResponse."""
    invocation_type: InvocationType = InvocationType.EVENT
    body_max_bytes: int = limits.BODY_DEFAULT_MAX_BYTES
    """1..6,291,456"""
    deduplicate_s: float = float(limits.DEDUPLICATION_WINDOW_DEFAULT_S)
    """0: a delivery id is not looked at."""
    async_payload_max_bytes: int = limits.ASYNC_PAYLOAD_MAX_BYTES
    """Largest serialised event of type Event."""


class _Refusal(Exception):
    """Ends a request with a status and one JSON line; nothing was stored."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        reason: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        more: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.more = more or {}


class _Mounted:
    """A route with what its requests share."""

    __slots__ = ("accepted", "origin", "payload_max", "route")

    def __init__(self, route: Route, *, account_id: str, region: str) -> None:
        self.route = route
        self.origin = HttpOrigin(
            account_id=account_id,
            api_id=route.name,
            domain_name=f"{route.name}.lambda-url.{region}.on.aws",
            hidden_headers=route.verifier.hidden_headers,
        )
        is_event = route.invocation_type is InvocationType.EVENT
        self.payload_max = route.async_payload_max_bytes if is_event else limits.SYNC_PAYLOAD_MAX_BYTES
        self.accepted = telemetry.EVENTS_ACCEPTED.labels(source=route.name, type=route.invocation_type.value)


_Table = dict[bytes, dict[str, _Mounted]]
"""Path as sent -> method (`*`: any) -> route."""


class WebhookSource:
    """An ASGI application over all webhook routes.

    Args:
        routes: see `set_routes`.
        intake: stores events.
        invoker: runs RequestResponse and DryRun.
        clock: times of events.
        trusted_proxies: networks whose X-Forwarded-For decides the source IP.
        account_id: requestContext.accountId of the events.
        region: part of the domain name where a request names no host.
    """

    def __init__(
        self,
        routes: Iterable[Route] = (),
        *,
        intake: Intake,
        invoker: Invoker,
        clock: Clock,
        trusted_proxies: Sequence[str] = (),
        account_id: str = ACCOUNT_DEFAULT,
        region: str = REGION_DEFAULT,
    ) -> None:
        self._intake = intake
        self._invoker = invoker
        self._clock = clock
        self._account_id = account_id
        self._region = region
        self._proxies = TrustedProxies(trusted_proxies)
        self._table: _Table = {}
        self._draining = False
        self.set_routes(routes)

    def set_routes(self, routes: Iterable[Route]) -> None:
        """Serve these routes from the next request on; requests under way end on the ones they came by.

        Raises:
            ConfigError: two routes want the same requests, or a limit is out of range; nothing changes.
        """
        table: _Table = {}
        for route in routes:
            if not 1 <= route.body_max_bytes <= limits.BODY_MAX_BYTES:
                raise ConfigError(f"route {route.name}: body_max_bytes must be between 1 and {limits.BODY_MAX_BYTES}")
            if not route.path.startswith("/"):
                raise ConfigError(f"route {route.name}: path must start with /")
            mounted = _Mounted(route, account_id=self._account_id, region=self._region)
            by_method = table.setdefault(quote(route.path, safe=_PATH_SAFE).encode("ascii"), {})
            for method in _methods(route):
                if method in by_method or (by_method and "*" in (method, *by_method)):
                    other = next(iter(by_method.values())).route.name
                    raise ConfigError(f"route {route.name}: {route.path} is already taken by route {other}")
                by_method[method] = mounted
        self._table = table

    def set_trusted_proxies(self, networks: Sequence[str]) -> None:
        """Believe these proxies from the next request on. Raises ConfigError as the constructor does."""
        self._proxies = TrustedProxies(networks)

    def drain(self) -> None:
        """Refuse new requests with 503; those under way end."""
        self._draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3, HTTP only)."""
        if scope["type"] != "http":
            return
        mounted: _Mounted | None = None
        try:
            mounted = self._find(scope)
            request, verdict = await self._receive(mounted, scope, receive)
            if verdict.response is not None:
                await respond(send, verdict.response.status, verdict.response.body, verdict.response.headers)
            elif mounted.route.invocation_type is InvocationType.EVENT:
                await self._store(mounted, request, verdict, send)
            else:
                await self._invoke(mounted, request, verdict, send)
        except _Refusal as refusal:
            source = "" if mounted is None else mounted.route.name
            telemetry.EVENTS_REFUSED.labels(source=source, reason=refusal.reason).inc()
            headers = (JSON_TYPE, *refusal.headers)
            await respond(send, refusal.status, error_line(str(refusal), **refusal.more), headers)
        except ClientGone:
            return  # nothing was stored: the request never was whole

    def _find(self, scope: Scope) -> _Mounted:
        if self._draining:
            raise _Refusal(503, "shutting down; try again", reason="draining", headers=(_retry(RETRY_AFTER_S), CLOSE))
        by_method = self._table.get(scope["raw_path"])
        if by_method is None:
            raise _Refusal(404, "no such path", reason="unknown path")
        method: str = scope["method"]
        mounted = by_method.get(method) or by_method.get("*")
        if mounted is None or method in _NEVER:
            allow = ", ".join(_ANY_METHOD if "*" in by_method else by_method)
            headers = ((b"allow", allow.encode("ascii")),)
            raise _Refusal(405, f"only {allow} here", reason="method", headers=headers)
        return mounted

    async def _receive(self, mounted: _Mounted, scope: Scope, receive: Receive) -> tuple[HttpRequest, Verdict]:
        """Read the request whole and verify it."""
        route = mounted.route
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        limit = route.body_max_bytes
        for name, value in headers:
            if name == b"content-length" and int(value) > limit:
                raise _too_large(f"the body is larger than {limit} bytes")
        try:
            body = await read_body(receive, limit=limit)
        except BodyTooLarge:
            raise _too_large(f"the body is larger than {limit} bytes") from None
        client = scope["client"]
        request = HttpRequest(
            method=scope["method"],
            path=scope["raw_path"],
            query=scope["query_string"],
            headers=headers,
            body=body,
            http_version=scope["http_version"],
            source_ip=self._proxies.source_ip(client[0] if client else "", headers),
        )
        verdict = route.verifier.verify(request)
        if not verdict.ok:
            challenge = ((b"www-authenticate", route.verifier.challenge),)
            raise _Refusal(401, f"refused: {verdict.reason}", reason="signature", headers=challenge)
        return request, verdict

    def _record(self, mounted: _Mounted, request: HttpRequest, verdict: Verdict) -> Record:
        """Make the record; its serialised size is what the limits are about."""
        route = mounted.route
        request_id = _request_id()
        received_at = round(self._clock.time(), 3)
        try:
            payload = http_event(request, origin=mounted.origin, request_id=request_id, received_at=received_at)
        except TooManyParameters as error:
            raise _Refusal(400, str(error), reason="query") from error
        if len(payload) > mounted.payload_max:
            text = f"the event has {len(payload)} bytes; {route.invocation_type} takes {mounted.payload_max}"
            raise _too_large(text)
        return Record(
            id=request_id,
            source=route.name,
            function=route.function,
            invocation_type=route.invocation_type,
            received_at=received_at,
            payload=payload,
            delivery_id=verdict.delivery_id,
        )

    async def _store(self, mounted: _Mounted, request: HttpRequest, verdict: Verdict, send: Send) -> None:
        """Answer 202 once the event is on disk.

        From the call of `submit` on, the only refusals are those that say that nothing was stored: on anything else
        the sender gets no answer and delivers again.
        """
        record = self._record(mounted, request, verdict)
        try:
            receipt = await self._intake.submit(record, deduplicate_s=mounted.route.deduplicate_s)
        except StoreFull as error:
            raise _unavailable("no space on disk; try again later", reason="disk full") from error
        except LaneFull as error:
            raise _unavailable("too many events wait; try again later", reason="lane full") from error
        except FunctionNotFound as error:
            raise _unavailable(str(error), reason="no function") from error
        except Exception as error:  # the outcome is open, whatever went wrong: no answer is the only honest one
            log.exception("event_unanswered", source=record.source, request_id=record.id)
            raise ConnectionAbandoned from error
        if receipt.duplicate:
            await respond(send, _ACCEPTED, b'{"id":"%b","duplicate":true}\n' % receipt.id.encode("ascii"))
            return
        mounted.accepted.inc()
        await respond(send, _ACCEPTED, b'{"id":"%b"}\n' % receipt.id.encode("ascii"))

    async def _invoke(self, mounted: _Mounted, request: HttpRequest, verdict: Verdict, send: Send) -> None:
        """Answer what the function returns (RequestResponse), or 204 if it could run (DryRun)."""
        record = self._record(mounted, request, verdict)
        try:
            if record.invocation_type is InvocationType.DRY_RUN:
                self._invoker.dry_run(record.function)
                await respond(send, 204, b"", ())
                return
            self._intake.archive(record)
            result = await self._invoker.invoke(record.function, request_id=record.id, payload=record.payload)
        except InvokeError as error:
            raise _not_accepted(error) from error
        except StoreError as error:
            raise _unavailable("the store failed; try again later", reason="store") from error
        mounted.accepted.inc()
        response = result_response(result)
        headers = (*response.headers, (b"x-amzn-requestid", record.id.encode("ascii")))
        await respond(send, response.status, response.body, headers)


def _methods(route: Route) -> tuple[str, ...]:
    if route.methods:
        methods = dict.fromkeys(method.upper() for method in route.methods)
        if "GET" in methods:
            methods["HEAD"] = None  # RFC 9110, 9.3.2
        return tuple(methods)
    return ("*",) if route.invocation_type is InvocationType.REQUEST_RESPONSE else ("POST",)


def _retry(after_s: float) -> tuple[bytes, bytes]:
    return (b"retry-after", b"%d" % max(1, math.ceil(after_s)))


def _too_large(text: str) -> _Refusal:
    return _Refusal(413, text, reason="too large")


def _unavailable(text: str, *, reason: str) -> _Refusal:
    return _Refusal(503, text, reason=reason, headers=(_retry(RETRY_AFTER_S),))


def _not_accepted(error: InvokeError) -> _Refusal:
    """Return the refusal for an invocation that was not accepted: nothing ran."""
    if isinstance(error, Throttled):
        more = {"Reason": error.reason, "Type": "User", "message": str(error)}
        return _Refusal(429, str(error), reason="throttled", headers=(_retry(error.retry_after_s),), more=more)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unavailable(str(error), reason="runtime")
    return _Refusal(error.status, str(error), reason=error.code)


def _request_id() -> str:
    """Return a random UUID (version 4) as lower-case text; half the time of `str(uuid.uuid4())`."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"
