"""The daemon's one way to AWS: the file's connections and the clients that all parts share."""

from dataclasses import replace

from bridge.aws.clients import AwsClients
from bridge.config.connections import aws_connection, connections_in
from bridge.config.settings import Settings
from bridge.core.arn import parse_arn
from bridge.core.connection import AwsConnection
from bridge.core.errors import ConfigError
from bridge.core.ports import Clock


class AwsReach:
    """Finds the connection of a name or an ARN in the file that is in force.

    Args:
        settings: later ones go through `configure`.
        clock: the daemon's.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._settings = settings
        self.clients = AwsClients(clock=clock)

    def configure(self, settings: Settings) -> None:
        """Take the connections of a new file; clients of one that changed stay until the end, unused."""
        self._settings = settings

    def connection(self, name: str = "", *, arn: str = "") -> AwsConnection:
        """Return the connection of this name, or the one by which an ARN is reached.

        Its region is the connection's: a client of an ARN's service is asked for with the ARN's.

        Raises:
            ConfigError: the file has none of that name.
        """
        try:
            return aws_connection(self._settings, arn=parse_arn(arn) if arn else None, name=name)
        except KeyError as error:
            raise ConfigError(f'there is no [connections.{name}] with type = "aws"') from error

    def reaching(self, arn: str) -> AwsConnection:
        """Return the connection by which an ARN is reached; raises ConfigError: more than one could be."""
        self.check(arn)
        return self.connection(arn=arn)

    def as_role(self, connection: AwsConnection, role_arn: str, *, session: str) -> AwsConnection:
        """Return a connection to the same place as an execution role, assumed by `roles.connection`.

        Args:
            connection: where it leads.
            role_arn: of the role.
            session: the function's name.

        Raises:
            ConfigError: there is no such connection to assume it by.
        """
        by = self.connection(self._settings.roles.connection)
        sts = by.endpoint("sts") or (f"https://sts.{by.region}.amazonaws.com" if connection.endpoint("sts") else "")
        return replace(
            connection,
            endpoint_urls={**connection.endpoint_urls, **({"sts": sts} if sts else {})},
            role_arn=role_arn,
            session_name=session.ljust(2, "-"),  # STS wants two characters
            external_id=by.external_id,
            is_of_function=True,
            profile=by.profile,
            access_key_id=by.access_key_id,
            secret_access_key=by.secret_access_key,
            session_token=by.session_token,
        )

    def check(self, arn: str) -> None:
        """Refuse an ARN that more than one connection could reach: nothing says which. Raises ConfigError."""
        region = parse_arn(arn).region
        here = connections_in(self._settings, region)
        if len(here) > 1:
            raise ConfigError(
                f"{arn} could be reached by {', '.join(sorted(here))} of the daemon's file: keep one "
                f"[connections.X] of region {region}, with endpoint_urls by service"
            )

    async def close(self) -> None:
        """Close every client."""
        await self.clients.close()
