"""Endpoints of SQS's dead-letter queues: look without consuming, move back, hand to a function."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

from bridge.api.fields import Fields
from bridge.api.http import Answer, HttpError, Request, json_answer
from bridge.api.services import Services
from bridge.core.dead_letter_queues import DeadLetterQueues
from bridge.core.errors import ConfigError, SourceError

_LOOK_MAX: Final = 100
_LOOK_DEFAULT: Final = 10
_RATE_MAX: Final = 500
"""SQS's own."""


class QueueEndpoints:
    """Handlers of `/admin/v1/queues…`; `queue` is `sqs://CONNECTION/QUEUE` or an ARN."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def look(self, request: Request) -> Answer:
        """A queue: counts, the queues that it takes dead letters of, and some messages, which stay."""
        fields = Fields.of_query(request)
        queue, limit = _queue(fields), fields.integer("limit", low=0, high=_LOOK_MAX)
        fields.finish()
        with _refused():
            found = await self._queues.look(queue, limit=_LOOK_DEFAULT if limit is None else limit)
        return json_answer(asdict(found))

    async def move(self, request: Request) -> Answer:
        """Have SQS move messages back to where they came from (201); `rate`: so many a second."""
        fields = await Fields.of_body(request)
        queue, rate = _queue(fields), fields.integer("rate", low=1, high=_RATE_MAX)
        fields.finish()
        with _refused():
            await self._queues.start_move(queue, rate=rate)
            task = await self._queues.newest_move(queue)
        return json_answer({"task": None if task is None else asdict(task)}, status=201)

    async def task(self, request: Request) -> Answer:
        """The newest move out of a queue."""
        fields = Fields.of_query(request)
        queue = _queue(fields)
        fields.finish()
        with _refused():
            task = await self._queues.newest_move(queue)
        return json_answer({"task": None if task is None else asdict(task)})

    async def hand_over(self, request: Request) -> Answer:
        """Invoke `function` with the bodies of up to `limit` messages, delete those that it handles."""
        fields = await Fields.of_body(request)
        queue, function, limit = _queue(fields), fields.target("function"), fields.integer("limit", low=1, high=10)
        fields.finish()
        if function is None:
            raise fields.wrong("function", "is missing")
        with _refused():
            done = await self._queues.hand_over(queue, function=function, limit=limit or 10)
        return json_answer(asdict(done))

    @property
    def _queues(self) -> DeadLetterQueues:
        if self._services.queues is None:
            raise HttpError(404, "this daemon reaches no queues")
        return self._services.queues


def _queue(fields: Fields) -> str:
    queue = fields.text("queue")
    if queue is None:
        raise fields.wrong("queue", "is missing")
    return queue


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise HttpError(400, str(error)) from error
    except SourceError as error:
        raise HttpError(409, str(error)) from error
