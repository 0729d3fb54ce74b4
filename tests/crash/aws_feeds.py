"""What of AWS a daemon reads under load: streams, tables and queues of a test's own, and the producer that notes outcomes."""

import json
import random
import threading
import time
from pathlib import Path
from typing import Any, Protocol, Self

from botocore.exceptions import BotoCoreError, ClientError

from tests.brokers.aws import AwsService
from tests.harness import wait_for

ACTIVE_MAX_S = 60.0
BATCH = 10
"""Records a call, and of a batch: what a FIFO queue takes."""


class Feed(Protocol):
    """A source that is put to by an outside client."""

    service: AwsService
    source: str
    """As a mapping names it."""
    extra: str
    """Parameters of its mapping."""

    def put(self, events: list[dict[str, Any]]) -> list[str]:
        """Put events in their order; returns the outcome of each: ok, fail or unknown."""
        ...

    def returned(self) -> list[dict[str, Any]]:
        """Return the events that the service has put aside itself (a redrive policy)."""
        ...

    def is_empty(self) -> bool:
        """Say whether the service has nothing more to give; streams keep what they have."""
        ...


class KinesisFeed:
    """A stream; `split` and `merge` as an operator does it."""

    def __init__(self, service: AwsService, *, shards: int = 2) -> None:
        self.service = service
        self.client = service.client("kinesis")
        self.stream = service.name()
        self.client.create_stream(StreamName=self.stream, ShardCount=shards)
        self.wait_active()
        self.source = f"kinesis://aws/{self.stream}"
        self.extra = (
            'starting_position = "TRIM_HORIZON"\nmaximum_retry_attempts = 1\nbisect_batch_on_function_error = true\n'
        )

    def wait_active(self) -> None:
        def is_active() -> bool:
            facts = self.client.describe_stream_summary(StreamName=self.stream)["StreamDescriptionSummary"]
            return facts["StreamStatus"] == "ACTIVE"

        wait_for(is_active, ACTIVE_MAX_S, "the stream is active")

    def put(self, events: list[dict[str, Any]]) -> list[str]:
        records = [{"Data": json.dumps(event).encode(), "PartitionKey": event["key"]} for event in events]
        answer = self.client.put_records(StreamName=self.stream, Records=records)
        return ["unknown" if record.get("ErrorCode") else "ok" for record in answer["Records"]]

    def returned(self) -> list[dict[str, Any]]:
        return []

    def is_empty(self) -> bool:
        return True

    def places(self) -> dict[int, tuple[str, int]]:
        """Return what the stream really holds: the shard and the sequence number of every event."""
        found: dict[int, tuple[str, int]] = {}
        for shard in self.client.list_shards(StreamName=self.stream)["Shards"]:
            name = shard["ShardId"]
            iterator = self.client.get_shard_iterator(
                StreamName=self.stream, ShardId=name, ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while iterator:
                answer = self.client.get_records(ShardIterator=iterator)
                for record in answer["Records"]:
                    found[json.loads(record["Data"])["id"]] = (name, int(record["SequenceNumber"]))
                iterator = answer.get("NextShardIterator") if answer["MillisBehindLatest"] else None
        return found

    def open_shards(self) -> list[dict[str, Any]]:
        """Return the shards that are written to, by their range."""
        shards = self.client.list_shards(StreamName=self.stream)["Shards"]
        found = [shard for shard in shards if not shard["SequenceNumberRange"].get("EndingSequenceNumber")]
        return sorted(found, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def split(self) -> None:
        """Split the widest shard in the middle."""

        def width(shard: dict[str, Any]) -> int:
            return int(shard["HashKeyRange"]["EndingHashKey"]) - int(shard["HashKeyRange"]["StartingHashKey"])

        widest = max(self.open_shards(), key=width)
        middle = int(widest["HashKeyRange"]["StartingHashKey"]) + width(widest) // 2
        self._reshard("split_shard", ShardToSplit=widest["ShardId"], NewStartingHashKey=str(middle))

    def merge(self) -> None:
        """Merge the first two shards that lie beside each other."""
        first, second, *_ = self.open_shards()
        self._reshard("merge_shards", ShardToMerge=first["ShardId"], AdjacentShardToMerge=second["ShardId"])

    def _reshard(self, operation: str, **arguments: str) -> None:
        before = len(self.client.list_shards(StreamName=self.stream)["Shards"])
        getattr(self.client, operation)(StreamName=self.stream, **arguments)
        wait_for(
            lambda: len(self.client.list_shards(StreamName=self.stream)["Shards"]) > before, ACTIVE_MAX_S, operation
        )
        self.wait_active()


class DynamoDbFeed:
    """A table with a stream; every event is a change of the item of its key, so that order shows per item."""

    def __init__(self, service: AwsService) -> None:
        self.service = service
        self.client = service.client("dynamodb")
        self.table = service.name()
        self.client.create_table(
            TableName=self.table, BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )  # fmt: skip
        self.source = f"dynamodb://aws/{self.table}"
        self.extra = (
            'starting_position = "TRIM_HORIZON"\nmaximum_retry_attempts = 1\nbisect_batch_on_function_error = true\n'
        )

    def put(self, events: list[dict[str, Any]]) -> list[str]:
        for event in events:
            item = {"id": {"N": str(event["id"])}, "key": {"S": event["key"]}, "seq": {"N": str(event["seq"])}}
            if event.get("poison"):
                item["poison"] = {"BOOL": True}
            self.client.put_item(TableName=self.table, Item=item)
        return ["ok"] * len(events)

    def returned(self) -> list[dict[str, Any]]:
        return []

    def is_empty(self) -> bool:
        return True


class SqsFeed:
    """A queue with a redrive policy, standard or FIFO with the event's key as the message group."""

    def __init__(self, service: AwsService, *, fifo: bool, visibility_s: int = 5, receives_max: int = 100) -> None:
        self.service = service
        self.fifo = fifo
        self.client = service.client("sqs")
        self.name = service.name(".fifo" if fifo else "")
        self.dead = self._create(service.name(".fifo" if fifo else ""), {})
        policy = {"deadLetterTargetArn": self._arn(self.dead), "maxReceiveCount": str(receives_max)}
        self.url = self._create(
            self.name, {"VisibilityTimeout": str(visibility_s), "RedrivePolicy": json.dumps(policy)}
        )
        self.source = f"sqs://aws/{self.name}"
        self.extra = ""

    def put(self, events: list[dict[str, Any]]) -> list[str]:
        entries = [{"Id": str(event["id"]), "MessageBody": json.dumps(event)} for event in events]
        if self.fifo:
            for entry, event in zip(entries, events, strict=True):
                entry |= {"MessageGroupId": event["key"], "MessageDeduplicationId": str(event["id"])}
        answer = self.client.send_message_batch(QueueUrl=self.url, Entries=entries)
        taken = {entry["Id"] for entry in answer.get("Successful", [])}
        return ["ok" if str(event["id"]) in taken else "unknown" for event in events]

    def returned(self) -> list[dict[str, Any]]:
        """Receive all of the dead-letter queue; what is taken from it is remembered by the caller."""
        found: list[dict[str, Any]] = []
        while messages := self.client.receive_message(QueueUrl=self.dead, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                found.append(json.loads(message["Body"]))
                self.client.delete_message(QueueUrl=self.dead, ReceiptHandle=message["ReceiptHandle"])
        return found

    def is_empty(self) -> bool:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return not any(int(found[name]) for name in names)

    def _create(self, name: str, attributes: dict[str, str]) -> str:
        if self.fifo:
            attributes = attributes | {"FifoQueue": "true"}
        return str(self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])

    def _arn(self, url: str) -> str:
        found = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(found["Attributes"]["QueueArn"])


class Load:
    """A thread that puts events in batches, key by key in order; `ok` is written only behind the service's answer."""

    def __init__(
        self, feed: Feed, path: Path, *, seed: int, rate: float, keys: int = 20, poison: float = 0.0, limit: int = 0
    ) -> None:
        self._feed, self._path = feed, path
        self._chance = random.Random(seed)
        self._rate, self._keys, self._poison, self._limit = rate, keys, poison, limit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.poisoned: set[int] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_done(self, timeout_s: float = 60.0) -> None:
        """Return once `limit` events are put."""
        wait_for(lambda: not self._thread.is_alive(), timeout_s, "everything is put")

    def _run(self) -> None:
        with self._path.open("a") as file:
            while not self._stop.is_set() and (not self._limit or self.sent < self._limit):
                began = time.monotonic()
                events = [self._next() for _ in range(BATCH)]
                try:
                    outcomes = self._feed.put(events)
                except (BotoCoreError, ClientError) as error:
                    print(f"put: {error}", flush=True)
                    outcomes = ["unknown"] * len(events)
                for event, outcome in zip(events, outcomes, strict=True):
                    line = {name: event[name] for name in ("id", "key", "seq")} | {"outcome": outcome}
                    file.write(json.dumps(line) + "\n")
                    if outcome == "ok":
                        self.acknowledged.add(event["id"])
                file.flush()
                self._stop.wait(max(0.0, began + BATCH / self._rate - time.monotonic()))

    def _next(self) -> dict[str, Any]:
        self.sent += 1
        event: dict[str, Any] = {"id": self.sent, "key": f"key-{self.sent % self._keys}", "seq": self.sent}
        if self._chance.random() < self._poison:
            event["poison"] = True
            self.poisoned.add(self.sent)
        return event
