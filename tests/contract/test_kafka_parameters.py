"""Every parameter of an event source mapping over Kafka: another value is another outcome, or one line refuses it.

The parameters are those of CreateEventSourceMapping, as botocore describes it. What an embedded stream shows is tried in
this process; the rest on a broker, by a whole daemon whose mappings differ in the parameter alone.
"""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from bridge.config.load import load
from bridge.core.errors import ConfigError
from bridge.daemon.trial import BridgeApp
from tests.brokers.kafka import PASSWORD, USER, Endpoints
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
from tests.crash.rig import LedgerServer
from tests.harness import DaemonProcess, free_ports, wait_until, write_function

WORK = frozenset({
    "BatchSize", "BisectBatchOnFunctionError", "DestinationConfig.OnFailure", "Enabled", "EventSourceArn",
    "FilterCriteria", "FunctionName", "FunctionResponseTypes", "MaximumBatchingWindowInSeconds",
    "MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "ParallelizationFactor", "ScalingConfig",
    "SelfManagedEventSource", "SourceAccessConfigurations", "StartingPosition", "StartingPositionTimestamp", "Topics",
    "AmazonManagedKafkaEventSourceConfig.ConsumerGroupId", "SelfManagedKafkaEventSourceConfig.ConsumerGroupId",
})  # fmt: skip
"""Have a setting; ParallelizationFactor and ScalingConfig beyond AWS, which has them for other sources alone."""
REFUSED = {
    "SchemaRegistryConfig": "schema registries are not offered",
    "ProvisionedPollerConfig": "provisioned pollers are not offered",
    "ConsumptionMode": "consumption modes are not offered",
}
"""Of Kafka's, and not taken: the line says so."""
NO_KAFKA = {
    "DestinationConfig.OnSuccess": "no mapping of AWS's uses it",
    "DocumentDBEventSourceConfig": "DocumentDB",
    "KMSKeyArn": "the API", "LoggingConfig": "the API", "MetricsConfig": "the API", "Tags": "the API",
    "Queues": "Amazon MQ",
    "TumblingWindowInSeconds": "Kinesis and DynamoDB streams",
}  # fmt: skip
"""Whose they are instead."""

_Test = TypeVar("_Test", bound=Callable[..., Any])
PROVED: set[str] = set()


def proves(*parameters: str) -> Callable[[_Test], _Test]:
    """Count a test as the proof of parameters."""
    PROVED.update(parameters)
    return lambda test: test


# --- on embedded streams ----------------------------------------------------------------------------------------------
CODE = """
import base64

def handler(event, context):
    records = [record for part in event["records"].values() for record in part]
    values = [base64.b64decode(record["value"]).decode() for record in records]
    if "bad" in values:
        raise ValueError("bad")
    unsure = [record for record, value in zip(records, values) if value == "unsure"]
    return {"batchItemFailures": [
        {"itemIdentifier": {"topic-partition": f"{one['topic']}-{one['partition']}", "offset": one["offset"]}}
        for one in unsure
    ]}
"""
FILE = """
[functions.f]
code = "code"
handler = "app.handler"

[functions.g]
code = "code"
handler = "app.handler"

[mappings.m]
source = "local://orders?as=kafka"
shards = 1
"""
ARN = "arn:aws:kafka:eu-central-1:123456789012:cluster/orders/1a2b3c-4"


def the_events_source(app: BridgeApp) -> object:
    batches(1)(app)
    event = app.invocations[0].event
    return event["eventSource"], event.get("eventSourceArn")


PROOFS = [
    Proof("BatchSize", batches(1, 2, 3), {"batch_size = 1": [[1], [2], [3]], "batch_size = 2": [[1, 2], [3]]}),
    Proof(
        "MaximumBatchingWindowInSeconds",
        two_records_three_seconds_apart,
        {"maximum_batching_window_s = 1": [[1], [2]], "maximum_batching_window_s = 10": [[1, 2]]},
    ),
    Proof(
        "ParallelizationFactor",
        a_key_beside_one_that_fails,
        {"parallelization_factor = 1": [], "parallelization_factor = 10": [["good"]]},
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
            "bisect_batch_on_function_error = false": [[1, "bad", 3]],
            "bisect_batch_on_function_error = true": [[1, "bad", 3], [1, "bad"], [1], ["bad"], [3]],
        },
        also="maximum_retry_attempts = 0",
    ),
    Proof(
        "FunctionResponseTypes",
        batches(1, "unsure", 3),
        {
            "function_response_types = []": [[1, "unsure", 3]],
            'function_response_types = ["ReportBatchItemFailures"]': [[1, "unsure", 3], ["unsure"]],
        },
        also="maximum_retry_attempts = 1",
    ),
    Proof(
        "FilterCriteria",
        batches({"n": 1}, {"n": 2}),
        {"filters = []": [[{"n": 1}, {"n": 2}]], "filters = ['{\"value\": {\"n\": [2]}}']": [[{"n": 2}]]},
    ),
    Proof(
        "EventSourceArn",
        the_events_source,
        {'event_source_arn = ""': ("SelfManagedKafka", None), f'event_source_arn = "{ARN}"': ("aws:kafka", ARN)},
    ),
    Proof("FunctionName", who_is_invoked, {'function = "f"': ["f"], 'function = "g"': ["g"]}),
    Proof("Enabled", what_waits, {"enabled = true": [], "enabled = false": ["mapping m: 1 record waits: it is Disabled"]}),
]  # fmt: skip
PROVED.update(proof.parameter for proof in PROOFS)
Trial = Callable[[str], BridgeApp]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """Return `trial(settings)`: a daemon in this process whose mapping has them."""
    apps: list[BridgeApp] = []

    def start(settings: str) -> BridgeApp:
        write_function(tmp_path / "code", CODE)
        file = tmp_path / f"{len(apps)}.toml"
        file.write_text(FILE + settings + ("" if "function = " in settings else '\nfunction = "f"') + "\n")
        apps.append(BridgeApp(file))
        return apps[-1]

    yield start
    for app in apps:
        app.close()


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.parameter)
def test_another_value_is_another_outcome(trial: Trial, proof: Proof) -> None:
    seen = {settings: proof.see(trial(f"{settings}\n{proof.also}")) for settings in proof.outcomes}

    assert seen == proof.outcomes


# --- what is refused --------------------------------------------------------------------------------------------------


def mistakes(folder: Path, settings: str) -> list[str]:
    write_function(folder / "code", CODE)
    (folder / "bridge.toml").write_text(FILE.replace("shards = 1\n", "") + f'function = "f"\n{settings}\n')
    with pytest.raises(ConfigError) as caught:
        load(folder / "bridge.toml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize("parameter", REFUSED)
def test_what_is_not_offered_is_refused_by_name(tmp_path: Path, parameter: str) -> None:
    setting = "".join(f"_{char.lower()}" if char.isupper() else char for char in parameter).lstrip("_")
    for name in (parameter, setting):
        for value in ('"x"', "{ Anything = 1 }"):
            (line,) = mistakes(tmp_path, f"{name} = {value}")

            assert line.split(": ", 1)[1].startswith(f"mappings.m.{name}: {REFUSED[parameter]}"), line


@pytest.mark.parametrize("parameter", [*NO_KAFKA, "tumbling_window_s"])
def test_what_other_sources_or_the_api_have_is_refused_in_one_line(tmp_path: Path, parameter: str) -> None:
    name = parameter.partition(".")[0]
    (line,) = mistakes(tmp_path, f"{name} = 5")

    assert f"mappings.m.{name}: " in line


def test_windows_are_refused_in_one_line_that_says_whose_they_are(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, "tumbling_window_s = 5")

    assert line.endswith("Kafka has no tumbling windows (AWS: Kinesis and DynamoDB streams alone)")


# --- none is forgotten ------------------------------------------------------------------------------------------------
def test_every_parameter_of_awss_is_in_one_of_the_lists() -> None:
    names = known_parameters()
    listed = [*WORK, *REFUSED, *NO_KAFKA]
    found = {name: [each for each in listed if f".{each}." in dotted] for name, dotted in names.items()}

    assert {name: lists for name, lists in found.items() if len(lists) != 1} == {}
    # The youngest is not in every botocore that aiobotocore goes with.
    assert {each for lists in found.values() for each in lists} | {"ConsumptionMode"} == set(listed)


def test_every_parameter_that_works_has_a_proof() -> None:
    assert PROVED == WORK


# --- on a broker ------------------------------------------------------------------------------------------------------
TELLS = """
import json, os, socket, time

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def tell(context, **what):
    connection.sendall(json.dumps({"function": context.function_name, **what}).encode() + b"\\n")
    answers.readline()


def handler(event, context):
    tell(context, event=event)


def slow(event, context):
    tell(context, running=1)
    time.sleep(0.4)
    tell(context, running=-1)


def fail(event, context):
    raise ValueError("no")
"""
"""Says each event to the test over a connection: a sandboxed worker shares no file with it."""


class Bench:
    """One daemon whose mappings differ in a parameter; each has a function of its own name."""

    def __init__(
        self, kafka: Endpoints, start: Callable[[str], DaemonProcess], ledger: LedgerServer, code: Path
    ) -> None:
        self.bootstrap = kafka.bootstrap
        self._start = start
        self._ledger = ledger
        self._code = write_function(code, TELLS)

    async def run(self, connections: str = "", *, handler: str = "handler", **mappings: str) -> None:
        """Start the daemon: `mappings` has the settings of each, with its source."""
        config = f'[connections.main]\ntype = "kafka"\nbootstrap_servers = ["{self.bootstrap}"]\n{connections}\n'
        for name, settings in mappings.items():
            config += (
                f'[functions.{name}]\ncode = "{self._code}"\nhandler = "app.{handler}"\ntimeout_s = 30\n'
                f'environment = {{ LEDGER = "{self._ledger.address}" }}\n'
                f'[mappings.{name}]\nfunction = "{name}"\n{settings}\n'
            )
        self.daemon = await asyncio.to_thread(self._start, config)

    async def put(self, topic: str, *values: object, **options: Any) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            for value in values:
                await producer.send_and_wait(topic, json.dumps(value).encode(), **options)

    def told(self, mapping: str) -> list[dict[str, Any]]:
        """Return what a mapping's function has told so far."""
        lines = [json.loads(line) for line in self._ledger.path.read_text().splitlines()]
        return [line for line in lines if line["function"] == mapping]

    def values(self, mapping: str) -> list[object]:
        """Return the values that a mapping's function was given, in order."""
        return [
            json.loads(base64.b64decode(record["value"]))
            for told in self.told(mapping)
            for records in told["event"]["records"].values()
            for record in records
        ]

    async def status(self, mapping: str) -> dict[str, Any]:
        answer = await asyncio.to_thread(self.daemon.admin, "GET", f"/admin/v1/mappings/{mapping}")
        return dict(answer.json())

    async def is_reading(self, *names: str) -> None:
        """Return once mappings have their partitions."""

        async def have_shards() -> bool:
            return all([(await self.status(name))["shards"] for name in names])

        await wait_until(have_shards, description="the mappings have their partitions")


@pytest.fixture
def bench(daemon: Callable[[str], DaemonProcess], kafka: Endpoints, tmp_path: Path) -> Iterator[Bench]:
    ledger = LedgerServer(tmp_path / "told.jsonl")
    yield Bench(kafka, daemon, ledger, tmp_path / "code")
    ledger.close()


Topics = Callable[..., Awaitable[str]]


@proves("StartingPosition", "StartingPositionTimestamp")
async def test_reading_begins_where_it_is_told_to(bench: Bench, kafka_topic: Topics) -> None:
    topic = await kafka_topic()
    hour_ago = int(time.time()) - 3600
    for number in range(3):
        await bench.put(topic, number, timestamp_ms=(hour_ago + number) * 1000)
    source = f'source = "kafka://main/{topic}"\nstarting_position = '
    at = f'{source}"AT_TIMESTAMP"\nstarting_position_timestamp = '
    await bench.run(
        oldest=f'{source}"TRIM_HORIZON"',
        newest=f'{source}"LATEST"',
        second=f"{at}{hour_ago + 1}",
        third=f"{at}{hour_ago + 2}",
    )
    await bench.is_reading("oldest", "newest", "second", "third")
    await bench.put(topic, 3)
    expected = {"oldest": [0, 1, 2, 3], "newest": [3], "second": [1, 2, 3], "third": [2, 3]}

    def seen() -> dict[str, list[object]]:
        return {name: bench.values(name) for name in expected}

    await wait_until(lambda: all(seen().values()) and all(values[-1] == 3 for values in seen().values()))
    assert seen() == expected


async def committed(bootstrap: str, group: str, topic: str) -> int | None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    at = offsets.get(TopicPartition(topic, 0))
    return at.offset if at else None


@proves(
    "AmazonManagedKafkaEventSourceConfig.ConsumerGroupId", "SelfManagedKafkaEventSourceConfig.ConsumerGroupId"
)  # fmt: skip
async def test_a_mapping_goes_on_from_its_consumer_groups_offsets(bench: Bench, kafka_topic: Topics) -> None:
    topic = await kafka_topic()
    await bench.put(topic, *range(4))
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bench.bootstrap, group_id=f"old-{topic}") as consumer:
        consumer.assign([partition])
        await consumer.commit({partition: OffsetAndMetadata(2, "")})
    source = f'source = "kafka://main/{topic}"\nconsumer_group_id = '
    await bench.run(
        new=f'{source}"new-{topic}"',
        old=f'{source}"old-{topic}"',
        msk=f'{source}"msk-{topic}"\nevent_source_arn = "{ARN}"',
    )
    await wait_until(lambda: all(3 in bench.values(name) for name in ("new", "old", "msk")))

    assert [bench.values(name) for name in ("new", "old", "msk")] == [[0, 1, 2, 3], [2, 3], [0, 1, 2, 3]]
    for group in ("new", "old", "msk"):

        async def is_committed(group: str = group) -> bool:
            return await committed(bench.bootstrap, f"{group}-{topic}", topic) == 4

        await wait_until(is_committed, description=f"{group} has committed")


@proves("Topics", "SelfManagedEventSource")
async def test_a_mapping_reads_its_topic_from_its_brokers(bench: Bench, kafka_topic: Topics) -> None:
    first, second = await kafka_topic(), await kafka_topic()
    await bench.put(first, "first")
    await bench.put(second, "second")
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    await bench.run(
        f'[connections.gone]\ntype = "kafka"\nbootstrap_servers = ["{nobody}"]\n',
        first=f'source = "kafka://main/{first}"',
        second=f'source = "kafka://main/{second}"',
        gone=f'source = "kafka://gone/{second}"',
    )

    await wait_until(lambda: bench.values("first") and bench.values("second"))

    async def says_so() -> bool:
        return str((await bench.status("gone"))["state_transition_reason"]).startswith(
            f"kafka gone: cannot connect: {nobody}: "
        )

    await wait_until(says_so, description="the broker that is not there is named")
    assert [bench.values(name) for name in ("first", "second", "gone")] == [["first"], ["second"], []]
    assert bench.told("first")[0]["event"]["bootstrapServers"] == bench.bootstrap


def access(secured: Endpoints) -> Mapping[str, tuple[str, str]]:
    """Return by AWS's type of access what a connection says rightly and wrongly."""
    files = secured.certificates

    def connection(address: str, *settings: str) -> str:
        return "\n".join(['type = "kafka"', f'bootstrap_servers = ["{address}"]', *settings])

    def sasl(mechanism: str, *, address: str = secured.sasl, tls: str = "") -> tuple[str, str]:
        right, wrong = (
            connection(
                address,
                tls,
                f'sasl = {{ mechanism = "{mechanism}", username = "{USER}", password = {{ env = "{password}" }} }}',
            )
            for password in ("RIGHT", "WRONG")
        )
        return right, wrong

    authority = f'tls = {{ ca = "{files.ca}" }}'
    shown = f'tls = {{ ca = "{files.ca}", cert = "{files.client_certificate}", key = "{files.client_key}" }}'
    return {
        "BASIC_AUTH": sasl("PLAIN"),
        "SASL_SCRAM_256_AUTH": sasl("SCRAM-SHA-256"),
        "SASL_SCRAM_512_AUTH": sasl("SCRAM-SHA-512"),
        "CLIENT_CERTIFICATE_TLS_AUTH": (connection(secured.tls, shown), connection(secured.tls, authority)),
        "SERVER_ROOT_CA_CERTIFICATE": (
            sasl("SCRAM-SHA-512", address=secured.sasl_tls, tls=authority)[0],
            sasl("SCRAM-SHA-512", address=secured.sasl_tls, tls="tls = true")[0],
        ),
    }


@proves("SourceAccessConfigurations")
async def test_access_is_had_by_what_the_connection_says(
    bench: Bench, kafka_secured: Endpoints, kafka_topic: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await kafka_topic()
    await bench.put(topic, "in")
    monkeypatch.setenv("RIGHT", PASSWORD)
    monkeypatch.setenv("WRONG", "wrong-canary")
    kinds = access(kafka_secured)
    connections = {
        f"{kind}_{end}": text
        for kind, both in kinds.items()
        for end, text in zip(("right", "wrong"), both, strict=True)
    }

    await bench.run(
        "".join(f"[connections.{name}]\n{text}\n" for name, text in connections.items()),
        **{name: f'source = "kafka://{name}/{topic}"' for name in connections},
    )

    right, wrong = [f"{kind}_right" for kind in kinds], [f"{kind}_wrong" for kind in kinds]
    await wait_until(lambda: all(bench.values(name) for name in right), description="who is right is let in")
    for name in wrong:

        async def says_so(name: str = name) -> bool:
            reason = str((await bench.status(name))["state_transition_reason"])
            return reason.startswith(f"kafka {name}: cannot connect: 127.0.0.1:") and "\n" not in reason

        await wait_until(says_so, description=f"{name} says that it is not let in")
    assert [bench.values(name) for name in wrong] == [[]] * len(wrong)
    assert "canary" not in bench.daemon.log()


@proves("DestinationConfig.OnFailure")
async def test_what_is_given_up_goes_where_it_is_told(bench: Bench, kafka_topic: Topics) -> None:
    topic, failed = await kafka_topic(), await kafka_topic()
    await bench.put(topic, "bad", key=b"ada")
    source = f'source = "kafka://main/{topic}"\nmaximum_retry_attempts = 0\non_failure = '
    await bench.run(handler="fail", here=f'{source}"spill"', there=f'{source}"kafka://main/{failed}"')

    async with AIOKafkaConsumer(failed, bootstrap_servers=bench.bootstrap, auto_offset_reset="earliest") as consumer:
        async with asyncio.timeout(60):
            message = await consumer.getone()

    async def letters() -> list[dict[str, Any]]:
        done = await asyncio.to_thread(bench.daemon.cli, "dlq", "list", "--json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    await wait_until(letters, description="the other one is in the local dead letters")
    assert message.key == b"ada"
    assert json.loads(message.value)["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert [letter["source"] for letter in await letters()] == ["here"]


@proves("ScalingConfig")
async def test_a_mappings_invocations_at_once_are_bounded(bench: Bench, kafka_topic: Topics) -> None:
    topic = await kafka_topic(4)
    for partition in range(4):
        await bench.put(topic, 1, 2, partition=partition)
    source = f'source = "kafka://main/{topic}"\nbatch_size = 1\n'
    await bench.run(handler="slow", one=f"{source}maximum_concurrency = 1", any=source)

    await wait_until(lambda: all(len(bench.told(name)) == 16 for name in ("one", "any")), description="all is handled")

    def most(changes: Sequence[int]) -> int:
        return max(sum(changes[: end + 1]) for end in range(len(changes)))

    assert most([told["running"] for told in bench.told("one")]) == 1
    assert most([told["running"] for told in bench.told("any")]) > 1


# --- beyond AWS's -----------------------------------------------------------------------------------------------------
@pytest.mark.apache_kafka("expiry of sessions")
async def test_a_group_goes_on_without_a_dead_daemon_after_the_session_it_asked_for(
    bench: Bench, kafka_topic: Topics
) -> None:
    topic = await kafka_topic()
    source = f'source = "kafka://main/{topic}"\nconsumer_group_id = '
    await bench.run(
        short=f'{source}"short-{topic}"\nsession_timeout_s = 3',
        long=f'{source}"long-{topic}"\nsession_timeout_s = 200',
    )  # fmt: skip
    await bench.is_reading("short", "long")
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.bootstrap)
    await admin.start()
    try:

        async def members(group: str) -> int:
            (answer,) = await admin.describe_consumer_groups([f"{group}-{topic}"])
            return len(answer.to_object()["groups"][0]["members"])

        assert [await members(group) for group in ("short", "long")] == [1, 1]
        await asyncio.to_thread(bench.daemon.kill9)

        async def is_empty() -> bool:
            return await members("short") == 0

        await wait_until(is_empty, description="the short session is over")
        assert await members("long") == 1
    finally:
        await admin.close()
