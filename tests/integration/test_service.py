"""The daemon as a service: signals, reloads, edits, a second daemon, restarts, replays and redrives, end to end."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.crash.rig import LedgerServer
from tests.harness import WAIT_MAX_S, DaemonProcess, request, wait_for, write_function

pytestmark = [pytest.mark.integration]

# Says each invocation to the test over a connection: a sandboxed worker shares no file with it.
TOLD = """
import json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")
VERSION = "one"


def handler(event, context):
    body = json.loads(event["body"])
    if body.get("hold"):
        connection.sendall(json.dumps({"holds": body["n"]}).encode() + b"\\n")
        answers.readline()
    custom = context.client_context.custom if context.client_context else {}
    line = {
        "n": body["n"], "id": context.aws_request_id, "version": VERSION, "replay": (custom or {}).get("bridge-replay"),
    }
    connection.sendall(json.dumps(line).encode() + b"\\n")
    answers.readline()
    if body.get("poison"):
        raise ValueError("poison")
    return VERSION
"""

CONFIG = """
runtime = {{ workers_max = {workers} }}
drain_grace_s = 100

[functions.told]
code = "{code}"
handler = "app.handler"
timeout_s = 100
environment = {{ LEDGER = "{ledger}" }}
event_invoke = {{ retry_delays_s = {delays} }}
{function}

[sources.load]
type = "webhook"
path = "/load"
function = "told"
verify = "none"

[sources.answered]
type = "webhook"
path = "/answered"
function = "told"
verify = "none"
invocation_type = "RequestResponse"
"""

JSON = {"Content-Type": "application/json"}


class Told(LedgerServer):
    """Keeps whoever says that it holds until `release`."""

    def __init__(self, path):
        self.holding = []
        self._gate = threading.Event()
        super().__init__(path)

    def keep(self, line):
        said = json.loads(line)
        if "holds" in said:
            self.holding.append(said["holds"])
            self._gate.wait(WAIT_MAX_S)
        else:
            super().keep(line)

    def release(self):
        self._gate.set()

    def close(self):
        self.release()
        super().close()


class World:
    """A daemon with one function that tells, and what it told."""

    def __init__(self, daemon, ledger, folder):
        self.ledger = ledger
        self.code = folder / "code"
        self.folder = folder
        write_function(self.code, TOLD)
        self._daemon = daemon

    def config(self, *, workers=2, delays="[0.1, 0.1]", function="", listen=""):
        text = f'listen = {{ public = "127.0.0.1:0", api = "127.0.0.1:0", {listen} }}\n' if listen else ""
        return text + CONFIG.format(
            code=self.code, ledger=self.ledger.address, workers=workers, delays=delays, function=function
        )

    def start(self, *, name="daemon", command=("-m", "bridge"), environment=None, **settings):
        self.daemon = self._daemon(self.config(**settings), name=name, command=command, **(environment or {}))
        return self.daemon

    def post(self, n, **body):
        return self.daemon.post("/load", {"n": n} | body, **JSON)

    def post_many(self, count, **body):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: self.post(n, **body), range(count)))
        assert {answer.status for answer in answers} == {202}
        return answers

    def is_held(self, n):
        return n in self.ledger.holding

    @property
    def told(self):
        return [json.loads(line) for line in self.ledger.path.read_text().splitlines()]

    def numbers(self, *, replay=None):
        return [line["n"] for line in self.told if line["replay"] == replay]

    def admin(self, method, path, body=None):
        return self.daemon.admin(method, f"/admin/v1{path}", body)

    def replay(self, name):
        return self.admin("GET", f"/replays/{name}").json()


@pytest.fixture
def world(daemon, tmp_path):
    ledger = Told(tmp_path / "told.jsonl")
    yield World(daemon, ledger, tmp_path)
    ledger.close()


# --- 1 signals ----------------------------------------------------------------------------------------


class Load:
    """Posts from some threads until told to stop; keeps the numbers that were accepted, and every other status."""

    def __init__(self, world, *, threads=4):
        self.accepted, self.others = [], []
        self._world = world
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n * 100_000,)) for n in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number):
        while not self._stop.is_set():
            number += 1
            try:
                answer = self._world.post(number)
            except OSError:
                self.others.append("broken")
                self._stop.wait(0.01)
                continue
            if answer.status == 202:
                self.accepted.append(number)
            else:
                self.others.append(answer.status)


def test_sigterm_under_load_exits_0_within_the_grace_and_loses_nothing(world):
    daemon = world.start()
    url = daemon.public
    with Load(world) as load:
        wait_for(lambda: len(load.accepted) > 100)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(request, "POST", url + "/answered", body=b'{"n": -1, "hold": true}', headers=JSON)
            wait_for(lambda: world.is_held(-1), description="a caller waits for its answer")
            daemon.descendants()
            daemon.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "daemon_draining" in daemon.log())
            world.ledger.release()
            assert daemon.wait() == 0
            assert slow.result().status == 200, "a caller within the grace gets its answer"
        load._stop.set()
    daemon.restart()
    wait_for(lambda: set(load.accepted) <= set(world.numbers()), description="all that was accepted is handled")

    numbers = [n for n in world.numbers() if n >= 0]
    assert len(numbers) == len(set(numbers)), "a stop within the grace repeats nothing"


def test_a_client_that_never_ends_its_request_does_not_hold_up_sigterm(world):
    daemon = world.start(listen="header_s = 60, request_s = 300")
    port = urlsplit(daemon.public).port
    halves = [
        b"POST /lo",
        b"POST /load HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST /answered HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ]
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in halves]
        for client, half in zip(slow, halves, strict=True):
            client.sendall(half)
        wait_for(lambda: daemon.metrics()['bridge_http_connections_open{listener="public"}'] == len(halves))

        assert daemon.terminate() == 0
        for client in slow:
            assert client.recv(4096).startswith(b"HTTP/1.1 503 "), "told that nothing was stored"
    daemon.restart()
    assert daemon.admin("GET", "/admin/v1/events").json()["events"] == []


def test_a_second_signal_ends_it_at_once(world):
    daemon = world.start()
    world.post(1, hold=True)
    wait_for(lambda: world.is_held(1))
    daemon.descendants()
    daemon.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "daemon_draining" in daemon.log())
    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.wait() == -signal.SIGTERM, "the grace is longer than we wait"
    wait_for(lambda: not daemon.survivors(), description="its workers follow")


# --- 2 reload and watch -------------------------------------------------------------------------------


def test_fifty_reloads_under_load_half_of_them_invalid_lose_and_refuse_nothing(world):
    daemon = world.start()
    good = daemon.file.read_text()
    bad = good.replace("verify =", "verifi =").replace("/load", "/elsewhere")
    with Load(world, threads=3) as load:
        for number in range(50):
            is_bad = number % 2
            daemon.file.write_text(bad if is_bad else good.replace("timeout_s = 100", f"timeout_s = {100 + number}"))
            if number % 10 < 2:
                daemon.process.send_signal(signal.SIGHUP)
                continue
            answer = world.admin("POST", "/reload")
            assert answer.status == (422 if is_bad else 200), answer
        wait_for(lambda: len(load.accepted) > 100)
    wait_for(lambda: set(load.accepted) <= set(world.numbers()), description="all that was accepted is handled")

    assert load.others == []
    assert sorted(world.numbers()) == sorted(load.accepted)


def test_what_runs_ends_on_the_old_configuration_and_a_bad_file_changes_nothing(world):
    daemon = world.start()
    world.post(0)
    wait_for(lambda: world.numbers() == [0], description="a worker has read the code")
    world.post(1, hold=True)
    wait_for(lambda: world.is_held(1))
    new = write_function(world.folder / "new", TOLD.replace('"one"', '"two"'))
    daemon.file.write_text(daemon.file.read_text().replace(str(world.code), str(new)))
    assert world.admin("POST", "/reload").status == 200
    world.post(2)
    wait_for(lambda: world.numbers() == [0, 2])
    world.ledger.release()
    wait_for(lambda: len(world.told) == 3)
    assert {line["n"]: line["version"] for line in world.told} == {0: "one", 1: "one", 2: "two"}

    good = daemon.file.read_text()
    daemon.file.write_text(good.replace('"/load"', '"/moved"').replace('"webhook"', '"webhok"', 1))
    assert daemon.cli("reload").returncode != 0
    assert world.post(3).status == 202, "the old route still serves"
    assert daemon.post("/moved", b"{}").status == 404


def test_a_function_that_a_reload_removes_leaves_its_events_as_dead_letters(world):
    daemon = world.start(workers=1, function="reserved_concurrency = 1")
    world.post(0, hold=True)
    wait_for(lambda: world.is_held(0))
    ids = [world.post(n).json()["id"] for n in range(1, 6)]
    other = write_function(world.folder / "other", "def handler(event, context):\n    return 1\n")
    listen = daemon.file.read_text().splitlines()[0]
    daemon.file.write_text(f'{listen}\n[functions.other]\ncode = "{other}"\nhandler = "app.handler"\n')
    assert world.admin("POST", "/reload").status == 200
    letters = wait_for(
        lambda: len(found := world.admin("GET", "/dlq").json()["dead_letters"]) == 5 and found,
        description="five dead letters",
    )

    assert {letter["id"] for letter in letters} == set(ids)
    assert {letter["condition"] for letter in letters} == {"FunctionNotFound"}
    world.ledger.release()
    wait_for(lambda: world.numbers() == [0], description="what ran has ended")


def test_watch_takes_edited_code_from_the_next_invocation(world, request):
    daemon = DaemonProcess(world.folder / "watched", world.config(), command=("-m", "bridge"))
    request.node.daemons = [daemon]
    daemon.command = ("-c", "import sys; from bridge.cli.main import main; main([*sys.argv[1:], '--watch'])")
    world.daemon = daemon
    try:
        daemon.start()
        world.post(0)
        wait_for(lambda: world.numbers() == [0], description="a worker has read the code")
        world.post(1, hold=True)
        wait_for(lambda: world.is_held(1))
        (world.code / "app.py").write_text(TOLD.replace('"one"', '"two"'))
        wait_for(lambda: "function_changed" in daemon.log(), description="the edit is seen")
        world.post(2)
        wait_for(lambda: world.numbers() == [0, 2])
        world.ledger.release()
        wait_for(lambda: len(world.told) == 3)
        assert {line["n"]: line["version"] for line in world.told} == {0: "one", 1: "one", 2: "two"}
    finally:
        daemon.stop()


# --- 3 refusals to start ------------------------------------------------------------------------------


def refusal(daemon):
    """Return the one line with which a daemon refuses to start; its status must be 2."""
    assert daemon.wait(60) == 2, daemon.log()
    lines = [line for line in daemon.log().splitlines() if not line.startswith("{")]
    assert len(lines) == 1, daemon.log()
    return lines[0]


def test_a_second_daemon_on_one_state_folder_is_refused(world, daemon):
    first = world.start()
    second = daemon(world.config(), ready=False, name="second", BRIDGE_STATE=str(first.state))

    line = refusal(second)
    assert str(first.pid) in line
    assert world.post(1).status == 202
    assert (first.state / "daemon.json").exists(), "the first one is still found"


def test_a_state_folder_of_a_newer_layout_is_refused_and_left_alone(world):
    first = world.start()
    assert first.terminate() == 0
    meta = first.state / "meta.json"
    newer = json.loads(meta.read_text())
    key = next(key for key in newer if "layout" in key or "version" in key)
    meta.write_text(json.dumps(newer | {key: 999}))
    before = {path: path.stat().st_mtime_ns for path in first.state.rglob("*") if path.is_file()}
    first.log_path.unlink()
    first.start(ready=False)

    refusal(first)
    after = {path: path.stat().st_mtime_ns for path in first.state.rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if p.name != "lock"} == {p: t for p, t in before.items() if p.name != "lock"}


@pytest.mark.parametrize("listener", ["public", "api"])
def test_a_port_in_use_is_refused(world, daemon, listener):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"public": 0, "api": 0} | {listener: port}
        listen = f'listen = {{ public = "127.0.0.1:{ports["public"]}", api = "127.0.0.1:{ports["api"]}" }}\n'
        refused = daemon(listen + world.config(), ready=False)
        assert f"127.0.0.1:{port}" in refusal(refused)


# --- 4 loops, health, metrics -------------------------------------------------------------------------


def test_it_runs_on_the_asyncio_loop_too(world):
    world.start(environment={"BRIDGE_LOOP": "asyncio"})
    world.post_many(20)
    wait_for(lambda: len(world.numbers()) == 20)


def test_a_daemon_without_a_kafka_source_loads_no_kafka_client(world):
    mapped = Path(f"/proc/{world.start().pid}/maps").read_text()

    assert "/orjson/" in mapped
    assert "/aiokafka/" not in mapped
    assert "/cramjam/" not in mapped


def test_health_ready_and_metrics_need_no_token_but_a_local_host(world):
    daemon = world.start()
    world.post_many(2)
    wait_for(lambda: len(world.numbers()) == 2)
    for path in ("/health", "/ready", "/metrics"):
        assert request("GET", daemon.api + path).status == 200
        for headers in (
            {"Origin": "http://localhost"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Host": "evil.example"},
        ):
            assert request("GET", daemon.api + path, headers=headers).status == 403, headers
    assert request("GET", f"{daemon.api}/admin/v1/status").status in (401, 403)

    for line in request("GET", f"{daemon.api}/metrics").body.decode().splitlines():
        name = line.split()[2] if line.startswith("#") else line.split("{")[0].split()[0]
        assert name.startswith(("bridge_", "process_", "python_")), line


# --- 5 restarts ---------------------------------------------------------------------------------------


def test_a_restart_with_five_hundred_stored_events_handles_each_once(world):
    daemon = world.start(workers=1, function="reserved_concurrency = 1")
    world.post(-1, hold=True)
    wait_for(lambda: world.is_held(-1))
    world.post_many(500)
    daemon.kill9()
    assert world.numbers() == []
    world.ledger.release()
    daemon.start()
    wait_for(lambda: len(world.numbers()) >= 501, description="all are handled")

    assert sorted(world.numbers()) == list(range(-1, 500))


# --- 6 replay and redrive -----------------------------------------------------------------------------


def test_a_replay_keeps_order_marks_what_it_sends_and_stores_nothing_again(world):
    daemon = world.start()
    for n in range(30):
        assert world.post(n).status == 202
    wait_for(lambda: len(world.numbers()) == 30)
    stored = daemon.metrics()["bridge_journal_appends_total"]
    done = daemon.cli("replay", "--since", "10m", "--name", "again", "--yes")

    assert done.returncode == 0, done.stderr
    assert world.numbers(replay="again") == list(range(30))
    originals = {line["n"]: line["id"] for line in world.told if line["replay"] is None}
    assert all(line["id"] == originals[line["n"]] for line in world.told)
    assert daemon.metrics()["bridge_journal_appends_total"] == stored
    assert world.replay("again")["state"] == "COMPLETED"


def test_a_replay_survives_kill_9_and_ends_without_a_gap(world):
    daemon = world.start()
    for n in range(60):
        world.post(n)
    wait_for(lambda: len(world.numbers()) == 60)
    world.admin("POST", "/replays", {"name": "long", "rate": 40, "selection": {}})
    wait_for(lambda: len(world.numbers(replay="long")) >= 10)
    daemon.kill9()
    daemon.restart()
    if world.replay("long")["state"] == "PAUSED":
        assert daemon.cli("replays", "resume", "long").returncode == 0
    wait_for(lambda: world.replay("long")["state"] == "COMPLETED", description="the replay completes")

    replayed = world.numbers(replay="long")
    assert set(replayed) == set(range(60))
    assert list(dict.fromkeys(replayed)) == list(range(60)), "first deliveries in order"


def test_a_replay_is_paused_resumed_and_cancelled(world):
    daemon = world.start()
    for n in range(30):
        world.post(n)
    wait_for(lambda: len(world.numbers()) == 30)
    world.admin("POST", "/replays", {"name": "slow", "rate": 1, "selection": {}})
    wait_for(lambda: world.numbers(replay="slow"))
    assert daemon.cli("replays", "pause", "slow").returncode == 0
    wait_for(lambda: world.replay("slow")["state"] == "PAUSED")
    assert world.admin("POST", "/replays/slow/resume").status < 300
    wait_for(lambda: world.replay("slow")["state"] in ("RUNNING", "COMPLETED"))
    assert daemon.cli("replays", "cancel", "slow").returncode == 0
    wait_for(lambda: world.replay("slow")["state"] == "CANCELLED")
    assert len(world.numbers(replay="slow")) < 30


def test_a_replay_lets_live_events_go_first(world):
    world.start(workers=1, function="reserved_concurrency = 1")
    for n in range(20):
        world.post(n)
    wait_for(lambda: len(world.numbers()) == 20)
    world.post(100, hold=True)
    wait_for(lambda: world.is_held(100))
    world.admin("POST", "/replays", {"name": "behind", "selection": {}})
    for n in range(101, 121):
        world.post(n)
    wait_for(lambda: world.replay("behind")["state"] == "RUNNING")
    world.ledger.release()
    wait_for(lambda: len(world.numbers(replay="behind")) >= 20)

    told = world.told[20:]
    assert all(line["replay"] is None for line in told[:21]), "live events were all handled before the first replayed"


def test_failures_of_a_replay_become_dead_letters_of_its_own(world):
    daemon = world.start()
    world.post(1, poison=True)
    wait_for(lambda: world.admin("GET", "/dlq").json()["dead_letters"])
    world.admin("POST", "/replays", {"name": "bad", "selection": {}})
    wait_for(lambda: world.replay("bad")["state"] == "COMPLETED")
    shown = daemon.cli("dlq", "list", "--queue", "replay:bad", "--json")

    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 1
    assert json.loads(shown.stdout)["queue"] == "replay:bad"


def test_a_redriven_event_that_fails_again_is_one_dead_letter(world):
    daemon = world.start()
    ids = [world.post(n, poison=True).json()["id"] for n in range(6)]

    def letters():
        return world.admin("GET", "/dlq").json()["dead_letters"]

    wait_for(lambda: len(letters()) == 6)
    began = time.monotonic()
    done = daemon.cli("dlq", "redrive", "--rate", "5", "--yes")
    took_s = time.monotonic() - began
    assert done.returncode in (0, 1), done.stderr
    assert took_s > 0.9, "six at five a second"
    wait_for(lambda: len(found := letters()) == 6 and all(each["redrives"] == 1 for each in found))
    assert {letter["id"] for letter in letters()} == set(ids)

    mended = TOLD.replace('body.get("poison")', "False")
    write_function(world.folder / "mended", mended)
    daemon.file.write_text(daemon.file.read_text().replace(str(world.code), str(world.folder / "mended")))
    assert world.admin("POST", "/reload").status == 200
    assert daemon.cli("dlq", "redrive", "--failed", "--yes").returncode == 0
    wait_for(lambda: not letters(), description="all have succeeded")


def test_events_show_says_what_became_of_each(world):
    daemon = world.start(workers=1, delays="[300]", function="reserved_concurrency = 1")
    fine = world.post(1).json()["id"]
    wait_for(lambda: len(world.told) == 1)
    waiting = world.post(2, poison=True).json()["id"]
    wait_for(lambda: len(world.told) == 2)
    running = world.post(3, hold=True).json()["id"]
    behind = world.post(4).json()["id"]

    def shown(event_id, *texts):
        answer = daemon.cli("events", "show", event_id)
        assert answer.returncode == 0, answer.stderr
        return all(text in answer.stdout for text in texts) and answer.stdout

    wait_for(lambda: shown(fine, "ok"))
    wait_for(lambda: shown(waiting, "retry 1 due in", "poison"))
    wait_for(lambda: shown(running, "running now: attempt 1"))
    wait_for(lambda: shown(behind, "waits for a free slot"))
