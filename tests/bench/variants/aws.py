"""Ours: a daemon between a full source of AWS and a local function."""

import time
from pathlib import Path

from tests.bench.aws_sources import Source
from tests.bench.kafka_topics import cpu_s
from tests.bench.measure import scratch
from tests.brokers.aws import AwsService
from tests.harness import DaemonProcess, wait_for, write_function

CONFIG = """
log = {{ level = "warning" }}
runtime = {{ workers_max = 1 }}
{connection}
[functions.bench]
code = "{code}"
handler = "app.handler"
timeout_s = 60

[mappings.bench]
source = "{kind}://aws/{name}"
function = "bench"
batch_size = {batch}
{extra}
"""
HANDLER = "def handler(event, context):\n    return None\n"
HANDLED = 'bridge_records_total{mapping="bench",outcome="handled"}'
BATCH = {"kinesis": 100, "dynamodb": 100, "sqs": 10}
DONE_MAX_S = 120.0


def mapping(service: AwsService, source: Source) -> dict[str, float]:
    """Return records per second from the first handled ones to the last."""
    with scratch() as folder:
        process = _daemon(folder, service, source)
        try:
            first = wait_for(lambda: _handled(process), DONE_MAX_S, "records are handled")
            began, cpu = time.perf_counter(), cpu_s(process.pid)
            while (handled := _handled(process)) < source.records:
                assert time.perf_counter() < began + DONE_MAX_S, f"{handled} of {source.records}\n{process.log_tail()}"
                time.sleep(0.05)
            took = time.perf_counter() - began
            return {
                "per_s": (handled - first) / took,
                "cpu_us": (cpu_s(process.pid) - cpu) / (handled - first) * 1e6,
            }
        finally:
            process.stop()


def _daemon(folder: Path, service: AwsService, source: Source) -> DaemonProcess:
    config = CONFIG.format(
        connection=service.connection(),
        code=write_function(folder / "code", HANDLER),
        kind=source.kind,
        name=source.name,
        batch=BATCH[source.kind],
        extra="archive = false" if source.kind == "sqs" else 'starting_position = "TRIM_HORIZON"',
    )
    return DaemonProcess(folder / "daemon", config).start()


def _handled(process: DaemonProcess) -> int:
    return int(process.metrics().get(HANDLED, 0))
