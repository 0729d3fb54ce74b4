"""Retention takes the oldest segments, slowly, and never an event that a lane still needs."""

import asyncio
import errno

import pytest

from bridge.core.errors import StoreCorrupt, StoreFull
from bridge.core.ports import Selection
from bridge.journal.retention import Retention
from bridge.testing.clock import ManualClock
from tests.unit.journal.support import FaultyDisk, append_all, everything, opened, record

FOREVER = 1e12


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def clock():
    return ManualClock(time=10_000.0)


def retention(journal, clock, *, retention_s=3600.0, retention_bytes=1 << 40, unfinished=(), **options):
    needed = unfinished if isinstance(unfinished, set) else set(unfinished)
    return Retention(
        journal,
        clock=clock,
        retention_s=retention_s,
        retention_bytes=retention_bytes,
        unfinished=lambda low, high: sorted(p for p in needed if low <= p < high),
        **options,
    )


async def test_whole_segments_go_by_age_but_never_the_active_one(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 100)
        keeper = retention(journal, clock, retention_s=10_000.0 - 1050.0)
        while await keeper.step():
            pass
        left = await everything(journal)

        assert left == stored[-len(left) :]
        assert left[0].received_at <= 1050.0 < left[20].received_at
        assert journal.read(stored[0].position) is None
        assert journal.find(stored[0].id) is None
        assert journal.start == journal.segments[0].base > stored[0].position
        keeper.configure(retention_s=0.0, retention_bytes=0)
        while await keeper.step():
            pass
        assert len(journal.segments) == 1
        assert (await everything(journal))[-1] == stored[-1]
    assert len(list(folder.glob("*.seg"))) == 1
    assert len(list(folder.glob("*.idx"))) == 0


async def test_segments_go_by_size(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        await append_all(journal, 200)
        keeper = retention(journal, clock, retention_s=FOREVER, retention_bytes=4000)
        while await keeper.step():
            pass
        assert 3000 < journal.stats().size_bytes <= 4000


async def test_the_unfinished_are_put_aside_and_found_as_before(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 100, delivery_id="d", client_context=b"{}")
        needed = {stored[3].position, stored[5].position, stored[40].position}
        before = [row for row in journal.positions("handle", after=-1, limit=100) if row[0] in needed]
        keeper = retention(journal, clock, unfinished=needed)
        while await keeper.step():
            pass
        assert journal.read(stored[3].position) == stored[3]
    async with opened(folder, segment_bytes=1000) as journal:
        assert journal.read(stored[3].position) == stored[3]
        assert journal.read(stored[4].position) is None
        assert journal.find(stored[40].id) == stored[40]
        assert journal.positions("handle", after=-1, limit=3) == before
        assert journal.positions("handle", after=stored[3].position, limit=1) == before[1:2]
        assert journal.positions("other", after=-1, limit=3) == []
        assert journal.stats().held == 3
        assert stored[3] not in await everything(journal)


async def test_a_hold_file_goes_when_its_events_are_finished(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 100)
        needed = {stored[3].position, stored[5].position, stored[40].position}
        keeper = retention(journal, clock, unfinished=needed)
        while await keeper.step():
            pass
        assert len(list((folder / "hold").iterdir())) == 2
        needed.remove(stored[3].position)
        await keeper.step()
        assert journal.read(stored[3].position) is None
        assert journal.read(stored[5].position) == stored[5]
        assert len(list((folder / "hold").iterdir())) == 2
        needed.clear()
        await keeper.step()
        assert list((folder / "hold").iterdir()) == []
        assert journal.find(stored[40].id) is None


async def test_an_event_is_never_seen_twice_while_its_segment_goes(folder, clock):
    class Watching(FaultyDisk):
        journal = None
        seen = ()

        def sync_folder(self, path):
            super().sync_folder(path)
            if self.journal is not None:  # in the thread that evacuates, between hold file and deletion
                self.seen += (self.journal.positions("handle", after=-1, limit=1000),)

    disk = Watching()
    async with opened(folder, disk=disk, segment_bytes=1000) as journal:
        stored = await append_all(journal, 40)
        disk.journal = journal
        keeper = retention(journal, clock, unfinished=[stored[2].position])
        assert await keeper.step()
        disk.journal = None
        assert len(disk.seen) == 2
        for rows in disk.seen:
            assert len({position for position, _ in rows}) == len(rows)
            assert stored[2].position in {position for position, _ in rows}


async def test_a_crash_between_hold_file_and_deletion_shows_each_event_once(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 40)
        journal.holds.keep(journal.segments[0], [stored[2].position])
    async with opened(folder, segment_bytes=1000) as journal:
        assert [p for p, _ in journal.positions("handle", after=-1, limit=100)] == [r.position for r in stored]
        keeper = retention(journal, clock, unfinished=[stored[2].position])
        assert await keeper.step()
        assert journal.positions("handle", after=-1, limit=1)[0][0] == stored[2].position


async def test_no_room_for_the_hold_file_deletes_nothing_and_frees_the_ballast(folder, clock, wait_until):
    disk, released = FaultyDisk(), []
    disk.only = ".hold.new"
    async with opened(folder, disk=disk, segment_bytes=1000) as journal:
        stored = await append_all(journal, 40)
        keeper = retention(journal, clock, unfinished=[stored[2].position], release_ballast=lambda: released.append(1))
        disk.fail_write = OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(StoreFull):
            await keeper.step()
        assert journal.segments[0].base == stored[2].position >> 32 << 32
        task = asyncio.create_task(keeper.run())
        await wait_until(lambda: released)
        disk.fail_write = None
        await clock.advance(1.0)
        await wait_until(lambda: journal.stats().held == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert journal.read(stored[2].position) == stored[2]


async def test_an_unfinished_event_that_cannot_be_read_keeps_its_segment(folder, clock, wait_until):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 40)
        path = journal.segments[0].path
        data = bytearray(path.read_bytes())
        data[(stored[2].position & 0xFFFF_FFFF) + 60] ^= 1
        path.write_bytes(data)
        with pytest.raises(StoreCorrupt):
            await retention(journal, clock, unfinished=[stored[2].position]).step()
        assert path.exists()

        unfinished = {stored[2].position}
        task = asyncio.create_task(retention(journal, clock, unfinished=unfinished).run())
        await clock.advance(30.0)
        assert not task.done(), "retention waits for the lane"
        unfinished.clear()  # a dead letter now

        async def is_gone() -> bool:
            await clock.advance(10.0)
            return not path.exists()

        await wait_until(is_gone)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_held_event_that_is_damaged_says_so(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 40)
        await retention(journal, clock, unfinished=[stored[2].position]).step()
        path = next((folder / "hold").iterdir())
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        found = journal.read(stored[2].position)

        assert f"hold/{path.name} is damaged" in found.damage
        assert (stored[2].id, "handle", stored[2].received_at) == (found.id, found.lane, found.received_at)
        assert (stored[2].payload[:-1], len(stored[2].payload)) == (found.payload[:-1], len(found.payload))
        assert journal.positions("handle", after=-1, limit=1) == [(stored[2].position, len(found.payload))]


async def test_a_damaged_hold_file_is_refused_by_name(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 40)
        await retention(journal, clock, unfinished=[stored[2].position]).step()
    path = next((folder / "hold").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreCorrupt, match=rf"hold/{path.name} is damaged"):
        async with opened(folder, segment_bytes=1000):
            pass


async def test_a_pin_keeps_its_segment_and_all_after_it(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 100)
        keeper = retention(journal, clock)
        journal.pin("late", stored[90].position)
        journal.pin("early", stored[50].position)
        while await keeper.step():
            pass
        assert journal.read(stored[50].position) == stored[50]
        assert journal.start == stored[50].position >> 32 << 32
        journal.pin("early", None)
        while await keeper.step():
            pass
        assert journal.start == stored[90].position >> 32 << 32


@pytest.mark.slow
async def test_a_segment_a_second_and_none_for_an_hour_after_the_clock_jumped(folder, clock, threads_rest):
    async with opened(folder, segment_bytes=1000) as journal:
        await append_all(journal, 100)
        count = len(journal.segments)
        task = asyncio.create_task(retention(journal, clock).run())

        async def gone(seconds: float) -> int:
            for _ in range(int(seconds * 10)):
                await clock.advance(0.1)
                await threads_rest()
            return count - len(journal.segments)

        assert 1 <= await gone(2.0) <= 3
        clock.step(86_400.0)
        settled = await gone(1.5)
        assert await gone(5.0) == settled
        await clock.advance(3601.0)
        assert await gone(15.0) > settled
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_scan_leaves_out_what_goes_meanwhile(folder, clock, wait_until):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 100)
        await wait_until(lambda: not any(segment.is_live for segment in journal.segments[:-1]))
        keeper = retention(journal, clock, retention_s=10_000.0 - 1060.0)
        found = []
        async for chunk in journal.scan(Selection(), chunk=5):
            found += chunk
            while await keeper.step():
                pass
        assert found[:5] == stored[:5]
        assert found[-40:] == stored[-40:]
        assert found == sorted(found, key=lambda r: r.position)
        assert len(found) < 100


async def test_a_lookup_of_what_went_is_none(folder, clock, wait_until):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 100)
        await wait_until(lambda: not journal.segments[0].is_live)
        segment = journal.segments[0]
        await retention(journal, clock).step()
        with pytest.raises(FileNotFoundError):
            segment.read(stored[0].position & 0xFFFF_FFFF)
        assert journal.read(stored[0].position) is None
        assert journal.read(record(1).position) is None


class Backlogs:
    """What mappings have not finished, as a test says."""

    def __init__(self, *positions):
        self.needed = set(positions)

    async def unfinished(self, low, high):
        return sorted(p for p in self.needed if low <= p < high)


def page_of(journal, *, after=-1, limit=1000):
    page = journal.source_page("sensors", after=after, limit=limit, bytes_max=1 << 20)
    return page.ids, page.through


def ids(*records):
    return [each.id for each in records]


async def test_what_a_mapping_has_not_finished_is_put_aside_too_and_read_as_part_of_the_stream(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 100, source="sensors", function="", key=b"plant/7")
        backlogs = Backlogs(stored[3].position, stored[40].position)
        keeper = retention(journal, clock, unfinished={stored[5].position}, streams=backlogs)
        while await keeper.step():
            pass
        assert journal.start > stored[40].position
    async with opened(folder, segment_bytes=1000) as journal:
        assert page_of(journal, limit=3)[0] == ids(stored[3], stored[5], stored[40])
        assert page_of(journal, after=stored[3].position, limit=1) == (ids(stored[5]), stored[5].position)
        assert [p for p, _ in journal.source_positions("sensors", after=stored[3].position, limit=2)] == [
            stored[5].position,
            stored[40].position,
        ]
        assert journal.source_positions("others", after=-1, limit=2) == []
        backlogs.needed.remove(stored[3].position)
        await retention(journal, clock, unfinished={stored[5].position}, streams=backlogs).step()
        assert page_of(journal, limit=2)[0] == ids(stored[5], stored[40])


async def test_a_stream_loses_nothing_while_retention_takes_segments_under_its_reader(folder, clock):
    async with opened(folder, segment_bytes=1000) as journal:
        stored = await append_all(journal, 200, source="sensors", function="")
        keeper = retention(journal, clock, streams=Backlogs(*(each.position for each in stored)))
        found, after = [], -1
        while True:
            page = asyncio.to_thread(page_of, journal, after=after, limit=3)
            (read, through), _ = await asyncio.gather(page, keeper.step())
            if not read:
                break
            found += read
            after = through
        assert found == ids(*stored)
        assert len(journal.segments) < 20
