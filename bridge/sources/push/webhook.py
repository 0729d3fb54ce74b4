"""The webhook source: verifies a request, makes it an event, stores it before the 202, or answers what was returned."""

import asyncio
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final

import orjson
import structlog

from bridge.core.errors import FunctionNotFound, InvokeDenied, InvokeError, LaneFull, SourceError, StoreError, StoreFull
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.invocation import InvocationType
from bridge.core.ports import Clock, Intake, Invoker, Receipt
from bridge.core.push import Accepted, Given, NotAccepted, Permits
from bridge.core.record import Record
from bridge.events.http import HttpRequest
from bridge.events.responses import HttpResponse
from bridge.sources.push.by_hand import Answered, hand_request
from bridge.sources.push.formats import Taken
from bridge.sources.push.patience import Patience
from bridge.sources.push.proxies import TrustedProxies
from bridge.sources.push.records import batch_of, record_of
from bridge.sources.push.refusals import RETRY_AFTER_S, Refusal, not_accepted, retry_after, too_large, unavailable
from bridge.sources.push.routes import Mounted, Route, Table, route_table
from bridge.sources.push.signatures import Unavailable, Verdict
from bridge.util import telemetry
from bridge.util.asgi import (
    CLOSE,
    HEADER_NAMES,
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
from bridge.util.ids import new_id

log = structlog.get_logger("bridge.webhook")

_ANY_METHOD: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What `Allow` says where every method is taken."""
_NEVER: Final = frozenset({"TRACE", "CONNECT"})
_ACCEPTED = HTTPStatus.ACCEPTED.value


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
        permits: asked where a route has a sender; None: nobody is.
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
        permits: Permits | None = None,
    ) -> None:
        self._permits = permits
        self._intake = intake
        self._invoker = invoker
        self._clock = clock
        self._account_id = account_id
        self._region = region
        self._proxies = TrustedProxies(trusted_proxies)
        self._table: Table = {}
        self._draining = False
        self._patience = Patience(clock)
        self.set_routes(routes)

    def set_routes(self, routes: Iterable[Route]) -> None:
        """Serve these routes from the next request on; requests under way end on the ones they came by.

        Raises:
            ConfigError: two routes want the same requests, or a limit is out of range; nothing changes.
        """
        self._table = route_table(routes, account_id=self._account_id, region=self._region, clock=self._clock)

    def set_trusted_proxies(self, networks: Sequence[str]) -> None:
        """Believe these proxies from the next request on. Raises ConfigError as the constructor does."""
        self._proxies = TrustedProxies(networks)

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is taken any more."""
        return self._draining

    def request_of(self, scope: Scope, body: bytes) -> HttpRequest:
        """Return a request that was read whole, as events are made of it."""
        client, headers = scope["client"], scope["headers"]
        return HttpRequest(
            method=scope["method"],
            path=scope["raw_path"],
            query=scope["query_string"],
            headers=headers,
            body=body,
            http_version=scope["http_version"],
            source_ip=self._proxies.source_ip(client[0] if client else "", headers),
            scheme=scope.get("scheme", "http"),
            sent_names=scope.get(HEADER_NAMES, ()),
        )

    def drain(self) -> None:
        """Refuse new requests with 503; those under way end."""
        self._draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3, HTTP only)."""
        if scope["type"] != "http":
            return
        mounted: Mounted | None = None
        try:
            mounted = self._find(scope)
            request, verdict = await self._receive(mounted, scope, receive)
            await self._handle(mounted, request, verdict, send)
        except Refusal as refusal:
            source = "" if mounted is None else mounted.route.name
            telemetry.EVENTS_REFUSED.labels(source=source, reason=refusal.reason).inc()
            headers = (JSON_TYPE, *refusal.headers)
            await respond(send, refusal.status, error_line(str(refusal), **refusal.more), headers)
        except ClientGone:
            return  # nothing was stored: the request never was whole

    async def feed(self, name: str, given: Given) -> Accepted:
        """Take a request of the route of that name that nobody signed. See push.Feedable."""
        found = [
            (path, method, mounted)
            for path, by_method in self._table.items()
            for method, mounted in by_method.items()
            if mounted.route.name == name
        ]
        if not found:
            raise NotAccepted(f"no route {name}", status=404)
        path, _, mounted = found[0]
        request = hand_request(given, path=path, methods=[method for _, method, _ in found])
        answered = Answered()
        try:
            if len(request.body) > mounted.route.body_max_bytes:
                raise too_large(f"the body is larger than {mounted.route.body_max_bytes} bytes")
            await self._handle(mounted, request, Verdict(ok=True), answered.send)
        except Refusal as refusal:
            raise NotAccepted(str(refusal), status=refusal.status) from refusal
        except ConnectionAbandoned as error:
            raise SourceError("it may be stored or not; the daemon's log says why") from error
        return answered.accepted()

    async def _handle(self, mounted: Mounted, request: HttpRequest, verdict: Verdict, send: Send) -> None:
        """Answer a request that is whole and verified."""
        request_id, received_at = new_id(), round(self._clock.time(), 3)
        reading = verdict.response or await mounted.format.read(request, request_id=request_id, received_at=received_at)
        if isinstance(reading, bytes):
            record = record_of(mounted, reading, request_id, received_at, verdict.delivery_id)
            await self._take(mounted, request, record, send)
        elif isinstance(reading, Taken):
            delivery_id = verdict.delivery_id or reading.delivery_id
            record = record_of(mounted, reading.payload, request_id, received_at, delivery_id)
            await self._take(mounted, request, record, send)
        elif isinstance(reading, HttpResponse):
            await respond(send, reading.status, reading.body, reading.headers)
        else:
            self._check_permission(mounted.route, request)
            await self._take_batch(mounted, batch_of(mounted, reading, received_at, verdict.delivery_id), send)

    def _check_permission(self, route: Route, request: HttpRequest) -> None:
        if route.sender is not None and route.function and self._permits is not None:
            try:
                self._permits(route.sender, route.function, request.method)
            except InvokeDenied as error:
                raise Refusal(error.status, str(error), reason="policy") from error

    def _find(self, scope: Scope) -> Mounted:
        if self._draining:
            raise Refusal(
                503, "shutting down; try again", reason="draining", headers=(retry_after(RETRY_AFTER_S), CLOSE)
            )
        by_method = self._table.get(scope["raw_path"])
        if by_method is None:
            raise Refusal(404, "no such path", reason="unknown path")
        method: str = scope["method"]
        mounted = by_method.get(method) or by_method.get("*")
        if mounted is None or method in _NEVER:
            allow = ", ".join(_ANY_METHOD if "*" in by_method else by_method)
            headers = ((b"allow", allow.encode("ascii")),)
            raise Refusal(405, f"only {allow} here", reason="method", headers=headers)
        return mounted

    async def _receive(self, mounted: Mounted, scope: Scope, receive: Receive) -> tuple[HttpRequest, Verdict]:
        """Read the request whole and verify it."""
        route = mounted.route
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        limit = route.body_max_bytes
        try:
            body = await read_body(receive, limit=limit, headers=headers)
        except BodyTooLarge:
            raise too_large(f"the body is larger than {limit} bytes") from None
        request = self.request_of(scope, body)
        if request.method in mounted.format.greeted:
            return request, Verdict(ok=True, response=mounted.format.greet(request))
        verifier = route.verifier
        if verifier.prepares:
            try:
                await verifier.prepare(request)
            except Unavailable as error:
                raise unavailable(str(error), reason="verifier") from error
        verdict = verifier.verify(request)
        if not verdict.ok:
            challenge = ((b"www-authenticate", verifier.challenge),)
            raise Refusal(401, f"refused: {verdict.reason}", reason="signature", headers=challenge)
        return request, verdict

    async def _take(self, mounted: Mounted, request: HttpRequest, record: Record, send: Send) -> None:
        """Answer 202 once the event is on disk; one that is not of type Event is run instead."""
        self._check_permission(mounted.route, request)
        if record.invocation_type is not InvocationType.EVENT:
            await self._invoke(mounted, request, record, send)
            return
        try:
            receipt = await self._intake.submit(record, deduplicate_s=mounted.route.deduplicate_s)
        except Exception as error:  # whatever went wrong, the sender is told what is certain, or nothing
            raise _unstored(record, error) from error
        if receipt.duplicate:
            await respond(send, _ACCEPTED, b'{"id":"%b","duplicate":true}\n' % receipt.id.encode("ascii"))
            return
        mounted.accepted.inc()
        await respond(send, _ACCEPTED, b'{"id":"%b"}\n' % receipt.id.encode("ascii"))

    async def _take_batch(self, mounted: Mounted, records: Sequence[Record], send: Send) -> None:
        """Answer 202 once all of them are on disk: one that is refused refuses the request.

        The others may be stored by then. The sender sends the whole again, and de-duplication knows those.
        """
        if mounted.route.invocation_type is not InvocationType.EVENT:
            text = f"a batch of events; {mounted.route.invocation_type} takes one event a request"
            raise Refusal(400, text, reason="batch")
        submits = (self._intake.submit(record, deduplicate_s=mounted.route.deduplicate_s) for record in records)
        outcomes = await asyncio.gather(*submits, return_exceptions=True)
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
        fresh = [receipt.id for receipt in receipts if not receipt.duplicate]
        mounted.accepted.inc(len(fresh))
        failures = [
            _unstored(record, outcome)
            for record, outcome in zip(records, outcomes, strict=True)
            if isinstance(outcome, BaseException)
        ]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, Refusal)):
            raise failure  # an open outcome comes before a refusal: then there is no honest answer
        answer: dict[str, object] = {"ids": [receipt.id for receipt in receipts]}
        if len(fresh) < len(receipts):
            answer["duplicates"] = len(receipts) - len(fresh)
        await respond(send, _ACCEPTED, orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))

    async def _invoke(self, mounted: Mounted, request: HttpRequest, record: Record, send: Send) -> None:
        """Answer what the function returns (RequestResponse), or 204 if it could run (DryRun)."""
        try:
            if record.invocation_type is InvocationType.DRY_RUN:
                self._invoker.dry_run(record.function)
                await respond(send, 204, b"", ())
                return
            self._intake.archive(record)
            invoking = self._invoker.invoke(record.function, request_id=record.id, payload=record.payload)
            limit_s = mounted.format.answer_within_s
            result = await invoking if limit_s is None else await self._patience.within(limit_s, invoking)
        except InvokeError as error:
            raise not_accepted(error) from error
        except StoreError as error:
            raise unavailable("the store failed; try again later", reason="store") from error
        mounted.accepted.inc()
        response = mounted.format.late(request) if result is None else mounted.format.answer(result, request)
        headers = (*response.headers, (b"x-amzn-requestid", record.id.encode("ascii")))
        await respond(send, response.status, response.body, headers)


def _unstored(record: Record, error: BaseException) -> Exception:
    """Return what ends a request whose event was not stored, for certain or perhaps.

    From the call of `submit` on, the only refusals are those that say that nothing was stored: on anything else the
    sender gets no answer and delivers again.
    """
    if isinstance(error, StoreFull):
        return unavailable("no space on disk; try again later", reason="disk full")
    if isinstance(error, LaneFull):
        return unavailable("too many events wait; try again later", reason="lane full")
    if isinstance(error, FunctionNotFound):
        return unavailable(str(error), reason="no function")
    log.error("event_unanswered", source=record.source, request_id=record.id, exc_info=error)
    return ConnectionAbandoned()
