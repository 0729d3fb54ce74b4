"""Webhook formats that are HTTP requests as other AWS services hand them over: REST APIs and load balancers."""

from collections.abc import Sequence
from typing import ClassVar

from bridge.core import limits
from bridge.core.invocation import InvocationResult
from bridge.events import alb
from bridge.events.http import HttpRequest, TooManyParameters
from bridge.events.http_v1 import rest_event
from bridge.events.media import MediaTypes
from bridge.events.proxy_responses import REST_TIMEOUT, alb_response, rest_response
from bridge.events.responses import HttpResponse
from bridge.sources.push.formats import Format, FormatContext, Reading
from bridge.sources.push.refusals import Refusal, bad_query, too_large


class ApiGatewayV1(Format):
    """The REST API's proxy integration, payload format 1.0.

    Args:
        context: of the route.
        binary_media_types: bodies of these are base64 in the event, and answers of these are decoded.
    """

    __slots__ = ("_binary", "_origin")

    answer_within_s: ClassVar[float | None] = limits.REST_ANSWER_MAX_S

    def __init__(self, context: FormatContext, *, binary_media_types: Sequence[str] = ()) -> None:
        self._origin = context.origin
        self._binary = MediaTypes(binary_media_types)

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the one event of the request."""
        try:
            return rest_event(
                request, origin=self._origin, request_id=request_id, received_at=received_at, binary=self._binary
            )
        except TooManyParameters as error:
            raise bad_query(error) from error

    def answer(self, result: InvocationResult, request: HttpRequest) -> HttpResponse:
        """Return the strict answer of a REST API."""
        del request
        return rest_response(result, binary=self._binary)

    def late(self, request: HttpRequest) -> HttpResponse:
        """Return a REST API's 504."""
        del request
        return REST_TIMEOUT


class Alb(Format):
    """A target group of an Application Load Balancer.

    Args:
        context: of the route.
        multi_value_headers: the target group's `lambda.multi_value_headers.enabled`: headers and query, both ways.
    """

    __slots__ = ("_hidden", "_multi_value", "_target_group")

    def __init__(self, context: FormatContext, *, multi_value_headers: bool = False) -> None:
        origin = context.origin
        self._target_group = alb.target_group_arn(origin.api_id, region=context.region, account_id=origin.account_id)
        self._multi_value = multi_value_headers
        self._hidden = origin.hidden_headers

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the one event of the request; a load balancer's own limits come before ours."""
        if alb.is_websocket(request):
            text = "a load balancer cannot hand a WebSocket to a function; send a plain request"
            raise Refusal(400, text, reason="websocket")
        if len(request.body) > limits.ALB_MAX_BYTES:
            raise too_large(
                f"the body is larger than {limits.ALB_MAX_BYTES} bytes, which is as much as a load balancer takes"
            )
        try:
            return alb.alb_event(
                request,
                target_group=self._target_group,
                request_id=request_id,
                received_at=received_at,
                multi_value=self._multi_value,
                hidden_headers=self._hidden,
            )
        except TooManyParameters as error:
            raise bad_query(error) from error

    def answer(self, result: InvocationResult, request: HttpRequest) -> HttpResponse:
        """Return a load balancer's answer."""
        del request
        return alb_response(result, multi_value=self._multi_value)
