"""Targets of records in the file: what may be written, what AWS refuses in which words, and who reaches what."""

import pytest

from bridge.config.functions import function_specs
from bridge.config.mappings import mapping_values
from tests.unit.config.test_aws import AWS, lines
from tests.unit.config.test_local import localised

GOOD = '[functions.hello]\ncode = "code"\nhandler = "app.handler"\n'

SQS = "arn:aws:sqs:eu-central-1:123456789012:failed"
SNS = "arn:aws:sns:eu-central-1:123456789012:failed"
BUS = "arn:aws:events:eu-central-1:123456789012:event-bus/default"
LAMBDA = "arn:aws:lambda:eu-central-1:123456789012:function:other:live"
BUCKET = "arn:aws:s3:::failed-events"
KAFKA = '[connections.k]\ntype = "kafka"\nbootstrap_servers = ["k:9092"]\n'
MAPPING = '[mappings.m]\nsource = "local://s?as=kafka"\nfunction = "hello"\n'


def function(**event_invoke: str) -> str:
    """Return a file with one function whose events end so."""
    return GOOD + "[functions.hello.event_invoke]\n" + "".join(f"{k} = '{v}'\n" for k, v in event_invoke.items())


def told(found: list[str]) -> list[str]:
    """Return what is wrong, without where."""
    return [line.partition(": ")[2].partition(": ")[2] for line in found]


@pytest.mark.parametrize("target", [SQS, SNS, BUS, LAMBDA, "kafka://k/done"])
def test_what_may_be_told_of_successes_and_failures(load_text, target):
    (spec,) = function_specs(load_text(KAFKA + function(on_success=target, on_failure=target)).settings)

    assert (spec.event_invoke.on_success, spec.event_invoke.on_failure) == (target, target)


def test_a_bucket_gets_failures_alone(load_text, mistakes):
    (spec,) = function_specs(load_text(function(on_failure=BUCKET)).settings)
    assert spec.event_invoke.on_failure == BUCKET

    assert told(lines(mistakes(function(on_success=BUCKET)))) == [
        f"The destination ARN {BUCKET} is invalid. A bucket gets failures alone: write it as on_failure"
    ]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("drop", 'must be "spill" (failures alone), an ARN or kafka://CONNECTION/topic'),
        ("arn:x", "The destination ARN arn:x is invalid. Must be an ARN: arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE"),
        (SQS + ".fifo", f"The destination ARN {SQS}.fifo is invalid. FIFO queues are not supported: it must be a standard one"),
        (SNS + ".fifo", f"The destination ARN {SNS}.fifo is invalid. FIFO topics are not supported: it must be a standard one"),
        ("arn:aws:sqs::123456789012:q", "The destination ARN arn:aws:sqs::123456789012:q is invalid. Write it as arn:aws:sqs:REGION:ACCOUNT:QUEUE"),
        ("arn:aws:s3:eu-central-1:123456789012:b-1", "The destination ARN arn:aws:s3:eu-central-1:123456789012:b-1 is invalid. Write it as arn:aws:s3:::BUCKET"),
        ("arn:aws:kinesis:eu-central-1:123456789012:stream/s", "The destination ARN arn:aws:kinesis:eu-central-1:123456789012:stream/s is invalid. It must be of an SQS queue, an SNS topic, a Lambda function, an EventBridge bus or an S3 bucket, or kafka://CONNECTION/topic"),
        ("kafka://k", "must be kafka://CONNECTION/topic, where CONNECTION is a [connections.X]"),
        ("kafka://nobody/t", "no connection nobody here; write [connections.X], or the address: kafka://host:port/topic"),
        ("arn:aws:lambda:us-east-1:000000000000:function:hello", "You can't specify the function as a destination for itself."),
        ("arn:aws:lambda:us-east-1:000000000000:function:hello:$LATEST", "You can't specify the function as a destination for itself."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["on_success", "on_failure"])
def test_what_is_refused_of_a_function(mistakes, key, target, text):
    if key == "on_success" and ":s3:" in target:
        text = f"The destination ARN {target} is invalid. A bucket gets failures alone: write it as on_failure"
    elif key == "on_success":
        text = text.replace(
            ", a Lambda function, an EventBridge bus or an S3 bucket", ", a Lambda function or an EventBridge bus"
        )

    assert told(lines(mistakes(function(**{key: target})))) == [text]


def test_successes_are_not_kept_here(mistakes):
    assert told(lines(mistakes(function(on_success="spill")))) == [
        "successes are not kept here: name a target, or leave it out"
    ]


def test_itself_is_meant_in_the_region_and_account_of_the_file(load_text):
    own = "arn:aws:lambda:eu-central-1:123456789012:function:hello"
    load_text(function(on_failure=own))  # a namesake elsewhere

    with pytest.raises(Exception, match="destination for itself"):
        load_text('region = "eu-central-1"\naccount = "123456789012"\n' + function(on_failure=own))


# --- dead_letter_config ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [SQS, SNS])
def test_a_dead_letter_target(load_text, target):
    (spec,) = function_specs(
        load_text(GOOD + f'connection = "a"\ndead_letter_config = {{ target_arn = "{target}" }}\n' + AWS).settings
    )

    assert (spec.dead_letter_target, spec.connection) == (target, "a")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (BUS, f"The destination ARN {BUS} is invalid. It must be of an SQS queue or an SNS topic"),
        ("kafka://k/t", "must be the ARN of an SQS queue or an SNS topic"),
        ("spill", "must be the ARN of an SQS queue or an SNS topic"),
        (SQS + ".fifo", f"The destination ARN {SQS}.fifo is invalid. FIFO queues are not supported: it must be a standard one"),
    ],
)  # fmt: skip
def test_what_is_refused_of_it(mistakes, target, text):
    found = lines(mistakes(KAFKA + GOOD + f"dead_letter_config = {{ target_arn = '{target}' }}\n"))

    assert told(found) == [text]


# --- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "text"),
    [
        ("b", 'no connection b here; write [connections.X] with type = "aws"'),
        ("k", "connections.k is a cluster of Kafka, not AWS"),
        ("far", "connections.far is in us-east-1, the ARN in eu-central-1"),
    ],
)  # fmt: skip
def test_the_connection_has_to_reach_the_target(mistakes, connection, text):
    far = AWS.replace(".a]", ".far]").replace("eu-central-1", "us-east-1")
    one = GOOD + f'connection = "{connection}"\ndead_letter_config = {{ target_arn = "{SQS}" }}\n' + KAFKA + AWS + far

    assert told(lines(mistakes(one))) == [text]


def test_a_bucket_is_reached_from_everywhere(load_text):
    load_text(GOOD + f'connection = "a"\nevent_invoke = {{ on_failure = "{BUCKET}" }}\n' + AWS)


# --- mappings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [SQS, SNS, BUCKET])
def test_failures_of_a_mapping(load_text, target):
    text = GOOD + AWS + MAPPING + f'on_failure = "{target}"\nconnection = "a"\n'
    (mapping,) = mapping_values(load_text(text).settings)

    assert (mapping.on_failure, mapping.connection) == (target, "a")


@pytest.mark.parametrize("target", [BUS, LAMBDA])
def test_a_mapping_takes_no_other(mistakes, target):
    said = f"The destination ARN {target} is invalid. It must be of an SQS queue, an SNS topic or an S3 bucket, "

    assert told(lines(mistakes(GOOD + MAPPING + f'on_failure = "{target}"\n'))) == [
        said + "or kafka://CONNECTION/topic"
    ]


# --- where a file is only tried --------------------------------------------------------------------------------------


def test_tried_locally_functions_tell_only_each_other(folder):
    other = GOOD.replace("hello]", "other]", 1)
    here = "arn:aws:lambda:us-east-1:000000000000:function:other"
    text = other + GOOD + 'connection = "a"\n' + f'dead_letter_config = {{ target_arn = "{SQS}" }}\n'
    text += f'[functions.hello.event_invoke]\non_success = "{here}"\non_failure = "{SQS}"\n' + AWS + MAPPING
    text += f'on_failure = "{SNS}"\n'
    settings = localised(folder, text)
    (hello,) = (spec for spec in function_specs(settings) if spec.name == "hello")

    assert (hello.event_invoke.on_success, hello.event_invoke.on_failure, hello.dead_letter_target) == (
        here,
        "spill",
        "",
    )
    assert [mapping.on_failure for mapping in mapping_values(settings)] == ["spill"]
