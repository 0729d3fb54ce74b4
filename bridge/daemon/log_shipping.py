"""Sends the logs of functions to CloudWatch Logs where the file asks for it; nothing of it is imported before."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.config.settings import Settings
from bridge.core import limits
from bridge.core.function import plain_name
from bridge.core.ports import Clock
from bridge.daemon.aws import AwsReach
from bridge.daemon.role_checks import KnownRoles, version_in
from bridge.runtime.logs import FunctionLogs

if TYPE_CHECKING:
    from bridge.destinations.cloudwatch import CloudWatchLogs, Writer


@dataclass(frozen=True, slots=True)
class _Sink:
    """`runtime.logs.LogSink`: sends what a function writes as its execution role, where one is assumed for it."""

    inner: "CloudWatchLogs"
    roles: KnownRoles | None

    def put(self, group: str, stream: str, written: Sequence[tuple[float, bytes]], *, function: str) -> None:
        from bridge.destinations.cloudwatch import CONNECTION, Writer

        role = None
        if self.roles is not None and self.roles.connection:
            role = self.roles.of_target(f"{function}:{version_in(stream)}")
        writer = CONNECTION if role is None else Writer(role=role.arn, session=plain_name(function))
        self.inner.put(group, stream, written, writer=writer)


class LogShipping:
    """The way from the log files to CloudWatch Logs, opened and closed by the settings in force.

    Args:
        settings: what is in force at the start; later settings go through `configure`.
        logs: whose lines are sent.
        aws: where it is reached.
        clock: the daemon's.
        roles: the execution roles that lines are sent as; None: they are sent by the connection.
    """

    def __init__(
        self, settings: Settings, *, logs: FunctionLogs, aws: AwsReach, clock: Clock, roles: KnownRoles | None = None
    ) -> None:
        self._roles = roles
        self._logs = logs
        self._aws = aws
        self._clock = clock
        self._sink: CloudWatchLogs | None = None
        self._is_asked_for = asyncio.Event()
        self.closes_by: float | None = None
        """Monotonic time by which `close` has ended; None: it takes as long as it may."""
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take a new file: lines written from now on are sent, or are not."""
        self._settings = settings
        if not settings.logs.cloudwatch:
            self._logs.sink = None
            return
        if self._sink is None:
            from bridge.destinations.cloudwatch import CloudWatchLogs

            self._sink = CloudWatchLogs(client=self._client, clock=self._clock)
        self._logs.sink = _Sink(self._sink, self._roles)
        self._is_asked_for.set()

    @property
    def _is_on(self) -> bool:
        """What is written now is sent; once it is switched off, what still waits is no trouble of anybody's."""
        return self._logs.sink is not None

    async def _client(self, writer: "Writer") -> Any:
        from bridge.destinations.cloudwatch import CALL_MAX_S

        region = self._settings.region
        arn = f"arn:aws:logs:{region}:{self._settings.account}:log-group:functions"
        connection = self._aws.connection(self._settings.logs.connection, arn=arn)
        if writer.role:
            connection = self._aws.as_role(connection, writer.role, session=writer.session)
        return await self._aws.clients.client(
            connection, "logs", region=region, read_timeout_s=CALL_MAX_S, pool=limits.CLOUDWATCH_SENDS_MAX
        )

    async def run(self) -> None:
        """Send for ever, once the file asks for it; for the supervisor."""
        await self._is_asked_for.wait()
        assert self._sink is not None
        await self._sink.run()

    def troubles(self, *, after_s: float) -> list[str]:
        """Return a line for each log group that has taken nothing for longer than `after_s` seconds."""
        return self._sink.troubles(after_s=after_s) if self._sink is not None and self._is_on else []

    def facts(self) -> list[tuple[str, bool, str]]:
        """Return name, is it as it should be, what is known; nothing where the file does not ask for it."""
        return [("CloudWatch Logs", *self._sink.fact())] if self._sink is not None and self._is_on else []

    async def close(self) -> None:
        """Send what is left, after the workers have ended."""
        if self._sink is None:
            return
        from bridge.destinations.cloudwatch import CLOSE_MAX_S

        left_s = CLOSE_MAX_S if self.closes_by is None else self.closes_by - self._clock.monotonic()
        await self._sink.close(deadline_s=min(CLOSE_MAX_S, left_s))
