"""Finds the targets that records of ended invocations are sent to; their libraries load where one is used."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from bridge.config.connections import AwsConnectionSettings, connection_values
from bridge.config.settings import Settings
from bridge.core import limits
from bridge.core.arn import Arn, parse_arn
from bridge.core.connection import AwsConnection, KafkaConnection
from bridge.core.errors import ConfigError
from bridge.core.function import Function
from bridge.core.invocation import DeadLetter
from bridge.core.loops import Loops
from bridge.core.mapping import parse_source
from bridge.core.outcome import OutboxEntry, TargetPlace, Transport
from bridge.core.ports import Clock, Intake
from bridge.daemon.aws import AwsReach
from bridge.daemon.role_checks import CheckedTransport, KnownRoles


class Targets:
    """`outcome.Transports` over the connections and functions of a file.

    Args:
        settings: what is in force at the start; later settings go through `configure`.
        aws: where ARNs are reached.
        functions: returns the functions there are.
        intake: returns where events of this daemon's functions go in.
        clock: the daemon's.
        roles: the execution roles that are asked; None: none are.
        loops: what led to the events whose records are sent; None: nobody counts.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        aws: AwsReach,
        functions: Callable[[], tuple[Function, ...]],
        intake: Callable[[], Intake],
        clock: Clock,
        roles: KnownRoles | None = None,
        loops: Loops | None = None,
    ) -> None:
        self._loops = loops
        self._settings = settings
        self._clusters: Mapping[str, KafkaConnection] = connection_values(settings)
        self._aws = aws
        self._functions = functions
        self._intake = intake
        self._clock = clock
        self._roles = roles
        self._daemon = socket.gethostname()
        self._made: dict[tuple[TargetPlace, object], Transport] = {}
        """By place and what it is reached by, so that another connection makes another one."""
        self._producers: list[Any] = []

    def configure(self, settings: Settings) -> None:
        """Take a new file; what is open for a connection that changed stays so until the end."""
        self._settings, self._clusters = settings, connection_values(settings)

    def transport(self, place: TargetPlace) -> Transport:
        """Return what sends to a place, if the role of a record's function may. See Transports.transport."""
        if self._roles is None:
            return self._plain(place)
        roles, inner = self._roles, self._plain(place)
        assumed = None if self._local(place) else partial(self._assumed, place)

        def checked(place: TargetPlace, inner: Transport) -> Transport:
            return CheckedTransport(inner, target=place.target, roles=roles, assumed=assumed)

        return self._cached(place, inner, checked)

    def _assumed(self, place: TargetPlace, role_arn: str, session: str) -> Transport:
        arn = _arn(place.target)
        connection = self._aws.as_role(self._reached_by(arn, place.connection), role_arn, session=session)
        return self._cached(place, (connection, self._source(arn)), self._service)

    def _plain(self, place: TargetPlace) -> Transport:
        if place.target.startswith("kafka://"):
            return self._cached(place, self._cluster(place.target), self._topic)
        if function := self._local(place):
            return self._cached(place, function, self._local_function)
        arn = _arn(place.target)
        return self._cached(place, (self._reached_by(arn, place.connection), self._source(arn)), self._service)

    def _local(self, place: TargetPlace) -> str:
        """Return the function of this daemon that a place is, with its qualifier; empty: it is none."""
        if place.target.startswith("kafka://"):
            return ""
        arn = _arn(place.target)
        return self._function(arn) if arn.service == "lambda" else ""

    def _source(self, arn: Arn) -> str:
        return self._settings.invocation.event_bridge_source if arn.service == "events" else ""

    def _cached(self, place: TargetPlace, by: Any, make: Callable[[TargetPlace, Any], Transport]) -> Transport:
        key = (place, by)
        if key not in self._made:
            self._made[key] = make(place, by)
        return self._made[key]

    async def close(self) -> None:
        """End the producers; the clients of AWS are whoever's they are."""
        for producer in self._producers:
            await producer.close()
        self._producers.clear()
        self._made.clear()

    # --- Kafka --------------------------------------------------------------------------------

    def _cluster(self, target: str) -> KafkaConnection:
        name = parse_source(target).connection
        connection = self._clusters.get(name)
        if connection is None:
            raise ConfigError(f"{target}: there is no [connections.{name}]")
        return connection

    def _topic(self, place: TargetPlace, connection: KafkaConnection) -> Transport:
        from bridge.destinations.kafka import KafkaDestination
        from bridge.sources.pull.kafka_client import client_arguments

        made = KafkaDestination(
            topic=parse_source(place.target).name,
            connection=connection,
            arguments=lambda: client_arguments(connection),
            daemon=self._daemon,
        )
        self._producers.append(made)
        return made

    # --- AWS ----------------------------------------------------------------------------------

    def _reached_by(self, arn: Arn, name: str) -> AwsConnection:
        """Return the connection of an ARN; one without a region (a bucket's) is in the only one's, or the daemon's."""
        settings = self._settings
        if not arn.region and not name:
            known = [key for key, made in settings.connections.items() if isinstance(made, AwsConnectionSettings)]
            name = known[0] if len(known) == 1 else ""
            arn = replace(arn, region=settings.region)
        return self._aws.connection(name, arn=str(arn))

    def _service(self, place: TargetPlace, by: tuple[AwsConnection, str]) -> Transport:
        from bridge.destinations.aws import SEND_MAX_S, AwsTarget, aws_service

        arn, (connection, source) = _arn(place.target), by
        service = aws_service(arn, source=source, daemon=self._daemon)

        async def client() -> Any:
            return await self._aws.clients.client(
                connection, service.name, region=arn.region, read_timeout_s=SEND_MAX_S, pool=limits.TARGET_SENDS_MAX
            )

        return AwsTarget(place.target, service, client=client, trace=self._trace)

    # --- functions of this daemon -------------------------------------------------------------

    def _function(self, arn: Arn) -> str:
        """Return `name[:qualifier]` of a function here, empty where the ARN is of none."""
        unqualified, _, qualifier = _split_function(arn)
        for function in self._functions():
            if function.latest.arn == str(arn):  # a remote one may be written with its qualifier
                return function.name
            if function.latest.arn == unqualified:
                return f"{function.name}:{qualifier}" if qualifier else function.name
        return ""

    def _local_function(self, place: TargetPlace, function: str) -> Transport:
        from bridge.destinations.functions import FunctionTarget

        return FunctionTarget(
            function,
            name=_split_function(_arn(place.target))[0].rpartition(":")[2],
            intake=self._intake(),
            clock=self._clock,
            daemon=self._daemon,
            bytes_max=self._settings.invocation.async_payload_max_bytes,
            loops=self._loops,
            trace=self._trace,
        )

    def _trace(self, entry: OutboxEntry, letter: DeadLetter | None) -> str:
        """Return the trace header of a record: of its event's chain. A mapping's failures are of no single one."""
        if self._loops is None or (letter is not None and letter.mapping):
            return ""
        return self._loops.trace(entry.id, entry.function.partition(":")[0], now=self._clock.time())


def _split_function(arn: Arn) -> tuple[str, str, str]:
    resource, colon, qualifier = arn.resource.removeprefix("function:").partition(":")
    return str(replace(arn, resource=f"function:{resource}")), colon, qualifier


def _arn(target: str) -> Arn:
    try:
        return parse_arn(target)
    except ValueError as error:
        raise ConfigError(f"The destination ARN {target} is invalid: {error}") from error
