"""Push sources through the api."""

import asyncio
from base64 import b64encode

import pytest

from bridge.core.errors import StoreFull
from bridge.core.mapping import EventSourceMapping, MappingState
from bridge.core.push import Accepted, Given, NotAccepted
from bridge.core.sources import MappingStatus
from tests.unit.api.harness import NOW


def base64(data):
    return b64encode(data).decode()


@pytest.fixture
def sources(world):
    world.sources.add("hook")
    return world.sources


async def test_the_list_and_one(world, sources):
    mapping = EventSourceMapping(name="clicks", source="hook", function="hello")
    world.mappings.add(
        MappingStatus(mapping=mapping, state=MappingState.ENABLED, reason="", result="OK", modified_at=NOW)
    )
    listed = (await world.get("/sources")).json()["sources"]

    assert [(source["name"], source["mappings"]) for source in listed] == [("hook", ["clicks"])]
    assert (await world.get("/sources/hook")).json() == listed[0]
    assert (await world.get("/sources/nobody")).status == 404


async def test_events_are_given_in_order_with_all_that_they_have(world, sources):
    sources.answers = [Accepted(ids=("a",)), Accepted(ids=("b",), status=200, body=b"\xff", duplicates=1)]
    events = [
        {"data": base64(b"\x00"), "method": "PUT", "query": "a=1", "headers": [["a", "b"]]},
        {"topic": "t", "at": 12.5},
    ]
    answer = await world.post("/sources/hook/events", {"events": events})

    assert answer.json() == {
        "results": [
            {"ids": ["a"], "status": 202},
            {"ids": ["b"], "status": 200, "duplicates": 1, "body": base64(b"\xff")},
        ]
    }
    assert [given for _, given in sources.given] == [
        Given(data=b"\x00", method="PUT", query="a=1", headers=(("a", "b"),)),
        Given(topic="t", at=12.5),
    ]


async def test_the_first_refusal_ends_it(world, sources):
    sources.refusals = [None, NotAccepted("no", status=413)]
    answer = await world.post("/sources/hook/events", {"events": [{}, {}, {}]})

    assert answer.status == 200
    assert answer.json() == {
        "results": [
            {"ids": ["id-1"], "status": 202},
            {"status": 413, "error": "no"},
            {"status": 503, "error": "not begun: one before it was refused"},
        ]
    }
    assert len(sources.given) == 1


async def test_functions_that_are_waited_for_run_one_after_the_other(world, sources):
    world.sources.add("now", invocation_type="RequestResponse")
    running = []
    feed = sources.feed

    async def slow(name, given):
        assert running == []
        running.append(given)
        await asyncio.sleep(0)
        running.remove(given)
        return await feed(name, given)

    sources.feed = slow
    answer = await world.post("/sources/now/events", {"events": [{"topic": str(n)} for n in range(5)]})

    assert [given.topic for _, given in sources.given] == ["0", "1", "2", "3", "4"]
    assert len(answer.json()["results"]) == 5


@pytest.mark.parametrize(
    ("refusal", "status"), [(NotAccepted("no", status=405), 405), (StoreFull("no"), 503), (NotAccepted("no"), 400)]
)
async def test_a_refusal_of_all_is_the_answer(world, sources, refusal, status):
    sources.refusals = [refusal]
    answer = await world.post("/sources/hook/events", {"events": [{}]})

    assert (answer.status, answer.json()) == (status, {"error": "no"})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, 'the body must be {"events": […]}'),
        ({"events": []}, "events: must be 1 to 1000"),
        ({"events": [{}] * 1001}, "events: must be 1 to 1000"),
        ({"events": [1]}, "events[0]: must be an object with at, data, headers, method, query, topic"),
        ({"events": [{}, {"body": ""}]}, "events[1]: must be an object"),
        ({"events": [{"data": "a"}]}, "events[0].data: must be base64"),
        ({"events": [{"data": 1}]}, "events[0].data: must be base64"),
        ({"events": [{"topic": 1}]}, "events[0].topic: must be text"),
        ({"events": [{"at": "now"}]}, "events[0].at: must be epoch seconds"),
        ({"events": [{"at": True}]}, "events[0].at: must be epoch seconds"),
        ({"events": [{"at": -1}]}, "events[0].at: must be epoch seconds"),
        ({"events": [{"headers": {}}]}, "events[0].headers: must be up to 128 pairs"),
        ({"events": [{"headers": [["a"]]}]}, "events[0].headers: must be up to 128 pairs"),
        ({"events": [{"headers": [["a", 1]]}]}, "events[0].headers: must be text"),
        ({"events": [{"headers": [["a", "b"]] * 129}]}, "events[0].headers: must be up to 128 pairs"),
    ],
)
async def test_a_mistake_names_its_place_and_nothing_is_given(world, sources, body, text):
    answer = await world.post("/sources/hook/events", body)

    assert answer.status == 400
    assert text in answer.json()["error"]
    assert sources.given == []


async def test_an_unknown_source(world, sources):
    answer = await world.post("/sources/nobody/events", {"events": [{}]})

    assert (answer.status, answer.json()) == (404, {"error": "no source nobody; known are hook"})
