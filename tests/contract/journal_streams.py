"""Streams of the journal for the suite of sources: a push source and an embedded stream, over either journal."""

import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

from bridge.core.invocation import InvocationType
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Journal
from bridge.core.record import Record
from bridge.core.stream import PutRecord, Shard, shard_index
from bridge.journal.journal import SegmentJournal
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.journal import JournalEventSource
from bridge.sources.pull.local import JournalLocalStreams, local_event_source
from bridge.sources.pull.push import push_event_source
from bridge.testing.journal import MemoryJournal
from bridge.testing.streams import MemoryStreamMarks
from bridge.util.clocks import SystemClock

Put = Callable[[Shard, Sequence[bytes]], Awaitable[None]]
Made = tuple[JournalEventSource, tuple[Shard, ...], Put]
MakeJournalStream = Callable[[Journal, int], Made]
OpenJournal = Callable[[str], Awaitable[Journal]]

PUSH = "sensors"
LOCAL = "clicks"


@asynccontextmanager
async def journal_of(kind: str, folder: Path) -> AsyncIterator[Journal]:
    """Open a journal: `memory`, or one in a folder."""
    if kind == "memory":
        yield MemoryJournal()
        return
    journal = SegmentJournal(folder=folder / "journal", segment_bytes=65_536, on_fatal=lambda error: None)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


def mapping(**changes: Any) -> EventSourceMapping:
    """Return a mapping of the push source."""
    return EventSourceMapping(**({"name": "mapping", "source": PUSH, "function": "handle"} | changes))


def event(value: bytes, **changes: Any) -> Record:
    """Return a record of the push source."""
    fields: dict[str, Any] = {
        "id": str(uuid.UUID(bytes=os.urandom(16), version=4)),
        "source": PUSH,
        "function": "",
        "invocation_type": InvocationType.EVENT,
        "received_at": time.time(),
        "payload": value,
    }
    return Record(**(fields | changes))


def id_for(number: int, count: int) -> str:
    """Return an id whose record belongs to shard `number` of `count`."""
    while crc32((found := str(uuid.uuid4())).encode()) % count != number:
        pass
    return found


def key_for(number: int, count: int) -> bytes:
    """Return a key that belongs to shard `number` of `count`."""
    return next(key for n in range(100_000) if crc32(key := b"k%d" % n) % count == number)


def push_stream(journal: Journal, shards: int) -> Made:
    """Return a push source read as a stream."""
    source = push_event_source(
        mapping(shards=shards), streams=JournalStreams(journal, MemoryStreamMarks()), clock=SystemClock()
    )

    async def put(shard: Shard, values: Sequence[bytes]) -> None:
        for value in values:
            payload = orjson.dumps({"version": "2.0", "body": value.decode(), "isBase64Encoded": False})
            await journal.append(event(payload, id=id_for(shard_index(shard), shards)))
        await journal.append(event(b"{}", source="others"))  # what lies between is none of the stream's

    return source, tuple(f"shardId-{number:012d}" for number in range(shards)), put


def local_stream(journal: Journal, shards: int, *, kind: str = "kafka") -> Made:
    """Return an embedded stream, read as one of `kind`."""
    streams = JournalStreams(journal, MemoryStreamMarks())
    clock = SystemClock()
    source = local_event_source(
        mapping(source=f"local://{LOCAL}?as={kind}", shards=shards), streams=streams, clock=clock
    )
    local = JournalLocalStreams(streams, clock=clock)

    async def put(shard: Shard, values: Sequence[bytes]) -> None:
        await source.prepare()
        key = key_for(shard_index(shard), shards)
        await local.put(LOCAL, [PutRecord(key=key, value=value) for value in values])

    names = f"{LOCAL}-%d" if kind == "kafka" else "shardId-%012d"
    return source, tuple(names % number for number in range(shards)), put
