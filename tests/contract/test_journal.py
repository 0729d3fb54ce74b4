"""What every journal promises (`ports.Journal`): the one on disk and the shipped fake alike."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bridge.core.errors import StoreFull
from bridge.core.invocation import InvocationType
from bridge.core.ports import Journal, Selection
from bridge.core.record import Record
from bridge.journal.disk import Disk
from bridge.journal.journal import SegmentJournal
from bridge.testing.clock import ManualClock
from bridge.testing.journal import MemoryJournal
from tests.harness import wait_until


class SmallDisk(Disk):
    """A disk that says it is full while a test wants it so."""

    free = 1 << 40

    def free_bytes(self, folder: Path) -> int:
        return self.free


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A journal, and what a test may do to it."""

    journal: Journal
    fill: Callable[[], Awaitable[None]]
    """No append finds room from now on."""
    empty: Callable[[], Awaitable[None]]
    """There is room again."""
    drop: Callable[[], Awaitable[None]]
    """Retention takes what is old, with nothing unfinished in it."""


@pytest.fixture(params=["disk", "memory"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryJournal()

        async def fail_with(error: Exception | None) -> None:
            memory.fail_with = error

        async def drop_half() -> None:
            memory.drop_before(memory.end // 2)

        yield Subject(
            journal=memory,
            fill=lambda: fail_with(StoreFull("no space")),
            empty=lambda: fail_with(None),
            drop=drop_half,
        )
        return
    disk, clock = SmallDisk(), ManualClock()

    async def set_free(size: int) -> None:
        disk.free = size
        await clock.advance(1.0)

    on_disk = SegmentJournal(
        folder=tmp_path / "journal",
        clock=clock,
        segment_bytes=16_384,
        low_water_bytes=1000,
        on_fatal=lambda error: None,
        disk=disk,
    )
    await on_disk.open()

    async def drop_segments() -> None:
        # Until a thread has written its index, a full segment is held open, and what is read of it is not gone yet.
        await wait_until(lambda: not any(each.is_live for each in on_disk.segments[:-1]), 60)
        while len(on_disk.segments) > 1:
            await on_disk.drop_oldest([])

    yield Subject(
        journal=on_disk, fill=lambda: set_free(0), empty=lambda: set_free(1 << 40), drop=drop_segments
    )  # fmt: skip
    await on_disk.close()


@pytest.fixture
def journal(subject: Subject) -> Journal:
    return subject.journal


def record(n: int, **fields: Any) -> Record:
    plain = Record(
        id=str(uuid.UUID(int=n + 1)),
        source="orders",
        function="handle",
        invocation_type=InvocationType.EVENT,
        received_at=1000.0 + n,
        payload=b'{"n":%d}' % n,
    )
    return replace(plain, **fields)


async def scanned(journal: Journal, selection: Selection | None = None, **options: Any) -> list[Record]:
    return [each async for chunk in journal.scan(selection or Selection(), **options) for each in chunk]


async def test_an_appended_record_is_found_by_position_by_id_and_by_scanning(journal: Journal) -> None:
    original = record(1, client_context=b'{"custom":{}}', delivery_id="d-\u00e9", function="handle:live")
    stored = await journal.append(original)

    assert stored == replace(original, position=stored.position)
    assert stored.position >= 0
    assert journal.read(stored.position) == stored
    assert journal.find(stored.id) == stored
    assert await scanned(journal) == [stored]


async def test_what_is_not_there_is_none(journal: Journal) -> None:
    stored = await journal.append(record(1))

    assert journal.read(journal.end) is None
    assert journal.read(stored.position + (7 << 40)) is None
    assert journal.find(str(uuid.UUID(int=99))) is None
    assert journal.find("no uuid at all") is None
    assert journal.find("") is None


async def test_positions_grow_and_lie_between_start_and_end(journal: Journal) -> None:
    assert journal.start <= journal.end
    stored = [await journal.append(record(n, payload=b"x" * 900)) for n in range(60)]
    positions = [each.position for each in stored]

    assert positions == sorted(set(positions))
    assert journal.start <= positions[0]
    assert positions[-1] < journal.end
    assert [journal.read(position) for position in positions] == stored


async def test_the_newest_of_two_records_with_one_id_is_found(journal: Journal) -> None:
    await journal.append(record(1))
    second = await journal.append(record(1, payload=b'"again"'))

    assert journal.find(second.id) == second


async def test_times_never_go_backwards(journal: Journal) -> None:
    first = await journal.append(record(1, received_at=5000.0))
    second = await journal.append(record(2, received_at=4000.0))
    third = await journal.append(record(3, received_at=5000.5))

    assert [each.received_at for each in (first, second, third)] == [5000.0, 5000.0, 5000.5]


async def test_scan_is_half_open_in_time_and_every_given_field_must_match(journal: Journal) -> None:
    stored = [
        await journal.append(record(n, source="ab"[n % 2], function=("f:live", "g", "f")[n % 3])) for n in range(90)
    ]

    assert await scanned(journal, Selection(since=1010.0, until=1012.0)) == stored[10:12]
    assert await scanned(journal, Selection(since=2000.0)) == []
    assert await scanned(journal, Selection(until=1000.0)) == []
    assert await scanned(journal, Selection(source="a")) == stored[::2]
    assert await scanned(journal, Selection(function="f")) == [r for n, r in enumerate(stored) if n % 3 != 1]
    assert await scanned(journal, Selection(source="b", function="g")) == stored[1::6]
    assert await scanned(journal, Selection(ids=frozenset({stored[70].id, stored[5].id}))) == [stored[5], stored[70]]
    assert await scanned(journal, Selection(ids=frozenset({"nothing"}))) == []
    assert await scanned(journal, Selection(source="c")) == []


async def test_scan_goes_on_after_a_position_and_backwards(journal: Journal) -> None:
    stored = [await journal.append(record(n, payload=b"x" * 300)) for n in range(130)]

    assert await scanned(journal, after=stored[49].position) == stored[50:]
    assert await scanned(journal, after=stored[-1].position) == []
    assert await scanned(journal, reverse=True) == stored[::-1]
    assert await scanned(journal, reverse=True, after=stored[99].position, chunk=7) == stored[:99:-1]


async def test_chunks_are_sequences_of_at_most_the_asked_size(journal: Journal) -> None:
    stored = [await journal.append(record(n)) for n in range(25)]
    chunks = [chunk async for chunk in journal.scan(Selection(), chunk=10)]

    assert [each for chunk in chunks for each in chunk] == stored
    assert all(1 <= len(chunk) <= 10 for chunk in chunks)
    assert chunks[0][0] == stored[0]
    assert chunks[-1][-1] == stored[-1]
    assert list(chunks[0][1:3]) == stored[1:3]


async def test_a_lane_has_the_event_records_of_its_function_in_order(journal: Journal) -> None:
    stored = [await journal.append(record(n, function=("f", "f:live", "g")[n % 3])) for n in range(120)]
    wanted = [(each.position, len(each.payload)) for n, each in enumerate(stored) if n % 3 != 2]

    assert list(journal.positions("f", after=-1, limit=1000)) == wanted
    assert list(journal.positions("f", after=wanted[9][0], limit=5)) == wanted[10:15]
    assert list(journal.positions("f", after=wanted[9][0] - 1, limit=1)) == wanted[9:10]
    assert list(journal.positions("f", after=wanted[-1][0], limit=5)) == []
    assert list(journal.positions("h", after=-1, limit=5)) == []


async def test_an_archived_record_is_kept_but_belongs_to_no_lane(journal: Journal) -> None:
    told: list[Record] = []
    journal.on_commit(told.extend)
    journal.archive(record(1, invocation_type=InvocationType.REQUEST_RESPONSE))
    stored = await journal.append(record(2))

    assert told == [stored]
    assert [each.id for each in await scanned(journal)] == [record(1).id, stored.id]
    assert list(journal.positions("handle", after=-1, limit=9)) == [(stored.position, len(stored.payload))]


async def test_lanes_are_told_in_order_before_the_append_returns(journal: Journal) -> None:
    told: list[Record] = []
    journal.on_commit(told.extend)

    async def append(n: int) -> bool:
        stored = await journal.append(record(n))
        return stored in told

    assert all(await asyncio.gather(*(append(n) for n in range(200))))
    assert told == await scanned(journal)


async def test_lanes_are_told_of_a_record_whose_caller_went_away(journal: Journal) -> None:
    told: list[Record] = []
    journal.on_commit(told.extend)
    gone = asyncio.create_task(journal.append(record(1)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    other = await journal.append(record(2))

    assert told == await scanned(journal)
    assert other in told


async def test_what_is_not_stored_is_told_once_and_before_its_append_raises(subject: Subject) -> None:
    journal, stored, refused = subject.journal, list[Record](), list[Record]()
    journal.on_commit(stored.extend)
    journal.on_refuse(refused.extend)
    kept = await journal.append(record(1))
    await subject.fill()

    async def is_told_first(n: int) -> bool:
        with pytest.raises(StoreFull):
            await journal.append(record(n))
        return [each.id for each in refused].count(record(n).id) == 1

    assert all(await asyncio.gather(*(is_told_first(n) for n in range(2, 6))))
    gone = asyncio.create_task(journal.append(record(6)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    journal.archive(record(7, invocation_type=InvocationType.REQUEST_RESPONSE))
    with pytest.raises(StoreFull):
        await journal.append(record(8))

    assert sorted(each.id for each in refused) == [record(n).id for n in (2, 3, 4, 5, 6, 8)]
    assert stored == [kept]


async def test_deliveries_come_oldest_first_since_a_time(journal: Journal) -> None:
    for n in range(50):
        await journal.append(record(n, delivery_id=f"d{n}" if n % 2 else ""))

    assert list(journal.deliveries(since=1044.5)) == [
        ("orders", f"d{n}", record(n).id, 1000.0 + n) for n in (45, 47, 49)
    ]
    assert len(list(journal.deliveries(since=0))) == 25


@pytest.mark.parametrize("size", [0, 1, 65_536, 7_000_000])
async def test_payloads_of_any_size_come_back_as_they_were(journal: Journal, size: int) -> None:
    before = await journal.append(record(1))
    stored = await journal.append(record(2, payload=b"\xff" * size))
    after = await journal.append(record(3))

    assert journal.read(stored.position) == stored
    assert await scanned(journal) == [before, stored, after]


async def test_no_room_stores_nothing_and_passes_by_itself(subject: Subject) -> None:
    journal = subject.journal
    first = await journal.append(record(1))
    await subject.fill()
    results = await asyncio.gather(*(journal.append(record(n)) for n in range(2, 6)), return_exceptions=True)
    assert [type(each) for each in results] == [StoreFull] * 4
    assert await scanned(journal) == [first]
    await subject.empty()
    second = await journal.append(record(9))

    assert await scanned(journal) == [first, second]


async def test_what_retention_took_is_none_everywhere_and_the_rest_stays(subject: Subject) -> None:
    journal = subject.journal
    stored = [await journal.append(record(n, payload=b"x" * 900, delivery_id=f"d{n}")) for n in range(60)]
    end = journal.end
    await subject.drop()
    kept = [each for each in stored if each.position >= journal.start]

    assert 0 < len(kept) < 60
    assert journal.end == end
    assert [journal.read(each.position) for each in stored] == [each if each in kept else None for each in stored]
    assert [journal.find(each.id) for each in stored] == [each if each in kept else None for each in stored]
    assert await scanned(journal) == kept
    assert await scanned(journal, after=stored[3].position) == kept
    assert [position for position, _ in journal.positions("handle", after=-1, limit=99)] == [r.position for r in kept]
    assert [each[2] for each in journal.deliveries(since=0)] == [each.id for each in kept]
    assert (await journal.append(record(99))).position >= end


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_scan_leaves_out_what_retention_takes_meanwhile(subject: Subject, *, reverse: bool) -> None:
    journal = subject.journal
    stored = [await journal.append(record(n, payload=b"x" * 900)) for n in range(60)]
    found: list[Record] = []
    async for chunk in journal.scan(Selection(), chunk=5, reverse=reverse):
        if not found:
            await subject.drop()
        found += chunk
    kept = [each for each in stored if each.position >= journal.start]

    assert found == sorted(found, key=lambda each: each.position, reverse=reverse)
    assert {each.position for each in kept} <= {each.position for each in found}
    assert len(found) < 60


async def test_a_pin_can_be_set_moved_and_let_go(journal: Journal) -> None:
    stored = await journal.append(record(1))
    journal.pin("replay", stored.position)
    journal.pin("replay", stored.position + 1)
    journal.pin("replay", None)
    journal.pin("replay", None)
    journal.pin("never", None)


# --- a source as a stream -----------------------------------------------------------------------------------------


async def streamed(
    journal: Journal, source: str, *, after: int = -1, limit: int = 7, bytes_max: int = 1 << 20
) -> list[Record]:
    """Read a source to its end, page by page."""
    found: list[Record] = []
    while True:
        page = journal.source_page(source, after=after, limit=limit, bytes_max=bytes_max)
        assert len(page.positions) <= limit
        assert all(after < position <= page.through for position in page.positions)
        records = [journal.read(position) for position in page.positions]
        columns = zip(page.positions, page.times_ms, page.ids, page.keys, page.payloads, strict=True)
        assert [(r.position, r.received_at * 1000, r.id, r.key, r.payload) for r in records if r] == list(columns)
        found += [each for each in records if each is not None]
        if not records and page.through <= after:
            return found
        after = page.through


async def test_a_source_is_read_in_order_whatever_function_its_events_are_for(journal: Journal) -> None:
    stored = [
        await journal.append(
            record(
                n,
                source=("a", "b", "local:c")[n % 3],
                function=("", "f", "g:live")[n % 5 % 3],
                payload=b"x" * 400,
                key=b"k" * (n % 4),
            )
        )
        for n in range(90)
    ]

    for n, source in enumerate(("a", "b", "local:c")):
        assert await streamed(journal, source) == stored[n::3]
        assert await streamed(journal, source, bytes_max=1) == stored[n::3]
        assert await streamed(journal, source, after=stored[40].position) == [
            r for r in stored[n::3] if r in stored[41:]
        ]
        assert journal.source_positions(source, after=-1, limit=1000) == [(r.position, 400) for r in stored[n::3]]
        assert (
            journal.source_positions(source, after=stored[40].position, limit=2)
            == [(r.position, 400) for r in stored[n::3] if r in stored[41:]][:2]
        )
    assert await streamed(journal, "d") == []
    assert journal.source_positions("d", after=-1, limit=5) == []


async def test_synchronous_events_are_no_part_of_a_stream(journal: Journal) -> None:
    first = await journal.append(record(1, source="a"))
    journal.archive(record(2, source="a", invocation_type=InvocationType.REQUEST_RESPONSE))
    last = await journal.append(record(3, source="a"))

    assert await streamed(journal, "a") == [first, last]
    assert journal.source_positions("a", after=-1, limit=9) == [(first.position, 7), (last.position, 7)]
    assert journal.source_page("a", after=last.position, limit=9, bytes_max=9).positions == []


async def test_what_a_mapping_copied_is_read_by_its_source_where_that_is_asked_for(journal: Journal) -> None:
    copies = [
        await journal.append(record(n, source="mapping:m", invocation_type=InvocationType.REQUEST_RESPONSE))
        for n in range(5)
    ]
    await journal.append(record(9, source="mapping:n", invocation_type=InvocationType.REQUEST_RESPONSE))

    page = journal.source_page("mapping:m", after=copies[0].position, limit=3, bytes_max=1 << 20, is_archive=True)
    assert page.ids == [copy.id for copy in copies[1:4]]
    assert journal.source_page("mapping:m", after=-1, limit=9, bytes_max=1 << 20).ids == []


async def test_a_page_of_a_source_has_about_so_many_bytes_one_record_at_least(journal: Journal) -> None:
    stored = [await journal.append(record(n, source="a", payload=b"x" * 100)) for n in range(10)]

    assert journal.source_page("a", after=-1, limit=9, bytes_max=350).ids == [r.id for r in stored[:3]]
    smallest = journal.source_page("a", after=-1, limit=9, bytes_max=1)
    assert (smallest.ids, smallest.through) == ([stored[0].id], stored[0].position)


async def test_what_retention_took_from_a_source_is_passed_over_what_it_kept_is_found(subject: Subject) -> None:
    journal = subject.journal
    stored = [await journal.append(record(n, source="ab"[n % 2], payload=b"x" * 900)) for n in range(60)]
    await subject.drop()

    kept = [each for each in stored if each.position >= journal.start]
    assert 0 < len(kept) < 60
    assert await streamed(journal, "a") == [each for each in kept if each.source == "a"]
