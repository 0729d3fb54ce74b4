"""One request and its answer over ASGI, and what the connections of one listener share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from bridge.util import telemetry
from bridge.util.asgi import BODYLESS, ConnectionAbandoned, Headers, Shortcut, error_line, header_block

log = structlog.get_logger("bridge.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    """What one listener accepts. Times in seconds, sizes in bytes."""

    header_s: float = 5.0
    """From a request's first byte to the end of its head; also from connecting to the first byte."""
    request_s: float = 10.0
    """From a request's first byte to its last; also how long a client may leave an answer unread."""
    keepalive_s: float = 5.0
    """Idle time between two requests of a connection."""
    connections_max: int = 1024
    header_max_bytes: int = 8190
    """One header, name and value; also the whole request target."""
    headers_max: int = 128
    path_max_bytes: int = 4096


@dataclass(slots=True, kw_only=True)
class Hub:
    """What the connections of one listener share."""

    name: str
    limits: ListenerLimits
    config: Config
    loop: asyncio.AbstractEventLoop
    state: ServerState = field(default_factory=ServerState)
    date: bytes = b""
    """The Date header line of this second."""
    draining: bool = False
    empty: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever the last connection has gone."""
    statuses: dict[int, Any] = field(default_factory=dict)

    def count(self, status: int) -> None:
        """Count one answer."""
        counter = self.statuses.get(status)
        if counter is None:
            counter = self.statuses[status] = telemetry.HTTP_REQUESTS.labels(listener=self.name, status=str(status))
        counter.inc()


class Exchange(RequestResponseCycle, Shortcut):
    """One request and its answer: uvicorn's cycle, with a head that leaves together with a body known beforehand."""

    def __init__(
        self, connection: HttpToolsProtocol, *, hub: Hub, keep_alive: bool, linger: Callable[[], None]
    ) -> None:
        super().__init__(
            scope=connection.scope,
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=connection.expect_100_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )
        self._hub = hub
        self._linger = linger
        self._head = b""
        self._bodyless = False

    def disconnect(self) -> None:
        """Let the application see that there is nobody to answer."""
        self.disconnected = True
        self.message_event.set()

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Run the application to its end; whatever it does, the client gets one answer or none, never half of two."""
        try:
            await app(self.scope, self.receive, self.send)
        except ConnectionAbandoned:
            self.transport.close()
        except asyncio.CancelledError:
            self.transport.close()
            raise
        except Exception:  # the task boundary: an application's fault must not end the connection's task unseen
            log.exception("request_failed", listener=self._hub.name)
            self._fail()
        else:
            if not self.response_complete and not self.disconnected:
                log.error("request_unanswered", listener=self._hub.name)
                self._fail()

    def _fail(self) -> None:
        if self.disconnected:
            return
        if self.response_started:
            self.transport.abort()
            return
        self.answer(500, b"content-type: application/json\r\n", error_line("internal error"), close=True)

    def whole_body(self) -> bytes | None:
        """See `Shortcut`."""
        if self.more_body or self.disconnected:
            return None
        body = bytes(self.body)
        self.body.clear()
        self.message_event.clear()
        return body

    def answer(self, status: int, block: bytes, body: bytes, *, close: bool) -> None:
        """See `Shortcut`."""
        if self.disconnected:
            return
        assert not self.response_started, "answered twice"
        self.response_started = True
        if close or self.more_body:
            self.keep_alive = False
        length = b"" if status in BODYLESS else b"content-length: %d\r\n" % len(body)
        tail = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        if self.scope["method"] == "HEAD" or status in BODYLESS:
            body = b""
        self.transport.write(b"".join((STATUS_LINE[status], self._hub.date, block, length, tail, body)))
        self._hub.count(status)
        self._complete()

    async def send(self, message: ASGISendEvent) -> None:
        """Take an ASGI message (spec 2.3)."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._write(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"Unexpected ASGI message {message['type']!r}.")

    def _start(self, status: int, headers: Headers) -> None:
        if self.more_body:
            self.keep_alive = False  # the rest of the request is not read
        lines = []
        for name, value in headers:
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            lines.append((name, value))
        block = header_block(lines)
        self._bodyless = status in BODYLESS or self.scope["method"] == "HEAD"
        tail = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        if self.chunked_encoding is None:
            self.chunked_encoding = True
            if not self._bodyless:
                tail = b"transfer-encoding: chunked\r\n" + tail
        head = b"".join((STATUS_LINE[status], self._hub.date, block, tail))
        self._hub.count(status)
        if self.chunked_encoding and not self._bodyless:
            self.transport.write(head)  # a stream: its first piece may be long in coming
        else:
            self._head = head

    def _write(self, body: bytes, *, more: bool) -> None:
        head, self._head = self._head, b""
        if self._bodyless:
            body = b""
            self.expected_content_length = 0
        elif self.chunked_encoding:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("the answer's length is not its Content-Length")
        if head or body:
            self.transport.write(head + body)
        if more:
            return
        self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if self.more_body:
            self._linger()
        elif not self.keep_alive:
            self.transport.close()
        self.on_response()
