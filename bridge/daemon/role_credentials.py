"""The credentials of functions: their execution role's, by STS or minted here; workers are replaced before they end."""

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from bridge.aws.credentials import ConnectionCredentials, CredentialsMissing, FrozenCredentials
from bridge.config.settings import Settings
from bridge.core.arn import parse_arn
from bridge.core.errors import BridgeError, RuntimeUnavailable
from bridge.core.function import FunctionVersion, plain_name
from bridge.core.ports import Clock
from bridge.daemon.aws import AwsReach
from bridge.daemon.roles import Roles
from bridge.registry.minted import RENEWED_AHEAD_S, MintedKeys, due_at
from bridge.registry.roles import NOT_ASSUMED, Role

log = structlog.get_logger("bridge.roles")

LOOK_S: Final = 15.0
"""How often it is looked which workers' credentials are due."""
ASK_AGAIN_S: Final = 300.0
"""How long workers are left alone whose credentials STS does not renew."""


class RoleCredentials:
    """Gives workers the credentials of their function's role, never the daemon's.

    Args:
        settings: later ones go through `configure`.
        roles: finds the roles.
        aws: where STS is reached, by `roles.connection`.
        clock: the daemon's.
        renew: has a function's workers begin no further invocation.
    """

    def __init__(
        self, settings: Settings, *, roles: Roles, aws: AwsReach, clock: Clock, renew: Callable[[str], None]
    ) -> None:
        self._connection = settings.roles.connection
        self._roles = roles
        self._aws = aws
        self._clock = clock
        self._renew = renew
        self._assumed: dict[tuple[str, str], tuple[object, ConnectionCredentials]] = {}
        """By role and function: the connection that they are of, and what STS gives."""
        self._due: dict[str, float] = {}
        """When workers that were started of a function are to be replaced, epoch seconds."""
        self.keys = MintedKeys(clock=clock)
        self.api_url = ""
        """Where Lambda's API is served here; empty: nowhere yet."""

    def configure(self, settings: Settings) -> None:
        """Take a new file: under another connection all workers are given other credentials."""
        if settings.roles.connection != self._connection:
            self._connection = settings.roles.connection
            self._assumed.clear()
            for name in list(self._due):
                self._replace(name)

    async def run(self) -> None:
        """Replace workers whose credentials are due, for ever."""
        while True:
            await self._clock.sleep(LOOK_S)
            now = self._clock.stepped()
            for name in [name for name, at in self._due.items() if now >= at]:
                self._replace(name)

    def _replace(self, name: str) -> None:
        del self._due[name]
        log.debug("credentials_due", function=name)
        self._renew(name)

    async def variables(self, version: FunctionVersion) -> Mapping[str, str]:
        """Return the variables of a worker that starts; none where nothing is known of a role, or there is none.

        Raises:
            RuntimeUnavailable: the role cannot be assumed, now or at all.
        """
        if not version.role:
            return {}
        try:
            role = await self._roles.find(version.role)
            if not role.is_trusting:
                raise RuntimeUnavailable(f"{version.name}: {NOT_ASSUMED} ({role.arn})")
            if not role.is_known:
                return {}
            return await self._of_sts(role, version) if self._roles.connection else self._minted(role, version)
        except CredentialsMissing as error:
            raise RuntimeUnavailable(f"{version.name}: {error}") from error
        except RuntimeUnavailable:
            raise
        except BridgeError as error:
            raise RuntimeUnavailable(f"{version.name}: {error}") from error

    def _minted(self, role: Role, version: FunctionVersion) -> Mapping[str, str]:
        key = self.keys.current(role.arn, account=parse_arn(version.arn).account, session=plain_name(version.name))
        self._is_due(version.name, due_at(key))
        frozen = FrozenCredentials(key.id, key.secret, key.token)
        endpoint = {"AWS_ENDPOINT_URL_LAMBDA": self.api_url} if self.api_url and role.reaches("lambda") else {}
        return _variables(frozen, version, endpoint)

    async def _of_sts(self, role: Role, version: FunctionVersion) -> Mapping[str, str]:
        by = self._aws.connection(self._roles.connection)
        connection = self._aws.as_role(by, role.arn, session=plain_name(version.name))
        known = self._assumed.get((role.arn, version.name))
        if known is None or known[0] != connection:
            made = ConnectionCredentials(connection, clock=self._clock, ahead_s=RENEWED_AHEAD_S)
            known = self._assumed[role.arn, version.name] = connection, made
        frozen = await known[1].get_frozen_credentials()
        # Already due: STS does not answer, and a worker that took this one's place would be given the same.
        self._is_due(version.name, max(known[1].role_due_at, self._clock.stepped() + ASK_AGAIN_S))
        services = {f"AWS_ENDPOINT_URL_{_spelt(name)}": url for name, url in by.endpoint_urls.items()}
        return _variables(
            frozen, version, services | ({"AWS_ENDPOINT_URL": by.endpoint_url} if by.endpoint_url else {})
        )

    def _is_due(self, name: str, at: float) -> None:
        self._due[name] = min(at, self._due.get(name, at))


def _variables(
    credentials: FrozenCredentials, version: FunctionVersion, endpoints: Mapping[str, str]
) -> dict[str, str]:
    """Return variables of a worker; an endpoint that the function sets itself stays."""
    return {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        **({"AWS_SESSION_TOKEN": credentials.token} if credentials.token else {}),
        **{name: url for name, url in endpoints.items() if name not in version.environment},
    }


def _spelt(service: str) -> str:
    """Return a service as botocore spells it in a variable (for most, its name in the API; `sqs` gives `SQS`)."""
    return service.upper().replace("-", "_").replace(" ", "_")
