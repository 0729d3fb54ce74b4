"""A webhook's `format`: what a request becomes, and what its function's result becomes as an HTTP answer.

A format is made once per route and serves all its requests. `make_format` knows each by the word it has in the
configuration and imports it when a route first wants it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Final, NamedTuple

from bridge.core.errors import ConfigError
from bridge.core.function import REGION_DEFAULT
from bridge.core.invocation import InvocationResult, InvocationType
from bridge.core.ports import Clock
from bridge.events.http import HttpOrigin, HttpRequest, TooManyParameters, http_event
from bridge.events.responses import GATEWAY_TIMEOUT, HttpResponse, result_response
from bridge.sources.push.refusals import bad_query

DEFAULT: Final = "apigateway-v2"


class Taken(NamedTuple):
    """One event that a request brings."""

    payload: bytes
    """The Lambda event, serialised."""
    delivery_id: str = ""
    """The sender's id of it, at most `signatures.base.DELIVERY_ID_MAX_CHARS`; used where the verifier has none."""


Reading = bytes | Taken | Sequence[Taken] | HttpResponse
"""One event (answered `{"id": …}`; bytes where its sender has no id of it), a batch (`{"ids": […]}`, also of one), or
an answer at once: nothing is stored."""


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
    answer_within_s: ClassVar[float | None] = None
    """Seconds a sender of type RequestResponse waits for the function, which runs on; None: as long as it may run."""

    def __init__(self, context: FormatContext | None = None) -> None:
        """Take what the format needs of it; those with options take them by keyword besides. Raises ConfigError."""
        del context

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

    def answer(self, result: InvocationResult, request: HttpRequest) -> HttpResponse:
        """Return the answer for a finished invocation of type RequestResponse; here by the rules of function URLs."""
        del request
        return result_response(result)

    def late(self, request: HttpRequest) -> HttpResponse:
        """Return the answer after `answer_within_s`."""
        del request
        return GATEWAY_TIMEOUT


class ApiGatewayV2(Format):
    """Payload format 2.0 of API Gateway's HTTP APIs and of function URLs."""

    __slots__ = ("_origin",)

    def __init__(self, context: FormatContext) -> None:
        self._origin = context.origin

    async def read(self, request: HttpRequest, *, request_id: str, received_at: float) -> Reading:
        """Return the one event of the request."""
        try:
            return http_event(request, origin=self._origin, request_id=request_id, received_at=received_at)
        except TooManyParameters as error:
            raise bad_query(error) from error


_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "apigateway-v2": ("formats", "ApiGatewayV2"),
    "apigateway-v1": ("http_formats", "ApiGatewayV1"),
    "alb": ("http_formats", "Alb"),
    "raw": ("body_formats", "Raw"),
    "cloudevents": ("notices", "CloudEvents"),
    "sns": ("sns", "Sns"),
    "s3": ("notices", "S3"),
    "eventbridge": ("notices", "EventBridge"),
    "cloudwatch-logs": ("notices", "CloudWatchLogs"),
    "cognito": ("body_formats", "Cognito"),
}
"""Module and class of each format, by its name."""


def make_format(name: str, context: FormatContext) -> Format:
    """Return a route's format.

    Raises:
        ConfigError: there is no such format, or one of its options cannot be used.
    """
    if name not in _PLACES:
        raise ConfigError(f"unknown format {name!r}")
    module, of_class = _PLACES[name]
    factory: Any = getattr(import_module(f"bridge.sources.push.{module}"), of_class)
    made: Format = factory(context, **context.options)
    return made
