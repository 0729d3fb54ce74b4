"""Event source mappings as Lambda's API shows them (API_EventSourceMappingConfiguration, semantics 3.2)."""

from typing import Any, Final

from bridge.core.function import LATEST, function_arn
from bridge.core.mapping import (
    NO_RECORDS,
    USER_ACTION,
    EventSourceMapping,
    MappingState,
    StartingPosition,
    parse_source,
)
from bridge.core.outcome import LOCAL
from bridge.core.sources import MappingStatus
from bridge.registry.access import Caller
from bridge.registry.attached import place_arn
from bridge.registry.mapped import MadeMapping

_STREAMS: Final = ("kinesis", "dynamodb")
_STREAM_ACTION: Final = "User action"
"""StateTransitionReason of mappings of Kinesis and DynamoDB, where others have USER_INITIATED (recorded)."""


def made_mapping(
    made: MadeMapping, caller: Caller, *, state: MappingState, status: MappingStatus | None = None
) -> dict[str, Any]:
    """Return EventSourceMappingConfiguration of a mapping that Lambda's API made.

    Args:
        made: it.
        caller: whose name space the ARNs are of.
        state: as it is, or as what was just asked for makes it.
        status: what its worker says; None: it has none yet.
    """
    name, _, qualifier = made.function.partition(":")
    arn = function_arn(name, region=caller.region, account=caller.account)
    reason = USER_ACTION if status is None else status.reason
    shown: dict[str, Any] = {
        **made.settings,
        "FunctionResponseTypes": made.settings.get("FunctionResponseTypes", []),
        "UUID": made.uuid,
        "EventSourceMappingArn": _arn(made.uuid, caller),
        "FunctionArn": place_arn((arn, qualifier)),
        "LastModified": made.modified_at,
        "LastProcessingResult": NO_RECORDS if status is None else status.result,
        "State": state.value,
        "StateTransitionReason": _STREAM_ACTION if reason == USER_ACTION and made.kind in _STREAMS else reason,
    }
    if made.kind == "sqs":
        del shown["LastProcessingResult"]
    if made.kind == "kafka" and not shown["FunctionResponseTypes"]:
        del shown["FunctionResponseTypes"]
    return shown


def _arn(uuid: str, caller: Caller) -> str:
    return f"arn:aws:lambda:{caller.region}:{caller.account}:event-source-mapping:{uuid}"


def mapping_view(status: MappingStatus, caller: Caller) -> dict[str, Any]:
    """Return EventSourceMappingConfiguration of a mapping of the file."""
    mapping = status.mapping
    name, _, qualifier = mapping.function.partition(":")
    arn = function_arn(name, region=caller.region, account=caller.account)
    shown: dict[str, Any] = {
        "UUID": mapping.uuid,
        "BatchSize": mapping.batch_size,
        "MaximumBatchingWindowInSeconds": round(mapping.maximum_batching_window_s),
        "EventSourceMappingArn": _arn(mapping.uuid, caller),
        "FunctionArn": place_arn((arn, "" if qualifier == LATEST else qualifier)),
        "LastModified": status.modified_at,
        "LastProcessingResult": status.result,
        "State": status.state.value,
        "StateTransitionReason": status.reason,
        "FunctionResponseTypes": [each.value for each in mapping.function_response_types],
    } | _source(mapping)
    if mapping.filters:
        shown["FilterCriteria"] = {"Filters": [{"Pattern": pattern} for pattern in mapping.filters]}
    if mapping.on_failure != LOCAL:
        shown["DestinationConfig"] = {"OnFailure": {"Destination": mapping.on_failure}}
    if mapping.maximum_concurrency is not None:
        shown["ScalingConfig"] = {"MaximumConcurrency": mapping.maximum_concurrency}
    return shown


def _source(mapping: EventSourceMapping) -> dict[str, Any]:
    address = parse_source(mapping.source)
    if address.format == "sqs":
        return {"EventSourceArn": address.arn or mapping.source}
    shown: dict[str, Any] = {
        "StartingPosition": mapping.starting_position.value,
        "MaximumRecordAgeInSeconds": mapping.maximum_record_age_s,
        "MaximumRetryAttempts": mapping.maximum_retry_attempts,
        "BisectBatchOnFunctionError": mapping.bisect_batch_on_function_error,
    }
    if mapping.starting_position is StartingPosition.AT_TIMESTAMP:
        shown["StartingPositionTimestamp"] = mapping.starting_position_timestamp
    if address.kind == "kafka":
        group = {"ConsumerGroupId": mapping.group}
        if mapping.event_source_arn:
            return shown | {
                "EventSourceArn": mapping.event_source_arn,
                "Topics": [address.name],
                "AmazonManagedKafkaEventSourceConfig": group,
            }
        servers = address.connection.split(",") if address.is_inline else [address.connection]
        return shown | {
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": servers}},
            "Topics": [address.name],
            "SelfManagedKafkaEventSourceConfig": group,
        }
    return shown | {
        "EventSourceArn": address.arn or mapping.source,
        "ParallelizationFactor": mapping.parallelization_factor,
        "TumblingWindowInSeconds": mapping.tumbling_window_s,
    }
