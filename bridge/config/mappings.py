"""`[mappings.X]`: which source feeds which function, in what batches, under which rules."""

import datetime as dt
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from bridge.config.connections import ARN_PATTERN, KafkaConnectionSettings, checked_server
from bridge.config.section import Section, listed
from bridge.config.targets import OF_MAPPINGS, TARGET_MAX_CHARS, read_target
from bridge.config.values import checked_target, refuse
from bridge.core import limits
from bridge.core.function import NAME_PATTERN
from bridge.core.mapping import (
    LOCAL_FORMATS,
    OF_AWS,
    EventSourceMapping,
    FunctionResponseType,
    SourceAddress,
    StartingPosition,
    parse_source,
    setting_name,
)
from bridge.core.outcome import LOCAL
from bridge.util.clocks import SystemClock

if TYPE_CHECKING:
    from bridge.config.settings import Settings

_TOPIC: Final = re.compile(rf"(?!\.{{1,2}}\Z)[A-Za-z0-9._-]{{1,{limits.TOPIC_MAX_CHARS}}}\Z")
_KEY: Final = re.compile(
    r"(?:header:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}|body:[^.\s]+(?:\.[^.\s]+)*|topic(?::[1-9][0-9]{0,4})?)\Z"
)
_SOURCE: Final = (
    "must be kafka://CONNECTION/topic, kinesis://CONNECTION/stream, dynamodb://CONNECTION/table, "
    f"sqs://CONNECTION/queue, an ARN, local://STREAM?as={'|'.join(LOCAL_FORMATS)} or the name of a push source"
)
_STREAM_ARN: Final = (
    ARN_PATTERN.removesuffix("?$")
    + r"?$|^arn:aws[a-z-]*:(?:kinesis|dynamodb):[a-z0-9-]+:[0-9]{12}:(?:stream|table)/[A-Za-z0-9_./:-]{1,512}$"
    r"|^arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,80}(?:\.fifo)?$"
)


# --- source and destination ---


def read_source(source: str) -> SourceAddress:
    """Take a mapping's `source` apart and check every part that needs no other section.

    Raises:
        PydanticCustomError: what is wrong with it, and what to write.
    """
    if not source or not source.isprintable() or any(char.isspace() for char in source):
        refuse(_SOURCE)
    if source.startswith("arn:") and source.split(":")[2:3] == ["kafka"]:
        refuse("write kafka://CONNECTION/topic; the cluster's ARN goes into event_source_arn")
    try:
        address = parse_source(source)
    except ValueError as error:
        refuse(str(error)[:1].lower() + str(error)[1:])  # some are urllib's own
    if address.kind == "push":
        if not NAME_PATTERN.match(source):
            refuse(_SOURCE)
    elif address.kind not in OF_AWS and not _TOPIC.match(address.name):
        refuse(f"a topic or stream is named with 1..{limits.TOPIC_MAX_CHARS} of a-z A-Z 0-9 . _ -")
    if address.is_inline:
        for server in address.connection.split(","):
            checked_server(server)
    elif address.kind == "kafka" and not NAME_PATTERN.match(address.connection):
        refuse("must be kafka://CONNECTION/topic or kafka://host:port/topic")
    elif address.kind in OF_AWS and not address.arn and not NAME_PATTERN.match(address.connection):
        refuse(f"must be {address.kind}://CONNECTION/NAME, where CONNECTION is a [connections.X]")
    if address.kind == "local":
        _check_kind(address.options.get("as", ""))
    return address


def _check_kind(kind: str) -> None:
    if kind not in LOCAL_FORMATS:
        refuse(f"must be local://STREAM?as={'|'.join(LOCAL_FORMATS)}")


def _checked_source(source: str) -> str:
    read_source(source)
    return source


def _checked_destination(on_failure: str) -> str:
    if on_failure != LOCAL:
        read_target(on_failure, services=OF_MAPPINGS)
    return on_failure


# --- single values ---


def _checked_filter(pattern: str) -> str:
    from bridge.pipeline.filters import PatternInvalid, compile_pattern  # only a file with filters pays for it

    try:
        compile_pattern(pattern)
    except PatternInvalid as error:
        refuse(f"not a filter pattern: {error}")
    return pattern


def _checked_age(age_s: int) -> int:
    if age_s != -1 and not limits.RECORD_AGE_MIN_S <= age_s <= limits.RECORD_AGE_MAX_S:
        refuse(f"must be -1 (no limit) or {limits.RECORD_AGE_MIN_S}..{limits.RECORD_AGE_MAX_S}, not {age_s:.15g}")
    return age_s


def _checked_key(key: str) -> str:
    if key and not _KEY.match(key):
        refuse("must be header:NAME, body:FIELD, such as body:customer.id, topic or topic:LEVEL, such as topic:2")
    return key


def _timestamp(value: Any) -> float:
    """Return epoch seconds of a number, an ISO text or a TOML date-time, which must say its zone."""
    hint = "must be a time with its zone, such as 2026-01-31T08:00:00Z, or epoch seconds"
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            refuse(hint)
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            refuse(hint)
        value = value.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        refuse(hint)
    if value > SystemClock().time():
        refuse("must not be in the future")
    return float(value)


SourceText: TypeAlias = Annotated[str, AfterValidator(_checked_source)]
FilterText: TypeAlias = Annotated[str, AfterValidator(_checked_filter)]
ResponseType: TypeAlias = Annotated[FunctionResponseType, Field(strict=False)]
Timestamp: TypeAlias = Annotated[
    float, PlainValidator(_timestamp), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]})
]
RecordAge: TypeAlias = Annotated[
    int,
    AfterValidator(_checked_age),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": -1},
                {"type": "integer", "minimum": limits.RECORD_AGE_MIN_S, "maximum": limits.RECORD_AGE_MAX_S},
            ]
        }
    ),
]


class MappingSettings(Section):
    """One event source mapping; AWS's parameters under AWS's names (API_CreateEventSourceMapping)."""

    source: SourceText = Field(
        max_length=2000,
        description="kafka://CONNECTION/topic, kafka://host:port/topic, kinesis://CONNECTION/stream, "
        "dynamodb://CONNECTION/table, sqs://CONNECTION/queue, an ARN of these three, "
        "local://STREAM?as=kafka (kinesis, dynamodb), or a push source.",
    )
    function: Annotated[str, AfterValidator(checked_target)] = Field(
        description="name[:version or alias] or ARN of the function that gets the batches."
    )
    connection: str = Field(
        default="",
        max_length=64,
        description="Connection by which ARNs are reached (source, on_failure); left out: the only one of the region.",
    )
    enabled: bool = Field(default=True, description="false: it reads nothing, and keeps its marks.")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=limits.BATCH_SIZE_MAX,
        description="Records of one invocation; left out: 10 for SQS, else 100.",
    )
    maximum_batching_window_s: float | None = Field(
        default=None,
        ge=0,
        le=limits.BATCHING_WINDOW_MAX_S,
        description="Seconds that records are gathered; left out: 0.5 for Kafka, else 0.",
    )
    parallelization_factor: int = Field(
        default=1, ge=1, le=limits.PARALLELIZATION_MAX, description="Batches of one shard at once, order kept per key."
    )
    starting_position: Annotated[StartingPosition, Field(strict=False)] = Field(
        default=StartingPosition.TRIM_HORIZON, description="Where a shard without a mark begins."
    )
    starting_position_timestamp: Timestamp | None = Field(
        default=None, description="With AT_TIMESTAMP: a time with its zone, or epoch seconds; not in the future."
    )
    maximum_record_age_s: RecordAge = Field(
        default=-1, description="Seconds after which a record is given up; -1: never."
    )
    maximum_retry_attempts: int = Field(
        default=-1, ge=-1, le=limits.RETRY_ATTEMPTS_MAX, description="Retries of a batch; -1: for ever."
    )
    bisect_batch_on_function_error: bool = Field(
        default=False, description="true: a failed batch is split in two before it is tried again."
    )
    tumbling_window_s: int = Field(
        default=0, ge=0, le=limits.TUMBLING_WINDOW_MAX_S, description="Seconds of a tumbling window; 0: none."
    )
    function_response_types: tuple[ResponseType, ...] = listed(
        "ReportBatchItemFailures: the answer may name single records that failed.", max_length=1
    )
    filters: tuple[FilterText, ...] = listed(
        "Filter patterns as JSON text; a record that matches none is passed over; none: all are taken.",
        max_length=limits.FILTERS_MAX,
    )
    on_failure: Annotated[str, AfterValidator(_checked_destination)] = Field(
        default="spill",
        max_length=TARGET_MAX_CHARS,
        description="Where records go that are given up: \"spill\" (local), a queue's, topic's or bucket's ARN, "
        "kafka://CONNECTION/topic.",
    )
    maximum_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=limits.MAPPING_CONCURRENCY_MAX,
        description="Invocations of this mapping at once; left out: no limit of its own.",
    )
    archive: bool | None = Field(
        default=None,
        description="true: records are copied to the journal before they settle; left out: true for SQS, else false.",
    )
    shards: int = Field(
        default=limits.STREAM_SHARDS_DEFAULT,
        ge=1,
        le=limits.STREAM_SHARDS_MAX,
        description="Shards of a push source or local stream.",
    )
    key: Annotated[str, AfterValidator(_checked_key)] = Field(
        default="",
        max_length=200,
        description="What order of a push source is kept by: header:NAME, body:FIELD, topic[:LEVEL]; left out: none.",
    )
    consumer_group_id: str = Field(
        default="",
        max_length=limits.CONSUMER_GROUP_MAX_CHARS,
        pattern=r"^[a-zA-Z0-9/*:_+=.@-]*$",
        description="Kafka's consumer group; left out: bridge-NAME.",
    )
    group_instance_id: str = Field(
        default="",
        max_length=limits.TOPIC_MAX_CHARS,
        pattern=r"^[a-zA-Z0-9._-]*$",
        description="Kafka's static membership, of one daemon alone; left out: none.",
    )
    session_timeout_s: float = Field(
        default=limits.SESSION_TIMEOUT_DEFAULT_S,
        ge=limits.SESSION_TIMEOUT_MIN_S,
        le=limits.SESSION_TIMEOUT_MAX_S,
        description="Seconds of silence after which Kafka's group goes on without this daemon.",
    )
    isolation_level: Literal["read_uncommitted", "read_committed"] = Field(
        default="read_uncommitted", description="Whether Kafka's records of open and aborted transactions are read."
    )
    event_source_arn: str = Field(
        default="",
        pattern=_STREAM_ARN,
        description="The Kafka cluster's ARN: makes events MSK's; of an embedded stream: the ARN that events show.",
    )
    allow_remote: bool = Field(
        default=False,
        description="true: joining a consumer group that others consume with, or reading from AWS, is meant.",
    )


def mapping_values(settings: "Settings") -> list[EventSourceMapping]:
    """Return the event source mappings of a file, with the defaults of their kind of source filled in."""
    return [_mapping(name, mapping, settings) for name, mapping in settings.mappings.items()]


def _mapping(name: str, mapping: MappingSettings, settings: "Settings") -> EventSourceMapping:
    values = {key: getattr(mapping, key) for key in type(mapping).model_fields}
    address = parse_source(mapping.source)
    is_queue = address.format == "sqs"
    if mapping.batch_size is None:
        values["batch_size"] = limits.QUEUE_BATCH_SIZE_DEFAULT if is_queue else limits.BATCH_SIZE_DEFAULT
    if mapping.archive is None:
        values["archive"] = address.kind == "sqs"
    if mapping.maximum_batching_window_s is None:
        window_s = limits.BATCHING_WINDOW_KAFKA_DEFAULT_S if address.format == "kafka" else 0.0
        values["maximum_batching_window_s"] = window_s
    connection = settings.connections.get(address.connection)
    if not mapping.event_source_arn and isinstance(connection, KafkaConnectionSettings):
        values["event_source_arn"] = connection.event_source_arn
    return EventSourceMapping(name=name, **values)


# --- keys that are known and are none ---

_REFUSED: Final = {
    "schemaregistryconfig": "schema registries are not offered: the function gets the value's own bytes",
    "provisionedpollerconfig": "provisioned pollers are not offered: one reader takes all, and parallelization_factor "
    "runs more batches at once",
    "consumptionmode": "consumption modes are not offered: a topic is read as a stream, by its consumer group",
}
"""By lower-case name without underscores: parameters of AWS's that the bridge does not take."""
_ELSEWHERE: Final = {
    "filtercriteria": "filters", "destinationconfig": "on_failure", "scalingconfig": "maximum_concurrency",
    "topics": 'source = "kafka://CONNECTION/topic"', "selfmanagedeventsource": "a [connections.X]",
    "sourceaccessconfigurations": "tls and sasl of a [connections.X]",
    "selfmanagedkafkaeventsourceconfig": "consumer_group_id",
    "amazonmanagedkafkaeventsourceconfig": "consumer_group_id",
    "bootstrapservers": "bootstrap_servers of a [connections.X]",
}  # fmt: skip
"""Parameters of AWS's that are written another way."""


def unknown_key(key: str) -> str:
    """Return what to say of a key that no mapping has but AWS knows; empty when AWS knows none either."""
    plain = key.replace("_", "").lower()
    if plain in _REFUSED:
        return _REFUSED[plain]
    if plain in _ELSEWHERE:
        return f"unknown key; did you mean {_ELSEWHERE[plain]}?"
    known = setting_name(key)
    return f"unknown key; did you mean {known}?" if known in MappingSettings.model_fields else ""
