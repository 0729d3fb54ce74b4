"""Apache Kafka with topics that are full before anything is measured, so that the broker only hands out."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.measure import scratch
from tests.brokers.clients import create_topic, delete_topics
from tests.brokers.kafka import KafkaBroker

PARTITIONS = 4
_WRITTEN = 20_000
"""Records of the file that is put into every partition again and again."""
_FILLING = b"abcdefghijklmnopqrstuvwxyz0123456789" * 64


@dataclass(slots=True, kw_only=True)
class Topic:
    """A topic with keyed JSON records in it."""

    bootstrap: str
    name: str
    file: Path
    """What is put into each partition, again and again."""
    broker_pid: int | None
    """None: a broker of someone else's."""
    records: int = 0


@contextlib.contextmanager
def broker() -> Iterator[tuple[str, int | None]]:
    """Give a broker's address and process id: that of BRIDGE_TEST_KAFKA, or one started here."""
    if address := os.environ.get("BRIDGE_TEST_KAFKA", ""):
        yield address, None
        return
    with scratch() as folder:
        node = KafkaBroker(folder / "kafka").start()
        assert node.process is not None
        try:
            yield node.bootstrap, node.process.pid
        finally:
            node.kill()


@contextlib.contextmanager
def full_topic(*, records: int, value_bytes: int) -> Iterator[Topic]:
    """Give a broker with one topic of about `records` keyed records, evenly over its partitions."""
    with broker() as (bootstrap, pid), scratch() as folder:
        file = folder / "records"
        file.write_bytes(b"".join(b"key%d:%b\n" % (n % 1000, _value(n, value_bytes)) for n in range(_WRITTEN)))
        name = f"bench-{value_bytes}-{time.time_ns()}"
        topic = Topic(bootstrap=bootstrap, name=name, file=file, broker_pid=pid)
        asyncio.run(create_topic(bootstrap, name, partitions=PARTITIONS, configs={"retention.ms": "-1"}))
        grow(topic, records=records)
        try:
            yield topic
        finally:
            if pid is None:
                asyncio.run(delete_topics(bootstrap, [name]))


def grow(topic: Topic, *, records: int) -> None:
    """Put about `records` more into a topic, evenly over its partitions."""
    times = max(1, round(records / _WRITTEN / PARTITIONS))
    for partition in range(PARTITIONS):
        with subprocess.Popen(["cat", *[str(topic.file)] * times], stdout=subprocess.PIPE) as cat:
            subprocess.run(
                ["kcat", "-b", topic.bootstrap, "-P", "-t", topic.name, "-p", str(partition), "-K", ":",
                 "-X", "linger.ms=20", "-X", "batch.num.messages=2000"],
                stdin=cat.stdout, check=True,
            )  # fmt: skip
    topic.records += times * _WRITTEN * PARTITIONS


def _value(number: int, size: int) -> bytes:
    head = b'{"number":%d,"text":"' % number
    return head + _FILLING[: size - len(head) - 2] + b'"}'


def cpu_s(pid: int) -> float:
    """Return the seconds that a process has run so far, its ended threads too; 0 when it has gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
