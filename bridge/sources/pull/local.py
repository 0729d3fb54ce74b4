"""Embedded streams: what is put into the journal and read as if it came from Kafka, with no broker."""

import asyncio
import os
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from typing import Any, Final

import orjson

from bridge.core.errors import LaneFull, StreamNotFound
from bridge.core.invocation import InvocationType
from bridge.core.mapping import EventSourceMapping, parse_source
from bridge.core.ports import Clock
from bridge.core.record import Record
from bridge.core.stream import Chunk, Position, PutRecord, Shard, shard_index
from bridge.events.kafka import CREATE_TIME, KafkaShape, headers_json, record_fragments, record_prefix, shard_name
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.journal import Columns, JournalEventSource
from bridge.sources.pull.sharding import Sharding

BOOTSTRAP_SERVERS: Final = "local"
"""What events of an embedded stream show where Kafka's have `host:port`."""
_PREFIX: Final = "local:"
_KEY_MEMBER: Final = b'"key":'


def record_source(stream: str) -> str:
    """Return the source of a stream's records in the journal: no push source has such a name."""
    return _PREFIX + stream


class JournalLocalStreams:
    """`sources.LocalStreams` over the journal."""

    def __init__(self, streams: JournalStreams, *, clock: Clock) -> None:
        self._streams = streams
        self._clock = clock

    async def put(self, stream: str, records: Sequence[PutRecord]) -> Sequence[Position]:
        """Store records in this order. See sources.LocalStreams."""
        source = record_source(stream)
        if not self._streams.is_read(source):
            raise StreamNotFound(f"no mapping reads local://{stream}")
        now = round(self._clock.time(), 3)
        payloads = [_packed(record, now_ms=round(now * 1000)) for record in records]
        self._reserve(source, payloads)
        stored = [
            Record(
                id=_record_id(),
                source=source,
                function="",
                invocation_type=InvocationType.EVENT,
                received_at=now,
                payload=payload,
            )
            for payload in payloads
        ]
        # Tasks begin in the order they are made, and an append takes its place in its first step.
        unbegun = {record.id: record for record in stored}
        try:
            results = await asyncio.gather(
                *(self._append(record, unbegun) for record in stored), return_exceptions=True
            )
        finally:
            for record in unbegun.values():  # a cancel was quicker
                self._streams.unreserve(source, len(record.payload))
        positions = list[Position]()
        for result in results:
            if isinstance(result, BaseException):
                raise result
            positions.append(result)
        return positions

    def _reserve(self, source: str, payloads: Sequence[bytes]) -> None:
        """Make room for all of them or none."""
        for number, payload in enumerate(payloads):
            try:
                self._streams.reserve(source, len(payload))
            except LaneFull:
                for reserved in payloads[:number]:
                    self._streams.unreserve(source, len(reserved))
                raise

    async def _append(self, record: Record, unbegun: dict[str, Record]) -> Position:
        del unbegun[record.id]
        return (await self._streams.journal.append(record)).position


def local_event_source(mapping: EventSourceMapping, *, streams: JournalStreams, clock: Clock) -> JournalEventSource:
    """Return the embedded stream that a mapping's source `local://NAME?as=kafka` names.

    Its offsets are journal positions: they rise within a partition, with gaps as in a compacted topic.
    """
    name = parse_source(mapping.source).name
    shards = tuple(shard_name(name, number) for number in range(mapping.shards))
    return JournalEventSource(
        mapping,
        source=record_source(name),
        shards=shards,
        sharding=Sharding(shards=mapping.shards, key="record", key_of=_key),
        codec=_KafkaCodec(name),
        shape=KafkaShape(topic=name, bootstrap_servers=BOOTSTRAP_SERVERS, event_source_arn=mapping.event_source_arn),
        streams=streams,
        clock=clock,
    )


class _KafkaCodec:
    """Records that were put, as Kafka's."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk; a record that was put without a key has none here either."""
        positions = records.positions
        put = [_unpacked(payload) for payload in records.payloads]
        rows = [
            (position, time_ms, CREATE_TIME, key, value, headers)
            for position, (time_ms, key, value, headers) in zip(positions, put, strict=True)
        ]
        return Chunk(
            shard=shard,
            positions=positions,
            times_ms=[row[1] for row in rows],
            keys=[row[3] for row in rows],
            values=[row[4] for row in rows],
            fragments=record_fragments(record_prefix(self._topic, shard_index(shard)), rows),
            through=through,
        )


def _packed(record: PutRecord, *, now_ms: int) -> bytes:
    """Return the stored form: JSON, as Kafka's records have it in an event, so that `bridge events` can show it."""
    return b'{"timestamp":%d,"key":%b,"value":%b,"headers":%b}' % (
        now_ms if record.timestamp_ms is None else record.timestamp_ms,
        _encoded(record.key),
        _encoded(record.value),
        headers_json(record.headers),
    )


def _encoded(data: bytes | None) -> bytes:
    return b"null" if data is None else b'"%b"' % b2a_base64(data, newline=False)


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else a2b_base64(text)


def _unpacked(payload: bytes) -> tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]:
    put: dict[str, Any] = orjson.loads(payload)
    headers = [
        (name, None if value is None else bytes(number & 0xFF for number in value))
        for header in put["headers"]
        for name, value in header.items()
    ]
    return put["timestamp"], _decoded(put["key"]), _decoded(put["value"]), headers


def _key(record_id: str, payload: bytes) -> bytes:
    """Return the record's key, or its id: those without one are spread. Read where `_packed` puts it, unparsed."""
    at = payload.index(_KEY_MEMBER) + len(_KEY_MEMBER)
    if payload[at : at + 1] != b'"':
        return record_id.encode()
    return a2b_base64(payload[at + 1 : payload.index(b'"', at + 1)])


def _record_id() -> str:
    """Return a random UUID (version 4) as lower-case text."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"
