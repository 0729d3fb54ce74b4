"""CloudWatch Logs: AWS's samples unpacked, log events packed, bombs refused."""

import base64
import gzip
import json
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.data_classes import CloudWatchLogsEvent
from aws_lambda_powertools.utilities.parser.models import CloudWatchLogsModel
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core import limits
from bridge.events.bodies import Unreadable
from bridge.events.cloudwatch_logs import LogBatch, LogDefaults, logs_event, logs_json, logs_of, read_logs

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = (
    "aws-lambda-go/cloudwatch-logs-event.json", "powertools-python/cloudWatchLogEvent.json", "sam-cli/cloudwatch-logs.json",
)  # fmt: skip
DEFAULTS = LogDefaults(owner="123456789012", group="/bridge/logs", stream="webhook", subscription="logs")
AT = 1_600_000_000.5


def golden(name):
    return json.loads((GOLDEN / name).read_bytes())


def read(value):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_logs(body, defaults=DEFAULTS, received_at=AT)


def packed(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return {"awslogs": {"data": base64.b64encode(gzip.compress(data, mtime=0)).decode()}}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_packed_already_is_kept_byte_for_byte(name):
    body = (GOLDEN / name).read_bytes()

    event = read(body)

    assert body.strip() == event.payload
    assert event.delivery_id.startswith("logs:")
    assert ["id", "timestamp", "message"] == list(json.loads(logs_of(event.payload))["logEvents"][0])


def test_log_events_are_packed_as_cloudwatch_does():
    sample = golden("vendors/cloudwatch-logs-unpacked.json")

    event = json.loads(read(sample).payload)

    assert sample == json.loads(gzip.decompress(base64.b64decode(event["awslogs"]["data"])))
    assert sample == json.loads(logs_of(json.dumps(event).encode()))


def test_powertools_reads_it():
    sample = golden("vendors/cloudwatch-logs-unpacked.json")
    event = json.loads(read(sample).payload)

    decoded = CloudWatchLogsEvent(event).parse_logs_data()

    assert (sample["logGroup"], 2) == (decoded.log_group, len(decoded.log_events))
    model = CloudWatchLogsModel.model_validate(event).awslogs.decoded_data
    assert sample["logEvents"][0]["message"] == model.logEvents[0].message


def test_a_list_of_lines_is_enough():
    told = json.loads(logs_of(read(["one", {"message": "two", "timestamp": 7}]).payload))

    assert ("DATA_MESSAGE", "123456789012", "/bridge/logs", "webhook", ["logs"]) == tuple(
        told[name] for name in ("messageType", "owner", "logGroup", "logStream", "subscriptionFilters")
    )
    first, second = told["logEvents"]
    assert (1_600_000_000_500, "one", 7, "two") == (
        first["timestamp"], first["message"], second["timestamp"], second["message"],
    )  # fmt: skip
    assert [56, 56] == [len(first["id"]), len(second["id"])]
    assert first["id"] != second["id"]


def test_the_same_log_events_have_one_delivery_id_and_none_without_ids():
    sample = golden("vendors/cloudwatch-logs-unpacked.json")
    other = sample | {"logStream": "other"}

    assert read(sample).delivery_id == read(packed(sample)).delivery_id != read(other).delivery_id
    assert "" == read(["one"]).delivery_id


def test_the_same_batch_is_packed_the_same():
    batch = LogBatch(owner="1", group="g", stream="s", subscriptions=["f"], events=[("1", 2, "three")])

    assert logs_event(batch) == logs_event(batch)
    assert logs_json(batch) == logs_of(logs_event(batch))


SAMPLE = golden("vendors/cloudwatch-logs-unpacked.json")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "the body is no JSON object"),
        ({}, "neither awslogs nor logEvents is there"),
        ([], "logEvents is empty"),
        ({"logEvents": {}}, "logEvents is no list"),
        ([{"timestamp": 1}], "log event 0: message is missing"),
        (["a", {"message": 1}], "log event 1: message is no text"),
        ([{"message": "a", "timestamp": "now"}], "log event 0: timestamp is not in epoch milliseconds"),
        ([{"message": "a", "timestamp": -1}], "log event 0: timestamp is not in epoch milliseconds"),
        ([{"message": "a", "timestamp": True}], "log event 0: timestamp is not in epoch milliseconds"),
        ({"logEvents": ["a"], "subscriptionFilters": [1]}, "subscriptionFilters is no list of text"),
        ({"logEvents": ["a"], "owner": 1}, "owner is no text"),
        ({"awslogs": []}, "awslogs is no JSON object"),
        ({"awslogs": {}}, "awslogs.data is missing"),
        ({"awslogs": {"data": 1}}, "awslogs.data is no text"),
        ({"awslogs": {"data": "*"}}, "awslogs.data is not base64 of gzip"),
        ({"awslogs": {"data": "aGVsbG8="}}, "awslogs.data is not base64 of gzip"),
        ({"awslogs": {"data": ""}}, "awslogs.data is cut off"),
        (packed(b"hello"), "inside awslogs.data: the body is not JSON"),
        (packed({}), "inside awslogs.data: logEvents is no list"),
        (packed({"logEvents": ["a"]}), "inside awslogs.data: owner is missing"),
        (packed(SAMPLE | {"logEvents": []}), "inside awslogs.data: logEvents is empty"),
    ],
)
def test_what_are_no_log_events_is_said_in_one_line(value, text):
    with pytest.raises(Unreadable) as refusal:
        read(value)

    assert str(refusal.value).startswith(text)
    assert "\n" not in str(refusal.value)


def test_data_that_is_cut_off_or_goes_on_is_refused():
    whole = gzip.compress(json.dumps(SAMPLE).encode())
    for data in (whole[:-9], whole + b"x", whole + whole):
        with pytest.raises(Unreadable, match="cut off"):
            read({"awslogs": {"data": base64.b64encode(data).decode()}})


def test_a_bomb_is_not_unpacked_to_its_end():
    bomb = packed(b" " * (limits.LOGS_UNPACKED_MAX_BYTES + 1))

    with pytest.raises(Unreadable, match=f"unpacks to more than {limits.LOGS_UNPACKED_MAX_BYTES} bytes"):
        read(bomb)
    assert logs_of(json.dumps(bomb).encode()) is None


@settings(max_examples=150, deadline=None)
@given(
    st.data(), st.none() | st.integers() | st.text() | st.lists(st.text() | st.integers()) | st.just({}), st.booleans()
)
def test_log_events_with_any_member_of_any_kind_are_read_or_refused_in_one_line(data, value, is_packed):
    sample = json.loads(json.dumps(SAMPLE))
    place = data.draw(st.sampled_from([sample, sample["logEvents"][0]]))
    place[data.draw(st.sampled_from(sorted(place)))] = value
    try:
        event = read(packed(sample) if is_packed else sample)
    except Unreadable as error:
        assert "\n" not in str(error)
    else:
        assert json.loads(logs_of(event.payload))["logEvents"]


@settings(max_examples=150, deadline=None)
@given(st.binary())
def test_whatever_is_packed_is_read_or_refused_in_one_line(data):
    for value in (packed(data), {"awslogs": {"data": base64.b64encode(data).decode()}}):
        try:
            read(value)
        except Unreadable as error:
            assert "\n" not in str(error)
