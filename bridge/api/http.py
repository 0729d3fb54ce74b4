"""The little of HTTP that the api needs over ASGI: a request, an answer, an NDJSON stream, errors as one JSON line."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

import orjson

from bridge.core import limits
from bridge.util.asgi import BodyTooLarge, Receive, Scope, Send, Shortcut, body_pieces, read_body, text_block

BODY_MAX_BYTES: Final = 1 * limits.MIB
"""Largest body of an admin request; an invocation's payload has its own limit."""
HEARTBEAT_S: Final = 10.0
"""A stream with nothing to say sends an empty line this often, so that either side notices the other's end."""

_FILE_BYTES: Final = 256 * limits.KIB
_LINE: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


class HttpError(Exception):
    """An answer other than success, with the one line that says why."""

    def __init__(self, status: int, text: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})


class Request:
    """One HTTP request: its path decoded, its query as pairs, its headers by lower-case name."""

    __slots__ = ("_body", "_query", "_receive", "headers", "is_operator", "method", "params", "path", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._body: bytes | None = None
        self._query: list[tuple[str, str]] | None = None
        self.method: str = scope["method"]
        self.path = _raw_path(scope)
        self.is_operator = False
        """The admin token was shown for what Lambda's API else asks a key for."""
        self.params: dict[str, str] = {}
        """What the route's `{name}` segments matched, percent-decoded."""
        self.headers: dict[str, list[str]] = {}
        for raw, value in scope["headers"]:
            name = raw.decode("latin-1").lower()
            if name in self.headers:
                self.headers[name].append(value.decode("latin-1"))
            else:
                self.headers[name] = [value.decode("latin-1")]

    def header(self, name: str, default: str = "") -> str:
        """Return the header's value.

        Raises:
            HttpError: it is there more than once.
        """
        values = self.headers.get(name, [])
        if len(values) > 1:
            raise HttpError(400, f"header {name} is given {len(values)} times; give it once")
        return values[0] if values else default

    def query(self) -> list[tuple[str, str]]:
        """Return the query's pairs in order; asked again, the same ones.

        Raises:
            HttpError: not UTF-8, or more pairs than `limits.QUERY_PAIRS_MAX`.
        """
        if self._query is None:
            raw: bytes = self.scope.get("query_string", b"")
            self._query = self._parsed(raw) if raw else []
        return self._query

    @staticmethod
    def _parsed(raw: bytes) -> list[tuple[str, str]]:
        try:
            return parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=limits.QUERY_PAIRS_MAX
            )
        except UnicodeError as error:
            raise HttpError(400, "the query is not UTF-8") from error
        except ValueError as error:
            raise HttpError(400, f"the query has more than {limits.QUERY_PAIRS_MAX} fields") from error

    async def body(self, max_bytes: int = BODY_MAX_BYTES) -> bytes:
        """Return the whole body; asked again, the same one.

        Raises:
            HttpError: 413, above `max_bytes`.
            ClientGone: the client left first.
        """
        if self._body is not None:
            if len(self._body) > max_bytes:
                raise TooLarge(len(self._body), max_bytes)
            return self._body
        declared = self.headers.get("content-length", ["0"])[0]
        if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
            raise TooLarge(int(declared), max_bytes)
        try:
            self._body = await read_body(self._receive, limit=max_bytes)
        except BodyTooLarge as error:
            raise TooLarge(max_bytes + 1, max_bytes) from error
        return self._body

    async def pieces(self, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body as it comes, for one that is too large to be held; `body` must not be asked for then.

        Raises:
            TooLarge: more than `max_bytes` came, or are announced.
            ClientGone: the client left first.
        """
        declared = self.headers.get("content-length", ["0"])[0]
        if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
            raise TooLarge(int(declared), max_bytes)
        try:
            async for piece in body_pieces(self._receive, limit=max_bytes):
                yield piece
        except BodyTooLarge as error:
            raise TooLarge(max_bytes + 1, max_bytes) from error

    async def gone(self) -> None:
        """Return when the client has left. Only once the body has been read (or there is none)."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class TooLarge(HttpError):
    """The body is larger than this path takes."""

    def __init__(self, size: int, max_bytes: int) -> None:
        super().__init__(413, f"the body is larger than {max_bytes} bytes")
        self.size = size


def _raw_path(scope: Scope) -> str:
    raw = scope.get("raw_path")
    if raw is None:
        return str(scope["path"])
    return bytes(raw).partition(b"?")[0].decode("latin-1")


def decode_segment(segment: str) -> str:
    """Percent-decode one path segment.

    Raises:
        HttpError: not UTF-8.
    """
    if "%" not in segment and segment.isascii():
        return segment
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeError as error:
        raise HttpError(400, "the path is not UTF-8") from error


# --- answers --------------------------------------------------------------------------------------------------------
class Answer:
    """A whole response."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = dict(headers or {})

    async def send(self, send: Send, *, head_only: bool = False) -> None:
        """Write it to the client."""
        exchange = getattr(send, "__self__", None)
        if isinstance(exchange, Shortcut) and not exchange.is_blocked:  # it leaves out the body of an answer to HEAD
            headers = self.headers | {"content-type": self.content_type} if self.body else self.headers
            exchange.answer(self.status, text_block(headers), self.body, close=False)
            return
        # 1xx, 204 and 304 have no body and no length (RFC 9110, 8.6)
        framing = {} if self.status in (204, 304) else {"content-length": str(len(self.body))}
        if self.body:
            framing["content-type"] = self.content_type
        await send({"type": "http.response.start", "status": self.status, "headers": _raw(self.headers | framing)})
        await send({"type": "http.response.body", "body": b"" if head_only else self.body})


class FileAnswer(Answer):
    """A file as the whole response, read while it is sent.

    Raises:
        OSError: it cannot be looked at.
    """

    __slots__ = ("_file", "_size")

    def __init__(self, file: Path, *, content_type: str) -> None:
        super().__init__(200, content_type=content_type, headers={"cache-control": "no-store"})
        self._file = file
        self._size = file.stat().st_size

    async def send(self, send: Send, *, head_only: bool = False) -> None:
        """Write it to the client; what is shorter than announced by then closes the connection."""
        framing = {"content-length": str(self._size), "content-type": self.content_type}
        left = 0 if head_only else self._size
        with await asyncio.to_thread(self._file.open, "rb") as file:
            await send({"type": "http.response.start", "status": self.status, "headers": _raw(self.headers | framing)})
            while left and (piece := await asyncio.to_thread(file.read, min(left, _FILE_BYTES))):
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Stream:
    """NDJSON as it happens: one JSON value a line, until the source ends, the client leaves or the api closes."""

    __slots__ = ("items", "status")

    def __init__(self, items: AsyncIterator[object]) -> None:
        self.items = items
        self.status = 200

    async def send(self, request: Request, send: Send, *, closing: asyncio.Event, heartbeat_s: float) -> None:
        """Write lines until one of the three ends comes; the source is closed in any case."""
        headers = {"content-type": "application/x-ndjson", "cache-control": "no-store", "x-accel-buffering": "no"}
        await send({"type": "http.response.start", "status": self.status, "headers": _raw(headers)})
        pump = asyncio.create_task(self._pump(send), name="api-stream")
        ends = [asyncio.create_task(request.gone()), asyncio.create_task(closing.wait())]
        try:
            while True:
                done, _ = await asyncio.wait([pump, *ends], timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    break
                await send({"type": "http.response.body", "body": b"\n", "more_body": True})
        finally:
            for task in (pump, *ends):
                task.cancel()
            results = await asyncio.gather(pump, *ends, return_exceptions=True)
        if ends[0] in done:
            return
        if isinstance(results[0], Exception):
            text = str(results[0]) if isinstance(results[0], HttpError) else "the stream broke off; the log says why"
            await send({"type": "http.response.body", "body": line({"error": text}), "more_body": True})
        elif pump not in done:
            await send({"type": "http.response.body", "body": line({"error": "bridge is stopping"}), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        if isinstance(results[0], Exception) and not isinstance(results[0], HttpError):
            raise results[0]

    async def _pump(self, send: Send) -> None:
        async with aclosing(_closable(self.items)) as items:
            async for item in items:
                await send({"type": "http.response.body", "body": line(item), "more_body": True})


async def _closable(items: AsyncIterator[object]) -> AsyncGenerator[object, None]:
    """An iterator that is closed when this generator is, whatever kind it is."""
    try:
        async for item in items:
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def line(value: object) -> bytes:
    """Return `value` as one line of JSON; lone surrogates (a function's error text may hold some) become `?`."""
    try:
        return orjson.dumps(value, option=_LINE)
    except TypeError:
        return orjson.dumps(_scrubbed(value), option=_LINE)


def _scrubbed(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(item) for item in value]
    return value


def json_answer(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return `value` as an answer of one JSON line."""
    return Answer(status, line(value), headers=headers)


def error_answer(error: HttpError) -> Answer:
    """Return an error as an answer of one JSON line."""
    return json_answer({"error": error.text}, status=error.status, headers=error.headers)


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    pairs: Iterable[tuple[str, str]] = headers.items()
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in pairs]
