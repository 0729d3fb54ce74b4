"""Reads what is asked of an event source mapping: its source and its settings, refusals in AWS's words (3.1)."""

import re
from collections.abc import Mapping
from typing import Any, Final

from bridge.api.awslambda.errors import Refused, invalid, violated
from bridge.api.awslambda.shapes import Body
from bridge.core import limits
from bridge.core.arn import parse_arn
from bridge.core.mapping import StartingPosition, parse_source
from bridge.core.stream import RecordFormat
from bridge.registry.mapped import GROUPS, SERVERS

ARN_PATTERN: Final = (
    r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)
UNRECOGNISED: Final = "Unrecognized event source."
BAD_FILTER: Final = "Invalid filter pattern definition."
_SERVER: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9-]*\.)*[A-Za-z0-9][A-Za-z0-9-]*:\d{1,5}\Z")
_TOPIC_PATTERN: Final = r"[^.]([a-zA-Z0-9\-_.]+)"
_GROUP_PATTERN: Final = r"[a-zA-Z0-9-\/*:_+=.@-]*"
_CLUSTER: Final = re.compile(r"cluster/[A-Za-z0-9_-]{1,64}/[A-Za-z0-9-]{1,64}\Z")
_DESTINATION: Final = re.compile(r"arn:aws[a-z-]*:(?:s3:::.+|(?:sqs|sns):[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]+)\Z")
_TOPIC_DESTINATION: Final = re.compile(r"kafka://[A-Za-z0-9_-][A-Za-z0-9._-]{0,248}\Z")
_ACCESS: Final = (
    "BASIC_AUTH", "VPC_SUBNET", "VPC_SECURITY_GROUP", "SASL_SCRAM_512_AUTH", "SASL_SCRAM_256_AUTH", "VIRTUAL_HOST",
    "CLIENT_CERTIFICATE_TLS_AUTH", "SERVER_ROOT_CA_CERTIFICATE", "OAUTHBEARER_AUTH", "OAUTHBEARER_SCOPE",
    "OAUTHBEARER_AUDIENCE", "OAUTHBEARER_LOGICAL_CLUSTER", "OAUTHBEARER_IDENTITY_POOL", "IAM_AUTH",
    "IAM_OAUTHBEARER_AUTH",
)  # fmt: skip
"""botocore's model, SourceAccessType."""
NETWORK: Final = ("VPC_SUBNET", "VPC_SECURITY_GROUP")
"""Access that is no secret: here there is no VPC, and it changes nothing."""
_ELSEWHERE: Final[Mapping[str, str]] = {
    "mq": "Amazon MQ", "rds": "Amazon DocumentDB", "docdb-elastic": "Amazon DocumentDB",
}  # fmt: skip
_STREAM: Final = frozenset({"kinesis", "dynamodb"})
_ORDERED: Final = _STREAM | {"kafka"}
_OF: Final[Mapping[str, frozenset[str]]] = {
    "ParallelizationFactor": _STREAM,
    "TumblingWindowInSeconds": _STREAM,
    "DestinationConfig": _ORDERED,
    "MaximumRecordAgeInSeconds": _ORDERED,
    "BisectBatchOnFunctionError": _ORDERED,
    "MaximumRetryAttempts": _ORDERED,
    "ScalingConfig": frozenset({"sqs"}),
    "ProvisionedPollerConfig": frozenset({"kafka", "sqs"}),
    "SourceAccessConfigurations": frozenset({"kafka"}),
    "Topics": frozenset({"kafka"}),
}
"""Which kinds of source have a member; the others are everybody's."""
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "sqs": {"BatchSize": limits.QUEUE_BATCH_SIZE_DEFAULT, "MaximumBatchingWindowInSeconds": 0},
    "kafka": {"BatchSize": limits.BATCH_SIZE_DEFAULT},
    "kinesis": {
        "BatchSize": limits.BATCH_SIZE_DEFAULT,
        "MaximumBatchingWindowInSeconds": 0,
        "ParallelizationFactor": 1,
        "DestinationConfig": {"OnFailure": {}},
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "MaximumRetryAttempts": -1,
        "TumblingWindowInSeconds": 0,
    },
}
"""What a mapping shows that was asked for nothing else (recorded); DynamoDB's is as Kinesis's."""


def source(body: Body) -> tuple[str, dict[str, Any]]:
    """Return the kind of source that a new mapping reads, and the members that name it.

    Raises:
        Refused: no source, more than one, or none that is offered.
    """
    arn = body.text("EventSourceArn", pattern=ARN_PATTERN)
    body.finish()
    servers = _servers(body)
    if body.get("Queues", list):
        raise invalid("Amazon MQ is not offered as an event source")
    if arn and servers:
        raise invalid("Only one of EventSourceArn and SelfManagedEventSource can be given.")
    if servers:
        named: dict[str, Any] = {"SelfManagedEventSource": {"Endpoints": {SERVERS: servers}}}
        return "kafka", named | {"Topics": _topics(body)}
    if not arn:
        raise invalid(UNRECOGNISED)
    kind = _kind(arn)
    return kind, {"EventSourceArn": arn} | ({"Topics": _topics(body)} if kind == "kafka" else {})


def _kind(text: str) -> str:
    try:
        arn = parse_arn(text)
        if arn.service in _ELSEWHERE:
            raise invalid(f"{_ELSEWHERE[arn.service]} is not offered as an event source")
        if arn.service == "kafka" and _CLUSTER.match(arn.resource) and arn.region and arn.account:
            return "kafka"
        return parse_source(text).kind
    except ValueError as error:
        raise invalid(UNRECOGNISED) from error


def _servers(body: Body) -> list[str]:
    inner = body.inner("SelfManagedEventSource")
    endpoints = None if inner is None else inner.get("Endpoints", dict)
    if endpoints is None:
        return []
    found = endpoints.get(SERVERS)
    if not isinstance(found, list) or not 1 <= len(found) <= 10 or not all(_is_server(each) for each in found):
        raise violated(found, "selfManagedEventSource.endpoints", "be 1 to 10 brokers, host:port each")
    return found


def _is_server(server: object) -> bool:
    return (
        isinstance(server, str)
        and len(server) <= 300
        and _SERVER.match(server) is not None
        and 0 < int(server.rpartition(":")[2]) < 65_536
    )


def _topics(body: Body) -> list[str]:
    found = body.get("Topics", list)
    if not found:
        raise invalid("Required 'topics' parameter is missing.")
    if len(found) > 1:
        raise violated(found, "topics", "have length less than or equal to 1")
    topic = found[0]
    if not isinstance(topic, str) or len(topic) > limits.TOPIC_MAX_CHARS or not re.fullmatch(_TOPIC_PATTERN, topic):
        raise violated(topic, "topics", f"satisfy regular expression pattern: {_TOPIC_PATTERN}")
    return [topic]


def begins(body: Body, kind: str, arn: str, *, now: float) -> dict[str, Any]:
    """Return where a new mapping begins.

    Args:
        body: what was asked.
        kind: of source.
        arn: its ARN.
        now: epoch seconds; a time after that is refused.
    """
    position = body.choice("StartingPosition", tuple(each.value for each in StartingPosition))
    body.finish()
    at = body.time("StartingPositionTimestamp")
    if kind == "sqs":
        if position is not None:
            raise invalid("StartingPosition is not valid for SQS event sources.")
        return {}
    if position is None:
        if kind != "kafka":
            raise invalid(
                "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
                "Member must not be null."
            )
        position = StartingPosition.TRIM_HORIZON.value
    is_timed = position == StartingPosition.AT_TIMESTAMP
    if is_timed and kind == "dynamodb":
        raise invalid(f"Unsupported starting position for arn type: {arn}")
    if is_timed and at is None:
        raise invalid("StartingPositionTimestamp must be provided with StartingPosition AT_TIMESTAMP.")
    if at is not None and not is_timed:
        raise invalid("StartingPositionTimestamp is only valid with StartingPosition AT_TIMESTAMP.")
    if at is not None and at > now:
        raise invalid("StartingPositionTimestamp must not be in the future.")
    return {"StartingPosition": position} | ({} if at is None else {"StartingPositionTimestamp": at})


def group(body: Body, kind: str, *, is_managed: bool, uuid: str) -> dict[str, Any]:
    """Return the consumer group of a new mapping: the one asked for, else its UUID."""
    if kind != "kafka":
        return {}
    name = GROUPS[0] if is_managed else GROUPS[1]
    inner = body.inner(name)
    wanted = inner.text("ConsumerGroupId", pattern=_GROUP_PATTERN, most=200) if inner is not None else None
    body.finish()
    if inner is not None and inner.has("SchemaRegistryConfig"):
        raise invalid("SchemaRegistryConfig is not offered: the function gets the value's own bytes")
    return {name: {"ConsumerGroupId": wanted or uuid}}


def settings(body: Body, kind: str) -> dict[str, Any]:
    """Return what a request sets, by AWS's names; None for what it takes away.

    Raises:
        Refused: a value that AWS refuses, or a member that this kind of source does not have.
    """
    for name, kinds in _OF.items():
        if kind not in kinds and body.has(name):
            raise invalid(f"Unsupported {name} parameter for given event source mapping type.")
    if body.get("KMSKeyArn", str):
        raise invalid("KMSKeyArn is not offered: filters are kept as they are")
    found: dict[str, Any] = {
        "BatchSize": body.number("BatchSize", 1, limits.BATCH_SIZE_MAX),
        "MaximumBatchingWindowInSeconds": body.number(
            "MaximumBatchingWindowInSeconds", 0, limits.BATCHING_WINDOW_MAX_S
        ),
        "ParallelizationFactor": body.number("ParallelizationFactor", 1, limits.PARALLELIZATION_MAX),
        "MaximumRecordAgeInSeconds": body.number("MaximumRecordAgeInSeconds", -1, limits.RECORD_AGE_MAX_S),
        "MaximumRetryAttempts": body.number("MaximumRetryAttempts", -1, limits.RETRY_ATTEMPTS_MAX),
        "BisectBatchOnFunctionError": body.get("BisectBatchOnFunctionError", bool),
        "TumblingWindowInSeconds": body.number("TumblingWindowInSeconds", 0, limits.TUMBLING_WINDOW_MAX_S),
        "FunctionResponseTypes": _response_types(body),
        "SourceAccessConfigurations": _access(body),
    }
    found = {name: value for name, value in found.items() if value is not None}
    for name, read in (
        ("FilterCriteria", _filters),
        ("DestinationConfig", _destination),
        ("ScalingConfig", _scaling),
        ("ProvisionedPollerConfig", _pollers),
        ("MetricsConfig", _metrics),
        ("LoggingConfig", _logging),
    ):
        if (inner := body.inner(name)) is not None:
            found[name] = read(inner, kind)
    body.finish()
    age = found.get("MaximumRecordAgeInSeconds", -1)
    if age not in (-1, *range(limits.RECORD_AGE_MIN_S, limits.RECORD_AGE_MAX_S + 1)):
        raise violated(
            age, "maximumRecordAgeInSeconds", f"be -1, or greater than or equal to {limits.RECORD_AGE_MIN_S}"
        )
    return found


def check(shown: Mapping[str, Any], kind: str) -> None:
    """Refuse settings that do not go together: those of a new mapping, or of one as an update makes it."""
    size, window = shown["BatchSize"], shown.get("MaximumBatchingWindowInSeconds", 0)
    if kind == "sqs":
        is_fifo = shown["EventSourceArn"].endswith(".fifo")
        if is_fifo and size > limits.FIFO_BATCH_SIZE_MAX:
            raise invalid(f"Batch size must be less than or equal to {limits.FIFO_BATCH_SIZE_MAX} for a FIFO queue")
        if is_fifo and window:
            raise invalid("Batching window is not supported for FIFO queues")
        if size > limits.QUEUE_BATCH_SIZE_DEFAULT and not window:
            raise invalid(
                "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
            )
        if shown.get("ScalingConfig") and shown.get("ProvisionedPollerConfig"):
            raise invalid("ScalingConfig and ProvisionedPollerConfig cannot be given together.")
    if shown.get("TumblingWindowInSeconds", 0) and shown.get("ParallelizationFactor", 1) > 1:
        raise invalid("TumblingWindowInSeconds is not supported with a ParallelizationFactor greater than 1.")
    target = shown.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", "")
    if target.startswith("kafka://") and target.removeprefix("kafka://") in shown.get("Topics", ()):
        raise invalid(f"The destination {target} is the source's own topic.")


# --- single members -------------------------------------------------------------------------------------------------
def _response_types(body: Body) -> list[str] | None:
    found = body.get("FunctionResponseTypes", list)
    if found is None or found in ([], ["ReportBatchItemFailures"]):
        return found
    raise violated(found, "functionResponseTypes", "satisfy enum value set: [ReportBatchItemFailures]")


def _access(body: Body) -> list[dict[str, str]] | None:
    found = body.get("SourceAccessConfigurations", list)
    for each in found or ():
        if not isinstance(each, dict):
            raise Refused("SerializationException", "SourceAccessConfigurations holds structures")
        entry = Body(each)
        entry.text("Type", required=True)
        entry.choice("Type", _ACCESS)
        entry.text("URI", most=200)
        entry.finish()
    return found or None


def _filters(inner: Body, kind: str) -> Any:
    # Only a mapping with filters pays for it.
    from bridge.pipeline.criteria import PatternInvalid, compile_criteria
    from bridge.pipeline.filters import compile_pattern

    found = inner.get("Filters", list) or []
    if len(found) > limits.FILTERS_MAX:
        raise violated(len(found), "filterCriteria.filters", f"have length less than or equal to {limits.FILTERS_MAX}")
    patterns: list[str] = []
    for each in found:
        pattern = each.get("Pattern") if isinstance(each, dict) else None
        if not isinstance(pattern, str) or len(pattern) > 4096:
            raise invalid(BAD_FILTER)
        try:
            compile_pattern(pattern)
            compile_criteria([pattern], format=RecordFormat(kind))
        except PatternInvalid as error:
            raise invalid(BAD_FILTER) from error
        patterns.append(pattern)
    return {"Filters": [{"Pattern": pattern} for pattern in patterns]} if patterns else None


def _destination(inner: Body, kind: str) -> Any:
    failure = inner.inner("OnFailure")
    target = failure.text("Destination", most=350) if failure is not None else None
    if not target:
        return {"OnFailure": {}}
    if not _DESTINATION.match(target) and not (kind == "kafka" and _TOPIC_DESTINATION.match(target)):
        raise invalid(f"The destination ARN {target} is invalid.")
    return {"OnFailure": {"Destination": target}}


def _scaling(inner: Body, _kind: str) -> Any:
    most = inner.number("MaximumConcurrency", 2, limits.MAPPING_CONCURRENCY_MAX)
    return None if most is None else {"MaximumConcurrency": most}


def _pollers(inner: Body, kind: str) -> Any:
    least, most = (1, 2000) if kind == "kafka" else (2, 2000)
    found = {
        "MinimumPollers": inner.number("MinimumPollers", least, 200),
        "MaximumPollers": inner.number("MaximumPollers", least, most),
        "PollerGroupName": inner.text("PollerGroupName", most=128),
    }
    return {name: value for name, value in found.items() if value is not None} or None


def _metrics(inner: Body, _kind: str) -> Any:
    found = inner.get("Metrics", list) or []
    if len(found) > 3 or any(each not in ("EventCount", "ErrorCount", "KafkaMetrics") for each in found):
        raise violated(found, "metricsConfig.metrics", "satisfy enum value set: [EventCount, ErrorCount, KafkaMetrics]")
    return {"Metrics": found} if found else None


def _logging(inner: Body, _kind: str) -> Any:
    level = inner.choice("SystemLogLevel", ("DEBUG", "INFO", "WARN"))
    return {"SystemLogLevel": level} if level else None
