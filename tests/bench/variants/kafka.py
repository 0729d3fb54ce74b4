"""Ours: a daemon between a full Kafka topic and a local function; and its memory while nothing gets on."""

import time
from pathlib import Path

from tests.bench.kafka_topics import Topic, cpu_s, full_topic, grow
from tests.bench.measure import scratch
from tests.harness import DaemonProcess, wait_for, write_function

CONFIG = """
log = {{ level = "warning" }}
runtime = {{ workers_max = 1 }}

[connections.bench]
type = "kafka"
bootstrap_servers = ["{bootstrap}"]

[functions.bench]
code = "{code}"
handler = "app.handler"
timeout_s = 900

[mappings.bench]
source = "kafka://bench/{topic}"
function = "bench"
consumer_group_id = "{topic}-{serial}"
batch_size = 100
"""
HANDLER = "def handler(event, context):\n    return None\n"
FAILING = "def handler(event, context):\n    raise ValueError('not today')\n"
HANDLED = 'bridge_records_total{mapping="bench",outcome="handled"}'
START_MAX_S = 30.0
FAILED = 'bridge_batches_total{mapping="bench",status="function_error"}'
LOOK_S = 0.25
SETTLED = 12
"""Looks at the memory in a row that must be alike."""
GROWTH = 400_000
GROWING_VALUE_BYTES = 1024


def pipeline(topic: Topic, seconds: float) -> dict[str, float]:
    """Kafka, batches of 100, one local worker, commits: from the first handled records on."""
    with scratch() as folder:
        process = _daemon(folder, topic, HANDLER)
        try:
            wait_for(lambda: process.metrics().get(HANDLED, 0) > 0, START_MAX_S, "records are handled")
            began, first, cpu = time.perf_counter(), _handled(process), _cpu(process, topic)
            time.sleep(seconds)
            took, handled, used = time.perf_counter() - began, _handled(process), _cpu(process, topic)
            # At the end of a topic the last records wait for their batching window.
            assert handled < 0.99 * topic.records, "the topic has too few records for so many seconds"
            records = handled - first
            us = {name: (used[name] - cpu[name]) / records * 1e6 for name in cpu}
            return {"per_s": records / took, "records": records, "cpu_us": us["daemon"], **us}
        finally:
            _end(process)


def blocked() -> dict[str, float]:
    """Resident memory of a daemon whose shards are blocked, before and after their topic has grown tenfold."""
    with full_topic(records=GROWTH // 10, value_bytes=GROWING_VALUE_BYTES) as topic, scratch() as folder:
        process = _daemon(folder, topic, FAILING)
        try:
            wait_for(lambda: process.metrics().get(FAILED, 0) > 0, START_MAX_S, "the function fails")
            grow(topic, records=GROWTH // 10)
            before = _settled_rss_mib(process)
            grow(topic, records=GROWTH)
            return {"before_mib": before, "after_mib": _settled_rss_mib(process)}
        finally:
            _end(process)


def _settled_rss_mib(process: DaemonProcess) -> float:
    """Return the resident memory once it has not changed by a MiB for some seconds."""
    seen = [process.rss_mib()]
    while len(seen) < SETTLED or max(seen[-SETTLED:]) - min(seen[-SETTLED:]) > 1:
        assert len(seen) < 20 * SETTLED, f"the daemon's memory does not come to rest: {seen}"
        time.sleep(LOOK_S)
        seen.append(process.rss_mib())
    return seen[-1]


def _end(process: DaemonProcess) -> None:
    process.kill9()
    wait_for(lambda: not process.survivors(), 5, "workers follow their daemon")


def _daemon(folder: Path, topic: Topic, handler: str) -> DaemonProcess:
    code = write_function(folder / "code", handler)
    config = CONFIG.format(code=code, bootstrap=topic.bootstrap, topic=topic.name, serial=time.time_ns())
    return DaemonProcess(folder, config).start()


def _handled(process: DaemonProcess) -> float:
    return process.metrics().get(HANDLED, 0)


def _cpu(process: DaemonProcess, topic: Topic) -> dict[str, float]:
    return {
        "daemon": cpu_s(process.pid),
        "workers": sum(cpu_s(each.pid) for each in process.descendants()),
        "broker": cpu_s(topic.broker_pid) if topic.broker_pid else 0.0,
    }
