"""Messages between the socket and the journal: many stored at once, acknowledged in the order of their receipt."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from bridge.core import limits
from bridge.core.errors import InvokeError, LaneFull, StoreError
from bridge.core.invocation import DeadLetter, InvocationType
from bridge.core.ports import Clock, Intake
from bridge.core.record import Record
from bridge.util import telemetry
from bridge.util.crash import crash_point

log = structlog.get_logger("bridge.mqtt")

Acknowledge = Callable[[Sequence[tuple[int, int]]], None]
"""Tells the broker: (packet identifier, QoS) of messages that are stored, in order of receipt."""
_OVERHEAD_BYTES: Final = 512
"""What a message weighs beside its event."""


class Receipt:
    """One message as the broker knows it."""

    __slots__ = ("digest", "dup", "mid", "qos")

    def __init__(self, mid: int, qos: int, *, dup: bool = False, digest: int = 0) -> None:
        self.mid = mid
        self.qos = qos
        self.dup = dup
        self.digest = digest
        """Of topic and payload: whether a repeated packet identifier is the same message."""


class _Entry:
    """A message that is not acknowledged, or not stored."""

    __slots__ = ("content", "follower", "is_done", "number", "receipt", "size")

    def __init__(self, receipt: Receipt, content: Record | DeadLetter | None, number: int) -> None:
        self.receipt = receipt
        self.content = content
        """None once it is stored, and of what needs no storing."""
        self.number = number
        self.size = 0 if content is None else len(content.payload) + _OVERHEAD_BYTES
        self.is_done = content is None
        self.follower: _Entry | None = None
        """The same message received once more, which waits for this one."""


class MqttInbox:
    """What one source has received and not finished. Everything happens on the loop.

    Args:
        source: its name.
        intake: stores events.
        put_letter: stores dead letters durably; raises as `DeadLetters.put`.
        clock: back-off.
        bytes_max: above it `full` is called, and `room` once less than half of it is left.
        acknowledge: see `Acknowledge`; what it is told while nobody is connected is lost, and comes again.
        full: stop reading.
        room: go on.
    """

    def __init__(
        self,
        source: str,
        *,
        intake: Intake,
        put_letter: Callable[[DeadLetter], Awaitable[None]],
        clock: Clock,
        bytes_max: int,
        acknowledge: Acknowledge,
        full: Callable[[], None],
        room: Callable[[], None],
    ) -> None:
        self.trouble = ""
        """Why nothing can be stored now."""
        self._source = source
        self._task_name = f"mqtt-store:{source}"
        self._intake = intake
        self._put_letter = put_letter
        self._clock = clock
        self._bytes_max = bytes_max
        self._acknowledge = acknowledge
        self._full = full
        self._room = room
        self._open: deque[_Entry] = deque()
        """What the connection has brought and was not acknowledged, in order of receipt."""
        self._carried: dict[int, _Entry] = {}
        """By packet identifier: brought by an earlier connection of the session; the broker will repeat it."""
        self._waiting: deque[_Entry] = deque()
        self._refused: list[_Entry] = []
        """What was not stored and is tried again, once everything else that is under way has ended."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._number = 0
        self._is_full = False
        self._is_settling = False
        self._hindered = asyncio.Event()
        self._quiet = asyncio.Event()
        """Nothing is under way."""
        self._quiet.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._tries_one = False
        self._delay_s = limits.MQTT_STORE_BACKOFF_MIN_S
        self._accepted = telemetry.EVENTS_ACCEPTED.labels(source=source, type=InvocationType.EVENT.value)
        self._duplicates = telemetry.DUPLICATES.labels(source=source)

    @property
    def size_bytes(self) -> int:
        """Received and not stored."""
        return self._bytes

    # --- what the connection says ---------------------------------------------------------------------

    def connected(self, *, session_present: bool) -> None:
        """A connection begins; without the session the broker repeats nothing."""
        if not session_present:
            self._carried.clear()
        if self._is_full:
            self._full()

    def disconnected(self) -> None:
        """The connection is gone: what is stored from now on cannot be acknowledged by it."""
        self._carried |= {entry.receipt.mid: entry for entry in self._open}
        self._open.clear()

    def take(self, receipt: Receipt, content: Record | DeadLetter | None) -> None:
        """Take what a message has become; None: it is only to be acknowledged, in its turn."""
        if receipt.qos and self._carried:
            earlier = self._carried.pop(receipt.mid, None)
            if earlier is not None and receipt.dup and earlier.receipt.digest == receipt.digest:
                self._duplicates.inc()
                again = _Entry(receipt, None, earlier.number)
                if not earlier.is_done:
                    again.is_done, earlier.follower = False, again
                self._open.append(again)
                self._settle_soon()
                return
        self._number += 1
        entry = _Entry(receipt, content, self._number)
        if receipt.qos:
            self._open.append(entry)
        if entry.is_done:
            self._settle_soon()
            return
        self._empty.clear()
        self._waiting.append(entry)
        self._bytes += entry.size
        if self._bytes >= self._bytes_max and not self._is_full:
            self._is_full = True
            self._full()
        self._pump()

    # --- storing ------------------------------------------------------------------------------------

    def _pump(self) -> None:
        most = 1 if self._tries_one else limits.MQTT_STORES_MAX
        while self._waiting and len(self._tasks) < most and not self._hindered.is_set():
            self._quiet.clear()
            task = asyncio.create_task(self._store(self._waiting.popleft()), name=self._task_name)
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._settle_soon()

    async def _store(self, entry: _Entry) -> None:
        """Store one; tasks begin in their order, so that what follows a refused one is not stored before it."""
        content = entry.content
        if self._hindered.is_set() or content is None:
            self._refused.append(entry)
            return
        try:
            if isinstance(content, Record):
                await self._intake.submit(content)
                self._accepted.inc()
            else:
                await self._put_letter(content)
        except (StoreError, LaneFull, InvokeError) as error:
            self._hinder(entry, str(error))
            return
        except Exception as error:  # the task's boundary: it may be stored or not, and twice is better than never
            log.exception("message_not_stored", source=self._source)
            self._hinder(entry, f"{type(error).__name__}: {error}")
            return
        crash_point("mqtt.stored")
        entry.content, entry.is_done = None, True
        self._bytes -= entry.size
        following = entry.follower
        while following is not None:  # one for each connection that repeated it meanwhile
            following.is_done = True
            following = following.follower
        self._tries_one = False
        self._delay_s = limits.MQTT_STORE_BACKOFF_MIN_S
        if self.trouble and not self._hindered.is_set():
            self.trouble = ""
            log.info("messages_stored_again", source=self._source)

    def _hinder(self, entry: _Entry, why: str) -> None:
        self._refused.append(entry)
        if not self.trouble:
            log.warning("messages_wait", source=self._source, error=why)
        self.trouble = f"messages wait to be stored: {why}"
        self._hindered.set()

    async def retry(self) -> None:
        """Try again what was not stored, after a pause that doubles; runs until cancelled."""
        while True:
            await self._hindered.wait()
            await self._quiet.wait()
            delay_s, self._delay_s = self._delay_s, min(2 * self._delay_s, limits.MQTT_STORE_BACKOFF_MAX_S)
            await self._clock.sleep(delay_s)
            self._hindered.clear()
            self._tries_one = True
            self._pump()

    # --- acknowledging --------------------------------------------------------------------------------

    def _settle_soon(self) -> None:
        """Settle once for all that ends in this pass of the loop: a commit group is one write to the broker."""
        if not self._is_settling:
            self._is_settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        self._is_settling = False
        ready = list[tuple[int, int]]()
        while self._open and self._open[0].is_done:
            receipt = self._open.popleft().receipt
            ready.append((receipt.mid, receipt.qos))
        if ready:
            self._acknowledge(ready)
        if not self._tasks:
            if self._refused:
                self._waiting.extendleft(sorted(self._refused, key=lambda entry: entry.number, reverse=True))
                self._refused.clear()
            self._quiet.set()
            if not self._waiting:
                self._empty.set()
        if self._is_full and self._bytes * 2 < self._bytes_max:
            self._is_full = False
            self._room()
        self._pump()

    # --- the end ------------------------------------------------------------------------------------

    async def emptied(self) -> None:
        """Wait until everything that was taken is stored, and told to the broker if it is still there."""
        await self._empty.wait()
        self._settle()

    async def close(self) -> None:
        """Cancel what is under way and forget what is not acknowledged: it comes again."""
        self.disconnected()
        for held in (self._carried, self._waiting, self._refused):
            held.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._refused.clear()
        self._bytes, self._is_full = 0, False
        self._hindered.clear()
        self._quiet.set()
        self._empty.set()
