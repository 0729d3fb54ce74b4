"""The contract of ParkedStore and Marks, over every implementation.

1. Parking  2. replacing and letting go  3. what is due, in which order  4. clock steps  5. questions of the lanes  6. marks
"""

import asyncio
from dataclasses import replace

import pytest

from bridge.core.invocation import InvocationType
from tests.contract.stores import LARGE, NOW, Stores, parked, record, stores, uuid_of

__all__ = ["stores"]


# --- 1. parking --------------------------------------------------------------------------------------


async def test_a_parked_event_comes_back_as_it_was(stores: Stores) -> None:
    entry = parked(
        event=record(
            payload=b"\x00\xff{}",
            client_context=b'{"custom": {}}',
            delivery_id="dé-1",
            invocation_type=InvocationType.REQUEST_RESPONSE,
            position=3 << 32 | 4096,
        ),
        attempts=2,
        due_at=NOW + 0.1,
        delay_s=0.1,
        first_attempt_at=NOW - 5.25,
        backoffs=4,
        error_type="ValueError",
        error_message="no such thing: ☃",
        response=b'{"errorType": "ValueError"}',
        redrive=True,
        queue="replay:tuesday",
        job="redrive-1",
    )
    await stores.parked.park(entry)

    assert entry == await stores.parked.get(entry.record.id)
    assert [entry] == await stores.parked.due("billing", now=NOW + 1, limit=10)


@pytest.mark.parametrize("payload", [b"", b"x" * 65_536, b"x" * 65_537, LARGE], ids=len)
async def test_a_payload_of_any_size_comes_back_whole(stores: Stores, payload: bytes) -> None:
    entry = parked(event=record(payload=payload))
    await stores.parked.park(entry)

    assert entry == await stores.parked.get(entry.record.id)


async def test_text_that_is_not_unicode_parks_nevertheless(stores: Stores) -> None:
    await stores.parked.park(parked(error_message="half a pair: \ud83d", error_type="E\x00"))

    found = await stores.parked.get(uuid_of(1))
    assert found is not None
    assert found.error_message.startswith("half a pair: ")
    assert found.error_type == "E\x00"


async def test_an_event_that_waits_for_nothing_is_not_found(stores: Stores) -> None:
    assert await stores.parked.get(uuid_of(9)) is None
    assert await stores.parked.due("billing", now=NOW, limit=10) == []
    assert await stores.parked.next_due() == {}
    assert await stores.parked.counts() == {}
    assert await stores.parked.positions() == set()


async def test_many_parks_at_once_all_arrive(stores: Stores) -> None:
    await asyncio.gather(*(stores.parked.park(parked(n)) for n in range(200)))

    assert {"billing": 200} == await stores.parked.counts()


# --- 2. replacing and letting go ---------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"small", LARGE], ids=["small", "large"])
async def test_parking_again_replaces(stores: Stores, payload: bytes) -> None:
    entry = parked(event=record(payload=payload))
    again = replace(entry, attempts=2, due_at=NOW + 180, delay_s=120.0)
    await stores.parked.park(entry)
    await stores.parked.park(again)
    await stores.parked.park(again)

    assert again == await stores.parked.get(uuid_of(1))
    assert {"billing": 1} == await stores.parked.counts()


async def test_the_same_event_parks_in_two_queues(stores: Stores) -> None:
    live, replayed = parked(), parked(queue="replay:r", due_at=NOW + 90)
    await stores.parked.park(live)
    await stores.parked.park(replayed)
    await stores.parked.done(live)

    assert replayed == await stores.parked.get(uuid_of(1))


async def test_done_twice_or_out_of_order_is_fine(stores: Stores) -> None:
    entry = parked()
    await stores.parked.done(entry)
    await stores.parked.park(entry)
    await stores.parked.done(entry)
    await stores.parked.done(entry)

    assert await stores.parked.get(uuid_of(1)) is None


async def test_done_spares_an_event_that_was_parked_anew(stores: Stores) -> None:
    """A redrive may park it between the dead letter's commit and the end of the old parking."""
    old, new = parked(), parked(due_at=NOW + 61, redrive=True)
    await stores.parked.park(old)
    await stores.parked.park(new)
    await stores.parked.done(old)

    assert new == await stores.parked.get(uuid_of(1))


async def test_done_knows_the_parking_by_its_due_time_alone(stores: Stores) -> None:
    entry = parked()
    await stores.parked.park(entry)
    await stores.parked.done(replace(entry, attempts=9, error_type="Later"))

    assert await stores.parked.get(uuid_of(1)) is None


# --- 3. what is due ----------------------------------------------------------------------------------


async def test_due_events_come_oldest_first_and_no_others(stores: Stores) -> None:
    for number, due_at in ((1, NOW + 3), (2, NOW + 1), (3, NOW + 2), (4, NOW + 3.001)):
        await stores.parked.park(parked(number, due_at=due_at))
    found = await stores.parked.due("billing", now=NOW + 3, limit=10)

    assert [uuid_of(2), uuid_of(3), uuid_of(1)] == [entry.record.id for entry in found]


async def test_events_due_at_one_moment_come_in_the_order_of_the_journal(stores: Stores) -> None:
    for number in (3, 1, 2):
        await stores.parked.park(parked(number))
    found = await stores.parked.due("billing", now=NOW + 60, limit=2)

    assert [1, 2] == [entry.record.position for entry in found]


async def test_due_is_bounded_and_skips_without_losing_its_place(stores: Stores) -> None:
    for number in range(1, 7):
        await stores.parked.park(parked(number, due_at=NOW + number))
    found = await stores.parked.due("billing", now=NOW + 60, limit=2, skip=frozenset({uuid_of(1), uuid_of(3)}))

    assert [2, 4] == [entry.record.position for entry in found]


async def test_a_skipped_id_in_two_queues_takes_no_other_events_place(stores: Stores) -> None:
    await stores.parked.park(parked(1, queue="a"))
    await stores.parked.park(parked(1, queue="b"))
    await stores.parked.park(parked(2))
    found = await stores.parked.due("billing", now=NOW + 60, limit=1, skip=frozenset({uuid_of(1)}))

    assert [2] == [entry.record.position for entry in found]


async def test_due_without_room_is_empty(stores: Stores) -> None:
    await stores.parked.park(parked())

    assert await stores.parked.due("billing", now=NOW + 60, limit=0) == []


async def test_due_goes_by_the_function_and_not_its_qualifier(stores: Stores) -> None:
    await stores.parked.park(parked(1, event=record(1, function="billing")))
    await stores.parked.park(parked(2, event=record(2, function="billing:7")))
    await stores.parked.park(parked(3, event=record(3, function="billing-old")))

    assert 2 == len(await stores.parked.due("billing", now=NOW + 60, limit=10))
    assert [] == await stores.parked.due("billing:7", now=NOW + 60, limit=10)


async def test_next_due_names_each_functions_earliest(stores: Stores) -> None:
    await stores.parked.park(parked(1, event=record(1, function="a"), due_at=NOW + 5))
    await stores.parked.park(parked(2, event=record(2, function="a:x"), due_at=NOW + 3))
    await stores.parked.park(parked(3, event=record(3, function="b"), due_at=NOW + 9))

    assert {"a": NOW + 3, "b": NOW + 9} == await stores.parked.next_due()
    assert {"a": NOW + 5, "b": NOW + 9} == await stores.parked.next_due(after=NOW + 3)
    assert {"b": NOW + 9} == await stores.parked.next_due(after=NOW + 5)


# --- 4. clock steps ----------------------------------------------------------------------------------


async def test_clamp_shortens_waits_that_a_clock_set_back_made_too_long(stores: Stores) -> None:
    await stores.parked.park(parked(1, due_at=NOW + 3600, delay_s=60.0))
    await stores.parked.park(parked(2, due_at=NOW + 59, delay_s=60.0))
    await stores.parked.park(parked(3, due_at=NOW - 5, delay_s=60.0))
    await stores.parked.clamp(now=NOW)
    await stores.parked.clamp(now=NOW)
    found = await stores.parked.due("billing", now=NOW + 60, limit=10)

    assert [(3, NOW - 5), (2, NOW + 59), (1, NOW + 60)] == [(e.record.position, e.due_at) for e in found]


# --- 5. questions of the lanes -----------------------------------------------------------------------


async def test_counts_are_by_function(stores: Stores) -> None:
    for number, function in ((1, "a"), (2, "a:live"), (3, "b")):
        await stores.parked.park(parked(number, event=record(number, function=function)))

    assert {"a": 2, "b": 1} == await stores.parked.counts()


async def test_positions_leave_out_events_without_one(stores: Stores) -> None:
    await stores.parked.park(parked(1))
    await stores.parked.park(parked(2, event=record(2, position=-1)))
    await stores.parked.park(parked(3, event=record(3, position=0)))

    assert {1, 0} == await stores.parked.positions()


# --- 6. marks ----------------------------------------------------------------------------------------


async def test_a_mark_never_moves_backwards(stores: Stores) -> None:
    await stores.marks.commit({"a": 5, "b": 7 << 32})
    await stores.marks.commit({"a": 3})
    await stores.marks.commit({"b": (7 << 32) + 1, "c": 0})
    await stores.marks.commit({})

    assert {"a": 5, "b": (7 << 32) + 1, "c": 0} == await stores.marks.load()
