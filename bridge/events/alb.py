"""An HTTP request as the Lambda event of an Application Load Balancer's target group.

Shape: docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html and the samples that the tests
reproduce. Headers and query are single (the last value) or multi-value, as the target group says. As a load balancer
does, ours adds `x-forwarded-for`, `-port` and `-proto`, and `x-amzn-trace-id` where there is none: a handler has
nothing else to know its caller by.
"""

import hashlib
from base64 import b64encode
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

import orjson

from bridge.events.http import HttpRequest, query_pairs, text_of

_TEXT_TYPES: Final = frozenset({"application/json", "application/javascript", "application/xml"})
_PORTS: Final = {"http": "80", "https": "443"}


def target_group_arn(name: str, *, region: str, account_id: str) -> str:
    """Return the ARN of a route as a target group; the same for the same name."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"arn:aws:elasticloadbalancing:{region}:{account_id}:targetgroup/{name}/{digest}"


def is_websocket(request: HttpRequest) -> bool:
    """Tell whether a request wants to be a WebSocket, which a load balancer refuses for functions (400).

    Our listener declines every offer to upgrade and drops its header; the handshake's key stays.
    """
    return any(name == b"sec-websocket-key" for name, _ in request.headers)


def alb_event(
    request: HttpRequest,
    *,
    target_group: str,
    request_id: str,
    received_at: float,
    multi_value: bool,
    hidden_headers: Collection[str] = (),
) -> bytes:
    """Return the event's JSON, serialised once.

    Args:
        request: the request, whole.
        target_group: the ARN.
        request_id: what the trace id is made of.
        received_at: wall clock, epoch seconds.
        multi_value: lists of all values instead of the last ones.
        hidden_headers: lower-case names left out.

    Raises:
        TooManyParameters: the query has more than `limits.QUERY_PAIRS_MAX` pairs.
    """
    headers: dict[str, list[str]] = {}
    for raw_name, raw_value in request.headers:
        name = raw_name.decode("latin-1")
        if name not in hidden_headers:
            headers.setdefault(name, []).append(raw_value.decode("latin-1"))
    _add_forwarded(headers, request, trace_id=f"Root=1-{int(received_at):08x}-{request_id.replace('-', '')[:24]}")
    query: dict[str, list[str]] = {}
    for raw_name, raw_value in query_pairs(request.query):
        query.setdefault(raw_name.decode("latin-1"), []).append(raw_value.decode("latin-1"))
    event: dict[str, Any] = {
        "requestContext": {"elb": {"targetGroupArn": target_group}},
        "httpMethod": request.method,
        "path": request.path.decode("latin-1"),
    }
    if multi_value:
        event["multiValueQueryStringParameters"] = query
        event["multiValueHeaders"] = headers
    else:
        event["queryStringParameters"] = {name: values[-1] for name, values in query.items()}
        event["headers"] = {name: values[-1] for name, values in headers.items()}
    text: str | None = ""
    if request.body:
        is_text = "content-encoding" not in headers and _is_text_type(headers.get("content-type", [""])[-1])
        text = text_of(request.body) if is_text else None
    event["body"] = b64encode(request.body).decode("ascii") if text is None else text
    event["isBase64Encoded"] = text is None
    return orjson.dumps(event)


def _add_forwarded(headers: dict[str, list[str]], request: HttpRequest, *, trace_id: str) -> None:
    """Add what a load balancer adds; the sender's address goes behind those that were sent."""
    hops = [hop for hop in headers.get("x-forwarded-for", []) if hop]
    if request.source_ip and hops[-1:] != [request.source_ip]:
        hops.append(request.source_ip)
    if hops:
        headers["x-forwarded-for"] = [", ".join(hops)]
    host = headers.get("host", [""])[-1]
    port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else ""
    headers.setdefault("x-forwarded-port", [port or _PORTS.get(request.scheme, "80")])
    headers.setdefault("x-forwarded-proto", [request.scheme])
    headers.setdefault("x-amzn-trace-id", [trace_id])


@lru_cache(maxsize=256)
def _is_text_type(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in _TEXT_TYPES or media_type.startswith("text/")
