"""A disk that fills up and gets room again: pushed back, nothing lost, dead letters kept, resumed by itself."""

import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crash import ledger
from tests.crash.rig import LedgerServer
from tests.harness import DaemonProcess, free_ports, wait_for, write_function

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
]

HANDLER = """
import json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    body = json.loads(event["body"])
    line = {"id": body["id"], "key": str(body["id"]), "seq": body["id"], "ok": not body.get("poison")}
    connection.sendall(json.dumps(line | {"request_id": context.aws_request_id}).encode() + b"\\n")
    answers.readline()
    if body.get("poison"):
        raise ValueError("poison")
"""

CONFIG = """
listen = {{ public = "127.0.0.1:{public}", api = "127.0.0.1:{api}" }}
journal = {{ segment_mb = 8, ballast_mb = 4, low_water_mb = 2 }}
runtime = {{ workers_max = 2 }}
log = {{ level = "warning" }}

[functions.ledger]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}
event_invoke = {{ retry_delays_s = [0.2, 0.2] }}

[sources.load]
type = "webhook"
path = "/load"
function = "ledger"
verify = "none"
"""

FILL_BYTES = 40_000


class SmallDisk:
    """A file system of a few MB, made larger or filled up by a test."""

    def __init__(self, folder, size_mb):
        folder.mkdir()
        self.folder = folder
        self.options = f"mode=0700,uid={os.getuid()}"
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,{self.options}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"needs the right to mount a tmpfs: {done.stderr}"

    def resize(self, size_mb):
        subprocess.run(["mount", "-o", f"remount,size={size_mb}m", str(self.folder)], check=True)

    def free_bytes(self):
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def close(self):
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


class World:
    """A daemon whose state folder is on a small disk, and the ledger of what was sent and handled."""

    def __init__(self, folder):
        self.disk = SmallDisk(folder / "disk", 24)
        self.server = LedgerServer(folder / "handled.jsonl")
        public, api = free_ports(2)
        config = CONFIG.format(
            public=public, api=api, code=write_function(folder / "code", HANDLER), ledger=self.server.address
        )
        self.daemon = DaemonProcess(folder / "daemon", config)
        self.daemon.state = self.disk.folder / "state"
        self.sent = []
        self._lock = threading.Lock()

    def post(self, *, poison=False, size=0):
        with self._lock:
            number = len(self.sent) + 1
            event = {"id": number, "key": str(number), "seq": number, "outcome": "unknown"}
            self.sent.append(event)
        body = {"id": number, "fill": "x" * size} | ({"poison": True} if poison else {})
        answer = self.daemon.post("/load", body, **{"Content-Type": "application/json"})
        event["outcome"] = {202: "ok"}.get(answer.status, "fail")
        return answer

    def fill(self):
        """Post until the disk takes no more; returns the refusal."""
        for _ in range(2000):
            answer = self.post(size=FILL_BYTES)
            if answer.status != 202:
                return answer
        raise AssertionError("the disk never filled up")

    def letters(self):
        shown = self.daemon.cli("dlq", "list", "--json", "--limit", "100000")
        assert shown.returncode == 0, shown.stderr
        return [json.loads(line)["id"] for line in shown.stdout.splitlines()]

    def judge(self):
        def is_quiet():
            samples = self.daemon.metrics()
            names = ("bridge_lane_waiting", "bridge_running", "bridge_parked")
            return not any(value for name, value in samples.items() if name.startswith(names))

        print({name: value for name, value in self.daemon.metrics().items() if "parked" in name or "waiting" in name})
        wait_for(is_quiet, description="everything accepted is settled")
        handled = ledger.load(self.server.path)
        ids = {line["request_id"]: line["id"] for line in handled}
        dead = [{"id": ids[letter], "reason": "RetriesExhausted"} for letter in self.letters()]
        return ledger.check(self.sent, handled, dead)

    def close(self):
        try:
            self.daemon.stop()
        finally:
            self.server.close()
            self.disk.close()


@pytest.fixture
def world(request, tmp_path):
    made = World(tmp_path)
    request.node.daemons = [made.daemon]
    try:
        made.daemon.start()
        yield made
    finally:
        made.close()


def test_a_full_disk_pushes_back_keeps_what_it_took_and_resumes_by_itself(world):
    first = [world.post(poison=True) for _ in range(3)]
    assert {answer.status for answer in first} == {202}
    refusal = world.fill()
    assert refusal.status == 503
    assert int(refusal.headers["retry-after"]) >= 1
    assert world.daemon.metrics()["bridge_store_full_state"] == 1
    # Dead letters are stored on the full disk: the ballast made room for them.
    wait_for(lambda: len(world.letters()) == 3, description="the dead letters are stored")
    assert world.daemon.is_running()
    handled = world.server.lines
    assert handled > 0

    world.disk.resize(64)
    began = time.monotonic()
    wait_for(lambda: world.post().status == 202, description="accepts again")
    print(f"accepted again after {time.monotonic() - began:.2f} s")
    with ThreadPoolExecutor(4) as pool:
        assert {answer.status for answer in pool.map(lambda _: world.post(), range(50))} == {202}

    verdict = world.judge()
    print(json.dumps(verdict))
    assert verdict["lost"] == 0
    assert verdict["unexpected"] == 0
    assert verdict.get("duplicated", 0) == 0


def fill_from_outside(world):
    """Take all the space there is, as another program would."""
    path = world.disk.folder / "another-program"
    with path.open("ab") as file:
        step = bytes(64 * 1024)
        while True:
            try:
                file.write(step)
                file.flush()
            except OSError:
                break
    return path


def test_retries_and_dead_letters_wait_out_a_disk_with_no_byte_left(world):
    """Not even the ballast helps: what failed keeps its place and is settled when there is room."""
    for _ in range(3):
        assert world.post(poison=True).status == 202
    path = fill_from_outside(world)
    until = time.monotonic() + 8  # longer than a task that fails each time is restarted

    def hindered():
        fill_from_outside(world)
        return time.monotonic() > until

    wait_for(hindered)
    assert world.daemon.is_running()
    assert world.post().status == 503
    path.unlink()
    wait_for(lambda: world.post().status == 202, description="accepts again")
    wait_for(lambda: len(world.letters()) == 3, description="the dead letters are stored")
    verdict = world.judge()

    assert verdict["lost"] == 0
    assert verdict["unexpected"] == 0


def test_a_stop_and_a_start_on_a_full_disk_lose_nothing(world):
    world.post(poison=True)
    world.fill()
    fill_from_outside(world)
    assert world.daemon.terminate() == 0
    (world.disk.folder / "another-program").unlink()
    world.disk.resize(64)
    world.daemon.restart()
    verdict = world.judge()

    assert verdict["lost"] == 0
    assert verdict["unexpected"] == 0
