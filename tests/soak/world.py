"""The soak's world: brokers, two functions, a daemon that everything flows through, and the ledgers that judge it."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.brokers.aws import AwsService
from tests.brokers.emulators import EMULATORS, Emulator
from tests.brokers.kafka import KafkaBroker
from tests.brokers.mosquitto import MosquittoBroker
from tests.crash import ledger
from tests.crash.aws_feeds import DynamoDbFeed, KinesisFeed, Load, SqsFeed
from tests.crash.kafka_rig import RecordLedger
from tests.crash.outside import KafkaLoad, Outside
from tests.harness import DaemonProcess, free_ports, wait_for, write_function
from tests.soak.feeds import MqttPublisher, WebhookSender

PARTITIONS = 4
KEYS = 20
POISON = 0.01
DRAINED_S = 300.0
STREAMS = ("kafka", "kinesis", "dynamodb", "fifo", "telemetry")
"""Feeds whose keys come in order; the others have none."""

# One handler for both functions: it finds the events in whatever shape they come, and each is on disk before the next.
HANDLER = """
import base64, json, os, socket

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def keep(line):
    connection.sendall(json.dumps([line]).encode() + b"\\n")
    if answers.readline() != b"kept\\n":
        raise ConnectionError("the ledger is gone")


def found(event):
    if "records" in event:
        for records in event["records"].values():
            for record in records:
                name = {"topic-partition": f"{record['topic']}-{record['partition']}", "offset": record["offset"]}
                yield "kafka", json.loads(base64.b64decode(record["value"])), name
    for record in event.get("Records", ()):
        source = record["eventSource"]
        if source == "aws:kinesis":
            yield "kinesis", json.loads(base64.b64decode(record["kinesis"]["data"])), record["kinesis"]["sequenceNumber"]
        elif source == "aws:dynamodb":
            item = record["dynamodb"]["NewImage"]
            body = {"id": int(item["id"]["N"]), "key": item["key"]["S"], "seq": int(item["seq"]["N"])}
            yield "dynamodb", body | {"poison": "poison" in item}, record["dynamodb"]["SequenceNumber"]
        elif source == "aws:sqs":
            feed = "fifo" if "MessageGroupId" in record["attributes"] else "sqs"
            yield feed, json.loads(record["body"]), record["messageId"]
        else:
            yield "telemetry", record, record["eventID"]
    if "requestContext" in event:
        yield "webhook", json.loads(event["body"]), None
    elif "id" in event and "seq" in event:
        yield "alarms", event, None


def handler(event, context):
    failures, stops = [], False
    for feed, body, name in found(event):
        if stops:
            failures.append({"itemIdentifier": name})
            continue
        poison = bool(body.get("poison"))
        keep({"feed": feed, "id": body["id"], "key": body["key"], "seq": body["seq"], "ok": not poison})
        if poison and name is None:
            raise ValueError("poison")
        if poison:
            failures.append({"itemIdentifier": name})
            stops = feed != "sqs" and feed != "kafka"
    return {"batchItemFailures": failures}
"""

CONFIG = """
runtime = {{ workers_max = 4 }}
listen = {{ public = "127.0.0.1:{public}", api = "127.0.0.1:{api}" }}
{aws}
{kinesis}
[connections.kafka]
type = "kafka"
bootstrap_servers = ["{kafka}"]

[functions.batches]
code = "{code}"
handler = "app.handler"
timeout_s = 30
environment = {{ LEDGER = "{ledger}" }}

[functions.single]
code = "{code}"
handler = "app.handler"
timeout_s = 30
environment = {{ LEDGER = "{ledger}" }}
event_invoke = {{ retry_delays_s = [0.5, 1], on_failure = "{failed}" }}

[sources.webhook]
type = "webhook"
path = "/soak"
function = "single"
verify = "none"

[sources.alarms]
type = "mqtt"
url = "mqtt://127.0.0.1:{mqtt}"
client_id = "bridge-alarms"
topics = ["alarms/#"]
function = "single"

[sources.telemetry]
type = "mqtt"
url = "mqtt://127.0.0.1:{mqtt}"
client_id = "bridge-telemetry"
topics = ["telemetry/+"]

[mappings.telemetry]
source = "telemetry"
key = "topic"
{shared}

[mappings.kafka]
source = "kafka://kafka/{topic}"
{shared}

[mappings.kinesis]
source = "kinesis://kinesis/{stream}"
starting_position = "TRIM_HORIZON"
{shared}

[mappings.dynamodb]
source = "dynamodb://aws/{table}"
starting_position = "TRIM_HORIZON"
{shared}

[mappings.sqs]
source = "sqs://aws/{queue}"
{of_queue}

[mappings.fifo]
source = "sqs://aws/{fifo}"
{of_queue}
"""
OF_QUEUE = 'function = "batches"\nbatch_size = 10\nfunction_response_types = ["ReportBatchItemFailures"]'
SHARED = OF_QUEUE + "\nmaximum_batching_window_s = 0\nmaximum_retry_attempts = 2"


@dataclass(frozen=True)
class Fed:
    """A feed's load and what may be asked of it."""

    load: Any
    acknowledged: Callable[[], set[int]]


class World:
    """Everything that runs, in one folder; `close` ends it all."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder = folder
        self._exit = contextlib.ExitStack()
        self._seed = seed
        self._returned: list[dict[str, Any]] = []
        with contextlib.ExitStack() as opened:
            self.kafka = KafkaBroker(folder / "kafka").start()
            opened.callback(self.kafka.kill)
            self.mosquitto = MosquittoBroker(folder / "mosquitto").start()
            opened.callback(self.mosquitto.kill)
            self.ministack, self.aws = self._emulator("ministack", opened)
            self.kinesis, self.streams = self._emulator("kinesis-local", opened, region="us-east-2")
            self.server = RecordLedger(folder / "handled.jsonl")
            opened.callback(self.server.close)
            self.outside = Outside(self.kafka.bootstrap, group="bridge-kafka", partitions=PARTITIONS)
            opened.callback(self.outside.close)
            self._make_feeds()
            self.daemon = DaemonProcess(folder / "daemon", self._config())
            opened.callback(self.daemon.stop)
            self.daemon.start()
            self._exit = opened.pop_all()

    def close(self) -> None:
        self._exit.close()

    def _emulator(
        self, name: str, opened: contextlib.ExitStack, *, region: str = "us-east-1"
    ) -> tuple[Emulator, AwsService]:
        emulator = EMULATORS[name](self.folder / name).start()
        opened.callback(emulator.kill)
        service = AwsService(
            emulator.endpoint_url,
            folder=self.folder / f"{name}-clients",
            stem="soak",
            account=emulator.account,
            region=region,
        )
        opened.callback(service.close)
        return emulator, service

    def _make_feeds(self) -> None:
        self.feeds = {
            "kinesis": KinesisFeed(self.streams), "dynamodb": DynamoDbFeed(self.aws),
            "sqs": SqsFeed(self.aws, fifo=False, receives_max=3), "fifo": SqsFeed(self.aws, fifo=True, receives_max=3),
        }  # fmt: skip
        client = self.aws.client("sqs")
        self._failed = str(client.create_queue(QueueName=self.aws.name())["QueueUrl"])

    def _config(self) -> str:
        public, api = free_ports(2)
        arn = self.aws.client("sqs").get_queue_attributes(QueueUrl=self._failed, AttributeNames=["QueueArn"])
        return CONFIG.format(
            public=public,
            api=api,
            aws=self.aws.connection("aws"),
            kinesis=self.streams.connection("kinesis"),
            kafka=self.kafka.bootstrap,
            mqtt=self.mosquitto.port,
            code=write_function(self.folder / "code", HANDLER),
            ledger=self.server.address,
            failed=arn["Attributes"]["QueueArn"],
            topic=self.outside.topic,
            stream=self.feeds["kinesis"].stream,
            table=self.feeds["dynamodb"].table,
            queue=self.feeds["sqs"].name,
            fifo=self.feeds["fifo"].name,
            shared=SHARED,
            of_queue=OF_QUEUE,
        )

    # --- load ---------------------------------------------------------------------------------------------------
    def loads(self, *, rate: float) -> dict[str, Fed]:
        """Return the load of every feed, none of them started: about `rate` events a second each."""
        made: dict[str, Fed] = {}
        for name, feed in self.feeds.items():
            load = Load(feed, self.sent(name), seed=self._seed, rate=rate, keys=KEYS, poison=POISON)
            made[name] = Fed(load, lambda load=load: set(load.acknowledged))
        produced = KafkaLoad(self.outside, self.sent("kafka"), seed=self._seed, rate=rate, keys=KEYS, poison=POISON)
        made["kafka"] = Fed(produced, lambda: {n for n, how in list(produced._outcomes.items()) if how == "ok"})
        kinds = {"rate": rate, "keys": KEYS, "poison": POISON}
        senders = {
            "webhook": WebhookSender(
                self.sent("webhook"), route="/soak", url=lambda: self.daemon.public, seed=f"{self._seed} w", **kinds
            )
        } | {
            name: MqttPublisher(
                self.sent(name), port=self.mosquitto.port, topic=name + "/{key}", seed=f"{self._seed} {name}", **kinds
            )
            for name in ("alarms", "telemetry")
        }
        for name, sender in senders.items():
            made[name] = Fed(sender, lambda sender=sender: set(sender.acknowledged))
        return made

    def sent(self, name: str) -> Path:
        """Return the ledger of what was sent to a feed."""
        return self.folder / f"sent-{name}.jsonl"

    # --- judgement ----------------------------------------------------------------------------------------------
    def handled(self) -> dict[str, list[dict[str, Any]]]:
        """Return the ledger of what was handled, by feed."""
        lines: dict[str, list[dict[str, Any]]] = {}
        for line in ledger.load(self.server.path):
            lines.setdefault(line["feed"], []).append(line)
        return lines

    def dead(self) -> dict[str, list[dict[str, Any]]]:
        """Return what was given up, by feed: local dead letters, redrive policies' queues, the failure target's queue."""
        answer = self.daemon.cli("dlq", "list", "--json", "--limit", "1000000")
        assert answer.returncode == 0, answer.stderr
        found: dict[str, list[dict[str, Any]]] = {}
        for letter in map(json.loads, answer.stdout.splitlines()):
            event = self.daemon.admin("GET", f"/admin/v1/dlq/{letter['id']}").json()["event"]
            for feed, identity in identities(event):
                found.setdefault(feed, []).append({"id": identity, "reason": letter["condition"]})
        for name in ("sqs", "fifo"):
            self._returned += [{"feed": name, "id": event["id"]} for event in self.feeds[name].returned()]
        client = self.aws.client("sqs")
        while messages := client.receive_message(QueueUrl=self._failed, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                payload = json.loads(message["Body"])["requestPayload"]
                self._returned += [{"feed": feed, "id": identity} for feed, identity in identities(payload)]
                client.delete_message(QueueUrl=self._failed, ReceiptHandle=message["ReceiptHandle"])
        for event in self._returned:
            found.setdefault(event["feed"], []).append({"id": event["id"], "reason": "target"})
        return found

    def drain(self, loads: dict[str, Fed]) -> None:
        """Return once everything acknowledged is handled or dead, or after `DRAINED_S`; what is missing is judged then."""

        def is_done() -> bool:
            if time.monotonic() - self.server.last_at < 2.0:
                return False
            handled = {name: {line["id"] for line in lines if line["ok"]} for name, lines in self.handled().items()}
            missing = {name: fed.acknowledged() - handled.get(name, set()) for name, fed in loads.items()}
            if not any(missing.values()):
                return True
            dead = {name: {letter["id"] for letter in letters} for name, letters in self.dead().items()}
            return all(left <= dead.get(name, set()) for name, left in missing.items())

        with contextlib.suppress(AssertionError):
            wait_for(is_done, DRAINED_S, "everything sent is handled or dead")

    def judge(self, loads: dict[str, Fed]) -> dict[str, dict[str, Any]]:
        """Drain, then compare the ledgers of every feed."""
        self.drain(loads)
        handled, dead = self.handled(), self.dead()
        verdicts: dict[str, dict[str, Any]] = {}
        for name in loads:
            lines = handled.get(name, [])
            if name not in STREAMS:
                lines = [line | {"key": line["id"]} for line in lines]
            verdicts[name] = ledger.check(ledger.load(self.sent(name)), lines, dead.get(name, []))
        return verdicts


def identities(event: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the feed and the number of every event in an event, as the handler finds them."""
    scope: dict[str, Any] = {}
    source = HANDLER[HANDLER.index("def found") : HANDLER.index("def handler")]
    exec(compile("import base64, json\n" + source, "handler", "exec"), scope)  # noqa: S102 - our own text above
    return [(feed, int(body["id"])) for feed, body, _ in scope["found"](event)]
