"""Daemons that share a consumer group under load, judged by the ledger, the committed offsets and the topic itself."""

import bisect
import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.crash import ledger, marks
from tests.crash.outside import KafkaLoad, MarksWatch, Outside
from tests.crash.rig import LedgerServer
from tests.harness import ROOT, DaemonProcess, wait_for, write_function

LAUNCHER = str(ROOT / "tests" / "crash" / "mutants" / "launch.py")
KILLS = int(os.environ.get("BRIDGE_CRASH_KILLS", "20"))
IS_FULL = KILLS >= 100
"""`make crash`; else the quick set."""

HELD_MAX_S = 100.0
"""Less than the function's timeout."""
PARTITIONS = 4
BATCH_SIZE = 50
SESSION_S = 3.0
"""In the place of 10 s: a member that was killed is missed for so long."""

# Group by group of its records, as handlers work: each group is on disk before the next one begins. What fails is named,
# so that the others of its batch are handled once.
HANDLER = """
import base64, json, os, socket, time

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")
record_s, batch_s = float(os.environ["RECORD_S"]), float(os.environ["BATCH_S"])
GROUP = 5


def keep(lines):
    if lines:
        connection.sendall(json.dumps(lines).encode() + b"\\n")
        if answers.readline() != b"kept\\n":
            raise ConnectionError("the ledger is gone")


def handler(event, context):
    lines, failures = [], []
    for records in event["records"].values():
        for record in records:
            body = json.loads(base64.b64decode(record["value"]))
            time.sleep(record_s)
            poison = body.get("poison", False)
            if poison:
                name = f"{record['topic']}-{record['partition']}"
                failures.append({"itemIdentifier": {"topic-partition": name, "offset": record["offset"]}})
            lines.append({
                "id": body["id"], "key": body["key"], "seq": body["seq"], "ok": not poison, "t": time.time(),
                "partition": record["partition"], "offset": record["offset"], "request_id": context.aws_request_id,
            })
            if len(lines) >= GROUP:
                keep(lines)
                lines = []
    keep(lines)
    if batch_s < 0:  # until the test says so
        connection.sendall(b"[]\\n")
        answers.readline()
    time.sleep(max(0.0, batch_s))
    return {"batchItemFailures": failures}
"""

CONFIG = """
runtime = {{ workers_max = {workers} }}
log = {{ level = "info" }}
{settings}
[connections.main]
type = "kafka"
bootstrap_servers = ["{bootstrap}"]

[functions.ledger]
code = "{code}"
handler = "app.handler"
timeout_s = 120
environment = {{ LEDGER = "{ledger}", RECORD_S = "{record_s}", BATCH_S = "{batch_s}" }}

[mappings.load]
source = "kafka://main/{topic}"
function = "ledger"
batch_size = {batch_size}
maximum_batching_window_s = 0
maximum_retry_attempts = 1
function_response_types = ["ReportBatchItemFailures"]
{mapping}
"""


class RecordLedger(LedgerServer):
    """A ledger that gets several lines at once; who sends none waits until it is released."""

    def __init__(self, path: Path) -> None:
        self.released = threading.Event()
        super().__init__(path)

    def close(self) -> None:
        self.released.set()
        super().close()

    def keep(self, line: bytes) -> None:
        if line == b"[]\n":
            self.released.wait(HELD_MAX_S)
            return
        lines = [json.dumps(each).encode() + b"\n" for each in json.loads(line)]
        with self._lock:
            os.write(self._descriptor, b"".join(lines))
            os.fdatasync(self._descriptor)
            self.lines += len(lines)
            self.last_at = time.monotonic()


class KafkaRig:
    """A topic, its load, the daemons that read it and the ledgers, in one folder that is kept when the test fails."""

    def __init__(
        self,
        folder: Path,
        *,
        bootstrap: str,
        on_daemon: Callable[[DaemonProcess], None],
        partitions: int = PARTITIONS,
        workers: int = PARTITIONS,
        batch_size: int = BATCH_SIZE,
        mapping: str = "",
        mutant: str = "none",
    ) -> None:
        self.seed = int(os.environ.get("BRIDGE_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
        self.random = random.Random(self.seed)
        print(f"BRIDGE_CRASH_SEED={self.seed}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.server = RecordLedger(folder / "handled.jsonl")
        self.outside = Outside(bootstrap, group="bridge-load", partitions=partitions)
        self.outside.group = f"bridge-{self.outside.topic}"
        self.watch = MarksWatch(self.outside, folder / "marks.jsonl", lambda: self.server.lines)
        self.daemons: list[DaemonProcess] = []
        self.kills = 0
        self.healed_s: list[float] = []
        """From each restart or heal to the first record that was handled after it."""
        self._mapping, self._mutant = mapping, mutant
        self._batch_size, self._workers = batch_size, workers
        self._on_daemon = on_daemon

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.outside.close)
            stack.callback(self.server.close)
            stack.callback(self.watch.close)
            for daemon in self.daemons:
                stack.callback(daemon.stop)

    def daemon(
        self,
        *,
        mapping: str = "",
        settings: str = "",
        record_s: float = 0.0005,
        batch_s: float = 0.0,
        session_s: float | None = SESSION_S,
        state: Path | None = None,
        **environment: str,
    ) -> DaemonProcess:
        """Return another daemon of the group, not started yet; one with `session_s` None has the settings of a user."""
        folder = self.folder / f"daemon-{len(self.daemons)}"
        config = CONFIG.format(
            workers=self._workers,
            settings=settings,
            bootstrap=self.outside.bootstrap,
            code=write_function(folder / "code", HANDLER),
            ledger=self.server.address,
            record_s=record_s,
            batch_s=batch_s,
            topic=self.outside.topic,
            batch_size=self._batch_size,
            mapping=f'consumer_group_id = "{self.outside.group}"\n{self._mapping}\n{mapping}',
        )
        if session_s is not None:
            environment["BRIDGE_TEST_SESSION_S"] = str(session_s)
        daemon = DaemonProcess(folder, config, environment=environment, command=(LAUNCHER, self._mutant))
        if state is not None:
            daemon.state = state
        self.daemons.append(daemon)
        self._on_daemon(daemon)
        return daemon

    def load(self, **kinds: Any) -> KafkaLoad:
        """Return the load; one a run."""
        return KafkaLoad(self.outside, self.folder / "sent.jsonl", seed=self.seed, **kinds)

    # --- faults -------------------------------------------------------------------------------------------------
    def kill(self, daemon: DaemonProcess) -> None:
        """SIGKILL; returns when its workers have followed, and the brokers were asked what it has committed."""
        self.kills += 1
        daemon.kill9()
        wait_for(lambda: not daemon.survivors(), description="workers follow their daemon within seconds")
        committed = self.outside.committed()
        lines = self.server.lines  # behind the answer: other members go on
        self.watch.samples.append(
            {"t": time.time(), "committed": {str(p): at for p, at in committed.items()}, "lines": lines}
        )

    @contextlib.contextmanager
    def heals(self, timeout_s: float = 120.0, records: int = 1) -> Iterator[None]:
        """Do what heals, then wait until so many more records are handled; the time from one to the other is noted."""
        began = time.monotonic()
        before = self.server.lines
        yield
        wait_for(lambda: self.server.lines > before, timeout_s, "records are handled again")
        self.healed_s.append(time.monotonic() - began)
        if records > 1:
            wait_for(lambda: self.server.lines >= before + records, timeout_s, f"{records} more records are handled")

    # --- judgement ----------------------------------------------------------------------------------------------
    def drain(self, *, timeout_s: float = 300.0) -> None:
        """Return once everything in the topic is committed and the ledger is quiet."""
        ends = {p: at for p, at in self.outside.ends().items() if at}

        def is_done() -> bool:
            if time.monotonic() - self.server.last_at < 1.0:
                return False
            latest = self.watch.samples[-1]["committed"] if self.watch.samples else {}
            return all(latest.get(str(p), 0) >= end for p, end in ends.items())

        wait_for(is_done, timeout_s, "everything in the topic is committed")

    def dead_letters(self) -> list[dict[str, Any]]:
        """Read the dead letters of all daemons back as a user would, record by record."""
        found: list[dict[str, Any]] = []
        for daemon in self.daemons:
            if not daemon.is_running():
                daemon.start()
            answer = daemon.cli("dlq", "list", "--json", "--limit", "1000000")
            assert answer.returncode == 0, answer.stderr
            for letter in map(json.loads, answer.stdout.splitlines()):
                event = daemon.admin("GET", f"/admin/v1/dlq/{letter['id']}").json()["event"]
                for records in event["records"].values():
                    for record in records:
                        place = {"partition": record["partition"], "offset": record["offset"]}
                        found.append(place | {"reason": letter["condition"], "t": letter["dead_at"]})
        return found

    def judge(self, *, by: str = "partition", drains: bool = True) -> dict[str, Any]:
        """Drain, then compare what was sent, what the topic holds, what was handled and committed, and what is dead.

        `by`: whose order is judged, `partition` or `key`.
        """
        if drains:
            self.drain()
        letters = self.dead_letters()
        self.watch.close()
        records = self.outside.records()
        identities = {(each["partition"], each["offset"]): each["id"] for each in records}
        assert len(set(identities.values())) == len(records), "the producer is idempotent"
        handled = ledger.load(self.server.path)
        if by == "partition":
            for line in handled:
                line["key"], line["seq"] = line["partition"], line["offset"]
        dead = [
            {"id": identities[each["partition"], each["offset"]], "reason": each["reason"], "t": each["t"]}
            for each in letters
        ]
        (self.folder / "dlq.jsonl").write_text("".join(json.dumps(letter) + "\n" for letter in dead))
        verdict = ledger.check(ledger.load(self.folder / "sent.jsonl"), handled, dead)
        offsets: dict[int, list[int]] = {}
        for partition, offset in identities:
            bisect.insort(offsets.setdefault(partition, []), offset)
        settled = {(each["partition"], each["offset"]) for each in letters}
        verdict |= marks.check(self.watch.samples, offsets, handled, settled)
        verdict["valid"] &= not (verdict["committed_past_open"] or verdict["committed_back"])
        verdict["kills"] = self.kills
        if self.healed_s:
            verdict["healed_s"] = {
                "median": round(sorted(self.healed_s)[len(self.healed_s) // 2], 2),
                "max": round(max(self.healed_s), 2),
            }
        print(json.dumps(verdict), flush=True)
        return verdict


def assignments(daemon: DaemonProcess) -> int:
    """Return how often the group gave a daemon its shards."""
    return daemon.log().count("shards_assigned")


def share(daemon: DaemonProcess) -> int:
    """Return how many shards the group gave a daemon when it last divided them."""
    given = [
        json.loads(line) for line in daemon.log().splitlines() if '"shards_assigned"' in line and line.endswith("}")
    ]
    return len(given[-1]["shards"]) if given else 0


def outlive_a_rebalance(run: KafkaRig) -> None:
    """Let a batch run longer than a rebalance waits for it, while another member takes its shards and goes further."""
    slow, fast = run.daemon(batch_s=-1, BRIDGE_TEST_REVOKE_S="1"), run.daemon()
    slow.start()
    with run.load(rate=200, limit=500) as load:  # ends before the batch does: its commit would be the last one made
        with run.heals():
            pass
        fast.start()
        load.until(500)
    ends = run.outside.ends()

    def has_gone_further() -> bool:
        """The fast one's half is committed: the slow one has committed nothing yet."""
        latest = run.watch.samples[-1]["committed"] if run.watch.samples else {}
        return sum(latest.get(str(p), 0) >= end > 0 for p, end in ends.items()) >= PARTITIONS // 2

    wait_for(has_gone_further)
    run.server.released.set()
    wait_for(
        lambda: not slow.metrics().get('bridge_running_invocations{function="ledger"}'), description="it has ended"
    )
    time.sleep(2.0)
    run.kill(slow)  # or it would be slow with its share for long


def keeps_its_membership(run: KafkaRig) -> bool:
    """Say whether a daemon whose batches run for twice as long as it may leave unpolled stays the member that it was."""
    interval_s = 3.0
    daemon = run.daemon(batch_s=2 * interval_s, session_s=None, BRIDGE_TEST_POLL_INTERVAL_S=str(interval_s))
    daemon.start()
    with run.load(rate=200, limit=200):
        with run.heals():
            pass
        before = run.outside.members()
        time.sleep(4 * interval_s)
    return before == run.outside.members() and assignments(daemon) == 1
