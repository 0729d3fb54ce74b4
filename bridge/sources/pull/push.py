"""A push source read as a stream by the mappings that name it: its stored events, sharded by a key."""

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock
from bridge.core.stream import Chunk, Position, Shard
from bridge.events.streams import RecordsShape, record_json, shard_name
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.journal import Columns, JournalEventSource
from bridge.sources.pull.sharding import body_of, push_sharding


def push_event_source(
    mapping: EventSourceMapping,
    *,
    streams: JournalStreams,
    clock: Clock,
    kind: str = "webhook",
    region: str = REGION_DEFAULT,
    account_id: str = ACCOUNT_DEFAULT,
) -> JournalEventSource:
    """Return the stream that a push source is to a mapping which names it.

    Raises:
        ValueError: the mapping's key has no known form.
    """
    shape = RecordsShape(mapping.source, kind=kind, region=region, account_id=account_id)
    shards = tuple(shard_name(number) for number in range(mapping.shards))
    return JournalEventSource(
        mapping,
        source=mapping.source,
        shards=shards,
        sharding=push_sharding(shards=mapping.shards, key=mapping.key),
        codec=_PushCodec({shard: shape.record_tail(shard) for shard in shards}),
        shape=shape,
        streams=streams,
        clock=clock,
    )


class _Bodies(Sequence[bytes | None]):
    """The bodies of events, read out of them by whoever looks: most mappings have no filter."""

    __slots__ = ("_payloads",)

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self._payloads = payloads

    def __len__(self) -> int:
        return len(self._payloads)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes | None] | None:
        if isinstance(index, slice):
            return _Bodies(self._payloads[index])
        return body_of(self._payloads[index])

    def __iter__(self) -> Iterator[bytes | None]:
        return map(body_of, self._payloads)


class _PushCodec:
    """Records of a push source: the value is the event's body, base64 taken off, as filters read that of SQS."""

    def __init__(self, tails: Mapping[Shard, bytes]) -> None:
        self._tails = tails

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk."""
        tail = self._tails[shard]
        return Chunk(
            shard=shard,
            positions=records.positions,
            times_ms=records.times_ms,
            keys=records.keys,
            values=_Bodies(records.payloads),
            fragments=[
                record_json(payload, tail, record_id)
                for payload, record_id in zip(records.payloads, records.ids, strict=True)
            ],
            through=through,
        )
