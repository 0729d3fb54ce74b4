"""What a function returned, as an HTTP answer: the rules of payload format 2.0 and of function URLs.

docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-response-payload. An object with a `statusCode` is a
structured answer; anything else that is JSON is inferred to be the body of a 200. Beyond AWS's rules, hop-by-hop
headers are dropped, and what cannot be sent safely (a line break in a header, a final status below 200) is a 502.
"""

import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bridge.core.invocation import InvocationResult

_JSON = (b"content-type", b"application/json")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DROPPED = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
    "content-length", "date",
})  # fmt: skip
"""Hop-by-hop headers (RFC 9110, 7.6.1), and those that only the server can know."""
_COMPACT = re.compile(rb'("(?:[^"\\]|\\.)*+")|[ \t\n\r]+', re.DOTALL)
_BODYLESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """An answer ready to be sent; `content-length` is the server's business."""

    status: int
    """200..599"""
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)
    """Lower-case names; one `set-cookie` for each cookie."""
    body: bytes = b""


BAD_GATEWAY: Final = HttpResponse(status=502, body=b'{"message":"Internal Server Error"}\n')
"""A function error, an unknown outcome, or an answer that cannot be sent: what AWS says then."""
GATEWAY_TIMEOUT: Final = HttpResponse(status=504, body=b'{"message":"Gateway Timeout"}\n')
"""No answer in time, of a function elsewhere."""


class _Malformed(Exception):
    """The function's answer cannot be sent."""


def result_response(result: InvocationResult) -> HttpResponse:
    """Return the answer for a finished invocation: 502 unless the handler returned, 504 where nobody knows yet."""
    if result.is_ok:
        return http_response(result.payload)
    return GATEWAY_TIMEOUT if result.is_late else BAD_GATEWAY


def http_response(payload: bytes) -> HttpResponse:
    """Return the answer for what a handler returned (its JSON); 502 when that cannot be sent."""
    try:
        value = orjson.loads(payload)
        if isinstance(value, dict) and "statusCode" in value:
            return _structured(value)
    except (orjson.JSONDecodeError, _Malformed):
        return BAD_GATEWAY
    if isinstance(value, str):
        return HttpResponse(status=200, body=value.encode("utf-8"))
    return HttpResponse(status=200, body=_compact(payload))


def _structured(value: dict[str, Any]) -> HttpResponse:
    status = _status(value["statusCode"])
    headers = _headers(value.get("headers"))
    if not any(name == b"content-type" for name, _ in headers):
        headers.append(_JSON)
    cookies = value.get("cookies") or []
    if not isinstance(cookies, list):
        raise _Malformed
    headers += [(b"set-cookie", _text(cookie)) for cookie in cookies]
    body = _body(value.get("body"), encoded=value.get("isBase64Encoded") is True)
    return HttpResponse(status=status, headers=tuple(headers), body=b"" if status in _BODYLESS else body)


def _status(value: Any) -> int:
    """Return the status; digits in a string are fine, a 1xx is not (it is no final answer: clients would wait)."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise _Malformed
    return value


def _headers(value: Any) -> list[tuple[bytes, bytes]]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise _Malformed
    lowered = {name.lower(): item for name, item in value.items()}
    named = lowered.get("connection")
    dropped = _DROPPED
    if isinstance(named, str):
        dropped |= {token.strip().lower() for token in named.split(",")}
    headers = []
    for name, item in lowered.items():
        if _TOKEN.match(name) is None:
            raise _Malformed
        if name not in dropped and item is not None:
            headers.append((name.encode("ascii"), _text(item)))
    return headers


def _text(value: Any) -> bytes:
    """Return a header value; numbers and booleans as JSON spells them."""
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str) or _CONTROL.search(value) is not None:
        raise _Malformed
    return value.encode("utf-8")


def _body(value: Any, *, encoded: bool) -> bytes:
    if value is None:
        return b""
    if not isinstance(value, str):
        return orjson.dumps(value)
    if not encoded:
        return value.encode("utf-8")
    try:
        return b64decode(value, validate=True)
    except ValueError as error:
        raise _Malformed from error


def _compact(payload: bytes) -> bytes:
    """Return the JSON without white space between its tokens, every token as the function wrote it."""
    return _COMPACT.sub(rb"\1", payload)
