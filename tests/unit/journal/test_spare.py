"""The next segment's file is zeroed ahead, by a thread of its own, and never at the cost of anybody's room."""

import errno

import pytest

from bridge.journal.spare import Spare
from tests.unit.journal.support import FaultyDisk, append_all, everything, opened, record

SEGMENT_BYTES = 1_300_001


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


def is_ready(journal) -> bool:
    return journal._spare._ready.is_set()


@pytest.mark.parametrize("is_direct", [True, False])
async def test_a_full_segment_goes_on_in_a_zeroed_file(folder, wait_until, is_direct):
    class Watched(FaultyDisk):
        def write_directly(self, fd):
            return is_direct and super().write_directly(fd)

    disk = Watched()
    async with opened(folder, disk=disk, segment_bytes=SEGMENT_BYTES) as journal:
        stored = [await journal.append(record(1, payload=b"x" * 200_000))]
        await wait_until(lambda: is_ready(journal), description="the next file is zeroed")
        zeroed = (folder / "next.zero").stat()
        assert zeroed.st_size >= SEGMENT_BYTES
        assert zeroed.st_blocks * 512 >= SEGMENT_BYTES
        assert not any((folder / "next.zero").read_bytes())
        stored += [await journal.append(record(n, payload=b"x" * 400_000)) for n in range(2, 6)]
        assert (folder / "00000002.seg").stat().st_ino == zeroed.st_ino
        assert await everything(journal) == stored
    assert not (folder / "next.zero").exists()
    async with opened(folder, segment_bytes=SEGMENT_BYTES) as journal:
        assert await everything(journal) == stored


async def test_a_quiet_journal_prepares_nothing(folder):
    async with opened(folder, segment_bytes=SEGMENT_BYTES) as journal:
        await append_all(journal, 5)
        assert journal._spare._jobs.empty()
        assert not (folder / "next.zero").exists()


@pytest.mark.parametrize("failing", ["free", "fail_write", "fail_sync", "fail_create"])
async def test_without_room_for_it_the_journal_goes_on_without_it(folder, failing):
    disk = FaultyDisk()
    disk.only = ".zero"
    setattr(disk, failing, 0 if failing == "free" else OSError(errno.ENOSPC, "No space left on device"))
    async with opened(folder, disk=disk, segment_bytes=SEGMENT_BYTES) as journal:
        stored = [await journal.append(record(n, payload=b"x" * 400_000)) for n in range(9)]
        assert len(journal.segments) == 3
        assert not is_ready(journal)
        assert await everything(journal) == stored


async def test_a_file_that_somebody_took_away_is_made_again(folder, wait_until):
    async with opened(folder, segment_bytes=SEGMENT_BYTES) as journal:
        await journal.append(record(1, payload=b"x" * 200_000))
        await wait_until(lambda: is_ready(journal), description="the next file is zeroed")
        (folder / "next.zero").unlink()
        stored = [await journal.append(record(n, payload=b"x" * 600_000)) for n in range(2, 5)]
        assert (await everything(journal))[1:] == stored


def test_what_a_killed_daemon_left_half_done_goes(folder):
    folder.mkdir()
    (folder / "next.zero").write_bytes(b"half")
    spare = Spare(folder, segment_bytes=SEGMENT_BYTES, low_water_bytes=0, disk=FaultyDisk())
    spare.start()
    spare.stop()
    assert list(folder.iterdir()) == []
