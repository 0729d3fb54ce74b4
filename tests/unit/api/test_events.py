"""Stored events through the api: list, show, tail, export."""

import asyncio
import json

import pytest

from bridge.core.invocation import AttemptStatus, InvocationType
from bridge.core.record import Parked
from bridge.core.sources import RecordReader
from tests.unit.api.harness import NOW, event_id


async def pages(world, query: str) -> list[list[str]]:
    found, after = [], ""
    while True:
        page = (await world.get(f"/events?{query}{after}")).json()
        found.append([int(event["id"][:8], 16) for event in page["events"]])
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


async def test_list_is_newest_first_in_pages_that_lose_and_repeat_nothing(world):
    for number in range(7):
        world.store(number, received_at=NOW + number // 3)  # several in the same millisecond

    assert await pages(world, "limit=3") == [[6, 5, 4], [3, 2, 1], [0]]
    assert await pages(world, f"limit=2&until={NOW + 2}") == [[5, 4], [3, 2], [1, 0]]
    assert await pages(world, "limit=100") == [[6, 5, 4, 3, 2, 1, 0]]


async def test_an_event_in_the_list_says_its_state(world):
    first, second = world.store(1), world.store(2, source="other")
    world.attempt(first, AttemptStatus.FAILED, error_type="ValueError", error_message="no")
    world.attempt(first, AttemptStatus.OK, 2, duration_ms=7)

    events = (await world.get("/events")).json()["events"]

    assert events[0]["state"] == "waiting"
    assert events[0]["source"] == second.source
    assert events[1] == {
        "id": first.id, "received_at": first.received_at, "source": "hello", "function": "hello", "invocation_type": "Event",
        "bytes": 7, "state": "succeeded", "attempts": 2, "duration_ms": 7, "error_type": "", "error_message": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("source=a", [0, 2]), ("function=hello", [0, 1, 2, 3]), ("function=f2", []), (f"since={NOW + 2}", [2, 3]),
     (f"until={NOW + 1}", [0]), (f"id={event_id(1)}&id={event_id(3)}", [1, 3]), (f"id={event_id(1).upper()}", [1]),
     ('where={"n":[2]}', [2]), ('where={"n":[2,3]}&source=a', [2]), ("failed=true", [1]), ("failed=false", [0, 1, 2, 3]),
     ("since=2026-01-01T00:00:03Z", [3])],
)  # fmt: skip
async def test_selections(world, query, wanted):
    for number in range(4):
        record = world.store(number, source="ab"[number % 2])
        world.attempt(record, AttemptStatus.DEAD if number in (1, 3) else AttemptStatus.OK)
        if number == 3:
            world.attempt(record, AttemptStatus.REPLAYED_OK, replay="mend")

    (found,) = await pages(world, query)

    assert sorted(found) == wanted


@pytest.mark.parametrize(
    ("query", "names"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=1.5", "limit"), ("limit=", "limit"),
     ("since=yesterday", "since"), ("since=-1", "since"), ("since=1e400", "since"), ("since=nan", "since"),
     ("since=2026-01-01T00:00:00", "since"), ("since=5&until=5", "since"), ("until=99999999999999", "until"),
     ("failed=maybe", "failed"), ("where={", "where"), ("where=[]", "where"), ("where={}", "where"),
     ("source=", "source"), ("id=abc", "id"), ("after=abc", "after"), ("sorce=x", "sorce: unknown field; did you mean source?"),
     ("limit=1&limit=2", "limit: given twice"), ("x%00=1", "unknown field"), ("q=%ff", "not UTF-8"),
     ("&".join(f"a{i}=1" for i in range(300)), "more than 256")],
)  # fmt: skip
async def test_what_is_wrong_is_named(world, query, names):
    answer = await world.get(f"/events?{query}")

    assert answer.status == 400
    assert names in answer.error
    assert (await world.get("/events")).status == 200


async def test_show_has_everything(world):
    record = world.store(
        1, payload=b'{\n  "price": 1.10,\r\n "big": 123456789012345678901234567890}', client_context=b'{"a":1}'
    )
    world.attempt(
        record, AttemptStatus.FAILED, error_type="ValueError", error_message="no \ud800", log_tail=b"START\nhi\xff\n"
    )
    world.parked.entries["default", record.id] = Parked(
        record=record, attempts=1, due_at=NOW + 60, delay_s=60.0, error_type="ValueError"
    )
    world.bury(1)

    for wanted in (record.id, record.id.upper(), record.id[:8], record.id[:4]):
        answer = await world.get(f"/events/{wanted}")
        assert answer.status == 200, answer.body
    assert b'"price": 1.10,' in answer.body  # digits as they came
    event = answer.json()

    assert event["id"] == record.id
    assert event["event"] == {"price": 1.1, "big": 123456789012345678901234567890}
    assert event["client_context"] == {"a": 1}
    assert event["state"] == "retrying"
    assert event["waits_for"] == "a free slot of hello"
    assert event["parked"]["due_at"] == NOW + 60
    assert event["dead_letter"]["condition"] == "RetriesExhausted"
    (attempt,) = event["history"]
    assert (attempt["number"], attempt["status"], attempt["error_message"]) == (1, "failed", "no ?")
    assert attempt["log_tail"] == "START\nhi\ufffd\n"


async def test_a_settled_event_waits_for_nothing(world):
    record = world.store(1)
    world.attempt(record, AttemptStatus.OK)

    assert (await world.get(f"/events/{record.id}")).json()["waits_for"] == ""


@pytest.mark.parametrize(
    ("wanted", "status", "text"),
    [(event_id(9), 404, "never stored here"), ("zzzz", 404, "hexadecimal"), ("00", 400, "at least 4"), ("ffff", 404, "among the last 3"),
     ("0000", 409, "begins more than one"), ("0" * 200, 404, "hexadecimal"), ("%0a%0d", 404, "hexadecimal"), ("..", 404, "hexadecimal")],
)  # fmt: skip
async def test_ids_that_name_no_event(world, wanted, status, text):
    for number in (1, 2, 3):
        world.store(number)

    answer = await world.get(f"/events/{wanted}")

    assert (answer.status, text in answer.error) == (status, True), answer.body


async def test_synchronous_events_are_answered_or_failed(world):
    world.store(1, invocation_type=InvocationType.REQUEST_RESPONSE)
    failed = world.store(2, invocation_type=InvocationType.REQUEST_RESPONSE)
    world.attempt(failed, AttemptStatus.ERROR)

    assert [event["state"] for event in (await world.get("/events")).json()["events"]] == ["failed", "answered"]


@pytest.mark.parametrize(
    ("statuses", "state"),
    [([], "waiting"), (["failed"], "retrying"), (["unknown"], "retrying"), (["failed", "started"], "running"),
     (["failed", "failed", "dead"], "dead"), (["dead", "replayed_failed"], "dead"), (["dead", "replayed_ok"], "succeeded"),
     (["ok", "replayed_failed"], "succeeded"), (["dead", "ok"], "succeeded")],
)  # fmt: skip
async def test_states(world, statuses, state):
    record = world.store(1)
    for number, status in enumerate(statuses, 1):
        world.attempt(record, AttemptStatus(status), number)

    assert (await world.get("/events")).json()["events"][0]["state"] == state


def reader(name: str, *, is_finished: bool) -> RecordReader:
    return RecordReader(mapping=name, shard="shardId-000000000001", is_finished=is_finished)


@pytest.mark.parametrize(
    ("readers", "state", "waits_for"),
    [
        ([], "stored", ""),
        ([("a", True), ("b", True)], "settled", ""),
        ([("a", True), ("b", False)], "waiting", "mapping b (shardId-000000000001); `bridge mappings show` says why"),
    ],
)
async def test_what_only_mappings_read_waits_for_all_of_them(world, readers, state, waits_for):
    record = world.store(1, function="")
    world.readers = [reader(name, is_finished=is_finished) for name, is_finished in readers]

    event = (await world.get(f"/events/{record.id}")).json()

    assert (state, waits_for) == (event["state"], event["waits_for"])
    assert [(each["mapping"], each["finished"]) for each in event["read_by"]] == readers


async def test_what_a_mapping_copied_is_archived(world):
    world.store(1, source="mapping:orders", invocation_type=InvocationType.REQUEST_RESPONSE)

    assert (await world.get("/events")).json()["events"][0]["state"] == "archived"


async def test_tail_tells_new_events_and_their_attempts(world):
    world.store(1)
    stream = asyncio.create_task(world.get("/events/tail", until=4))
    await world.polled()
    second = world.store(2)
    await world.polled()
    world.attempt(second, AttemptStatus.FAILED)
    await world.polled()
    world.attempt(second, AttemptStatus.OK, 2)
    world.store(3)

    lines = (await stream).lines()

    assert sorted((line["type"], line["id"][:8], line.get("number")) for line in lines) == sorted(
        [("event", "00000002", None), ("attempt", "00000002", 1), ("attempt", "00000002", 2), ("event", "00000003", None)],
        key=lambda row: row[:2],
    )  # fmt: skip


async def test_tail_of_failures_tells_failed_attempts_only(world):
    stream = asyncio.create_task(world.get("/events/tail?failed=true", until=1))
    await world.polled()
    world.attempt(world.store(1), AttemptStatus.OK)
    world.attempt(world.store(2), AttemptStatus.DEAD)

    assert [(line["id"][:8], line["status"]) for line in (await stream).lines()] == [("00000002", "dead")]


async def test_tail_may_select(world):
    stream = asyncio.create_task(world.get('/events/tail?source=b&where={"n":[3]}', until=1))
    await world.polled()
    for number, source in ((1, "a"), (2, "b"), (3, "b")):
        world.store(number, source=source)

    assert [line["id"][:8] for line in (await stream).lines()] == ["00000003"]


async def test_tail_of_what_seldom_comes_looks_at_each_event_once(world):
    asked, scan = [], world.journal.scan

    def counted(*args, after, **options):
        asked.append(after)
        return scan(*args, after=after, **options)

    world.journal.scan = counted
    stream = asyncio.create_task(world.get("/events/tail?source=seldom", until=1))
    await world.polled()
    others = [world.store(number) for number in range(5)]
    await world.polled()
    world.store(9, source="seldom")

    assert [line["id"][:8] for line in (await stream).lines()] == ["00000009"]
    assert asked[-1] >= others[-1].position


async def test_export_writes_whole_events_one_a_line_oldest_first(world):
    for number in range(3):
        world.store(number, payload=b'{"n":\n1.10}')

    answer = await world.get("/events/export?limit=2")

    assert answer.headers["content-type"] == "application/x-ndjson"
    first, second = answer.lines()
    assert (first["id"], second["id"]) == (event_id(0), event_id(1))
    assert answer.body.splitlines()[0].endswith(b'"event":{"n": 1.10}}')


async def test_streams_end_with_a_word_when_the_api_closes(world):
    stream = asyncio.create_task(world.get("/events/tail"))
    await world.polled()
    world.app.close()

    assert (await stream).lines() == [{"error": "bridge is stopping"}]


async def test_an_idle_stream_sends_empty_lines(world):
    world.app._heartbeat_s = 0.005

    answer = await world.get("/events/tail", until=3)

    assert answer.body == b"\n\n\n"


async def test_a_stream_that_breaks_says_so_in_its_last_line(world):
    def broken(*_args, **_options):
        raise RuntimeError("disk")

    world.store(1)
    world.journal.scan = broken

    stream = asyncio.create_task(world.get("/events/export"))
    with pytest.raises(RuntimeError):
        await stream


async def test_streams_are_bounded(world, monkeypatch):
    monkeypatch.setattr("bridge.api.app.STREAMS_MAX", 1)
    stream = asyncio.create_task(world.get("/events/tail"))
    await world.polled()

    answer = await world.get("/events/tail")

    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    world.app.close()
    await stream


async def test_the_page_ends_where_looking_was_too_long(world, monkeypatch):
    monkeypatch.setattr("bridge.api.events._SCANNED_MAX", 2)
    for number in range(5):
        world.store(number)

    assert await pages(world, 'where={"n":[0]}') == [[], [], [0]]


async def test_prefixes_are_searched_only_so_far(world, monkeypatch):
    monkeypatch.setattr("bridge.api.events._PREFIX_SCANNED_MAX", 1)
    world.store(1)
    for number in range(600):
        world.store(0x1000 + number)

    assert (await world.get("/events/00000001")).status == 404
    assert json.loads((await world.get(f"/events/{event_id(1)}")).body)["id"] == event_id(1)


async def test_an_event_that_only_mappings_read_is_stored_and_waits_for_no_function(world):
    world.store(1, source="sensors", function="")

    (event,) = (await world.get("/events")).json()["events"]

    assert (event["source"], event["function"], event["state"]) == ("sensors", "", "stored")
