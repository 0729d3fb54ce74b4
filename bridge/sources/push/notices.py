"""Formats of services that notify: CloudEvents, S3 and MinIO, EventBridge, CloudWatch Logs."""

from collections.abc import Iterable
from typing import ClassVar

from bridge.core.invocation import InvocationResult
from bridge.events.bodies import ReadEvent, Unreadable, single_header
from bridge.events.cloudevents import STRUCTURED, is_batch, is_cloudevent, read_cloudevents
from bridge.events.cloudwatch_logs import LogDefaults, read_logs
from bridge.events.eventbridge import BusDefaults, read_eventbridge
from bridge.events.http import HttpRequest
from bridge.events.responses import HttpResponse
from bridge.events.s3 import read_s3
from bridge.sources.push.formats import Format, FormatContext, Reading, Taken
from bridge.sources.push.refusals import Refusal, malformed
from bridge.sources.push.signatures.base import delivery

_STRUCTURED = ((b"content-type", STRUCTURED.encode("ascii")),)
_TESTED = HttpResponse(status=200, body=b'{"test":true}\n')


class CloudEvents(Format):
    """CloudEvents in each mode of the HTTP binding, and the handshake of its webhook specification.

    github.com/cloudevents/spec, http-webhook.md 1.0.2, section 4: a sender asks by OPTIONS whether it may post. That
    the route has this format is the operator's consent; who posts, `verify` decides each time.
    """

    __slots__ = ()

    greeted: ClassVar[tuple[str, ...]] = ("OPTIONS",)

    def greet(self, request: HttpRequest) -> HttpResponse:
        """Allow the origin that asks, at any rate."""
        try:
            origin = single_header(request.headers, b"webhook-request-origin")
        except Unreadable as error:
            raise malformed(str(error)) from error
        if not origin:
            raise Refusal(405, "only POST here", reason="method", headers=((b"allow", b"POST, OPTIONS"),))
        headers = [(b"allow", b"POST"), (b"webhook-allowed-origin", origin.encode("latin-1"))]
        if any(name == b"webhook-request-rate" for name, _ in request.headers):
            headers.append((b"webhook-allowed-rate", b"*"))
        return HttpResponse(status=200, headers=tuple(headers))

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the CloudEvent, or those of a batch."""
        del request_id, received_at
        try:
            events = _taken(read_cloudevents(request.headers, request.body))
            return events if is_batch(request.headers, request.body) else events[0]
        except Unreadable as error:
            raise malformed(str(error)) from error

    def answer(self, result: InvocationResult, request: HttpRequest) -> HttpResponse:
        """Return a CloudEvent that the function returns as one, structured; anything else as function URLs do."""
        if result.is_ok and is_cloudevent(result.payload):
            return HttpResponse(status=200, headers=_STRUCTURED, body=result.payload)
        return super().answer(result, request)


class S3(Format):
    """Notifications of a bucket, by MinIO or S3; the test that S3 sends is answered and kept nowhere."""

    __slots__ = ("_region",)

    def __init__(self, context: FormatContext) -> None:
        self._region = context.region

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the one event of the notification, whose records are as many as it had."""
        del request_id, received_at
        try:
            event = read_s3(request.body, region=self._region)
        except Unreadable as error:
            raise malformed(str(error)) from error
        return _TESTED if event is None else _taken([event])[0]


class EventBridge(Format):
    """Events of a bus: envelopes, entries of PutEvents, and other JSON where the route has names for it.

    Args:
        context: the route's.
        bus_source: `source` of other JSON; empty: it is refused.
        detail_type: likewise.
    """

    __slots__ = ("_defaults",)

    def __init__(self, context: FormatContext, *, bus_source: str = "", detail_type: str = "") -> None:
        self._defaults = BusDefaults(
            region=context.region, account=context.origin.account_id, source=bus_source, detail_type=detail_type
        )

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the event, or those of `{"Entries": […]}`."""
        del request_id
        try:
            events = _taken(read_eventbridge(request.body, defaults=self._defaults, received_at=received_at))
        except Unreadable as error:
            raise malformed(str(error)) from error
        return events[0] if len(events) == 1 else events


class CloudWatchLogs(Format):
    """Log events, packed as a subscription of CloudWatch Logs packs them.

    Args:
        context: the route's.
        log_group: of log events whose sender names none; empty: `/bridge/` and the source's name.
    """

    __slots__ = ("_defaults",)

    def __init__(self, context: FormatContext, *, log_group: str = "") -> None:
        name = context.origin.api_id
        self._defaults = LogDefaults(
            owner=context.origin.account_id, group=log_group or f"/bridge/{name}", stream=name, subscription=name
        )

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the one event of the request."""
        del request_id
        try:
            return _taken([read_logs(request.body, defaults=self._defaults, received_at=received_at)])[0]
        except Unreadable as error:
            raise malformed(str(error)) from error


def _taken(events: Iterable[ReadEvent]) -> list[Taken]:
    return [Taken(event.payload, delivery(event.delivery_id)) for event in events]
