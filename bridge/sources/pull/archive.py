"""What a mapping of a queue copied to the journal, read again as a stream: replays of messages that were deleted."""

from typing import Any, Final

import orjson

from bridge.core.mapping import EventSourceMapping, parse_source
from bridge.core.ports import Clock
from bridge.core.sources import ARCHIVE_PREFIX
from bridge.core.stream import Chunk, Position, Shard
from bridge.events.sqs import SqsShape, message_id
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.journal import Columns, JournalEventSource
from bridge.sources.pull.sharding import Sharding

SHARDS: Final = 8
"""Batches of one replay at once: messages are spread by their group, of a standard queue by their id."""
_HEAD: Final = b'{"Records":['
_TAIL: Final = b"]}"


class MessageArchive(JournalEventSource):
    """`sources.EventSource` of replays; live messages come from the queue."""

    def __init__(self, mapping: EventSourceMapping, *, streams: JournalStreams, clock: Clock, arn: str) -> None:
        name = parse_source(mapping.source).name
        super().__init__(
            mapping,
            source=ARCHIVE_PREFIX + mapping.name,
            shards=tuple(f"{name}-{number}" for number in range(SHARDS)),
            sharding=Sharding(shards=SHARDS, key="group", key_of=_key),
            codec=_ArchiveCodec(),
            shape=SqsShape(arn),
            streams=streams,
            clock=clock,
            is_archive=True,
        )


class _ArchiveCodec:
    """Events of one message each, as the worker of a queue copied them."""

    def chunk(self, shard: Shard, records: Columns, *, through: Position) -> Chunk:
        """Return the chunk: each message as it was handed to its function."""
        fragments = [_fragment(payload) for payload in records.payloads]
        return Chunk(
            shard=shard,
            positions=records.positions,
            times_ms=records.times_ms,
            keys=records.keys,
            values=[_body(orjson.loads(fragment)) for fragment in fragments],
            fragments=fragments,
            through=through,
        )


def _fragment(payload: bytes) -> bytes:
    return payload[len(_HEAD) : -len(_TAIL)]


def _body(record: dict[str, Any]) -> bytes:
    return str(record["body"]).encode()


def _key(record_id: str, payload: bytes, stored: bytes) -> bytes:
    """Return the message's group, or its id where it has none."""
    del stored
    fragment = _fragment(payload)
    if b'"MessageGroupId"' in fragment:
        group = orjson.loads(fragment).get("attributes", {}).get("MessageGroupId")
        if isinstance(group, str):
            return group.encode()
    try:
        return message_id(fragment).encode()
    except ValueError:
        return record_id.encode()
