"""Mappings of Kinesis and DynamoDB streams in the file: every parameter of AWS's works, or is refused by name."""

import pytest

from bridge.config.mappings import mapping_values
from bridge.core.mapping import EventSourceMapping, StartingPosition, parse_source

AWS = '[connections.a]\ntype = "aws"\nregion = "eu-central-1"\n[functions.f]\ncode = "code"\nhandler = "app.handler"\n'
STREAM_ARN = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders"
CONSUMER_ARN = STREAM_ARN + "/consumer/fast:1579121551"
TABLE_ARN = "arn:aws:dynamodb:eu-central-1:123456789012:table/stock/stream/2026-01-01T00:00:00.000"
SOURCES = ["kinesis://a/orders", STREAM_ARN, CONSUMER_ARN, "dynamodb://a/stock", TABLE_ARN]
OF_DYNAMODB = ["dynamodb://a/stock", TABLE_ARN]


def mapping(source: str, *lines: str) -> str:
    return AWS + f'[mappings.m]\nsource = "{source}"\nfunction = "f"\n' + "\n".join(lines) + "\n"


@pytest.fixture
def only(load_text):
    def load(text: str) -> EventSourceMapping:
        (found,) = mapping_values(load_text(text).settings)
        return found

    return load


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("batch_size = 10000", "batch_size", 10_000),
        ("maximum_batching_window_s = 300", "maximum_batching_window_s", 300),
        ("parallelization_factor = 10", "parallelization_factor", 10),
        ('starting_position = "LATEST"', "starting_position", StartingPosition.LATEST),
        ("maximum_record_age_s = 60", "maximum_record_age_s", 60),
        ("maximum_retry_attempts = 0", "maximum_retry_attempts", 0),
        ("bisect_batch_on_function_error = true", "bisect_batch_on_function_error", True),
        ("tumbling_window_s = 900", "tumbling_window_s", 900),
        ('function_response_types = ["ReportBatchItemFailures"]', "reports_item_failures", True),
        ("maximum_concurrency = 3", "maximum_concurrency", 3),
        ("archive = true", "archive", True),
        ("allow_remote = true", "allow_remote", True),
        ("enabled = false", "enabled", False),
    ],
)
def test_what_aws_takes_is_taken(only, source, line, field, value):
    assert getattr(only(mapping(source, line)), field) == value


@pytest.mark.parametrize("source", SOURCES)
def test_the_defaults_are_awss(only, source):
    found = only(mapping(source))

    assert (found.batch_size, found.maximum_batching_window_s, found.parallelization_factor) == (100, 0.0, 1)
    assert (found.maximum_record_age_s, found.maximum_retry_attempts, found.archive) == (-1, -1, False)


def test_kinesis_begins_at_a_time(only):
    found = only(
        mapping(STREAM_ARN, 'starting_position = "AT_TIMESTAMP"', "starting_position_timestamp = 1700000000.5")
    )

    assert (found.starting_position, found.starting_position_timestamp) == (StartingPosition.AT_TIMESTAMP, 1700000000.5)


@pytest.mark.parametrize("source", OF_DYNAMODB)
def test_dynamodb_does_not(mistakes, source):
    found = mistakes(mapping(source, 'starting_position = "AT_TIMESTAMP"', "starting_position_timestamp = 1700000000"))

    assert len(found) == 1
    assert "mappings.m.starting_position: AT_TIMESTAMP: unsupported by DynamoDB streams (as on AWS)" in found[0]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (("tumbling_window_s = 5", "parallelization_factor = 2"), "tumbling_window_s: not together with a parallelization_factor above 1"),
        (('consumer_group_id = "g"',), "consumer_group_id: only for kafka://"),
        (('isolation_level = "read_committed"',), "isolation_level: only for kafka://"),
        (("shards = 7",), "shards: only for push sources and local://"),
        (('key = "body:id"',), "key: only for push sources"),
        (("ProvisionedPollerConfig = 1",), "ProvisionedPollerConfig: provisioned pollers are not offered"),
    ],
)  # fmt: skip
def test_what_does_not_belong_is_refused_by_name(mistakes, source, lines, wrong):
    found = mistakes(mapping(source, *lines))

    assert len(found) == 1
    assert f"mappings.m.{wrong}" in found[0]


def test_plain_text_cannot_be_asked_of_data_that_is_json(mistakes):
    (found,) = mistakes(mapping(STREAM_ARN, 'filters = [\'{"data": ["a"]}\']'))

    assert "mappings.m.filters[0]: not a filter pattern: " in found


@pytest.mark.parametrize(("source", "shown"), [(STREAM_ARN, STREAM_ARN), (TABLE_ARN, TABLE_ARN)])
def test_the_same_stream_and_function_twice_is_a_conflict_in_awss_words(mistakes, source, shown):
    uuid = EventSourceMapping(name="m", source="", function="").uuid

    (found,) = mistakes(mapping(source) + f'[mappings.n]\nsource = "{source}"\nfunction = "f"\n')

    assert (
        f'The event source arn (" {shown} ") and function (" f ") provided mapping already exists. '
        f"Please update or delete the existing mapping with UUID {uuid}" in found
    )


def test_a_consumers_arn_is_the_streams():
    assert parse_source(CONSUMER_ARN).name == "orders"
    assert parse_source(CONSUMER_ARN).arn == CONSUMER_ARN
