"""A dead-letter queue through a function: what was handled is deleted, whatever becomes of the rest."""

from unittest.mock import Mock

import pytest

from bridge.core.errors import SourceError
from bridge.core.invocation import InvocationResult, ResultKind
from bridge.sources.pull.sqs_dead_letters import SqsDeadLetters, SqsPlace
from bridge.testing.push import ScriptedInvoker


class Queue:
    """As much of SQS as a hand-over asks for; `refused` are the calls that fail."""

    def __init__(self, *bodies, refused=()):
        self.messages = [
            {"MessageId": f"m{n}", "ReceiptHandle": f"r{n}", "Body": body} for n, body in enumerate(bodies)
        ]
        self.meta = Mock()  # what botocore keeps handlers in
        self.refused, self.deleted, self.given_back = refused, [], []

    async def client(self):
        return self

    async def get_queue_url(self, *, QueueName):
        return {"QueueUrl": f"http://sqs/1/{QueueName}"}

    async def get_queue_attributes(self, **_):
        return {"Attributes": {"QueueArn": "arn:aws:sqs:eu-west-1:1:dead", "VisibilityTimeout": "40"}}

    async def receive_message(self, *, MaxNumberOfMessages, **_):
        return {"Messages": self.messages[:MaxNumberOfMessages]}

    async def delete_message_batch(self, *, Entries, **_):
        self._check("delete")
        self.deleted += [each["ReceiptHandle"] for each in Entries]
        return {}

    async def change_message_visibility_batch(self, *, Entries, **_):
        self._check("change")
        self.given_back += [(each["ReceiptHandle"], each["VisibilityTimeout"]) for each in Entries]
        return {}

    def _check(self, call):
        if call in self.refused:
            raise ConnectionError("gone")


def letters_of(queue):
    """Dead letters that a function handles unless they say `bad`."""
    invoker = ScriptedInvoker()
    bad = InvocationResult(
        kind=ResultKind.FUNCTION_ERROR, payload=b"{}", version="1", error_type="E", error_message="x"
    )
    invoker.answers["f"] = lambda _, payload: bad if payload == b"bad" else b"null"
    return SqsDeadLetters(lambda name: SqsPlace(client=queue.client, name=name), invoker=invoker)


async def test_what_was_handled_is_deleted_and_the_rest_given_back():
    queue = Queue("good", "bad", "good")
    handed = await letters_of(queue).hand_over("dead", function="f", limit=10)

    assert (handed.succeeded, handed.failed) == (2, 1)
    assert queue.deleted == ["r0", "r2"]
    assert queue.given_back == [("r1", 40)]


async def test_what_was_handled_is_deleted_even_where_the_rest_cannot_be_given_back():
    queue = Queue("good", "bad", refused=("change",))
    with pytest.raises(SourceError):
        await letters_of(queue).hand_over("dead", function="f", limit=10)

    assert queue.deleted == ["r0"]
