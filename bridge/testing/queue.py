"""A queue in memory that follows a script: visibility, receive counts, message groups, dead letters, and faults."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from bridge.core.errors import SourceError
from bridge.core.ports import Clock
from bridge.core.queues import Message, QueueFacts, QueueSource, Refused
from bridge.core.sources import EventShape
from bridge.events.sqs import SqsShape


@dataclass(slots=True, eq=False)
class Stored:
    """A message in the queue."""

    id: str
    value: object
    group: str
    trace_header: str = ""
    visible_at: float = 0.0
    receive_count: int = 0
    receipt: str = ""


class ScriptedQueue:
    """`sources.QueueOrigin`. `fail(call)` may raise, by name of the call, before anything is done.

    Args:
        clock: visibility goes by it.
        is_fifo: whether groups are kept in order.
        visibility_s: where a receive asks for nothing else.
        max_receive_count: a message received as often becomes one of `dead`.
    """

    is_remote = False
    has_archive = False

    def __init__(
        self, clock: Clock, *, is_fifo: bool = False, visibility_s: float = 30.0, max_receive_count: int | None = None
    ) -> None:
        self.shape: EventShape = SqsShape("arn:aws:sqs:us-east-1:000000000000:scripted")
        self.clock = clock
        self.is_fifo = is_fifo
        self.visibility_s = visibility_s
        self.max_receive_count = max_receive_count
        self.stored: dict[str, Stored] = {}
        self.dead: list[Stored] = []
        self.deleted: list[str] = []
        self.calls: dict[str, int] = {}
        """How often each call was made."""
        self.fail: Callable[[str], None] = lambda _call: None
        self.delay_s: Callable[[str], float] = lambda _call: 0.0
        self.opened = 0
        self._count = 0
        self._arrived = asyncio.Event()

    def put(self, *values: object, group: str = "", trace_header: str = "") -> list[str]:
        """Send messages; returns their ids."""
        ids = []
        for value in values:
            self._count += 1
            stored = Stored(id=f"m{self._count}", value=value, group=group, trace_header=trace_header)
            self.stored[stored.id] = stored
            ids.append(stored.id)
        self._arrived.set()
        return ids

    def consumer(self) -> QueueSource:
        """Return a reader."""
        return _Consumer(self)

    def arrived(self) -> asyncio.Event:
        """Return what is set when messages come."""
        return self._arrived

    def count(self, call: str) -> None:
        """Note a call, which may be told to fail."""
        self.calls[call] = self.calls.get(call, 0) + 1
        self.fail(call)

    def facts(self) -> QueueFacts:
        """Return what it says of itself."""
        now = self.clock.monotonic()
        hidden = sum(stored.visible_at > now for stored in self.stored.values())
        return QueueFacts(
            visibility_s=self.visibility_s,
            is_fifo=self.is_fifo,
            arn="arn:aws:sqs:us-east-1:000000000000:scripted",
            max_receive_count=self.max_receive_count,
            visible=len(self.stored) - hidden,
            in_flight=hidden,
            delayed=0,
        )

    def take(self, records_max: int, hidden_s: float) -> list[Message]:
        """Hand out what is visible, in order; of a group nothing while something of it is hidden."""
        now = self.clock.monotonic()
        locked = {stored.group for stored in self.stored.values() if stored.visible_at > now} if self.is_fifo else set()
        found: list[Message] = []
        for stored in list(self.stored.values()):
            if len(found) >= records_max:
                break
            if stored.visible_at > now or stored.group in locked:
                continue
            if self.max_receive_count is not None and stored.receive_count >= self.max_receive_count:
                self.dead.append(self.stored.pop(stored.id))
                continue
            stored.receive_count += 1
            stored.receipt = f"{stored.id}#{stored.receive_count}"
            stored.visible_at = now + hidden_s
            found.append(
                Message(
                    id=stored.id,
                    receipt=stored.receipt,
                    body=orjson.dumps(stored.value),
                    fragment=orjson.dumps({"messageId": stored.id, "body": stored.value}),
                    group=stored.group,
                    receive_count=stored.receive_count,
                    trace_header=stored.trace_header,
                )
            )
        return found

    def find(self, message: Message) -> Stored | None:
        """Return the message that a receipt names; None when it names none any more."""
        stored = self.stored.get(message.id)
        is_current = stored is not None and stored.receipt == message.receipt
        return stored if is_current and stored is not None and stored.visible_at > self.clock.monotonic() else None


@dataclass(eq=False)
class _Consumer:
    """`queues.QueueSource`."""

    queue: ScriptedQueue
    is_open: bool = field(default=False)

    async def open(self) -> QueueFacts:
        """Begin."""
        await self._call("open")
        self.is_open = True
        self.queue.opened += 1
        return self.queue.facts()

    async def look(self) -> QueueFacts:
        """Return the counts."""
        await self._call("look")
        return self.queue.facts()

    async def receive(self, *, records_max: int, wait_s: float, hidden_s: float) -> Sequence[Message]:
        """Take what is there, or wait for it."""
        await self._call("receive")
        clock = self.queue.clock
        until = clock.monotonic() + wait_s
        while not (found := self.queue.take(records_max, hidden_s)) and clock.monotonic() < until:
            self.queue.arrived().clear()
            await self._wait(min(1.0, until - clock.monotonic()))
        return found

    async def _wait(self, delay_s: float) -> None:
        waits = {asyncio.ensure_future(self.queue.clock.sleep(delay_s)), asyncio.create_task(self._arrival())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _arrival(self) -> None:
        await self.queue.arrived().wait()

    async def delete(self, messages: Sequence[Message]) -> Refused:
        """Remove them."""
        await self._call("delete")
        gone = []
        for message in messages:
            if self.queue.find(message) is None:
                gone.append(message)
            else:
                del self.queue.stored[message.id]
                self.queue.deleted.append(message.id)
        return Refused(gone=tuple(gone), reason="the receipt handle has expired" if gone else "")

    async def hide(self, changes: Sequence[tuple[Message, float]]) -> Refused:
        """Hide them."""
        await self._call("hide")
        gone = []
        for message, seconds in changes:
            stored = self.queue.find(message)
            if stored is None:
                gone.append(message)
            else:
                stored.visible_at = self.queue.clock.monotonic() + seconds
        self.queue.arrived().set()
        return Refused(gone=tuple(gone), reason="the receipt handle has expired" if gone else "")

    async def close(self) -> None:
        """End."""
        self.is_open = False

    async def _call(self, name: str) -> None:
        if name not in ("open", "close") and not self.is_open:
            raise SourceError("the queue is not open")
        self.queue.count(name)
        await self.queue.clock.sleep(self.queue.delay_s(name))
