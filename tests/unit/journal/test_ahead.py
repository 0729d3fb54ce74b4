"""Zeroes lie before the writer, never over what it wrote, and never at the cost of anybody's room."""

import asyncio
import errno
import os
import threading

import pytest

from bridge.journal import ahead
from tests.unit.journal.support import FaultyDisk, append_all, everything, opened, record

SEGMENT_BYTES = 4 << 20


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


class Zeroing(FaultyDisk):
    """Counts what was zeroed, and lets a test hold a step up."""

    def __init__(self):
        super().__init__()
        self.zeroed = []
        self.go = threading.Event()
        self.go.set()

    def write(self, fd, data, offset):
        if isinstance(data, memoryview) and os.readlink(f"/proc/self/fd/{fd}").endswith(".seg"):
            assert not any(data)
            self.go.wait()
            self.zeroed.append((offset, offset + len(data)))
        super().write(fd, data, offset)


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(ahead, "_STEP_BYTES", 8192)
    monkeypatch.setattr(ahead, "_AHEAD_BYTES", 65_536)
    monkeypatch.setattr(ahead, "_QUIET_BYTES", 0)


async def test_zeroes_lie_before_the_writer_in_every_segment(folder, wait_until):
    disk = Zeroing()
    async with opened(folder, disk=disk, segment_bytes=SEGMENT_BYTES) as journal:
        stored = [await journal.append(record(1, payload=b"x" * 400_000))]
        await wait_until(lambda: disk.zeroed and disk.zeroed[-1][1] >= SEGMENT_BYTES - 4096)
        assert disk.zeroed[0][0] >= 400_000
        stored += [await journal.append(record(n, payload=b"x" * 400_000)) for n in range(2, 12)]
        assert len(journal.segments) == 2
        await wait_until(lambda: disk.direct_opens == 2)
        assert await everything(journal) == stored
    async with opened(folder, segment_bytes=SEGMENT_BYTES) as journal:
        assert await everything(journal) == stored


async def test_a_quiet_journal_zeroes_nothing(folder):
    disk = Zeroing()
    async with opened(folder, disk=disk, segment_bytes=SEGMENT_BYTES) as journal:
        await append_all(journal, 5)
    assert disk.direct_opens == 0


@pytest.mark.slow
async def test_zeroing_never_touches_what_is_written(folder, small_steps):
    disk = Zeroing()
    async with opened(folder, disk=disk, segment_bytes=300_000) as journal:
        stored = []
        for n in range(0, 2000, 20):
            stored += await asyncio.gather(
                *(journal.append(record(k, payload=bytes([1 + k % 255]) * (k * 37 % 3000))) for k in range(n, n + 20))
            )
        assert await everything(journal) == stored
    assert len(disk.zeroed) > 50
    async with opened(folder, segment_bytes=300_000) as journal:
        assert await everything(journal) == stored


async def test_a_writer_that_reaches_the_step_in_work_waits_for_its_end(folder, small_steps, wait_until):
    disk = Zeroing()
    disk.go.clear()
    async with opened(folder, disk=disk, segment_bytes=SEGMENT_BYTES) as journal:
        first = await journal.append(record(1))
        await wait_until(lambda: journal._ahead._claims, description="a step is in work")
        large = asyncio.create_task(journal.append(record(2, payload=b"y" * 20_000)))
        await wait_until(lambda: journal._in_flight, description="the group is handed over")
        done, _ = await asyncio.wait([large], timeout=0.05)
        assert not done
        disk.go.set()
        second = await large
        assert await everything(journal) == [first, second]


@pytest.mark.parametrize("failing", ["free", "fail_direct", "fail_step"])
async def test_without_room_or_direct_writes_the_journal_goes_on(folder, failing, small_steps):
    class Failing(Zeroing):
        def write(self, fd, data, offset):
            if failing == "fail_step" and isinstance(data, memoryview):
                raise OSError(errno.EIO, "Input/output error")
            super().write(fd, data, offset)

    disk = Failing()
    if failing == "free":
        disk.free = 0
    if failing == "fail_direct":
        disk.fail_direct = OSError(errno.EINVAL, "Invalid argument")
    async with opened(folder, disk=disk, segment_bytes=100_000) as journal:
        stored = [await journal.append(record(n, payload=b"x" * 40_000)) for n in range(9)]
        assert len(journal.segments) == 5
        assert await everything(journal) == stored
    assert disk.zeroed == []


async def test_a_cut_segment_is_zeroed_no_more(folder, small_steps):
    disk = Zeroing()
    async with opened(folder, disk=disk, segment_bytes=SEGMENT_BYTES) as journal:
        stored = [await journal.append(record(1))]
        disk.fail_write = OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(Exception, match="nothing was stored"):
            await journal.append(record(2, payload=b"z" * 200_000))
        disk.fail_write = None
        stored += [await journal.append(record(n, payload=b"x" * 50_000)) for n in range(3, 6)]
        assert await everything(journal) == stored
        assert journal._ahead._limit == 0


async def test_too_many_open_files_are_no_reason_to_stop(folder):
    disk, fatal = FaultyDisk(), []
    async with opened(folder, disk=disk, segment_bytes=1000, on_fatal=fatal.append) as journal:
        stored = await append_all(journal, 12)
        disk.fail_create = OSError(errno.EMFILE, "Too many open files")
        with pytest.raises(Exception, match="cannot be made now"):
            await journal.append(record(50, payload=b"x" * 300))
        disk.fail_create = None
        stored += await append_all(journal, 20, start=100)
        assert await everything(journal) == stored
        assert fatal == []
