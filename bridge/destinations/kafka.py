"""A Kafka topic as a target: one message per failed record of a mapping, key and headers kept; one per event else.

AWS: docs.aws.amazon.com/lambda/latest/dg/kafka-on-failure-destination.html: the same cluster, never the source's topic,
the record's own key. The message's value is AWS's record of the failure with the event of that one record as `payload`.
"""

import asyncio
import contextlib
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core import limits
from bridge.core.connection import KafkaConnection
from bridge.core.errors import ConfigError
from bridge.core.invocation import Condition, DeadLetter
from bridge.core.outcome import OutboxEntry, RecordRefused, TargetTrouble
from bridge.events.kafka import KafkaRecord, split_event
from bridge.events.outcomes import record_of
from bridge.util.library_log import overheard

SEND_MAX_S: Final = 15.0
"""All messages of a dead letter are acknowledged within it, connecting included, or it was not taken."""
STOP_MAX_S: Final = 5.0
MESSAGE_MAX_BYTES: Final = 2 * limits.SYNC_PAYLOAD_MAX_BYTES
"""What we try at most, before compression; brokers take 1 MB after it (message.max.bytes)."""

_SENDS_MAX: Final = 8
"""At once: what the brokers refuse of one takes the others of its producer with it, and they are sent again."""

_Message = tuple[bytes | None, bytes, list[tuple[str, bytes | None]]]


class KafkaDestination:
    """`outcome.Transport` over an idempotent producer, which starts with the first record."""

    def __init__(
        self,
        *,
        topic: str,
        connection: KafkaConnection,
        arguments: Callable[[], Mapping[str, Any]],
        daemon: str = "",
        send_max_s: float = SEND_MAX_S,
    ) -> None:
        """Name the topic; nothing is connected yet.

        Args:
            topic: where records go.
            connection: its cluster.
            arguments: returns what aiokafka's clients take for the connection; called at each start.
            daemon: named in pointers.
            send_max_s: seconds after which a record counts as not taken.
        """
        self.concurrency = _SENDS_MAX
        self._daemon = daemon
        self._topic = topic
        self._place = f"kafka://{_name(connection)}/{topic}"
        self._arguments = arguments
        self._send_max_s = send_max_s
        self._producer: Any = None
        self._starting = asyncio.Lock()

    async def send(self, entry: OutboxEntry, letter: DeadLetter | None) -> None:
        """Return once the brokers have all its messages (acks=all); sent again, they are there twice.

        Raises:
            RecordRefused: a message is too large for the topic.
            TargetTrouble: not taken within `send_max_s` seconds, or refused: no such topic.
        """
        from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError

        said: Sequence[str] = ()
        try:
            async with asyncio.timeout(self._send_max_s):
                with overheard() as said:
                    producer = await self._started()
                sent = [
                    await producer.send(self._topic, key=key, value=value, headers=headers)
                    for key, value, headers in _messages(entry, letter, daemon=self._daemon)
                ]
                for acknowledged in await asyncio.gather(*sent, return_exceptions=True):
                    if isinstance(acknowledged, BaseException):
                        raise acknowledged
        except TimeoutError as error:
            await self._drop()
            texts = [f"{self._place}: not taken within {self._send_max_s:g} s", *dict.fromkeys(said)]
            raise TargetTrouble(": ".join(texts)) from error
        except MessageSizeTooLargeError as error:
            # The producer's own refusal leaves it sound; the brokers' one breaks its sequence.
            await self._drop()
            raise RecordRefused(f"{self._place}: {_text(error)}") from error
        except (KafkaError, OSError, ConfigError) as error:
            # A producer may be of no use after an error (its sequence is broken): the next letter gets another.
            await self._drop()
            # That of a connection says neither which address was of no use nor why: what was overheard does.
            why = "; ".join(said) if isinstance(error, KafkaConnectionError) else ""
            raise TargetTrouble(f"{self._place}: {why or _text(error)}") from error

    async def close(self) -> None:
        """End the producer; twice is fine."""
        async with self._starting:
            await self._drop()

    async def _started(self) -> Any:
        from aiokafka import AIOKafkaProducer

        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._arguments(),
                    acks="all",
                    enable_idempotence=True,
                    compression_type="gzip",
                    max_request_size=MESSAGE_MAX_BYTES,
                )
                try:
                    await producer.start()
                except BaseException:
                    await _stop(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)


async def _stop(producer: Any) -> None:
    from aiokafka.errors import KafkaError

    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(STOP_MAX_S):
            await producer.stop()


# --- messages -------------------------------------------------------------------------------------------------------
def _messages(entry: OutboxEntry, letter: DeadLetter | None, *, daemon: str) -> list[_Message]:
    if letter is None or entry.is_pointer or not letter.mapping:
        return [_whole_message(entry, letter, daemon=daemon)]
    records: list[tuple[KafkaRecord | None, bytes]]
    try:
        if letter.condition is Condition.RECORD_DAMAGED:
            # Perhaps no JSON any more: as the api shows it.
            records = [(None, b'{"base64":"%b"}' % b2a_base64(letter.payload, newline=False))]
        else:
            records = list(split_event(letter.payload))
    except ValueError:  # not Kafka's records: a push source read as a stream
        records = [(None, letter.payload)]
    return [
        (
            None if record is None else record.key,
            _value(letter.outcome, payload),
            [*(record.headers if record is not None else ()), *_told(letter, record)],
        )
        for record, payload in records
    ]


def _whole_message(entry: OutboxEntry, letter: DeadLetter | None, *, daemon: str) -> _Message:
    """Return the one message of an asynchronous event, or of a pointer: its key is the event's id."""
    told = {"bridge-kind": entry.kind.value, "bridge-function": entry.function}
    headers = [(name, text.encode()) for name, text in told.items()]
    value = record_of(entry, letter, with_payload=True, daemon=daemon)
    return entry.id.encode(), value, [*headers, *(_told(letter, None) if letter is not None else ())]


def _value(outcome: bytes, payload: bytes) -> bytes:
    """Return AWS's record with the event as its last member; just the event where there is no record of it."""
    head = outcome.rstrip().removesuffix(b"}")
    return head + b',"payload":' + payload + b"}" if head else payload


def _told(letter: DeadLetter, record: KafkaRecord | None) -> list[tuple[str, bytes | None]]:
    told = {
        "bridge-mapping": letter.mapping or letter.source,
        "bridge-dead-letter": letter.id,
        "bridge-condition": letter.condition.value,
        "bridge-attempts": str(letter.attempts),
        "bridge-error-type": letter.error_type,
    }
    if record is not None:
        told |= {
            "bridge-topic": record.topic,
            "bridge-partition": str(record.partition),
            "bridge-offset": str(record.offset),
            "bridge-timestamp": str(record.timestamp_ms),
        }
    return [(name, text.encode()) for name, text in told.items()]


# --- names ----------------------------------------------------------------------------------------------------------
def refuse_loop(topic: str, connection: KafkaConnection, *, source_topic: str, source: KafkaConnection) -> None:
    """Raise ConfigError where failures would go to what the mapping reads: they would come again for ever."""
    if topic == source_topic and _same_cluster(connection, source):
        raise ConfigError(f"on_failure kafka://{_name(connection)}/{topic} is what the mapping reads: a loop")


def _same_cluster(one: KafkaConnection, other: KafkaConnection) -> bool:
    return bool(one.name and one.name == other.name) or bool(set(one.bootstrap_servers) & set(other.bootstrap_servers))


def _name(connection: KafkaConnection) -> str:
    return connection.name or ",".join(connection.bootstrap_servers)


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
