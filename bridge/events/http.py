"""An HTTP request as the Lambda event of API Gateway's payload format 2.0, which function URLs use too.

Shapes: docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html and
docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html. Choices where those are silent:

- A body is text for `text/*`, JSON, XML and JavaScript, as observed on AWS: everything else, form data and a missing
  content type included, is base64. So is text that is not UTF-8, and a body with a content encoding.
- Path and query are kept as sent (percent-encoded) in `rawPath` and `rawQueryString`.
- What a sender may put into headers and query is any bytes: the event is valid JSON whatever they are.
"""

import time
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from bridge.core import limits

MEDIA_TYPES_CACHED_MAX: Final = 256

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/javascript"})
_NOTHING: frozenset[str] = frozenset()


class TooManyParameters(ValueError):
    """The query has more than `limits.QUERY_PAIRS_MAX` pairs."""


class HttpRequest(NamedTuple):
    """A request as it was received: lower-case header names, raw bytes, nothing decoded.

    A named tuple, since one is made for every request: a third of a frozen dataclass's time.
    """

    method: str
    path: bytes
    """As sent, percent-encoded."""
    query: bytes = b""
    """As sent, without the question mark."""
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    http_version: str = "1.1"
    source_ip: str = ""
    scheme: str = "http"
    sent_names: Sequence[bytes] = ()
    """The names of `headers` one for one in the case they were sent in; empty where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOrigin:
    """What the events of one route have in common."""

    account_id: str
    """`anonymous` for a function URL without IAM."""
    api_id: str
    stage: str = "$default"
    route_key: str = "$default"
    domain_name: str = ""
    """Used where the request has no Host."""
    hidden_headers: Collection[str] = _NOTHING
    """Lower-case names left out: a credential that opened the route is not part of the event."""
    is_named: bool = False
    """`domain_name` is where the request came to, whatever its Host says."""
    authorizer: Mapping[str, Any] | None = None
    """Who signed, as `requestContext.authorizer`; None: nobody was asked."""


def http_event(request: HttpRequest, *, origin: HttpOrigin, request_id: str, received_at: float) -> bytes:
    """Return the event's JSON, serialised once.

    Args:
        request: the request, whole.
        origin: what all events of the route share.
        request_id: the id the sender gets and the handler sees.
        received_at: wall clock, epoch seconds.

    Raises:
        TooManyParameters: the query has more than `limits.QUERY_PAIRS_MAX` pairs.
    """
    headers, cookies = _headers(request.headers, origin.hidden_headers)
    path = request.path.decode("latin-1")
    domain = origin.domain_name if origin.is_named else domain_of(headers.get("host", origin.domain_name))
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": origin.route_key,
        "rawPath": path,
        "rawQueryString": request.query.decode("latin-1"),
    }
    if cookies:
        event["cookies"] = cookies
    event["headers"] = headers
    if request.query:
        parameters = query_parameters(request.query)
        if parameters:
            event["queryStringParameters"] = parameters
    event["requestContext"] = {
        "accountId": origin.account_id,
        "apiId": origin.api_id,
        **({} if origin.authorizer is None else {"authorizer": origin.authorizer}),
        "domainName": domain,
        "domainPrefix": domain.partition(".")[0],
        "http": {
            "method": request.method,
            "path": path,
            "protocol": "HTTP/" + request.http_version,
            "sourceIp": request.source_ip,
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": request_id,
        "routeKey": origin.route_key,
        "stage": origin.stage,
        "time": request_time(int(received_at)),
        "timeEpoch": round(received_at * 1000),
    }
    text = None
    if request.body:
        if "content-encoding" not in headers and is_text_type(headers.get("content-type", "")):
            text = text_of(request.body)
        event["body"] = b64encode(request.body).decode("ascii") if text is None else text
    event["isBase64Encoded"] = bool(request.body) and text is None
    return orjson.dumps(event)


def query_pairs(query: bytes) -> list[tuple[bytes, bytes]]:
    """Return the pairs of a query in their order, nothing decoded.

    Raises:
        TooManyParameters: more than `limits.QUERY_PAIRS_MAX` pairs.
    """
    pairs = query.split(b"&")
    if len(pairs) > limits.QUERY_PAIRS_MAX:
        raise TooManyParameters(f"more than {limits.QUERY_PAIRS_MAX} query parameters")
    return [(name, value) for name, _, value in (pair.partition(b"=") for pair in pairs if pair)]


def query_parameters(query: bytes) -> dict[str, str]:
    """Return the decoded parameters, values of a repeated name joined by commas; bytes that are no UTF-8 as U+FFFD.

    Raises:
        TooManyParameters: more than `limits.QUERY_PAIRS_MAX` pairs.
    """
    parameters: dict[str, str] = {}
    for raw_name, raw_value in query_pairs(query):
        name, value = unquoted(raw_name), unquoted(raw_value)
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def domain_of(host: str) -> str:
    """Return a Host without its port."""
    return host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host


@lru_cache(maxsize=8)
def request_time(second: int) -> str:
    """Return `12/Mar/2020:19:03:58 +0000` for an epoch second."""
    t = time.gmtime(second)
    clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
    return f"{t.tm_mday:02}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}:{clock} +0000"


@lru_cache(maxsize=MEDIA_TYPES_CACHED_MAX)
def is_text_type(content_type: str) -> bool:
    """Say whether API Gateway hands a body of this type over as text."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in _TEXT_TYPES or media_type.startswith("text/") or media_type.endswith(("+json", "+xml"))


def _headers(pairs: Sequence[tuple[bytes, bytes]], hidden: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Return headers by name, repeats joined by commas, and the cookies, which are an array of their own."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
    cookies: list[str] = []
    if len(headers) == len(pairs) and "cookie" not in headers and headers.keys().isdisjoint(hidden):
        return headers, cookies
    headers = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name == "cookie":
            cookies += [cookie for part in value.split(";") if (cookie := part.strip())]
        elif name in headers:
            headers[name] = f"{headers[name]},{value}"
        elif name not in hidden:
            headers[name] = value
    return headers, cookies


def text_of(body: bytes) -> str | None:
    """Return a body as text; None if it is no UTF-8."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None


def unquoted(raw: bytes) -> str:
    """Return a part of a query decoded; bytes that are no UTF-8 as U+FFFD."""
    if b"+" in raw:
        raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    return raw.decode("utf-8", "replace")
