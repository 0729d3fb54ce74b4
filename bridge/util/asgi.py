"""The little of ASGI that our applications share: its types, an answer in one call, and how to give no answer."""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

import orjson

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

HEADER_NAMES: Final = "bridge.header_names"
"""Key of a scope: the names of its `headers` one for one in the case they were sent in; our own server's gift."""
JSON_TYPE: Final = (b"content-type", b"application/json")
CLOSE: Final = (b"connection", b"close")
BODYLESS: Final = frozenset({204, 304})
"""Statuses whose answers have neither body nor content-length."""


class ConnectionAbandoned(Exception):
    """Raised by an application that can honestly say neither yes nor no: the connection closes without an answer."""


class BodyTooLarge(Exception):
    """The request's body is larger than its route allows."""


class ClientGone(Exception):
    """The client left, or was cut off, before its request was whole: there is nobody to answer."""


def error_line(text: str, **more: str) -> bytes:
    """Return the one JSON line that a refusal answers: `{"error": text}` and `more`."""
    return orjson.dumps({"error": text, **more}, option=orjson.OPT_APPEND_NEWLINE)


class Shortcut(ABC):
    """What our own server offers beside `receive` and `send`, whose owner it is, to applications in a hurry."""

    __slots__ = ()

    @abstractmethod
    def whole_body(self) -> bytes | None:
        """Return the body if all of it has arrived, else None: then `receive`."""

    @property
    @abstractmethod
    def is_blocked(self) -> bool:
        """The client does not read what it was sent: `send`, which waits for it, then, and not `answer`."""

    @abstractmethod
    def answer(self, status: int, block: bytes, body: bytes, *, close: bool) -> None:
        """Send a whole answer: `block` is header lines, each with its CRLF, without content-length and connection."""


_JSON_ONLY: Final = (JSON_TYPE,)
_JSON_BLOCK: Final = b"content-type: application/json\r\n"
_HEADER_BLOCK = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\x00-\x08\x0a-\x1f\x7f]*\r\n)*")


def header_block(headers: Headers) -> bytes:
    """Return headers as lines.

    Raises:
        ValueError: a name or a value would break the lines.
    """
    lines = [b"%b: %b\r\n" % header for header in headers]
    return _checked(b"".join(lines), len(lines))


def text_block(headers: Mapping[str, str]) -> bytes:
    """Return headers that are text as lines; what Latin-1 does not have becomes `?`.

    Raises:
        ValueError: a name or a value would break the lines.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return _checked(text.encode("latin-1", "replace"), len(headers))


def _checked(block: bytes, lines: int) -> bytes:
    if block.count(b"\n") != lines or _HEADER_BLOCK.fullmatch(block) is None:
        raise ValueError("invalid header in an answer")
    return block


async def respond(send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = _JSON_ONLY) -> None:
    """Answer with a whole body; `content-length` is added, so `headers` must not hold it."""
    exchange = getattr(send, "__self__", None)
    if isinstance(exchange, Shortcut) and not exchange.is_blocked:
        if headers is _JSON_ONLY:
            exchange.answer(status, _JSON_BLOCK, body, close=False)
        else:
            block = header_block([header for header in headers if header is not CLOSE])
            exchange.answer(status, block, body, close=CLOSE in headers)
        return
    if status not in BODYLESS:
        headers = (*headers, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive, *, limit: int, headers: Headers = ()) -> bytes:
    """Return the request's body.

    Args:
        receive: the request's.
        limit: bytes.
        headers: the request's; a body that is not there yet and announced as too large is not waited for.

    Raises:
        BodyTooLarge: more than `limit` bytes came, whatever was announced, or are to come.
        ClientGone: the client left, or a deadline passed.
    """
    exchange = getattr(receive, "__self__", None)
    body = exchange.whole_body() if isinstance(exchange, Shortcut) else None
    if body is None:
        if any(name == b"content-length" and int(value) > limit for name, value in headers):
            raise BodyTooLarge
        body = await _receive_all(receive, limit=limit)
    if len(body) > limit:
        raise BodyTooLarge
    return body


async def body_pieces(receive: Receive, *, limit: int) -> AsyncIterator[bytes]:
    """Yield the request's body in pieces, as they come.

    Raises:
        BodyTooLarge: more than `limit` bytes came.
        ClientGone: the client left, or a deadline passed.
    """
    exchange = getattr(receive, "__self__", None)
    if isinstance(exchange, Shortcut) and (body := exchange.whole_body()) is not None:
        if len(body) > limit:
            raise BodyTooLarge
        yield body
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise BodyTooLarge
        yield piece
        more = message.get("more_body", False)


async def _receive_all(receive: Receive, *, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    more = True
    while more and size <= limit:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)
