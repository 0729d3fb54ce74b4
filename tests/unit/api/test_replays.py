"""Replays through the api."""

import asyncio
import json
from urllib.parse import quote

import pytest

from bridge.core.errors import SourceError
from bridge.core.invocation import AttemptStatus
from tests.harness import wait_until
from tests.unit.api.harness import NOW, event_id


async def ended(world, name: str) -> dict:
    return (await world.get(f"/replays/{name}/watch")).lines()[-1]


async def test_dry_run_counts_and_sends_nothing(world):
    world.catalog.add("mirror")
    for number in range(3):
        world.store(number, function="hello" if number else "mirror")

    counted = (await world.post("/replays", {"dry_run": True})).json()

    assert counted == {
        "count": 3,
        "bytes": 21,
        "functions": {"hello": 2, "mirror": 1},
        "sources": {"hello": 3},
        "damaged": 0,
    }
    assert world.runtime.invocations == []
    assert (await world.get("/replays")).json() == {"replays": []}


async def test_a_replay_runs_to_its_end(world):
    for number in range(3):
        world.store(number)
    world.runtime.handlers["hello"] = lambda invocation: 1 / json.loads(invocation.payload)["n"]

    started = await world.post(
        "/replays", {"name": "again", "selection": {"source": "hello"}, "limit": 2, "rate": 1000, "concurrency": 2}
    )
    last = await ended(world, "again")

    assert (started.status, started.json()["name"]) == (201, "again")
    assert (last["state"], last["total"], last["done"], last["failed"]) == ("COMPLETED", 2, 1, 1)
    assert (await world.get("/replays/again")).json() == last
    assert last["spec"]["limit"] == 2
    assert [letter["id"] for letter in (await world.get("/dlq?queue=replay:again")).json()["dead_letters"]] == [
        event_id(0)
    ]


@pytest.mark.parametrize(
    ("body", "count"),
    [({"selection": {"since": NOW + 2}}, 2), ({"selection": {"until": NOW + 1}}, 1), ({"selection": {"ids": [event_id(2)]}}, 1),
     ({"selection": {"function": "nope"}}, 0), ({"failed": True}, 1), ({"where": '{"n":[1,2]}'}, 2), ({"limit": 3}, 3), ({"ordered": False}, 4),
     ({"to": "hello:$LATEST"}, 4)],
)  # fmt: skip
async def test_selections(world, body, count):
    for number in range(4):
        record = world.store(number)
        world.attempt(record, AttemptStatus.DEAD if number == 2 else AttemptStatus.OK)

    assert (await world.post("/replays", body | {"dry_run": True})).json()["count"] == count


async def test_pause_resume_cancel(world):
    for number in range(50):
        world.store(number)
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(_version, invocation):
        begun.set()
        await release.wait()
        return await invoke(_version, invocation)

    invoke, world.runtime.invoke = world.runtime.invoke, slow
    await world.post("/replays", {"name": "long"})
    await begun.wait()
    pausing = asyncio.create_task(world.post("/replays/long/pause"))
    await wait_until(lambda: world.is_stopping("long"))
    release.set()

    assert (await pausing).json()["state"] == "PAUSED"
    assert (await ended(world, "long"))["state"] == "PAUSED"
    await wait_until(lambda: "long" not in world.replays._runs)
    assert (await world.post("/replays/long/pause")).status == 409
    release.clear()
    begun.clear()
    assert (await world.post("/replays/long/resume")).json()["state"] == "RUNNING"
    await begun.wait()
    cancelling = asyncio.create_task(world.post("/replays/long/cancel"))
    await wait_until(lambda: world.is_stopping("long"))
    release.set()
    assert (await cancelling).json()["state"] == "CANCELLED"
    again = await world.post("/replays/long/resume")
    assert (again.status, "only a paused one" in again.error) == (409, True)


@pytest.mark.parametrize(
    ("action", "status"), [("pause", 404), ("resume", 404), ("cancel", 404), ("delete", 404), ("Pause", 404)]
)
async def test_actions_on_what_is_not_there(world, action, status):
    assert (await world.post(f"/replays/nope/{action}")).status == status


async def test_actions_take_no_fields(world):
    assert "unknown field" in (await world.post("/replays/nope/pause", {"now": True})).error


@pytest.mark.parametrize(
    ("body", "names"),
    [({"rate": 0}, "rate"), ({"rate": -1}, "rate"), ({"rate": 10**9}, "rate"), ({"concurrency": 0}, "concurrency"), ({"concurrency": 1001}, "concurrency"),
     ({"concurrency": 1.5}, "concurrency"), ({"concurrency": True}, "concurrency"), ({"limit": 0}, "limit"), ({"limit": "all"}, "limit"),
     ({"selection": {"since": 9, "until": 3}}, "selection.since"), ({"selection": {"since": "yesterday"}}, "selection.since"),
     ({"selection": {"since": "2026-01-01T00:00:00+25:00"}}, "selection.since"), ({"selection": {"queue": "x"}}, "selection.queue"),
     ({"selection": {"ids": [event_id(1)[:8]]}}, "selection.ids"), ({"selection": {"ids": ["x"] * 10_001}}, "more than 10000"),
     ({"ordered": "yes"}, "ordered"), ({"failed": 0}, "failed"), ({"where": 5}, "where"), ({"where": '{"n": 5}'}, "where"),
     ({"where": json.dumps({"n": ["x" * 5000]})}, "where"), ({"to": "hello:"}, "to"), ({"name": ""}, "name"), ({"dryrun": True}, "did you mean dry_run")],
)  # fmt: skip
async def test_what_is_wrong_is_named(world, body, names):
    world.store(1)

    answer = await world.post("/replays", body)

    assert (answer.status, names in answer.error) == (400, True), answer.body
    assert (await world.get("/replays")).json() == {"replays": []}


async def test_to_a_function_that_is_not_there(world):
    world.store(1)
    for dry_run in (True, False):
        answer = await world.post("/replays", {"to": "nope", "dry_run": dry_run})
        assert answer.status == 404


async def test_names_are_taken_once_and_running_ones_are_bounded(world, monkeypatch):
    monkeypatch.setattr("bridge.core.limits.REPLAYS_ACTIVE_MAX", 2)
    world.store(1)
    release = asyncio.Event()
    invoke = world.runtime.invoke

    async def slow(version, invocation):
        await release.wait()
        return await invoke(version, invocation)

    world.runtime.invoke = slow
    assert (await world.post("/replays", {"name": "a"})).status == 201

    again = await world.post("/replays", {"name": "a"})
    assert (again.status, again.error) == (409, "Replay a already exists.")
    assert (await world.post("/replays", {"name": "b"})).status == 201
    many = await world.post("/replays", {"name": "c"})
    assert (many.status, many.headers["retry-after"]) == (429, "5")

    release.set()
    assert (await ended(world, "a"))["state"] == (await ended(world, "b"))["state"] == "COMPLETED"


# --- of a mapping's stream --------------------------------------------------------------------------------------------
@pytest.fixture
def orders(world):
    stream = world.stream("orders", "orders-0", "orders-1")
    stream.put(*({"n": n} for n in range(6)), shard="orders-0", key=b"a", time=NOW)
    stream.put({"n": 10}, {"n": 11}, shard="orders-1", key=b"b", time=NOW + 60)
    return stream


async def test_a_stream_is_counted_by_shard_and_replayed(world, orders):
    body = {"selection": {"mapping": "orders", "first": {"orders-0": 2, "orders-1": "0"}}}

    counted = (await world.post("/replays", body | {"dry_run": True})).json()
    started = await world.post("/replays", body | {"name": "again"})

    assert (counted["count"], counted["shards"]) == (6, {"orders-0": 4, "orders-1": 2})
    assert (counted["gone"], counted["upper_bound"], counted["functions"]) == (0, False, {"hello": 6})
    assert started.status == 201
    last = await ended(world, "again")
    assert (last["state"], last["total"], last["done"]) == ("COMPLETED", 6, 6)
    assert last["spec"]["first"] == {"orders-0": "2", "orders-1": "0"}
    assert orders.commits == []


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", [0, 1, 2, 3, 4, 5, 10, 11]),
        ("limit=2", [0, 1]),
        ("shards=orders-1", [10, 11]),
        ("first=orders-0:4,orders-1:1", [4, 5, 11]),
        ("first=orders-0:4&last=orders-0:4", [4]),
        ("key=b", [10, 11]),
        (f"since={NOW + 1}", [10, 11]),
        (f"until={NOW + 1}&shards=orders-0,orders-1", [0, 1, 2, 3, 4, 5]),
        ("where=" + quote('{"body":{"n":[5,10]}}'), [5, 10]),
    ],
)
async def test_the_records_of_a_stream_as_lines(world, orders, query, values):
    lines = (await world.get(f"/mappings/orders/records?{query}")).lines()

    assert [line["record"]["value"]["n"] for line in lines] == values
    assert set(lines[0]) == {"shard", "position", "time", "record"}


@pytest.mark.parametrize(
    ("selection", "status", "why"),
    [
        ({"mapping": "nope"}, 404, "nope"),
        ({"mapping": "orders", "shards": ["orders-9"]}, 400, "orders-9"),
        ({"mapping": "orders", "first": {"orders-0": -1}}, 400, "selection.first"),
        ({"mapping": "orders", "last": ["orders-0"]}, 400, "selection.last"),
        ({"mapping": "orders", "shards": [1]}, 400, "selection.shards"),
        ({"mapping": "orders", "source": "hello"}, 400, "source"),
        ({"key": "a"}, 400, "key"),
    ],
)
async def test_a_wrong_part_of_a_stream_is_refused(world, orders, selection, status, why):
    for dry_run in (True, False):
        answer = await world.post("/replays", {"selection": selection, "dry_run": dry_run})
        assert (answer.status, why in answer.error) == (status, True), answer.error


async def test_a_stream_that_cannot_be_reached_is_503(world, orders):
    orders.range_fails_with = SourceError("no broker answers")

    assert (await world.post("/replays", {"selection": {"mapping": "orders"}})).status == 503
    assert (await world.get("/mappings/orders/records")).error == "no broker answers"
