"""`bridge events`."""

import json

import pytest

from bridge.core.invocation import AttemptStatus
from bridge.core.record import Parked
from tests.harness import wait_for
from tests.unit.api.harness import NOW, event_id


def test_list_is_a_table_newest_first(bridge, served):
    record = served.world.store(1)
    served.world.attempt(record, AttemptStatus.FAILED, error_type="ValueError", error_message="no\nluck \x1b[2J")
    served.world.store(2, source="other")

    found = bridge("events", "list")

    head, newest, oldest = found.out.splitlines()
    assert head.split() == ["ID", "RECEIVED", "SOURCE", "FUNCTION", "STATE", "TRIES", "TOOK", "ERROR"]
    assert newest.split()[0] == "00000002"
    assert oldest.endswith("retrying      1  1.5 ms  ValueError: no\\nluck \\x1b[2J")
    assert "\x1b" not in found.out
    assert not any(line.endswith(" ") for line in found.out.splitlines())


def test_list_takes_as_many_pages_as_the_limit_needs(bridge, served, monkeypatch):
    monkeypatch.setattr("bridge.cli.events._PAGE_MAX", 3)
    for number in range(8):
        served.world.store(number)

    found = bridge("events", "list", "--limit", "7", "--json")

    assert [json.loads(line)["id"] for line in found.out.splitlines()] == [event_id(n) for n in range(7, 0, -1)]


def test_list_selects(bridge, served):
    for number in range(4):
        record = served.world.store(number, source="ab"[number % 2])
        served.world.attempt(record, AttemptStatus.DEAD if number == 1 else AttemptStatus.OK)

    def ids(*args: str) -> list[int]:
        found = bridge("events", "list", "--json", *args)
        assert found.code == 0, found.err
        return [int(json.loads(line)["id"][:8], 16) for line in found.out.splitlines()]

    assert ids("--source", "a") == [2, 0]
    assert ids("--failed") == [1]
    assert ids("--where", '{"n":[3]}') == [3]
    assert ids("--id", event_id(1), "--id", event_id(2)) == [2, 1]
    assert ids("--since", "2026-01-01T00:00:02Z") == [3, 2]
    assert ids("--until", "2026-01-01T00:00:01Z") == [0]
    assert ids("--function", "nope") == []


def test_nothing_to_list_is_said_on_standard_error(bridge):
    found = bridge("events", "list")
    assert (found.code, found.out, found.err) == (0, "", "no events yet\n")
    assert bridge("events", "list", "--failed").err == "no events match\n"
    assert bridge("events", "list", "--json").out == ""


@pytest.mark.parametrize(
    ("args", "names"),
    [(["--since", "soon"], "known forms"), (["--since", "2h", "--until", "3h"], "must be before --until"), (["--limit", "0"], "--limit"),
     (["--since", "2999-01-01"], "lies in the future"), (["--where", "{"], "where"), (["--id", "abc"], "whole ids"), (["--nope"], "No such option"),
     (["extra"], "unexpected extra argument")],
)  # fmt: skip
def test_usage_mistakes_are_2(bridge, args, names):
    found = bridge("events", "list", *args)

    assert (found.code, names in found.err) == (2, True), found.err


def test_show_says_what_it_waits_for_and_every_attempt(bridge, served):
    world = served.world
    record = world.store(1, payload=b'{"text":"\\u001b[2J \xc3\xbc"}')
    world.attempt(
        record, AttemptStatus.FAILED, error_type="ValueError", error_message="no", log_tail=b"START x\n\x1b[2Jhi\n"
    )
    world.parked.entries["default", record.id] = Parked(record=record, attempts=1, due_at=NOW, delay_s=1.0)
    world.bury(1)

    found = bridge("events", "show", "00000001")

    lines = found.out.splitlines()
    assert lines[0] == f"id         {record.id}"
    assert "state      retrying" in lines
    assert "waits for  a free slot of hello" in lines
    assert any(line.startswith("  1  failed  ") and line.endswith("1.5 ms  version $LATEST") for line in lines)
    assert "     ValueError: no" in lines
    assert "     | \\x1b[2Jhi" in lines
    assert f"send it again: bridge dlq redrive --id {record.id}" in lines
    assert '    "text": "\\u001b[2J \u00fc"' in lines
    assert "\x1b" not in found.out


def test_show_json_is_the_apis_document(bridge, served):
    record = served.world.store(1)

    assert json.loads(bridge("events", "show", record.id, "--json").out)["event"] == {"n": 1}


@pytest.mark.parametrize(
    ("wanted", "code"), [(event_id(9), 1), ("zz", 1), ("00", 2), ("../dlq", 1), ("a/b", 1), ("", 1), ("\n", 1)]
)
def test_ids_that_name_nothing(bridge, wanted, code):
    found = bridge("events", "show", wanted)

    assert (found.code, found.err.startswith("bridge: ")) == (code, True)
    assert ("\n  what there is: bridge events list\n" in found.err) == (code == 1), found.err


def test_tail_follows(bridge, served):
    import threading

    def follows() -> None:
        clock = served.world.clock
        wait_for(lambda through=clock.sleeps + 2: clock.sleeps >= through, description="it has looked again")

    def feed() -> None:
        follows()
        record = served.world.store(1)
        served.world.attempt(record, AttemptStatus.FAILED, error_type="ValueError", error_message="no")
        follows()
        served.soon(served.world.app.close)

    thread = threading.Thread(target=feed)
    thread.start()
    found = bridge("events", "tail")
    thread.join()

    first, second = found.out.splitlines()
    assert first.endswith("00000001  received         hello -> hello  7 B")
    assert second.endswith("00000001  failed           hello  attempt 1  1.5 ms  ValueError: no")
    assert (found.code, found.err) == (1, "bridge: bridge is stopping\n")


def test_tail_ends_quietly_at_ctrl_c(bridge, monkeypatch):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("bridge.cli.client.Client._split", interrupted)

    for verb in (["events", "tail"], ["events", "tail", "--json"], ["logs", "hello", "-f"]):
        found = bridge(*verb)
        assert (found.code, found.out, found.err) == (0, "", "")


def test_times_are_local(bridge, served, monkeypatch):
    import time

    served.world.store(0)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert "2026-01-01 09:00:00" in bridge("events", "list").out
    finally:
        monkeypatch.undo()
        time.tzset()
