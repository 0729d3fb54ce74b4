"""One connection to an MQTT broker, over aiomqtt: messages as they come, acknowledgements when we say so.

From paho (below 3, as locked) it uses beside what is public: `_sock`, `_sock_recv`, `_sock_close`, `_in_packet`,
`_create_socket_connection`, `_packet_handle`, `_packet_queue`, `_loop_rc_handle`, `_last_bytes_received`, `_ping_t`; of
aiomqtt `_client`, `_connected`, `_disconnected`, `_misc_loop`, `_client_connect` and its callbacks. A contract test
fails when one goes.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiomqtt
import structlog
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from bridge.core import limits
from bridge.events.mqtt import Message
from bridge.sources.push.mqtt_address import MqttAddress, MqttTrouble, Oversized, reason
from bridge.sources.push.mqtt_packets import (
    PUBACK,
    PUBLISH,
    MalformedMqtt,
    decode_publish,
    head_of_publish,
    pubacks,
    read_length,
)

log = structlog.get_logger("bridge.mqtt")

_READ_BYTES: Final = 64 * limits.KIB
_READS_MAX: Final = 4
"""Before others have their turn."""
_REFUSED: Final = 0x80
"""Reason codes from here on are failures (MQTT 5, 2.4)."""
_LINGER_S: Final = 5.0
"""For a broker on a busy machine to read our last words; else it repeats what they acknowledged."""
_MISC_S: Final = 1.0


class MqttConnection(aiomqtt.Client):
    """Made, opened, used and closed once.

    Args:
        address: of the broker.
        client_id: names the session.
        begin: is told, once let in, whether the broker has our session, and whether it names subscriptions of messages.
        take: gets every message, in order of receipt, on the loop; it may `pause`.
        skip: gets those whose packet is larger than `packet_max_bytes`.
        packet_max_bytes: the broker is told so where it speaks MQTT 5.
        wall_ms: the time of messages.
    """

    def __init__(
        self,
        address: MqttAddress,
        *,
        client_id: str,
        begin: Callable[[bool, bool], None],
        take: Callable[[Message], None],
        skip: Callable[[Oversized], None],
        packet_max_bytes: int,
        wall_ms: Callable[[], int],
    ) -> None:
        will = address.will
        super().__init__(
            address.host,
            address.port,
            username=address.username or None,
            password=address.password or None,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if address.is_five else aiomqtt.ProtocolVersion.V311,
            clean_session=None if address.is_five else not address.session_expiry_s,
            clean_start=not address.session_expiry_s if address.is_five else MQTT_CLEAN_START_FIRST_ONLY,
            properties=_connect_properties(address, packet_max_bytes) if address.is_five else None,
            keepalive=address.keepalive_s,
            timeout=limits.MQTT_ANSWER_S,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            tls_params=aiomqtt.TLSParameters(
                ca_certs=address.ca or None, certfile=address.cert or None, keyfile=address.key or None
            )
            if address.tls
            else None,
        )
        self._paho: Any = self._client
        """Untyped: half of what is used of it is not public."""
        self._paho.disable_logger()
        self._paho.manual_ack_set(True)
        self._paho.connect_timeout = limits.MQTT_ANSWER_S
        self._address = address
        self._begin = begin
        self._take = take
        self._skip = skip
        self._packet_max_bytes = packet_max_bytes
        self._wall_ms = wall_ms
        self._twin: socket.socket | None = None
        """The connection under a second descriptor: paho closes its own before the broker has read what it sent."""
        self._descriptor = -1
        self._buffer = bytearray()
        self._skipping = 0
        """Bytes of an oversized packet that are still to come."""
        self._paused = False
        self.session_present = False

    # --- life -------------------------------------------------------------------------------------

    @property
    def is_let_in(self) -> bool:
        """Messages may have been taken, and the broker hears what is said to it."""
        has_answer = self._connected.done() and not self._connected.cancelled()
        return has_answer and self._connected.exception() is None and not self._disconnected.done()

    async def open(self) -> None:
        """Connect, and take messages from then on: those of a session come at once.

        Cancelled, it leaves nothing open, but for when it `is_let_in`: then it is for the caller to close.

        Raises:
            MqttTrouble: not let in.
        """
        connecting: asyncio.Future[None] | None = None
        try:
            async with asyncio.timeout(limits.MQTT_ANSWER_S):
                dialled = await _dial(self._address.host, self._address.port)
            self._twin = dialled.dup()
            self._paho._create_socket_connection = lambda: dialled
            # In a thread: it reads certificates and shakes hands, blocking.
            connecting = self._loop.run_in_executor(None, self._client_connect)
            await asyncio.shield(connecting)
            # Without a certificate that is asked for, TLS 1.3 says so only to whom reads on.
            await asyncio.wait(
                {self._connected, self._disconnected},
                timeout=limits.MQTT_ANSWER_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not self._connected.done() and not self._disconnected.done():
                raise TimeoutError
            (self._connected if self._connected.done() else self._disconnected).result()
        except asyncio.CancelledError:
            if not self.is_let_in:
                await self._abandon(connecting)
            elif connecting is not None:
                await asyncio.wait({connecting})
            raise
        except Exception as error:
            await self._abandon(connecting)
            if isinstance(error, OSError | aiomqtt.MqttError | MalformedMqtt | ValueError):
                raise MqttTrouble(reason(error)) from error
            raise
        if self._disconnected.done():
            await self._abandon(None)
            raise MqttTrouble("the broker closed the connection at once")

    async def _abandon(self, connecting: "asyncio.Future[None] | None") -> None:
        """Leave nothing open of an attempt: a thread in a handshake ends with its socket."""
        if self._twin is not None:
            with contextlib.suppress(OSError):
                self._twin.shutdown(socket.SHUT_RDWR)
        if connecting is not None:
            await asyncio.wait({connecting})
            connecting.cancelled() or connecting.exception()  # seen
        self.abort()

    async def ended(self) -> None:
        """Wait until the connection is gone, and raise why.

        Raises:
            MqttTrouble: it is gone; never returns.
        """
        try:
            await asyncio.shield(self._disconnected)
        except Exception as error:  # whatever ended it, `_fail` has told what was not foreseen
            raise MqttTrouble(reason(error)) from error
        raise MqttTrouble("the connection was closed")

    async def close(self) -> None:
        """Say goodbye behind what was acknowledged, and let the broker read it all. Then nothing is open."""
        self.pause()
        try:
            if self._paho.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS:
                async with asyncio.timeout(_LINGER_S):
                    await asyncio.wait({self._disconnected})
                    # What nobody read would make the kernel reset the connection, and the broker lose our last words.
                    while self._twin is not None and await self._loop.sock_recv(self._twin, _READ_BYTES):
                        pass
        except (TimeoutError, OSError):
            pass  # it does not listen any more
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the sockets at once; twice is fine."""
        self.pause()
        self._paho._sock_close()
        if self._misc_task is not None:
            self._misc_task.cancel()
        if self._twin is not None:
            self._twin.close()
            self._twin = None
        self._buffer.clear()
        for future in (self._connected, self._disconnected):
            if not future.done():
                future.set_exception(MqttTrouble("the connection was closed"))
            if not future.cancelled():
                future.exception()  # seen

    # --- subscribing and acknowledging ----------------------------------------------------------------

    async def subscribe_to(self, filters: Sequence[tuple[str, int]], *, qos: int, retained: bool) -> None:
        """Subscribe to filters, each with an identifier (0: none); retained messages come for new ones alone.

        Raises:
            MqttTrouble: the broker refused one, or is gone.
        """
        for text, identifier in filters:
            options: SubscribeOptions | None = None
            properties: Properties | None = None
            if self._address.is_five:
                options = SubscribeOptions(qos=qos, retainHandling=1 if retained else 2)
                if identifier:
                    properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
                    properties.SubscriptionIdentifier = identifier
            try:
                codes = await self.subscribe(text, 0 if options else qos, options, properties)
            except (aiomqtt.MqttError, ValueError) as error:
                raise MqttTrouble(f"{text} cannot be subscribed to: {reason(error)}") from error
            granted = codes[0].value if isinstance(codes[0], ReasonCode) else codes[0]
            if granted >= _REFUSED:
                raise MqttTrouble(f"the broker refuses the subscription to {text} ({codes[0]})")
            if granted < qos:
                log.warning("mqtt_quality_lowered", filter=text, asked=qos, granted=granted)

    async def unsubscribe_from(self, filters: Sequence[str]) -> None:
        """Unsubscribe. Raises MqttTrouble when the broker is gone."""
        try:
            await self.unsubscribe(list(filters))
        except (aiomqtt.MqttError, ValueError) as error:
            raise MqttTrouble(f"cannot unsubscribe: {reason(error)}") from error

    def acknowledge(self, messages: Sequence[tuple[int, int]]) -> None:
        """Acknowledge (packet identifier, QoS), in this order, in one write."""
        if self._paho._sock is None:
            return
        if all(qos == 1 for _, qos in messages):
            packets = pubacks(mid for mid, _ in messages)
            self._paho._packet_queue(PUBACK, packets, 0, 1)
            return
        for mid, qos in messages:  # a subscription at QoS 2 that another client of this name left in the session
            self._paho.ack(mid, qos)

    # --- reading ------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Read nothing more from the socket; TCP holds the broker back."""
        self._paused = True
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        """Go on reading."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        if not self._paused and self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._readable)
            self._readable()  # what is in our buffer, or in that of TLS, wakes nobody

    def _readable(self) -> None:
        try:
            self._parse()
            for _ in range(_READS_MAX):
                if self._paused or not self._receive():
                    return
                self._parse()
            if self._address.tls and self._paho._sock is not None and self._paho._sock.pending():
                self._loop.call_soon(self._continue)
        except (MalformedMqtt, OSError) as error:
            self._fail(error)
        except Exception as error:  # the loop's boundary: it ends the connection, and is told
            log.exception("mqtt_read_failed")
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.pause()
        if not self._disconnected.done():
            self._disconnected.set_exception(error)

    def _receive(self) -> bool:
        """Read once; False when there is nothing more now."""
        if self._paho._sock is None:
            return False
        try:
            data = self._paho._sock_recv(_READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._paho._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            return False
        self._paho._last_bytes_received = time.monotonic()
        if self._skipping:
            gone = min(self._skipping, len(data))
            self._skipping -= gone
            data = data[gone:]
        self._buffer += data
        return True

    def _parse(self) -> None:
        """Hand on every packet that is whole."""
        data, at, now_ms, is_five = self._buffer, 0, self._wall_ms(), self._address.is_five
        take = self._take
        while not self._paused and len(data) - at >= 2:
            length, begin = read_length(data, at + 1)
            if length < 0:
                break
            first, end = data[at], begin + length
            is_message = first & 0xF0 == PUBLISH and first & 0x06 != 0x04
            if is_message and end - at > self._packet_max_bytes:
                behind = self._oversized(first, at, begin, end)
                if behind < 0:
                    break
                at = behind
                continue
            if end > len(data):
                break
            if is_message:
                message = decode_publish(first, data, begin, end, is_five=is_five, now_ms=now_ms)
                at = end
                take(message)
            else:
                packet = bytearray(data[begin:end])
                at = end
                self._other(first, packet)
        del data[:at]

    def _oversized(self, first: int, at: int, begin: int, end: int) -> int:
        """Pass over a message that is too large; returns the place behind it, -1 where its head is not all there."""
        data = self._buffer
        head = head_of_publish(first, data, begin, end)
        if head is None:
            return -1
        topic, mid, _ = head
        self._skip(
            Oversized(topic.decode("utf-8", "backslashreplace"), mid, first >> 1 & 3, bool(first & 0x08), end - at)
        )
        self._skipping = max(0, end - len(data))
        return min(end, len(data))

    def _other(self, first: int, packet: bytearray) -> None:
        """Let paho handle what is no message."""
        paho = self._paho
        paho._in_packet = {
            "command": first,
            "have_remaining": 1,
            "remaining_count": [],
            "remaining_mult": 1,
            "remaining_length": len(packet),
            "packet": packet,
            "to_process": 0,
            "pos": 0,
        }
        code = paho._packet_handle()
        if code > 0:
            paho._loop_rc_handle(code)

    # --- aiomqtt's callbacks ------------------------------------------------------------------------------

    def _on_message(self, client: Paho, userdata: Any, message: MQTTMessage) -> None:
        """Take a message of QoS 2, which paho has seen through; all others are read above."""
        del client, userdata
        self._take(Message(message.topic, bytes(message.payload), qos=2, mid=message.mid, received_ms=self._wall_ms()))

    def _on_connect(
        self,
        client: Paho,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.session_present = bool(flags.session_present)
        if not reason_code.is_failure:
            identifies = getattr(properties, "SubscriptionIdentifierAvailable", 1) == 1
            self._begin(self.session_present, self._address.is_five and identifies)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: Paho,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():
            hint = '; if it does not speak MQTT 5, write version = "3.1.1"' if self._address.is_five else ""
            self._connected.set_exception(MqttTrouble(f"the broker ended the connection before it let us in{hint}"))
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_socket_open(self, client: Paho, userdata: Any, sock: Any) -> None:
        """Called in the thread that connects."""
        del client, userdata
        self._loop.call_soon_threadsafe(self._opened, sock.fileno())

    def _opened(self, descriptor: int) -> None:
        if self._paho._sock is None:  # closed meanwhile
            return
        self._descriptor = descriptor
        self._misc_task = self._loop.create_task(self._misc_loop(), name="mqtt-keepalive")
        self._continue()

    def _on_socket_close(self, client: Paho, userdata: Any, sock: Any) -> None:
        del client, userdata, sock
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = -1
        if self._misc_task is not None and not self._misc_task.done():
            self._loop.call_soon_threadsafe(self._misc_task.cancel)

    async def _misc_loop(self) -> None:
        """Keep the connection alive; a PINGRESP is not waited for while nobody reads."""
        while True:
            if self._paused:
                self._paho._ping_t = 0
                self._paho._last_bytes_received = time.monotonic()
            if self._paho.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
            await asyncio.sleep(_MISC_S)


async def _dial(host: str, port: int) -> socket.socket:
    """Return a connected socket. Raises OSError."""
    loop = asyncio.get_running_loop()
    trouble: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        dialled = socket.socket(family, kind, protocol)
        try:
            dialled.setblocking(False)
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(dialled, address)
        except OSError as error:
            dialled.close()
            trouble = error
        except BaseException:
            dialled.close()
            raise
        else:
            return dialled
    raise trouble


def _connect_properties(address: MqttAddress, packet_max_bytes: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = address.session_expiry_s
    properties.ReceiveMaximum = limits.MQTT_RECEIVE_MAX
    properties.MaximumPacketSize = packet_max_bytes
    return properties
