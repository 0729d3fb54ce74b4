"""Targets of records as values of the file: `on_success`, `on_failure`, `dead_letter_config`."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator

from bridge.config.values import refuse
from bridge.core.arn import Arn, parse_arn
from bridge.core.function import NAME_PATTERN
from bridge.core.limits import TOPIC_MAX_CHARS
from bridge.core.mapping import parse_source
from bridge.core.outcome import LOCAL

TARGET_MAX_CHARS: Final = 350
"""API_OnFailure, Destination."""
_RESOURCES: Final[Mapping[str, re.Pattern[str]]] = {
    "sqs": re.compile(r"[A-Za-z0-9_-]{1,80}\Z"),
    "sns": re.compile(r"[A-Za-z0-9_-]{1,256}\Z"),
    "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z"),
    "events": re.compile(r"event-bus/[A-Za-z0-9._/-]{1,256}\Z"),
    "lambda": re.compile(r"function:[A-Za-z0-9_-]{1,64}(?::(?:\$LATEST|[A-Za-z0-9_-]{1,128}))?\Z"),
}
_TOPIC: Final = re.compile(rf"(?!\.{{1,2}}\Z)[A-Za-z0-9._-]{{1,{TOPIC_MAX_CHARS}}}\Z")
OF_FUNCTIONS: Final = ("sqs", "sns", "lambda", "events", "s3")
OF_MAPPINGS: Final = ("sqs", "sns", "s3")
OF_DEAD_LETTERS: Final = ("sqs", "sns")
_OR_TOPIC: Final = ", or kafka://CONNECTION/topic"


def read_target(target: str, *, services: tuple[str, ...]) -> Arn | None:
    """Check a target and return its ARN, None where it is a topic of Kafka's.

    Raises:
        PydanticCustomError: what is wrong with it, in AWS's words where it has some.
    """
    if target.startswith("kafka://"):
        try:
            address = parse_source(target)
        except ValueError:
            refuse("must be kafka://CONNECTION/topic, where CONNECTION is a [connections.X]")
        if not NAME_PATTERN.match(address.connection) or not _TOPIC.match(address.name):
            refuse("must be kafka://CONNECTION/topic, where CONNECTION is a [connections.X]")
        return None
    if not target.startswith("arn:"):
        refuse('must be "spill" (failures alone), an ARN or kafka://CONNECTION/topic')
    said = f"The destination ARN {target} is invalid."
    try:
        arn = parse_arn(target)
    except ValueError as error:
        refuse(f"{said} {str(error)[:1].upper()}{str(error)[1:]}")
    if arn.service not in services:
        refuse(f"{said} It must be of {_words(services)}" + _OR_TOPIC * (services != OF_DEAD_LETTERS))
    if arn.service in ("sqs", "sns") and arn.resource.endswith(".fifo"):
        refuse(
            f"{said} FIFO {'queues' if arn.service == 'sqs' else 'topics'} are not supported: it must be a standard one"
        )
    is_placed = not (arn.region or arn.account) if arn.service == "s3" else bool(arn.region and arn.account)
    if not is_placed or not _RESOURCES[arn.service].match(arn.resource):
        refuse(f"{said} Write it as {_EXAMPLES[arn.service]}")
    return arn


_EXAMPLES: Final[Mapping[str, str]] = {
    "sqs": "arn:aws:sqs:REGION:ACCOUNT:QUEUE",
    "sns": "arn:aws:sns:REGION:ACCOUNT:TOPIC",
    "s3": "arn:aws:s3:::BUCKET",
    "events": "arn:aws:events:REGION:ACCOUNT:event-bus/NAME",
    "lambda": "arn:aws:lambda:REGION:ACCOUNT:function:NAME",
}
_NAMES: Final[Mapping[str, str]] = {
    "sqs": "an SQS queue", "sns": "an SNS topic", "s3": "an S3 bucket", "events": "an EventBridge bus",
    "lambda": "a Lambda function",
}  # fmt: skip


def _words(services: tuple[str, ...]) -> str:
    *first, last = [_NAMES[service] for service in services]
    return f"{', '.join(first)} or {last}"


def _checked_success(target: str) -> str:
    if target == LOCAL:
        refuse("successes are not kept here: name a target, or leave it out")
    if target.startswith("arn:aws") and target.split(":")[2:3] == ["s3"]:
        refuse(f"The destination ARN {target} is invalid. A bucket gets failures alone: write it as on_failure")
    if target:
        read_target(target, services=OF_FUNCTIONS[:-1])
    return target


def _checked_failure(target: str) -> str:
    if target != LOCAL:
        read_target(target, services=OF_FUNCTIONS)
    return target


def _checked_dead_letters(target: str) -> str:
    if not target.startswith("arn:"):
        refuse("must be the ARN of an SQS queue or an SNS topic")
    read_target(target, services=OF_DEAD_LETTERS)
    return target


SuccessTarget: TypeAlias = Annotated[str, AfterValidator(_checked_success)]
FailureTarget: TypeAlias = Annotated[str, AfterValidator(_checked_failure)]
DeadLetterTarget: TypeAlias = Annotated[str, AfterValidator(_checked_dead_letters)]
