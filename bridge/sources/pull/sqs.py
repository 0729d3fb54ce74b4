"""SQS queues, standard and FIFO, over a client of aiobotocore: one attempt per call, errors by what they mean."""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from bridge.aws.errors import AwsTroubleKind, trouble
from bridge.aws.raw import RAW, take_raw
from bridge.core.errors import SourceError, SourceMissing
from bridge.core.queues import Message, QueueFacts, QueueSource, Refused
from bridge.core.sources import EventShape
from bridge.events.sqs import SqsShape, record_fragment

Client = Callable[[], Awaitable[Any]]
"""Returns the client; the same one each time. Its read timeout is above the 20 s of a long poll."""

CALL_MAX_S: Final = 15.0
"""A call that does not wait for messages is given up after so long; its outcome is not known then."""
_POLL_SPARE_S: Final = 15.0
_ATTEMPTS_MAX: Final = 16
_OFTEN: Final = {
    "receive_message": "ReceiveMessage",
    "delete_message_batch": "DeleteMessageBatch",
    "change_message_visibility_batch": "ChangeMessageVisibilityBatch",
}
"""What is called for every ten messages: its answers pass botocore's parser by."""
_FIFO: Final = ".fifo"


class SqsQueue:
    """`sources.QueueOrigin`.

    Args:
        client: gives the client.
        name: the queue's.
        region: shown in events until the queue has said its ARN.
        account: whose queue it is, where that is another account's; empty: the client's.
        is_remote: whether the endpoint is more than this machine's.
    """

    has_archive = False

    def __init__(self, client: Client, *, name: str, region: str, account: str = "", is_remote: bool = True) -> None:
        self.shape: EventShape = SqsShape(f"arn:aws:sqs:{region}:{account}:{name}")
        self.is_remote = is_remote
        self._client = client
        self._name = name
        self._account = account

    def consumer(self) -> QueueSource:
        """Return a reader. See sources.QueueOrigin."""
        return _Consumer(self._client, name=self._name, account=self._account)


class _Consumer:
    """`queues.QueueSource`."""

    def __init__(self, client: Client, *, name: str, account: str) -> None:
        self._make = client
        self._name = name
        self._account = account
        self._url = ""
        self._tail = b""
        self._is_fifo = name.endswith(_FIFO)
        self._attempts: list[str] = []
        """Of receives of a FIFO queue that failed: asking with the same id brings what one of them took."""

    async def open(self) -> QueueFacts:
        """Find the queue and look at it. See queues.QueueSource."""
        self._url = await queue_url(self._make, self._name, account=self._account)
        facts = await self.look()
        self._tail = SqsShape(facts.arn).tail
        return facts

    async def look(self) -> QueueFacts:
        """Return its attributes and approximate counts. See queues.QueueSource."""
        answer = await self._call("get_queue_attributes", QueueUrl=self._url, AttributeNames=["All"])
        return _facts(answer.get("Attributes") or {}, name=self._name)

    async def receive(self, *, records_max: int, wait_s: float, hidden_s: float) -> Sequence[Message]:
        """Poll. See queues.QueueSource."""
        wait = min(20, math.ceil(wait_s))
        attempt = {}
        if self._is_fifo:
            attempt = {"ReceiveRequestAttemptId": self._attempts.pop() if self._attempts else str(uuid.uuid4())}
        try:
            answer = await self._call(
                "receive_message",
                timeout_s=wait + _POLL_SPARE_S,
                QueueUrl=self._url,
                MaxNumberOfMessages=records_max,
                WaitTimeSeconds=wait,
                VisibilityTimeout=math.ceil(hidden_s),
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
                **attempt,
            )
        except SourceError:
            if attempt and len(self._attempts) < _ATTEMPTS_MAX:
                self._attempts += attempt.values()
            raise
        return [self._message(message) for message in answer.get("Messages") or ()]

    def _message(self, message: Mapping[str, Any]) -> Message:
        attributes = message.get("Attributes") or {}
        return Message(
            id=message["MessageId"],
            receipt=message["ReceiptHandle"],
            body=message["Body"].encode("utf-8", "surrogatepass"),
            fragment=record_fragment(message, self._tail),
            group=attributes.get("MessageGroupId", "") if self._is_fifo else "",
            receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
            sent_at=int(attributes.get("SentTimestamp", 0)) / 1000,
            trace_header=attributes.get("AWSTraceHeader", ""),
        )

    async def delete(self, messages: Sequence[Message]) -> Refused:
        """Delete them in one call. See queues.QueueSource."""
        entries = [{"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(messages)]
        answer = await self._call("delete_message_batch", QueueUrl=self._url, Entries=entries)
        return _refused(answer, messages)

    async def hide(self, changes: Sequence[tuple[Message, float]]) -> Refused:
        """Change their visibility in one call. See queues.QueueSource."""
        entries = [
            {"Id": str(n), "ReceiptHandle": message.receipt, "VisibilityTimeout": math.ceil(seconds)}
            for n, (message, seconds) in enumerate(changes)
        ]
        answer = await self._call("change_message_visibility_batch", QueueUrl=self._url, Entries=entries)
        return _refused(answer, [message for message, _ in changes])

    async def close(self) -> None:
        """Nothing is held: the client is the daemon's. See queues.QueueSource."""

    async def _call(self, operation: str, *, timeout_s: float = CALL_MAX_S, **parameters: Any) -> Any:
        return await call(self._make, operation, timeout_s=timeout_s, **parameters)


async def call(client: Client, operation: str, *, timeout_s: float = CALL_MAX_S, **parameters: Any) -> Any:
    """Return what one attempt of a call answers; raises SourceError with one line that says what and where."""
    try:
        made = await client()
        if operation in _OFTEN:
            take_raw(made, _OFTEN[operation])
        async with asyncio.timeout(timeout_s):
            answer = await getattr(made, operation)(**parameters)
        return orjson.loads(answer[RAW]) if RAW in answer else answer
    except Exception as error:  # whatever the client's many layers raise is told by what it means
        told = trouble(error)
        where = str(parameters.get("QueueUrl") or parameters.get("QueueName") or parameters.get("SourceArn") or "")
        name = where.rpartition("/")[2]
        if told.kind is AwsTroubleKind.NOT_FOUND:
            said = (
                f"Error occurred while {_aws_name(operation)}. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue."
                " SQS Error Message: The specified queue does not exist."
            )
            raise SourceMissing(f"{said} ({name})", told=said) from error
        raise SourceError(f"SQS queue {name}: {told.message}") from error


async def queue_url(client: Client, name: str, *, account: str = "") -> str:
    """Return a queue's URL; raises SourceError: there is none, or it cannot be asked."""
    owner: dict[str, Any] = {"QueueOwnerAWSAccountId": account} if account else {}
    return str((await call(client, "get_queue_url", QueueName=name, **owner))["QueueUrl"])


def _aws_name(operation: str) -> str:
    # AWS names the call that a mapping's user knows, whichever it was that found no queue (recorded).
    return "ReceiveMessage" if operation == "get_queue_url" else "".join(map(str.capitalize, operation.split("_")))


def _facts(attributes: Mapping[str, str], *, name: str) -> QueueFacts:
    policy: dict[str, Any] = {}
    try:
        policy = orjson.loads(attributes.get("RedrivePolicy") or b"{}")
    except orjson.JSONDecodeError:
        policy = {}
    tries = policy.get("maxReceiveCount")
    return QueueFacts(
        visibility_s=float(attributes.get("VisibilityTimeout", 30)),
        is_fifo=attributes.get("FifoQueue") == "true" or name.endswith(_FIFO),
        arn=attributes.get("QueueArn", ""),
        max_receive_count=None if tries is None else int(tries),
        dead_letter_arn=str(policy.get("deadLetterTargetArn", "")),
        visible=_count(attributes, "ApproximateNumberOfMessages"),
        in_flight=_count(attributes, "ApproximateNumberOfMessagesNotVisible"),
        delayed=_count(attributes, "ApproximateNumberOfMessagesDelayed"),
    )


def _count(attributes: Mapping[str, str], name: str) -> int | None:
    return int(attributes[name]) if name in attributes else None


def _refused(answer: Mapping[str, Any], messages: Sequence[Message]) -> Refused:
    told = answer.get("Failed") or ()
    failed: list[Message] = []
    gone: list[Message] = []
    for entry in told:
        message = messages[int(entry["Id"])]
        # What is our own fault is a receipt that counts no more: the rest of an entry is ours and right.
        (gone if entry.get("SenderFault") else failed).append(message)
    reason = f"{told[0].get('Code', '')}: {told[0].get('Message', '')}" if told else ""
    return Refused(failed=tuple(failed), gone=tuple(gone), reason=reason)
