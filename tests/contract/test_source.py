"""What every event source and its readers promise (`sources.Source`, `EventSource`, `EventShape`)."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import orjson
import pytest
import pytest_asyncio

from bridge.aws.clients import AwsClients
from bridge.core.errors import SourceError
from bridge.core.mapping import StartingPosition
from bridge.core.ports import Journal
from bridge.core.sources import Standing
from bridge.core.stream import Mark, Position, Shard, StreamRange
from tests.contract.journal_streams import OpenJournal, journal_of
from tests.contract.sources import SUBJECTS, Listener, MakeStream, Reading, Stream, Subject, open_consumer, opened


@pytest.fixture(scope="session", params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Return each implementation in turn, with what it needs started."""
    implementation = cast("Subject", request.param)
    for name in implementation.needs:
        request.getfixturevalue(name)
    return implementation


@pytest_asyncio.fixture
async def open_journal(tmp_path: Path) -> AsyncIterator[OpenJournal]:
    """Return what opens a journal of a kind; it is closed with the test."""
    async with AsyncExitStack() as stack:

        async def make(kind: str) -> Journal:
            return await stack.enter_async_context(journal_of(kind, tmp_path))

        yield make


@pytest_asyncio.fixture
async def aws_clients() -> AsyncIterator[AwsClients]:
    """Return clients of AWS, closed with the test."""
    clients = AwsClients()
    yield clients
    await clients.close()


@pytest.fixture
def make_stream(request: pytest.FixtureRequest, subject: Subject) -> MakeStream:
    """Return what makes streams of the implementation."""
    return subject.streams(request)


def values(count: int, *, size: int = 0) -> list[bytes]:
    return [b'{"n":%d,"x":"%b"}' % (number, b"." * size) for number in range(count)]


async def positions_of(stream: Stream, shard: Shard) -> list[Position]:
    """Return the positions of all records of a shard, as a reader of its own sees them."""
    reading = await opened(stream.source.reader(StreamRange(shards=frozenset({shard}))), {shard})
    await reading.until(lambda: bool(reading.ended))
    await reading.source.close()
    return reading.positions.get(shard, [])


# --- reading --------------------------------------------------------------------------------------------------------
async def test_every_record_comes_once_in_order_behind_its_shards_mark(make_stream: MakeStream) -> None:
    stream = await make_stream(3)
    for shard in stream.shards:
        await stream.put(shard, values(50))

    reading = await open_consumer(stream)
    await reading.until(lambda: reading.count >= 150, records_max=40)
    await reading.read()

    assert reading.values == {shard: values(50) for shard in stream.shards}
    await reading.source.close()


async def test_records_that_arrive_later_come_too(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    reading = await open_consumer(stream)
    assert not (await reading.read(wait_s=0.1)).chunks

    await stream.put(stream.shards[0], values(3))
    await reading.until(lambda: reading.count == 3)

    assert reading.values[stream.shards[0]] == values(3)
    await reading.source.close()


async def test_columns_are_what_was_sent_and_fragments_make_an_event(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    await stream.put(stream.shards[0], values(3))
    before_ms = time.time() * 1000 - 60_000

    reading = await open_consumer(stream)
    await reading.until(lambda: reading.count == 3)
    chunk = reading.chunks[0]
    event = stream.source.shape.event([(chunk.shard, chunk.fragments)])

    assert all(before_ms < at < time.time() * 1000 + 60_000 for at in chunk.times_ms)
    assert orjson.loads(event)
    overhead = stream.source.shape.overhead_bytes
    assert len(event) <= overhead + sum(map(len, chunk.fragments)) + len(chunk) - 1
    await reading.source.close()


async def test_identifiers_tell_records_apart(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    for shard in stream.shards:
        await stream.put(shard, values(3))
    reading = await open_consumer(stream)
    await reading.until(lambda: reading.count == 6)

    found = {stream.source.shape.identifier(chunk, index) for chunk in reading.chunks for index in range(len(chunk))}

    assert len(found) == 6
    assert stream.source.shape.read_identifier(None) is None
    assert stream.source.shape.read_identifier(5) is None
    await reading.source.close()


async def test_no_more_records_or_bytes_come_than_asked_for(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    for shard in stream.shards:
        await stream.put(shard, values(20, size=1000))
    reading = await open_consumer(stream)

    while reading.count < 40:
        poll = await reading.read(records_max=7, bytes_max=5000)
        sizes = [len(stream.value(value) or b"") for chunk in poll.chunks for value in chunk.values]
        assert len(sizes) <= 7
        assert sum(sizes) <= 5000 + 1100

    assert reading.values == {shard: values(20, size=1000) for shard in stream.shards}
    await reading.source.close()


async def test_a_record_larger_than_what_was_asked_for_comes_all_the_same(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    await stream.put(stream.shards[0], values(3, size=50_000))
    reading = await open_consumer(stream)

    await reading.until(lambda: reading.count == 3, bytes_max=100)

    assert {len(chunk) for chunk in reading.chunks} == {1}
    await reading.source.close()


async def test_a_read_without_records_ends_after_its_wait(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    reading = await open_consumer(stream)

    began = time.monotonic()
    poll = await reading.read(wait_s=0.3)

    assert not poll.chunks
    assert time.monotonic() - began > 0.2
    await reading.source.close()


async def test_a_read_with_records_does_not_wait(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    await stream.put(stream.shards[0], values(10))
    reading = await open_consumer(stream)

    await reading.until(lambda: reading.count >= 1, records_max=1)
    async with asyncio.timeout(60):
        await reading.read(wait_s=200.0)

    await reading.source.close()


async def test_of_paused_shards_nothing_comes_and_nothing_is_skipped(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    slow, fast = stream.shards
    reading = await open_consumer(stream)
    for shard in stream.shards:
        await stream.put(shard, values(30))

    await reading.until(lambda: len(reading.positions.get(fast, ())) == 30, paused={slow}, records_max=10)
    assert slow not in reading.positions
    await reading.read(paused={slow, fast}, wait_s=0.2)
    await stream.put(slow, values(5))
    await reading.read(paused={slow, fast}, wait_s=0.2)
    assert slow not in reading.positions
    await reading.until(lambda: len(reading.positions.get(slow, ())) == 35, records_max=10)

    assert reading.values == {slow: values(30) + values(5), fast: values(30)}
    await reading.source.close()


async def test_a_shard_that_is_paused_in_the_middle_goes_on_where_it_stopped(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    (shard,) = stream.shards
    await stream.put(shard, values(100))
    reading = await open_consumer(stream)

    for step in range(5):
        await reading.until(lambda step=step: reading.count >= step * 20 + 1, records_max=9)  # type: ignore[misc]
        await reading.read(paused={shard}, wait_s=0.05)
    await reading.until(lambda: reading.count == 100)

    assert reading.values[shard] == values(100)
    await reading.source.close()


async def test_a_cancelled_read_loses_nothing(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    reading = await open_consumer(stream)

    async def feed() -> None:
        for number in range(20):
            await stream.put(stream.shards[number % 2], values(10))

    async def cut() -> bool:
        """Read, and cancel it unless it was quick; whether it was cancelled."""
        task = asyncio.create_task(reading.read(records_max=15, wait_s=0.5))
        await asyncio.sleep(0.002)
        is_cut = task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return is_cut

    cancelled = int(await cut())  # there is nothing to read yet: this one waits
    feeding = asyncio.create_task(feed())
    while reading.count < 200:
        cancelled += await cut()
        if feeding.done():
            await reading.read(records_max=15, wait_s=0.2)
    await feeding

    assert cancelled > 0
    assert reading.values == {shard: values(10) * 10 for shard in stream.shards}
    await reading.source.close()


# --- marks ----------------------------------------------------------------------------------------------------------
async def first_marks(stream: Stream) -> dict[Shard, Mark]:
    """Open a live reader, return the marks it begins behind, and close it."""
    reading = await open_consumer(stream)
    marks = dict(reading.listener.marks)
    await reading.source.close()
    return marks


async def read_all(stream: Stream, count: int) -> Reading:
    reading = await open_consumer(stream)
    return await reading.until(lambda: reading.count >= count)


async def test_a_committed_mark_is_where_the_next_reader_begins_with_its_note(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    first, second = stream.shards
    await stream.put(first, values(10))
    reading = await read_all(stream, 10)
    middle = reading.positions[first][4]

    await reading.source.commit(
        {first: Mark(position=middle, epoch=reading.listener.marks[first].epoch, note=b'{"a":2}')}
    )
    await reading.source.close()
    after = await open_consumer(stream)
    await after.until(lambda: after.count == 5)

    assert (after.listener.marks[first].position, after.listener.marks[first].note) == (middle, b'{"a":2}')
    assert after.listener.marks[second].note == b""
    assert after.values == {first: values(10)[5:]}
    await after.source.close()


async def test_marks_of_an_old_epoch_and_of_other_shards_are_ignored(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    (shard,) = stream.shards
    await stream.put(shard, values(10))
    old = await read_all(stream, 10)
    stale = old.marks()
    await old.source.close()
    reading = await open_consumer(stream)
    assert reading.listener.marks[shard].epoch != stale[shard].epoch

    await reading.source.commit(stale)
    await reading.source.commit({"nobodys-7": Mark(position=3, epoch=reading.listener.marks[shard].epoch)})
    await old.source.commit(stale)
    await reading.source.close()

    assert (await first_marks(stream))[shard].position < old.positions[shard][0]


async def test_a_mark_never_moves_back_and_twice_is_fine(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    (shard,) = stream.shards
    await stream.put(shard, values(10))
    reading = await read_all(stream, 10)
    epoch, positions = reading.listener.marks[shard].epoch, reading.positions[shard]

    for position, note in ((7, b""), (7, b""), (2, b""), (7, b'{"again":1}'), (3, b'{"no":1}')):
        await reading.source.commit({shard: Mark(position=positions[position], epoch=epoch, note=note)})
    await reading.source.close()
    mark = (await first_marks(stream))[shard]

    assert (mark.position, mark.note) == (positions[7], b'{"again":1}')


async def test_commits_come_from_another_task_than_reads(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    reading = await open_consumer(stream)
    done = asyncio.Event()

    async def commit() -> None:
        while not done.is_set():
            await reading.source.commit(reading.marks())
            await asyncio.sleep(0.005)

    committing = asyncio.create_task(commit())
    for _ in range(10):
        for shard in stream.shards:
            await stream.put(shard, values(10))
    await reading.until(lambda: reading.count == 200, records_max=7)
    done.set()
    await committing
    await reading.source.commit(reading.marks())
    expected = {shard: mark.position for shard, mark in reading.marks().items()}
    await reading.source.close()

    assert {shard: mark.position for shard, mark in (await first_marks(stream)).items()} == expected


async def test_how_many_are_behind(make_stream: MakeStream, subject: Subject) -> None:
    stream = await make_stream(2)
    first, second = stream.shards
    await stream.put(first, values(10))
    reading = await read_all(stream, 10)
    if not subject.counts_behind:
        assert reading.source.behind({first: 0, "nobodys-7": 0}) == {first: None, "nobodys-7": None}
        await reading.source.close()
        return
    await reading.until(lambda: reading.source.behind({first: 0})[first] is not None)

    behind = reading.source.behind(
        {first: reading.positions[first][3], second: reading.listener.marks[second].position, "nobodys-7": 0}
    )

    assert behind[first] == 6
    assert behind[second] in (0, None)
    assert behind["nobodys-7"] is None
    await reading.source.close()


# --- the end --------------------------------------------------------------------------------------------------------
async def test_closing_revokes_first_and_what_is_committed_then_is_stored(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    (shard,) = stream.shards
    await stream.put(shard, values(10))
    reading = await read_all(stream, 10)
    reading.listener.when_revoked = lambda: reading.source.commit(reading.marks())

    await reading.source.close()
    await reading.source.close()

    assert [what for what, _ in reading.listener.log] == ["assigned", "revoking"]
    assert (await first_marks(stream))[shard].position == reading.through[shard]


async def test_a_revocation_that_takes_too_long_does_not_keep_the_source(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    reading = await open_consumer(stream)
    reading.listener.when_revoked = lambda: asyncio.sleep(3600)

    async with asyncio.timeout(60):
        await reading.source.close()


async def test_after_closing_nothing_is_read_or_committed(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    (shard,) = stream.shards
    await stream.put(shard, values(10))
    reading = await read_all(stream, 10)
    marks = reading.marks()
    await reading.source.close()

    await reading.source.commit(marks)
    with pytest.raises(SourceError):
        await reading.source.read(records_max=1, bytes_max=1, wait_s=0, paused=set())

    assert (await first_marks(stream))[shard].position < marks[shard].position


async def test_a_source_that_was_never_opened_can_be_closed(make_stream: MakeStream) -> None:
    stream = await make_stream(1)

    await stream.source.consumer().close()
    await stream.source.reader(StreamRange()).close()


# --- ranges ---------------------------------------------------------------------------------------------------------
async def read_range(stream: Stream, range_: StreamRange, shards: Sequence[Shard]) -> Reading:
    reading = await opened(stream.source.reader(range_), set(shards), value=stream.value)
    await reading.until(lambda: reading.ended == set(shards), records_max=7)
    await reading.source.close()
    return reading


async def test_a_range_is_read_to_its_end_as_seen_when_it_was_opened(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    first, second = stream.shards
    await stream.put(first, values(20))

    reading = await opened(stream.source.reader(StreamRange()), {first, second}, value=stream.value)
    await stream.put(first, values(5))
    await stream.put(second, values(5))
    await reading.until(lambda: reading.ended == {first, second})

    assert reading.values == {first: values(20)}
    await reading.source.close()


async def test_a_range_by_positions_and_shards(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    first, second = stream.shards
    for shard in stream.shards:
        await stream.put(shard, values(20))
    positions = await positions_of(stream, first)

    bounds = StreamRange(first={first: positions[5]}, last={first: positions[9]}, shards=frozenset({first}))
    reading = await read_range(stream, bounds, [first])

    assert reading.positions == {first: positions[5:10]}
    assert second not in reading.ended


async def test_a_range_by_time(make_stream: MakeStream, subject: Subject) -> None:
    stream = await make_stream(1)
    (shard,) = stream.shards
    await stream.put(shard, values(3))
    await asyncio.sleep(subject.time_step_s)
    since = time.time()
    await asyncio.sleep(subject.time_step_s)
    await stream.put(shard, values(4))
    await asyncio.sleep(subject.time_step_s)
    until = time.time()
    await asyncio.sleep(subject.time_step_s)
    await stream.put(shard, values(5))

    reading = await read_range(stream, StreamRange(since=since, until=until), [shard])
    later = await read_range(stream, StreamRange(since=time.time() + 60), [shard])

    assert reading.values == {shard: values(4)}
    assert later.count == 0


async def test_a_later_reader_ends_where_an_earlier_one_said_whatever_came_since(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    first, second = stream.shards
    await stream.put(first, values(10))
    positions = await positions_of(stream, first)
    reader = stream.source.reader(StreamRange())
    await opened(reader, {first, second})
    ends = dict(reader.ends)
    await reader.close()
    await stream.put(first, values(5))
    await stream.put(second, values(5))

    again = await read_range(stream, StreamRange(first={first: positions[4]}, last=ends), [first, second])

    assert set(ends) == {first, second}
    assert again.positions == {first: positions[4:10]}
    assert reader.gone == 0


async def test_a_range_leaves_the_live_marks_alone(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    (shard,) = stream.shards
    await stream.put(shard, values(10))
    live = await read_all(stream, 10)
    middle = live.positions[shard][4]
    await live.source.commit({shard: Mark(position=middle, epoch=live.listener.marks[shard].epoch)})

    reading = await opened(stream.source.reader(StreamRange()), {shard})
    await reading.until(lambda: reading.count == 10)
    await reading.source.commit(reading.marks())
    await reading.source.close()
    await stream.put(shard, values(2))
    await live.until(lambda: live.count == 12)
    await live.source.close()

    assert [what for what, _ in live.listener.log] == ["assigned", "revoking"]
    assert (await first_marks(stream))[shard].position == middle


# --- moving marks ---------------------------------------------------------------------------------------------------
async def test_reset_moves_all_marks(make_stream: MakeStream) -> None:
    stream = await make_stream(2)
    first, _ = stream.shards
    await stream.put(first, values(10))
    reading = await read_all(stream, 10)
    await reading.source.commit(reading.marks(note=b'{"a":1}'))
    begun = {shard: reading.listener.marks[shard].position for shard in stream.shards}
    await reading.source.close()

    back = await stream.source.reset(StartingPosition.TRIM_HORIZON)
    seen = await first_marks(stream)

    assert {shard: mark.position for shard, mark in back.items()} == begun
    assert {shard: (mark.position, mark.note) for shard, mark in seen.items()} == {
        shard: (position, b"") for shard, position in begun.items()
    }


async def test_reset_to_the_latest_brings_what_comes_from_now_on(make_stream: MakeStream, subject: Subject) -> None:
    stream = await make_stream(2)
    first, second = stream.shards
    await stream.put(first, values(10))
    await asyncio.sleep(subject.time_step_s)  # what came at the very time of the reset may come again

    await stream.source.reset(StartingPosition.LATEST)
    await stream.put(second, values(2))
    reading = await open_consumer(stream)
    await reading.until(lambda: reading.count >= 2)
    await stream.put(first, values(3))
    await reading.until(lambda: reading.count >= 5)

    assert reading.values == {first: values(3), second: values(2)}
    await reading.source.close()


async def test_reset_to_a_time(make_stream: MakeStream, subject: Subject) -> None:
    stream = await make_stream(1)
    if not subject.starts_at_times:
        with pytest.raises(SourceError, match="Unsupported starting position for arn type: "):
            await stream.source.reset(StartingPosition.AT_TIMESTAMP, timestamp=time.time())
        return
    (shard,) = stream.shards
    await stream.put(shard, values(3))
    await asyncio.sleep(0.05)
    at = time.time()
    await asyncio.sleep(0.05)
    await stream.put(shard, values(4))

    await stream.source.reset(StartingPosition.AT_TIMESTAMP, timestamp=at)
    reading = await open_consumer(stream)
    await reading.until(lambda: reading.count == 4)

    assert reading.values == {shard: values(4)}
    await reading.source.close()


async def test_nobody_else_consumes(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    assert await stream.source.others() == []

    reading = await open_consumer(stream)

    assert await stream.source.others() == []
    await reading.source.close()


async def test_where_marks_stand_is_told_without_reading(make_stream: MakeStream, subject: Subject) -> None:
    stream = await make_stream(2)
    first, second = stream.shards
    await stream.put(first, values(10))
    if subject.counts_behind:
        assert _behind(await stream.source.standing()) == 10
    reading = await read_all(stream, 10)
    middle = reading.positions[first][3]
    await reading.source.commit({first: Mark(position=middle, epoch=reading.listener.marks[first].epoch)})
    await reading.source.close()
    await stream.put(second, values(2))

    standing = await stream.source.standing()

    assert tuple(shard.shard for shard in standing.shards) == tuple(sorted(stream.shards))
    assert {shard.shard: shard.position for shard in standing.shards}[first] == middle
    assert _behind(standing) == (8 if subject.counts_behind else None)
    assert await stream.source.others() == []
    again = await open_consumer(stream)
    await again.until(lambda: again.count == 8)
    await again.source.close()


def _behind(standing: Standing) -> int | None:
    lags = [shard.behind for shard in standing.shards if shard.behind is not None]
    return sum(lags) if len(lags) == len(standing.shards) else standing.behind


async def test_a_listener_that_was_told_nothing_has_no_shards(make_stream: MakeStream) -> None:
    stream = await make_stream(1)
    listener, source = Listener(), stream.source.consumer()

    await source.open(listener)
    await source.close()

    assert not listener.marks
