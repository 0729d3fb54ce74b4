"""Event source mappings as frozen values: which source feeds which function, in what batches, under which rules."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from bridge.core import limits
from bridge.core.arn import parse_arn

_NAMESPACE: Final = uuid.UUID("6f7c1a52-9d3e-5b1a-8f0e-2b9f1c5d7e40")
"""Of the UUIDs that mappings of the file get from their names: the same on every machine."""
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
"""What mappings are named that Lambda's API made."""


LOCAL_FORMATS: Final = ("kafka", "kinesis", "dynamodb", "sqs")
"""What an embedded stream may be read as: `local://STREAM?as=…`."""
QUEUE_OPTIONS: Final[Mapping[str, tuple[int, int]]] = {
    "visibility_timeout_s": (0, 43_200),
    "max_receive_count": (1, 1000),
}
"""What an embedded queue may be told behind `as=sqs`, with its range (SQS' own)."""


class StartingPosition(StrEnum):
    """Where a shard without a mark begins (API_CreateEventSourceMapping)."""

    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"


class FunctionResponseType(StrEnum):
    """What the function's answer may say about single records."""

    REPORT_BATCH_ITEM_FAILURES = "ReportBatchItemFailures"


class MappingState(StrEnum):
    """States of a mapping (semantics 3.2); FAILED is ours: its task was given up and somebody must look."""

    CREATING = "Creating"
    ENABLING = "Enabling"
    ENABLED = "Enabled"
    DISABLING = "Disabling"
    DISABLED = "Disabled"
    UPDATING = "Updating"
    DELETING = "Deleting"
    FAILED = "Failed"


USER_ACTION: Final = "USER_INITIATED"
"""StateTransitionReason where nothing but a person's wish is behind a state (semantics 3.2)."""
NO_RECORDS: Final = "No records processed"
PROCESSED: Final = "OK"
CALL_FAILED: Final = "PROBLEM: Function call failed"
"""Values of LastProcessingResult (semantics 3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSourceMapping:
    """One mapping; AWS's parameters under AWS's names in snake_case, `AWS_NAMES` holds the exceptions."""

    name: str
    source: str
    """As written: `kafka://CONNECTION/topic`, `kafka://host:port/topic`, `kinesis://CONNECTION/stream`,
    `dynamodb://CONNECTION/table`, `sqs://CONNECTION/queue`, an ARN, `local://stream?as=kafka` (kinesis, dynamodb),
    or the name of a push source, which is then read as an ordered stream."""
    function: str
    """Target: `name[:qualifier]`."""
    connection: str = ""
    """Of a source that is an ARN: the `[connections.X]` it is reached by; empty: the only one of its region."""
    enabled: bool = True
    batch_size: int = limits.BATCH_SIZE_DEFAULT
    """1..10000 records."""
    maximum_batching_window_s: float = 0.0
    """0..300 seconds; Kafka's default is 0.5."""
    parallelization_factor: int = 1
    """1..10 batches at once of one shard, order kept per key."""
    starting_position: StartingPosition = StartingPosition.TRIM_HORIZON
    starting_position_timestamp: float | None = None
    """Epoch seconds; with AT_TIMESTAMP only."""
    maximum_record_age_s: int = -1
    """-1 (no limit of ours) or 60..604800 seconds."""
    maximum_retry_attempts: int = -1
    """-1 (for ever) or 0..10000; N retries are N+1 invocations."""
    bisect_batch_on_function_error: bool = False
    tumbling_window_s: int = 0
    """0 (none)..900 seconds."""
    function_response_types: tuple[FunctionResponseType, ...] = ()
    filters: tuple[str, ...] = ()
    """Patterns, ORed; empty: everything passes."""
    on_failure: str = "spill"
    """`spill`, or `kafka://CONNECTION/topic`."""
    maximum_concurrency: int | None = None
    """Invocations of this mapping at once; None: no limit of its own."""
    archive: bool = False
    """Copies records to the journal before they settle."""
    shards: int = limits.STREAM_SHARDS_DEFAULT
    """Of a push source or local stream read as a stream: 1..256."""
    key: str = ""
    """Of a push source read as a stream: `header:NAME` or `body:FIELD[.FIELD…]`; empty: each record its own."""
    consumer_group_id: str = ""
    """Kafka; empty: `bridge-NAME`."""
    group_instance_id: str = ""
    """Kafka's static membership; empty: none."""
    session_timeout_s: float = limits.SESSION_TIMEOUT_DEFAULT_S
    """Kafka: 1..1800 seconds of silence after which the group goes on without this daemon."""
    isolation_level: str = "read_uncommitted"
    """Kafka: `read_uncommitted` or `read_committed`."""
    event_source_arn: str = ""
    """Kafka: the cluster's ARN makes the events MSK's; empty: self-managed. An embedded stream read as Kinesis' or
    DynamoDB's: the ARN that events show; empty: a made up one. Other sources have their own ARN."""
    allow_remote: bool = False
    """Joining a consumer group with live members from elsewhere is meant (the lock against accidents)."""

    @property
    def uuid(self) -> str:
        """The mapping's UUID, the same for the same name."""
        return mapping_uuid(self.name)

    @property
    def is_made(self) -> bool:
        """Whether Lambda's API made it: then its UUID is its name."""
        return _UUID.match(self.name) is not None

    @property
    def group(self) -> str:
        """The consumer group in force."""
        return self.consumer_group_id or f"bridge-{self.name}"

    @property
    def reports_item_failures(self) -> bool:
        """Whether the function's answer is looked at (semantics 3.7)."""
        return FunctionResponseType.REPORT_BATCH_ITEM_FAILURES in self.function_response_types


_NAMES: Final[Mapping[str, tuple[str, re.Pattern[str]]]] = {
    "kinesis": ("stream", re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")),
    "dynamodb": ("table", re.compile(r"[A-Za-z0-9_.-]{3,255}\Z")),
    "sqs": ("queue", re.compile(r"(?=.{1,80}\Z)[A-Za-z0-9_-]{1,80}(?:\.fifo)?\Z")),
}
"""Schemes of AWS's own sources: what each names, and how that may be named."""
OF_AWS: Final = frozenset(_NAMES)
"""Kinds of sources that are read through AWS's API."""
_ARNS: Final[Mapping[str, re.Pattern[str]]] = {
    "kinesis": re.compile(r"stream/([A-Za-z0-9_.-]{1,128})(?:/consumer/[A-Za-z0-9_.-]{1,128}:[0-9]{1,20})?\Z"),
    "dynamodb": re.compile(r"table/([A-Za-z0-9_.-]{3,255})/stream/[0-9A-Za-z:.-]{1,64}\Z"),
    "sqs": re.compile(r"(?=.{1,80}\Z)([A-Za-z0-9_-]{1,80}(?:\.fifo)?)\Z"),
}
_ARN_EXAMPLES: Final[Mapping[str, str]] = {
    "kinesis": "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME",
    "dynamodb": "arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL",
    "sqs": "arn:aws:sqs:REGION:ACCOUNT:QUEUE",
}


def mapping_uuid(name: str) -> str:
    """Return the UUID of the mapping of that name: the name itself, of one that Lambda's API made."""
    return name if _UUID.match(name) else str(uuid.uuid5(_NAMESPACE, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceAddress:
    """A mapping's `source`, taken apart."""

    kind: str
    """`kafka`, `kinesis`, `dynamodb`, `sqs`, `local`, or `push` (the name of a push source)."""
    connection: str = ""
    """Name of a `[connections.X]`, or `host:port[,host:port…]`; empty for an ARN."""
    name: str = ""
    """Topic, stream, table, queue, or push source."""
    arn: str = ""
    """As written, where the source is an ARN."""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """What its records are those of: an embedded stream says it, any other is of its own kind."""
        return self.options.get("as", "") if self.kind == "local" else self.kind

    @property
    def is_inline(self) -> bool:
        """Whether the connection is written as host:port instead of by name."""
        return ":" in self.connection


def parse_source(source: str) -> SourceAddress:
    """Take a mapping's `source` apart.

    Raises:
        ValueError: neither a known URL nor a push source's name; the text says what is wrong.
    """
    if source.startswith("arn:"):
        return _parse_arn(source)
    if "://" not in source:
        return SourceAddress(kind="push", name=source)
    parts = urlsplit(source)
    options = dict(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
    if parts.fragment:
        raise ValueError("a source has no #fragment")
    if parts.scheme == "kafka":
        topic = parts.path.removeprefix("/")
        if not parts.netloc or not topic or "/" in topic or options:
            raise ValueError("must be kafka://CONNECTION/topic or kafka://host:port/topic")
        return SourceAddress(kind="kafka", connection=parts.netloc, name=topic)
    if parts.scheme in _NAMES:
        what, pattern = _NAMES[parts.scheme]
        name = parts.path.removeprefix("/")
        if not parts.netloc or ":" in parts.netloc or not pattern.match(name) or options:
            raise ValueError(f"must be {parts.scheme}://CONNECTION/{what}")
        return SourceAddress(kind=parts.scheme, connection=parts.netloc, name=name)
    if parts.scheme == "local":
        known = {"as", *QUEUE_OPTIONS} if options.get("as") == "sqs" else {"as"}
        if not parts.netloc or parts.path or set(options) - known:
            raise ValueError(f"must be local://STREAM?as={'|'.join(LOCAL_FORMATS)}")
        for option, (low, high) in QUEUE_OPTIONS.items():
            if option in options and not (options[option].isdecimal() and low <= int(options[option]) <= high):
                raise ValueError(f"{option} must be {low}..{high}")
        return SourceAddress(kind="local", name=parts.netloc, options=options)
    schemes = ", ".join(f"{scheme}://" for scheme in ("kafka", *_NAMES, "local"))
    raise ValueError(f"{parts.scheme}: is no source; known are {schemes}, an ARN, or the name of a push source")


def _parse_arn(source: str) -> SourceAddress:
    arn = parse_arn(source)
    pattern = _ARNS.get(arn.service)
    if pattern is None:
        raise ValueError("an ARN as a source is that of a Kinesis stream, a DynamoDB stream or an SQS queue")
    found = pattern.match(arn.resource)
    if not found or not arn.region or not arn.account:
        raise ValueError(f"must be an ARN such as {_ARN_EXAMPLES[arn.service]}")
    return SourceAddress(kind=arn.service, name=found[1], arn=source)


AWS_NAMES: Final[Mapping[str, str]] = {
    "source": "EventSourceArn",
    "function": "FunctionName",
    "maximum_batching_window_s": "MaximumBatchingWindowInSeconds",
    "maximum_record_age_s": "MaximumRecordAgeInSeconds",
    "tumbling_window_s": "TumblingWindowInSeconds",
}
"""Where a setting's name is not AWS's own in snake_case."""


def aws_name(setting: str) -> str:
    """Return AWS's name of a setting: `batch_size` gives `BatchSize`."""
    return AWS_NAMES.get(setting) or "".join(word.capitalize() for word in setting.split("_"))


def setting_name(name: str) -> str:
    """Return the setting of one of AWS's names: the inverse of `aws_name`."""
    for setting, known in AWS_NAMES.items():
        if known == name:
            return setting
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).removeprefix("_")
