"""One request and its answer over ASGI, and what the connections of one listener share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog

from bridge.util import telemetry
from bridge.util.asgi import (
    BODYLESS,
    Application,
    ConnectionAbandoned,
    Headers,
    Message,
    Scope,
    Shortcut,
    error_line,
    header_block,
)

log = structlog.get_logger("bridge.http")


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


STATUS_LINE: Final = {status: _status_line(status) for status in range(100, 600)}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""RFC 9110, 15.2.1"""


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


class Served(Protocol):
    """What the listener needs of a connection."""

    transport: asyncio.Transport

    def check(self, now: float) -> None:
        """Enforce the deadlines that have passed by `now` (the loop's time)."""

    def shutdown(self) -> None:
        """Close when idle, else after the answers under way."""


@dataclass(slots=True, kw_only=True)
class Hub:
    """What the connections of one listener share."""

    name: str
    limits: ListenerLimits
    app: Application
    loop: asyncio.AbstractEventLoop
    connections: set[Served] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Requests under way."""
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


class Flow:
    """Whether a connection's transport may be read from and written to."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = asyncio.Event()
        self.read_paused = False
        self.write_paused = False

    async def drain(self) -> None:
        """Wait until the client has read enough."""
        if self.write_paused:
            await self._writable.wait()

    def pause_reading(self) -> None:
        """Read no more; twice is fine."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again; twice is fine."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The transport holds more than it should."""
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """The transport takes more, or nobody is left to write to."""
        self.write_paused = False
        self._writable.set()


class Exchange(Shortcut):
    """One request and its answer; a head leaves together with a body known beforehand.

    Args:
        scope: the ASGI scope.
        transport: where the answer goes.
        flow: of that transport.
        hub: what the listener's connections share.
        keep_alive: the connection outlives the answer.
        expects_continue: the client waits for a 100 before it sends the body.
        linger: called in the place of closing when the request's rest was not read.
        on_response: called when the answer is complete.
    """

    __slots__ = (
        "_bodyless",
        "_chunked",
        "_event",
        "_expects_continue",
        "_has_news",
        "_head",
        "_hub",
        "_length_left",
        "_linger",
        "_on_response",
        "body",
        "disconnected",
        "flow",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
        "task",
        "transport",
    )

    def __init__(
        self,
        scope: Scope,
        *,
        transport: asyncio.Transport,
        flow: Flow,
        hub: Hub,
        keep_alive: bool,
        expects_continue: bool,
        linger: Callable[[], None],
        on_response: Callable[[], None],
    ) -> None:
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.keep_alive = keep_alive
        self.disconnected = False
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.task: asyncio.Task[None] | None = None
        """What runs it, where it is to leave the hub's tasks by itself."""
        self._expects_continue = expects_continue
        self._hub = hub
        self._linger = linger
        self._on_response = on_response
        self._has_news = False
        """Something that `receive` has not told yet."""
        self._event: asyncio.Event | None = None
        self._head = b""
        self._bodyless = False
        self._chunked: bool | None = None
        self._length_left = 0

    def news(self) -> None:
        """Let `receive` return: more body, its end, or nobody left to answer."""
        self._has_news = True
        if self._event is not None:
            self._event.set()

    def disconnect(self) -> None:
        """Let the application see that there is nobody to answer."""
        self.disconnected = True
        self.news()

    async def run(self, app: Application) -> None:
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
        finally:
            if self.task is not None:
                self._hub.tasks.discard(self.task)
                self.task = None

    async def receive(self) -> Message:
        """Return the next ASGI message (spec 2.3)."""
        if self._expects_continue and not self.transport.is_closing():
            self._expects_continue = False
            self.transport.write(_CONTINUE)
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            if not self._has_news:
                if self._event is None:
                    self._event = asyncio.Event()
                await self._event.wait()
            self._forget_news()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body = bytes(self.body)
        self.body.clear()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def _forget_news(self) -> None:
        self._has_news = False
        if self._event is not None:
            self._event.clear()

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
        self._forget_news()
        return body

    @property
    def is_blocked(self) -> bool:
        """See `Shortcut`."""
        return self.flow.write_paused

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

    async def send(self, message: Message) -> None:
        """Take an ASGI message (spec 2.3)."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self._expects_continue = False
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
                self._length_left = int(value)
                self._chunked = False
            elif name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            lines.append((name, value))
        block = header_block(lines)
        self._bodyless = status in BODYLESS or self.scope["method"] == "HEAD"
        tail = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        if self._chunked is None:
            self._chunked = True
            if not self._bodyless:
                tail = b"transfer-encoding: chunked\r\n" + tail
        head = b"".join((STATUS_LINE[status], self._hub.date, block, tail))
        self._hub.count(status)
        if self._chunked and not self._bodyless:
            self.transport.write(head)  # a stream: its first piece may be long in coming
        else:
            self._head = head

    def _write(self, body: bytes, *, more: bool) -> None:
        head, self._head = self._head, b""
        if self._bodyless:
            body = b""
            self._length_left = 0
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            self._length_left -= len(body)
            if self._length_left < 0 or (self._length_left and not more):
                raise RuntimeError("the answer's length is not its Content-Length")
        if head or body:
            self.transport.write(head + body)
        if more:
            return
        self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self.news()
        if self.more_body:
            self._linger()
        elif not self.keep_alive:
            self.transport.close()
        self._on_response()
