"""A TCP listener that serves one ASGI application in the running loop, within limits and deadlines."""

import asyncio
import errno
import ssl
from email.utils import formatdate

import structlog

from bridge.util.asgi import Application
from bridge.util.http_exchange import Hub, ListenerLimits
from bridge.util.http_protocol import Connection

__all__ = ["Listener", "ListenerLimits"]

log = structlog.get_logger("bridge.http")

SWEEP_S = 0.25
"""How often deadlines are looked at; less where a limit is shorter than a second."""
BACKLOG = 2048
CANCEL_S = 1.0
"""What cancelled requests may take to end, within `close`."""


class Listener:
    """Binds, serves and drains. Opened and closed once.

    Args:
        app: the ASGI 3 application; lifespan events are not sent.
        name: label in metrics, logs and errors.
        host: address or name to bind.
        port: 0 takes a free one; see `port` once open.
        limits: see `ListenerLimits`.
        tls: paths of certificate chain and key; TLS 1.2 at least.
    """

    def __init__(
        self,
        app: Application,
        *,
        name: str,
        host: str,
        port: int,
        limits: ListenerLimits | None = None,
        tls: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self._app = app
        self._host = host
        self._port = port
        self._limits = limits or ListenerLimits()
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._hub: Hub | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Bind and start to accept.

        Raises:
            OSError: the address cannot be bound, or certificate or key cannot be read; one line says which.
        """
        loop = asyncio.get_running_loop()
        context = self._tls_context()
        hub = Hub(name=self.name, limits=self._limits, app=self._app, loop=loop)
        hub.empty.set()
        try:
            self._server = await loop.create_server(
                lambda: Connection(hub),
                self._host,
                self._port,
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=None if context is None else self._limits.header_s,
            )
        except OSError as error:
            why = "the address is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            raise OSError(f"listener {self.name}: cannot listen on {self._host}:{self._port}: {why}") from error
        self._port = self._server.sockets[0].getsockname()[1]
        self._hub = hub
        limits = self._limits
        interval = min(SWEEP_S, limits.header_s / 4, limits.request_s / 4, limits.keepalive_s / 4)
        self._sweep(hub, interval)
        log.debug("listener_opened", listener=self.name, host=self._host, port=self._port, tls=context is not None)

    @property
    def port(self) -> int:
        """The port bound, once open."""
        return self._port

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._hub.connections) if self._hub is not None else 0

    async def close(self, deadline_s: float = 5.0) -> None:
        """Stop accepting, let requests under way end, cut what is left after `deadline_s`. Twice is fine.

        A request that is cut gets no answer: whether its event was stored is open.
        """
        hub, self._hub = self._hub, None
        if hub is None or self._server is None:
            return
        hub.draining = True
        self._server.close()
        for connection in list(hub.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(deadline_s):
                await hub.empty.wait()
        except TimeoutError:
            log.warning("listener_cut", listener=self.name, connections=len(hub.connections))
        tasks = list(hub.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_S)
        for connection in list(hub.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        log.debug("listener_closed", listener=self.name)

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._tls is None:
            return None
        cert, key = self._tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(cert, key)
        except OSError as error:
            raise OSError(f"listener {self.name}: cannot use certificate {cert} with key {key}: {error}") from error
        return context

    def _sweep(self, hub: Hub, interval: float) -> None:
        """Look at every connection's deadlines; scheduled again first, so that one fault cannot stop it."""
        self._sweeper = hub.loop.call_later(interval, self._sweep, hub, interval)
        hub.date = b"date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        now = hub.loop.time()
        for connection in list(hub.connections):
            connection.check(now)
