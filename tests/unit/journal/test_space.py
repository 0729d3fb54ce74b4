"""A full or broken disk never lies: nothing half-stored, one clear error, and going on by itself."""

import asyncio
import errno
import resource
import subprocess
import threading

import pytest

from bridge.core.errors import StoreError, StoreFull
from bridge.core.invocation import InvocationType
from bridge.testing.clock import ManualClock
from bridge.util import telemetry
from tests.unit.journal.support import FaultyDisk, append_all, everything, opened, record

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
IO_ERROR = OSError(errno.EIO, "Input/output error")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


def dropped() -> float:
    return telemetry.ARCHIVE_DROPPED._value.get()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("partial", [0, 10, 100])
async def test_a_full_disk_stores_nothing_says_so_and_resumes_by_itself(folder, error, partial):
    disk = FaultyDisk()
    async with opened(folder, disk=disk) as journal:
        kept = await journal.append(record(0))
        disk.fail_write, disk.partial = OSError(error, "No space left on device"), partial
        results = await asyncio.gather(*(journal.append(record(n)) for n in range(1, 9)), return_exceptions=True)
        assert {type(each) for each in results} == {StoreFull}
        assert "nothing was stored" in str(results[0])
        assert telemetry.STORE_FULL._value.get() == 1
        with pytest.raises(StoreFull):  # each append tries again
            await journal.append(record(1))
        disk.fail_write = None
        later = await journal.append(record(2))
        assert telemetry.STORE_FULL._value.get() == 0
        assert await everything(journal) == [kept, later]
    async with opened(folder) as journal:
        assert await everything(journal) == [kept, later]


async def test_a_sync_that_finds_no_space_undoes_its_group(folder):
    disk = FaultyDisk()
    async with opened(folder, disk=disk) as journal:
        kept = await journal.append(record(0))
        disk.fail_sync = NO_SPACE
        with pytest.raises(StoreFull):
            await journal.append(record(1))
        disk.fail_sync = None
        later = await journal.append(record(2))
        assert await everything(journal) == [kept, later]


async def test_a_cut_is_synced_before_another_segment_follows(folder):
    disk = FaultyDisk()
    disk.free = 0
    async with opened(folder, disk=disk, segment_bytes=1000) as journal:
        kept = await append_all(journal, 3)
        disk.fail_write, disk.partial = OSError(errno.ENOSPC, "No space left on device"), 50
        with pytest.raises(StoreFull):
            await journal.append(record(50))
        disk.fail_write = None
        disk.fail_sync = OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(StoreFull):
            await journal.append(record(51, payload=b"x" * 900))
        assert not (folder / "00000002.seg").exists()
        disk.fail_sync = None
        disk.syncs.clear()
        kept.append(await journal.append(record(52, payload=b"x" * 900)))
        assert disk.syncs[:2] == ["00000001.seg", "00000002.seg"]
        assert await everything(journal) == kept
    async with opened(folder, segment_bytes=1000) as journal:
        assert await everything(journal) == kept


@pytest.mark.parametrize("failing", ["fail_create", "fail_write", "fail_sync"])
async def test_no_room_for_a_new_segment_leaves_the_old_one_in_use(folder, failing):
    disk = FaultyDisk()
    disk.free = 0  # nothing is prepared ahead
    async with opened(folder, disk=disk, segment_bytes=1000) as journal:
        kept = await append_all(journal, 12)
        assert len(journal.segments) == 1
        setattr(disk, failing, NO_SPACE)
        with pytest.raises(StoreFull):
            await journal.append(record(50, payload=b"x" * 300))
        setattr(disk, failing, None)
        kept += await append_all(journal, 40, start=100)
        assert len(journal.segments) > 2
        assert await everything(journal) == kept
    async with opened(folder, segment_bytes=1000) as journal:
        assert await everything(journal) == kept


async def test_what_gathers_behind_a_failed_group_fails_with_it(folder):
    disk = FaultyDisk()
    async with opened(folder, disk=disk) as journal:
        disk.fail_write = NO_SPACE
        first = asyncio.create_task(journal.append(record(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.create_task(journal.append(record(2)))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(each) for each in results] == [StoreFull, StoreFull]
        disk.fail_write = None
        stored = await append_all(journal, 3)
        assert await everything(journal) == stored


async def test_every_append_is_told_of_once_however_it_ends(folder):
    disk, told, refused = FaultyDisk(), [], []
    async with opened(folder, disk=disk) as journal:
        journal.on_commit(told.extend)
        journal.on_refuse(refused.extend)
        stored = await append_all(journal, 2)
        disk.fail_write = NO_SPACE
        leaving = [asyncio.create_task(journal.append(record(n))) for n in (2, 3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.append(asyncio.create_task(journal.append(record(4))))  # gathers behind the group that fails
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        with pytest.raises(StoreFull):
            await journal.append(record(5))
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
            await journal.append(record(6, id="no uuid"))
        disk.fail_write = None
        stored += await append_all(journal, 1, start=7)
    with pytest.raises(StoreError, match="closed"):
        await journal.append(record(8))

    assert told == stored
    assert sorted(each.id for each in refused) == sorted([*(record(n).id for n in (2, 3, 4, 5, 8)), "no uuid"])


async def test_below_the_low_water_mark_nothing_is_taken_and_space_is_looked_at_rarely(folder):
    disk, clock = FaultyDisk(), ManualClock()
    async with opened(folder, disk=disk, clock=clock, low_water_bytes=1000) as journal:
        kept = await journal.append(record(0))
        disk.free = 999
        unnoticed = await journal.append(record(1))
        await clock.advance(0.25)
        with pytest.raises(StoreFull, match="low-water"):
            await journal.append(record(2))
        disk.free = 1000
        with pytest.raises(StoreFull, match="low-water"):
            await journal.append(record(3))
        await clock.advance(0.25)
        later = await journal.append(record(4))
        assert await everything(journal) == [kept, unnoticed, later]


@pytest.mark.parametrize("failing", ["fail_sync", "fail_write"])
async def test_a_broken_disk_closes_the_journal_for_good(folder, failing):
    disk, fatal = FaultyDisk(), []
    async with opened(folder, disk=disk, on_fatal=fatal.append) as journal:
        kept = await journal.append(record(0))
        setattr(disk, failing, IO_ERROR)
        results = await asyncio.gather(*(journal.append(record(n)) for n in (1, 2)), return_exceptions=True)
        assert [type(each) for each in results] == [StoreError, StoreError]
        assert fatal == [IO_ERROR]
        assert await everything(journal) == [kept]
        setattr(disk, failing, None)
        with pytest.raises(StoreError, match="closed after"):  # a later sync that "works" proves nothing
            await journal.append(record(3))
        assert len(fatal) == 1
    async with opened(folder) as journal:
        assert (await everything(journal))[0] == kept


async def test_a_group_that_cannot_be_undone_closes_the_journal(folder):
    disk, fatal = FaultyDisk(), []
    async with opened(folder, disk=disk, on_fatal=fatal.append) as journal:
        disk.fail_write, disk.partial, disk.fail_truncate = NO_SPACE, 20, IO_ERROR
        with pytest.raises(StoreError, match="undo"):
            await journal.append(record(1))
        assert fatal == [IO_ERROR]
    async with opened(folder) as journal:
        assert await everything(journal) == []


async def test_a_folder_that_cannot_be_synced_closes_the_journal(folder):
    disk, fatal = FaultyDisk(), []
    async with opened(folder, disk=disk, on_fatal=fatal.append, segment_bytes=500) as journal:
        disk.fail_folder = IO_ERROR
        with pytest.raises(StoreError, match="folder"):
            await append_all(journal, 20)
        assert fatal == [IO_ERROR]


async def test_a_failure_that_nobody_foresaw_leaves_nobody_waiting(folder):
    disk, fatal = FaultyDisk(), []
    async with opened(folder, disk=disk, on_fatal=fatal.append) as journal:
        disk.fail_write = RuntimeError("a bug")
        with pytest.raises(StoreError, match="a bug"):
            await journal.append(record(1))
        assert len(fatal) == 1


async def test_a_record_that_cannot_be_written_harms_no_other(folder):
    async with opened(folder) as journal:
        good, bad, other = await asyncio.gather(
            journal.append(record(1)),
            journal.append(record(2, id="no uuid")),
            journal.append(record(3)),
            return_exceptions=True,
        )
        assert isinstance(bad, ValueError)
        assert await everything(journal) == [good, other]


async def test_archived_events_are_dropped_and_counted_when_too_many_wait(folder):
    before = dropped()
    async with opened(folder) as journal:
        for n in range(2048 + 4100):  # the first half of what may wait is handed over at once
            journal.archive(record(n, invocation_type=InvocationType.REQUEST_RESPONSE))
        journal.archive(record(1, payload=b"x" * (17 << 20)))
        assert dropped() - before == 5
        await journal.append(record(9999))
        assert len(await everything(journal)) == 2048 + 4097


async def test_archived_events_do_not_wait_for_time_to_pass_where_they_are_many(folder, wait_until, monkeypatch):
    monkeypatch.setattr("bridge.journal.journal._ARCHIVE_DELAY_S", 3600.0)
    before, large = dropped(), b"x" * (1 << 20)
    async with opened(folder) as journal:
        for first in range(0, 24, 8):
            for n in range(first, first + 8):
                journal.archive(record(n, payload=large, invocation_type=InvocationType.REQUEST_RESPONSE))
            last = record(first + 7).id
            await wait_until(lambda last=last: journal.find(last), description="eight of them are synced")
    assert dropped() == before


async def test_archived_events_go_by_themselves_after_a_while(folder, wait_until):
    async with opened(folder) as journal:
        journal.archive(record(1, invocation_type=InvocationType.REQUEST_RESPONSE))
        await wait_until(lambda: journal.find(record(1).id), description="the archived event is synced")


async def test_events_archived_while_the_disk_is_busy_wait_for_more(folder, wait_until, monkeypatch):
    monkeypatch.setattr("bridge.journal.journal._ARCHIVE_DELAY_S", 3600.0)
    disk = HeldSync()
    async with opened(folder, disk=disk) as journal:
        appending = asyncio.create_task(journal.append(record(0)))
        await wait_until(disk.begun.is_set, description="the first group is being synced")
        journal.archive(record(1, invocation_type=InvocationType.REQUEST_RESPONSE))
        disk.go_on.set()
        await appending
        assert journal.find(record(1).id) is None
        groups = disk.groups
        await journal.append(record(2))
        assert journal.find(record(1).id) is not None
        assert disk.groups == groups + 1, "it went with the next that somebody waits for"
        journal.archive(record(3, invocation_type=InvocationType.REQUEST_RESPONSE))
    async with opened(folder) as journal:
        assert journal.find(record(3).id) is not None, "what waits is stored by the end"


class HeldSync(FaultyDisk):
    """A disk whose syncs of groups wait until a test lets them go on, and are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.groups = 0

    def sync(self, fd: int) -> None:
        if threading.current_thread().name == "journal-writer":
            self.begun.set()
            self.go_on.wait(60)
            self.groups += 1
        super().sync(fd)


async def test_archived_events_are_dropped_and_counted_on_a_full_disk(folder):
    disk, before = FaultyDisk(), dropped()
    async with opened(folder, disk=disk) as journal:
        disk.fail_write = NO_SPACE
        journal.archive(record(1, invocation_type=InvocationType.REQUEST_RESPONSE))
        with pytest.raises(StoreFull):
            await journal.append(record(2))
        assert dropped() - before == 1


async def test_a_slow_disk_does_not_fill_the_memory(folder, monkeypatch):
    monkeypatch.setattr("bridge.journal.journal._GATHER_MAX_BYTES", 1000)
    async with opened(folder) as journal:
        results = await asyncio.gather(*(journal.append(record(n)) for n in range(30)), return_exceptions=True)
        stored = [each for each in results if not isinstance(each, Exception)]
        assert 0 < len(stored) < 30
        assert all(isinstance(each, StoreFull) for each in results if each not in stored)
        assert await everything(journal) == stored


async def test_a_real_limit_of_the_kernel(folder):
    """A file-size limit is a full disk that any user can have: partial writes, EFBIG, and room again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with opened(folder, disk=None, segment_bytes=8 << 20, low_water_bytes=1) as journal:
        stored = await append_all(journal, 3)
        limit = (journal.end & 0xFFFF_FFFF) + 120_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(StoreFull):
                for n in range(10, 20):
                    stored.append(await journal.append(record(n, payload=b"x" * 50_000)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert len(stored) == 5
        stored.append(await journal.append(record(30)))
        assert await everything(journal) == stored
    async with opened(folder) as journal:
        assert await everything(journal) == stored


@pytest.fixture
def small(tmp_path):
    """A file system of 2 MB. Only root may mount one; others have the file-size limit above."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


async def test_a_real_file_system_that_fills_up_and_grows(small):
    async with opened(small / "journal", segment_bytes=1 << 20) as journal:
        stored = []
        with pytest.raises(StoreFull):
            while True:
                stored.append(await journal.append(record(len(stored), payload=b"x" * 50_000)))
        assert len(stored) > 10
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        stored.append(await journal.append(record(100)))
        assert await everything(journal) == stored
    async with opened(small / "journal", segment_bytes=1 << 20) as journal:
        assert await everything(journal) == stored
