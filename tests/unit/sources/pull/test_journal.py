"""Streams of the journal: limits, retention, layouts that change, shards that lag, and embedded streams."""

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import orjson
import pytest
import pytest_asyncio

from bridge.core.errors import LaneFull, SourceError, StoreError, StreamNotFound
from bridge.core.mapping import StartingPosition
from bridge.core.stream import Mark, PutRecord, StreamRange
from bridge.events.cloudwatch_logs import LogBatch, logs_event, logs_json
from bridge.events.kafka import parse_event
from bridge.events.mqtt import Message, records_event
from bridge.journal.retention import Retention
from bridge.sources.pull.backlogs import JournalStreams
from bridge.sources.pull.local import JournalLocalStreams, local_event_source
from bridge.sources.pull.push import push_event_source
from bridge.testing.clock import ManualClock
from bridge.testing.journal import MemoryJournal
from bridge.testing.streams import MemoryStreamMarks
from bridge.util.clocks import SystemClock
from tests.contract.journal_streams import PUSH, event, id_for, journal_of, mapping


class Listener:
    def __init__(self):
        self.marks = {}

    async def assigned(self, marks):
        self.marks = dict(marks)

    async def revoking(self, shards, *, deadline_s):
        pass

    def lost(self, shards):
        pass


class World:
    """A journal, the marks that outlive a restart, and what is built anew by one."""

    def __init__(self, journal):
        self.journal = journal
        self.marks = MemoryStreamMarks()
        self.restart()

    def restart(self, **limits):
        self.streams = JournalStreams(self.journal, self.marks, **limits)

    def source(self, form="webhook", **changes):
        return push_event_source(mapping(**changes), streams=self.streams, clock=SystemClock(), form=form)

    async def put(self, count, *, shard=None, of=1, **changes):
        """Store through intake's path; returns the records."""
        found = []
        for _ in range(count):
            fields = dict(changes) if shard is None else {"id": id_for(shard, of)} | changes
            record = event(b'{"n":1}', **fields)
            self.streams.reserve(record.source, len(record.payload))
            found.append(await self.journal.append(record))
        return found

    @asynccontextmanager
    async def consumer(self, source):
        reader, listener = source.consumer(), Listener()
        await reader.open(listener)
        try:
            yield reader, listener
        finally:
            await reader.close()


@pytest_asyncio.fixture(params=["memory", "disk"])
async def world(request, tmp_path):
    async with journal_of(request.param, tmp_path) as journal:
        yield World(journal)


async def read(reader, count, *, records_max=100, paused=frozenset()):
    """Return the positions of the next `count` records by shard."""
    found = {}
    while sum(map(len, found.values())) < count:
        poll = await reader.read(records_max=records_max, bytes_max=1 << 20, wait_s=2.0, paused=paused)
        assert poll.chunks or poll.through
        for chunk in poll.chunks:
            found.setdefault(chunk.shard, []).extend(chunk.positions)
    return found


def shard(number):
    return f"shardId-{number:012d}"


def positions(records):
    return [record.position for record in records]


# --- starting positions -------------------------------------------------------------------------


async def test_latest_begins_behind_what_there_is_and_keeps_what_comes_before_it_is_first_read(world):
    await world.put(3)
    await world.source(starting_position=StartingPosition.LATEST, shards=1).prepare()
    later = await world.put(2)
    world.restart()
    await world.put(0)

    source = world.source(starting_position=StartingPosition.LATEST, shards=1)
    async with world.consumer(source) as (reader, _):
        assert await read(reader, 2) == {shard(0): positions(later)}


async def test_at_timestamp_begins_with_the_first_record_of_that_time_held_ones_too(world):
    stored = [(await world.put(1, received_at=1000.0 + n))[0] for n in range(10)]
    source = world.source(starting_position=StartingPosition.AT_TIMESTAMP, starting_position_timestamp=1003.5, shards=1)
    async with world.consumer(source) as (reader, _):
        assert await read(reader, 6) == {shard(0): positions(stored[4:])}


async def test_at_timestamp_sees_what_retention_put_aside():
    journal = MemoryJournal()
    world = World(journal)
    stored = [(await world.put(1, received_at=1000.0 + n))[0] for n in range(10)]
    journal.drop_before(6, unfinished={1, 3, 5})
    found = {}
    for at in (1000.0, 1002.0, 1005.5, 2000.0):
        part = world.source(shards=1).reader(StreamRange(since=at))
        await part.open(Listener())
        found[at] = []
        while not (poll := await part.read(records_max=3, bytes_max=999, wait_s=0, paused=set())).ended:
            found[at] += [p for chunk in poll.chunks for p in chunk.positions]
        found[at] += [p for chunk in poll.chunks for p in chunk.positions]
        await part.close()

    assert found == {1000.0: [1, 3, 5, 6, 7, 8, 9], 1002.0: [3, 5, 6, 7, 8, 9], 1005.5: [6, 7, 8, 9], 2000.0: []}
    assert positions(stored) == list(range(10))


# --- limits -------------------------------------------------------------------------------------


async def test_intake_has_room_for_what_the_slowest_mapping_may_leave_unfinished(world):
    world.restart(events_max=5)
    quick, slow = world.source(name="quick", shards=1), world.source(name="slow", shards=1)
    await quick.prepare()
    await slow.prepare()
    stored = await world.put(5)
    with pytest.raises(LaneFull, match=r"mapping \w+ has 5 events \(35 bytes\) of sensors unfinished"):
        await world.put(1)
    assert len(await world.put(3, source="others")) == 3

    async with world.consumer(quick) as (reader, listener):
        await read(reader, 5)
        mark = Mark(position=stored[-1].position, epoch=listener.marks[shard(0)].epoch)
        await reader.commit({shard(0): mark})
    with pytest.raises(LaneFull, match="mapping slow"):
        await world.put(1)

    async with world.consumer(slow) as (reader, listener):
        await read(reader, 5)
        mark = Mark(position=stored[1].position, epoch=listener.marks[shard(0)].epoch)
        await reader.commit({shard(0): mark})
        await world.put(2)
        with pytest.raises(LaneFull, match="mapping slow has 5"):
            await world.put(1)


async def test_a_reservation_ends_by_its_commit_or_by_giving_it_back(world):
    world.restart(events_max=2, bytes_max=1000)
    await world.source(shards=1).prepare()
    world.streams.reserve(PUSH, 400)
    world.streams.reserve(PUSH, 400)
    with pytest.raises(LaneFull):
        world.streams.reserve(PUSH, 1)
    world.streams.unreserve(PUSH, 400)
    with pytest.raises(LaneFull):
        world.streams.reserve(PUSH, 601)
    world.streams.reserve(PUSH, 600)
    world.streams.unreserve(PUSH, 600)
    await world.journal.append(event(b"x" * 400))  # the first reservation's record
    with pytest.raises(LaneFull):
        world.streams.reserve(PUSH, 601)
    world.streams.reserve(PUSH, 600)


async def test_a_restart_counts_what_is_unfinished_to_the_record(world):
    stored = [await world.put(1, shard=n % 2, of=2) for n in range(20)]
    stored = [record for one in stored for record in one]
    async with world.consumer(world.source(shards=2)) as (reader, listener):
        await read(reader, 20)
        await reader.commit(
            {
                shard(n): Mark(position=stored[at].position, epoch=listener.marks[shard(n)].epoch)
                for n, at in ((0, 4), (1, 15))
            }
        )
    left = [r for n, r in enumerate(stored) if n > (4, 15)[n % 2]]
    world.restart(events_max=len(left) + 1)
    await world.source(shards=2).prepare()
    await world.put(1)
    with pytest.raises(LaneFull, match=f"has {len(left) + 1} events"):
        await world.put(1)

    world.restart()
    async with world.consumer(world.source(shards=2)) as (reader, _):
        found = await read(reader, len(left) + 1)
        assert sorted(p for each in found.values() for p in each)[: len(left)] == positions(left)


async def test_a_removed_mapping_limits_nothing_and_keeps_its_marks(world):
    world.restart(events_max=1)
    await world.source(shards=1).prepare()
    await world.put(1)
    world.streams.remove("mapping")
    world.streams.remove("mapping")
    await world.put(2)

    assert not world.streams.is_read(PUSH)
    assert set(await world.marks.load("mapping")) == {shard(0)}


# --- damage ---------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def on_disk(tmp_path):
    async with journal_of("disk", tmp_path) as journal:
        yield World(journal)


def damage(world, *records, at=-1):
    """Flip a byte of records on disk: the last one, or the one at that place of the record."""
    for record in records:
        segment = next(each for each in world.journal.segments if each.base == record.position >> 32 << 32)
        offset = record.position & 0xFFFF_FFFF
        place = offset + at if at >= 0 else offset + segment.row(offset)[1] - 1
        with segment.path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 0x40]))


async def poll_all(reader, listener, last):
    """Read all shards up to a position; returns positions, and damaged ones, by shard."""
    whole, damaged = {}, {}
    through = {shard: mark.position for shard, mark in listener.marks.items()}
    while min(through.values()) < last:
        poll = await reader.read(records_max=3, bytes_max=1 << 20, wait_s=2.0, paused=frozenset())
        for chunk in poll.chunks:
            whole.setdefault(chunk.shard, []).extend(chunk.positions)
            damaged.setdefault(chunk.shard, []).extend(record.position for record in chunk.damaged)
            assert all(through[chunk.shard] < record.position <= chunk.through for record in chunk.damaged)
            through[chunk.shard] = chunk.through
        through |= poll.through
    return whole, damaged


@pytest.mark.parametrize("at", [-1, 0, 8, 40, 54])
async def test_a_damaged_record_comes_beside_the_others_in_its_own_shard(on_disk, at):
    stored = [record for n in range(8) for record in await on_disk.put(1, shard=n % 2, of=2)]
    bad = [stored[2], stored[5]]
    damage(on_disk, *bad, at=at)

    async with on_disk.consumer(on_disk.source(shards=2)) as (reader, listener):
        whole, damaged = await poll_all(reader, listener, stored[-1].position)
        assert damaged[shard(0)] == [stored[2].position]
        assert damaged[shard(1)] == [stored[5].position]
        assert whole[shard(0)] == positions([stored[0], stored[4], stored[6]])
        assert whole[shard(1)] == positions([stored[1], stored[3], stored[7]])
        assert reader.behind({shard(0): -1, shard(1): -1}) == {shard(0): 4, shard(1): 4}
        await reader.commit({s: Mark(position=stored[-1].position, epoch=m.epoch) for s, m in listener.marks.items()})
        assert await on_disk.streams.unfinished(0, on_disk.journal.end) == []
        assert reader._backlog.waiting == reader._backlog.waiting_bytes == 0


async def test_a_damaged_record_is_unfinished_until_the_mark_passes_it(on_disk):
    stored = [record for n in range(6) for record in await on_disk.put(1, shard=n % 2, of=2)]
    async with on_disk.consumer(on_disk.source(shards=2)) as (reader, listener):
        await read(reader, 6)
        epochs = {s: m.epoch for s, m in listener.marks.items()}
        await reader.commit({shard(0): Mark(position=stored[-1].position, epoch=epochs[shard(0)])})
    damage(on_disk, *stored[1:3])

    assert await on_disk.streams.unfinished(0, on_disk.journal.end) == positions(stored[1::2])
    on_disk.restart()
    source = on_disk.source(shards=2)
    assert (await source.prepare()).waiting == 3
    async with on_disk.consumer(source) as (reader, listener):
        whole, damaged = await poll_all(reader, listener, stored[-1].position)
        assert (whole, damaged) == ({shard(1): positions(stored[3::2])}, {shard(1): [stored[1].position]})


async def test_whichever_shard_has_not_passed_a_damaged_key_has_the_record(on_disk):
    """The key cannot be read any more: whose it was is open, and no shard lets it go by unseen."""
    stored = [
        await on_disk.journal.append(event(b'{"headers":{"k":"%d"},"body":"x"}' % n, id=id_for(n % 2, 2)))
        for n in range(12)
    ]
    source = on_disk.source(shards=2, key="header:k")
    async with on_disk.consumer(source) as (reader, listener):
        found = await read(reader, 12)
        own = next(s for s, at in found.items() if stored[5].position in at)
        other = next(s for s in found if s != own)
        mark = Mark(position=stored[-1].position, epoch=listener.marks[other].epoch)
        await reader.commit({other: mark})
    with_key = stored[5].payload.index(b'"5"')
    segment = on_disk.journal.segments[0]
    length = segment.row(stored[5].position & 0xFFFF_FFFF)[1]
    damage(on_disk, stored[5], at=length - len(stored[5].payload) + with_key + 1)

    assert stored[5].position in await on_disk.streams.unfinished(0, on_disk.journal.end)
    async with on_disk.consumer(source) as (reader, listener):
        _, damaged = await poll_all(reader, listener, stored[-1].position)
        assert damaged[own] == [stored[5].position]
        assert other not in damaged


async def test_a_damaged_record_of_an_embedded_stream_with_no_readable_key_is_handed_out_once(on_disk):
    wanted = mapping(source="local://clicks?as=kafka", shards=3)
    source = local_event_source(wanted, streams=on_disk.streams, clock=SystemClock())
    await source.prepare()
    puts = JournalLocalStreams(on_disk.streams, clock=SystemClock())
    at = await puts.put("clicks", [PutRecord(value=b"v", key=b"k%d" % n) for n in range(6)])
    record = on_disk.journal.read(at[2])
    length = on_disk.journal.segments[0].row(at[2] & 0xFFFF_FFFF)[1]
    damage(on_disk, record, at=length - len(record.payload) + record.payload.index(b'"key"') + 1)

    assert on_disk.streams.readers(on_disk.journal.read(at[2]))[0].is_finished is False
    async with on_disk.consumer(source) as (reader, listener):
        whole, damaged = await poll_all(reader, listener, at[-1])
        assert [p for each in damaged.values() for p in each] == [at[2]]
        assert sorted(p for each in whole.values() for p in each) == [p for p in at if p != at[2]]


# --- retention ----------------------------------------------------------------------------------


async def test_just_what_a_mapping_has_not_finished_is_kept_by_shard(world):
    stored = [record for n in range(20) for record in await world.put(1, shard=n % 2, of=2)]
    await world.put(3, source="others")
    source = world.source(shards=2)
    async with world.consumer(source) as (reader, listener):
        await read(reader, 20)
        await reader.commit(
            {
                shard(n): Mark(position=stored[at].position, epoch=listener.marks[shard(n)].epoch)
                for n, at in ((0, 4), (1, 15))
            }
        )
    expected = positions([r for n, r in enumerate(stored) if n > (4, 15)[n % 2]])

    assert await world.streams.unfinished(0, world.journal.end) == expected
    assert await world.streams.unfinished(0, world.journal.end) == expected
    low, high = stored[6].position, stored[17].position
    assert await world.streams.unfinished(low, high) == [p for p in expected if low <= p < high]


async def test_nothing_is_lost_to_retention_while_a_mapping_is_paused_over_a_restart(tmp_path):
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(journal_of("disk", tmp_path))
        world = World(journal)
        await world.source(shards=4).prepare()
        stored = [await journal.append(event(b'{"x":"%b"}' % (b"x" * 5000), source=PUSH)) for _ in range(100)]
        world.restart()
        await world.source(shards=4).prepare()
        keeper = Retention(
            journal,
            clock=ManualClock(time=4e9),
            retention_s=1.0,
            retention_bytes=1,
            unfinished=lambda low, high: [],
            streams=world.streams,
        )
        while await keeper.step():
            pass
        assert journal.start > stored[80].position
        async with world.consumer(world.source(shards=4)) as (reader, listener):
            found = await read(reader, 100)
            assert sorted(p for each in found.values() for p in each) == positions(stored)
            await reader.commit(
                {name: Mark(position=each[-1], epoch=listener.marks[name].epoch) for name, each in found.items()}
            )
        await keeper.step()
        assert journal.stats().held == 0


# --- layouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"shards": 3}, {"shards": 1}, {"shards": 2, "key": "header:x"}])
async def test_with_another_layout_every_shard_begins_at_the_lowest_mark(world, changes):
    stored = [record for n in range(20) for record in await world.put(1, shard=n % 2, of=2)]
    async with world.consumer(world.source(shards=2)) as (reader, listener):
        await read(reader, 20)
        await reader.commit(
            {
                shard(n): Mark(position=stored[at].position, epoch=listener.marks[shard(n)].epoch, note=b"{}")
                for n, at in ((0, 4), (1, 15))
            }
        )
    world.restart()

    async with world.consumer(world.source(**changes)) as (reader, listener):
        assert set(listener.marks) == {shard(n) for n in range(changes["shards"])}
        assert {(mark.position, mark.note) for mark in listener.marks.values()} == {(stored[4].position, b"")}
        found = await read(reader, 15)
        assert sorted(p for each in found.values() for p in each) == positions(stored[5:])


async def test_another_source_begins_at_the_starting_position(world):
    await world.put(5)
    world.restart()
    await world.source(shards=1).prepare()
    later = await world.put(2, source="others")
    source = world.source(source="others", shards=1, starting_position=StartingPosition.LATEST)
    async with world.consumer(source) as (reader, _):
        poll = await reader.read(records_max=9, bytes_max=999, wait_s=0.05, paused=frozenset())
        assert not poll.chunks
        assert positions(later) < positions(await world.put(1, source="others"))


# --- lagging shards -----------------------------------------------------------------------------


async def test_a_shard_that_lags_far_behind_and_those_that_keep_up_take_turns(world):
    source = world.source(shards=2)
    async with world.consumer(source) as (reader, _):
        lagging = [record for n in range(100) for record in await world.put(1, shard=0, of=2)]
        fast = await world.put(10, shard=1, of=2)
        await read(reader, 10, paused={shard(0)})
        fresh = await world.put(5, shard=1, of=2)

        order = []
        while len(order) < 105:
            poll = await reader.read(records_max=10, bytes_max=1 << 20, wait_s=2.0, paused=frozenset())
            order += [(chunk.shard, position) for chunk in poll.chunks for position in chunk.positions]

        assert [p for name, p in order if name == shard(0)] == positions(lagging)
        assert [p for name, p in order if name == shard(1)] == positions(fresh)
        assert shard(1) in [name for name, _ in order[:25]]
        assert positions(fast) == sorted(positions(fast))


async def test_lag_is_known_by_shard_once_it_was_stored_or_read_since_the_start(world):
    await world.put(4, shard=0, of=2)
    world.restart()
    source = world.source(shards=2)
    async with world.consumer(source) as (reader, listener):
        begun = {name: mark.position for name, mark in listener.marks.items()}
        assert reader.behind(begun) == {shard(0): None, shard(1): None}
        await read(reader, 4)
        await world.put(3, shard=1, of=2)
        await world.put(2, shard=0, of=2)
        assert reader.behind(begun) == {shard(0): 6, shard(1): 3}
        found = await read(reader, 5)
        assert reader.behind(begun) == {shard(0): 6, shard(1): 3}
        assert reader.behind({shard(1): found[shard(1)][1]}) == {shard(1): 1}


async def test_a_reader_that_waits_is_woken_by_a_record_of_its_own_source(world):
    source = push_event_source(mapping(shards=1), streams=world.streams, clock=ManualClock())
    async with world.consumer(source) as (reader, _):
        reading = asyncio.create_task(reader.read(records_max=9, bytes_max=999, wait_s=3600.0, paused=frozenset()))
        await world.put(1, source="others")
        await asyncio.sleep(0.02)
        assert not reading.done()
        (stored,) = await world.put(1)
        async with asyncio.timeout(60):
            poll = await reading
        assert [list(chunk.positions) for chunk in poll.chunks] == [[stored.position]]


# --- what goes wrong ----------------------------------------------------------------------------


async def test_marks_that_cannot_be_stored_are_a_source_error_and_count_as_unfinished(world):
    world.restart(events_max=1)
    source = world.source(shards=1)
    async with world.consumer(source) as (reader, listener):
        (stored,) = await world.put(1)
        await read(reader, 1)
        mark = {shard(0): Mark(position=stored.position, epoch=listener.marks[shard(0)].epoch)}
        world.marks.fail_with = StoreError("the disk is gone")
        with pytest.raises(SourceError, match="the disk is gone"):
            await reader.commit(mark)
        with pytest.raises(LaneFull):
            await world.put(1)
        world.marks.fail_with = None
        await reader.commit(mark)
        await world.put(1)
    world.marks.fail_with = StoreError("the disk is gone")
    with pytest.raises(SourceError):
        await source.consumer().open(Listener())
    world.marks.fail_with = None


async def test_marks_are_not_moved_under_a_reader(world):
    source = world.source(shards=1)
    async with world.consumer(source):
        with pytest.raises(SourceError, match="is being read"):
            await source.reset(StartingPosition.LATEST)
    await source.reset(StartingPosition.LATEST)


async def test_synchronous_events_of_a_source_are_no_part_of_its_stream(world):
    from bridge.core.invocation import InvocationType

    world.journal.archive(event(b"{}", invocation_type=InvocationType.REQUEST_RESPONSE))
    (stored,) = await world.put(1)
    async with world.consumer(world.source(shards=1)) as (reader, _):
        assert await read(reader, 1) == {shard(0): [stored.position]}


# --- embedded streams ---------------------------------------------------------------------------


async def test_what_is_put_comes_as_kafkas_event(world):
    clock = ManualClock()
    source = local_event_source(
        mapping(source="local://clicks?as=kafka", shards=3), streams=world.streams, clock=SystemClock()
    )
    local = JournalLocalStreams(world.streams, clock=clock)
    with pytest.raises(StreamNotFound, match="no mapping reads local://clicks"):
        await local.put("clicks", [PutRecord(value=b"x")])
    await source.prepare()
    put = [
        PutRecord(key=b"a", value=b'{"n":1}', headers=(("h", b"\x00\xff"), ("h", None)), timestamp_ms=1234),
        PutRecord(key=b"a", value=None),
        PutRecord(key=None, value=b"\xff\xfe"),
        PutRecord(key=b"", value=b""),
    ]
    stored = await local.put("clicks", put)
    assert list(stored) == sorted(stored)

    chunks = []
    async with world.consumer(source) as (reader, _):
        while sum(map(len, chunks)) < 4:
            chunks += (await reader.read(records_max=9, bytes_max=9999, wait_s=1, paused=frozenset())).chunks
    found = parse_event(source.shape.event([(chunk.shard, chunk.fragments) for chunk in chunks]))

    now_ms = round(clock.time() * 1000)
    by_offset = {record.offset: record for record in found}
    records = [by_offset[offset] for offset in stored]
    assert [(r.topic, r.key, r.value, r.headers, r.timestamp_ms) for r in records] == [
        ("clicks", each.key, each.value, each.headers, each.timestamp_ms or now_ms) for each in put
    ]
    assert records[0].partition == records[1].partition
    assert {f"clicks-{r.partition}" for r in found} == {chunk.shard for chunk in chunks}
    event_json = orjson.loads(source.shape.event([(chunk.shard, chunk.fragments) for chunk in chunks]))
    assert event_json["bootstrapServers"] == "local"
    columns = [row for chunk in chunks for row in zip(chunk.positions, chunk.keys, chunk.values, strict=True)]
    assert sorted(columns, key=lambda row: row[0]) == [
        (position, each.key, each.value) for position, each in zip(stored, put, strict=True)
    ]


async def test_a_put_that_finds_no_room_stores_nothing(world):
    world.restart(events_max=3)
    source = local_event_source(mapping(source="local://clicks?as=kafka"), streams=world.streams, clock=SystemClock())
    local = JournalLocalStreams(world.streams, clock=SystemClock())
    await source.prepare()
    end = world.journal.end
    with pytest.raises(LaneFull):
        await local.put("clicks", [PutRecord(value=b"x")] * 4)
    assert world.journal.end == end
    assert len(await local.put("clicks", [PutRecord(value=b"x")] * 3)) == 3


async def test_a_put_that_the_disk_refuses_gives_its_room_back():
    journal = MemoryJournal()
    world = World(journal)
    world.restart(events_max=3)
    source = local_event_source(mapping(source="local://clicks?as=kafka"), streams=world.streams, clock=SystemClock())
    await source.prepare()
    local = JournalLocalStreams(world.streams, clock=SystemClock())
    journal.fail_with = StoreError("no")
    for _ in range(3):
        with pytest.raises(StoreError, match="no"):
            await local.put("clicks", [PutRecord(value=b"x")] * 3)
    journal.fail_with = None
    assert len(await local.put("clicks", [PutRecord(value=b"x")] * 3)) == 3


async def test_a_put_whose_caller_leaves_at_any_step_keeps_no_room():
    for steps in range(6):
        journal = MemoryJournal()
        world = World(journal)
        world.restart(events_max=3)
        source = local_event_source(
            mapping(source="local://clicks?as=kafka"), streams=world.streams, clock=SystemClock()
        )
        backlog = await source.prepare()
        local = JournalLocalStreams(world.streams, clock=SystemClock())
        journal.fail_with = StoreError("no") if steps % 2 else None
        task = asyncio.create_task(local.put("clicks", [PutRecord(value=b"x")] * 3))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        journal.fail_with = None
        await local.put("clicks", [PutRecord(value=b"x")] * (3 - backlog.waiting))
        assert backlog.waiting == 3


@pytest.mark.parametrize("form", ["mqtt", "mqtt-records"])
async def test_messages_are_records_grouped_by_their_topic(world, form):
    """What a filter sees as the body is the payload; `eventSource` is there once."""
    payload = b'{"temperature":21.50}'
    for topic in ("plant/1/t", "plant/2/t", "plant/1/t"):
        message = Message(topic, payload, qos=1, mid=7, received_ms=5)
        stored = records_event(message)[0] if form == "mqtt-records" else payload
        await world.put(1, payload=stored, key=topic.encode())
    source = world.source(form=form, key="topic:2", shards=16, starting_position=StartingPosition.TRIM_HORIZON)
    reader = source.reader(StreamRange())
    await reader.open(Listener())

    chunks = (await reader.read(records_max=100, bytes_max=1 << 20, wait_s=2.0, paused=frozenset())).chunks

    assert sorted(key for chunk in chunks for key in chunk.keys) == [b"1", b"1", b"2"]
    assert {value for chunk in chunks for value in chunk.values} == {payload}
    for chunk in chunks:
        for fragment in chunk.fragments:
            record = orjson.loads(fragment)
            assert record["eventSource"] == "bridge:mqtt"
            assert fragment.count(b'"eventSource"') == 1
            assert record["eventSourceARN"].startswith("arn:bridge:mqtt:")
            assert b'"temperature":21.50' in fragment or record["topic"].startswith("plant/")
    await reader.close()


LOGS = LogBatch(owner="1", group="d7", stream="s", subscriptions=[], events=[("1", 2, "three")])
NOTICES = {
    "webhook-event": ("body:data.device", b'{"specversion":"1.0","id":"1","data":{"device":"d7"}}', None),
    "webhook-sns": (
        "body:device",
        b'{"Records":[{"EventSource":"aws:sns","Sns":{"Message":"{\\"device\\":\\"d7\\"}"}}]}',
        b'{"device":"d7"}',
    ),
    "webhook-logs": ("body:logGroup", logs_event(LOGS), logs_json(LOGS)),
}
"""Form -> key, payload, and the body where that is not the payload."""


async def read_all(source):
    """Return the keys, values and fragments of everything that is stored."""
    reader = source.reader(StreamRange())
    await reader.open(Listener())
    chunks = (await reader.read(records_max=100, bytes_max=1 << 20, wait_s=2.0, paused=frozenset())).chunks
    await reader.close()
    return [
        list(itertools.chain.from_iterable(each)) for each in zip(*((c.keys, c.values, c.fragments) for c in chunks))
    ]


@pytest.mark.parametrize("form", NOTICES)
async def test_what_notifies_is_keyed_and_filtered_by_its_body_and_each_record_is_its_event(world, form):
    key, payload, body = NOTICES[form]
    await world.put(2, payload=payload)

    keys, values, fragments = await read_all(
        world.source(form, key=key, shards=16, starting_position=StartingPosition.TRIM_HORIZON)
    )

    assert [b"d7"] * 2 == keys
    assert [body or payload] * 2 == values
    for fragment in fragments:
        assert fragment.startswith(payload[:-1] + b',"eventSource":"bridge:webhook"')
        assert orjson.loads(fragment)["eventSource"] == "bridge:webhook"


@pytest.mark.parametrize("form", NOTICES)
async def test_what_notifies_in_another_shape_is_kept_apart_by_its_id(world, form):
    stored = []
    for payload in (
        b"[]",
        b"1",
        b"{}",
        b'{"Records":[]}',
        b'{"awslogs":{"data":"x"}}',
        b'{"Records":[{"Sns":{"Message":1}}]}',
    ):
        stored += await world.put(1, payload=payload)

    keys, _, _ = await read_all(
        world.source(form, key="body:device", shards=16, starting_position=StartingPosition.TRIM_HORIZON)
    )

    assert sorted(record.id.encode() for record in stored) == sorted(keys)
