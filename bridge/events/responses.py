"""What a function returned, as an HTTP answer: the rules of payload format 2.0 and of function URLs.

docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-response-payload. An object with a `statusCode` is a
structured answer; anything else that is JSON is inferred to be the body of a 200. Beyond AWS's rules, hop-by-hop
headers are dropped, and what cannot be sent safely (a line break in a header, a final status below 200) is a 502.
"""

import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bridge.core.invocation import InvocationResult

JSON: Final = b"application/json"
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
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", JSON),)
    """Lower-case names; one `set-cookie` for each cookie."""
    body: bytes = b""


BAD_GATEWAY: Final = HttpResponse(status=502, body=b'{"message":"Internal Server Error"}\n')
"""A function error, an unknown outcome, or an answer that cannot be sent: what AWS says then."""
GATEWAY_TIMEOUT: Final = HttpResponse(status=504, body=b'{"message":"Gateway Timeout"}\n')
"""No answer in time, of a function elsewhere."""


class Malformed(Exception):
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
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, Malformed):  # encode: a body nested too deep to be written
        return BAD_GATEWAY
    if isinstance(value, str):
        return HttpResponse(status=200, body=value.encode("utf-8"))
    return HttpResponse(status=200, body=_compact(payload))


def _structured(value: dict[str, Any]) -> HttpResponse:
    status = status_of(value["statusCode"])
    given = value.get("headers") or {}
    if not isinstance(given, dict):
        raise Malformed
    headers = wire_headers({name.lower(): item for name, item in given.items()}.items(), content_type=JSON)
    cookies = value.get("cookies") or []
    if not isinstance(cookies, list):
        raise Malformed
    headers += [(b"set-cookie", _text(cookie)) for cookie in cookies]
    body = value.get("body")
    if body is None or isinstance(body, str):
        return whole(status, headers, body_bytes(body, encoded=value.get("isBase64Encoded") is True))
    return whole(status, headers, orjson.dumps(body))


def whole(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> HttpResponse:
    """Return the answer, its body left out where its status has none."""
    return HttpResponse(status=status, headers=tuple(headers), body=b"" if status in _BODYLESS else body)


def status_of(value: Any) -> int:
    """Return the status; digits in a string are fine, a 1xx is not (it is no final answer: clients would wait).

    Raises:
        Malformed: no number, or not 200..599.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise Malformed
    return value


def wire_headers(items: Iterable[tuple[str, Any]], *, content_type: bytes) -> list[tuple[bytes, bytes]]:
    """Return headers fit to be sent: hop-by-hop ones and those that are null dropped, a content type for certain.

    Args:
        items: lower-case names with their values: text, numbers or booleans; a name may come more than once.
        content_type: used where none is given.

    Raises:
        Malformed: a name is no token, or a value holds a control character, a line break above all.
    """
    items = list(items)
    dropped = _DROPPED
    for name, value in items:
        if name == "connection" and isinstance(value, str):
            dropped |= {token.strip().lower() for token in value.split(",")}
    headers = []
    for name, value in items:
        if _TOKEN.match(name) is None:
            raise Malformed
        if name not in dropped and value is not None:
            headers.append((name.encode("ascii"), _text(value)))
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", content_type))
    return headers


def _text(value: Any) -> bytes:
    """Return a header value; numbers and booleans as JSON spells them."""
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str) or _CONTROL.search(value) is not None:
        raise Malformed
    return value.encode("utf-8")


def body_bytes(value: Any, *, encoded: bool) -> bytes:
    """Return a body that is text or null as bytes; `encoded`: base64 comes off.

    Raises:
        Malformed: it is neither, or no base64.
    """
    if value is None:
        return b""
    if not isinstance(value, str):
        raise Malformed
    if not encoded:
        return value.encode("utf-8")
    try:
        return b64decode(value, validate=True)
    except ValueError as error:
        raise Malformed from error


def _compact(payload: bytes) -> bytes:
    """Return the JSON without white space between its tokens, every token as the function wrote it."""
    return _COMPACT.sub(rb"\1", payload)
