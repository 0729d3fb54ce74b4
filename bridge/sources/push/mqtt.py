"""The MQTT source: subscribes, makes messages events, and acknowledges them once the journal has them."""

import asyncio
import random
import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import orjson
import structlog

from bridge.core import limits
from bridge.core.errors import InvokeError, StoreError
from bridge.core.invocation import Condition, DeadLetter, InvocationType
from bridge.core.mqtt import MqttSession, MqttSessions
from bridge.core.ports import Clock, Intake
from bridge.core.push import Accepted, Given, NotAccepted
from bridge.core.record import Record
from bridge.core.topics import apart, filter_mistake, matches, overlapping, split_shared, stored_key, uncovered
from bridge.events.mqtt import Message, MessageShape
from bridge.sources.push.mqtt_address import MqttAddress, MqttTrouble, Oversized
from bridge.sources.push.mqtt_client import MqttConnection
from bridge.sources.push.mqtt_inbox import MqttInbox, Receipt
from bridge.util import telemetry
from bridge.util.ids import new_id

log = structlog.get_logger("bridge.mqtt")

Connect = Callable[..., MqttConnection]
_IDENTIFIER_BITS: Final = 0x0FFF_FFFF
"""Subscription identifiers are 1 to 268,435,455."""
_SHORT_S: Final = 60.0
_SHORT_MAX: Final = 3
_TOPICS_KEPT_MAX: Final = 10_000
"""Topics whose first matching filter is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSpec:
    """One MQTT source as it is configured."""

    name: str
    """`[sources.NAME]`: the record's source, the label in metrics."""
    address: MqttAddress
    topics: tuple[str, ...]
    """Topic filters, also `$share/GROUP/FILTER`."""
    shape: MessageShape
    function: str = ""
    """Target: `name[:qualifier]`; empty where only mappings read the source."""
    client_id: str = ""
    """Empty: one made at the first start and kept in the state folder."""
    qos: int = 1
    retained: bool = True
    """Take what the broker kept of a topic when a subscription is new."""
    event_max_bytes: int = limits.ASYNC_PAYLOAD_MAX_BYTES
    """A larger event becomes a dead letter without the payload."""
    payload_max_bytes: int = limits.ASYNC_PAYLOAD_MAX_BYTES
    """What a payload may have that can become an event; the broker is told so."""
    buffer_max_bytes: int = limits.MQTT_BUFFER_DEFAULT_BYTES


class MqttSource:
    """`push.PushSource` of one broker.

    Args:
        spec: what is received.
        intake: stores events.
        put_letter: stores dead letters durably; raises as `DeadLetters.put`.
        sessions: keeps client id and filters.
        clock: back-off.
        connect: makes connections.
    """

    kind: Final = "mqtt"

    def __init__(
        self,
        spec: MqttSpec,
        *,
        intake: Intake,
        put_letter: Callable[[DeadLetter], Awaitable[None]],
        sessions: MqttSessions,
        clock: Clock,
        connect: Connect = MqttConnection,
    ) -> None:
        address = spec.address
        self.name = spec.name
        self.function = spec.function
        scheme = "mqtts" if address.tls else "mqtt"
        self.place = f"{scheme}://{address.host}:{address.port} {', '.join(spec.topics)}"
        self._spec = spec
        self._intake = intake
        self._sessions = sessions
        self._clock = clock
        self._connect = connect
        self._connection: MqttConnection | None = None
        self._trouble = "" if spec.topics else "no topics"
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()
        self._finished.set()
        self._filters = uncovered(spec.topics)
        self._levels = [split_shared(text)[1].split("/") for text in self._filters]
        self._plain = tuple(text for text in self._filters if not split_shared(text)[0])
        self._first: dict[str, int] = {}
        """By topic: the number of the first filter that matches, -1 for none."""
        self._identifiers: tuple[int, ...] = ()
        """Of the filters, while the broker tells which one a message came by; else empty."""
        self._delay_s = limits.MQTT_BACKOFF_MIN_S
        self._was_in = ""
        """Our client id, once the broker has let us in."""
        self._is_new = False
        """Whether the broker had no session for the connection that it let in last."""
        self._short = 0
        """Connections in a row that the broker ended soon after it let us in."""
        self._inbox = MqttInbox(
            spec.name,
            intake=intake,
            put_letter=put_letter,
            clock=clock,
            bytes_max=spec.buffer_max_bytes,
            acknowledge=self._acknowledge,
            full=self._pause,
            room=self._resume,
        )
        self._left = telemetry.MQTT_LEFT.labels(source=spec.name)
        self._not_json = telemetry.MQTT_NOT_JSON.labels(source=spec.name)
        self._accepted = telemetry.EVENTS_ACCEPTED.labels(source=spec.name, type=InvocationType.EVENT.value)

    @property
    def trouble(self) -> str:
        """See push.PushSource."""
        return self._trouble or self._inbox.trouble

    # --- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Receive until cancelled or drained. See push.PushSource."""
        self._finished.clear()
        try:
            async with asyncio.TaskGroup() as tasks:
                retrying = tasks.create_task(self._inbox.retry(), name=f"mqtt-retry:{self.name}")
                try:
                    await self._serve()
                finally:
                    retrying.cancel()
        finally:
            await self._inbox.close()
            self._finished.set()

    async def drain(self) -> None:
        """Stop reading; store and acknowledge what was read; leave the session to the broker. See push.PushSource."""
        self._stopping.set()
        await self._finished.wait()

    async def feed(self, given: Given) -> Accepted:
        """Take a message that no broker sent, as one of QoS 0 on its topic. See push.Feedable."""
        message = Message(self._given_topic(given.topic), given.data, received_ms=self._wall_ms())
        event, is_json = self._spec.shape(message)
        if not is_json:
            self._not_json.inc()
        if len(event) > self._spec.event_max_bytes:
            text = f"the event has {len(event)} bytes; the limit is {self._spec.event_max_bytes}"
            raise NotAccepted(text, status=413)
        try:
            receipt = await self._intake.submit(self._record(message, event))
        except InvokeError as error:
            raise NotAccepted(str(error), status=error.status) from error
        self._accepted.inc()
        return Accepted(ids=(receipt.id,))

    def _given_topic(self, topic: str) -> str:
        """Return the topic of a message given by hand; the source's own where it has just one."""
        if not topic:
            only = self._filters[0] if len(self._filters) == 1 else ""
            topic = split_shared(only)[1]
            if not topic or set(topic) & set("+#"):
                raise NotAccepted(f"{self.name} needs a topic, one of {', '.join(self._filters)}")
        if set(topic) & set("+#") or (mistake := filter_mistake(topic)):
            raise NotAccepted("a topic that is published to has no + or #" if set(topic) & set("+#") else mistake)
        if not any(matches(levels, topic) for levels in self._levels):
            raise NotAccepted(f"{self.name} does not receive {topic}; its topics are {', '.join(self._filters)}")
        return topic

    async def _serve(self) -> None:
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            try:
                await self._session()
            except (MqttTrouble, StoreError) as error:
                why = f"{error}{self._hint(self._clock.monotonic() - began)}"
                if self._trouble != why:
                    log.warning("mqtt_disconnected", source=self.name, error=why)
                self._trouble = why
            if self._stopping.is_set():
                return
            if self._clock.monotonic() - began > 2 * self._delay_s:
                self._delay_s = limits.MQTT_BACKOFF_MIN_S
            delay_s = self._delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            self._delay_s = min(2 * self._delay_s, limits.MQTT_BACKOFF_MAX_S)
            await self._unless_stopped(self._clock.sleep(delay_s))

    def _hint(self, lasted_s: float) -> str:
        """Return what to look at where the broker lets us in and soon drops us, again and again.

        MQTT 3.1.1 cannot say that another client took the session over, and mosquitto does not say it in MQTT 5.
        """
        self._short = self._short + 1 if self._was_in and lasted_s < _SHORT_S else 0
        client_id, self._was_in = self._was_in, ""
        return f"; does another client use the client_id {client_id}?" if self._short >= _SHORT_MAX else ""

    async def _session(self) -> None:
        """Connect, receive until the connection ends or we are to stop.

        Raises:
            MqttTrouble: the connection failed or went.
            StoreError: what is known of the session could not be read or stored.
        """
        before = await self._sessions.load(self.name)
        session = await self._identified(before)
        spec = self._spec
        connection = self._connect(
            spec.address,
            client_id=session.client_id,
            begin=self._begin,
            take=self._take,
            skip=self._skip,
            packet_max_bytes=spec.payload_max_bytes + limits.MQTT_PACKET_SPARE_BYTES,
            wall_ms=self._wall_ms,
        )
        self._connection = connection
        try:
            self._is_new = False
            try:
                is_to_stop = await self._unless_stopped(connection.open())
            finally:
                if self._is_new and session.filters:
                    # Said before we subscribe: this may end half-way, and the next connection finds the session there.
                    session = MqttSession(client_id=session.client_id, broker=session.broker)
                    await self._sessions.save(self.name, session)
            if is_to_stop:
                if connection.is_let_in:  # and a session's messages come with that word
                    await self._end(connection)
                return
            if not await self._unless_stopped(self._subscribe(connection, session)):
                log.info(
                    "mqtt_connected",
                    source=self.name,
                    client_id=session.client_id,
                    has_session=connection.session_present,
                )
                self._trouble = ""
                self._was_in = session.client_id
                await self._unless_stopped(connection.ended())
            await self._end(connection)
        finally:
            connection.abort()
            self._connection = None
            self._inbox.disconnected()

    async def _end(self, connection: MqttConnection) -> None:
        """Finish what was read, and say goodbye."""
        connection.pause()
        await self._inbox.emptied()
        await connection.close()

    async def _unless_stopped(self, work: Awaitable[None]) -> bool:
        """Wait for `work`, whose error is raised; True when it was cancelled because we are to stop."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                if task.cancelled():  # whatever did that, it is no reason to end
                    raise MqttTrouble("cancelled")
                task.result()
                return self._stopping.is_set()
            return True
        finally:
            for each in (task, stopping):
                each.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    # --- the session --------------------------------------------------------------------------------

    async def _identified(self, before: MqttSession | None) -> MqttSession:
        """Return the session to ask for; a name that is made is stored before the broker hears of it."""
        broker = self._spec.address.broker
        client_id = self._spec.client_id or (before.client_id if before is not None else "")
        if before is not None and (before.client_id, before.broker) == (client_id, broker):
            return before
        made = MqttSession(client_id=client_id or f"bridge-{self.name}-{secrets.token_hex(4)}", broker=broker)
        await self._sessions.save(self.name, made)
        return made

    async def _subscribe(self, connection: MqttConnection, session: MqttSession) -> None:
        """Bring the session to our filters.

        Resuming a session of MQTT 3.1.1 as it is asks for nothing: a broker would send what it retains once more.
        """
        spec = self._spec
        wanted = self._subscriptions()
        told = tuple(f"{spec.qos} {text}" for text, _ in wanted)
        known = session.filters
        if stale := sorted({_filter_of(each) for each in known} - {text for text, _ in wanted}):
            await connection.unsubscribe_from(stale)
        if set(known) != set(told) or spec.address.is_five:
            await connection.subscribe_to(wanted, qos=spec.qos, retained=spec.retained)
        if session.filters != told:
            await self._sessions.save(
                self.name, MqttSession(client_id=session.client_id, broker=session.broker, filters=told)
            )

    def _subscriptions(self) -> list[tuple[str, int]]:
        """Return the filters to subscribe to, each with its identifier (0: none)."""
        if self._identifiers:
            return list(zip(self._filters, self._identifiers, strict=True))
        shared = [text for text in self._filters if text not in self._plain]
        return [(text, 0) for text in (*shared, *apart(self._plain))]

    def _begin(self, session_present: bool, has_identifiers: bool) -> None:  # noqa: FBT001 - of CONNACK, by position
        """The broker let us in; messages may come from now on."""
        uses = has_identifiers and overlapping(self._plain)
        self._identifiers = tuple(_identifier(text) for text in self._filters) if uses else ()
        self._is_new = not session_present
        self._inbox.connected(session_present=session_present)

    # --- messages -----------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        """Take a message, in order of receipt."""
        digest = hash((message.topic, message.payload)) if message.qos else 0
        receipt = Receipt(message.mid, message.qos, dup=message.dup, digest=digest)
        if not self._is_ours(message):
            self._left.inc()
            self._inbox.take(receipt, None)
            return
        event, is_json = self._spec.shape(message)
        if not is_json:
            self._not_json.inc()
        if len(event) > self._spec.event_max_bytes:
            text = f"the event has {len(event)} bytes; the limit is {self._spec.event_max_bytes}"
            self._inbox.take(receipt, self._letter(message.topic, message.qos, len(message.payload), text))
            return
        self._inbox.take(receipt, self._record(message, event))

    def _record(self, message: Message, event: bytes) -> Record:
        return Record(
            id=new_id(),
            source=self.name,
            function=self.function,
            invocation_type=InvocationType.EVENT,
            received_at=message.received_ms / 1000,
            payload=event,
            key=stored_key(message.topic.encode()),
        )

    def _skip(self, message: Oversized) -> None:
        """A message was larger than any event may be, and was not read."""
        text = f"a packet of {message.size} bytes; no event is larger than {self._spec.event_max_bytes}"
        letter = self._letter(message.topic, message.qos, message.size, text)
        digest = hash((message.topic, message.size))
        self._inbox.take(Receipt(message.mid, message.qos, dup=message.dup, digest=digest), letter)

    def _letter(self, topic: str, qos: int, size: int, text: str) -> DeadLetter:
        telemetry.EVENTS_REFUSED.labels(source=self.name, reason="too large").inc()
        log.warning("message_too_large", source=self.name, topic=topic, error=text)
        now = self._clock.time()
        return DeadLetter(
            id=str(uuid.uuid4()),
            queue="default",
            function=self.function,
            source=self.name,
            received_at=now,
            dead_at=now,
            condition=Condition.RECORD_TOO_LARGE,
            attempts=0,
            payload=orjson.dumps({"topic": topic, "qos": qos, "bytes": size}),
            error_type=Condition.RECORD_TOO_LARGE.value,
            error_message=f"{text}; its payload was not kept",
        )

    def _is_ours(self, message: Message) -> bool:
        """Tell whether a message is one that we asked for, and the one copy of it that counts.

        Left are: what an earlier configuration's subscription still brings, what the joint filter of two brings that
        neither matches, further copies by overlapping filters, and what is retained where that is not wanted.
        """
        topic = message.topic
        first = self._first.get(topic)
        if first is None:
            first = next((number for number, levels in enumerate(self._levels) if matches(levels, topic)), -1)
            if len(self._first) >= _TOPICS_KEPT_MAX:
                self._first.clear()
            self._first[topic] = first
        if first < 0 or (message.retain and not self._spec.retained):
            return False
        return not (self._identifiers and message.identifiers) or self._identifiers[first] in message.identifiers

    # --- what the inbox asks for ----------------------------------------------------------------------

    def _acknowledge(self, messages: Sequence[tuple[int, int]]) -> None:
        if self._connection is not None:
            self._connection.acknowledge(messages)

    def _pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def _resume(self) -> None:
        if self._connection is not None and not self._stopping.is_set():
            self._connection.resume()

    def _wall_ms(self) -> int:
        return round(self._clock.time() * 1000)


def _identifier(text: str) -> int:
    """Return a filter's identifier: the same in every session, so that one which was left there is not taken for it."""
    return crc32(text.encode()) & _IDENTIFIER_BITS or 1


def _filter_of(told: str) -> str:
    return told.partition(" ")[2]
