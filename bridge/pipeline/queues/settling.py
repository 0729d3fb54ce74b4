"""Ends messages: archives and deletes what is handled, hands back what is not, keeps hidden what is ours till then."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bridge.core import limits
from bridge.core.errors import SourceError, StoreError
from bridge.core.queues import Message, QueueSource, Refused
from bridge.pipeline.queues.settings import QueueWork
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.mappings")

_WAIT_MIN_S: Final = 0.2
_WAIT_MAX_S: Final = 30.0
_RETURN_TRIES_MAX: Final = 5
"""A message that could not be handed back comes again by itself, once it is hidden no more."""
_SPARE_S: Final = 1.0
"""A message whose time is up so soon is not taken for ours any more."""


@dataclass(slots=True, eq=False)
class _Job:
    """Messages that are settled together."""

    left: int
    done: "asyncio.Future[None]"

    def settled(self, count: int) -> None:
        self.left -= count
        if self.left <= 0 and not self.done.done():
            self.done.set_result(None)

    def failed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Settling:
    """What is asked of the queue about messages that are ours, in tens, a bounded number of calls at once."""

    def __init__(self, work: QueueWork) -> None:
        self._work = work
        self._clock = work.clock
        self._name = work.mapping.name
        self._ended: deque[tuple[Message, _Job]] = deque()
        """Handled and archived, to be deleted."""
        self._calls: set[asyncio.Task[None]] = set()
        self._hides = asyncio.Semaphore(limits.QUEUE_CALLS_MAX)
        self._held: dict[str, Message] = {}
        self.source: QueueSource | None = None
        """Whom it speaks to; None while there is none open."""
        self.unsettled = 0
        """Messages that were to be deleted and stayed in the queue for good."""

    # --- what is ours -------------------------------------------------------------------------

    def take(self, message: Message, *, hidden_s: float) -> bool:
        """Take a message that was received just now; False when it is one that is ours already, under a new receipt."""
        now = self._clock.monotonic()
        held = self._held.get(message.id)
        if held is not None:
            held.receipt, held.receive_count = message.receipt, message.receive_count
            held.received_at, held.hidden_until = now, now + hidden_s
            return False
        message.received_at, message.hidden_until = now, now + hidden_s
        self._held[message.id] = message
        return True

    def let_go(self, messages: Iterable[Message]) -> None:
        """They are ours no more."""
        for message in messages:
            self._held.pop(message.id, None)

    @property
    def held(self) -> Sequence[Message]:
        """All messages that are ours."""
        return list(self._held.values())

    def is_ours(self, message: Message) -> bool:
        """Whether nobody else can have it now."""
        return message.hidden_until - _SPARE_S > self._clock.monotonic()

    async def keep_hidden(self, hidden_s: float) -> None:
        """Hide everything again that has less than half of `hidden_s` left, 12 hours from its receive at most."""
        now = self._clock.monotonic()
        due: list[tuple[Message, float]] = []
        for message in self._held.values():
            last = message.received_at + limits.QUEUE_HIDDEN_MAX_S - _SPARE_S
            until = min(now + hidden_s, last)
            if message.hidden_until - now < hidden_s / 2 and until > message.hidden_until + _SPARE_S:
                due.append((message, until - now))
        if due:
            await asyncio.gather(*(self._extend(each, now=now) for each in _tens(due)))

    async def _extend(self, changes: Sequence[tuple[Message, float]], *, now: float) -> None:
        receipts = {message.id: message.receipt for message, _ in changes}
        try:
            refused = await self._hide(changes)
        except SourceError as error:
            log.warning("visibility_not_extended", mapping=self._name, messages=len(changes), error=str(error))
            return
        unchanged = {message.id for message in (*refused.failed, *refused.gone)}
        for message, seconds in changes:
            if message.id not in unchanged and message.receipt == receipts[message.id]:
                message.hidden_until = max(message.hidden_until, now + seconds)
        for message in refused.gone:
            if message.receipt == receipts[message.id]:
                message.hidden_until = 0.0
        if unchanged:
            log.warning("visibility_not_extended", mapping=self._name, messages=len(unchanged), error=refused.reason)

    async def _hide(self, changes: Sequence[tuple[Message, float]]) -> Refused:
        async with self._hides:
            source = self.source
            if source is None:
                raise SourceError("the queue is not open")
            return await source.hide(changes)

    # --- handled ------------------------------------------------------------------------------

    async def delete(self, messages: Sequence[Message]) -> None:
        """Return once all are archived and deleted, or those that cannot be were given up, which is said."""
        if not messages:
            return
        await self._archive(messages)
        crash_point("queue.archived")
        job = _Job(len(messages), asyncio.get_running_loop().create_future())
        self._ended.extend((message, job) for message in messages)
        self._delete_more()
        await job.done

    async def _archive(self, messages: Sequence[Message]) -> None:
        """Copy them, for as long as that takes: what is not archived is not deleted."""
        archive = self._work.archive
        wait_s = _WAIT_MIN_S
        while archive is not None:
            try:
                await archive(messages)
            except StoreError as error:
                log.warning("messages_not_archived", mapping=self._name, messages=len(messages), error=str(error))
                await self._clock.sleep(wait_s)
                wait_s = min(2 * wait_s, _WAIT_MAX_S)
            else:
                return

    def _delete_more(self) -> None:
        while self._ended and len(self._calls) < limits.QUEUE_CALLS_MAX:
            take = min(len(self._ended), limits.QUEUE_CALL_MAX)
            ended = [self._ended.popleft() for _ in range(take)]
            call = asyncio.create_task(self._delete_call(ended))
            self._calls.add(call)
            call.add_done_callback(self._called)

    def _called(self, call: "asyncio.Task[None]") -> None:
        self._calls.discard(call)
        if not call.cancelled():
            self._delete_more()

    async def _delete_call(self, ended: Sequence[tuple[Message, _Job]]) -> None:
        try:
            await self._delete_ten(ended)
        except Exception as error:  # noqa: BLE001 - a bug of ours is told to those who wait, whose mapping restarts
            for _, job in ended:
                job.failed(error)

    async def _delete_ten(self, ended: Sequence[tuple[Message, _Job]]) -> None:
        jobs = {message.id: job for message, job in ended}
        left = [message for message, _ in ended]
        wait_s = _WAIT_MIN_S
        for tries in range(1, limits.QUEUE_DELETE_TRIES_MAX + 1):
            try:
                refused = await self._delete_once(left)
            except SourceError as error:
                refused = Refused(failed=tuple(left), reason=str(error))
            if refused.gone:
                self._say_undeleted(refused.gone, reason=refused.reason)
            failed = {message.id for message in refused.failed}
            for message in left:
                if message.id not in failed:
                    jobs[message.id].settled(1)
            left = list(refused.failed)
            if not left:
                return
            if tries < limits.QUEUE_DELETE_TRIES_MAX:
                await self._clock.sleep(wait_s)
                wait_s = min(2 * wait_s, _WAIT_MAX_S)
        self._say_undeleted(left, reason=refused.reason)
        for message in left:
            jobs[message.id].settled(1)

    async def _delete_once(self, messages: Sequence[Message]) -> Refused:
        source = self.source
        if source is None:
            raise SourceError("the queue is not open")
        refused = await source.delete(messages)
        crash_point("queue.deleted")
        return refused

    def _say_undeleted(self, messages: Sequence[Message], *, reason: str) -> None:
        self.unsettled += len(messages)
        for message in messages:
            log.error(
                "message_not_deleted",
                mapping=self._name,
                message_id=message.id,
                reason=reason,
                effect="it was handled and may come again",
            )

    # --- not handled --------------------------------------------------------------------------

    async def give_back(self, messages: Sequence[Message], *, visible_in_s: Callable[[Message], float]) -> None:
        """Have messages seen by others again, each after so many seconds; the last of a group first.

        While one of a group is hidden nothing behind it can be received: so no message overtakes another.
        """
        changes = [(message, visible_in_s(message)) for message in reversed(messages)]
        await asyncio.gather(*(self._give_back(each) for each in _tens(changes)))

    async def _give_back(self, changes: Sequence[tuple[Message, float]]) -> None:
        wait_s, left, reason = _WAIT_MIN_S, list(changes), ""
        for _ in range(_RETURN_TRIES_MAX):
            try:
                refused = await self._hide(left)
            except SourceError as error:
                reason = str(error)
            else:
                failed, reason = set(refused.failed), refused.reason
                left = [(message, seconds) for message, seconds in left if message in failed]
            if not left:
                return
            await self._clock.sleep(wait_s)
            wait_s *= 2
        log.warning("messages_not_returned", mapping=self._name, messages=len(left), error=reason)

    async def stop(self) -> None:
        """End the calls at once."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


def _tens(items: Sequence[Any]) -> "Iterable[Sequence[Any]]":
    return (items[at : at + limits.QUEUE_CALL_MAX] for at in range(0, len(items), limits.QUEUE_CALL_MAX))
