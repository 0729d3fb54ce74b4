"""Embedded streams: what is put into the journal and read as if it came from a broker or from AWS, with none."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from bridge.core.errors import LaneFull, StreamNotFound
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.invocation import InvocationType
from bridge.core.mapping import EventSourceMapping, parse_source
from bridge.core.ports import Clock
from bridge.core.record import Record
from bridge.core.sources import RangeReader
from bridge.core.stream import Position, PutRecord, Shard, StreamRange
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.journal import JournalEventSource
from bridge.sources.pull.local_formats import LocalFormat, local_format, packed

_PREFIX: Final = "local:"


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
        payloads = [packed(record, now_ms=round(now * 1000)) for record in records]
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


def local_event_source(
    mapping: EventSourceMapping,
    *,
    streams: JournalStreams,
    clock: Clock,
    region: str = REGION_DEFAULT,
    account_id: str = ACCOUNT_DEFAULT,
) -> JournalEventSource:
    """Return the embedded stream that a mapping's source `local://NAME?as=kafka|kinesis|dynamodb` names.

    Its offsets are journal positions: they rise within a partition, with gaps as in a compacted topic. Sequence
    numbers are those positions above a base.
    """
    form = local_format(mapping, region=region, account_id=account_id)
    return _EmbeddedStream(mapping, form, streams=streams, clock=clock)


class _EmbeddedStream(JournalEventSource):
    """Takes parts by sequence number, as its records and its on-failure records show them."""

    def __init__(
        self, mapping: EventSourceMapping, form: LocalFormat, *, streams: JournalStreams, clock: Clock
    ) -> None:
        super().__init__(
            mapping,
            source=record_source(parse_source(mapping.source).name),
            shards=form.shards,
            sharding=form.sharding,
            codec=form.codec,
            shape=form.shape,
            streams=streams,
            clock=clock,
        )
        self._base = form.sequence_base

    def reader(self, range_: StreamRange) -> RangeReader:
        """Return a reader of a part, whose bounds are positions or sequence numbers. See sources.EventSource."""
        return super().reader(replace(range_, first=self._positions(range_.first), last=self._positions(range_.last)))

    def _positions(self, places: Mapping[Shard, Position]) -> dict[Shard, Position]:
        return {shard: place - self._base if place >= self._base else place for shard, place in places.items()}


def _record_id() -> str:
    """Return a random UUID (version 4) as lower-case text."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"
