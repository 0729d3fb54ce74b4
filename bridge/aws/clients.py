"""Clients of AWS that live as long as the daemon: one attempt a call, pools of our size, connections kept alive."""

import asyncio
import importlib
from typing import Any, Final

import structlog

from bridge.aws.credentials import ConnectionCredentials
from bridge.aws.http import one_attempt
from bridge.core import limits
from bridge.core.connection import AwsConnection
from bridge.core.ports import Clock
from bridge.util.clocks import SystemClock

log = structlog.get_logger("bridge.aws")

READ_MAX_S: Final = 70.0
"""Default of the longest silence in an answer: above the 20 s of a long poll and the slowest of the services."""
POOL_DEFAULT: Final = 64
LINGER_S: Final = 2 * READ_MAX_S
"""A client that has made room for few others is closed so late: what it was asked last has long ended."""
_STALE: Final = frozenset({
    "ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidClientTokenId",
    "UnrecognizedClientException", "InvalidAccessKeyId",
})  # fmt: skip
"""Codes after which other credentials may help."""


_Key = tuple[AwsConnection, str, str, float, int]
"""Connection, service, region, longest silence, connections."""


class AwsClients:
    """aiobotocore's clients, one per service, connection, region and size, made when first asked for.

    aiobotocore is imported with the first of them: a daemon without AWS does not pay for it. Of those that act as a
    function's role `limits.AWS_ROLE_CLIENTS_MAX` are kept: whoever calls asks for the client before each call. Those
    that have made room stay open for `LINGER_S` seconds, `limits.AWS_ROLE_CLIENTS_LEAVING_MAX` of them at most.

    Args:
        clock: tells when a role's credentials are due.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._clients: dict[_Key, Any] = {}
        """Those of roles in the order of their last use, among the others."""
        self._roles = 0
        self._leaving: dict[asyncio.Task[None], Any] = {}
        """Clients by what closes them, the oldest first."""
        self._credentials: dict[AwsConnection, ConnectionCredentials] = {}
        """In the order in which a client of theirs was made or left last."""
        self._is_closed = False

    async def client(
        self,
        connection: AwsConnection,
        service: str,
        *,
        region: str = "",
        read_timeout_s: float = READ_MAX_S,
        pool: int = POOL_DEFAULT,
    ) -> Any:
        """Return the client of a service; the same one for the same arguments, to everybody who asks.

        Every call on it is one attempt: what fails raises, and `errors.trouble` says what that means. The caller
        puts an `asyncio.timeout` of its own around each call. Credentials are asked for by each call, not here.

        Args:
            connection: where, and as whom; one of an equal value is the same.
            service: boto's name of it, such as `kinesis`.
            region: of the ARN; empty: the connection's.
            read_timeout_s: seconds of silence after which an answer is given up: its outcome is unknown.
            pool: connections at most; a call above waits for one, so at least the caller's concurrency.

        Raises:
            botocore.exceptions.BotoCoreError: no such service, or settings of boto's own that cannot work.
        """
        region = region or connection.region
        key = (connection, service, region, read_timeout_s, pool)
        if (known := self._clients.get(key)) is not None:
            if connection.is_of_function:
                self._clients[key] = self._clients.pop(key)
            return known
        async with self._lock:  # whoever comes second finds it made
            if self._is_closed:
                raise RuntimeError("the clients of AWS are closed")
            if (known := self._clients.get(key)) is None:
                known = await self._make(connection, service, region, read_timeout_s, pool)
                self._clients[key] = known
                if connection.is_of_function:
                    self._roles += 1
                    await self._make_room()
        return known

    async def _make_room(self) -> None:
        """Let the client of a role go that was used longest ago, where there are too many."""
        while self._roles > limits.AWS_ROLE_CLIENTS_MAX:
            key = next(key for key in self._clients if key[0].is_of_function)
            client = self._clients.pop(key)
            self._roles -= 1
            self._credentials_of(key[0])
            self._leave(client, LINGER_S)
            if len(self._leaving) > limits.AWS_ROLE_CLIENTS_LEAVING_MAX:
                oldest = next(iter(self._leaving))
                oldest.cancel()
                await asyncio.wait({self._leave(self._leaving.pop(oldest), 0.0)})
        clients_of = {key[0] for key in self._clients}
        idle = [each for each in self._credentials if each.is_of_function and each not in clients_of]
        for each in idle[: max(len(idle) - limits.AWS_ROLE_CREDENTIALS_MAX, 0)]:
            del self._credentials[each]

    def _leave(self, client: Any, after_s: float) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._close_later(client, after_s), name="aws-client-leaves")
        self._leaving[task] = client
        task.add_done_callback(self._left)
        return task

    def _left(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():  # whoever did that closes the client
            return
        self._leaving.pop(task, None)
        if (error := task.exception()) is not None:
            log.warning("aws_client_not_closed", error=repr(error))

    async def _close_later(self, client: Any, after_s: float) -> None:
        if after_s:
            await self._clock.sleep(after_s)
        await _close(client)

    def _credentials_of(self, connection: AwsConnection) -> ConnectionCredentials:
        found = self._credentials.pop(connection, None) or ConnectionCredentials(connection, clock=self._clock)
        self._credentials[connection] = found
        return found

    async def close(self) -> None:
        """Close every client and its connections; twice is fine."""
        async with self._lock:
            self._is_closed = True
            for task in self._leaving:
                task.cancel()
            await asyncio.gather(*self._leaving, return_exceptions=True)
            clients = [*self._clients.values(), *self._leaving.values()]
            self._clients.clear()
            self._leaving.clear()
            self._roles = 0
            for client in clients:
                await _close(client)

    async def _make(
        self, connection: AwsConnection, service: str, region: str, read_timeout_s: float, pool: int
    ) -> Any:
        module = await asyncio.to_thread(importlib.import_module, "aiobotocore.session")  # 0.2 s
        credentials = self._credentials_of(connection)
        session = module.AioSession()
        session.register_component("credential_provider", _Provider(credentials))
        endpoint = connection.endpoint(service)
        client = await session.create_client(
            service,
            region_name=region,
            endpoint_url=endpoint or None,
            config=one_attempt(read_timeout_s=read_timeout_s, pool=pool, is_endpoint=bool(endpoint)),
        ).__aenter__()

        def called(parsed: Any, **_: Any) -> None:
            if isinstance(parsed, dict) and parsed.get("Error", {}).get("Code") in _STALE:
                credentials.renew()

        client.meta.events.register("after-call", called)
        return client


async def _close(client: Any) -> None:
    await client.__aexit__(None, None, None)


class _Provider:
    """botocore's resolver of credentials that always finds ours."""

    def __init__(self, credentials: ConnectionCredentials) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> ConnectionCredentials:
        return self._credentials
