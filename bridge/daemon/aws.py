"""The daemon's one way to AWS: the file's connections and the clients that all parts share."""

from bridge.aws.clients import AwsClients
from bridge.config.connections import aws_connection
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

    async def close(self) -> None:
        """Close every client."""
        await self.clients.close()
