"""Finds the streams that mappings read and the places their failures go to; the adapters load where one is used."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bridge.config.values import Address
from bridge.core.arn import Arn, parse_arn
from bridge.core.connection import AwsConnection, KafkaConnection
from bridge.core.egress import NOTHING, Egress
from bridge.core.errors import ConfigError
from bridge.core.function import plain_name
from bridge.core.mapping import OF_AWS, EventSourceMapping, SourceAddress, parse_source
from bridge.core.outcome import LOCAL, TargetPlace
from bridge.core.ports import Clock, Destination
from bridge.core.sources import EventSource, QueueOrigin
from bridge.daemon.aws import AwsReach
from bridge.daemon.role_checks import KnownRoles, may_read
from bridge.sources.pull.backlogs import JournalStreams

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from bridge.core.dead_letter_queues import DeadLetterQueues
    from bridge.core.ports import Invoker
    from bridge.registry.roles import Role
    from bridge.sources.pull.journal import JournalEventSource


class Streams:
    """`sources.SourceMaker` over the connections of a file, and the failure destinations beside them.

    Args:
        journal: the journal's streams: push sources and local streams.
        spill: the local dead letters.
        clock: the daemon's.
        region: in the ARNs of push sources.
        account: likewise.
        outbox: makes the destination of what is sent to a place.
        aws: where sources and destinations of AWS are reached; None: there are none.
        roles: the execution roles that are asked; None: none are.
    """

    def __init__(
        self,
        journal: JournalStreams,
        *,
        spill: Destination,
        clock: Clock,
        region: str,
        account: str,
        outbox: Callable[[TargetPlace], Destination],
        aws: AwsReach | None = None,
        roles: KnownRoles | None = None,
    ) -> None:
        self._journal = journal
        self._spill = spill
        self._clock = clock
        self._region = region
        self._account = account
        self._outbox = outbox
        self._aws = aws
        self._roles = roles
        self._connections: Mapping[str, KafkaConnection] = {}
        self._egress = NOTHING
        self._kinds: Mapping[str, str] = {}

    def configure(
        self, connections: Mapping[str, KafkaConnection], *, kinds: Mapping[str, str], egress: Egress = NOTHING
    ) -> None:
        """Take the connections of a new file, and the types of its push sources; what is open stays as it is.

        Args:
            connections: by name.
            kinds: by name of a push source.
            egress: what binds clusters that are none of these: callers of the API named them.
        """
        self._connections = dict(connections)
        self._egress = egress
        self._kinds = dict(kinds)

    @property
    def connections(self) -> Mapping[str, KafkaConnection]:
        """The file's connections by name."""
        return self._connections

    # --- sources.SourceMaker ------------------------------------------------------------------

    def event_source(self, mapping: EventSourceMapping) -> EventSource:
        """Return the stream of a mapping; raises ConfigError when its settings cannot work."""
        address = _parse(mapping)
        if address.kind == "kafka":
            from bridge.sources.pull.kafka import KafkaEventSource

            return KafkaEventSource(
                self._connection(address),
                topic=address.name,
                group=mapping.group,
                clock=self._clock,
                starting_position=mapping.starting_position,
                starting_position_timestamp=mapping.starting_position_timestamp,
                isolation_level=mapping.isolation_level,
                group_instance_id=mapping.group_instance_id,
                session_timeout_s=mapping.session_timeout_s,
                event_source_arn=mapping.event_source_arn,
            )
        if address.kind in ("kinesis", "dynamodb"):
            return self._of_shards(mapping, address)
        if address.kind == "sqs":
            return self._archive(mapping, address)
        if address.kind == "local":
            return self._embedded(mapping)
        from bridge.sources.pull.push import push_event_source

        return push_event_source(
            mapping,
            streams=self._journal,
            clock=self._clock,
            form=self._kinds.get(mapping.source, "webhook"),
            region=self._region,
            account_id=self._account,
        )

    def _embedded(self, mapping: EventSourceMapping) -> "JournalEventSource":
        from bridge.sources.pull.local import local_event_source

        return local_event_source(
            mapping, streams=self._journal, clock=self._clock, region=self._region, account_id=self._account
        )

    def _of_shards(self, mapping: EventSourceMapping, address: SourceAddress) -> EventSource:
        from bridge.daemon.shards import SERVICES, shard_event_source

        connection = self._aws_connection(mapping, address)
        assert self._aws is not None
        return shard_event_source(
            mapping,
            address,
            clients=self._aws.clients,
            connection=connection,
            marks=self._journal.marks,
            clock=self._clock,
            account=self._account,
            is_here=_is_here(connection.endpoint(SERVICES[address.kind])),
        )

    def reached_by(self, mapping: EventSourceMapping) -> tuple[object, ...]:
        """Return the connection of a mapping's source, and its function's role; that of failures is found when sent."""
        address = _parse(mapping)
        found = (self._cluster(address), self._role(mapping))
        return (*found, self._aws_connection(mapping, address)) if address.kind in OF_AWS else found

    def refusal(self, mapping: EventSourceMapping) -> str:
        """Return why the role of a mapping's function may not read its source, in AWS's words; empty: it may."""
        return may_read(self._role(mapping), mapping, region=self._region, account=self._account)

    def _role(self, mapping: EventSourceMapping) -> "Role | None":
        return None if self._roles is None else self._roles.of_target(mapping.function)

    def queue(self, mapping: EventSourceMapping) -> QueueOrigin | None:
        """Return the queue of a mapping, None where it reads a stream; raises ConfigError."""
        address = _parse(mapping)
        if address.format != "sqs":
            return None
        if address.kind == "local":
            from bridge.sources.pull.local_queue import LocalQueue

            stream = self._embedded(mapping)
            return LocalQueue(mapping, stream, spill=self._spill, clock=self._clock)
        from bridge.sources.pull.sqs import SqsQueue

        connection, arn = self._aws_connection(mapping, address), _arn(address)
        return SqsQueue(
            self._sqs_client(connection, region=arn.region if arn else ""),
            name=address.name,
            region=arn.region if arn else connection.region,
            account=arn.account if arn else "",
            is_remote=not _is_here(connection.endpoint("sqs")),
        )

    def dead_letter_queues(self, invoker: "Invoker") -> "DeadLetterQueues":
        """Return what looks at dead-letter queues of SQS and sends their messages on."""
        from bridge.sources.pull.sqs_dead_letters import SqsDeadLetters, SqsPlace

        def place(queue: str) -> SqsPlace:
            try:
                address = parse_source(queue)
            except ValueError as error:
                raise ConfigError(f"{queue}: {error}") from error
            if address.kind != "sqs":
                raise ConfigError(f"{queue}: must be sqs://CONNECTION/QUEUE, or a queue's ARN")
            if self._aws is None:
                raise ConfigError("AWS is not reached from here")
            arn = _arn(address)
            connection = self._aws.connection(address.connection, arn=address.arn)
            return SqsPlace(
                client=self._sqs_client(connection, region=arn.region if arn else ""),
                name=address.name,
                account=arn.account if arn else "",
            )

        return SqsDeadLetters(place, invoker=invoker)

    def _sqs_client(self, connection: AwsConnection, *, region: str) -> "Callable[[], Awaitable[Any]]":
        assert self._aws is not None
        clients = self._aws.clients

        async def client() -> Any:
            return await clients.client(connection, "sqs", region=region)

        return client

    def _archive(self, mapping: EventSourceMapping, address: SourceAddress) -> EventSource:
        if not mapping.archive:
            raise ConfigError(
                f"mapping {mapping.name} has archive = false: messages that were deleted from its queue cannot be "
                f"read again (what it copied before: bridge replay --source mapping:{mapping.name})"
            )
        from bridge.sources.pull.archive import MessageArchive

        arn = address.arn or f"arn:aws:sqs:{self._region}:{self._account}:{address.name}"
        return MessageArchive(mapping, streams=self._journal, clock=self._clock, arn=arn)

    def _aws_connection(self, mapping: EventSourceMapping, address: SourceAddress) -> AwsConnection:
        if self._aws is None:
            raise ConfigError(f"AWS is not reached from here; make the source an embedded one: local://{address.name}")
        found = self._aws.connection(address.connection or mapping.connection, arn=address.arn)
        role = self._role(mapping)
        if role is None or self._roles is None or not self._roles.connection:
            return found
        return self._aws.as_role(found, role.arn, session=plain_name(mapping.function.partition(":")[0]))

    def check(self, mapping: EventSourceMapping) -> None:
        """Refuse a mapping whose ARN could be reached by more than one connection. Raises ConfigError."""
        address = _parse(mapping)
        if address.kind in OF_AWS and address.arn and self._aws is not None:
            self._aws.check(address.arn)

    async def check_hosts(self, mapping: EventSourceMapping) -> None:
        """Refuse a mapping whose brokers no caller of the API may name. Raises ConfigError."""
        cluster = self._cluster(_parse(mapping))
        if cluster is not None and cluster.egress is not None:
            from bridge.sources.pull.kafka_egress import check_servers

            await check_servers(cluster.egress, cluster.bootstrap_servers)

    async def prepare(self, mapping: EventSourceMapping, source: EventSource | QueueOrigin) -> None:
        """Have the journal keep what the mapping has not finished, from now on, whether it runs or is paused.

        Raises:
            StoreError: its marks could not be read or stored.
        """
        del mapping
        from bridge.sources.pull.journal import JournalEventSource
        from bridge.sources.pull.local_queue import LocalQueue

        if isinstance(source, JournalEventSource | LocalQueue):
            await source.prepare()

    def forget(self, mapping: EventSourceMapping) -> None:
        """Let the journal have what a mapping that is gone has not finished; its marks stay."""
        self._journal.remove(mapping.name)

    async def discard(self, mapping: EventSourceMapping) -> None:
        """Remove the marks of a mapping that was deleted. Raises StoreError."""
        await self._journal.marks.forget(mapping.name)

    # --- failures -----------------------------------------------------------------------------

    def destination(self, mapping: EventSourceMapping) -> Destination:
        """Return where a mapping's failures go. Raises ConfigError: it cannot work."""
        if mapping.on_failure == LOCAL:
            return self._spill
        if not mapping.on_failure.startswith("kafka://"):
            return self._outbox(TargetPlace(target=mapping.on_failure, connection=mapping.connection))
        from bridge.destinations.kafka import refuse_loop

        topic, source = parse_source(mapping.on_failure), _parse(mapping)
        cluster = self._connection(topic)
        if source.kind == "kafka":
            refuse_loop(topic.name, cluster, source_topic=source.name, source=self._connection(source))
        return self._outbox(TargetPlace(target=mapping.on_failure))

    def _connection(self, address: SourceAddress) -> KafkaConnection:
        connection = self._cluster(address)
        if connection is None:
            raise ConfigError(f"there is no [connections.{address.connection}]")
        return connection

    def _cluster(self, address: SourceAddress) -> KafkaConnection | None:
        known = self._connections.get(address.connection)
        if known is None and address.is_inline:  # the file's are all known
            servers = tuple(address.connection.split(","))
            return KafkaConnection(name="", bootstrap_servers=servers, egress=self._egress)
        return known


def _parse(mapping: EventSourceMapping) -> SourceAddress:
    try:
        return parse_source(mapping.source)
    except ValueError as error:
        raise ConfigError(f"mappings.{mapping.name}.source: {error}") from error


def _arn(address: SourceAddress) -> Arn | None:
    return parse_arn(address.arn) if address.arn else None


def _is_here(url: str) -> bool:
    """Whether an endpoint is this machine's; AWS's own (no URL) is not."""
    host = urlsplit(url).hostname or ""
    return bool(host) and Address(host, 0).is_loopback
