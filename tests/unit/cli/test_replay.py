"""`bridge replay` and `bridge replays`."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from tests.harness import wait_for
from tests.unit.api.harness import NOW, TOKEN, event_id


@pytest.fixture
def stored(served):
    for number in range(4):
        served.world.store(number, source="ab"[number % 2])
    return served.world


def sent(world) -> list[str]:
    return sorted(world.runtime.asked())


def test_dry_run_states_the_count_and_sends_nothing(bridge, stored):
    assert bridge("replay", "--dry-run").out == "4 events: hello 4; nothing was sent\n"
    assert (
        bridge("replay", "--dry-run", "--source", "a", "--to", "hello:$LATEST").out
        == "2 events to hello:$LATEST; nothing was sent\n"
    )
    assert json.loads(bridge("replay", "--dry-run", "--json").out)["functions"] == {"hello": 4}
    assert bridge("replay", "--dry-run", "--limit", "1").out.startswith("1 event: ")
    assert sent(stored) == []


def test_without_yes_and_without_a_terminal_nothing_is_sent(bridge, stored):
    found = bridge("replay", stdin="y\n")

    assert (found.code, found.out) == (2, "")
    assert found.err == "bridge: Replay 4 events: hello 4? Nobody is here to ask: say --yes\n"
    assert sent(stored) == []


def test_yes_replays_and_sums_up(bridge, stored):
    found = bridge("replay", "--yes", "--name", "again", "--rate", "1000", "--concurrency", "5", "--no-order")

    assert (found.code, found.out) == (0, "4 replayed: 4 succeeded, 0 failed\n")
    assert sent(stored) == [event_id(n) for n in range(4)]
    assert bridge("replays", "list").out.splitlines()[1].split()[:3] == ["again", "COMPLETED", "4/4"]
    shown = bridge("replays", "show", "again").out
    assert re.search(r"^result +4 replayed: 4 succeeded, 0 failed$", shown, re.MULTILINE)
    assert "asked for" in shown
    assert [json.loads(line)["name"] for line in bridge("replays", "list", "--json").out.splitlines()] == ["again"]
    assert json.loads(bridge("replays", "show", "again", "--json").out)["state"] == "COMPLETED"


def test_failures_make_it_1_and_say_where_they_are(bridge, stored):
    stored.runtime.handlers["hello"] = lambda invocation: 1 / json.loads(invocation.payload)["n"]

    found = bridge("replay", "--yes", "--name", "again", "--id", event_id(0), "--id", event_id(1))

    assert (found.code, found.out) == (1, "2 replayed: 1 succeeded, 1 failed\n")
    assert "bridge dlq list --queue replay:again" in found.err
    assert bridge("dlq", "list", "--queue", "replay:again").out.splitlines()[1].startswith("00000000 ")
    assert bridge("replay", "--yes", "--json", "--id", event_id(0)).code == 1


@pytest.mark.parametrize(
    ("args", "count"),
    [(["--since", "2026-01-01T00:00:02Z"], 2), (["--until", "2026-01-01T00:00:01Z"], 1), (["--source", "a"], 2), (["--function", "nope"], 0),
     (["--failed"], 0), (["--where", '{"n":[1,2]}'], 2), (["--limit", "3"], 3)],
)  # fmt: skip
def test_selections(bridge, stored, args, count):
    assert json.loads(bridge("replay", "--dry-run", "--json", *args).out)["count"] == count


def test_nothing_to_replay_is_no_failure(bridge, stored):
    found = bridge("replay", "--yes", "--source", "nope")

    assert (found.code, found.err) == (0, "no events match; nothing to replay\n")


@pytest.mark.parametrize(
    ("args", "names"),
    [(["--since", "1h", "--until", "2h"], "--since"), (["--since", "2026-01-01T00:00 Mars/Base"], "known forms"), (["--rate", "0"], "--rate"),
     (["--rate", "-1"], "--rate"), (["--rate", "1000000000"], "--rate"), (["--rate", "nan"], "rate"), (["--concurrency", "0"], "--concurrency"),
     (["--limit", "0"], "--limit"), (["--where", "{"], "where"), (["--name", "a b"], "name"), (["--id", "123"], "selection.ids"),
     (["--to", "./x", "--rate", "5"], "--rate says how functions are invoked"), (["--to", "-", "--name", "x"], "--name")],
)  # fmt: skip
def test_usage_mistakes_are_2_and_send_nothing(bridge, stored, args, names):
    found = bridge("replay", "--yes", *args)

    assert (found.code, names in found.err) == (2, True), found.err
    assert sent(stored) == []


def test_a_target_that_is_not_there_is_1(bridge, stored):
    found = bridge("replay", "--yes", "--to", "nope")

    assert (found.code, "Function not found" in found.err) == (1, True)


# --- to a file ------------------------------------------------------------------------------------


def test_to_standard_output_is_ndjson_with_the_events_as_they_are(bridge, served):
    served.world.store(1, payload=b'{"price": 1.10}')

    found = bridge("replay", "--to", "-")

    assert (found.code, found.err) == (0, "")
    assert found.out.endswith('"event":{"price": 1.10}}\n')
    assert json.loads(found.out)["received_at"] == NOW + 1


def test_to_a_file_is_whole_or_not_there(bridge, stored, tmp_path, monkeypatch):
    found = bridge("replay", "--to", "./events.ndjson", "--source", "a")
    assert (found.code, found.out) == (0, "2 events written to ./events.ndjson\n")
    assert [json.loads(line)["id"] for line in (tmp_path / "events.ndjson").open()] == [event_id(0), event_id(2)]

    again = bridge("replay", "--to", "./events.ndjson")
    assert (again.code, "is there already" in again.err) == (2, True)
    assert bridge("replay", "--to", "./events.ndjson", "--yes").out == "4 events written to ./events.ndjson\n"

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = bridge("replay", "--to", "other.ndjson")
    assert (found.code, found.err) == (1, "bridge: other.ndjson: No space left on device; nothing was kept\n")
    assert sorted(path.name for path in tmp_path.glob("*.ndjson*")) == ["events.ndjson"]


@pytest.mark.parametrize("to", ["no/such/folder/x.ndjson", "./state"])
def test_to_a_place_that_cannot_be_written(bridge, stored, to):
    assert bridge("replay", "--to", to, "--yes").code == 1


def test_an_export_that_breaks_off_leaves_nothing_and_is_1(bridge, stored, tmp_path):
    scan = stored.journal.scan

    async def breaks(*args, **options):
        async for records in scan(*args, **options):
            yield records
            raise RuntimeError("disk")

    stored.journal.scan = breaks
    found = bridge("replay", "--to", "events.ndjson")

    assert (found.code, found.err) == (1, "bridge: the stream broke off; the log says why\n")
    assert not list(tmp_path.glob("*.ndjson*"))


# --- replays --------------------------------------------------------------------------------------


@pytest.fixture
def held(served):
    """A replay whose function answers only when the event is set: `held.set()`."""
    for number in range(30):
        served.world.store(number)
    release = asyncio.Event()
    invoke = served.world.runtime.invoke

    async def slow(version, invocation):
        await release.wait()
        return await invoke(version, invocation)

    served.world.runtime.invoke = slow
    served.call(served.world.post("/replays", {"name": "long"}))
    yield release
    served.soon(release.set)


def test_pause_resume_and_cancel(bridge, served, held):
    served.loop.call_soon_threadsafe(lambda: served.loop.call_later(0.05, held.set))
    paused = bridge("replays", "pause", "long")
    assert re.fullmatch(r"long: PAUSED, \d+ of 30 done\n", paused.out)
    wait_for(lambda: "long" not in served.world.replays._runs, description="what was in flight has ended")
    assert bridge("replays", "pause", "long").code == 1

    resumed = bridge("replays", "resume", "long")
    assert (resumed.code, resumed.out) == (0, "30 replayed: 30 succeeded, 0 failed\n"), resumed.err

    found = bridge("replays", "cancel", "long")
    assert (found.code, "COMPLETED" in found.err) == (1, True)


@pytest.mark.parametrize("verb", ["show", "pause", "resume", "cancel"])
def test_unknown_replays_are_1(bridge, verb):
    found = bridge("replays", verb, "nope")

    assert (found.code, "nope" in found.err) == (1, True)


def test_no_replays(bridge):
    assert bridge("replays", "list").err == "no replays yet\n"


def test_a_daemon_that_stops_leaves_the_replay_to_its_next_start(bridge, served, held):
    served.loop.call_soon_threadsafe(lambda: served.loop.call_later(0.1, served.world.app.close))
    found = bridge("replays", "resume", "long")
    assert found.code == 1  # it is not paused

    found = bridge("replay", "--yes", "--name", "second", "--limit", "1")
    assert (found.code, "second goes on when the daemon runs again" in found.err) == (1, True), found.err


@pytest.mark.slow
def test_ctrl_c_pauses_and_prints_how_to_go_on(served, held):
    env = os.environ | {"BRIDGE_URL": served.url, "BRIDGE_TOKEN": TOKEN}
    args = [sys.executable, "-m", "bridge", "replay", "--yes", "--name", "mine"]
    with subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "replay mine; Ctrl-C pauses it\n"
        process.send_signal(signal.SIGINT)
        served.loop.call_soon_threadsafe(lambda: served.loop.call_later(0.3, held.set))
        out, err = process.communicate(timeout=10)

    assert process.returncode == 1
    assert re.fullmatch(r"mine is paused after \d+ of 30\n", out)
    assert err.endswith("go on with: bridge replays resume mine\n")
    assert served.call(served.world.get("/replays/mine")).json()["state"] == "PAUSED"


@pytest.mark.slow
def test_on_a_terminal_it_asks_and_shows_a_bar(served):
    for number in range(30):
        served.world.store(number)
    env = os.environ | {"BRIDGE_URL": served.url, "BRIDGE_TOKEN": TOKEN, "TERM": "xterm", "COLUMNS": "120"}
    ours, theirs = pty.openpty()
    args = [sys.executable, "-m", "bridge", "replay", "--rate", "100", "--name", "watched"]
    with subprocess.Popen(args, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        seen = b""
        while b"[y/N]" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"y\n")
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:  # the other end is closed: a pty says EIO
            pass
        assert process.wait(5) == 0
    os.close(ours)
    assert b"Replay 30 events: hello 30? [y/N]" in seen
    assert b"watched" in seen
    assert re.search(rb"\d+/30", seen)
    assert b"30 replayed: 30 succeeded, 0 failed" in seen
