"""Every parameter of an event source mapping over Kinesis and DynamoDB streams, as embedded ones show it.

Another value is another outcome, or one line refuses it by name. What only the services show is tried with them.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.config.load import load
from bridge.core.errors import ConfigError
from bridge.core.mapping import EventSourceMapping, StartingPosition
from bridge.core.stream import Mark, PutRecord, Shard
from bridge.daemon.trial import BridgeApp
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.local import JournalLocalStreams, local_event_source
from bridge.testing.clock import ManualClock
from bridge.testing.journal import MemoryJournal
from bridge.testing.streams import MemoryStreamMarks
from tests.contract.parameters import (
    Proof,
    a_key_beside_one_that_fails,
    batches,
    given_up,
    given_up_at_an_age,
    known_parameters,
    two_records_three_seconds_apart,
    what_waits,
    who_is_invoked,
)
from tests.harness import write_function

KINDS = ("kinesis", "dynamodb")
WORK = frozenset({
    "BatchSize", "BisectBatchOnFunctionError", "Enabled", "EventSourceArn", "FilterCriteria", "FunctionName",
    "FunctionResponseTypes", "MaximumBatchingWindowInSeconds", "MaximumRecordAgeInSeconds", "MaximumRetryAttempts",
    "ParallelizationFactor", "StartingPosition", "StartingPositionTimestamp", "TumblingWindowInSeconds",
})  # fmt: skip
"""Have a setting, and a proof here; DynamoDB's StartingPositionTimestamp is refused, as by AWS."""
ELSEWHERE = {
    "DestinationConfig.OnFailure": "the tests of destinations",
    "ScalingConfig": "SQS'; taken for every source, and proved with Kafka",
}
REFUSED = {
    "DestinationConfig.OnSuccess": "no mapping of AWS's uses it",
    "AmazonManagedKafkaEventSourceConfig": "Kafka", "SelfManagedKafkaEventSourceConfig": "Kafka",
    "SelfManagedEventSource": "Kafka", "SourceAccessConfigurations": "Kafka", "Topics": "Kafka",
    "SchemaRegistryConfig": "Kafka", "ConsumptionMode": "Kafka", "ProvisionedPollerConfig": "Kafka and SQS",
    "Queues": "Amazon MQ", "DocumentDBEventSourceConfig": "DocumentDB",
    "KMSKeyArn": "the API", "LoggingConfig": "the API", "MetricsConfig": "the API", "Tags": "the API",
}  # fmt: skip
"""Whose they are: the line names the parameter."""
SETTINGS_OF_OTHERS = {
    "consumer_group_id": '"g"', "group_instance_id": '"i"', "isolation_level": '"read_committed"',
    "allow_remote": "true", "key": '"header:x"',
}  # fmt: skip

CODE = """
import base64, json

def value(record):
    if "kinesis" in record:
        return base64.b64decode(record["kinesis"]["data"]).decode()
    return record["dynamodb"]["NewImage"].get("value", {}).get("S")

def handler(event, context):
    values = [value(record) for record in event["Records"]]
    if "bad" in values:
        raise ValueError("bad")
    failures = [
        {"itemIdentifier": record.get("kinesis", {}).get("sequenceNumber") or record["dynamodb"]["SequenceNumber"]}
        for record, value in zip(event["Records"], values) if value == "unsure"
    ]
    return {"state": {"n": event.get("state", {}).get("n", 0) + len(values)}, "batchItemFailures": failures}
"""
FILE = """
[functions.f]
code = "code"
handler = "app.handler"

[functions.g]
code = "code"
handler = "app.handler"

[mappings.m]
source = "local://orders?as={kind}"
shards = 1
"""
ARNS = {
    "kinesis": "arn:aws:kinesis:eu-central-1:123456789012:stream/orders",
    "dynamodb": "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-31T08:00:00.000",
}
MADE_UP = {
    "kinesis": "arn:aws:kinesis:us-east-1:000000000000:stream/orders",
    "dynamodb": "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2020-01-01T00:00:00.000",
}
FILTERS = {"kinesis": '{"data": {"n": [2]}}', "dynamodb": '{"dynamodb": {"NewImage": {"n": {"N": ["2"]}}}}'}
Trial = Callable[[str], BridgeApp]


def the_events_arn(app: BridgeApp) -> object:
    batches(1)(app)
    return app.invocations[0].event["Records"][0]["eventSourceARN"]


def states(app: BridgeApp) -> object:
    """Return the state and how many records each invocation of a window is given; None: there is no window."""
    for value in (1, 2, 3):
        app.put("m", value, key="ada")
    app.drain()
    return [(call.event.get("state"), len(call.event["Records"])) for call in app.invocations]


def proofs(kind: str) -> list[Proof]:
    """Return the proofs; of DynamoDB's items what was put is the attribute `value`."""

    def seen(*groups: list[Any]) -> list[Any]:
        if kind == "kinesis":
            return list(groups)
        return [[each if isinstance(each, dict) else {"value": each} for each in group] for group in groups]

    return [
        Proof(
            "BatchSize", batches(1, 2, 3), {"batch_size = 1": seen([1], [2], [3]), "batch_size = 2": seen([1, 2], [3])}
        ),
        Proof(
            "MaximumBatchingWindowInSeconds",
            two_records_three_seconds_apart,
            {"": seen([1], [2]), "maximum_batching_window_s = 10": seen([1, 2])},
        ),
        Proof(
            "ParallelizationFactor",
            a_key_beside_one_that_fails,
            {"parallelization_factor = 1": [], "parallelization_factor = 10": seen(["good"])},
            also="batch_size = 1",
        ),
        Proof(
            "MaximumRetryAttempts",
            given_up,
            {
                "maximum_retry_attempts = -1": [],
                "maximum_retry_attempts = 0": [("RetryAttemptsExhausted", 1)],
                "maximum_retry_attempts = 2": [("RetryAttemptsExhausted", 3)],
            },
        ),
        Proof(
            "MaximumRecordAgeInSeconds",
            given_up_at_an_age,
            {"maximum_record_age_s = -1": [], "maximum_record_age_s = 60": [("RecordAgeExceeded", 0)]},
        ),
        Proof(
            "BisectBatchOnFunctionError",
            batches(1, "bad", 3),
            {
                "bisect_batch_on_function_error = false": seen([1, "bad", 3]),
                "bisect_batch_on_function_error = true": seen([1, "bad", 3], [1, "bad"], [1], ["bad"], [3]),
            },
            also="maximum_retry_attempts = 0",
        ),
        Proof(
            "FunctionResponseTypes",
            batches(1, "unsure", 3),
            {
                "function_response_types = []": seen([1, "unsure", 3]),
                'function_response_types = ["ReportBatchItemFailures"]': seen([1, "unsure", 3], ["unsure", 3]),
            },
            also="maximum_retry_attempts = 1",
        ),
        Proof(
            "FilterCriteria",
            batches({"n": 1}, {"n": 2}),
            {"filters = []": seen([{"n": 1}, {"n": 2}]), f"filters = ['{FILTERS[kind]}']": seen([{"n": 2}])},
        ),
        Proof(
            "TumblingWindowInSeconds",
            states,
            {
                "tumbling_window_s = 0": [(None, 2), (None, 1)],
                "tumbling_window_s = 60": [({}, 2), ({"n": 2}, 1), ({"n": 3}, 0)],
            },
            also="batch_size = 2",
        ),
        Proof(
            "EventSourceArn",
            the_events_arn,
            {'event_source_arn = ""': MADE_UP[kind], f'event_source_arn = "{ARNS[kind]}"': ARNS[kind]},
        ),
        Proof("FunctionName", who_is_invoked, {'function = "f"': ["f"], 'function = "g"': ["g"]}),
        Proof(
            "Enabled",
            what_waits,
            {"enabled = true": [], "enabled = false": ["mapping m: 1 record waits: it is Disabled"]},
        ),
    ]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Callable[[str, str], BridgeApp]]:
    """Return `trial(kind, settings)`: a daemon in this process whose mapping has them."""
    apps: list[BridgeApp] = []

    def start(kind: str, settings: str) -> BridgeApp:
        write_function(tmp_path / "code", CODE)
        file = tmp_path / f"{len(apps)}.toml"
        function = "" if "function = " in settings else '\nfunction = "f"'
        file.write_text(FILE.format(kind=kind) + settings + function + "\n")
        apps.append(BridgeApp(file))
        return apps[-1]

    yield start
    for app in apps:
        app.close()


@pytest.mark.parametrize(
    ("kind", "proof"),
    [pytest.param(kind, proof, id=f"{kind}-{proof.parameter}") for kind in KINDS for proof in proofs(kind)],
)
def test_another_value_is_another_outcome(trial: Callable[[str, str], BridgeApp], kind: str, proof: Proof) -> None:
    seen = {settings: proof.see(trial(kind, f"{settings}\n{proof.also}")) for settings in proof.outcomes}

    assert seen == proof.outcomes


# --- where a shard begins ---------------------------------------------------------------------------------------------
class Listener:
    """`ShardEvents` that remembers where shards begin."""

    def __init__(self) -> None:
        self.marks: dict[Shard, Mark] = {}

    async def assigned(self, marks: Mapping[Shard, Mark]) -> None:
        self.marks.update(marks)

    async def revoking(self, shards: object, *, deadline_s: float) -> None:
        """Nothing runs."""

    def lost(self, shards: object) -> None:
        """Nothing runs."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("start", "timestamp", "expected"),
    [
        (StartingPosition.TRIM_HORIZON, None, ["0", "1", "2"]),
        (StartingPosition.LATEST, None, []),
        (StartingPosition.AT_TIMESTAMP, 1_700_000_010.0, ["1", "2"]),
        (StartingPosition.AT_TIMESTAMP, 1_700_000_011.0, ["2"]),
    ],
)
async def test_a_mapping_begins_where_it_says(
    kind: str, start: StartingPosition, timestamp: float | None, expected: list[str]
) -> None:
    """StartingPosition and StartingPositionTimestamp; of DynamoDB only the configuration refuses the time."""
    clock = ManualClock(time=1_700_000_000.0)
    streams = JournalStreams(MemoryJournal(), MemoryStreamMarks())
    fields: dict[str, Any] = {"source": f"local://orders?as={kind}", "function": "f", "shards": 1}
    older = local_event_source(EventSourceMapping(name="older", **fields), streams=streams, clock=clock)
    await older.prepare()
    for n in range(3):
        await JournalLocalStreams(streams, clock=clock).put("orders", [PutRecord(value=b"%d" % n, key=b"k")])
        await clock.advance(10)
    mapping = EventSourceMapping(
        name="younger", starting_position=start, starting_position_timestamp=timestamp, **fields
    )
    consumer = local_event_source(mapping, streams=streams, clock=clock).consumer()
    await consumer.open(Listener())
    try:
        poll = await consumer.read(records_max=10, bytes_max=10_000, wait_s=0, paused=frozenset())
    finally:
        await consumer.close()

    assert expected == [(value or b"").decode() for chunk in poll.chunks for value in chunk.values]


# --- what is refused --------------------------------------------------------------------------------------------------
def mistakes(folder: Path, kind: str, settings: str) -> list[str]:
    write_function(folder / "code", CODE)
    (folder / "bridge.toml").write_text(FILE.format(kind=kind) + f'function = "f"\n{settings}\n')
    with pytest.raises(ConfigError) as caught:
        load(folder / "bridge.toml")
    return str(caught.value).splitlines()


def test_a_table_has_no_time_to_start_at(tmp_path: Path) -> None:
    settings = 'starting_position = "AT_TIMESTAMP"\nstarting_position_timestamp = 2026-01-31T08:00:00Z'
    (line,) = mistakes(tmp_path, "dynamodb", settings)

    assert line.endswith(
        "mappings.m.starting_position: AT_TIMESTAMP: unsupported by DynamoDB streams (as on AWS); "
        "TRIM_HORIZON or LATEST"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_windows_do_not_go_with_lanes(tmp_path: Path, kind: str) -> None:
    (line,) = mistakes(tmp_path, kind, "tumbling_window_s = 60\nparallelization_factor = 2")

    assert line.endswith("mappings.m.tumbling_window_s: not together with a parallelization_factor above 1")


@pytest.mark.parametrize("kind", KINDS)
def test_an_arn_of_another_service(tmp_path: Path, kind: str) -> None:
    other = ARNS["dynamodb" if kind == "kinesis" else "kinesis"]
    (line,) = mistakes(tmp_path, kind, f'event_source_arn = "{other}"')

    assert line.endswith(f"its records are {kind}'s")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("setting", "value"), SETTINGS_OF_OTHERS.items())
def test_settings_of_other_sources_are_refused_by_name(tmp_path: Path, kind: str, setting: str, value: str) -> None:
    (line,) = mistakes(tmp_path, kind, f"{setting} = {value}")

    assert f"mappings.m.{setting}: only for " in line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parameter", REFUSED)
def test_parameters_of_other_sources_and_of_the_api_are_refused_in_one_line(
    tmp_path: Path, kind: str, parameter: str
) -> None:
    name = parameter.partition(".")[0]
    (line,) = mistakes(tmp_path, kind, f"{name} = 5")

    assert f"mappings.m.{name}: " in line


# --- none is forgotten ------------------------------------------------------------------------------------------------
def test_every_parameter_of_awss_is_in_one_of_the_lists() -> None:
    listed = [*WORK, *ELSEWHERE, *REFUSED]
    found = {name: [each for each in listed if f".{each}." in dots] for name, dots in known_parameters().items()}
    inner = {name: lists for name, lists in found.items() if len(lists) > 1 and "SchemaRegistryConfig" not in lists}

    assert {name: lists for name, lists in found.items() if not lists} == inner == {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_that_works_has_a_proof(kind: str) -> None:
    starts = {"StartingPosition", "StartingPositionTimestamp"}

    assert {proof.parameter for proof in proofs(kind)} | starts == WORK
