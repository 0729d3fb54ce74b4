"""Embedded streams read as Kinesis' and DynamoDB's, by a whole daemon in this process (semantics Annex B).

Handlers are those of AWS: they read the events as AWS sends them, and answer with sequence numbers.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent, KinesisStreamEvent

from bridge.core.errors import ConfigError
from bridge.core.mapping import EventSourceMapping
from bridge.core.stream import Chunk, PutRecord, StreamRange
from bridge.daemon.trial import BridgeApp
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.local import JournalLocalStreams, local_event_source
from bridge.testing.clock import ManualClock
from bridge.testing.journal import MemoryJournal
from bridge.testing.streams import MemoryStreamMarks
from tests.harness import write_function

CODE = """
import base64, json
from decimal import Decimal

FAIL = {"answer": None}


def value(record):
    if "kinesis" in record:
        return json.loads(base64.b64decode(record["kinesis"]["data"]))
    return {name: json.loads(a["N"]) if "N" in a else a.get("S") for name, a in record["dynamodb"]["NewImage"].items()}


def number(record):
    return record["kinesis" if "kinesis" in record else "dynamodb"]["kinesis" in record and "sequenceNumber" or "SequenceNumber"]


def handler(event, context):
    values = [value(record) for record in event["Records"]]
    if any(v.get("do") == "fail" for v in values):
        raise ValueError("told to")
    unsure = [r for r, v in zip(event["Records"], values) if v.get("do") == "unsure"]
    if unsure:
        return {"batchItemFailures": [{"itemIdentifier": number(r)} for r in unsure]}
    return FAIL["answer"]


def totals(event, context):
    state = event["state"]
    return {"state": {"n": state.get("n", 0) + len(event["Records"])}}


def forgets(event, context):
    return {}
"""
FILE = """
region = "eu-west-1"
account = "123456789012"

[functions.f]
code = "code"
handler = "app.handler"

[functions.totals]
code = "code"
handler = "app.totals"

[functions.forgets]
code = "code"
handler = "app.forgets"

[mappings.m]
source = "local://orders?as={kind}"
"""
REPORTS = 'function_response_types = ["ReportBatchItemFailures"]\n'
KINDS = ("kinesis", "dynamodb")
Trial = Callable[[str], BridgeApp]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trial(tmp_path: Path, kind: str) -> Iterator[Trial]:
    """Return `trial(settings)`: a daemon in this process whose mapping has them."""
    apps: list[BridgeApp] = []

    def start(settings: str = "") -> BridgeApp:
        write_function(tmp_path / "code", CODE)
        file = tmp_path / f"{len(apps)}.toml"
        function = "" if "function = " in settings else 'function = "f"\n'
        shards = "" if "shards = " in settings else "shards = 1\n"
        file.write_text(FILE.format(kind=kind) + function + shards + settings + "\n")
        apps.append(BridgeApp(file))
        return apps[-1]

    yield start
    for app in apps:
        app.close()


def sequence(record: dict[str, Any]) -> str:
    number = record["kinesis"]["sequenceNumber"] if "kinesis" in record else record["dynamodb"]["SequenceNumber"]
    return str(number)


def numbers(app: BridgeApp) -> list[list[int]]:
    return [[value["n"] for value in call.values] for call in app.invocations]


def test_powertools_reads_the_events(trial: Trial, kind: str) -> None:
    app = trial("")
    app.put("m", {"id": 7, "n": 1}, key="7")

    assert [] == app.drain()

    (event,) = [call.event for call in app.invocations]
    if kind == "kinesis":
        (record,) = KinesisStreamEvent(event).records
        assert {"id": 7, "n": 1} == record.kinesis.data_as_json()
        assert "7" == record.kinesis.partition_key
        assert (f"shardId-000000000000:{record.kinesis.sequence_number}", 56) == (
            record.event_id, len(record.kinesis.sequence_number)
        )  # fmt: skip
        assert app.now - 60 < record.kinesis.approximate_arrival_timestamp <= app.now
        assert "arn:aws:kinesis:eu-west-1:123456789012:stream/orders" == record.event_source_arn
        return
    (change,) = DynamoDBStreamEvent(event).records
    assert change.dynamodb is not None
    assert {"id": 7, "n": 1} == change.dynamodb.new_image
    assert {"id": 7} == change.dynamodb.keys
    assert 25 == len(change.dynamodb.sequence_number or "")
    arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2020-01-01T00:00:00.000"
    assert (arn, "eu-west-1") == (change.event_source_arn, change.aws_region)
    assert 32 == len(change.event_id or "")


def test_sequence_numbers_rise_and_have_one_length(trial: Trial) -> None:
    app = trial("")
    for n in range(12):
        app.put("m", {"n": n}, key="k")
    app.drain()

    found = [sequence(record) for call in app.invocations for record in call.event["Records"]]

    assert sorted(set(found)) == found
    assert 1 == len({len(each) for each in found})


def test_a_partial_answer_is_the_new_beginning_and_no_new_count(trial: Trial) -> None:
    """Annex B 15: records before the lowest named one are done; the retries are the batch's, whatever is done of it."""
    app = trial(REPORTS + "maximum_retry_attempts = 2")
    for n in (1, 2, 3):
        app.put("m", {"n": n, "do": "unsure" if n == 2 else ""}, key="k")

    app.drain()

    assert [[1, 2, 3], [2, 3], [2, 3]] == numbers(app)
    (letter,) = app.dead_letters
    assert ("RetryAttemptsExhausted", 3) == (letter.condition, letter.attempts)
    assert letter.outcome["responseContext"]["functionError"] is None


def test_the_lowest_of_several_counts(trial: Trial) -> None:
    app = trial(REPORTS + "maximum_retry_attempts = 1")
    for n in (1, 2, 3, 4):
        app.put("m", {"n": n, "do": "unsure" if n in (2, 4) else ""}, key="k")

    app.drain()

    assert [[1, 2, 3, 4], [2, 3, 4]] == numbers(app)


@pytest.mark.parametrize("answer", ["", None, {}, [], {"batchItemFailures": None}, {"batchItemFailures": []}])
def test_empty_partial_answers_are_success(trial: Trial, answer: Any) -> None:
    """Annex B 16."""
    app = trial(REPORTS + "maximum_retry_attempts = 1")
    app.module("f").FAIL["answer"] = answer
    app.put("m", {"n": 1})

    assert [] == app.drain()
    assert ([[1]], []) == (numbers(app), app.dead_letters)


@pytest.mark.parametrize(
    "items", [[{"itemIdentifier": None}], [{"itemIdentifier": ""}], [{"itemIdentifier": "12345"}], [{"foo": "1"}]]
)
def test_a_partial_answer_that_names_nothing_fails_the_whole_batch(trial: Trial, items: Any) -> None:
    """Annex B 17."""
    app = trial(REPORTS + "maximum_retry_attempts = 1")
    app.module("f").FAIL["answer"] = {"batchItemFailures": items}
    for n in (1, 2):
        app.put("m", {"n": n}, key="k")

    app.drain()

    assert [[1, 2], [1, 2]] == numbers(app)
    assert [2] == [len(letter.values) for letter in app.dead_letters]


def test_a_poisoned_record_is_found_by_halves_in_order(trial: Trial, kind: str) -> None:
    """Annex B 14: all others succeed; one record tells of the one that failed, as AWS names it."""
    app = trial("bisect_batch_on_function_error = true\nmaximum_retry_attempts = 2")
    for n in (1, 2, 3, 4):
        app.put("m", {"n": n, "do": "fail" if n == 3 else ""}, key="k")

    assert [] == app.drain()

    good = [[value["n"] for value in call.values] for call in app.invocations if call.error is None]
    assert [[1, 2], [4]] == good
    (letter,) = app.dead_letters
    member = "KinesisBatchInfo" if kind == "kinesis" else "DDBStreamBatchInfo"
    info = letter.outcome[member]
    (record,) = letter.event["Records"]
    assert (1, "shardId-000000000000") == (info["batchSize"], info["shardId"])
    assert sequence(record) == info["startSequenceNumber"] == info["endSequenceNumber"]
    assert record["eventSourceARN"] == info["streamArn"]
    assert ("." in info["approximateArrivalOfFirstRecord"]) is (kind == "kinesis")


def test_filters_look_into_the_data(trial: Trial, kind: str) -> None:
    """Annex B 21 and 22: a parent written twice asks for both; what is not JSON is dropped, and the stream goes on."""
    if kind == "kinesis":
        pattern = '{"data":{"n":[{"numeric":[">",1]}]},"partitionKey":["k"]}'
    else:
        pattern = '{"dynamodb":{"NewImage":{"n":{"N":["2","3"]}}},"dynamodb":{"Keys":{"id":{"S":["k"]}}}}'
    app = trial(f"filters = ['{pattern}']")
    for n in (1, 2, 3):
        app.put("m", {"id": "k", "n": n}, key="k")
    app.put("m", {"id": "other", "n": 2}, key="other")
    app.put("m", "hello", key="k")
    app.put("m", b"\xff", key="k")

    assert [] == app.drain()

    assert [2, 3] == sorted(n for batch in numbers(app) for n in batch)


@pytest.mark.parametrize("field", ["data", "dynamodb"])
def test_plain_text_is_no_pattern_for_them(trial: Trial, kind: str, field: str) -> None:
    if (field == "data") is (kind == "kinesis"):
        with pytest.raises(ConfigError, match="is JSON; ask for its members"):
            trial(f"""filters = ['{{"{field}":["x"]}}']""")


def test_a_window_keeps_its_state_to_its_end(trial: Trial, kind: str) -> None:
    app = trial('function = "totals"\ntumbling_window_s = 60\nbatch_size = 2')
    for n in (1, 2, 3):
        app.put("m", {"n": n}, key="k")

    assert [] == app.drain()

    events = [call.event for call in app.invocations]
    assert [{}, {"n": 2}, {"n": 3}] == [event["state"] for event in events]
    assert [False, False, True] == [event["isFinalInvokeForWindow"] for event in events]
    assert [2, 1, 0] == [len(event["Records"]) for event in events]
    last = events[-1]
    assert ["Records", "window", "state", "shardId", "eventSourceARN", "isFinalInvokeForWindow",
            "isWindowTerminatedEarly"] == list(last)  # fmt: skip
    assert ("shardId-000000000000", False) == (last["shardId"], last["isWindowTerminatedEarly"])
    assert f":{kind}:" in last["eventSourceARN"]


def test_a_window_without_a_state_in_the_answer_is_a_failed_invocation(trial: Trial) -> None:
    """Annex B 24."""
    app = trial('function = "forgets"\ntumbling_window_s = 60\nmaximum_retry_attempts = 1')
    app.put("m", {"n": 1})

    app.drain()

    failed = [call for call in app.invocations if call.event["Records"]]
    assert [1, 2] == [call.attempt for call in failed]
    assert "RetryAttemptsExhausted" == app.dead_letters[0].condition


def test_lanes_of_one_shard_keep_order_by_key(trial: Trial) -> None:
    app = trial("parallelization_factor = 10\nbatch_size = 1")
    app.put("m", {"id": "ada", "n": 1, "do": "fail"}, key="ada")
    app.put("m", {"id": "ada", "n": 2}, key="ada")
    app.put("m", {"id": "bob", "n": 3}, key="bob")

    app.drain(attempts=3)

    done = [call.values[0]["n"] for call in app.invocations if call.error is None]
    assert [3] == done


def test_the_arn_that_events_show_may_be_chosen(trial: Trial, kind: str) -> None:
    resource = "stream/x" if kind == "kinesis" else "table/x/stream/2016-12-01T00:00:00.000"
    arn = f"arn:aws:{kind}:us-east-2:999999999999:{resource}"
    app = trial(f'event_source_arn = "{arn}"')
    app.put("m", {"n": 1})
    app.drain()

    (record,) = app.invocations[0].event["Records"]
    assert (arn, "us-east-2") == (record["eventSourceARN"], record["awsRegion"])


class Listener:
    """`ShardEvents` that takes everything."""

    async def assigned(self, marks: object) -> None:
        """Nothing is looked at."""

    async def revoking(self, shards: object, *, deadline_s: float) -> None:
        """Nothing runs."""

    def lost(self, shards: object) -> None:
        """Nothing runs."""


async def test_a_part_is_named_by_sequence_numbers_and_times(kind: str) -> None:
    """As records, and as the on-failure record of a batch, name it: what `bridge replay` is given."""
    clock = ManualClock()
    streams = JournalStreams(MemoryJournal(), MemoryStreamMarks())
    source = local_event_source(
        EventSourceMapping(name="m", source=f"local://orders?as={kind}", function="f", shards=1),
        streams=streams,
        clock=clock,
    )
    await source.prepare()
    began = clock.time()
    for n in range(5):
        await JournalLocalStreams(streams, clock=clock).put("orders", [PutRecord(value=b'{"n":%d}' % n, key=b"k")])
        await clock.advance(10)

    async def read(**part: Any) -> list[Chunk]:
        reader = source.reader(StreamRange(**part))
        await reader.open(Listener())
        chunks: list[Chunk] = []
        while True:
            poll = await reader.read(records_max=100, bytes_max=100_000, wait_s=0, paused=frozenset())
            chunks += poll.chunks
            if poll.ended:
                await reader.close()
                return chunks

    (everything,) = await read()
    (member,) = source.shape.batch_info(
        everything.shard, everything.positions[1:4], everything.times_ms[1:4], payload_bytes=1
    ).values()
    first, last = (int(member[name]) for name in ("startSequenceNumber", "endSequenceNumber"))

    (by_sequence,) = await read(first={everything.shard: first}, last={everything.shard: last})
    (by_position,) = await read(first={everything.shard: everything.positions[1]})
    (by_time,) = await read(since=began + 20, until=began + 40)

    assert everything.fragments[1:4] == by_sequence.fragments
    assert everything.fragments[1:] == by_position.fragments
    assert everything.fragments[2:4] == by_time.fragments
    assert str(first) == sequence(json.loads(everything.fragments[1]))


class TestChanges:
    """What is put into a stream that is read as DynamoDB's."""

    @pytest.fixture
    def kind(self) -> str:
        return "dynamodb"

    def test_a_stream_record_keeps_all_but_its_place(self, trial: Trial) -> None:
        golden = Path(__file__).parents[1] / "unit/events/golden/aws-lambda-go/dynamodb-event.json"
        told = json.loads(golden.read_bytes())["Records"][0]
        app = trial('function = "totals"')
        app.put("m", told)
        app.drain()

        (record,) = app.invocations[0].event["Records"]

        for differs in ("SequenceNumber",):
            assert told["dynamodb"].pop(differs) != record["dynamodb"].pop(differs)
        assert told["dynamodb"] == record["dynamodb"]
        assert told["userIdentity"] == record["userIdentity"]
        assert told["eventID"] == record["eventID"]

    def test_no_value_is_a_removed_item(self, trial: Trial) -> None:
        app = trial('function = "totals"')
        app.put("m", None, key="7")
        app.drain()

        (record,) = app.invocations[0].event["Records"]
        assert ("REMOVE", {"id": {"S": "7"}}) == (record["eventName"], record["dynamodb"]["Keys"])
        assert [None] == app.invocations[0].values
