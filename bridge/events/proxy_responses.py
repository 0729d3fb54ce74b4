"""What a function returned, as the HTTP answer of a REST API (strict) and of an Application Load Balancer.

docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html and
docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html; `responses` has format 2.0 and what
the three share: hop-by-hop headers are dropped, what cannot be sent safely is a 502.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from bridge.core import limits
from bridge.core.invocation import InvocationResult
from bridge.events.media import MediaTypes
from bridge.events.responses import JSON, HttpResponse, Malformed, body_bytes, status_of, whole, wire_headers

REST_BAD_GATEWAY: Final = HttpResponse(status=502, body=b'{"message": "Internal server error"}')
REST_TIMEOUT: Final = HttpResponse(status=504, body=b'{"message": "Endpoint request timed out"}')
_PAGE: Final = (
    b"<html>\r\n<head><title>%b</title></head>\r\n<body>\r\n<center><h1>%b</h1></center>\r\n</body>\r\n</html>\r\n"
)
_HTML: Final = ((b"content-type", b"text/html"),)
ALB_BAD_GATEWAY: Final = HttpResponse(status=502, headers=_HTML, body=_PAGE % ((b"502 Bad Gateway",) * 2))
ALB_TIMEOUT: Final = HttpResponse(status=504, headers=_HTML, body=_PAGE % ((b"504 Gateway Time-out",) * 2))
_REST_MEMBERS: Final = frozenset({"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"})
_OCTETS: Final = b"application/octet-stream"
"""What a load balancer calls an answer without a content type."""


def rest_response(result: InvocationResult, *, binary: MediaTypes) -> HttpResponse:
    """Return a REST API's answer for a finished invocation; 502 for all but an object of its members alone.

    Args:
        result: how it ended.
        binary: base64 comes off a body of these media types; others go out as they were returned.
    """
    if not result.is_ok:
        return REST_TIMEOUT if result.is_late else REST_BAD_GATEWAY
    try:
        value = orjson.loads(result.payload)
        if not isinstance(value, dict) or not value or value.keys() - _REST_MEMBERS:
            return REST_BAD_GATEWAY
        status = status_of(value.get("statusCode", 200))
        headers = wire_headers(_merged(value), content_type=JSON)
        media_type = next(text for name, text in headers if name == b"content-type").decode()
        encoded = value.get("isBase64Encoded") is True and binary.hold(media_type)
        return whole(status, headers, body_bytes(value.get("body"), encoded=encoded))
    except (orjson.JSONDecodeError, Malformed):
        return REST_BAD_GATEWAY


def alb_response(result: InvocationResult, *, multi_value: bool) -> HttpResponse:
    """Return a load balancer's answer for a finished invocation; 502 for what it cannot use, or above 1 MB.

    `statusDescription` is checked and not sent: our server writes the status's own phrase.

    Args:
        result: how it ended.
        multi_value: `multiValueHeaders` counts, else `headers`; the other is ignored.
    """
    if not result.is_ok or len(result.payload) > limits.ALB_MAX_BYTES:
        return ALB_TIMEOUT if result.is_late else ALB_BAD_GATEWAY
    try:
        value = orjson.loads(result.payload)
        if not isinstance(value, dict) or not isinstance(value.get("statusDescription", ""), str | None):
            return ALB_BAD_GATEWAY
        status = status_of(value.get("statusCode"))
        items = _many(value.get("multiValueHeaders")) if multi_value else _single(value.get("headers"))
        encoded = value.get("isBase64Encoded") is True
        headers = wire_headers(items, content_type=_OCTETS)
        return whole(status, headers, body_bytes(value.get("body"), encoded=encoded))
    except (orjson.JSONDecodeError, Malformed):
        return ALB_BAD_GATEWAY


def _merged(value: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return multi-value headers, then those of the single ones that are not among them."""
    items = list(_many(value.get("multiValueHeaders")))
    known = {(name, str(item)) for name, item in items}
    return items + [(name, item) for name, item in _single(value.get("headers")) if (name, str(item)) not in known]


def _single(value: Any) -> Iterable[tuple[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise Malformed
    return {name.lower(): item for name, item in value.items()}.items()


def _many(value: Any) -> Iterable[tuple[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, dict) or not all(isinstance(items, list) for items in value.values()):
        raise Malformed
    return [(name.lower(), item) for name, items in value.items() for item in items]
