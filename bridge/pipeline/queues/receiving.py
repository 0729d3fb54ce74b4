"""Receives messages: as many calls at once as the queue fills and the engine has room for."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from bridge.core import limits
from bridge.core.errors import SourceError
from bridge.core.queues import Message, QueueSource
from bridge.pipeline.queues.settings import QueueWork

log = structlog.get_logger("bridge.mappings")

_WAIT_MIN_S: Final = 1.0
_WAIT_MAX_S: Final = 60.0


class Receiving:
    """Long polls of one queue.

    Full answers double the calls at once, up to QUEUE_RECEIVERS_MAX; empty ones halve them, down to one.

    Args:
        work: the mapping.
        received: is given what a receive brought and how long it is hidden, in the same loop pass.
        room: returns how many more messages are wanted now.
        hidden_s: returns how long messages are to be hidden.
        failed: is told of a bug of ours: a mapping that cannot receive must not look as if it could.
    """

    def __init__(
        self,
        work: QueueWork,
        *,
        received: Callable[[list[Message], float], None],
        room: Callable[[], int],
        hidden_s: Callable[[], float],
        failed: Callable[[Exception], None],
    ) -> None:
        self._name = work.mapping.name
        self._clock = work.clock
        self._received = received
        self._room = room
        self._hidden_s = hidden_s
        self._failed = failed
        self._source: QueueSource | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._expected = 0
        """Messages that the calls of now may bring."""
        self._calls_max = 1
        self._failures = 0
        self.trouble = ""
        """Why nothing is received, in one line; empty when something is or would be."""

    def begin(self, source: QueueSource) -> None:
        """Receive from now on."""
        self._source = source
        self._calls_max, self._failures, self.trouble = 1, 0, ""
        self.top_up()

    async def end(self) -> None:
        """Receive no more; calls are cut, and what one may have taken comes again by itself."""
        self._source = None
        self.trouble = ""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def top_up(self) -> None:
        """Start the calls that there is room for."""
        while self._source is not None and len(self._calls) < self._calls_max:
            room = self._room() - self._expected
            # No call for a message or two while others are on their way: that would be a call a message.
            if room < (1 if not self._calls else limits.QUEUE_CALL_MAX // 2):
                return
            count = min(room, limits.QUEUE_CALL_MAX)
            self._expected += count
            call = asyncio.create_task(self._receive(self._source, count))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: "asyncio.Task[None]") -> None:
        self._calls.discard(call)
        error = None if call.cancelled() else call.exception()
        if isinstance(error, Exception):
            self._failed(error)
        else:
            self.top_up()

    async def _receive(self, source: QueueSource, count: int) -> None:
        hidden_s = self._hidden_s()
        try:
            try:
                messages = await source.receive(records_max=count, wait_s=limits.QUEUE_WAIT_S, hidden_s=hidden_s)
            finally:
                self._expected -= count
        except SourceError as error:
            await self._back_off(error)
            return
        self._failures, self.trouble = 0, ""
        if len(messages) >= count:
            self._calls_max = min(limits.QUEUE_RECEIVERS_MAX, 2 * self._calls_max)
        elif not messages:
            self._calls_max = max(1, self._calls_max // 2)
        if messages:
            self._received(list(messages), hidden_s)

    async def _back_off(self, error: SourceError) -> None:
        """Wait in the call's place: nothing else is received meanwhile."""
        self._calls_max = 1
        self._failures += 1
        if self.trouble != str(error):
            log.warning("source_failed", mapping=self._name, error=str(error))
        self.trouble = str(error)
        await self._clock.sleep(min(_WAIT_MAX_S, _WAIT_MIN_S * 2 ** min(self._failures - 1, 16)))
