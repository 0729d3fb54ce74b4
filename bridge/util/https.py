"""One document from one host over HTTPS: no redirect, no proxy, no cookie, within a size and a time."""

import asyncio
import ssl
from functools import cache
from typing import Final
from urllib.parse import urlsplit

import httptools

HEAD_MAX_BYTES: Final = 16 * 1024
"""Status line and headers of an answer."""
_READ_BYTES: Final = 16 * 1024
_PORT: Final = 443
_OK: Final = 200


class FetchFailed(Exception):
    """There is no document; the text is one line."""

    def __init__(self, text: str, *, status: int = 0) -> None:
        super().__init__(text)
        self.status = status
        """What the host answered; 0: nothing that is HTTP."""


async def fetch(url: str, *, body_max_bytes: int, timeout_s: float) -> bytes:
    """Return the body of a 200.

    The host's certificate must be good for its name: that is why the address which the name resolves to is not judged
    (a VPC endpoint's is a private one).

    Args:
        url: `https://HOST/…` on the usual port, of printable ASCII. Whom to ask is the caller's decision, made before.
        body_max_bytes: a longer body is given up.
        timeout_s: for all of it, from resolving the name on.

    Raises:
        FetchFailed: no connection, another status, no HTTP, too large or too slow.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    assert parts.scheme == "https", "the caller pins the host"
    assert host
    assert host == parts.netloc
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    answer = _Answer(body_max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await connect(host, await asyncio.to_thread(_context))
            try:
                writer.write(_request(host, target))
                while not answer.is_complete and (data := await reader.read(_READ_BYTES)):
                    answer.feed(data)
            finally:
                writer.transport.abort()  # nothing more is expected; a polite end could take as long as the peer likes
    except TimeoutError as error:
        raise FetchFailed(f"{host} did not answer within {timeout_s:g} s") from error
    except OSError as error:  # ssl.SSLError is one
        raise FetchFailed(f"{host} cannot be reached: {error.strerror or error}") from error
    except httptools.HttpParserError as error:
        raise FetchFailed(f"{host} answered no HTTP") from error
    return answer.body_of_200(host)


async def connect(host: str, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the usual port; the only place that reaches out."""
    return await asyncio.open_connection(host, _PORT, ssl=context)


def _request(host: str, target: str) -> bytes:
    text = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bridge\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    return text.encode("ascii")


@cache
def _context() -> ssl.SSLContext:
    """Return the one that trusts what the system trusts; reading that takes tens of milliseconds."""
    return ssl.create_default_context()


class _Answer:
    """Gathers an answer, called back by the parser."""

    def __init__(self, body_max_bytes: int) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body_max = body_max_bytes
        self._body = bytearray()
        self._before_body = 0
        self._is_bounded = False
        self._has_head = False
        self.is_complete = False

    def feed(self, data: bytes) -> None:
        self._before_body += 0 if self._has_head else len(data)
        if self._before_body > HEAD_MAX_BYTES + _READ_BYTES:
            raise FetchFailed("the answer's headers are too large")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.is_complete:  # what follows an answer is nobody's
                raise
        if len(self._body) > self._body_max:
            raise FetchFailed(f"the answer is larger than {self._body_max} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        del value
        self._is_bounded |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.is_complete = True

    def body_of_200(self, host: str) -> bytes:
        if not self._has_head or (self._is_bounded and not self.is_complete):
            raise FetchFailed(f"{host} broke its answer off")
        status = self._parser.get_status_code()
        if status != _OK:
            raise FetchFailed(f"{host} answered {status}", status=status)
        return bytes(self._body)
