"""SQS, SNS, S3 and EventBridge as targets of records: one call each, one attempt, its error said in our words."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from bridge.aws.errors import AwsTroubleKind, trouble
from bridge.aws.trace import sending
from bridge.core import limits
from bridge.core.arn import Arn
from bridge.core.errors import ConfigError
from bridge.core.invocation import DeadLetter
from bridge.core.outcome import OutboxEntry, OutcomeKind, RecordRefused, TargetTrouble
from bridge.events.outcomes import bus_entry, dead_letter_body, message_attributes, object_key, record_of

SEND_MAX_S: Final = 20.0
"""One record is taken within it, connecting included, or counts as not taken."""
SQS_MAX_BYTES: Final = 1024 * 1024
"""Body and attributes (since August 2025; 256 KiB before, and where a queue's MaximumMessageSize says so)."""
SNS_MAX_BYTES: Final = 256 * 1024
BUS_MAX_BYTES: Final = 1024 * 1024
"""Of one entry of PutEvents; a service whose limit is lower says so itself."""
EVENT_MAX_BYTES: Final = 1024 * 1024
"""Of an asynchronous event of Lambda's."""

Client = Callable[[], Awaitable[Any]]
"""Returns the long-lived client of the target's service."""

_REFUSED_CODES: Final = frozenset({"InvalidMessageContents", "AWS.SimpleQueueService.InvalidMessageContents"})
"""Beside what is too large: the record holds what the target may not take, which waiting does not change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, ready to be made."""

    arguments: dict[str, Any]
    size: int
    """Bytes that count against the target's limit."""


Form = Callable[[OutboxEntry, DeadLetter | None, str], Call]
"""Forms the request of a record; the last argument is the client's endpoint."""
Trace = Callable[[OutboxEntry, DeadLetter | None], str]
"""Returns the trace header that goes with a record; empty: none."""
_BUS_TRACE_MAX_CHARS: Final = 500
"""API_PutEventsRequestEntry, TraceHeader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What differs between the services: how it is called, what it takes."""

    name: str
    """boto's."""
    operation: str
    form: Form
    bytes_max: int | None = None
    add_trace: Callable[[dict[str, Any], str], None] | None = None
    """Puts a trace header into the arguments of a call; None: it is a header of the request."""


class AwsTarget:
    """`outcome.Transport` over one operation of one service."""

    def __init__(
        self,
        target: str,
        service: Service,
        *,
        client: Client,
        send_max_s: float = SEND_MAX_S,
        trace: Trace = lambda _entry, _letter: "",
    ) -> None:
        self._target = target
        self._service = service
        self._client = client
        self._send_max_s = send_max_s
        self._trace = trace
        self.concurrency = limits.TARGET_SENDS_MAX

    async def send(self, entry: OutboxEntry, letter: DeadLetter | None) -> None:
        """Return once the service has answered that it has it."""
        try:
            async with asyncio.timeout(self._send_max_s):
                client = await self._client()
                call = self._service.form(entry, letter, str(client.meta.endpoint_url))
                if self._service.bytes_max is not None and call.size > self._service.bytes_max:
                    raise RecordRefused(f"{call.size} bytes; {self._service.name} takes {self._service.bytes_max}")
                trace = self._trace(entry, letter)
                if trace and self._service.add_trace is not None:
                    self._service.add_trace(call.arguments, trace)
                    trace = ""
                with sending(client, trace):
                    answer = await getattr(client, self._service.operation)(**call.arguments)
        except TimeoutError as error:
            raise TargetTrouble(f"{self._target}: no answer within {self._send_max_s:g} s") from error
        except (RecordRefused, ConfigError):
            raise
        except Exception as error:  # boto's own and aiohttp's: trouble() knows them, of others the outcome is unknown
            raise self._translated(error) from error
        self._look_at(answer)

    def _translated(self, error: Exception) -> RecordRefused | TargetTrouble:
        found = trouble(error)
        if found.kind is AwsTroubleKind.TOO_LARGE or found.code in _REFUSED_CODES:
            return RecordRefused(found.message)
        return TargetTrouble(f"{self._target}: {found.message}", retry_after_s=found.retry_after_s or 0.0)

    def _look_at(self, answer: Any) -> None:
        """Raise where a 200 says that it was not taken: PutEvents, a function's own refusal."""
        for one in answer.get("Entries", ()) if isinstance(answer, dict) else ():
            if code := one.get("ErrorCode"):
                text = f"{code}: {one.get('ErrorMessage', '')}"
                raise TargetTrouble(f"{self._target}: {text}")


def aws_service(arn: Arn, *, source: str, daemon: str) -> Service:
    """Return how records are sent to what an ARN names.

    Args:
        arn: of a queue, topic, bucket, bus or function.
        source: of entries of a bus.
        daemon: named in pointers.

    Raises:
        ConfigError: no target is named so.
    """
    match arn.service:
        case "sqs":
            return Service(
                name="sqs", operation="send_message", form=_queue_form(arn, daemon), bytes_max=SQS_MAX_BYTES,
                add_trace=_trace_message,
            )  # fmt: skip
        case "sns":
            return Service(name="sns", operation="publish", form=_topic_form(arn, daemon), bytes_max=SNS_MAX_BYTES)
        case "s3":
            return Service(name="s3", operation="put_object", form=_bucket_form(arn, daemon))
        case "events":
            return Service(
                name="events", operation="put_events", form=_bus_form(arn, source, daemon), bytes_max=BUS_MAX_BYTES,
                add_trace=_trace_entry,
            )  # fmt: skip
        case "lambda":
            return Service(
                name="lambda", operation="invoke", form=_function_form(arn, daemon), bytes_max=EVENT_MAX_BYTES
            )
    raise ConfigError(f"The destination ARN {arn} is invalid.")


# --- forms ----------------------------------------------------------------------------------------------------------
def _message(entry: OutboxEntry, letter: DeadLetter | None, daemon: str) -> tuple[str, dict[str, dict[str, str]], int]:
    """Return text, attributes and size of a message: SQS and SNS count them alike."""
    attributes: dict[str, dict[str, str]] = {}
    if entry.kind is OutcomeKind.DEAD_LETTER:
        assert letter is not None
        body, attributes = dead_letter_body(entry, letter, daemon=daemon), message_attributes(letter)
    else:
        body = record_of(entry, letter, with_payload=False, daemon=daemon)
    size = len(body) + sum(
        len(name) + sum(len(text.encode()) for text in value.values()) for name, value in attributes.items()
    )
    return body.decode("utf-8", "replace"), attributes, size


def _queue_form(arn: Arn, daemon: str) -> Form:
    def form(entry: OutboxEntry, letter: DeadLetter | None, endpoint: str) -> Call:
        text, attributes, size = _message(entry, letter, daemon)
        # Put together instead of asked for: sqs:SendMessage alone is enough, as on AWS.
        url = f"{endpoint.rstrip('/')}/{arn.account}/{arn.resource}"
        arguments: dict[str, Any] = {"QueueUrl": url, "MessageBody": text}
        return Call(arguments=arguments | ({"MessageAttributes": attributes} if attributes else {}), size=size)

    return form


def _trace_message(arguments: dict[str, Any], header: str) -> None:
    # It does not count against the size of a message (API_SendMessage).
    arguments["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}


def _trace_entry(arguments: dict[str, Any], header: str) -> None:
    if len(header) <= _BUS_TRACE_MAX_CHARS:
        arguments["Entries"][0]["TraceHeader"] = header


def _topic_form(arn: Arn, daemon: str) -> Form:
    def form(entry: OutboxEntry, letter: DeadLetter | None, endpoint: str) -> Call:
        del endpoint
        text, attributes, size = _message(entry, letter, daemon)
        arguments: dict[str, Any] = {"TopicArn": str(arn), "Message": text}
        return Call(arguments=arguments | ({"MessageAttributes": attributes} if attributes else {}), size=size)

    return form


def _bucket_form(arn: Arn, daemon: str) -> Form:
    def form(entry: OutboxEntry, letter: DeadLetter | None, endpoint: str) -> Call:
        del endpoint
        assert letter is not None, "a bucket gets failures alone"
        body = record_of(entry, letter, with_payload=True, daemon=daemon)
        arguments = {
            "Bucket": arn.resource, "Key": object_key(letter), "Body": body, "ContentType": "application/json",
        }  # fmt: skip
        return Call(arguments=arguments, size=len(body))

    return form


def _bus_form(arn: Arn, source: str, daemon: str) -> Form:
    def form(entry: OutboxEntry, letter: DeadLetter | None, endpoint: str) -> Call:
        del endpoint
        made = bus_entry(entry, letter, bus_arn=str(arn), source=source, daemon=daemon)
        # As AWS counts an entry: 14 bytes of time, then its texts (eb-putevents.html).
        texts = [made["Source"], made["DetailType"], made["Detail"], *made["Resources"]]
        return Call(arguments={"Entries": [made]}, size=14 + sum(len(text.encode()) for text in texts))

    return form


def _function_form(arn: Arn, daemon: str) -> Form:
    def form(entry: OutboxEntry, letter: DeadLetter | None, endpoint: str) -> Call:
        del endpoint
        record = record_of(entry, letter, with_payload=False, daemon=daemon)
        arguments = {"FunctionName": str(arn), "InvocationType": "Event", "Payload": record}
        return Call(arguments=arguments, size=len(record))

    return form
