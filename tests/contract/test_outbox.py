"""The contract of the Outbox, over every implementation.

1. Putting  2. sending order  3. what ends  4. pointers and what is kept  5. giving a target up
"""

from dataclasses import replace
from typing import Any

import pytest

from bridge.core.outcome import OutboxEntry, OutcomeKind, TargetPlace
from bridge.core.ports import DeadLetterSelection
from tests.contract.stores import LARGE, NOW, Stores, letter, parked, stores, uuid_of

__all__ = ["stores"]

QUEUE = TargetPlace(target="arn:aws:sqs:eu-central-1:123456789012:failed")
TOPIC = TargetPlace(target="arn:aws:sns:eu-central-1:123456789012:failed", connection="main")
ALL = DeadLetterSelection(queue=None)


def entry(number: int = 1, *, place: TargetPlace = QUEUE, **changes: Any) -> OutboxEntry:
    """Return what waits since `number` seconds after NOW."""
    made = OutboxEntry(
        place=place,
        kind=OutcomeKind.ON_FAILURE,
        id=uuid_of(number),
        function="billing:live",
        created_at=NOW + number,
        position=number,
    )
    return replace(made, **changes)


def success(number: int = 1, **changes: Any) -> OutboxEntry:
    """Return the record of a success."""
    return entry(number, **{"kind": OutcomeKind.ON_SUCCESS, "record": b'{"n": %d}' % number} | changes)


def dead(number: int = 1, **changes: Any) -> Any:
    """Return the dead letter of a failure."""
    return letter(number, state="waiting", **changes)


async def due(stores: Stores, place: TargetPlace = QUEUE, *, now: float = NOW + 1000, limit: int = 100) -> list[int]:
    """Return the numbers of the events whose entries would be sent now."""
    return [int(each.id[-12:], 16) for each in await stores.outbox.due(place, now=now, limit=limit)]


# --- 1. putting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [b"{}", LARGE], ids=len)
async def test_what_was_put_comes_back_as_it_was(stores: Stores, record: bytes) -> None:
    put = success(1, place=TOPIC, attempts=3, due_at=NOW + 5, last_error="it is döwn", record=record, role="arn:r")
    await stores.outbox.put([put])

    (found,) = await stores.outbox.due(TOPIC, now=NOW + 5, limit=10)

    assert put == replace(found, number=-1)
    assert [found] == await stores.outbox.page(None, after=-1, limit=10)
    assert [replace(found, record=b"")] == await stores.outbox.of_event(put.id)
    assert [] == await stores.outbox.of_event(uuid_of(99))


async def test_a_failure_is_a_dead_letter_that_waits_and_no_longer_parked(stores: Stores) -> None:
    await stores.parked.park(parked(1))
    await stores.outbox.put([entry(1)], letter=dead(1, payload=LARGE))

    found = await stores.dead_letters.get(uuid_of(1))
    assert found == dead(1, payload=LARGE)
    assert {1} == await stores.dead_letters.positions()
    assert await stores.parked.get(uuid_of(1)) is None


async def test_a_success_leaves_the_parking_to_whoever_parked(stores: Stores) -> None:
    await stores.parked.park(parked(1))
    await stores.outbox.put([success(1)])

    assert await stores.parked.get(uuid_of(1)) is not None


async def test_put_again_it_is_there_once_under_its_first_number(stores: Stores) -> None:
    await stores.outbox.put([success(1, record=LARGE)])
    await stores.outbox.put([success(2)])
    await stores.outbox.put([success(1, created_at=NOW + 50, record=b"{}")])

    found = await stores.outbox.due(QUEUE, now=NOW, limit=10)
    assert [b"{}", b'{"n": 2}'] == [each.record for each in found]
    assert NOW + 50 == found[0].created_at


async def test_a_redriven_letter_that_fails_again_is_replaced(stores: Stores) -> None:
    await stores.dead_letters.put(letter(1, payload=LARGE))
    await stores.dead_letters.redrive(letter(1), parked(1))
    await stores.outbox.put([entry(1)], letter=dead(1, attempts=6))

    found = await stores.dead_letters.get(uuid_of(1))
    assert found is not None
    assert ("waiting", 6) == (found.state, found.attempts)
    assert 1 == await stores.dead_letters.count(ALL)


# --- 2. sending order --------------------------------------------------------------------------------


async def test_the_oldest_due_ones_come_first(stores: Stores) -> None:
    for number in (3, 1, 2):
        await stores.outbox.put([success(number)])
    await stores.outbox.put([success(4, due_at=NOW + 60), success(5, place=TOPIC)])

    assert [3, 1, 2] == await due(stores, now=NOW)
    assert [3, 1] == await due(stores, now=NOW, limit=2)
    assert [3, 1, 2, 4] == await due(stores, now=NOW + 60)
    assert [5] == await due(stores, TOPIC)
    assert [] == await due(stores, replace(QUEUE, connection="other"))


async def test_large_records_come_few_at_a_time_and_at_least_one(stores: Stores) -> None:
    await stores.outbox.put([success(number, record=b"x" * 9_000_000) for number in (1, 2, 3)])

    assert [1, 2] == (await due(stores))[:2]
    assert 1 <= len(await due(stores))


async def test_the_probe_is_what_was_tried_least(stores: Stores) -> None:
    await stores.outbox.put([success(1), success(2), success(3)])
    first, second, _ = await stores.outbox.due(QUEUE, now=NOW, limit=3)
    assert first == await stores.outbox.probe(QUEUE)

    await stores.outbox.failed([replace(first, attempts=1, due_at=NOW + 9, last_error="down")])
    assert second == await stores.outbox.probe(QUEUE)
    await stores.outbox.failed([replace(each, attempts=5) for each in await stores.outbox.due(QUEUE, now=NOW, limit=9)])

    found = await stores.outbox.probe(QUEUE)
    assert found is not None
    assert (uuid_of(1), 1, NOW + 9, "down") == (found.id, found.attempts, found.due_at, found.last_error)
    assert 0 == await stores.outbox.next_due(QUEUE)
    assert await stores.outbox.probe(TOPIC) is None
    assert await stores.outbox.next_due(TOPIC) is None


async def test_no_wait_is_longer_than_it_was_meant(stores: Stores) -> None:
    await stores.outbox.put([success(1, due_at=NOW + 9000), success(2, due_at=NOW + 5)])
    await stores.outbox.clamp(latest=NOW + 300)

    assert NOW + 5 == await stores.outbox.next_due(QUEUE)
    assert [1, 2] == await due(stores, now=NOW + 300)


# --- 3. what ends ------------------------------------------------------------------------------------


async def test_what_was_sent_is_gone_with_its_dead_letter(stores: Stores) -> None:
    await stores.outbox.put([entry(1)], letter=dead(1, payload=LARGE))
    await stores.outbox.put([success(1)])
    entries = await stores.outbox.due(QUEUE, now=NOW, limit=9)

    await stores.outbox.sent(entries)
    await stores.outbox.sent(entries)

    assert [] == await stores.outbox.places()
    assert await stores.dead_letters.get(uuid_of(1)) is None


async def test_the_dead_letter_stays_until_both_targets_have_it(stores: Stores) -> None:
    await stores.outbox.put(
        [entry(1), entry(1, place=TOPIC, kind=OutcomeKind.DEAD_LETTER)], letter=dead(1, queue="default")
    )

    await stores.outbox.sent(await stores.outbox.due(QUEUE, now=NOW, limit=9))
    assert await stores.dead_letters.get(uuid_of(1)) == dead(1)
    await stores.outbox.sent(await stores.outbox.due(TOPIC, now=NOW, limit=9))
    assert await stores.dead_letters.get(uuid_of(1)) is None


async def test_what_was_put_anew_meanwhile_is_not_taken_for_sent(stores: Stores) -> None:
    await stores.outbox.put([success(1)])
    old = await stores.outbox.due(QUEUE, now=NOW, limit=9)
    await stores.outbox.put([success(1, created_at=NOW + 70)])

    await stores.outbox.sent(old)
    await stores.outbox.failed([replace(old[0], attempts=9)])

    (found,) = await stores.outbox.due(QUEUE, now=NOW, limit=9)
    assert (NOW + 70, 0) == (found.created_at, found.attempts)


async def test_a_letter_that_waits_is_neither_redriven_nor_purged(stores: Stores) -> None:
    await stores.outbox.put([entry(1)], letter=dead(1))

    assert not await stores.dead_letters.redrive(dead(1), parked(1))
    assert 0 == await stores.dead_letters.purge(ALL)
    assert [1] == await due(stores)


async def test_targets_are_counted(stores: Stores) -> None:
    await stores.outbox.put([success(2, last_error="first"), success(1)])
    await stores.outbox.put([entry(3, place=TOPIC)], letter=dead(3))

    topic, queue = await stores.outbox.places()
    assert (TOPIC, 1, 0, NOW + 3) == (topic.place, topic.waiting, topic.kept, topic.oldest_at)
    assert (QUEUE, 2, NOW + 2, "first") == (queue.place, queue.waiting, queue.oldest_at, queue.last_error)


# --- 4. pointers and what is kept --------------------------------------------------------------------


async def pointed(stores: Stores, place: TargetPlace = QUEUE) -> list[OutboxEntry]:
    """Make pointers of everything that waits there."""
    entries = await stores.outbox.due(place, now=NOW, limit=9)
    await stores.outbox.failed([replace(each, is_pointer=True, last_error="too large") for each in entries])
    return await stores.outbox.due(place, now=NOW, limit=9)


async def test_a_failure_whose_pointer_was_sent_stays_a_dead_letter(stores: Stores) -> None:
    await stores.outbox.put([entry(1)], letter=dead(1))

    await stores.outbox.sent(await pointed(stores))

    assert await stores.dead_letters.get(uuid_of(1)) == letter(1)
    assert [] == await stores.outbox.places()


@pytest.mark.parametrize("first", [QUEUE, TOPIC], ids=["whole first", "pointer first"])
async def test_of_two_targets_one_pointer_is_enough_to_keep_the_letter(stores: Stores, first: TargetPlace) -> None:
    await stores.outbox.put([entry(1), entry(1, place=TOPIC, kind=OutcomeKind.DEAD_LETTER)], letter=dead(1))
    await pointed(stores, TOPIC)

    for place in (first, TOPIC if first is QUEUE else QUEUE):
        await stores.outbox.sent(await stores.outbox.due(place, now=NOW, limit=9))

    assert await stores.dead_letters.get(uuid_of(1)) == letter(1)


async def test_a_letter_put_again_forgets_that_it_was_kept(stores: Stores) -> None:
    await stores.outbox.put([entry(1), entry(1, place=TOPIC, kind=OutcomeKind.DEAD_LETTER)], letter=dead(1))
    await stores.outbox.sent(await pointed(stores))
    await stores.outbox.put([entry(1, created_at=NOW + 5)], letter=dead(1))

    for place in (QUEUE, TOPIC):
        await stores.outbox.sent(await stores.outbox.due(place, now=NOW, limit=9))

    assert await stores.dead_letters.get(uuid_of(1)) is None


async def test_a_success_whose_pointer_was_sent_is_kept_whole_and_not_sent_again(stores: Stores) -> None:
    await stores.outbox.put([success(1, record=LARGE)])

    await stores.outbox.sent(await pointed(stores))

    assert [] == await due(stores)
    (status,) = await stores.outbox.places()
    assert (0, 1, None) == (status.waiting, status.kept, status.oldest_at)
    (found,) = await stores.outbox.page(QUEUE, after=-1, limit=9)
    assert (LARGE, True) == (found.record, found.is_kept)


async def test_what_cannot_even_be_pointed_at_is_kept(stores: Stores) -> None:
    await stores.outbox.put([success(1), entry(2)], letter=dead(2))
    entries = await stores.outbox.due(QUEUE, now=NOW, limit=9)

    await stores.outbox.keep(entries)
    await stores.outbox.keep(entries)

    assert [] == await due(stores)
    assert await stores.dead_letters.get(uuid_of(2)) == letter(2)
    assert [True] == [each.is_kept for each in await stores.outbox.page(None, after=-1, limit=9)]


async def test_pages_go_on_behind_a_number(stores: Stores) -> None:
    await stores.outbox.put([success(1), success(2, place=TOPIC), success(3)])
    first, *_ = await stores.outbox.page(None, after=-1, limit=1)

    assert [uuid_of(2), uuid_of(3)] == [e.id for e in await stores.outbox.page(None, after=first.number, limit=9)]
    assert [uuid_of(3)] == [e.id for e in await stores.outbox.page(QUEUE, after=first.number, limit=9)]


# --- 5. giving a target up ---------------------------------------------------------------------------


async def test_a_target_given_up_leaves_dead_letters_and_no_successes(stores: Stores) -> None:
    await stores.outbox.put([entry(1), entry(1, place=TOPIC, kind=OutcomeKind.DEAD_LETTER)], letter=dead(1))
    await stores.outbox.put([entry(2)], letter=dead(2, payload=LARGE))
    await stores.outbox.put([success(3, record=LARGE), success(4, place=TOPIC)])

    assert (2, 1) == await stores.outbox.give_up(QUEUE)

    assert await stores.dead_letters.get(uuid_of(2)) == letter(2, payload=LARGE)
    assert await stores.dead_letters.get(uuid_of(1)) == dead(1)  # the other target still waits for it
    assert [1, 4] == sorted(await due(stores, TOPIC))
    await stores.outbox.sent(await stores.outbox.due(TOPIC, now=NOW, limit=9))
    assert await stores.dead_letters.get(uuid_of(1)) == letter(1)
    assert (0, 0) == await stores.outbox.give_up(QUEUE)
