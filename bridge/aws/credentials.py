"""Who we are towards AWS: explicit keys, boto's chain or a role of STS; asked again when stale, never stuck."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import structlog

from bridge.aws.http import one_attempt
from bridge.core.connection import AwsConnection
from bridge.core.errors import BridgeError
from bridge.core.ports import Clock

log = structlog.get_logger("bridge.aws")

REFRESH_AHEAD_S: Final = 300.0
"""A role's credentials are renewed so long before they expire, or at half their life where that is shorter."""
ASK_AGAIN_S: Final = 5.0
"""Credentials that could not be had, or that AWS refused, are asked for again after so long at the earliest."""
STS_MAX_S: Final = 20.0


class CredentialsMissing(BridgeError):
    """There are no AWS credentials to be had: nothing was sent."""


class FrozenCredentials(NamedTuple):
    """What a request is signed with; the names are botocore's."""

    access_key: str
    secret_key: str
    token: str | None = None
    account_id: str | None = None

    def __repr__(self) -> str:
        return f"FrozenCredentials({self.access_key!r})"


class ConnectionCredentials:
    """The credentials of one connection, as botocore's signer asks for them: before every request.

    botocore asks its chain once, when a client is made, and a client made in a bad minute stays without credentials
    for ever (aio-libs/aiobotocore#738, #1006). Here the chain is asked when they are needed.

    Args:
        connection: where they come from.
        clock: tells when a role's are due.
        ahead_s: a role's are renewed so long before they expire, or at half their life where that is shorter.
    """

    method = "bridge"
    """botocore's word of where credentials come from."""
    account_id = None

    def __init__(self, connection: AwsConnection, *, clock: Clock, ahead_s: float = REFRESH_AHEAD_S) -> None:
        self._connection = connection
        self._clock = clock
        self._ahead_s = ahead_s
        self._lock = asyncio.Lock()
        self._chain: Any = None
        """botocore's credentials of the chain, which renew themselves; None: to be asked for."""
        self._role: FrozenCredentials | None = None
        self._role_due_at = 0.0
        self._role_ends_at = 0.0
        self._failure = ""
        self._failed_at = float("-inf")
        self._renewed_at = float("-inf")

    async def get_frozen_credentials(self) -> FrozenCredentials:
        """Return what the next request is signed with.

        Raises:
            CredentialsMissing: none are to be had; the text says where they were looked for.
        """
        if not self._connection.role_arn:
            return await self._base()
        now = self._clock.stepped()
        if self._role is not None and (now < self._role_due_at or (self._lock.locked() and now < self._role_ends_at)):
            return self._role
        async with self._lock:
            now = self._clock.stepped()
            if self._role is None or now >= self._role_due_at:
                await self._renew_role(now)
            assert self._role is not None
            return self._role

    @property
    def role_due_at(self) -> float:
        """From when on a role's credentials are renewed, epoch seconds."""
        return self._role_due_at

    async def get_account_id(self) -> None:
        """Return the account for endpoints that have it in their name: none."""

    def get_deferred_property(self, name: str) -> Callable[[], Any]:
        """Return what gives a property of the credentials when it is needed (botocore asks for `account_id`)."""
        return lambda: getattr(self, name, None)

    def renew(self) -> None:
        """AWS called the credentials expired or unknown: ask for others with the next request, at most every 5 s."""
        now = self._clock.monotonic()
        if now - self._renewed_at >= ASK_AGAIN_S:
            self._renewed_at = now
            self._chain = None
            self._role = None
            self._failed_at = float("-inf")

    async def _base(self) -> FrozenCredentials:
        connection = self._connection
        if connection.access_key_id:
            token = connection.session_token or None
            return FrozenCredentials(connection.access_key_id, connection.secret_access_key, token)
        if self._chain is None:
            self._refuse_while_missing()
            self._chain = await self._ask_chain()
        try:
            frozen = await self._chain.get_frozen_credentials()
        except Exception as error:
            self._chain = None
            raise self._missing(error) from error
        return FrozenCredentials(frozen.access_key, frozen.secret_key, frozen.token)

    async def _ask_chain(self) -> Any:
        from aiobotocore.session import AioSession

        try:
            found = await AioSession(profile=self._connection.profile or None).get_credentials()
        except Exception as error:
            raise self._missing(error) from error
        if found is None:
            raise self._missing(None)
        return found

    async def _renew_role(self, now: float) -> None:
        try:
            self._refuse_while_missing()
            async with asyncio.timeout(STS_MAX_S):
                answer = (await self._assume_role())["Credentials"]
        except Exception as error:
            if self._role is not None and now < self._role_ends_at:
                self._role_due_at = min(now + ASK_AGAIN_S, self._role_ends_at)
                log.warning("aws_role_not_renewed", connection=self._connection.name, error=_line(error))
                return
            if isinstance(error, CredentialsMissing):
                raise
            raise self._missing(error) from error
        self._role = FrozenCredentials(answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"])
        self._role_ends_at = answer["Expiration"].timestamp()
        life_s = max(self._role_ends_at - now, 0.0)
        self._role_due_at = self._role_ends_at - min(self._ahead_s, life_s / 2)

    async def _assume_role(self) -> Any:
        from aiobotocore.session import AioSession

        connection = self._connection
        base = await self._base()
        more = {"ExternalId": connection.external_id} if connection.external_id else {}
        async with AioSession().create_client(
            "sts",
            region_name=connection.region,
            endpoint_url=connection.endpoint("sts") or None,
            aws_access_key_id=base.access_key,
            aws_secret_access_key=base.secret_key,
            aws_session_token=base.token,
            config=one_attempt(read_timeout_s=STS_MAX_S, pool=1, is_endpoint=bool(connection.endpoint("sts"))),
        ) as sts:
            return await sts.assume_role(RoleArn=connection.role_arn, RoleSessionName=connection.session_name, **more)

    def _refuse_while_missing(self) -> None:
        """Raise the last failure again while it is fresh: asking a machine that has no metadata takes seconds."""
        if self._clock.monotonic() - self._failed_at < ASK_AGAIN_S:
            raise CredentialsMissing(self._failure)

    def _missing(self, error: Exception | None) -> CredentialsMissing:
        connection = self._connection
        where = f"connections.{connection.name}" if connection.name else f"region {connection.region}"
        if connection.role_arn:
            self._failure = f"no AWS credentials for {where}: role {connection.role_arn} not assumed"
        elif connection.profile:
            self._failure = f"no AWS credentials for {where}: profile {connection.profile} gives none"
        else:
            self._failure = (
                f"no AWS credentials for {where}: write access_key_id and secret_access_key, or a profile, "
                "or set boto's environment, files or role of the machine"
            )
        if error is not None:
            self._failure += f": {_line(error)}"
        self._failed_at = self._clock.monotonic()
        return CredentialsMissing(self._failure)


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:500]
