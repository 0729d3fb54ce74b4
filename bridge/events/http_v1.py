"""An HTTP request as the Lambda event of API Gateway's REST proxy integration (payload format 1.0).

Shape: docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html, and the samples that
the tests reproduce. Members are null rather than absent. Choices where those are silent:

- `resource` and `resourcePath` are the path: a route matches one path whole, without parameters.
- REST hands a body over as text unless its media type is declared binary. So do we; only what is no UTF-8 is base64
  whatever was declared, since REST's own replacement of bytes cannot be undone.
- Header names are in the case they were sent in. Two spellings of one name are one header, by the first.
"""

from base64 import b64encode
from typing import Any, Final

import orjson

from bridge.events.http import (
    HttpOrigin,
    HttpRequest,
    domain_of,
    query_pairs,
    request_time,
    text_of,
    unquoted,
)
from bridge.events.media import MediaTypes

_IDENTITY: Final = dict.fromkeys((
    "accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType",
    "cognitoIdentityId", "cognitoIdentityPoolId", "principalOrgId", "sourceIp", "user", "userAgent", "userArn",
))  # fmt: skip


def rest_event(
    request: HttpRequest, *, origin: HttpOrigin, request_id: str, received_at: float, binary: MediaTypes
) -> bytes:
    """Return the event's JSON, serialised once.

    Args:
        request: the request, whole.
        origin: what all events of the route share.
        request_id: the id the sender gets and the handler sees.
        received_at: wall clock, epoch seconds.
        binary: media types whose bodies are base64.

    Raises:
        TooManyParameters: the query has more than `limits.QUERY_PAIRS_MAX` pairs.
    """
    spelled: dict[str, str] = {}
    """Lower-case name -> name as sent."""
    many: dict[str, list[str]] = {}
    for (raw_name, raw_value), raw_sent in zip(request.headers, request.sent_names or _names(request), strict=True):
        lower = raw_name.decode("latin-1")
        if lower not in origin.hidden_headers:
            name = spelled.setdefault(lower, raw_sent.decode("latin-1"))
            many.setdefault(name, []).append(raw_value.decode("latin-1"))
    last = {name: values[-1] for name, values in many.items()}

    def header(name: str) -> str | None:
        return last[spelled[name]] if name in spelled else None

    query: dict[str, list[str]] = {}
    for raw_name, raw_value in query_pairs(request.query):
        query.setdefault(unquoted(raw_name), []).append(unquoted(raw_value))
    path = request.path.decode("latin-1")
    body = None
    is_base64 = False
    if request.body:
        body = None if binary.hold(header("content-type") or "") else text_of(request.body)
        is_base64 = body is None
        body = b64encode(request.body).decode("ascii") if body is None else body
    event: dict[str, Any] = {
        "resource": path,
        "path": path,
        "httpMethod": request.method,
        "headers": last or None,
        "multiValueHeaders": many or None,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": _context(
            request,
            path=path,
            origin=origin,
            request_id=request_id,
            received_at=received_at,
            domain=domain_of(header("host") or origin.domain_name),
            user_agent=header("user-agent"),
        ),
        "body": body,
        "isBase64Encoded": is_base64,
    }
    return orjson.dumps(event)


def _context(
    request: HttpRequest,
    *,
    path: str,
    origin: HttpOrigin,
    request_id: str,
    received_at: float,
    domain: str,
    user_agent: str | None,
) -> dict[str, Any]:
    return {
        "accountId": origin.account_id,
        "apiId": origin.api_id,
        "domainName": domain,
        "domainPrefix": domain.partition(".")[0],
        "extendedRequestId": request_id,
        "httpMethod": request.method,
        "identity": {**_IDENTITY, "sourceIp": request.source_ip, "userAgent": user_agent},
        "path": path,
        "protocol": "HTTP/" + request.http_version,
        "requestId": request_id,
        "requestTime": request_time(int(received_at)),
        "requestTimeEpoch": round(received_at * 1000),
        "resourceId": origin.api_id,
        "resourcePath": path,
        "stage": origin.stage,
    }


def _names(request: HttpRequest) -> list[bytes]:
    return [name for name, _ in request.headers]
