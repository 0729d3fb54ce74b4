"""The journal on disk: what is synced stays, what is not is cut, and a full or broken disk never lies."""

import asyncio
import errno
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.errors import StoreCorrupt, StoreError, StoreFull
from bridge.core.invocation import InvocationType
from bridge.core.ports import Selection
from bridge.core.record import Record
from bridge.journal.disk import Disk
from bridge.journal.frames import FrameBroken, decode, encode
from bridge.journal.journal import SegmentJournal
from bridge.journal.retention import Retention
from bridge.journal.segment import FILE_HEADER_BYTES, segment_path
from bridge.testing.clock import ManualClock


class FaultyDisk(Disk):
    """A disk that fails where a test says so."""

    def __init__(self) -> None:
        self.fail_write: OSError | None = None
        self.fail_sync: OSError | None = None
        self.partial = 0
        self.free = 1 << 40

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self.fail_write is not None:
            os.pwrite(fd, data[: self.partial], offset)
            raise self.fail_write
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        if self.fail_sync is not None:
            raise self.fail_sync
        super().sync(fd)

    def free_bytes(self, folder: Path) -> int:
        return self.free


def record(n: int = 0, *, payload: bytes | None = None, **fields: object) -> Record:
    defaults: dict[str, object] = {
        "id": str(uuid.UUID(int=n + 1)),
        "source": "r",
        "function": "f",
        "invocation_type": InvocationType.EVENT,
        "received_at": 1000.0 + n,
        "payload": payload if payload is not None else b'{"n":%d}' % n,
    }
    return Record(**(defaults | fields))


Opener = Callable[..., "asyncio.Future[SegmentJournal]"]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    journals: list[SegmentJournal] = []

    async def make(disk: Disk | None = None, *, segment_bytes: int = 1 << 20, low_water: int = 0, fatal: list | None = None):
        journal = SegmentJournal(
            folder=tmp_path / "journal",
            segment_bytes=segment_bytes,
            low_water_bytes=low_water,
            on_fatal=(fatal if fatal is not None else []).append,
            disk=disk,
        )
        await journal.open()
        journals.append(journal)
        return journal

    yield make
    for journal in journals:
        await journal.close()


async def everything(journal: SegmentJournal, selection: Selection | None = None, **options: object) -> list[Record]:
    return [r async for chunk in journal.scan(selection or Selection(), **options) for r in chunk]


async def test_what_append_returned_for_is_there_after_reopening(opened):
    journal = await opened()
    stored = [await journal.append(record(n)) for n in range(20)]
    await journal.close()
    again = await opened()

    assert await everything(again) == stored
    assert [again.read(r.position) for r in stored] == stored
    assert again.find(stored[7].id) == stored[7]
    assert again.find(str(uuid.uuid4())) is None
    assert again.end == journal.end


async def test_all_fields_survive(opened):
    journal = await opened()
    original = record(
        1, payload=b'{"x":1}', client_context=b'{"custom":{}}', delivery_id="d-\u00e9", function="f:live", source="r2"
    )
    stored = await journal.append(original)

    assert journal.read(stored.position) == stored
    assert (stored.client_context, stored.delivery_id, stored.function) == (b'{"custom":{}}', "d-\u00e9", "f:live")
    assert list(journal.deliveries(since=0)) == [("r2", "d-\u00e9", stored.id, stored.received_at)]


async def test_many_appenders_share_groups_and_keep_their_order(opened):
    journal = await opened(segment_bytes=64 << 10)
    groups: list[list[int]] = []
    journal.on_commit(lambda records: groups.append([r.position for r in records]))
    stored = await asyncio.gather(*(journal.append(record(n, payload=b'"%s"' % (b"x" * 500))) for n in range(600)))

    flat = [position for group in groups for position in group]
    assert flat == sorted(r.position for r in stored)
    assert len(groups) < 100
    assert len(journal.segments) > 3
    assert len(await everything(journal)) == 600


async def test_journal_times_never_go_backwards_not_even_over_a_restart(opened):
    journal = await opened()
    await journal.append(record(0, received_at=5000.0))
    await journal.close()
    again = await opened()
    later = await again.append(record(1, received_at=4000.0))

    assert later.received_at == 5000.0


async def test_scan_selects_by_time_source_function_and_id(opened):
    journal = await opened(segment_bytes=4096)
    stored = [
        await journal.append(record(n, source="ab"[n % 2], function="fg"[n % 3 == 0], payload=b"%d" % n))
        for n in range(60)
    ]

    assert await everything(journal, Selection(since=1010.0, until=1012.0)) == stored[10:12]
    assert await everything(journal, Selection(source="a")) == stored[::2]
    assert await everything(journal, Selection(function="g")) == [r for n, r in enumerate(stored) if n % 3 == 0]
    assert await everything(journal, Selection(ids=frozenset({stored[5].id}))) == [stored[5]]
    assert await everything(journal, after=stored[49].position) == stored[50:]
    assert await everything(journal, reverse=True) == stored[::-1]


async def test_archived_events_are_kept_but_belong_to_no_lane(opened):
    journal = await opened()
    fed: list[object] = []
    journal.on_commit(fed.extend)
    journal.archive(record(1, invocation_type=InvocationType.REQUEST_RESPONSE))
    await journal.close()
    again = await opened()

    assert fed == []
    assert [r.id for r in await everything(again)] == [record(1).id]
    assert list(again.positions("f", after=-1, limit=10)) == []


async def test_positions_of_a_lane_come_from_the_index_in_order(opened):
    journal = await opened(segment_bytes=4096)
    stored = [await journal.append(record(n, function="fg"[n % 2])) for n in range(100)]
    wanted = [(r.position, len(r.payload)) for r in stored[1::2]]

    assert list(journal.positions("g", after=-1, limit=1000)) == wanted
    assert list(journal.positions("g", after=wanted[9][0], limit=5)) == wanted[10:15]


@pytest.mark.slow
async def test_a_tail_torn_at_any_byte_is_cut_and_nothing_synced_is_lost(opened, tmp_path):
    journal = await opened()
    kept = [await journal.append(record(n)) for n in range(3)]
    await journal.close()
    last = await opened()
    torn = await last.append(record(3))
    end = last.end & 0xFFFF_FFFF
    await last.close()
    path = segment_path(tmp_path / "journal", 1)
    whole = path.read_bytes()[:end]
    for cut in range((torn.position & 0xFFFF_FFFF) + 1, end, 7):
        path.write_bytes(whole[:cut] + b"\0" * 64)
        again = await opened()
        assert await everything(again) == kept
        fresh = await again.append(record(9))
        assert await everything(again) == [*kept, fresh]
        await again.close()


async def test_damage_below_the_synced_end_is_refused_with_file_and_offset(opened, tmp_path):
    journal = await opened()
    stored = [await journal.append(record(n)) for n in range(3)]
    await journal.close()
    path = segment_path(tmp_path / "journal", 1)
    data = bytearray(path.read_bytes())
    data[(stored[0].position & 0xFFFF_FFFF) + 60] ^= 1
    path.write_bytes(data)

    with pytest.raises(StoreCorrupt, match=r"00000001.seg is damaged at byte 64, below its synced end 202; run `bridge doctor`"):
        await opened()


async def test_a_recycled_file_s_old_frames_are_not_taken_for_new_ones(opened, tmp_path):
    journal = await opened()
    for n in range(3):
        await journal.append(record(n))
    await journal.close()
    folder = tmp_path / "journal"
    data = bytearray(segment_path(folder, 1).read_bytes())
    data[8:12] = (2).to_bytes(4, "little")  # the same frames under another segment number
    segment_path(folder, 2).write_bytes(data)
    again = await opened()

    assert [r.id for r in await everything(again)] == [record(n).id for n in range(3)]


async def test_a_missing_or_damaged_index_is_rebuilt(opened, tmp_path):
    journal = await opened(segment_bytes=1024)
    stored = [await journal.append(record(n)) for n in range(100)]
    await journal.close()
    indexes = sorted((tmp_path / "journal").glob("*.idx"))
    assert len(indexes) > 2
    indexes[0].unlink()
    indexes[1].write_bytes(b"\1" + indexes[1].read_bytes()[1:])
    again = await opened(segment_bytes=4096)

    assert await everything(again) == stored


@pytest.mark.parametrize("partial", [0, 10, 100])
async def test_a_full_disk_stores_nothing_says_so_and_resumes_by_itself(opened, partial):
    disk = FaultyDisk()
    journal = await opened(disk)
    kept = await journal.append(record(0))
    disk.fail_write, disk.partial = OSError(errno.ENOSPC, "No space left on device"), partial
    with pytest.raises(StoreFull):
        await journal.append(record(1))
    disk.fail_write = None
    journal._writer._space_checked_at = 0.0  # a quarter of a second later
    later = await journal.append(record(2))

    assert await everything(journal) == [kept, later]
    await journal.close()
    assert await everything(await opened()) == [kept, later]


async def test_below_the_low_water_mark_nothing_is_taken(opened):
    disk = FaultyDisk()
    journal = await opened(disk, low_water=1000)
    disk.free = 10
    journal._writer._space_checked_at = 0.0
    with pytest.raises(StoreFull, match="low-water"):
        await journal.append(record(1))


async def test_a_failed_sync_closes_the_journal_for_good(opened):
    disk, fatal = FaultyDisk(), []
    journal = await opened(disk, fatal=fatal)
    await journal.append(record(0))
    disk.fail_sync = OSError(errno.EIO, "Input/output error")
    with pytest.raises(StoreError) as caught:
        await journal.append(record(1))
    assert not isinstance(caught.value, StoreFull)
    assert fatal
    disk.fail_sync = None
    with pytest.raises(StoreError):  # a later sync that "works" proves nothing
        await journal.append(record(2))


async def test_a_real_file_system_that_fills_up(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mount = tmp_path / "small"
    mount.mkdir()
    assert os.system(f"mount -t tmpfs -o size=2m tmpfs {mount}") == 0
    try:
        journal = SegmentJournal(folder=mount / "j", segment_bytes=1 << 20, low_water_bytes=0, on_fatal=print)
        await journal.open()
        stored = []
        with pytest.raises(StoreFull):
            while True:
                stored.append(await journal.append(record(len(stored), payload=b'"%s"' % (b"x" * 50_000))))
        assert len(stored) > 10
        os.system(f"mount -o remount,size=8m {mount}")
        journal._writer._space_checked_at = 0.0
        stored.append(await journal.append(record(len(stored))))
        assert [r.id for r in await everything(journal)] == [r.id for r in stored]
        await journal.close()
    finally:
        os.system(f"umount -l {mount}")


async def test_retention_takes_whole_segments_and_evacuates_the_unfinished(opened, tmp_path):
    clock = ManualClock(time=10_000.0)
    journal = await opened(segment_bytes=4096)
    stored = [await journal.append(record(n)) for n in range(100)]
    first = [r for r in stored if r.position >> 32 == 1]
    unfinished = {first[3].position, first[5].position}
    retention = Retention(
        journal,
        clock=clock,
        retention_s=3600,
        retention_bytes=1 << 40,
        unfinished=lambda low, high: sorted(p for p in unfinished if low <= p < high),
    )
    assert await retention.step()

    assert journal.read(first[0].position) is None
    assert journal.read(first[3].position) == first[3]
    assert [p for p, _ in journal.positions("f", after=-1, limit=3)][:2] == sorted(unfinished)
    assert journal.find(first[5].id) == first[5]
    await journal.close()
    again = await opened(segment_bytes=4096)
    assert again.read(first[3].position) == first[3]
    unfinished.clear()
    retention = Retention(again, clock=clock, retention_s=1 << 40, retention_bytes=1 << 40, unfinished=lambda *_: [])
    await retention.step()
    assert len(again.holds) == 0
    assert list((tmp_path / "journal" / "hold").iterdir()) == []


async def test_retention_respects_pins_and_pauses_when_the_clock_jumps(opened):
    clock = ManualClock(time=10_000.0)
    journal = await opened(segment_bytes=4096)
    for n in range(100):
        await journal.append(record(n))
    retention = Retention(journal, clock=clock, retention_s=3600, retention_bytes=1 << 40, unfinished=lambda *_: [])
    journal.pin("replay", journal.start)
    assert not await retention.step()
    journal.pin("replay", None)
    clock.step(86_400)
    assert not await retention.step()
    await clock.advance(3601)
    assert await retention.step()


async def test_retention_by_size(opened):
    clock = ManualClock(time=1000.0)
    journal = await opened(segment_bytes=4096)
    for n in range(200):
        await journal.append(record(n))
    retention = Retention(journal, clock=clock, retention_s=1e9, retention_bytes=8192, unfinished=lambda *_: [])
    while await retention.step():
        pass

    assert journal.stats().size_bytes <= 8192 + 4096


@given(
    payload=st.binary(max_size=2000),
    context=st.binary(max_size=200),
    source=st.text(max_size=40),
    function=st.text(max_size=40),
    delivery=st.text(max_size=60),
    offset=st.integers(64, 2**32 - 1),
    segment=st.integers(1, 2**31),
)
def test_frames_round_trip_and_belong_to_their_place(payload, context, source, function, delivery, offset, segment):
    original = record(
        3, payload=payload, client_context=context, source=source, function=function, delivery_id=delivery
    )
    frame, row = encode(original, segment=segment, offset=offset, synced_end=7, received_ms=1_003_000)
    found = decode(frame + b"rest", segment=segment, offset=offset)

    assert found.record.payload == payload
    assert (found.record.source, found.record.function, found.record.delivery_id) == (source, function, delivery)
    assert (found.record.client_context, found.length, found.synced_end) == (context, len(frame), 7)
    assert found.row(offset) == row
    with pytest.raises(FrameBroken):
        decode(frame, segment=segment + 1, offset=offset)


async def test_a_record_larger_than_a_segment_is_stored(opened):
    journal = await opened(segment_bytes=64 << 10)
    big = record(1, payload=b'"%s"' % (b"x" * 6_291_000))
    await journal.append(record(0))
    stored = await journal.append(big)

    assert journal.read(stored.position).payload == big.payload
    assert FILE_HEADER_BYTES == stored.position & 0xFFFF_FFFF
    await journal.close()
    assert len(await everything(await opened())) == 2


async def test_an_empty_or_foreign_segment_file(opened, tmp_path):
    (tmp_path / "journal").mkdir()
    segment_path(tmp_path / "journal", 1).write_bytes(b"")
    journal = await opened()
    stored = await journal.append(record(1))
    assert await everything(journal) == [stored]
    await journal.close()
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "journal").mkdir()
    segment_path(tmp_path / "journal", 1).write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreCorrupt, match="is no journal segment"):
        await opened()
