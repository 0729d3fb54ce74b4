"""A webhook's `format`: what a request becomes, and what its function's result becomes as an HTTP answer.

A format is made once per route and serves all its requests. `make_format` knows each by the word it has in the
configuration and imports it when a route first wants it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple

from bridge.core.errors import ConfigError
from bridge.core.function import REGION_DEFAULT
from bridge.core.invocation import InvocationResult, InvocationType
from bridge.core.ports import Clock
from bridge.events.http import HttpOrigin, HttpRequest, TooManyParameters, http_event
from bridge.events.responses import HttpResponse, result_response
from bridge.sources.push.refusals import Refusal

DEFAULT: Final = "apigateway-v2"


class Taken(NamedTuple):
    """One event that a request brings."""

    payload: bytes
    """The Lambda event, serialised."""
    delivery_id: str = ""
    """The sender's id of it, at most `signatures.base.DELIVERY_ID_MAX_CHARS`; used where the verifier has none."""


Reading = Taken | Sequence[Taken] | HttpResponse
"""One event (answered `{"id": …}`), a batch (`{"ids": […]}`, also of one), or an answer at once: nothing is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatContext:
    """What a route's format is made with."""

    origin: HttpOrigin
    """What the route's events share; `api_id` is the source's name."""
    clock: Clock
    invocation_type: InvocationType = InvocationType.EVENT
    region: str = REGION_DEFAULT
    """Of events whose sender names none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The format's own settings of the route, by keyword."""


class Format(ABC):
    """One format as one route uses it. Stateless between requests, as far as a request can see."""

    __slots__ = ()

    greeted: ClassVar[tuple[str, ...]] = ()
    """Methods that `greet` answers, before and instead of any verification."""

    def greet(self, request: HttpRequest) -> HttpResponse:
        """Return the answer to a request of a greeted method: nothing of it is stored.

        Raises:
            Refusal: it is no greeting.
        """
        raise AssertionError(f"{request.method} is not greeted")

    @abstractmethod
    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return what a verified request becomes.

        A coroutine, since some formats ask somebody first; most never wait.

        Args:
            request: the request, whole.
            request_id: the id of the event, the first one's of a batch; the others' are the webhook's business.
            received_at: wall clock, epoch seconds.

        Raises:
            Refusal: it is not what the format says: one clear line, nothing is stored.
        """

    def answer(self, result: InvocationResult) -> HttpResponse:
        """Return the answer for a finished invocation of type RequestResponse; here by the rules of function URLs."""
        return result_response(result)


class ApiGatewayV2(Format):
    """Payload format 2.0 of API Gateway's HTTP APIs and of function URLs."""

    __slots__ = ("_origin",)

    def __init__(self, context: FormatContext) -> None:
        self._origin = context.origin

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the one event of the request."""
        try:
            return Taken(http_event(request, origin=self._origin, request_id=request_id, received_at=received_at))
        except TooManyParameters as error:
            raise Refusal(400, str(error), reason="query") from error


def make_format(name: str, context: FormatContext) -> Format:
    """Return a route's format.

    Raises:
        ConfigError: there is no such format, or one of its options cannot be used.
    """
    match name:
        case "apigateway-v2":
            return ApiGatewayV2(context)
        case "cloudevents":
            from bridge.sources.push.notices import CloudEvents

            return CloudEvents()
        case "s3":
            from bridge.sources.push.notices import S3

            return S3(context)
        case "eventbridge":
            from bridge.sources.push.notices import EventBridge

            return EventBridge(context, **context.options)
        case "cloudwatch-logs":
            from bridge.sources.push.notices import CloudWatchLogs

            return CloudWatchLogs(context, **context.options)
        case "sns":
            from bridge.sources.push.sns import Sns

            return Sns(context, **context.options)
        case _:
            raise ConfigError(f"unknown format {name!r}")
