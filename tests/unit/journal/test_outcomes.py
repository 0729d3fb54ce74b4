"""The log of attempts on disk: what a kill leaves, what a full disk keeps waiting, how long it takes."""

import asyncio
import errno
import os
import shutil
import struct
import threading
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.errors import StoreError
from bridge.core.invocation import Attempt, AttemptStatus, InvocationType
from bridge.core.record import Record
from bridge.journal.attempts import check, decode, encode
from bridge.journal.outcomes import OutcomesLog
from bridge.testing.clock import ManualClock
from tests.unit.journal.support import FaultyDisk

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def attempt(n: int, number: int = 1, status: AttemptStatus = AttemptStatus.OK, **fields) -> Attempt:
    plain = {
        "position": n << 8,
        "request_id": str(uuid.UUID(int=n << 64 | n)),
        "function": "f",
        "number": number,
        "status": status,
        "started_at": 1000.0 + number,
    }
    return Attempt(**(plain | fields))


def event(n: int, **fields) -> Record:
    plain = {
        "id": attempt(n).request_id,
        "source": "s",
        "function": "f",
        "invocation_type": InvocationType.EVENT,
        "received_at": 1000.0,
        "payload": b"",
        "position": n << 8,
    }
    return Record(**(plain | fields))


class Opened:
    def __init__(self, folder, **options):
        settings = {"clock": ManualClock(time=2000.0), "retention_s": 1e9, "disk": None}
        self.log = OutcomesLog(folder=folder, **(settings | options))

    async def __aenter__(self):
        await self.log.open()
        return self.log

    async def __aexit__(self, *_):
        await self.log.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "outcomes"


async def one_pass():
    await asyncio.sleep(0)
    await asyncio.sleep(0)


TEXT = st.text(max_size=30)


@given(
    position=st.integers(-1, 2**63 - 1),
    number=st.integers(0, 65_535),
    status=st.sampled_from(AttemptStatus),
    started_ms=st.integers(0, 2**45),
    texts=st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT),
    tail=st.binary(max_size=1024),
)
def test_attempts_round_trip(position, number, status, started_ms, texts, tail):
    function, version, error_type, error_message, stream, replay = texts
    original = Attempt(
        position=position,
        request_id=str(uuid.UUID(int=7)),
        function=function,
        number=number,
        status=status,
        started_at=started_ms / 1000,
        duration_ms=0.125,
        version=version,
        error_type=error_type,
        error_message=error_message,
        log_tail=tail,
        log_stream=stream,
        replay=replay,
    )
    frame = encode(original)

    assert check(frame + b"more") == len(frame)
    assert decode(frame + b"more") == original


def test_texts_are_cut_and_lone_surrogates_do_no_harm():
    failed = decode(encode(attempt(1, error_type="E", error_message="\ud800" + "m" * 5000, log_tail=b"x" * 9000)))
    went_well = decode(encode(attempt(1, log_tail=b"a" * 5000 + b"z")))

    assert failed.error_message == "?" + "m" * 1023
    assert len(failed.log_tail) == 4096
    assert (len(went_well.log_tail), went_well.log_tail[-1:]) == (1024, b"z")


async def test_a_killed_daemon_loses_at_most_one_pass(folder):
    async with Opened(folder) as log:
        log.append(attempt(1))
        await one_pass()
        log.append(attempt(2))  # this pass has not ended
        shutil.copytree(folder, folder.with_name("copy"))
        await one_pass()
    async with Opened(folder.with_name("copy")) as log:
        assert log.finished(after=-1) == {1 << 8}


async def test_attempts_are_synced_every_200_ms(folder, threads_rest):
    disk, clock = FaultyDisk(), ManualClock()
    disk.only = ".out"
    async with Opened(folder, disk=disk, clock=clock) as log:
        task = asyncio.create_task(log.run())
        await clock.advance(1.0)
        assert disk.syncs == []
        log.append(attempt(1))
        for _ in range(100):
            await clock.advance(0.02)
            await threads_rest()
        assert disk.syncs == ["00000001.out"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.parametrize("is_sealed", [True, False])
async def test_a_tail_torn_at_any_byte_is_cut(folder, is_sealed):
    async with Opened(folder) as log:
        log.append(attempt(1))
        log.append(attempt(2))
    path = folder / "00000001.out"
    whole = path.read_bytes()
    index = path.with_suffix(".idx").read_bytes()
    last = check(whole)
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut] + b"\0" * (cut % 3 * 100))
        if is_sealed:
            path.with_suffix(".idx").write_bytes(index)
        else:
            path.with_suffix(".idx").unlink(missing_ok=True)
        async with Opened(folder) as log:
            assert log.finished(after=-1) == {1 << 8}
            log.append(attempt(3))
        async with Opened(folder) as log:
            assert log.finished(after=-1) == {1 << 8, 3 << 8}


async def test_damage_in_the_middle_costs_one_attempt_not_all_after_it(folder):
    async with Opened(folder) as log:
        for n in range(10):
            log.append(attempt(n))
    path = folder / "00000001.out"
    data = bytearray(path.read_bytes())
    data[check(data) * 4 + 20] ^= 1
    path.write_bytes(data)
    (folder / "00000001.idx").unlink()
    async with Opened(folder) as log:
        assert log.finished(after=-1) == {n << 8 for n in range(10) if n != 4}
        assert log.for_events([event(9)]) == {9 << 8: [attempt(9)]}


async def test_files_roll_and_everything_is_found_after_reopening(folder):
    async with Opened(folder, file_max_bytes=2000) as log:
        for n in range(200):
            log.append(attempt(n, 1, AttemptStatus.FAILED))
            log.append(attempt(n, 2))
            await one_pass()
        assert len(list(folder.glob("*.out"))) > 5
        for _ in range(2):
            assert len(log.finished(after=-1)) == 200
            assert log.for_events([event(3), event(150)]) == {
                n << 8: [attempt(n, 1, AttemptStatus.FAILED), attempt(n, 2)] for n in (3, 150)
            }
            await log.flush()
    assert len(list(folder.glob("*.idx"))) == len(list(folder.glob("*.out")))
    (folder / "00000002.idx").write_bytes(b"nonsense")
    (folder / "00000003.idx").unlink()
    async with Opened(folder, file_max_bytes=2000) as log:
        assert len(log.finished(after=-1)) == 200
        assert set(log.for_events(event(n) for n in range(200))) == {n << 8 for n in range(200)}
        assert log.finished(after=190 << 8) == {n << 8 for n in range(191, 200)}


async def test_the_last_file_is_gone_on_with_after_a_restart(folder):
    for n in range(5):
        async with Opened(folder) as log:
            log.append(attempt(n))
    assert [path.name for path in sorted(folder.glob("*.out"))] == ["00000001.out"]
    async with Opened(folder) as log:
        assert len(log.finished(after=-1)) == 5


async def test_a_full_disk_keeps_attempts_waiting_and_takes_them_later(folder):
    disk = FaultyDisk()
    disk.only = ".out"
    async with Opened(folder, disk=disk) as log:
        log.append(attempt(1))
        await log.flush()
        disk.fail_write, disk.partial = NO_SPACE, 30
        log.append(attempt(2))
        await log.flush()
        log.append(attempt(3))
        await one_pass()
        assert log.for_events([event(2)]) == {2 << 8: [attempt(2)]}
        assert log.finished(after=-1) == {1 << 8}
        disk.fail_write = None
        log.append(attempt(4))
        await one_pass()
        assert log.finished(after=-1) == {n << 8 for n in (1, 2, 3, 4)}
        assert log.dropped == 0
    async with Opened(folder) as log:
        assert log.finished(after=-1) == {n << 8 for n in (1, 2, 3, 4)}


async def test_a_disk_that_is_full_when_a_file_is_full_keeps_attempts_waiting(folder):
    disk = FaultyDisk()
    disk.only = ".out"
    async with Opened(folder, disk=disk, file_max_bytes=100) as log:
        log.append(attempt(1))
        await log.flush()
        disk.fail_create = NO_SPACE
        log.append(attempt(2))
        await log.flush()
        disk.fail_create = None
        await log.flush()
        assert log.finished(after=-1) == {1 << 8, 2 << 8}


async def test_too_many_waiting_attempts_are_dropped_oldest_first_and_counted(folder, monkeypatch):
    monkeypatch.setattr("bridge.journal.outcomes._BUFFER_MAX_BYTES", 1000)
    disk = FaultyDisk()
    disk.only = ".out"
    async with Opened(folder, disk=disk) as log:
        disk.fail_write = NO_SPACE
        for n in range(50):
            log.append(attempt(n))
        await log.flush()
        assert log.dropped > 30
        disk.fail_write = None
        await log.flush()
        assert log.finished(after=-1) == {n << 8 for n in range(log.dropped, 50)}


async def test_a_failed_sync_is_never_tried_again(folder):
    disk, fatal = FaultyDisk(), []
    disk.only = ".out"
    async with Opened(folder, disk=disk, on_fatal=fatal.append) as log:
        log.append(attempt(1))
        disk.fail_sync = OSError(errno.EIO, "Input/output error")
        with pytest.raises(StoreError, match="could not be synced"):
            await log.flush()
        disk.fail_sync = None
        log.append(attempt(2))
        with pytest.raises(StoreError, match="any more"):
            await log.flush()
        assert len(fatal) == 1


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS])
async def test_a_write_that_fails_for_another_reason_than_room_closes_the_log(folder, error):
    disk, fatal = FaultyDisk(), []
    disk.only = ".out"
    async with Opened(folder, disk=disk, on_fatal=fatal.append) as log:
        log.append(attempt(1))
        await log.flush()
        disk.fail_write = OSError(error, os.strerror(error))
        log.append(attempt(2))
        await one_pass()
        assert [each.errno for each in fatal] == [error]
        disk.fail_write = None
        log.append(attempt(3))
        with pytest.raises(StoreError, match="any more"):
            await log.flush()
        assert len(fatal) == 1
    async with Opened(folder) as log:
        assert log.finished(after=-1) == {1 << 8}


async def test_too_many_open_files_when_a_file_is_full_pass(folder):
    disk, fatal = FaultyDisk(), []
    disk.only = ".out"
    async with Opened(folder, disk=disk, file_max_bytes=50, on_fatal=fatal.append) as log:
        log.append(attempt(1))
        await log.flush()
        disk.fail_create = OSError(errno.EMFILE, "Too many open files")
        log.append(attempt(2))
        await log.flush()
        disk.fail_create = None
        await log.flush()
        assert log.finished(after=-1) == {1 << 8, 2 << 8}
        assert fatal == []


class HeldSync(FaultyDisk):
    """A disk whose sync waits to be let go, and then fails."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def sync(self, fd: int) -> None:
        self.begun.set()
        self.go_on.wait(60)
        self.go_on.clear()
        raise OSError(errno.EIO, "Input/output error")


async def test_a_sync_that_fails_behind_a_cancelled_flush_is_not_forgotten(folder, wait_until):
    disk, fatal = HeldSync(), []
    log = OutcomesLog(folder=folder, clock=ManualClock(), retention_s=1e9, on_fatal=fatal.append, disk=disk)
    await log.open()
    log.append(attempt(1))
    flushing = asyncio.create_task(log.flush())
    await wait_until(disk.begun.is_set)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    disk.go_on.set()
    await wait_until(lambda: not disk.go_on.is_set())
    with pytest.raises(StoreError, match="any more"):
        await log.flush()
    assert len(fatal) == 1
    await log.close()


async def test_an_index_that_finds_no_room_is_written_later_and_never_keeps_a_file(folder):
    disk, clock = FaultyDisk(), ManualClock(time=2000.0)
    disk.only = ".idx.new"
    no_space = OSError(errno.ENOSPC, "No space left on device")
    async with Opened(folder, disk=disk, clock=clock, file_max_bytes=50, retention_s=500.0) as log:
        disk.fail_write = no_space
        for n in range(3):
            log.append(attempt(n, started_at=1900.0))
            await log.flush()
        assert list(folder.glob("*.idx")) == []
        disk.fail_write = None
        for n in range(3, 5):
            log.append(attempt(n, started_at=1900.0))
            await log.flush()
        assert len(list(folder.glob("*.idx"))) == 4
        disk.fail_write = no_space
        for n in range(5, 7):
            log.append(attempt(n, started_at=1900.0))
            await log.flush()
        assert log.finished(after=-1) == {n << 8 for n in range(7)}
        log.configure(retention_s=1.0)
        task = asyncio.create_task(log.run())
        async with asyncio.timeout(60):
            while len(list(folder.glob("*.out"))) > 1:
                await clock.advance(0.1)
                await asyncio.sleep(0.0005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_event_with_more_attempts_than_an_index_block_keeps_them_all(folder):
    many = [attempt(7, number, AttemptStatus.FAILED) for number in range(1, 701)]
    async with Opened(folder) as log:
        for number, each in enumerate(many):
            log.append(each)
            log.append(attempt(1000 + number))
            log.append(attempt(0, number, request_id=str(uuid.UUID(int=number))))
    async with Opened(folder, file_max_bytes=1) as log:  # so that the file stays sealed
        assert log.for_events([event(7)]) == {7 << 8: many}
        assert log.for_events([event(8)]) == {}
        wanted = [event(n) for n in range(900, 1100)]
        assert log.for_events(wanted) == {n << 8: [attempt(n)] for n in range(1000, 1100)}
        assert log.for_events([event(0, id=str(uuid.UUID(int=699)))]) == {
            0: [attempt(0, 699, request_id=str(uuid.UUID(int=699)))]
        }


async def test_old_files_go_one_a_second_and_the_newest_stays(folder, threads_rest):
    clock = ManualClock(time=2000.0)
    async with Opened(folder, clock=clock, retention_s=500.0, file_max_bytes=50) as log:
        for n in range(6):
            log.append(attempt(n, started_at=1000.0 if n < 4 else 1900.0))
            await log.flush()
        task = asyncio.create_task(log.run())

        async def left(seconds: float) -> int:
            for _ in range(int(seconds / 0.1)):
                await clock.advance(0.1)
                await threads_rest()
            return len(list(folder.glob("*.out")))

        assert 4 <= await left(1.6) <= 5
        assert await left(8.0) == 2
        assert log.for_events([event(1)]) == {}
        assert log.for_events([event(5)]) != {}
        log.configure(retention_s=1.0)
        assert await left(5.0) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_for_events_may_be_asked_from_a_thread_while_attempts_arrive(folder, wait_until):
    async with Opened(folder, file_max_bytes=20_000) as log:
        asking, asked = True, 0

        def ask() -> None:
            nonlocal asked
            while asking:
                for n, found in log.for_events([event(n) for n in range(5)]).items():
                    assert [each.number for each in found] == list(range(1, len(found) + 1)), n
                asked += 1

        thread = asyncio.create_task(asyncio.to_thread(ask))
        for number in range(1, 200):
            for n in range(5):
                log.append(attempt(n, number, AttemptStatus.FAILED))
            await asyncio.sleep(0.0005)
        await wait_until(lambda: asked)
        asking = False
        await thread


async def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be opened"):
        async with Opened(tmp_path / "file" / "outcomes"):
            pass


@pytest.mark.slow
async def test_many_outcomes_are_read_at_start_and_indexed(folder):
    folder.mkdir()
    frame, size = bytearray(encode(attempt(1))), 60_000
    with (folder / "00000001.out").open("wb") as file:
        for n in range(size):
            struct.pack_into("<q", frame, 12, n)
            body = bytes(frame[12:])
            struct.pack_into("<I", frame, 8, zlib.crc32(body))
            file.write(frame)
    async with Opened(folder, file_max_bytes=1 << 30) as log:
        for n in range(size, size + 5):
            log.append(attempt(n, position=n))
    async with Opened(folder) as log:
        assert len(log.finished(after=-1)) == size + 5
    assert os.path.getsize(folder / "00000001.idx") > size * 24
