"""Dead-letter queues of SQS: a look that consumes nothing, SQS's own move, and one through a function."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.dead_letter_queues import DeadLetterQueue, HandedOver, MoveTask, PeekedMessage
from bridge.core.errors import InvokeError, SourceError
from bridge.core.ports import Invoker
from bridge.sources.pull.sqs import Client, call, queue_url

_LOOKS_MAX: Final = 20
"""Receives of one look: each brings ten at most, and may bring the same again."""
_SOURCES_MAX: Final = 100
_HIDDEN_S: Final = 930
"""While a function has a message: the longest timeout and half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsPlace:
    """Where a queue is."""

    client: Client
    name: str
    account: str = ""


class SqsDeadLetters:
    """`dead_letter_queues.DeadLetterQueues`.

    Args:
        place: finds a queue by what a person wrote; raises ConfigError.
        invoker: runs functions, behind live traffic.
    """

    def __init__(self, place: Callable[[str], SqsPlace], *, invoker: Invoker) -> None:
        self._place = place
        self._invoker = invoker

    async def look(self, queue: str, *, limit: int) -> DeadLetterQueue:
        """See DeadLetterQueues.look."""
        place, url = await self._find(queue)
        attributes = await self._attributes(place, url)
        return DeadLetterQueue(
            arn=attributes["QueueArn"],
            visible=_number(attributes, "ApproximateNumberOfMessages"),
            in_flight=_number(attributes, "ApproximateNumberOfMessagesNotVisible"),
            delayed=_number(attributes, "ApproximateNumberOfMessagesDelayed"),
            sources=await self._sources(place, url),
            messages=tuple(await self._peek(place, url, limit)),
        )

    async def _sources(self, place: SqsPlace, url: str) -> tuple[str, ...] | None:
        try:
            answer = await call(place.client, "list_dead_letter_source_queues", QueueUrl=url, MaxResults=_SOURCES_MAX)
        except SourceError:  # not permitted, or not a call that a stand-in for SQS knows: the rest is worth showing
            return None
        return tuple(answer.get("queueUrls") or ())

    async def _peek(self, place: SqsPlace, url: str, limit: int) -> Sequence[PeekedMessage]:
        found: dict[str, PeekedMessage] = {}
        for _ in range(_LOOKS_MAX):
            if len(found) >= limit:
                break
            before = len(found)
            for message in await self._receive(place, url, 10, hidden_s=0):
                if len(found) < limit:
                    found.setdefault(message["MessageId"], _peeked(message))
            if len(found) == before:
                break
        return list(found.values())

    async def start_move(self, queue: str, *, rate: int | None) -> None:
        """See DeadLetterQueues.start_move."""
        place, url = await self._find(queue)
        arn = (await self._attributes(place, url))["QueueArn"]
        limit: dict[str, Any] = {"MaxNumberOfMessagesPerSecond": rate} if rate is not None else {}
        await call(place.client, "start_message_move_task", SourceArn=arn, **limit)

    async def newest_move(self, queue: str) -> MoveTask | None:
        """See DeadLetterQueues.newest_move."""
        place, url = await self._find(queue)
        arn = (await self._attributes(place, url))["QueueArn"]
        answer = await call(place.client, "list_message_move_tasks", SourceArn=arn, MaxResults=1)
        for task in answer.get("Results") or ():
            return MoveTask(
                status=str(task.get("Status", "")),
                moved=int(task.get("ApproximateNumberOfMessagesMoved") or 0),
                to_move=task.get("ApproximateNumberOfMessagesToMove"),
                reason=str(task.get("FailureReason") or ""),
            )
        return None

    async def hand_over(self, queue: str, *, function: str, limit: int) -> HandedOver:
        """See DeadLetterQueues.hand_over."""
        self._invoker.dry_run(function)
        place, url = await self._find(queue)
        visible_in_s = int((await self._attributes(place, url)).get("VisibilityTimeout", 30))
        messages = await self._receive(place, url, limit, hidden_s=_HIDDEN_S)
        errors = await asyncio.gather(*(self._run(message, function) for message in messages))
        done = [message for message, error in zip(messages, errors, strict=True) if not error]
        left = [message for message, error in zip(messages, errors, strict=True) if error]
        undeleted: Sequence[Any] = ()
        if done:  # before the next call can fail: what is not deleted is handled twice, what stays hidden only later
            answer = await call(place.client, "delete_message_batch", QueueUrl=url, Entries=_entries(done))
            undeleted = answer.get("Failed") or ()
        if left:
            entries = _entries(left, VisibilityTimeout=visible_in_s)
            await call(place.client, "change_message_visibility_batch", QueueUrl=url, Entries=entries)
        told = [error for error in errors if error]
        told += [f"handled, and not deleted: {each.get('Code')}: {each.get('Message')}" for each in undeleted]
        return HandedOver(succeeded=len(done) - len(undeleted), failed=len(left) + len(undeleted), errors=tuple(told))

    async def _run(self, message: Mapping[str, Any], function: str) -> str:
        """Invoke with the body, which is the original event; returns why it failed, empty when it did not."""
        try:
            result = await self._invoker.invoke_background(
                function, request_id=_request_id(message), payload=message["Body"].encode("utf-8", "surrogatepass")
            )
        except InvokeError as error:
            return f"{message['MessageId']}: {error.code}: {error}"
        return "" if result.is_ok else f"{message['MessageId']}: {result.error_type}: {result.error_message}"

    async def _find(self, queue: str) -> tuple[SqsPlace, str]:
        place = self._place(queue)
        return place, await queue_url(place.client, place.name, account=place.account)

    async def _attributes(self, place: SqsPlace, url: str) -> Mapping[str, str]:
        answer = await call(place.client, "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])
        attributes: Mapping[str, str] = answer.get("Attributes") or {}
        if "QueueArn" not in attributes:
            raise SourceError(f"SQS queue {place.name}: it does not say its ARN")
        return attributes

    async def _receive(self, place: SqsPlace, url: str, count: int, *, hidden_s: int) -> Sequence[Mapping[str, Any]]:
        answer = await call(
            place.client,
            "receive_message",
            QueueUrl=url,
            MaxNumberOfMessages=min(10, count),
            VisibilityTimeout=hidden_s,
            WaitTimeSeconds=1,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        found: Sequence[Mapping[str, Any]] = answer.get("Messages") or ()
        return found


def _entries(messages: Sequence[Mapping[str, Any]], **more: int) -> list[dict[str, Any]]:
    return [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"], **more} for n, message in enumerate(messages)]


def _request_id(message: Mapping[str, Any]) -> str:
    """Return the request id of the event that failed, where the message tells it (semantics 2.4)."""
    told = _attributes_of(message).get("RequestID", "")
    try:
        return str(uuid.UUID(told))
    except ValueError:
        return str(uuid.uuid4())


def _peeked(message: Mapping[str, Any]) -> PeekedMessage:
    attributes = message.get("Attributes") or {}
    sent_ms = attributes.get("SentTimestamp")
    return PeekedMessage(
        id=message["MessageId"],
        body=message["Body"],
        sent_at=None if sent_ms is None else int(sent_ms) / 1000,
        receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
        group=attributes.get("MessageGroupId", ""),
        attributes=_attributes_of(message),
    )


def _attributes_of(message: Mapping[str, Any]) -> dict[str, str]:
    found = message.get("MessageAttributes") or {}
    return {name: value["StringValue"] for name, value in found.items() if "StringValue" in value}


def _number(attributes: Mapping[str, str], name: str) -> int | None:
    return int(attributes[name]) if name in attributes else None
