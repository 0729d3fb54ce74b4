"""The contract of DeadLetters, over every implementation.

1. Putting  2. selecting  3. redriving and resolving  4. purging
"""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bridge.core.invocation import AttemptStatus, Condition, DeadLetter
from bridge.core.ports import DeadLetterSelection
from tests.contract.stores import LARGE, NOW, Stores, attempt, letter, parked, record, stores, uuid_of

__all__ = ["stores"]

EVERYTHING = DeadLetterSelection(queue=None)


def ids(letters: list[DeadLetter]) -> list[int]:
    return [int(each.id[-12:], 16) for each in letters]


# --- 1. putting --------------------------------------------------------------------------------------


async def test_a_dead_letter_comes_back_as_it_was(stores: Stores) -> None:
    put = letter(
        queue="replay:tuesday",
        condition=Condition.EVENT_AGE_EXCEEDED,
        position=3 << 32 | 17,
        client_context=b"{}",
        error_type="Sandbox.Timedout",
        error_message="Task timed out after 3.00 seconds ☃",
        response=b'{"errorMessage": "\xc3\xa9"}',
        redrives=2,
        history=(attempt(1), attempt(2, status=AttemptStatus.DEAD, position=-1, log_tail=b"")),
    )
    await stores.dead_letters.put(put)

    assert put == await stores.dead_letters.get(put.id)
    assert [put] == await stores.dead_letters.select(EVERYTHING, limit=10)


@pytest.mark.parametrize("payload", [b"", b"x" * 65_537, LARGE], ids=len)
async def test_a_payload_of_any_size_comes_back_whole(stores: Stores, payload: bytes) -> None:
    put = letter(payload=payload)
    await stores.dead_letters.put(put)

    assert put == await stores.dead_letters.get(put.id, queue="default")


async def test_text_that_is_not_unicode_is_kept_nevertheless(stores: Stores) -> None:
    await stores.dead_letters.put(letter(error_message="\ud800", history=(attempt(error_message="\udfff"),)))

    assert await stores.dead_letters.get(uuid_of(1)) is not None


async def test_only_the_latest_twenty_attempts_are_kept(stores: Stores) -> None:
    await stores.dead_letters.put(letter(history=tuple(attempt(n) for n in range(1, 26))))
    found = await stores.dead_letters.get(uuid_of(1))

    assert found is not None
    assert list(range(6, 26)) == [each.number for each in found.history]


@pytest.mark.parametrize("payload", [b"small", LARGE], ids=["small", "large"])
async def test_putting_again_replaces(stores: Stores, payload: bytes) -> None:
    again = letter(payload=payload, attempts=6, dead_at=NOW + 500)
    await stores.dead_letters.put(letter(payload=LARGE))
    await stores.dead_letters.put(again)
    await stores.dead_letters.put(again)

    assert again == await stores.dead_letters.get(uuid_of(1))
    assert 1 == await stores.dead_letters.count(EVERYTHING)


async def test_one_event_may_be_dead_in_two_queues(stores: Stores) -> None:
    live, replayed = letter(), letter(queue="replay:r", dead_at=NOW + 99)
    await stores.dead_letters.put(replayed)
    await stores.dead_letters.put(live)

    assert live == await stores.dead_letters.get(uuid_of(1))
    assert replayed == await stores.dead_letters.get(uuid_of(1), queue="replay:r")
    assert await stores.dead_letters.get(uuid_of(1), queue="replay:s") is None


@pytest.mark.parametrize("payload", [b"small", LARGE], ids=["small", "large"])
async def test_an_event_is_never_both_parked_and_dead(stores: Stores, payload: bytes) -> None:
    entry = parked(event=record(payload=payload))
    elsewhere = parked(queue="replay:r")
    await stores.parked.park(entry)
    await stores.parked.park(elsewhere)
    await stores.dead_letters.put(letter(payload=payload))

    assert elsewhere == await stores.parked.get(uuid_of(1))
    await stores.parked.done(entry)


async def test_an_unknown_letter_is_not_found(stores: Stores) -> None:
    assert await stores.dead_letters.get(uuid_of(9)) is None
    assert await stores.dead_letters.get("%") is None
    assert [] == await stores.dead_letters.select(EVERYTHING, limit=10)
    assert 0 == await stores.dead_letters.count(EVERYTHING)


async def test_positions_are_of_all_queues_and_leave_out_letters_without_one(stores: Stores) -> None:
    await stores.dead_letters.put(letter(1))
    await stores.dead_letters.put(letter(2, position=-1))
    await stores.dead_letters.put(letter(3, position=0, queue="replay:r"))

    assert {1, 0} == await stores.dead_letters.positions()


# --- 2. selecting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 2, 3]),
        ({"queue": None}, [1, 2, 3, 4]),
        ({"queue": "replay:r"}, [4]),
        ({"queue": "none"}, []),
        ({"since": NOW + 2}, [2, 3]),
        ({"until": NOW + 2}, [1]),
        ({"since": NOW + 2, "until": NOW + 2}, []),
        ({"source": "orders"}, [1, 3]),
        ({"source": "o%"}, []),
        ({"function": "billing"}, [1, 2]),
        ({"function": "b"}, []),
        ({"ids": frozenset({uuid_of(2), uuid_of(3), uuid_of(4), uuid_of(9)})}, [2, 3]),
        ({"ids": frozenset({"'; drop table parked; --"})}, []),
        ({"state": "redriving"}, [3]),
        ({"state": "dead", "queue": None, "function": "other"}, [4]),
    ],
)
async def test_every_given_field_must_match(stores: Stores, fields: dict[str, Any], expected: list[int]) -> None:
    await stores.dead_letters.put(letter(1))
    await stores.dead_letters.put(letter(2, source="other", function="billing"))
    await stores.dead_letters.put(letter(3, function="other:1", state="redriving"))
    await stores.dead_letters.put(letter(4, function="other", queue="replay:r"))
    selection = DeadLetterSelection(**fields)

    assert expected == ids(await stores.dead_letters.select(selection, limit=10))
    assert len(expected) == await stores.dead_letters.count(selection)


async def test_more_ids_than_a_statement_has_parameters(stores: Stores) -> None:
    await stores.dead_letters.put(letter(1))
    selection = DeadLetterSelection(ids=frozenset(uuid_of(n) for n in range(35_000)))

    assert [1] == ids(await stores.dead_letters.select(selection, limit=10))


async def test_pages_follow_each_other_without_gap_or_repetition(stores: Stores) -> None:
    for number in (5, 3, 1, 4, 2):
        await stores.dead_letters.put(letter(number, dead_at=NOW + number // 2))
    found: list[int] = []
    after: tuple[float, str] | None = None
    while page := await stores.dead_letters.select(EVERYTHING, limit=2, after=after):
        assert len(page) <= 2
        found += ids(page)
        after = page[-1].dead_at, page[-1].id

    assert [1, 2, 3, 4, 5] == found


async def test_a_page_without_room_is_empty(stores: Stores) -> None:
    await stores.dead_letters.put(letter())

    assert [] == await stores.dead_letters.select(EVERYTHING, limit=0)


# --- 3. redriving and resolving ----------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"small", LARGE], ids=["small", "large"])
async def test_a_redrive_parks_the_event_and_marks_the_letter(stores: Stores, payload: bytes) -> None:
    dead = letter(payload=payload)
    entry = parked(event=record(payload=payload), redrive=True, attempts=0, due_at=NOW, job="redrive-1")
    await stores.dead_letters.put(dead)

    assert await stores.dead_letters.redrive(dead, entry) is True
    assert entry == await stores.parked.get(dead.id)
    assert replace(dead, state="redriving", redrives=1) == await stores.dead_letters.get(dead.id)


async def test_a_second_redrive_changes_nothing(stores: Stores) -> None:
    dead, entry = letter(payload=LARGE), parked(event=record(payload=LARGE), redrive=True)
    await stores.dead_letters.put(dead)
    await stores.dead_letters.redrive(dead, entry)

    assert await stores.dead_letters.redrive(dead, replace(entry, due_at=NOW + 999)) is False
    assert entry == await stores.parked.get(dead.id)
    found = await stores.dead_letters.get(dead.id)
    assert found is not None
    assert found.redrives == 1


async def test_an_unknown_letter_is_not_redriven(stores: Stores) -> None:
    assert await stores.dead_letters.redrive(letter(), parked()) is False
    assert await stores.parked.get(uuid_of(1)) is None


async def test_of_many_redrives_at_once_one_wins(stores: Stores) -> None:
    dead = letter()
    await stores.dead_letters.put(dead)
    won = await asyncio.gather(
        *(stores.dead_letters.redrive(dead, parked(redrive=True, job=f"job-{n}")) for n in range(20))
    )

    assert 1 == sum(won)
    entry = await stores.parked.get(dead.id)
    assert entry is not None
    assert entry.job == f"job-{won.index(True)}"


async def test_a_redriven_event_that_fails_again_is_one_dead_letter(stores: Stores) -> None:
    dead = letter()
    await stores.dead_letters.put(dead)
    await stores.dead_letters.redrive(dead, parked(redrive=True))
    again = replace(dead, attempts=6, redrives=1, dead_at=NOW + 100)
    await stores.dead_letters.put(again)

    assert [again] == await stores.dead_letters.select(EVERYTHING, limit=10)
    assert await stores.parked.get(dead.id) is None
    assert await stores.dead_letters.redrive(again, parked(redrive=True)) is True


async def test_resolve_removes_and_twice_is_fine(stores: Stores) -> None:
    await stores.dead_letters.put(letter(payload=LARGE))
    await stores.dead_letters.put(letter(queue="replay:r"))
    await stores.dead_letters.resolve(uuid_of(1), queue="default")
    await stores.dead_letters.resolve(uuid_of(1), queue="default")
    await stores.dead_letters.resolve(uuid_of(9), queue="default")

    assert ["replay:r"] == [each.queue for each in await stores.dead_letters.select(EVERYTHING, limit=10)]


# --- 4. purging --------------------------------------------------------------------------------------


async def test_purge_deletes_what_is_selected_and_dead(stores: Stores) -> None:
    for number in range(1, 5):
        await stores.dead_letters.put(letter(number, payload=LARGE if number == 2 else b"{}"))
    await stores.dead_letters.redrive(letter(1), parked(1, redrive=True))

    assert 2 == await stores.dead_letters.purge(DeadLetterSelection(until=NOW + 4))
    assert 0 == await stores.dead_letters.purge(DeadLetterSelection(until=NOW + 4))
    assert [1, 4] == ids(await stores.dead_letters.select(EVERYTHING, limit=10))
    assert await stores.parked.get(uuid_of(1)) is not None


async def test_purge_keeps_to_its_queue(stores: Stores) -> None:
    await stores.dead_letters.put(letter(1))
    await stores.dead_letters.put(letter(2, queue="replay:r"))

    assert 1 == await stores.dead_letters.purge(DeadLetterSelection())
    assert [2] == ids(await stores.dead_letters.select(EVERYTHING, limit=10))


async def test_what_is_being_redriven_cannot_be_purged(stores: Stores) -> None:
    await stores.dead_letters.put(letter(state="redriving"))

    assert 0 == await stores.dead_letters.purge(DeadLetterSelection(state="redriving"))
    assert 1 == await stores.dead_letters.count(EVERYTHING)
