"""Checks of mappings that read queues: what SQS does not have, what AWS refuses there, and what cannot be replayed."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from pydantic_core import PydanticCustomError

from bridge.config.mappings import MappingSettings, read_source
from bridge.config.mistakes import Loc
from bridge.config.tree import number, tables, text
from bridge.core import limits
from bridge.core.mapping import SourceAddress

Finding: TypeAlias = tuple[Loc, str]
_STREAMS_ALONE: Final = "(AWS: Kinesis and DynamoDB streams alone)"
_NONE: Final[Mapping[str, str]] = {
    "starting_position": "SQS has none: a queue gives what is in it",
    "starting_position_timestamp": "SQS has none: a queue gives what is in it",
    "parallelization_factor": f"SQS has none {_STREAMS_ALONE}; maximum_concurrency bounds the invocations at once",
    "bisect_batch_on_function_error": 'SQS has none: function_response_types = ["ReportBatchItemFailures"] tells which '
    "messages failed",
    "maximum_retry_attempts": "SQS has none: maxReceiveCount of the queue's redrive policy counts",
    "maximum_record_age_s": "SQS has none: the queue's own retention ends a message",
    "tumbling_window_s": f"SQS has none {_STREAMS_ALONE}",
    "shards": "a queue has none",
    "on_failure": "Unsupported DestinationConfig parameter for given event source mapping type. Failed messages go "
    "back to the queue: give it a redrive policy with a dead-letter queue",
}
"""What a queue's mapping does not take, with what to do instead."""
_NEEDS_WINDOW: Final = (
    "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10: "
    "write maximum_batching_window_s, at least 1"
)


def mistakes(name: str, mapping: Mapping[str, Any], address: SourceAddress) -> Iterator[Finding]:
    """Yield what is wrong with the settings of a queue's mapping; nothing for any other."""
    if address.format != "sqs":
        return
    loc = ("mappings", name)
    fields = MappingSettings.model_fields
    for key, words in _NONE.items():
        if key in mapping and mapping[key] != fields[key].default:
            yield (*loc, key), words
    size, window_s = number(mapping, "batch_size", 0), number(mapping, "maximum_batching_window_s", 0)
    if address.name.endswith(".fifo"):
        if size > limits.FIFO_BATCH_SIZE_MAX:
            yield (*loc, "batch_size"), f"at most {limits.FIFO_BATCH_SIZE_MAX} for a FIFO queue"
        if window_s:
            yield (*loc, "maximum_batching_window_s"), "FIFO queues have no batching window"
    elif size > limits.QUEUE_CALL_MAX and window_s < 1:
        yield (*loc, "batch_size"), _NEEDS_WINDOW
    if address.kind == "local" and mapping.get("archive") is not None:
        yield (*loc, "archive"), "the messages of an embedded queue are in the journal already"


def warnings(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield queues of which nothing can be replayed."""
    for name, mapping in tables(data, "mappings"):
        try:
            kind = read_source(text(mapping, "source")).kind
        except PydanticCustomError:
            continue  # told as a mistake
        if kind == "sqs" and mapping.get("archive") is False:
            loc = ("mappings", name, "archive")
            yield loc, "nothing of this queue can be replayed: messages are deleted from it, and kept nowhere else"
