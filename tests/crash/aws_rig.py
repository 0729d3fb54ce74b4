"""A daemon that reads a source of AWS under load, judged by the ledger: what was put, handled, dead, and in which order."""

import base64
import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.crash import ledger
from tests.crash.aws_feeds import BATCH, Feed, Load
from tests.crash.kafka_rig import LAUNCHER, RecordLedger
from tests.harness import DaemonProcess, wait_for, write_function

WORKERS = 4
QUIET_S = 1.5

# As handlers work: what failed is named, and behind it only a standard queue goes on. Each group is on disk before the
# next one begins.
HANDLER = """
import base64, json, os, socket, time

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")
record_s = float(os.environ["RECORD_S"])
GROUP = 5


def keep(lines):
    if lines:
        connection.sendall(json.dumps(lines).encode() + b"\\n")
        if answers.readline() != b"kept\\n":
            raise ConnectionError("the ledger is gone")


def read(record):
    source = record["eventSource"]
    if source == "aws:kinesis":
        found = record["kinesis"]
        return json.loads(base64.b64decode(found["data"])), record["eventID"].split(":")[0], found["sequenceNumber"]
    if source == "aws:dynamodb":
        item = record["dynamodb"]["NewImage"]
        body = {"id": int(item["id"]["N"]), "key": item["key"]["S"], "seq": int(item["seq"]["N"]), "poison": "poison" in item}
        return body, "table", record["dynamodb"]["SequenceNumber"]
    body = json.loads(record["body"])
    return body, record["attributes"].get("MessageGroupId", str(body["id"])), record["messageId"]


def handler(event, context):
    lines, failures, stopped = [], [], False
    for record in event["Records"]:
        body, shard, identifier = read(record)
        if stopped:
            failures.append({"itemIdentifier": identifier})
            continue
        time.sleep(record_s)
        poison = body.get("poison", False)
        if poison:
            failures.append({"itemIdentifier": identifier})
            stopped = "MessageGroupId" in record.get("attributes", ()) or record["eventSource"] != "aws:sqs"
        lines.append({
            "id": body["id"], "key": body["key"], "seq": body["seq"], "ok": not poison, "t": time.time(),
            "shard": shard, "position": identifier, "request_id": context.aws_request_id,
        })
        if len(lines) >= GROUP:
            keep(lines)
            lines = []
    keep(lines)
    return {"batchItemFailures": failures}
"""

CONFIG = """
runtime = {{ workers_max = {workers} }}
log = {{ level = "info" }}
{settings}
{connection}
[functions.ledger]
code = "{code}"
handler = "app.handler"
timeout_s = 3
environment = {{ LEDGER = "{ledger}", RECORD_S = "{record_s}" }}

[mappings.load]
source = "{source}"
function = "ledger"
batch_size = {batch_size}
maximum_batching_window_s = 0
function_response_types = ["ReportBatchItemFailures"]
{mapping}
"""


class AwsRig:
    """A source, its load, a daemon that reads it and the ledgers, in one folder that is kept when the test fails."""

    def __init__(
        self,
        folder: Path,
        *,
        feed: Feed,
        on_daemon: Callable[[DaemonProcess], None],
        connection: str = "",
        mapping: str = "",
        settings: str = "",
        batch_size: int = BATCH,
        record_s: float = 0.0005,
        mutant: str = "none",
        **environment: str,
    ) -> None:
        self.seed = int(os.environ.get("BRIDGE_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
        self.random = random.Random(self.seed)
        print(f"BRIDGE_CRASH_SEED={self.seed}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.feed = feed
        self.server = RecordLedger(folder / "handled.jsonl")
        self.kills = 0
        self.healed_s: list[float] = []
        """From each restart or heal to the first record that was handled after it."""
        self._load: Load | None = None
        self._returned: list[dict[str, Any]] = []
        config = CONFIG.format(
            workers=WORKERS,
            settings=settings,
            connection=connection or feed.service.connection(),
            code=write_function(folder / "code", HANDLER),
            ledger=self.server.address,
            record_s=record_s,
            source=feed.source,
            batch_size=batch_size,
            mapping=feed.extra + mapping,
        )
        environment = {"BRIDGE_TEST_QUEUE_S": "1"} | environment
        self.daemon = DaemonProcess(folder / "daemon", config, environment=environment, command=(LAUNCHER, mutant))
        on_daemon(self.daemon)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.server.close)
            stack.callback(self.daemon.stop)

    def load(self, **kinds: Any) -> Load:
        """Return the load; one a run."""
        assert self._load is None
        self._load = Load(self.feed, self.folder / "sent.jsonl", seed=self.seed, **kinds)
        return self._load

    # --- faults -------------------------------------------------------------------------------------------------
    def kill(self) -> None:
        """SIGKILL; returns when its workers have followed."""
        self.kills += 1
        self.daemon.kill9()
        wait_for(lambda: not self.daemon.survivors(), description="workers follow their daemon within seconds")

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

    def kill_under_load(self, kills: int, *, records: int = 100) -> None:
        """Kill and restart so often, at random moments, some of them again before it is ready."""
        while self.kills < kills:
            time.sleep(self.random.uniform(0.0, 0.5))
            self.kill()
            if self.kills % 3 == 2 and self.kills < kills:
                self.daemon.start(ready=False)
                time.sleep(self.random.uniform(0.0, 1.0))
                self.kill()
            with self.heals(records=self.random.randrange(1, records)):
                self.daemon.restart()

    # --- judgement ----------------------------------------------------------------------------------------------
    def drain(self, *, timeout_s: float) -> None:
        """Return once every acknowledged event is handled or dead, and the ledger is quiet."""
        load = self._load
        assert load is not None

        def missing() -> set[int]:
            done = {line["id"] for line in ledger.load(self.server.path) if line["ok"]}
            return load.acknowledged - done

        def is_done() -> bool:
            if time.monotonic() - self.server.last_at < QUIET_S or not self.feed.is_empty():
                return False
            return not (left := missing()) or left <= {letter["id"] for letter in self.dead_letters()}

        try:
            wait_for(is_done, timeout_s, "everything put is handled or dead")
        except AssertionError:
            print(f"missing: {sorted(missing())[:20]}", flush=True)

    def dead_letters(self) -> list[dict[str, Any]]:
        """Read the dead letters back as a user would, record by record; those of a redrive policy from their queue."""
        answer = self.daemon.cli("dlq", "list", "--json", "--limit", "1000000")
        assert answer.returncode == 0, answer.stderr
        found: list[dict[str, Any]] = []
        for letter in map(json.loads, answer.stdout.splitlines()):
            shown = self.daemon.admin("GET", f"/admin/v1/dlq/{letter['id']}")
            if shown.status == 404:
                continue  # delivered since it was listed: whoever it went to has it
            said = {"reason": letter["condition"], "t": letter["dead_at"]}
            found += [{"id": event_id(record)} | said for record in shown.json()["event"]["Records"]]
        self._returned += self.feed.returned()
        return found + [{"id": event["id"], "reason": "redrive policy"} for event in self._returned]

    def judge(self, *, by: str = "key", patience_s: float = 300.0) -> dict[str, Any]:
        """Drain, then compare what was put, handled, and is dead; `by`: whose order is judged, `shard`, `key` or `none`."""
        self.drain(timeout_s=patience_s)
        dead = self.dead_letters()
        handled = ledger.load(self.server.path)
        for line in handled:
            if by == "shard":
                line["key"], line["seq"] = line["shard"], int(line["position"])
            elif by == "none":
                line["key"] = line["id"]
        (self.folder / "dlq.jsonl").write_text("".join(json.dumps(letter) + "\n" for letter in dead))
        verdict = ledger.check(ledger.load(self.folder / "sent.jsonl"), handled, dead)
        verdict["kills"] = self.kills
        if self.healed_s:
            verdict["healed_s"] = {
                "median": round(sorted(self.healed_s)[len(self.healed_s) // 2], 2),
                "max": round(max(self.healed_s), 2),
            }
        print(json.dumps(verdict), flush=True)
        return verdict


def event_id(record: dict[str, Any]) -> int:
    """Return the id of the event that a record carries."""
    if record["eventSource"] == "aws:kinesis":
        return int(json.loads(base64.b64decode(record["kinesis"]["data"]))["id"])
    if record["eventSource"] == "aws:dynamodb":
        return int(record["dynamodb"]["NewImage"]["id"]["N"])
    return int(json.loads(record["body"])["id"])
