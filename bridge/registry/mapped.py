"""Event source mappings that Lambda's API made: what is kept of them, and the mapping that runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bridge.core import limits
from bridge.core.arn import parse_arn
from bridge.core.connection import KafkaConnection
from bridge.core.mapping import EventSourceMapping, FunctionResponseType, StartingPosition
from bridge.core.outcome import LOCAL
from bridge.registry.stored import restored

SERVERS: Final = "KAFKA_BOOTSTRAP_SERVERS"
GROUPS: Final = ("AmazonManagedKafkaEventSourceConfig", "SelfManagedKafkaEventSourceConfig")
"""Members that hold the consumer group, of MSK and of other clusters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeMapping:
    """One mapping as it was asked for, with AWS's defaults."""

    uuid: str
    function: str
    """Target as it was named: `name[:qualifier]`."""
    kind: str
    """`sqs`, `kinesis`, `dynamodb` or `kafka`."""
    settings: Mapping[str, Any]
    """What EventSourceMappingConfiguration shows of it, by AWS's names: BatchSize, EventSourceArn, Topics…"""
    enabled: bool = True
    modified_at: float
    """Epoch seconds."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def servers(self) -> tuple[str, ...]:
        """The brokers that it names; empty of any other than a self-managed cluster."""
        found = self.settings.get("SelfManagedEventSource", {}).get("Endpoints", {}).get(SERVERS, ())
        return tuple(found)

    @property
    def arn(self) -> str:
        """EventSourceArn; empty of a self-managed cluster."""
        return str(self.settings.get("EventSourceArn", ""))

    @property
    def topic(self) -> str:
        """Kafka's topic; empty of other sources."""
        return next(iter(self.settings.get("Topics", ())), "")


def pack(made: MadeMapping) -> bytes:
    """Return a mapping as JSON."""
    return orjson.dumps(made, option=orjson.OPT_SORT_KEYS)


def unpack(data: bytes) -> MadeMapping:
    """Return the mapping of stored JSON.

    Raises:
        ValueError, StoreCorrupt: it is not what `pack` made.
        StoreTooNew: a newer version made it.
    """
    return restored(MadeMapping, orjson.loads(data), what="an event source mapping")


# --- as what runs ---------------------------------------------------------------------------------------------------
def runs(made: MadeMapping, clusters: Mapping[str, KafkaConnection]) -> EventSourceMapping:
    """Return the mapping that runs.

    Args:
        made: as it was asked for.
        clusters: the file's connections by name: a cluster that one of them reaches is reached by it.
    """
    settings = made.settings
    position = settings.get("StartingPosition", StartingPosition.TRIM_HORIZON)
    return EventSourceMapping(
        name=made.uuid,
        source=_source(made, clusters),
        function=made.function,
        enabled=made.enabled,
        batch_size=settings["BatchSize"],
        maximum_batching_window_s=settings.get("MaximumBatchingWindowInSeconds", _window(made)),
        parallelization_factor=settings.get("ParallelizationFactor", 1),
        starting_position=StartingPosition(position),
        starting_position_timestamp=settings.get("StartingPositionTimestamp"),
        maximum_record_age_s=settings.get("MaximumRecordAgeInSeconds", -1),
        maximum_retry_attempts=settings.get("MaximumRetryAttempts", -1),
        bisect_batch_on_function_error=settings.get("BisectBatchOnFunctionError", False),
        tumbling_window_s=settings.get("TumblingWindowInSeconds", 0),
        function_response_types=tuple(map(FunctionResponseType, settings.get("FunctionResponseTypes", ()))),
        filters=tuple(each["Pattern"] for each in settings.get("FilterCriteria", {}).get("Filters", ())),
        on_failure=_on_failure(made, clusters),
        maximum_concurrency=settings.get("ScalingConfig", {}).get("MaximumConcurrency"),
        archive=made.kind == "sqs",
        consumer_group_id=next((settings[name]["ConsumerGroupId"] for name in GROUPS if name in settings), ""),
        event_source_arn=made.arn if made.kind == "kafka" else "",
    )


def _window(made: MadeMapping) -> float:
    return limits.BATCHING_WINDOW_KAFKA_DEFAULT_S if made.kind == "kafka" else 0.0


def _source(made: MadeMapping, clusters: Mapping[str, KafkaConnection]) -> str:
    return made.arn if made.kind != "kafka" else f"kafka://{cluster_of(made, clusters)}/{made.topic}"


def cluster_of(made: MadeMapping, clusters: Mapping[str, KafkaConnection]) -> str:
    """Return the connection of a mapping's cluster: the file's that has its ARN or one of its brokers.

    Where there is none: the brokers as they are named, or the name in the ARN, which no connection has: the mapping
    says so.
    """
    for name, cluster in clusters.items():
        if cluster.name and (
            cluster.event_source_arn == made.arn if made.arn else set(cluster.bootstrap_servers) & set(made.servers)
        ):
            return name
    return ",".join(made.servers) or parse_arn(made.arn).resource.split("/")[1]


def _on_failure(made: MadeMapping, clusters: Mapping[str, KafkaConnection]) -> str:
    target = str(made.settings.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", ""))
    if target.startswith("kafka://"):  # of the source's own cluster (semantics 3.8)
        return f"kafka://{cluster_of(made, clusters)}/{target.removeprefix('kafka://')}"
    return target or LOCAL
