"""Webhook formats whose event is the request's body: `raw` (Alexa too) and the triggers of Cognito's user pools."""

from typing import ClassVar

import orjson

from bridge.core import limits
from bridge.core.errors import ConfigError
from bridge.core.invocation import InvocationResult, InvocationType
from bridge.events.bodies import Unreadable, read_json
from bridge.events.cognito import check_trigger, cognito_response, cognito_timeout
from bridge.events.http import HttpRequest
from bridge.events.responses import BAD_GATEWAY, GATEWAY_TIMEOUT, HttpResponse
from bridge.sources.push.formats import Format, FormatContext, Reading
from bridge.sources.push.refusals import malformed


class Raw(Format):
    """The body is the event, byte for byte, and what the function returns is the answer."""

    __slots__ = ()

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the one event of the request."""
        del request_id, received_at
        try:
            read_json(request.body)
        except Unreadable as error:
            raise malformed(str(error)) from error
        return request.body

    def answer(self, result: InvocationResult, request: HttpRequest) -> HttpResponse:
        """Return the returned JSON as it is; 502 when nothing was returned, 504 where nobody knows yet."""
        del request
        if result.is_ok:
            return HttpResponse(status=200, body=result.payload)
        return GATEWAY_TIMEOUT if result.is_late else BAD_GATEWAY


class Cognito(Format):
    """Triggers of a user pool: the returned event is the answer, within five seconds.

    Raises:
        ConfigError: the route does not wait for an answer.
    """

    __slots__ = ()

    answer_within_s: ClassVar[float | None] = limits.COGNITO_ANSWER_MAX_S

    def __init__(self, context: FormatContext) -> None:
        if context.invocation_type is not InvocationType.REQUEST_RESPONSE:
            raise ConfigError("format cognito answers what the function returns: invocation_type RequestResponse")

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the one event of the request."""
        del request_id, received_at
        try:
            check_trigger(request.body)
        except Unreadable as error:
            raise malformed(f"no event of a Cognito trigger: {error}") from error
        return request.body

    def answer(self, result: InvocationResult, request: HttpRequest) -> HttpResponse:
        """Return the returned event, or the failure in the user pool's words."""
        return cognito_response(result, event=orjson.loads(request.body))

    def late(self, request: HttpRequest) -> HttpResponse:
        """Return the failure of a function that takes too long, in the user pool's words."""
        return cognito_timeout(orjson.loads(request.body))
