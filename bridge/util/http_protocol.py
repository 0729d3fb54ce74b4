"""One HTTP/1.1 connection over httptools, with limits, deadlines and refusals in one JSON line.

A deadline for the head and for the whole request, limits on head, target and pipelining, the Host rule, trailers
that stay out of the headers, offers to upgrade that are declined without losing the body, an answer that survives an
unread body (lingering close), and a way to give no answer at all.
There are no timers per connection or request: the listener calls `check` on every open connection a few times a second.
"""

import asyncio
import re
import sys
from collections import deque
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import httptools

from bridge.util import telemetry
from bridge.util.asgi import HEADER_NAMES, Scope, error_line
from bridge.util.http_exchange import STATUS_LINE, Exchange, Flow, Hub

HEAD_MAX_BYTES: Final = 65_536
"""Request target and all headers together."""
QUIET_MAX_BYTES: Final = 2 * HEAD_MAX_BYTES
"""What may arrive without completing a head or carrying body (chunk extensions, trailers)."""
_HEAD_TOO_LARGE: Final = f"the request's head is larger than {HEAD_MAX_BYTES} bytes"
BODY_BUFFERED_BYTES: Final = 65_536
"""No more is read from the client while the application has this much of a body to take."""
PIPELINED_MAX: Final = 16
"""Requests of one connection that may wait behind the one being answered."""
REFUSED_OPEN_MAX: Final = 64
"""Connections over the limit that are told so; any more are cut without a word."""
LINGER_S: Final = 1.0
"""After a refusal the rest of the request is read and thrown away this long: a reset would lose the answer."""
DRAIN_LINGER_S: Final = 0.25
"""The same while the listener closes: nobody holds up its end."""

# What a connection reads at the moment; plain integers, compared on every read.
IDLE, HEAD, BODY, COMPLETE, DISCARD, LINGER = range(6)

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?\Z")
_UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class _Stop(Exception):
    """Leaves the parser from within one of its callbacks; the refusal waits in the connection."""


class Connection(asyncio.Protocol):
    """See the module. `check(now)` is to be called several times per shortest deadline."""

    transport: asyncio.Transport
    flow: Flow

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.loop = hub.loop
        self._parser = _parser(self)
        self._server: tuple[str, int] | None = None
        self._client: tuple[str, int] | None = None
        self._scheme = "http"
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._names: list[bytes] = []
        """Of `_headers`, as they were sent."""
        self._expects_continue = False
        self._pipeline: deque[Exchange] = deque()
        self._limits = hub.limits
        self._phase = IDLE
        self._since = hub.loop.time()
        self._served = False
        self._progress = 0
        self._quiet_bytes = 0
        self._chunk_bytes = 0
        self._fed_bytes = 0
        """At least what the head being read has taken."""
        self._reading: Exchange | None = None
        self._active: Exchange | None = None
        self._ready: Exchange | None = None
        """The active one, until what arrived with it has been parsed too."""
        self._stopped: tuple[int, str] | None = None
        self._pending: tuple[int, str] | None = None
        self._declining = False
        self._blocked_at: float | None = None
        self._closing_at: float | None = None

    # --- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection in, or say that there are too many."""
        self.transport = transport
        self.flow = Flow(transport)
        self._server = _address(transport, "sockname")
        self._client = _address(transport, "peername")
        self._scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        self.hub.connections.add(self)
        self.hub.empty.clear()
        telemetry.HTTP_CONNECTIONS.labels(listener=self.hub.name).inc()
        over = len(self.hub.connections) - self._limits.connections_max
        if over > REFUSED_OPEN_MAX or self.hub.draining:
            transport.abort()
        elif over > 0:
            self._write_refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out; whoever still works for it sees a disconnect."""
        telemetry.HTTP_CONNECTIONS.labels(listener=self.hub.name).dec()
        self._phase = DISCARD
        self.hub.connections.discard(self)
        self._pipeline.clear()
        for exchange in (self._active, self._reading):
            if exchange is not None and not exchange.response_complete:
                exchange.disconnect()
        self.flow.resume_writing()  # who waits for it sees that nobody reads
        if exc is None:
            self.transport.close()
        self._active = self._reading = self._ready = None  # they refer to us
        self._parser = None
        if not self.hub.connections:
            self.hub.empty.set()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what cannot be parsed or is too large."""
        if self._phase >= DISCARD:
            return
        self._parse(data)
        ready, self._ready = self._ready, None
        if ready is not None:
            self._start(ready, eagerly=True)

    def _parse(self, data: bytes) -> None:
        progress = self._progress
        self._chunk_bytes = len(data)
        self._fed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(*(self._stopped or _parse_refusal(error)))
            return
        if self._progress == progress and self._phase != COMPLETE:
            self._quiet_bytes += len(data)
        elif self._phase != HEAD:
            self._quiet_bytes = 0
        if self._quiet_bytes > QUIET_MAX_BYTES:
            self._refuse(431, _HEAD_TOO_LARGE)

    def eof_received(self) -> bool:
        """Answer a client that has closed its sending half after a whole request, then close; else close now.

        A stream is not kept open so: whoever follows one and leaves is let go at once.
        """
        exchange = self._active
        if self._phase != COMPLETE or exchange is None or exchange.response_started or self._scheme == "https":
            return False
        exchange.keep_alive = False
        return True

    def pause_writing(self) -> None:
        """Remember since when the client has not read."""
        self.flow.pause_writing()
        self._blocked_at = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.flow.resume_writing()
        self._blocked_at = None

    def check(self, now: float) -> None:
        """Enforce the deadlines that have passed by `now` (the loop's time)."""
        limits = self._limits
        if self.transport.is_closing():
            self._closing_at = self._closing_at or now
            if now - self._closing_at > limits.request_s:
                self.transport.abort()
            return
        if self._blocked_at is not None and now - self._blocked_at > limits.request_s:
            self.transport.abort()
            return
        phase, waited = self._phase, now - self._since
        if phase == IDLE:
            if waited > (limits.keepalive_s if self._served else limits.header_s):
                self.transport.close()
        elif phase == LINGER:
            if waited > (DRAIN_LINGER_S if self.hub.draining else LINGER_S):
                self.transport.abort()
        elif self.flow.read_paused:
            pass  # it is we who do not read
        elif phase == HEAD and waited > limits.header_s:
            self._refuse(408, f"the request's head took longer than {limits.header_s:g} s")
        elif phase == BODY and waited > limits.request_s:
            self._refuse(408, f"the request took longer than {limits.request_s:g} s")

    def shutdown(self) -> None:
        """Close when idle, else after the answer under way; a request that is not whole is refused, however slow it is.

        Nothing of it was accepted: its sender may send it again.
        """
        if self._phase == IDLE:
            self.transport.close()
        for exchange in (self._active, self._reading):
            if exchange is not None:
                exchange.keep_alive = False
        if self._phase in (HEAD, BODY):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the daemon is stopping; nothing was stored, try again later")

    # --- parser callbacks --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start the request's deadlines."""
        self._url = b""
        self._headers = []
        self._names = []
        self._expects_continue = False
        self._progress += 1
        self._quiet_bytes = self._chunk_bytes if self._phase == IDLE else 0
        self._phase = HEAD
        self._since = self.loop.time()
        self._fed_bytes = self._chunk_bytes
        if len(self._pipeline) >= PIPELINED_MAX:
            self._stop(503, f"more than {PIPELINED_MAX} pipelined requests; send fewer at a time")

    def on_url(self, url: bytes) -> None:
        """Collect the request target."""
        self._url += url
        if len(self._url) > self._limits.header_max_bytes:
            self._stop(414, f"the request target is longer than {self._limits.header_max_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers are dropped (a signature's header must not come after the body)."""
        if self._phase == HEAD:
            self._headers.append((name.lower(), value))
            self._names.append(name)

    def on_headers_complete(self) -> None:
        """Check the head and hand the request to the application, or queue it behind the one being answered."""
        self._progress += 1
        version = self._parser.get_http_version()
        method = self._parser.get_method().decode("ascii")
        if version not in ("1.1", "1.0"):
            self._stop(505, "HTTP/1.1 is spoken here")
        if method == "CONNECT":
            self._stop(501, "CONNECT is not offered")
        self._check_headers(version)
        if self._parser.should_upgrade():
            self._declining = True
            return
        scope = self._scope(method, version)
        self._phase = BODY
        exchange = self._reading = Exchange(
            scope,
            transport=self.transport,
            flow=self.flow,
            hub=self.hub,
            keep_alive=version != "1.0" and self._parser.should_keep_alive() and not self.hub.draining,
            expects_continue=self._expects_continue,
            linger=self.linger,
            on_response=self.on_response_complete,
        )
        if self._active is None and not self._pipeline:
            self._active = self._ready = exchange
        else:
            self.flow.pause_reading()
            self._pipeline.append(exchange)

    def _scope(self, method: str, version: str) -> Scope:
        path, query = self._split_target()
        text = path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "root_path": "",
            "headers": self._headers,
            HEADER_NAMES: self._names,
            "method": method,
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
        }

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body over."""
        self._progress += 1
        exchange = self._reading
        if exchange is None or exchange.response_complete:
            return
        exchange.body += body
        if len(exchange.body) > BODY_BUFFERED_BYTES:
            self.flow.pause_reading()
        exchange.news()

    def on_message_complete(self) -> None:
        """The request is whole: from here on no deadline of ours ends it."""
        if self._declining:
            return
        self._progress += 1
        self._phase = COMPLETE
        exchange, self._reading = self._reading, None
        if exchange is not None:
            exchange.more_body = False
            exchange.news()

    def _check_headers(self, version: str) -> None:
        limits = self._limits
        headers = self._headers
        if len(headers) > limits.headers_max:
            self._stop(431, f"more than {limits.headers_max} headers")
        if self._fed_bytes > limits.header_max_bytes:  # else none can be too large
            sizes = [len(name) + len(value) for name, value in headers]
            if max(sizes, default=0) > limits.header_max_bytes:
                self._stop(431, f"a header is larger than {limits.header_max_bytes} bytes")
            if sum(sizes) + len(self._url) > HEAD_MAX_BYTES:
                self._stop(431, _HEAD_TOO_LARGE)
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
                if _HOST.match(value) is None:
                    self._stop(400, "the Host header is not a host")
            elif name == b"expect" and value.lower() == b"100-continue":
                self._expects_continue = True
        if hosts > 1:
            self._stop(400, "more than one Host header")
        if not hosts and version == "1.1":
            self._stop(400, "the Host header is missing")

    def _split_target(self) -> tuple[bytes, bytes]:
        try:
            url = httptools.parse_url(self._url)
        except httptools.HttpParserInvalidURLError:
            self._stop(400, "the request target is not a URL")
        path: bytes = url.path or b"/"
        if len(path) > self._limits.path_max_bytes:
            self._stop(414, f"the path is longer than {self._limits.path_max_bytes} bytes")
        if not path.isascii():
            self._stop(400, "the path is not ASCII; percent-encode it")
        return path, url.query or b""

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read a request that offers to upgrade (h2c, WebSocket) as if it had not: its body must not be lost."""
        lines = [self._parser.get_method(), b" ", self._url, b" HTTP/1.1\r\n"]
        for sent, (name, value) in zip(self._names, self._headers, strict=True):
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(t for t in tokens if t.lower() not in (b"upgrade", b"http2-settings"))  # noqa: PLW2901
            if name not in _UPGRADE_HEADERS:
                lines += (sent, b": ", value, b"\r\n")
        self._declining = False
        self._parser = _parser(self)
        self._parse(b"".join([*lines, b"\r\n", rest]))

    # --- answers -----------------------------------------------------------------------------------------------------

    def _start(self, exchange: Exchange, *, eagerly: bool = False) -> None:
        """Run the application; `eagerly` saves a pass of the loop, where Python can (3.12)."""
        hub = self.hub
        self._active = exchange
        if eagerly and sys.version_info >= (3, 12):
            task = asyncio.Task(exchange.run(hub.app), loop=self.loop, eager_start=True)
            if not task.done():
                hub.tasks.add(task)
                exchange.task = task  # it has begun, so it reaches its own end: cheaper than a callback
        else:
            task = self.loop.create_task(exchange.run(hub.app))
            hub.tasks.add(task)
            task.add_done_callback(hub.tasks.discard)

    def on_response_complete(self) -> None:
        """Start the next pipelined request, or wait for one."""
        self._active = None
        self._served = True
        if self.transport.is_closing() or self._phase == LINGER:
            return
        if self._pipeline:
            self._since = self.loop.time()
            self._start(self._pipeline.popleft())
            return
        if self._pending is not None:
            self._write_refusal(*self._pending)
            return
        if self._phase == COMPLETE:
            self._phase = IDLE
            self._since = self.loop.time()
        self.flow.resume_reading()

    def _stop(self, status: int, text: str) -> NoReturn:
        self._stopped = (status, text)
        raise _Stop

    def _refuse(self, status: int, text: str) -> None:
        """Refuse the request being read, after the answers that come before its own."""
        exchange, self._reading = self._reading, None
        if exchange is not None and exchange is self._active:
            if exchange.response_started:
                self.transport.abort()
                return
            exchange.disconnect()
            self._active = self._ready = None
        elif exchange is not None:
            self._pipeline = deque(entry for entry in self._pipeline if entry is not exchange)
        self._phase = DISCARD
        if self._active is None:
            self._write_refusal(status, text)
        else:
            self._pending = (status, text)

    def _write_refusal(self, status: int, text: str) -> None:
        body = error_line(text)
        retry = b"retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else b""
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
        self.transport.write(b"".join((STATUS_LINE[status], self.hub.date, head, retry, b"\r\n", body)))
        self.hub.count(status)
        self.linger()

    def linger(self) -> None:
        """Say no more, and throw away what still comes, for at most `LINGER_S`."""
        self._phase = LINGER
        self._since = self.loop.time()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()


def _parser(connection: Connection) -> Any:
    parser = httptools.HttpRequestParser(connection)
    # Pipelined requests go on while the first one's answer says `connection: close`.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    """Return host and port of one end; None for one that has gone, or has none."""
    found = transport.get_extra_info(name)
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) and len(found) >= 2 else None


def _parse_refusal(error: httptools.HttpParserError) -> tuple[int, str]:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return 501, "unknown method"
    if isinstance(error, httptools.HttpParserInvalidURLError):
        return 400, "the request target is not a URL"
    # The parser's own words, which hold nothing of what was sent; an error of a callback has a longer story.
    why = str(error.args[0]) if error.args and error.__context__ is None else ""
    return 400, f"the request is not HTTP/1.1: {why}" if why else "the request is not HTTP/1.1"
