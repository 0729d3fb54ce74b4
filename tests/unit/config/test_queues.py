"""Mappings of SQS queues in a file: their defaults, what AWS refuses of them, what they do not have."""

import pytest

from bridge.config.mappings import mapping_values

FUNCTION = '[functions.f]\ncode = "code"\nhandler = "app.handler"\n'
AWS = '[connections.c]\ntype = "aws"\nregion = "eu-central-1"\n'
QUEUE = FUNCTION + AWS + '\n[mappings.m]\nsource = "sqs://c/jobs"\nfunction = "f"\n'
"""10 lines."""
FIFO = QUEUE.replace("jobs", "jobs.fifo")


def one(settings):
    (mapping,) = mapping_values(settings)
    return mapping


def test_defaults(load_text):
    made = one(load_text(QUEUE).settings)

    assert (10, 0.0, True) == (made.batch_size, made.maximum_batching_window_s, made.archive)
    assert load_text(QUEUE).warnings == ()


def test_a_queue_is_named_by_its_arn_too(load_text):
    text = QUEUE.replace("sqs://c/jobs", "arn:aws:sqs:eu-central-1:123456789012:jobs")

    assert one(load_text(text).settings).archive


def test_everything_a_queue_can_have(load_text):
    made = one(
        load_text(
            QUEUE
            + "enabled = false\nbatch_size = 10000\nmaximum_batching_window_s = 300\nmaximum_concurrency = 2\n"
            + "function_response_types = ['ReportBatchItemFailures']\nfilters = ['{\"body\": {\"n\": [1]}}']\n"
            + "archive = true\nallow_remote = true\n"
        ).settings
    )

    assert (10_000, 300, 2, True) == (
        made.batch_size, made.maximum_batching_window_s, made.maximum_concurrency, made.reports_item_failures,
    )  # fmt: skip


def test_turning_the_archive_off_is_said_to_end_replay(load_text):
    loaded = load_text(QUEUE + "archive = false\n")

    assert not one(loaded.settings).archive
    assert "11: mappings.m.archive: nothing of this queue can be replayed" in str(loaded.warnings[0])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (QUEUE + "batch_size = 11", "11: mappings.m.batch_size: Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
        (QUEUE + "batch_size = 11\nmaximum_batching_window_s = 0.5", "11: mappings.m.batch_size: Maximum batch window"),
        (FIFO + "batch_size = 11", "11: mappings.m.batch_size: at most 10 for a FIFO queue"),
        (FIFO + "maximum_batching_window_s = 1", "11: mappings.m.maximum_batching_window_s: FIFO queues have no batching window"),
        (QUEUE + "on_failure = 'kafka://c/t'", "11: mappings.m.on_failure: Unsupported DestinationConfig parameter for given event source mapping type."),
        (QUEUE + "starting_position = 'LATEST'", "11: mappings.m.starting_position: SQS has none"),
        (QUEUE + "parallelization_factor = 2", "11: mappings.m.parallelization_factor: SQS has none"),
        (QUEUE + "bisect_batch_on_function_error = true", "11: mappings.m.bisect_batch_on_function_error: SQS has none"),
        (QUEUE + "maximum_retry_attempts = 3", "11: mappings.m.maximum_retry_attempts: SQS has none: maxReceiveCount"),
        (QUEUE + "maximum_record_age_s = 60", "11: mappings.m.maximum_record_age_s: SQS has none"),
        (QUEUE + "tumbling_window_s = 60", "11: mappings.m.tumbling_window_s: SQS has none"),
        (QUEUE + "consumer_group_id = 'x'", "11: mappings.m.consumer_group_id: only for kafka://"),
        (QUEUE + "maximum_concurrency = 1001", "11: mappings.m.maximum_concurrency: must be at most 1000"),
        (QUEUE.replace("c/jobs", "d/jobs"), "9: mappings.m.source: no connection d here"),
    ],
)  # fmt: skip
def test_the_line_of_a_mistake(mistakes, text, line):
    found = mistakes(text)

    assert any(each.startswith("bridge.toml:" + line) for each in found), found


def test_the_same_queue_and_function_twice_is_refused_in_aws_words(mistakes):
    (found,) = mistakes(QUEUE + '[mappings.n]\nsource = "sqs://c/jobs"\nfunction = "f"\n')

    assert 'An event source mapping with SQS arn (" jobs ") and function (" f ") already exists.' in found
