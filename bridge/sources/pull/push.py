"""A push source read as a stream by the mappings that name it: its stored events, sharded by a key."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, overload

from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock
from bridge.core.stream import Chunk, Position, Shard
from bridge.events.cloudwatch_logs import logs_of
from bridge.events.mqtt import record_of, record_payload
from bridge.events.sns import message_of
from bridge.events.streams import RecordsShape, record_json, shard_name
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.journal import Columns, JournalEventSource
from bridge.sources.pull.sharding import BodyOf, body_of, push_sharding


class _Form(NamedTuple):
    """How the events of a kind of push source lie in the journal."""

    kind: str
    """The end of `eventSource`."""
    body: BodyOf
    record: Callable[[bytes], bytes]
    """Returns what a stored event is as one of `Records`."""


def _itself(payload: bytes) -> bytes:
    return payload


_FORMS: Final[Mapping[str, _Form]] = {
    "webhook": _Form("webhook", body_of, _itself),
    "webhook-event": _Form("webhook", _itself, _itself),
    "webhook-sns": _Form("webhook", message_of, _itself),
    "webhook-logs": _Form("webhook", logs_of, _itself),
    "schedule": _Form("schedule", body_of, _itself),
    "mqtt": _Form("mqtt", _itself, _itself),
    "mqtt-records": _Form("mqtt", record_payload, record_of),
}


def push_event_source(
    mapping: EventSourceMapping,
    *,
    streams: JournalStreams,
    clock: Clock,
    form: str = "webhook",
    region: str = REGION_DEFAULT,
    account_id: str = ACCOUNT_DEFAULT,
) -> JournalEventSource:
    """Return the stream that a push source is to a mapping which names it.

    Args:
        mapping: reads it.
        streams: of the journal.
        clock: how long a read waits.
        form: what its events are: `webhook` (of a request), `webhook-event` (the event is the body), `webhook-sns` (the
            message is), `webhook-logs` (what is unpacked is), `schedule`, `mqtt` (as rules make them), `mqtt-records`.
        region: part of the stream's ARN.
        account_id: likewise.

    Raises:
        ValueError: the mapping's key has no known form.
    """
    how = _FORMS[form]
    shape = RecordsShape(mapping.source, kind=how.kind, region=region, account_id=account_id)
    shards = tuple(shard_name(number) for number in range(mapping.shards))
    return JournalEventSource(
        mapping,
        source=mapping.source,
        shards=shards,
        sharding=push_sharding(shards=mapping.shards, key=mapping.key, body=how.body),
        codec=_PushCodec({shard: shape.record_tail(shard) for shard in shards}, how),
        shape=shape,
        streams=streams,
        clock=clock,
    )


class _Bodies(Sequence[bytes | None]):
    """The bodies of events, read out of them by whoever looks: most mappings have no filter."""

    __slots__ = ("_body", "_payloads")

    def __init__(self, payloads: Sequence[bytes], body: BodyOf) -> None:
        self._payloads = payloads
        self._body = body

    def __len__(self) -> int:
        return len(self._payloads)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes | None] | None:
        if isinstance(index, slice):
            return _Bodies(self._payloads[index], self._body)
        return self._body(self._payloads[index])

    def __iter__(self) -> Iterator[bytes | None]:
        return map(self._body, self._payloads)


class _PushCodec:
    """Records of a push source: the value is the event's body, base64 taken off, as filters read that of SQS."""

    def __init__(self, tails: Mapping[Shard, bytes], form: _Form) -> None:
        self._tails = tails
        self._form = form

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk."""
        tail, record = self._tails[shard], self._form.record
        return Chunk(
            shard=shard,
            positions=records.positions,
            times_ms=records.times_ms,
            keys=records.keys,
            values=_Bodies(records.payloads, self._form.body),
            fragments=[
                record_json(record(payload), tail, record_id)
                for payload, record_id in zip(records.payloads, records.ids, strict=True)
            ],
            through=through,
        )
