"""After a crash: what was synced stays, a torn tail is cut, damage below the synced end is refused."""

import asyncio
import os
import shutil

import pytest

from bridge.core.errors import StoreCorrupt, StoreError
from bridge.core.invocation import InvocationType
from bridge.core.ports import Selection
from bridge.journal.frames import place_seed
from bridge.journal.layout import FILE_HEADER_BYTES, index_path, read_header, recover, segment_path
from tests.unit.journal.support import FaultyDisk, append_all, everything, framed, opened, record

OFFSET = 0xFFFF_FFFF


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


async def crashed(folder, count, **options):
    """Return records of a journal whose process was killed: a copy of its folder taken before it closed."""
    live = folder.with_name("live")
    async with opened(live, **options) as journal:
        stored = await append_all(journal, count)
        # What the journal's own threads rename while this copies is no part of what append returned for.
        shutil.copytree(live, folder, ignore=shutil.ignore_patterns("*.new"))
    return stored


async def test_what_append_returned_for_is_there_after_a_crash(folder):
    stored = await crashed(folder, 200, segment_bytes=4096)
    async with opened(folder, segment_bytes=4096) as again:
        assert await everything(again) == stored
        assert [again.read(each.position) for each in stored] == stored
        assert again.find(stored[7].id) == stored[7]
        assert len(again.segments) > 3


async def test_a_journal_can_be_reopened_after_every_step(folder):
    stored = []
    for step in range(12):
        async with opened(folder, segment_bytes=400) as journal:
            assert await everything(journal) == stored
            stored.append(await journal.append(record(step)))
            journal.archive(record(100 + step, invocation_type=InvocationType.REQUEST_RESPONSE))
        stored.append(None)  # the archived one
        async with opened(folder, segment_bytes=400) as journal:
            found = await everything(journal)
            assert [each.id for each in found[:-1]] == [each.id for each in stored[:-1]]
            stored = found


async def test_times_and_positions_go_on_after_a_restart(folder):
    async with opened(folder) as journal:
        first = await journal.append(record(1, received_at=5000.0))
        end = journal.end
    async with opened(folder) as journal:
        assert journal.end == end
        second = await journal.append(record(2, received_at=4000.0))

    assert second.received_at == 5000.0
    assert second.position == end > first.position


async def test_times_go_on_when_the_newest_segment_is_empty(folder):
    stored = await crashed(folder, 1)
    shutil.copy(segment_path(folder, 1), segment_path(folder, 2))
    segment_path(folder, 2).write_bytes(b"\0" * 4096)
    async with opened(folder) as journal:
        second = await journal.append(record(0, received_at=1.0))

    assert second.received_at == stored[0].received_at
    assert second.position >> 32 == 2


async def group_of_two(folder):
    """Return (kept, torn) of a crash during the sync of a group of two records behind three synced ones."""
    live = folder.with_name("live")
    async with opened(live) as journal:
        kept = await append_all(journal, 3)
        torn = await asyncio.gather(journal.append(record(3)), journal.append(record(4)))
        shutil.copytree(live, folder)
    return kept, torn


@pytest.mark.slow
async def test_a_tail_torn_at_any_byte_is_cut(folder):
    kept, torn = await group_of_two(folder)
    path = segment_path(folder, 1)
    begin = torn[0].position & OFFSET
    end = recover(path, number=1).seal.end
    whole = path.read_bytes()[:end]
    for cut in range(begin, end):
        for filling in (b"", b"\0" * 300, b"\xa5" * 300):
            path.write_bytes(whole[:cut] + filling)
            found = recover(path, number=1)
            assert found.seal.count == len(kept) + (cut >= torn[1].position & OFFSET)
            assert found.torn == (cut > found.seal.end or filling.startswith(b"\xa5"))


async def test_a_torn_group_whose_second_page_was_written_first_is_cut(folder):
    kept, torn = await group_of_two(folder)
    path = segment_path(folder, 1)
    data = bytearray(path.read_bytes())
    begin, second = (each.position & OFFSET for each in torn)
    data[begin:second] = bytes(second - begin)
    path.write_bytes(data)
    async with opened(folder) as journal:
        assert await everything(journal) == kept
        assert journal.find(torn[1].id) is None
        fresh = await journal.append(record(9))
        assert await everything(journal) == [*kept, fresh]
    async with opened(folder) as journal:  # the old tail is gone for good, not only skipped
        assert await everything(journal) == [*kept, fresh]


@pytest.mark.parametrize("filling", [b"\xa5" * 5000, b"", b"\0" * 5000])
async def test_appending_goes_on_behind_a_cut_tail(folder, filling):
    kept, torn = await group_of_two(folder)
    path = segment_path(folder, 1)
    path.write_bytes(path.read_bytes()[: (torn[1].position & OFFSET) + 5] + filling)
    async with opened(folder) as journal:
        fresh = await append_all(journal, 5, start=10)
    async with opened(folder) as journal:
        assert await everything(journal) == [*kept, torn[0], *fresh]


@pytest.mark.slow
async def test_damage_below_the_synced_end_is_refused_with_file_and_offset(folder):
    stored = await crashed(folder, 3)
    path = segment_path(folder, 1)
    whole = path.read_bytes()
    for place in range(FILE_HEADER_BYTES, stored[2].position & OFFSET):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(
            StoreCorrupt, match=r"00000001.seg is damaged at byte \d+, below its synced end \d+; run `bridge doctor`"
        ):
            recover(path, number=1)
    with pytest.raises(StoreCorrupt, match=r"00000001.seg is damaged"):
        async with opened(folder):
            pass


async def test_damage_of_the_last_group_is_refused_after_a_clean_close(folder):
    async with opened(folder) as journal:
        stored = await append_all(journal, 3)
    path = segment_path(folder, 1)
    data = bytearray(path.read_bytes())
    data[(stored[2].position & OFFSET) + 60] ^= 1
    path.write_bytes(data)

    with pytest.raises(StoreCorrupt, match="below its synced end"):
        async with opened(folder):
            pass


async def test_a_file_cut_below_its_synced_end_is_refused_after_a_clean_close(folder):
    async with opened(folder) as journal:
        stored = await append_all(journal, 3)
    os.truncate(segment_path(folder, 1), stored[2].position & OFFSET)
    with pytest.raises(StoreCorrupt, match="below its synced end"):
        async with opened(folder):
            pass
    os.truncate(segment_path(folder, 1), 0)
    with pytest.raises(StoreCorrupt, match="lost its header"):
        async with opened(folder):
            pass


async def test_a_recycled_files_old_frames_are_cut(folder):
    kept, torn = await group_of_two(folder)
    path = segment_path(folder, 1)
    end = recover(path, number=1).seal.end
    data = path.read_bytes()[:end]
    # Whole frames of another segment, one of them just where the next frame would be.
    stale = framed(record(9), place_seed(7, b"othersal"), end, synced_end=1 << 20)
    path.write_bytes(data + stale * 3 + bytes(500))
    async with opened(folder) as journal:
        assert await everything(journal) == [*kept, *torn]


async def test_a_frame_inside_a_payload_is_no_proof_of_a_synced_end(folder):
    """A sender who guesses the place writes a whole frame into its body: it does not know the salt."""
    kept, torn = await group_of_two(folder)
    path = segment_path(folder, 1)
    forged = framed(record(9), place_seed(1), (torn[0].position & OFFSET) + 64, synced_end=1 << 20)
    data = path.read_bytes()[: torn[0].position & OFFSET]
    path.write_bytes(data + b"\0" * 64 + forged)
    async with opened(folder) as journal:
        assert await everything(journal) == kept


async def test_a_lost_record_in_an_older_segment_is_refused(folder):
    await crashed(folder, 100, segment_bytes=1024)
    path = segment_path(folder, 1)
    end = recover(path, number=1).seal.end
    index_path(path).unlink(missing_ok=True)
    os.truncate(path, end - 10)
    with pytest.raises(StoreCorrupt, match=r"00000001.seg is damaged at byte \d+, and a later segment follows"):
        async with opened(folder, segment_bytes=1024):
            pass


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 400])
async def test_a_missing_or_damaged_index_is_rebuilt(folder, damage):
    async with opened(folder, segment_bytes=1024) as journal:
        stored = await append_all(journal, 100)
    indexes = sorted(folder.glob("*.idx"))
    assert len(indexes) > 5
    indexes[0].unlink()
    indexes[1].write_bytes(damage)
    indexes[2].write_bytes(indexes[2].read_bytes()[:-1])
    flipped = bytearray(indexes[3].read_bytes())
    flipped[20] ^= 4  # in the rows: their checksum is looked at when they are read
    indexes[3].write_bytes(flipped)
    async with opened(folder, segment_bytes=1024) as again:
        assert await everything(again) == stored
        assert [again.find(each.id) for each in stored] == stored
        assert len(again.positions("handle", after=-1, limit=1000)) == 100
    assert sorted(folder.glob("*.idx")) == indexes


async def test_an_index_of_another_life_of_its_segment_is_not_used(folder):
    async with opened(folder, segment_bytes=1024) as journal:
        await append_all(journal, 60)
    other = folder.with_name("other")
    async with opened(other, segment_bytes=1024) as journal:
        stored = await append_all(journal, 60, start=500)
    for path in folder.glob("*.idx"):
        shutil.copy(path, other / path.name)
    async with opened(other, segment_bytes=1024) as again:
        assert await everything(again) == stored


async def test_everything_found_is_synced_before_it_is_shown(folder):
    await crashed(folder, 3)
    disk = FaultyDisk()
    async with opened(folder, disk=disk):
        assert "00000001.seg" in disk.syncs


@pytest.mark.parametrize("content", [b"", b"\0" * 10, b"\0" * 4096])
async def test_a_segment_that_was_never_begun_is_begun_again(folder, content):
    folder.mkdir()
    segment_path(folder, 1).write_bytes(content)
    async with opened(folder) as journal:
        stored = await journal.append(record(1))
        assert await everything(journal) == [stored]


async def test_a_foreign_file_is_refused(folder):
    folder.mkdir()
    segment_path(folder, 1).write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreCorrupt, match="is no journal segment"):
        async with opened(folder):
            pass
    assert segment_path(folder, 1).read_bytes() == b"something else entirely" * 100


async def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be opened"):
        async with opened(tmp_path / "file" / "journal"):
            pass


async def test_a_damaged_record_is_reported_and_harms_no_other(folder, capsys):
    async with opened(folder, segment_bytes=1024) as journal:
        stored = await append_all(journal, 100)
    bad = stored[3]
    path = segment_path(folder, bad.position >> 32)
    data = bytearray(path.read_bytes())
    data[(bad.position & OFFSET) + 70] ^= 1
    path.write_bytes(data)
    async with opened(folder, segment_bytes=1024) as journal:
        found = journal.read(bad.position)
        assert f"damaged at byte {bad.position & OFFSET}" in found.damage
        assert found.damage in capsys.readouterr().out
        assert journal.find(bad.id) == found
        assert (1, path.name) == (journal.stats().damaged, journal.stats().damaged_file)
        assert await everything(journal) == [each for each in stored if each != bad]
        assert journal.stats().damaged == 1, "found again, counted once"
        assert journal.read(stored[4].position) == stored[4]


@pytest.mark.parametrize("bit", range(0, 100 * 8, 7))
async def test_of_a_damaged_record_is_kept_what_is_sure(folder, bit):
    """Whatever bit flips, in the header, the names or the payload: id, time and lane come from the index."""
    async with opened(folder) as journal:
        whole = await journal.append(record(3, function="handle:live", payload=b'{"n":3}'))
        following = await journal.append(record(4))
        path, at = journal.segments[-1].path, whole.position & OFFSET
        with path.open("r+b") as file:
            length = (following.position & OFFSET) - at
            place = at + bit // 8 % length
            byte = os.pread(file.fileno(), 1, place)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), place)
        found = journal.read(whole.position)

        assert found.damage == f"{path.name} is damaged at byte {at}; run `bridge doctor`"
        assert (whole.id, whole.received_at, whole.invocation_type) == (
            found.id, found.received_at, found.invocation_type
        )  # fmt: skip
        assert found.lane in ("handle", "")
        assert found.source in ("orders", "")
        assert len(found.payload) == len(whole.payload)
        assert journal.positions("handle", after=-1, limit=9) == [(whole.position, 7), (following.position, 7)]
        assert journal.read(following.position) == following


async def test_a_record_whose_end_is_gone_is_damaged_too(folder):
    async with opened(folder) as journal:
        stored = await append_all(journal, 2)
        os.truncate(journal.segments[-1].path, (stored[1].position & OFFSET) + 20)
        found = journal.read(stored[1].position)

        assert found.damage
        assert (stored[1].id, "", b"") == (found.id, found.function, found.payload)


async def test_a_position_between_two_records_has_no_record(folder):
    async with opened(folder) as journal:
        stored = await append_all(journal, 3)
        assert journal.read(stored[1].position + 1) is None
        assert journal.read(1 << 32) is None


async def test_segments_taken_aside_leave_a_gap_that_readers_step_over(folder):
    async with opened(folder, segment_bytes=1024) as journal:
        stored = await append_all(journal, 100)
    segment_path(folder, 2).rename(folder / "00000002.seg.damaged")
    async with opened(folder, segment_bytes=1024) as journal:
        kept = [each for each in stored if each.position >> 32 != 2]
        assert await everything(journal) == kept
        assert [journal.read(each.position) for each in kept] == kept
        assert journal.read(2 << 32 | 64) is None


async def test_many_appenders_share_groups_across_segments(folder):
    async with opened(folder, segment_bytes=64 << 10) as journal:
        groups = []
        journal.on_commit(lambda records: groups.append([each.position for each in records]))
        stored = await asyncio.gather(*(journal.append(record(n, payload=b"x" * 500)) for n in range(600)))
        flat = [position for group in groups for position in group]

        assert flat == sorted(each.position for each in stored)
        assert len(groups) < 60
        assert len(journal.segments) > 3
        assert sorted(await everything(journal), key=lambda r: r.id) == sorted(stored, key=lambda r: r.id)


async def test_a_record_larger_than_a_segment_has_one_to_itself(folder):
    async with opened(folder, segment_bytes=64 << 10) as journal:
        await journal.append(record(0))
        big = await journal.append(record(1, payload=b"x" * 6_291_456))
        after = await journal.append(record(2))

        assert big.position & OFFSET == FILE_HEADER_BYTES
        assert [each.position >> 32 for each in (big, after)] == [2, 3]
        assert journal.read(big.position) == big
    async with opened(folder, segment_bytes=64 << 10) as journal:
        assert len(await everything(journal)) == 3


async def test_a_group_of_large_records_is_written_in_bounded_parts(folder):
    disk = FaultyDisk()
    async with opened(folder, disk=disk, segment_bytes=256 << 20) as journal:
        stored = await asyncio.gather(*(journal.append(record(n, payload=b"x" * 3_000_000)) for n in range(6)))
        assert [journal.read(each.position) for each in stored] == stored
        assert disk.syncs.count("00000001.seg") >= 4


async def test_more_functions_than_an_index_names_are_still_found(folder, monkeypatch):
    monkeypatch.setattr("bridge.journal.layout._LANES_MAX", 3)
    async with opened(folder, segment_bytes=1024) as journal:
        stored = [await journal.append(record(n, function=f"f{n % 7}")) for n in range(60)]
    async with opened(folder, segment_bytes=1024) as journal:
        wanted = [(each.position, len(each.payload)) for each in stored[2::7]]
        assert journal.positions("f2", after=-1, limit=100) == wanted


async def test_names_that_share_a_hash_are_told_apart(folder, monkeypatch):
    monkeypatch.setattr("bridge.journal.reader.name_hash", lambda name: 7)
    monkeypatch.setattr("bridge.journal.frames.name_hash", lambda name: 7)
    async with opened(folder) as journal:
        stored = [await journal.append(record(n, source=f"s-{n % 2}", function=f"g-{n % 3}")) for n in range(12)]
        assert await everything(journal, Selection(source="s-1")) == stored[1::2]
        assert await everything(journal, Selection(function="g-2")) == stored[2::3]


@pytest.mark.slow
async def test_segments_keep_no_file_and_no_index_open(folder):
    async with opened(folder, segment_bytes=256) as journal:
        stored = await append_all(journal, 200)
        before = len(os.listdir("/proc/self/fd"))
        assert [journal.find(each.id) for each in stored] == stored
        assert len(journal.segments) > 90
        assert len(os.listdir("/proc/self/fd")) <= before + 32


async def test_a_closed_journal_takes_nothing(folder):
    async with opened(folder) as journal:
        pass
    await journal.close()
    with pytest.raises(StoreError, match="closed"):
        await journal.append(record(1))
    journal.archive(record(2))


async def test_what_is_appended_while_it_closes_is_stored(folder):
    async with opened(folder) as journal:
        waiting = [asyncio.create_task(journal.append(record(n))) for n in range(50)]
        await asyncio.sleep(0)
    assert len(await asyncio.gather(*waiting)) == 50
    async with opened(folder) as journal:
        assert len(await everything(journal)) == 50


def test_the_header_of_a_newer_format_is_refused(tmp_path):
    from bridge.journal import layout

    header = layout.file_header(1, salt=b"12345678", newest_ms=5)
    assert read_header(header, name="x", number=1) == (place_seed(1, b"12345678"), 5)
    newer = bytearray(header)
    newer[12] = 9
    newer[-4:] = layout.zlib.crc32(newer[:-4]).to_bytes(4, "little")
    with pytest.raises(StoreCorrupt, match="format 9, written by another release"):
        read_header(bytes(newer), name="x", number=1)
