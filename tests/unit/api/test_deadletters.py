"""Dead letters through the api: list, show, purge, redrive."""

import asyncio

import pytest

from bridge.core.invocation import Attempt, AttemptStatus, Condition
from tests.harness import wait_until
from tests.unit.api.harness import NOW, event_id


async def settle(world, name: str, *, failed: frozenset[int] = frozenset()) -> None:
    """Do what delivery does with everything parked: a success removes the dead letter, a failure buries it again."""
    from dataclasses import replace

    while world.parked.entries:
        for key, entry in list(world.parked.entries.items()):
            assert entry.job == name
            letter = await world.letters.get(entry.record.id, queue=entry.queue)
            if int(letter.id[:8], 16) in failed:
                world.letters.letters[entry.queue, letter.id] = replace(
                    letter, state="dead", dead_at=world.clock.time()
                )
            else:
                await world.letters.resolve(letter.id, queue=entry.queue)
            del world.parked.entries[key]


async def test_list_is_oldest_first_in_pages(world):
    for number in range(5):
        world.bury(number, dead_at=NOW + number // 2)

    found, after = [], ""
    while True:
        page = (await world.get(f"/dlq?limit=2{after}")).json()
        assert page["count"] == 5
        found.append([int(letter["id"][:8], 16) for letter in page["dead_letters"]])
        if page["next"] is None:
            break
        after = f"&after={page['next']}"

    assert found == [[0, 1], [2, 3], [4]] or found == [[0, 1], [2, 3], [4], []]


async def test_a_dead_letter_in_the_list_says_why(world):
    letter = world.bury(1)

    assert (await world.get("/dlq")).json()["dead_letters"] == [
        {"id": letter.id, "queue": "default", "function": "hello", "source": "hello", "received_at": NOW, "dead_at": NOW + 1,
         "condition": "RetriesExhausted", "attempts": 3, "bytes": 7, "error_type": "ValueError", "error_message": "no",
         "state": "dead", "redrives": 0}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("", [1, 2]), ("queue=replay:r", [3]), ("queue=*", [1, 2, 3]), (f"since={NOW + 2}", [2]), (f"until={NOW + 2}", [1]),
     ("source=other", [2]), ("function=nope", []), ("state=redriving", []), ("state=dead", [1, 2]), ('where={"n":[2]}', [2]),
     (f"id={event_id(1)}", [1])],
)  # fmt: skip
async def test_selections(world, query, wanted):
    world.bury(1)
    world.bury(2, source="other")
    world.bury(3, queue="replay:r")

    letters = (await world.get(f"/dlq?{query}")).json()["dead_letters"]

    assert [int(letter["id"][:8], 16) for letter in letters] == wanted


@pytest.mark.parametrize(
    ("query", "names"),
    [("state=gone", "state"), ("limit=0", "limit"), ("after=x", "after"), ("after=1_zz", "after"), ("failed=1", "failed: unknown field"),
     ("id=abcd", "id"), ("where=x", "where"), ("queue=", "queue")],
)  # fmt: skip
async def test_what_is_wrong_is_named(world, query, names):
    answer = await world.get(f"/dlq?{query}")

    assert (answer.status, names in answer.error) == (400, True), answer.body


async def test_show_has_the_event_the_last_answer_and_the_history(world):
    attempt = Attempt(
        position=1, request_id=event_id(1), function="hello", number=3, status=AttemptStatus.DEAD, started_at=NOW
    )
    world.bury(1, response=b'{"errorMessage":"no"}', history=(attempt,))
    world.bury(2, response=b"not json", queue="replay:r")

    first = (await world.get(f"/dlq/{event_id(1)[:8]}")).json()
    second = (await world.get(f"/dlq/{event_id(2)}?queue=*")).json()

    assert first["event"] == {"n": 1}
    assert first["response"] == {"errorMessage": "no"}
    assert first["history"][0]["number"] == 3
    assert second["response"] == {"base64": "bm90IGpzb24="}


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        (event_id(9), 404),
        ("ffff", 404),
        ("0000", 409),
        ("000", 404),
        ("nonsense!", 404),
        (event_id(1) + "?queue=replay:x", 404),
    ],
)
async def test_ids_that_name_no_dead_letter(world, wanted, status):
    world.bury(1)
    world.bury(2)

    answer = await world.get(f"/dlq/{wanted}")

    assert (answer.status, bool(answer.error)) == (status, True)


@pytest.mark.parametrize(
    ("payload", "shown"), [(b'{"n":\xff}', {"base64": "eyJuIjr/fQ=="}), (b"", None), (b'{"n":2}', {"n": 2})]
)
async def test_what_a_disk_made_of_an_event_is_shown_without_breaking_the_answer(world, payload, shown):
    letter = world.bury(1, condition=Condition.RECORD_DAMAGED, payload=payload)

    assert (await world.get(f"/dlq/{letter.id}")).json()["event"] == shown


async def test_purge_counts_first_and_leaves_what_is_being_redriven(world):
    world.bury(1)
    world.bury(2, state="redriving")
    world.bury(3, source="other")

    counted = (await world.post("/dlq/purge", {"selection": {}, "dry_run": True})).json()
    purged = (await world.post("/dlq/purge", {"selection": {"source": "hello"}})).json()

    assert counted == {"count": 2, "dry_run": True}
    assert purged == {"count": 1, "dry_run": False}
    assert [key[1][:8] for key in world.letters.letters] == ["00000002", "00000003"]


async def test_redrive_counts_then_starts_and_is_watched_until_all_is_settled(world):
    for number in (1, 2, 3):
        world.bury(number)
    body = {"selection": {"ids": [event_id(1), event_id(2)]}, "name": "mend"}

    assert (await world.post("/dlq/redrive", body | {"dry_run": True})).json() == {"count": 2}
    started = await world.post("/dlq/redrive", body)
    assert started.status == 201
    assert started.json()["total"] in (2, None)  # None while it counts
    watch = asyncio.create_task(world.get("/redrives/mend/watch"))
    await wait_until(lambda: len(world.parked.entries) == 2)
    assert not watch.done()
    await settle(world, "mend", failed=frozenset({2}))

    last = (await watch).lines()[-1]

    assert last["state"] == "COMPLETED"
    assert last["settled"] == {"open": 0, "failed_again": 1, "succeeded": 1}
    assert world.woken == ["hello", "hello"]
    assert (await world.get("/redrives/mend")).json()["settled"]["succeeded"] == 1
    assert [job["name"] for job in (await world.get("/redrives")).json()["redrives"]] == ["mend"]


async def test_a_fresh_failure_meanwhile_does_not_count_as_failed_again(world):
    world.bury(1)
    await world.post("/dlq/redrive", {"name": "mend"})
    await wait_until(lambda: world.parked.entries)
    world.bury(9, dead_at=world.clock.time())
    await settle(world, "mend")

    last = (await world.get("/redrives/mend/watch")).lines()[-1]

    assert last["settled"] == {"open": 0, "failed_again": 0, "succeeded": 1}


@pytest.mark.parametrize(
    ("body", "names"),
    [({"selection": 1}, "selection: must be an object"), ({"selection": []}, "selection"), ({"selection": {"sorce": "x"}}, "selection.sorce: unknown field"),
     ({"selection": {"ids": "x"}}, "selection.ids"), ({"selection": {"ids": [1]}}, "selection.ids"), ({"selection": {"ids": ["x"]}}, "selection.ids"),
     ({"selection": {"since": True}}, "selection.since"), ({"selection": {"since": 5, "until": 4}}, "selection.since"),
     ({"selection": {"state": "redriving"}}, "selection.state"), ({"rate": 0}, "rate"), ({"rate": -1}, "rate"), ({"rate": 1e9}, "rate"),
     ({"rate": "fast"}, "rate"), ({"rate": True}, "rate"), ({"to": "a b"}, "to"), ({"to": "x" * 65}, "to"), ({"to": 5}, "to"), ({"name": "../x"}, "name"),
     ({"name": "x" * 65}, "name"), ({"dry_run": "yes"}, "dry_run"), ({"dry_run": 1}, "dry_run"), ({"where": "{"}, "where"), ({"extra": 1}, "extra: unknown field")],
)  # fmt: skip
async def test_redrive_refuses_what_it_does_not_understand(world, body, names):
    world.bury(1)

    answer = await world.post("/dlq/redrive", body)

    assert (answer.status, names in answer.error) == (400, True), answer.body
    assert not world.jobs.jobs if hasattr(world.jobs, "jobs") else True
    assert world.letters.letters["default", event_id(1)].state == "dead"


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b"{", b"\xff", b"{}x", b"x" * 1_048_577])
async def test_bodies_that_are_no_object(world, body):
    for path in ("/dlq/redrive", "/dlq/purge", "/replays"):
        answer = await world.post(path, body)

        assert answer.status == (413 if len(body) > 100 else 400)
        assert "body" in answer.error


async def test_redrive_to_a_function_that_is_not_there(world):
    world.bury(1)

    answer = await world.post("/dlq/redrive", {"to": "nope"})

    assert (answer.status, "Function not found" in answer.error) == (404, True)


async def test_a_redrives_name_is_taken_once(world):
    world.bury(1)
    assert (await world.post("/dlq/redrive", {"name": "mend"})).status == 201

    answer = await world.post("/dlq/redrive", {"name": "mend"})

    assert (answer.status, answer.error) == (409, "Redrive mend already exists.")


@pytest.mark.parametrize("path", ["/redrives/nope", "/redrives/nope/watch", "/replays/nope", "/replays/nope/watch"])
async def test_unknown_names(world, path):
    assert (await world.get(path)).error.startswith("no re")
