"""Ours: a daemon that stores and acknowledges what waits at a broker, and hands it to a function in batches."""

import time

from tests.bench.kafka_topics import cpu_s
from tests.bench.measure import scratch
from tests.bench.mqtt_topics import CLIENT, TOPIC, full_broker
from tests.harness import DaemonProcess, wait_for, write_function

CONFIG = """
log = {{ level = "warning" }}
runtime = {{ workers_max = 1 }}

[functions.bench]
code = "{code}"
handler = "app.handler"
timeout_s = 60

[sources.bench]
type = "mqtt"
url = "{url}"
topics = ["{topic}"]
client_id = "{client}"

[mappings.bench]
source = "bench"
function = "bench"
key = "topic"
shards = 1
batch_size = 100
maximum_batching_window_s = 5
enabled = {enabled}
"""
HANDLER = "def handler(event, context):\n    return None\n"
STORED = 'bridge_events_accepted_total{source="bench",type="Event"}'
HANDLED = 'bridge_records_total{mapping="bench",outcome="handled"}'
DONE_MAX_S = 120.0


def daemon(messages: int, *, handles: bool) -> dict[str, float]:
    """Return messages per second, from the first to the last stored one, or handled one."""
    sample = HANDLED if handles else STORED
    with scratch() as folder, full_broker(folder / "mosquitto", messages) as broker:
        config = CONFIG.format(
            code=write_function(folder / "code", HANDLER), url=broker.url, topic=TOPIC, client=CLIENT,
            enabled=str(handles).lower(),
        )  # fmt: skip
        process = DaemonProcess(folder / "daemon", config).start()
        try:

            def done() -> int:
                return int(process.metrics().get(sample, 0))

            first = wait_for(done, DONE_MAX_S, "messages come")
            began, cpu = time.perf_counter(), cpu_s(process.pid)
            while (count := done()) < messages:
                assert time.perf_counter() < began + DONE_MAX_S, f"{count} of {messages}\n{process.log_tail()}"
                time.sleep(0.05)
            took = time.perf_counter() - began
            return {"per_s": (count - first) / took, "cpu_us": (cpu_s(process.pid) - cpu) / max(1, count - first) * 1e6}
        finally:
            process.stop()
