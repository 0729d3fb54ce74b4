"""`bridge replay` and `bridge replays`."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace

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


def test_a_target_in_another_name_space_is_a_function_and_no_file(bridge, stored, tmp_path):
    before = set(tmp_path.iterdir())

    found = bridge("replay", "--yes", "--to", "nope@eu-west-1.123456789012:live")

    assert (found.code, "Function not found" in found.err) == (1, True), found.err
    assert set(tmp_path.iterdir()) == before


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


def release(served, held, replay):
    """Let the function answer once a replay was asked to stop."""
    wait_for(lambda: served.world.is_stopping(replay), description="it is asked to stop")
    served.soon(held.set)


def test_pause_resume_and_cancel(bridge, served, held):
    releasing = threading.Thread(target=release, args=(served, held, "long"))
    releasing.start()
    paused = bridge("replays", "pause", "long")
    releasing.join()
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
        release(served, held, "mine")
        out, err = process.communicate(timeout=60)

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
        assert process.wait(60) == 0
    os.close(ours)
    assert b"Replay 30 events: hello 30? [y/N]" in seen
    assert b"watched" in seen
    assert re.search(rb"\d+/30", seen)
    assert b"30 replayed: 30 succeeded, 0 failed" in seen


# --- of a mapping's stream --------------------------------------------------------------------------------------------
@pytest.fixture
def orders(served):
    stream = served.world.stream("orders", "orders-0", "orders-1")

    async def fill():
        stream.put(*({"n": n} for n in range(6)), shard="orders-0", key=b"a", time=NOW)
        stream.put({"n": 10}, {"n": 11}, shard="orders-1", key=b"b", time=NOW + 60)

    served.call(fill())
    return served.world


def bodies(world) -> list[int]:
    calls = [json.loads(invocation.payload) for _, _, invocation in world.runtime.invocations]
    return sorted(record["value"]["n"] for call in calls for record in call["Records"])


def test_records_of_a_mapping_are_counted_by_shard_and_sent(bridge, orders):
    counted = bridge("replay", "--mapping", "orders", "--dry-run")
    assert counted.out == "8 records of orders (orders-0 6, orders-1 2) to hello; nothing was sent\n"
    assert bodies(orders) == []

    found = bridge("replay", "--mapping", "orders", "--yes", "--name", "again")

    assert (found.code, found.out) == (0, "8 replayed: 8 succeeded, 0 failed\n")
    assert bodies(orders) == [*range(6), 10, 11]
    assert bridge("replays", "list").out.splitlines()[1].split()[:3] == ["again", "COMPLETED", "8/8"]
    assert "mapping=orders" in bridge("replays", "show", "again").out


@pytest.mark.parametrize(
    ("args", "count"),
    [(["--shard", "orders-1"], 2), (["--shard", "orders-0", "--first", "2", "--last", "4"], 3), (["--first", "orders-0:4", "--first", "orders-1:1"], 3),
     (["--key", "a"], 6), (["--since", str(NOW + 1)], 2), (["--where", '{"body":{"n":[1,11]}}'], 2), (["--key", "nope"], 0)],
)  # fmt: skip
def test_selections_of_a_stream(bridge, orders, args, count):
    if args[0] == "--since":
        args = ["--since", "2026-01-01T00:00:01Z"]
    assert json.loads(bridge("replay", "--mapping", "orders", "--dry-run", "--json", *args).out)["count"] == count
    if count:
        assert len(bridge("replay", "--mapping", "orders", "--to", "-", *args).out.splitlines()) == count
    else:
        assert bridge("replay", "--mapping", "orders", "--yes", *args).err == "no records match; nothing to replay\n"


def test_records_go_to_a_file_one_a_line(bridge, orders, tmp_path):
    path = tmp_path / "records.ndjson"

    found = bridge("replay", "--mapping", "orders", "--to", str(path), "--limit", "3")

    assert found.out == f"3 records written to {path}\n"
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {"shard": "orders-0", "position": 0, "time": NOW, "record": {"id": "orders-0:0", "value": {"n": 0}}}


@pytest.mark.parametrize(
    ("args", "why"),
    [(["--shard", "orders-0"], "--mapping"), (["--key", "a"], "--mapping"), (["--range", "x"], "--mapping"),
     (["--mapping", "orders", "--failed"], "--failed"), (["--mapping", "orders", "--source", "a"], "--source"),
     (["--mapping", "orders", "--no-order"], "--no-order"), (["--mapping", "orders", "--id", event_id(1)], "--id"),
     (["--mapping", "orders", "--first", "5"], "of which shard"), (["--mapping", "orders", "--first", "x"], "SHARD:POSITION"),
     (["--mapping", "orders", "--first", "a:1", "--first", "a:2"], "given twice"), (["--mapping", "orders", "--limit", "3"], "--limit"),
     (["--mapping", "orders", "--range", "x", "--shard", "a"], "--shard"), (["--mapping", "orders", "--range", "x", "--from-dead-letter", "y"], "choose one")],
)  # fmt: skip
def test_what_does_not_go_together_is_a_usage_error(bridge, orders, args, why):
    found = bridge("replay", "--yes", *args)

    assert found.code == 2
    assert why in found.err
    assert bodies(orders) == []


KAFKA = {
    "batchSize": 3,
    "recordInfo": {"offset": "1", "timestamp": "", "topic-partition": "orders-0", "lastOffset": "3"},
}
OURS = {"shardId": "orders-1", "startSequenceNumber": "0", "endSequenceNumber": "1"}


@pytest.mark.parametrize(
    ("record", "values"),
    [
        ({"KafkaBatchInfo": KAFKA}, [1, 2, 3]),
        ({"BridgeBatchInfo": OURS}, [10, 11]),
        ({"outcome": {"KafkaBatchInfo": KAFKA}}, [1, 2, 3]),
    ],
)
def test_the_range_of_an_on_failure_record(bridge, orders, tmp_path, record, values):
    path = tmp_path / "failed.json"
    path.write_text(json.dumps(record))

    found = bridge("replay", "--mapping", "orders", "--range", str(path), "--yes")

    assert (found.code, bodies(orders)) == (0, values)


def test_a_range_on_standard_input_leaves_nobody_to_be_asked(bridge, orders):
    found = bridge("replay", "--mapping", "orders", "--range", "-", stdin=json.dumps({"KafkaBatchInfo": KAFKA}))

    assert (found.code, bodies(orders)) == (2, [])
    assert "Nobody is here to ask: say --yes" in found.err


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "is not JSON"), ("[]", "no on-failure record"), ('{"KafkaBatchInfo":{"recordInfo":{"offset":"1"}}}', "--shard"), (None, "No such file")],
)  # fmt: skip
def test_a_file_that_names_no_range_is_refused(bridge, orders, tmp_path, text, why):
    path = tmp_path / "failed.json"
    if text is not None:
        path.write_text(text)

    found = bridge("replay", "--mapping", "orders", "--range", str(path), "--yes")

    assert found.code == 2
    assert why in found.err


def test_the_range_of_a_dead_letter(bridge, orders):
    orders.mappings.sources["orders"].shape.batch_info = lambda *_, **__: {"BridgeBatchInfo": OURS}
    orders.runtime.handlers["hello"] = lambda _invocation: 1 / 0
    orders.mappings.add(
        replace(status := orders.mappings.statuses["orders"], mapping=replace(status.mapping, batch_size=2))
    )
    assert bridge("replay", "--mapping", "orders", "--shard", "orders-1", "--yes", "--name", "bad").code == 1
    letter = json.loads(bridge("dlq", "list", "--queue", "replay:bad", "--json").out)
    orders.runtime.handlers["hello"] = lambda _invocation: None
    orders.runtime.invocations.clear()

    found = bridge("replay", "--from-dead-letter", letter["id"], "--yes")

    assert (found.code, found.out) == (0, "2 replayed: 2 succeeded, 0 failed\n"), found.err
    assert bodies(orders) == [10, 11]
    wrong = bridge("replay", "--from-dead-letter", letter["id"], "--mapping", "clicks", "--yes")
    assert (wrong.code, "is of mapping orders, not clicks" in wrong.err) == (2, True)
    stored = bridge("dlq", "show", letter["id"], "--json").out
    assert json.loads(stored)["mapping"] == "orders"
