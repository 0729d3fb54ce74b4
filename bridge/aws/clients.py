"""Clients of AWS that live as long as the daemon: one attempt a call, pools of our size, connections kept alive."""

import asyncio
import contextlib
import importlib
from typing import Any, Final

from bridge.aws.credentials import ConnectionCredentials
from bridge.aws.http import one_attempt
from bridge.core.connection import AwsConnection
from bridge.core.ports import Clock
from bridge.util.clocks import SystemClock

READ_MAX_S: Final = 70.0
"""Default of the longest silence in an answer: above the 20 s of a long poll and the slowest of the services."""
POOL_DEFAULT: Final = 64
_STALE: Final = frozenset({
    "ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidClientTokenId",
    "UnrecognizedClientException", "InvalidAccessKeyId",
})  # fmt: skip
"""Codes after which other credentials may help."""


class AwsClients:
    """aiobotocore's clients, one per service, connection, region and size, made when first asked for.

    aiobotocore is imported with the first of them: a daemon without AWS does not pay for it.

    Args:
        clock: tells when a role's credentials are due.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._exit = contextlib.AsyncExitStack()
        self._clients: dict[tuple[object, ...], Any] = {}
        self._credentials: dict[AwsConnection, ConnectionCredentials] = {}
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
            return known
        async with self._lock:  # whoever comes second finds it made
            if self._is_closed:
                raise RuntimeError("the clients of AWS are closed")
            if (known := self._clients.get(key)) is None:
                known = await self._make(connection, service, region, read_timeout_s, pool)
                self._clients[key] = known
        return known

    async def close(self) -> None:
        """Close every client and its connections; twice is fine."""
        async with self._lock:
            self._is_closed = True
            self._clients.clear()
            await self._exit.aclose()

    async def _make(
        self, connection: AwsConnection, service: str, region: str, read_timeout_s: float, pool: int
    ) -> Any:
        module = await asyncio.to_thread(importlib.import_module, "aiobotocore.session")  # 0.2 s
        credentials = self._credentials.get(connection)
        if credentials is None:
            credentials = self._credentials[connection] = ConnectionCredentials(connection, clock=self._clock)
        session = module.AioSession()
        session.register_component("credential_provider", _Provider(credentials))
        endpoint = connection.endpoint(service)
        client = await self._exit.enter_async_context(
            session.create_client(
                service,
                region_name=region,
                endpoint_url=endpoint or None,
                config=one_attempt(read_timeout_s=read_timeout_s, pool=pool, is_endpoint=bool(endpoint)),
            )
        )

        def called(parsed: Any, **_: Any) -> None:
            if isinstance(parsed, dict) and parsed.get("Error", {}).get("Code") in _STALE:
                credentials.renew()

        client.meta.events.register("after-call", called)
        return client


class _Provider:
    """botocore's resolver of credentials that always finds ours."""

    def __init__(self, credentials: ConnectionCredentials) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> ConnectionCredentials:
        return self._credentials
