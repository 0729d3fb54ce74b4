"""A daemon under load with an outside ledger: what was sent, what was handled, what is a dead letter."""

import contextlib
import http.client
import json
import os
import random
import socketserver
import threading
import time
from pathlib import Path
from typing import Self

from tests.crash import ledger
from tests.harness import DaemonProcess, free_ports, wait_for, write_function

WORKERS = 4
LANDED_S = 300.0

# Answers only after the ledger has the line on disk: what the handler says it did, it did. A connection
# instead of a file, since a sandboxed worker sees neither the test's folder nor its /tmp.
HANDLER = """
import json, os, socket, time

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    body = json.loads(event["body"])
    time.sleep(body.get("sleep_s", 0))
    line = {
        "id": body["id"], "key": body["key"], "seq": body["seq"], "ok": not body.get("poison"),
        "request_id": context.aws_request_id, "t": time.time(),
    }
    connection.sendall(json.dumps(line).encode() + b"\\n")
    if answers.readline() != b"kept\\n":
        raise ConnectionError("the ledger is gone")
    if body.get("poison"):
        raise ValueError("poison")
"""

CONFIG = """
runtime = {{ workers_max = {workers} }}
log = {{ level = "warning" }}
listen = {{ public = "127.0.0.1:{public}", api = "127.0.0.1:{api}" }}
{settings}
[functions.ledger]
code = "{code}"
handler = "app.handler"
timeout_s = 60
environment = {{ LEDGER = "{ledger}" }}
event_invoke = {{ retry_delays_s = [0.1, 0.2]{event_invoke} }}

[sources.load]
type = "webhook"
path = "/load"
function = "ledger"
verify = "none"
"""


class LedgerServer(socketserver.ThreadingTCPServer):
    """Writes every line it gets to handled.jsonl, fsynced, before it answers."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()
        self.lines = 0
        self.last_at = time.monotonic()
        super().__init__(("127.0.0.1", 0), _LedgerHandler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.server_address[:2])

    def keep(self, line: bytes) -> None:
        with self._lock:
            os.write(self._descriptor, line)
            os.fdatasync(self._descriptor)
            self.lines += 1
            self.last_at = time.monotonic()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()
        os.close(self._descriptor)


class _LedgerHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            for line in self.rfile:
                if line.endswith(b"\n"):
                    self.server.keep(line)
                    self.wfile.write(b"kept\n")


class Load:
    """Threads that post events and write down what became of each: ok, fail or unknown."""

    def __init__(
        self, rig: "Rig", *, threads: int, pause_s: float = 0.0, poison: float = 0.0, sleep_s: float = 0.0
    ) -> None:
        self._rig = rig
        self._pause_s = pause_s
        self._poison = poison
        self._sleep_s = sleep_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        chance = random.Random(f"{self._rig.seed}/{number}")
        poster = Poster(self._rig)
        while not self._stop.is_set():
            poster.post(poison=chance.random() < self._poison, sleep_s=self._sleep_s)
            if self._pause_s:
                self._stop.wait(self._pause_s)
        poster.close()


class Poster:
    """One keep-alive connection; a refused connection sent nothing and is no attempt."""

    def __init__(self, rig: "Rig") -> None:
        self._rig = rig
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def post(self, *, poison: bool = False, sleep_s: float = 0.0) -> str:
        """Send one event with an id and a key of its own; returns the outcome, `down` if nobody listened."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._rig.public, timeout=60)
            try:
                self._connection.connect()
            except OSError:
                self.close()
                time.sleep(0.005)
                return "down"
        event = self._rig.next_event(poison=poison, sleep_s=sleep_s)
        try:
            self._connection.request("POST", "/load", json.dumps(event), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            answer.read()
            outcome = "ok" if answer.status == 202 else "fail"
            if answer.status in (429, 503):
                self._rig.pushed_back += 1
                time.sleep(0.01)
            if answer.will_close:
                self.close()
        except (OSError, http.client.HTTPException):
            outcome = "unknown"
            self.close()
        self._rig.note_sent(event, outcome)
        return outcome


class Rig:
    """A daemon, its function, its load and its ledgers, in one folder that is kept when the test fails."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: str = "",
        event_invoke: str = "",
        workers: int = WORKERS,
        command: tuple[str, ...] = ("-m", "bridge"),
    ) -> None:
        self.seed = int(os.environ.get("BRIDGE_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
        self.random = random.Random(self.seed)
        print(f"BRIDGE_CRASH_SEED={self.seed}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.public, api = free_ports(2)
        self.server = LedgerServer(folder / "handled.jsonl")
        self._sent = (folder / "sent.jsonl").open("w")
        self._lock = threading.Lock()
        self._number = 0
        self.acked = 0
        self.pushed_back = 0
        self.kills = 0
        self.folder = folder
        config = CONFIG.format(
            code=write_function(folder / "code", HANDLER),
            ledger=self.server.address,
            public=self.public,
            api=api,
            settings=settings,
            event_invoke=event_invoke and f", {event_invoke}",
            workers=workers,
        )
        self.daemon = DaemonProcess(folder / "daemon", config, command=command)

    def close(self) -> None:
        try:
            self.daemon.stop()
        finally:
            self.server.close()
            self._sent.close()

    def next_event(self, *, poison: bool, sleep_s: float) -> dict:
        with self._lock:
            self._number += 1
            event = {"id": self._number, "key": f"key-{self._number}", "seq": self._number}
        if poison:
            event["poison"] = True
        if sleep_s:
            event["sleep_s"] = sleep_s
        return event

    def note_sent(self, event: dict, outcome: str) -> None:
        with self._lock:
            self.acked += outcome == "ok"
            self._sent.write(
                json.dumps({"id": event["id"], "key": event["key"], "seq": event["seq"], "outcome": outcome}) + "\n"
            )

    def more(self, count: int) -> None:
        """Wait until so many more events are accepted: enough to say something, however slow the machine."""
        through = self.acked + count
        wait_for(lambda: self.acked >= through, LANDED_S, f"{count} more events are accepted")

    def post(self, **kinds: object) -> str:
        """Send one event on a connection of its own."""
        poster = Poster(self)
        try:
            return poster.post(**kinds)
        finally:
            poster.close()

    def load(self, **kinds: object) -> Load:
        return Load(self, **kinds)

    def kill_and_restart(self, *, ready: bool = True) -> None:
        self.kills += 1
        self.daemon.kill9()
        wait_for(lambda: not self.daemon.survivors(), description="workers follow their daemon within seconds")
        self.daemon.restart() if ready else self.daemon.start(ready=False)

    def drain(self, *, quiet_s: float = 1.5, timeout_s: float = 300.0) -> None:
        """Return once nothing waits, runs or is parked, and the ledger has been quiet for a while."""
        self.daemon.wait_ready()

        def is_quiet() -> bool:
            if time.monotonic() - self.server.last_at < quiet_s:
                return False
            samples = self.daemon.metrics()
            names = ("bridge_lane_waiting", "bridge_running", "bridge_parked")
            return not any(value for name, value in samples.items() if name.startswith(names))

        wait_for(is_quiet, timeout_s, "everything accepted is handled")

    def dead_letters(self) -> list[dict]:
        """Read the dead letters back as a user would and give them the ids of the load."""
        answer = self.daemon.cli("dlq", "list", "--json", "--limit", "1000000")
        assert answer.returncode == 0, answer.stderr
        ids = {line["request_id"]: line["id"] for line in ledger.load(self.server.path)}
        letters = [json.loads(line) for line in answer.stdout.splitlines()]
        return [
            {"id": ids.get(letter["id"], letter["id"]), "reason": letter.get("condition", "")} for letter in letters
        ]

    def judge(self) -> dict:
        """Drain, then compare the three ledgers."""
        self.drain()
        with self._lock:
            self._sent.flush()
        handled = ledger.load(self.server.path)
        dead = self.dead_letters()
        (self.folder / "dlq.jsonl").write_text("".join(json.dumps(letter) + "\n" for letter in dead))
        verdict = ledger.check(ledger.load(self.folder / "sent.jsonl"), handled, dead)
        verdict["kills"] = self.kills
        verdict["pushed_back"] = self.pushed_back
        print(json.dumps(verdict), flush=True)
        return verdict
