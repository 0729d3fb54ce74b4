"""Targets of records through the api: what waits, try again, give up; and what an event says of them."""

import asyncio
from dataclasses import replace

import pytest

from bridge.core.invocation import AttemptStatus
from bridge.core.outcome import OutboxEntry, OutcomeKind, TargetPlace, TargetTrouble
from tests.unit.api.harness import NOW, World, event_id

QUEUE = TargetPlace(target="arn:aws:sqs:eu-central-1:123456789012:failed", connection="main")
TOPIC = TargetPlace(target="arn:aws:sns:eu-central-1:123456789012:failed")


async def wait_for(world: World, number: int, place: TargetPlace = QUEUE, **changes) -> OutboxEntry:
    """Have one record wait: of a failure, where nothing else is said."""
    entry = OutboxEntry(
        place=place, kind=OutcomeKind.ON_FAILURE, id=event_id(number), function="hello", created_at=NOW + number,
        position=number,
    )  # fmt: skip
    entry = replace(entry, **changes)
    letter = None
    if entry.kind is not OutcomeKind.ON_SUCCESS:
        letter = replace(world.bury(number), state="waiting")
    await world.outbox.put([entry], letter=letter)
    return entry


SUCCESS = {"kind": OutcomeKind.ON_SUCCESS, "record": b'{"responsePayload": 12345678901234567890}'}


async def test_targets_are_listed_with_what_waits(world):
    assert (await world.get("/targets")).json() == {"targets": []}
    await wait_for(world, 1, last_error="it is down")
    await wait_for(world, 2, TOPIC)

    topic, queue = (await world.get("/targets")).json()["targets"]
    assert topic["target"] == TOPIC.target
    assert queue == {
        "target": QUEUE.target, "connection": "main", "waiting": 1, "kept": 0, "oldest_at": NOW + 1, "failures": 0,
        "failing_since": None, "retry_at": None, "last_error": "it is down",
    }  # fmt: skip


async def test_a_letter_that_waits_is_in_the_list_and_cannot_be_purged(world):
    await wait_for(world, 1)

    assert [letter["state"] for letter in (await world.get("/dlq?state=waiting")).json()["dead_letters"]] == ["waiting"]
    assert (await world.post("/dlq/purge", {"selection": {}})).json()["count"] == 0
    refused = await world.post("/dlq/purge", {"selection": {"state": "waiting"}})
    assert (refused.status, refused.error) == (400, "selection.state: only dead ones can be purged")


async def test_records_are_listed_in_pages(world):
    for number in range(5):
        await wait_for(world, number, TOPIC if number == 3 else QUEUE, **SUCCESS)

    found, after = [], ""
    while True:
        page = (await world.get(f"/targets/records?limit=2&target={QUEUE.target}{after}")).json()
        found += [int(record["id"][:8], 16) for record in page["records"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == [0, 1, 2, 4]
    answer = await world.get("/targets/records?whole=true&limit=1")
    assert b'"record":{"responsePayload": 12345678901234567890}' in answer.body
    assert "record" not in (await world.get("/targets/records")).json()["records"][0]


@pytest.mark.parametrize("path", ["/targets/records?target=arn:x", "/targets/records?target=arn:x&connection=y"])
async def test_a_target_that_nothing_waits_for_is_not_found(world, path):
    assert (await world.get(path)).status == 404


async def test_a_target_of_two_connections_has_to_be_told_apart(world):
    await wait_for(world, 1)
    await wait_for(world, 2, replace(QUEUE, connection="other"))

    answer = await world.post("/targets/push", {"target": QUEUE.target})
    assert (answer.status, answer.error) == (
        409, f"{QUEUE.target} is reached by several connections: name one of main, other",
    )  # fmt: skip
    assert (await world.post("/targets/push", {"target": QUEUE.target, "connection": "other"})).status == 200


async def test_pushed_a_target_is_tried_at_once(world):
    world.targets[QUEUE.target].fail_with = TargetTrouble("down")
    await wait_for(world, 1)
    await world.sender.open()
    sending = asyncio.create_task(world.sender.run())
    while world.targets[QUEUE.target].tries < 4:
        await asyncio.sleep(0.001)
    world.targets[QUEUE.target].fail_with = None

    assert (await world.post("/targets/push", {})).json() == {"pushed": 1}
    while world.outbox.entries:
        await asyncio.sleep(0.001)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_giving_up_leaves_failures_as_dead_letters(world):
    await wait_for(world, 1)
    await wait_for(world, 2, **SUCCESS)

    body = {"target": QUEUE.target}
    assert (await world.post("/targets/give-up", {})).error == "target: is missing"
    assert (await world.post("/targets/give-up", body | {"dry_run": True})).json() == {"count": 2, "dry_run": True}
    assert (await world.post("/targets/give-up", body)).json() == {"dead_letters": 1, "deleted": 1, "dry_run": False}
    assert (await world.get("/targets")).json() == {"targets": []}
    assert [letter.state for letter in world.letters.letters.values()] == ["dead"]


async def test_an_event_says_where_its_records_went_and_what_waits(world):
    record = world.store(1)
    world.attempt(record, AttemptStatus.DEAD, error_type="ValueError", error_message="no")
    world.attempt(record, AttemptStatus.SENT, error_type="dead_letter", error_message=TOPIC.target)
    await wait_for(world, 1, position=record.position, attempts=4, last_error="down")

    event = (await world.get(f"/events/{record.id}")).json()
    assert (event["state"], event["error_type"], len(event["history"])) == ("dead", "ValueError", 1)
    assert event["sent"] == [{"at": record.received_at, "kind": "dead_letter", "target": TOPIC.target}]
    (waiting,) = event["to_send"]
    assert (waiting["target"], waiting["attempts"], waiting["last_error"]) == (QUEUE.target, 4, "down")
    assert [e["state"] for e in (await world.get("/events")).json()["events"]] == ["dead"]
