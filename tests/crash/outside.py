"""The outside of a Kafka mapping: a producer that notes what was acknowledged, and a watch over committed offsets."""

import asyncio
import contextlib
import json
import random
import threading
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from tests.brokers.clients import create_topic, kcat
from tests.harness import wait_for

SAMPLE_S = 0.1
FLUSH_S = 150.0
"""Longer than any broker of a test is away."""
STARTED_S = 60.0
LANDED_S = 300.0
ASKED_S = 10.0
"""Then a broker is asked again, with a new client: it may have gone meanwhile."""
PACE_RECORDS = 10


class Outside:
    """A loop in a thread of its own, and what of Kafka's clients a test needs on it."""

    def __init__(self, bootstrap: str, *, group: str, partitions: int) -> None:
        self.bootstrap = bootstrap
        self.topic = f"load-{uuid.uuid4().hex[:8]}"
        self.group = group
        self.partitions = partitions
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.run(create_topic(bootstrap, self.topic, partitions=partitions, configs={"retention.ms": "-1"}))

    def run(self, work: Coroutine[Any, Any, Any], timeout_s: float = 60.0) -> Any:
        """Run a coroutine there and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def begin(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Start a coroutine there; its future may be cancelled or asked for."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- questions ----------------------------------------------------------------------------------------------
    def committed(self) -> dict[int, int]:
        """Return the group's committed offset of every partition that has one."""

        async def ask() -> dict[int, int]:
            async with administration(self.bootstrap) as admin:
                return await committed(admin, self.group, self.topic)

        return self.run(ask())

    def ends(self) -> dict[int, int]:
        """Return the end of every partition."""

        async def ask() -> dict[int, int]:
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
            await consumer.start()
            try:
                found = await consumer.end_offsets([TopicPartition(self.topic, p) for p in range(self.partitions)])
            finally:
                await consumer.stop()
            return {each.partition: offset for each, offset in found.items()}

        return self.run(ask())

    def records(self) -> list[dict[str, Any]]:
        """Return what the topic really holds, read by kcat: partition, offset and the record's own fields."""
        printed = kcat(self.bootstrap, "-C", "-t", self.topic, "-o", "beginning", "-e", "-q", "-f", "%p %o %s\n")
        lines = (line.split(b" ", 2) for line in printed.splitlines())
        return [{"partition": int(p), "offset": int(o)} | json.loads(value) for p, o, value in lines]

    def members(self) -> tuple[str, ...]:
        """Return the ids of the group's members."""

        async def ask() -> tuple[str, ...]:
            async with administration(self.bootstrap) as admin:
                (answer,) = await admin.describe_consumer_groups([self.group])
            (found,) = answer.to_object()["groups"]
            return tuple(sorted(member["member_id"] for member in found["members"]))

        return self.run(ask())

    # --- members ------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def member(self, session_s: float) -> Any:
        """A foreign member of the group: it takes its share, handles nothing, commits nothing, and leaves."""

        async def join() -> AIOKafkaConsumer:
            consumer = AIOKafkaConsumer(
                self.topic,
                bootstrap_servers=self.bootstrap,
                group_id=self.group,
                client_id="foreign",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=round(session_s * 1000),
                heartbeat_interval_ms=200,
                partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            )
            await consumer.start()  # returns once the group has divided its partitions
            return consumer

        consumer = self.run(join(), 60)
        try:
            yield consumer
        finally:
            self.run(consumer.stop(), 60)


@contextlib.asynccontextmanager
async def administration(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def committed(admin: AIOKafkaAdminClient, group: str, topic: str) -> dict[int, int]:
    """Return committed offsets by partition, those without one left out."""
    found = await admin.list_consumer_group_offsets(group)
    return {each.partition: at.offset for each, at in found.items() if each.topic == topic and at.offset >= 0}


class KafkaLoad:
    """An idempotent producer; `ok` is written to sent.jsonl only behind the broker's acknowledgement."""

    def __init__(
        self,
        outside: Outside,
        path: Path,
        *,
        seed: int,
        rate: float,
        keys: int = 40,
        poison: float = 0.0,
        first: int = 1,
        limit: int = 0,
    ) -> None:
        self._outside = outside
        self._path = path
        self._chance = random.Random(seed)
        self._rate, self._poison, self._limit = rate, poison, limit
        self._keys = keys
        self._outcomes: dict[int, str] = {}
        self._events: list[dict[str, Any]] = []
        self._first = first
        self._stop = threading.Event()
        self._started = threading.Event()
        self._future: Any = None

    def __enter__(self) -> Self:
        self._future = self._outside.begin(self._produce())
        assert self._started.wait(STARTED_S), "the producer does not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._future.result(FLUSH_S)

    @property
    def sent(self) -> int:
        """Records given to the producer up to now."""
        return len(self._events)

    @property
    def acknowledged(self) -> int:
        return sum(outcome == "ok" for outcome in list(self._outcomes.values()))

    def until(self, count: int) -> None:
        """Go on until so many records in all are acknowledged: enough to say something, however slow the machine."""
        wait_for(lambda: self.acknowledged >= count, LANDED_S, f"{count} records are acknowledged")

    async def _produce(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._outside.bootstrap,
            enable_idempotence=True,
            acks="all",
            linger_ms=5,
            request_timeout_ms=round(FLUSH_S * 1000),
            retry_backoff_ms=100,
        )
        await producer.start()
        self._started.set()
        acknowledgements: list[asyncio.Future[Any]] = []
        try:
            began = time.monotonic()
            while not self._stop.is_set() and (not self._limit or self.sent < self._limit):
                event = self._next()
                self._events.append(event)
                try:
                    sending = await producer.send(
                        self._outside.topic, json.dumps(event).encode(), key=event["key"].encode()
                    )
                except KafkaError:
                    self._outcomes[event["id"]] = "unknown"
                    continue
                sending.add_done_callback(lambda done, n=event["id"]: self._note(n, done))
                acknowledgements.append(sending)
                if self.sent % PACE_RECORDS == 0:
                    await asyncio.sleep(max(0.0, began + self.sent / self._rate - time.monotonic()))
                    if time.monotonic() - began > 1.5 * self.sent / self._rate + 1.0:
                        began = time.monotonic() - self.sent / self._rate  # a broker was away: no burst to catch up
            await asyncio.gather(*acknowledgements, return_exceptions=True)
        finally:
            await producer.stop()
            with self._path.open("a") as file:
                for event in self._events:
                    line = {k: event[k] for k in ("id", "key", "seq")}
                    file.write(json.dumps(line | {"outcome": self._outcomes.get(event["id"], "unknown")}) + "\n")

    def _next(self) -> dict[str, Any]:
        number = self._first + len(self._events)
        event: dict[str, Any] = {"id": number, "key": f"key-{number % self._keys}", "seq": number}
        if self._chance.random() < self._poison:
            event["poison"] = True
        return event

    def _note(self, number: int, done: "asyncio.Future[Any]") -> None:
        self._outcomes[number] = "ok" if not done.cancelled() and done.exception() is None else "unknown"


class MarksWatch:
    """Asks every `SAMPLE_S` what is committed, and how many lines the ledger has once the answer is there."""

    def __init__(self, outside: Outside, path: Path, lines: Any) -> None:
        self._outside = outside
        self._path = path
        self._lines = lines
        self.samples: list[dict[str, Any]] = []
        self._future = outside.begin(self._watch())

    def close(self) -> None:
        if not self._future.done():
            self._future.cancel()
            wait_for(self._future.done, description="the watch over committed offsets ends")
        self._path.write_text("".join(json.dumps(sample) + "\n" for sample in self.samples))

    async def _watch(self) -> None:
        while True:
            # A broker that is away, or one that has just come back: asked again with a new client.
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with administration(self._outside.bootstrap) as admin:
                    while True:
                        async with asyncio.timeout(ASKED_S):
                            found = await committed(admin, self._outside.group, self._outside.topic)
                        sample = {"t": time.time(), "committed": {str(p): at for p, at in found.items()}}
                        self.samples.append(sample | {"lines": self._lines()})
                        await asyncio.sleep(SAMPLE_S)
            await asyncio.sleep(SAMPLE_S)
