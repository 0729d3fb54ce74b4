"""A daemon that reads a mosquitto under load, with an outside ledger: published, handled, dead letters."""

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers.mosquitto import MosquittoBroker
from tests.crash import ledger
from tests.crash.rig import LANDED_S, LedgerServer
from tests.harness import DaemonProcess, free_ports, wait_for, write_function

TOPICS = 8
SHARDS = 4
BATCH = 20

HANDLER = """
import json, os, socket, time

record_s = float(os.environ["RECORD_S"])
host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    records = event["Records"] if "Records" in event else [event]
    for record in records:
        time.sleep(record_s)
        line = {"id": record["id"], "key": record["key"], "seq": record["seq"], "ok": True, "t": time.time()}
        connection.sendall(json.dumps(line).encode() + b"\\n")
        if answers.readline() != b"kept\\n":
            raise ConnectionError("the ledger is gone")
"""

CONFIG = """
{settings}
runtime = {{ workers_max = 4 }}
log = {{ level = "warning" }}
listen = {{ public = "127.0.0.1:{public}", api = "127.0.0.1:{api}" }}

[functions.ledger]
code = "{code}"
handler = "app.handler"
timeout_s = 60
environment = {{ LEDGER = "{ledger}", RECORD_S = "{record_s}" }}

[sources.load]
type = "mqtt"
url = "{url}"
topics = ["load/+/x", "load/#"]
version = "{version}"
buffer_mb = 1

[mappings.load]
source = "load"
function = "ledger"
key = "topic"
shards = {shards}
batch_size = {batch}
"""


class Publisher:
    """A device of its own: publishes at QoS 1 in order of each topic, and again what no broker has confirmed."""

    def __init__(self, rig: "MqttRig", *, pause_s: float, filler: int = 0, window: int = 100) -> None:
        """`filler`: bytes that each message has beside what the ledgers know."""
        self._rig = rig
        self._pause_s = pause_s
        self._filler = {"filler": "x" * filler} if filler else {}
        self._window = threading.BoundedSemaphore(window)
        self._open: dict[int, dict] = {}
        self._early: set[int] = set()
        """Confirmed packet identifiers; one may be before `publish` has told it."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="device", clean_session=False, protocol=paho.MQTTv311
        )
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_publish = self._confirmed
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._rig.broker.port)
        self._client.loop_start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        wait_for(lambda: not self._open, LANDED_S, "the broker has confirmed what was published")
        self._client.disconnect()
        self._client.loop_stop()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            if not self._window.acquire(timeout=0.2):
                continue
            number += 1
            event = {"id": number, "key": f"load/{number % TOPICS}", "seq": number}
            # Without our lock: paho has one of its own, which it holds while it calls back.
            info = self._client.publish(event["key"], json.dumps(event | self._filler), qos=1)
            with self._lock:
                self._open[info.mid] = event
            self._settle()
            time.sleep(self._pause_s)

    def _confirmed(self, client, userdata, mid, reason_code, properties) -> None:
        with self._lock:
            self._early.add(mid)
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            mids = self._early & self._open.keys()
            self._early -= mids
            confirmed = [self._open.pop(mid) for mid in sorted(mids)]
        for event in confirmed:
            self._rig.note_sent(event)
            self._window.release()


class MqttRig:
    """A broker, a daemon, its function and its ledgers, in one folder that is kept when the test fails."""

    def __init__(
        self,
        folder: Path,
        broker: MosquittoBroker,
        *,
        version: str = "5",
        command: tuple[str, ...] = ("-m", "bridge"),
        settings: str = "",
        state: Path | None = None,
        record_s: float = 0.0,
    ) -> None:
        """`settings` are TOML for the daemon, whose state may be elsewhere; handlers take `record_s` a record more."""
        self.seed = int(os.environ.get("BRIDGE_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
        self.random = random.Random(self.seed)
        print(f"BRIDGE_CRASH_SEED={self.seed}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.broker = folder, broker
        self.server = LedgerServer(folder / "handled.jsonl")
        self._sent = (folder / "sent.jsonl").open("w")
        self._lock = threading.Lock()
        self.acked = self.kills = 0
        public, api = free_ports(2)
        config = CONFIG.format(
            code=write_function(folder / "code", HANDLER), ledger=self.server.address, public=public, api=api,
            url=broker.url, version=version, shards=SHARDS, batch=BATCH, settings=settings, record_s=record_s,
        )  # fmt: skip
        self.daemon = DaemonProcess(folder / "daemon", config, command=command)
        self.daemon.state = state or self.daemon.state

    def close(self) -> None:
        try:
            self.daemon.stop()
        finally:
            self.server.close()
            self._sent.close()

    def start(self) -> None:
        """Start the daemon; returns once it is subscribed."""
        self.daemon.start()
        wait_for(lambda: "Sending SUBACK to bridge-load-" in self.broker.log(), description="it has subscribed")

    def load(self, *, pause_s: float = 0.002, **how: int) -> Publisher:
        return Publisher(self, pause_s=pause_s, **how)

    def note_sent(self, event: dict) -> None:
        with self._lock:
            self.acked += 1
            self._sent.write(json.dumps(event | {"outcome": "ok"}) + "\n")

    def publish(self, count: int) -> None:
        """Wait until so many more messages are with the broker, whatever becomes of them."""
        through = self.acked + count
        wait_for(lambda: self.acked >= through, LANDED_S, f"{count} more are published")

    def more(self, count: int) -> None:
        """Wait until so many more messages are with the broker, and as many are handled."""
        through, handled = self.acked + count, self.server.lines + count
        wait_for(lambda: self.acked >= through and self.server.lines >= handled, LANDED_S, f"{count} more are handled")

    def kill_and_restart(self, *, ready: bool = True) -> None:
        self.kills += 1
        self.daemon.kill9()
        wait_for(lambda: not self.daemon.survivors(), description="workers follow their daemon within seconds")
        self.daemon.restart() if ready else self.daemon.start(ready=False)

    def is_connected(self) -> bool:
        return any(name.startswith("bridge-load-") for name in self.broker.clients())

    def judge(self) -> dict:
        """Wait until all that the broker confirmed is handled, or nothing more is; then compare the ledgers."""
        self.daemon.wait_ready()

        def is_over() -> bool:
            # After many restarts of its broker it waits for up to a minute before it connects again.
            if time.monotonic() - self.server.last_at < 3.0 or not self.is_connected():
                return False
            return not self.daemon.metrics().get('bridge_mapping_behind_records{mapping="load"}', 1)

        wait_for(is_over, LANDED_S, "everything is handled")
        with self._lock:
            self._sent.flush()
        answer = self.daemon.cli("dlq", "list", "--json", "--limit", "1000000")
        assert answer.returncode == 0, answer.stderr
        dead = [{"id": json.loads(line)["id"], "reason": ""} for line in answer.stdout.splitlines()]
        verdict = ledger.check(ledger.load(self.folder / "sent.jsonl"), ledger.load(self.server.path), dead)
        verdict["kills"] = self.kills
        print(json.dumps(verdict), flush=True)
        return verdict
