"""What is asked of AWS for each record, and what is made of its answers."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import orjson
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from bridge.core.arn import parse_arn
from bridge.core.errors import ConfigError
from bridge.core.invocation import Condition, DeadLetter
from bridge.core.outcome import OutboxEntry, OutcomeKind, RecordRefused, TargetPlace, TargetTrouble
from bridge.destinations.aws import SNS_MAX_BYTES, AwsTarget, aws_service
from bridge.events.outcomes import failure_outcome, object_key, success_record

FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:f"
ARNS = {
    "sqs": "arn:aws:sqs:eu-central-1:123456789012:q",
    "sns": "arn:aws:sns:eu-central-1:123456789012:t",
    "s3": "arn:aws:s3:::bucket",
    "events": "arn:aws:events:eu-central-1:123456789012:event-bus/b",
    "lambda": "arn:aws:lambda:eu-central-1:123456789012:function:other",
}
RECORD = success_record(
    request_id="1", function_arn=FUNCTION, attempts=1, payload=b'{"n":1}', version="3", response=b"2", time=0.0
)


class Client:
    """A client that keeps what it was asked, and answers or raises as it was told."""

    def __init__(self, answer: object = None) -> None:
        self.meta = SimpleNamespace(endpoint_url="http://127.0.0.1:4566/")
        self.calls: list[tuple[str, dict]] = []
        self.answer = answer if answer is not None else {}

    def __getattr__(self, operation: str):
        async def call(**arguments):
            self.calls.append((operation, arguments))
            if isinstance(self.answer, Exception):
                raise self.answer
            if self.answer == "silence":
                await asyncio.Event().wait()
            return self.answer

        return call


def entry(kind=OutcomeKind.ON_SUCCESS, **more):
    place = TargetPlace(target="arn")
    record = RECORD if kind is OutcomeKind.ON_SUCCESS else b""
    return OutboxEntry(
        **{"place": place, "kind": kind, "id": "1", "function": "f", "created_at": 0.0, "record": record} | more
    )


def letter(**more):
    made = DeadLetter(
        **{
            "id": "1", "queue": "default", "function": "f", "source": "s", "received_at": 0.0, "dead_at": 0.0,
            "condition": Condition.RETRIES_EXHAUSTED, "attempts": 3, "payload": b'{"n" : 1}', "error_type": "ValueError",
            "error_message": "boom", "response": b"{}",
        } | more
    )  # fmt: skip
    return replace(made, outcome=failure_outcome(made, function_arn=FUNCTION))


def target(service: str, client: Client, **more) -> AwsTarget:
    async def made():
        return client

    arn = ARNS[service]
    return AwsTarget(arn, aws_service(parse_arn(arn), source="lambda", daemon="d"), client=made, **more)


async def asked(service: str, one: OutboxEntry, its=None) -> tuple[str, dict]:
    client = Client()
    await target(service, client).send(one, its)
    (call,) = client.calls
    return call


async def test_a_queue_is_sent_a_message_at_the_url_that_its_arn_makes():
    assert await asked("sqs", entry()) == (
        "send_message",
        {"QueueUrl": "http://127.0.0.1:4566/123456789012/q", "MessageBody": RECORD.decode()},
    )


@pytest.mark.parametrize(("service", "text"), [("sqs", "MessageBody"), ("sns", "Message")])
async def test_a_dead_letter_is_the_event_with_attributes(service, text):
    _, arguments = await asked(service, entry(OutcomeKind.DEAD_LETTER), letter())

    assert arguments[text] == '{"n" : 1}'
    assert arguments["MessageAttributes"]["ErrorCode"] == {"DataType": "Number", "StringValue": "200"}


async def test_a_topic_is_published_to():
    assert await asked("sns", entry()) == ("publish", {"TopicArn": ARNS["sns"], "Message": RECORD.decode()})


async def test_a_bucket_gets_an_object_with_the_payload():
    its = letter(mapping="m", payload=b'{"Records":[]}')
    operation, arguments = await asked("s3", entry(OutcomeKind.ON_FAILURE), its)

    assert (operation, arguments["Bucket"], arguments["Key"]) == ("put_object", "bucket", object_key(its))
    assert orjson.loads(arguments["Body"])["payload"] == {"Records": []}


async def test_a_bus_gets_an_entry():
    operation, arguments = await asked("events", entry())

    (one,) = arguments["Entries"]
    assert (operation, one["EventBusName"], one["Source"], one["Detail"]) == (
        "put_events", ARNS["events"], "lambda", RECORD.decode(),
    )  # fmt: skip


async def test_a_function_is_invoked_with_the_record_as_its_event():
    assert await asked("lambda", entry()) == (
        "invoke",
        {"FunctionName": ARNS["lambda"], "InvocationType": "Event", "Payload": RECORD},
    )


HEADER = "Root=1-a-b;Lineage=24d8ebbc:3|0a1b2c3d:1"


async def test_the_trace_header_goes_with_a_record():
    client = Client()
    for service in ("sqs", "events"):
        await target(service, client, trace=lambda _entry, _letter: HEADER).send(entry(), None)
    (_, queue), (_, bus) = client.calls
    assert queue["MessageSystemAttributes"] == {"AWSTraceHeader": {"DataType": "String", "StringValue": HEADER}}
    assert bus["Entries"][0]["TraceHeader"] == HEADER
    long = Client()
    await target("events", long, trace=lambda _entry, _letter: HEADER + "x" * 500).send(entry(), None)
    assert "TraceHeader" not in long.calls[0][1]["Entries"][0]


def test_nothing_else_is_a_target():
    with pytest.raises(ConfigError, match="is invalid"):
        aws_service(parse_arn("arn:aws:kinesis:eu-central-1:123456789012:stream/s"), source="", daemon="")


# --- answers ---------------------------------------------------------------------------------------------------------


def refusal(code: str, message: str = "no", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Send"
    )


@pytest.mark.parametrize(
    "error",
    [
        refusal("InvalidParameterValue", "One or more parameters are invalid. Reason: Message must be shorter than 262144 bytes."),
        refusal("InvalidParameter", "Invalid parameter: Message too long"),
        refusal("InvalidMessageContents", "Invalid characters found"),
        refusal("RequestEntityTooLargeException", status=413),
    ],
)  # fmt: skip
async def test_what_a_target_will_never_take_is_refused(error):
    with pytest.raises(RecordRefused):
        await target("sqs", Client(error)).send(entry(), None)


@pytest.mark.parametrize(
    "error",
    [
        refusal("AccessDenied", status=403), refusal("AWS.SimpleQueueService.NonExistentQueue"),
        refusal("ThrottlingException"), refusal("InternalFailure", status=500), refusal("InvalidParameter"),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:4566"), ConnectionResetError(), ValueError("odd"),
        "silence",
    ],
)  # fmt: skip
async def test_everything_else_is_trouble_that_may_end(error):
    with pytest.raises(TargetTrouble, match=ARNS["sqs"]):
        await target("sqs", Client(error), send_max_s=0.05).send(entry(), None)


async def test_what_a_target_asks_to_wait_is_told():
    error = refusal("ThrottlingException")
    error.response["ResponseMetadata"]["HTTPHeaders"] = {"retry-after": "7"}

    with pytest.raises(TargetTrouble) as caught:
        await target("sqs", Client(error)).send(entry(), None)

    assert caught.value.retry_after_s == 7


async def test_an_entry_that_a_bus_did_not_take_was_not_sent():
    answer = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "try again"}]}

    with pytest.raises(TargetTrouble, match="InternalFailure: try again"):
        await target("events", Client(answer)).send(entry(), None)


async def test_what_is_known_to_be_too_large_is_not_even_sent():
    client = Client()
    large = success_record(
        request_id="1", function_arn=FUNCTION, attempts=1, payload=b'"%b"' % (b"x" * SNS_MAX_BYTES), version="3",
        response=b"2", time=0.0,
    )  # fmt: skip

    with pytest.raises(RecordRefused, match="sns takes 262144"):
        await target("sns", client).send(entry(record=large), None)
    assert client.calls == []
    await target("sqs", client).send(entry(record=large), None)
    await target("sns", client).send(entry(record=large, is_pointer=True), None)
    assert orjson.loads(client.calls[1][1]["Message"])["bridge"]["event"] == "1"
