"""`make bench`: every figure a ratio against a named baseline of the same run, judged by the project's own bars.

python -m tests.bench [--only NAME …] [--rounds N] [--seconds S] [--json FILE]
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import measure
from tests.bench.aws_sources import KINDS, Source, emulator, full_source, write_source
from tests.bench.baselines.aws_own_mapping import own_mapping
from tests.bench.kafka_topics import Topic, full_topic
from tests.bench.measure import Bar, Figure, interleave, spread
from tests.bench.mqtt_topics import full_broker
from tests.bench.variants import aws, daemons, kafka, lambda_api
from tests.bench.variants import mqtt as variants_mqtt
from tests.brokers.aws import AwsService

RUNTIME_API = "tests.bench.baselines.runtime_api"
CONSTANT_API = "tests.bench.baselines.constant_api"
SQLITE = "tests.bench.baselines.sqlite_log"
JOURNAL = "tests.bench.variants.journal"
FILTERS = "tests.bench.variants.filters"
FILTER_INTERPRETER = "tests.bench.baselines.filter_interpreter"
WORKERS = "tests.bench.variants.workers"
KAFKA_GETMANY = "tests.bench.baselines.kafka_getmany"
KAFKA_NAIVE = "tests.bench.baselines.kafka_naive"
KINESIS_SHAPE = "tests.bench.variants.kinesis_shape"
KINESIS_BOTOCORE = "tests.bench.baselines.kinesis_botocore"
MQTT_AIOMQTT = "tests.bench.baselines.mqtt_aiomqtt"
AWS_POLLER = "tests.bench.baselines.aws_poller"
SCANNED = 100_000
# Bytes of a value, and more records than are read in a second.
KAFKA_SMALL = (200, 600_000)
KAFKA_LARGE = (1024, 250_000)
# More records than are read in a second; of the emulator's own mapping.
AWS_PER_S = {"kinesis": (8_000, 1500), "dynamodb": (4_000, 1500), "sqs": (1_000, 500)}

# More than are stored in a second.
MQTT_PER_S = 20_000

Note = Callable[[str], None]


def invoke(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """Warm local invocations: 200 B, 16 callers, one worker, everything on one CPU."""
    arguments = ("--seconds", str(seconds))
    results = interleave(rounds, {
        "ours": lambda: measure.run(WORKERS, *arguments, pinned=True),
        "aiohttp + awslambdaric": lambda: measure.run(RUNTIME_API, *arguments, pinned=True),
    }, note)  # fmt: skip
    figure = Figure(
        bar=Bar(name="warm invoke", limit=10, at_least=True), baseline="aiohttp Runtime API + awslambdaric", unit="/s"
    )
    for found in results:
        figure.add(found["ours"]["per_s"], found["aiohttp + awslambdaric"]["per_s"])
    return [figure]


def runtime_api(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """AWS's own client behind our Runtime API, whole invocations; against a server that always says the same."""
    results = interleave(rounds, {
        "ours": lambda: measure.run(WORKERS, "--runtime-api", "--seconds", str(seconds), pinned=True),
        "constant": lambda: measure.run(CONSTANT_API, "--seconds", str(seconds), pinned=True),
    }, note)  # fmt: skip
    figure = Figure(
        bar=Bar(name="Runtime API", limit=0.5, at_least=True),
        baseline="awslambdaric, constant httptools server",
        unit="/s",
    )
    for found in results:
        figure.add(found["ours"]["per_s"], found["constant"]["per_s"])
    return [figure]


def start(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """A worker from nothing: ours to its first answer, theirs only to its first request for work."""
    results = interleave(rounds, {
        "ours": lambda: measure.run(WORKERS, "--starts", "20"),
        "exec + awslambdaric": lambda: measure.run(RUNTIME_API, "--starts", "10"),
    }, note)  # fmt: skip
    figure = Figure(bar=Bar(name="worker start", limit=0.12, at_least=False), baseline="exec + awslambdaric", unit="ms")
    for found in results:
        figure.add(found["ours"]["start_ms"], found["exec + awslambdaric"]["start_ms"])
    return [figure]


def sandboxed_start(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """A worker from nothing to its first answer, with all that confines it here, and with limits alone."""
    results = interleave(rounds, {
        "sandboxed": lambda: measure.run(WORKERS, "--starts", "20"),
        "limits alone": lambda: measure.run(WORKERS, "--starts", "20", "--sandbox", "basic"),
    }, note)  # fmt: skip
    figure = Figure(
        bar=Bar(name="sandboxed start", limit=3, at_least=False), baseline='ours with sandbox = "basic"', unit="ms"
    )
    for found in results:
        figure.add(found["sandboxed"]["start_ms"], found["limits alone"]["start_ms"])
    return [figure]


def append(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """1 KB events, 64 appenders that wait for the disk."""
    arguments = ("--callers", "64", "--seconds", str(seconds))
    results = interleave(rounds, {
        "ours": lambda: measure.run(JOURNAL, *arguments),
        "SQLite": lambda: measure.run(SQLITE, *arguments),
    }, note)  # fmt: skip
    baseline = "SQLite WAL FULL, group commit"
    events = Figure(bar=Bar(name="durable append", limit=1.8, at_least=True), baseline=baseline, unit="/s")
    late = Figure(bar=Bar(name="durable append, p99", limit=0.25, at_least=False), baseline=baseline, unit="us")
    for found in results:
        events.add(found["ours"]["per_s"], found["SQLite"]["per_s"])
        late.add(found["ours"]["p99_us"], found["SQLite"]["p99_us"])
    return [events, late]


def webhook(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """Signed 1 KB webhooks, 64 connections: verified, parsed, de-duplicated, stored, acknowledged."""
    results = interleave(rounds, {
        "ours": lambda: daemons.webhook(seconds),
        "aiohttp + SQLite": lambda: daemons.aiohttp_webhook(seconds),
    }, note)  # fmt: skip
    figure = Figure(
        bar=Bar(name="signed webhook", limit=1.5, at_least=True), baseline="aiohttp.web + SQLite FULL", unit="/s"
    )
    for found in results:
        figure.add(found["ours"]["per_s"], found["aiohttp + SQLite"]["per_s"])
    return [figure]


def saturation(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """A webhook that is handled by a trivial function, at full load: the lanes keep up with the intake."""
    results = interleave(rounds, {"ours": lambda: daemons.saturation(max(seconds, 3))}, note)
    figure = Figure(
        bar=Bar(name="invoked / accepted", limit=0.95, at_least=True, unit=""),
        baseline="accepted in the same seconds",
        unit="/s",
    )
    for found in results:
        figure.add(found["ours"]["invoked_per_s"], found["ours"]["accepted_per_s"])
    return [figure]


def scan(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """Reading 1 KB events back in order, 512 at a time, as a replay does."""
    results = interleave(rounds, {
        "ours": lambda: measure.run(JOURNAL, "--scan", str(SCANNED)),
        "SQLite": lambda: measure.run(SQLITE, "--scan", str(SCANNED)),
    }, note)  # fmt: skip
    figure = Figure(bar=Bar(name="replay scan", limit=1.2, at_least=True), baseline="SQLite scan", unit="/s")
    for found in results:
        figure.add(found["ours"]["per_s"], found["SQLite"]["per_s"])
    return [figure]


def match(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """A filter pattern of six fields over one parsed event; and a mapping's criteria from the record's raw bytes."""
    arguments = ("--seconds", str(seconds))
    results = interleave(rounds, {
        "ours": lambda: measure.run(FILTERS, *arguments, pinned=True),
        "interpreter": lambda: measure.run(FILTER_INTERPRETER, *arguments, pinned=True),
    }, note)  # fmt: skip
    figures = [
        Figure(bar=Bar(name=f"filter, {what}", limit=0.15, at_least=False), baseline="a naive interpreter", unit="us")
        for what in ("match", "early miss")
    ]
    parse = Figure(
        bar=Bar(name="parse + filter", limit=2.5, at_least=False), baseline="orjson.loads of the same bytes", unit="us"
    )
    for found in results:
        for figure, key in zip(figures, ("match_us", "miss_us"), strict=True):
            figure.add(found["ours"][key], found["interpreter"][key])
        parse.add(found["ours"]["keeps_us"], found["ours"]["loads_us"])
    return [*figures, parse]


def ready(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """A webhook-only daemon on an existing state folder, from exec to ready."""
    results = interleave(rounds, {"ours": daemons.ready, "imports": daemons.imports}, note)
    figure = Figure(
        bar=Bar(name="daemon ready", limit=5, at_least=False),
        baseline="python -c 'import asyncio, uvloop, orjson, httptools'",
        unit="ms",
    )
    for found in results:
        figure.add(found["ours"]["ready_ms"], found["imports"]["ready_ms"])
    return [figure]


def pipeline(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """Kafka to batches of 100, a local handler, commits: 200 B and 1 KB records of a full topic of four partitions."""
    figures = []
    for (size, per_s), limit in ((KAFKA_SMALL, 0.35), (KAFKA_LARGE, 0.45)):
        with full_topic(records=round(per_s * (seconds + 1)), value_bytes=size) as topic:
            figures += _pipeline(rounds, seconds, note, topic, size=size, limit=limit)
    return figures


def _pipeline(rounds: int, seconds: float, note: Note, topic: Topic, *, size: int, limit: float) -> list[Figure]:
    arguments = (topic.bootstrap, topic.name, "--seconds", str(seconds))
    variants = {
        "ours": lambda: kafka.pipeline(topic, seconds),
        "getmany": lambda: measure.run(KAFKA_GETMANY, *arguments),
    }
    is_small = size == KAFKA_SMALL[0]
    if is_small:
        variants["naive"] = lambda: measure.run(KAFKA_NAIVE, *arguments)
    results = interleave(rounds, variants, note)
    name, bare = f"kafka {size} B", "a bare aiokafka getmany loop"
    rate = Figure(bar=Bar(name=name, limit=limit, at_least=True), baseline=bare, unit="/s")
    cpu = Figure(bar=Bar(name=f"{name}, daemon's CPU", limit=2.5, at_least=False), baseline=bare, unit="us")
    naive = Figure(
        bar=Bar(name=f"{name}, naive", limit=4, at_least=True),
        baseline="async for, json, ProcessPoolExecutor, commit per batch",
        unit="/s",
    )
    for found in results:
        rate.add(found["ours"]["per_s"], found["getmany"]["per_s"])
        cpu.add(found["ours"]["cpu_us"], found["getmany"]["cpu_us"])
        if is_small:
            naive.add(found["ours"]["per_s"], found["naive"]["per_s"])
    return [rate, cpu, naive] if is_small else [rate, cpu]


def kinesis(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """A page of 100 Kinesis records of 1 KB, from the answer's bytes to an event; CPU time."""
    arguments = ("--seconds", str(seconds / 3))
    results = interleave(rounds, {
        "ours": lambda: measure.run(KINESIS_SHAPE, *arguments, pinned=True),
        "botocore": lambda: measure.run(KINESIS_BOTOCORE, *arguments, pinned=True),
    }, note)  # fmt: skip
    figure = Figure(
        bar=Bar(name="kinesis parse + shape", limit=0.15, at_least=False), baseline="botocore's parser, dict, orjson",
        unit="us",
    )  # fmt: skip
    # The best of all rounds on either side: what else runs on the machine disturbs the baseline's longer pages more.
    figure.add(*(min(found[name]["record_us"] for found in results) for name in ("ours", "botocore")))
    return [figure]


def aws_sources(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """Kinesis, a table's stream and a queue of ministack to a local handler, in batches of 100 (a queue: 10)."""
    figures = []
    for kind in KINDS:
        with emulator() as service, measure.scratch() as folder:
            figures += _aws_source(rounds, seconds, note, service, folder, kind)
    return figures


def _aws_source(rounds: int, seconds: float, note: Note, service: AwsService, folder: Path, kind: str) -> list[Figure]:
    per_s, own_per_s = AWS_PER_S[kind]

    def full(rate: int) -> Source:
        return full_source(service, kind, records=round(rate * seconds))

    results = interleave(rounds, {
        "ours": lambda: aws.mapping(service, full(per_s)),
        "poller": lambda: measure.run(AWS_POLLER, write_source(full(per_s), folder)),
        "emulator's": lambda: own_mapping(service, full(own_per_s), folder),
    }, note)  # fmt: skip
    rate = Figure(
        bar=Bar(name=f"{kind} mapping", limit=0.5, at_least=True), baseline="a bare aiobotocore poller", unit="/s"
    )
    # Timed beside ours, not a bar: it reads the emulator's own memory, without a request.
    own = Figure(
        bar=Bar(name=f"{kind} mapping, beside", limit=0, at_least=True), baseline="ministack's own mapping", unit="/s"
    )
    for found in results:
        rate.add(found["ours"]["per_s"], found["poller"]["per_s"])
        own.add(found["ours"]["per_s"], found["emulator's"]["per_s"])
    return [rate, own]


def mqtt(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """Messages of 200 B at QoS 1 that wait at mosquitto: stored and acknowledged; as a stream in batches of 100."""
    messages = round(MQTT_PER_S * seconds)

    def bare() -> dict[str, float]:
        with measure.scratch() as folder, full_broker(folder, messages) as broker:
            return measure.run(MQTT_AIOMQTT, "--port", str(broker.port), "--messages", str(messages))

    results = interleave(rounds, {
        "stored": lambda: variants_mqtt.daemon(messages, handles=False),
        "handled": lambda: variants_mqtt.daemon(messages, handles=True),
        "aiomqtt": bare,
    }, note)  # fmt: skip
    stored = Figure(
        bar=Bar(name="mqtt stored, acknowledged", limit=0.75, at_least=True),
        baseline="a bare aiomqtt subscriber",
        unit="/s",
    )
    handled = Figure(
        bar=Bar(name="mqtt as a stream", limit=0.7, at_least=True), baseline="ours, storing alone", unit="/s"
    )
    for found in results:
        stored.add(found["stored"]["per_s"], found["aiomqtt"]["per_s"])
        handled.add(found["handled"]["per_s"], found["stored"]["per_s"])
    return [stored, handled]


def lambda_invoke(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """Lambda's API: Invoke of a warm function, 200 B, 16 connections; beside it: signed calls, ministack's Invoke."""
    with emulator() as service:
        results = interleave(rounds, {
            "ours": lambda: lambda_api.invoke(seconds),
            "constant": lambda: lambda_api.constant(seconds),
            "signed": lambda: lambda_api.invoke(seconds, auth="sigv4"),
            "ministack's": lambda: lambda_api.ministack(service, seconds),
        }, note)  # fmt: skip
    bare = Figure(
        bar=Bar(name="Invoke over HTTP", limit=0.6, at_least=True), baseline="our own server, a constant", unit="/s"
    )
    # Timed beside ours, not bars.
    signed = Figure(
        bar=Bar(name="Invoke, signed", limit=0, at_least=True), baseline='ours with auth = "none"', unit="/s"
    )
    other = Figure(bar=Bar(name="Invoke, beside", limit=0, at_least=True), baseline="ministack's Invoke", unit="/s")
    for found in results:
        bare.add(found["ours"]["per_s"], found["constant"]["per_s"])
        signed.add(found["signed"]["per_s"], found["ours"]["per_s"])
        other.add(found["ours"]["per_s"], found["ministack's"]["per_s"])
    return [bare, signed, other]


def lambda_cold_start(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """The first Invoke of a version just published, whole; theirs only to its first request for work."""
    results = interleave(rounds, {
        "ours": lambda: lambda_api.cold_start(20),
        "exec + awslambdaric": lambda: measure.run(RUNTIME_API, "--starts", "10"),
    }, note)  # fmt: skip
    figure = Figure(
        bar=Bar(name="cold start, new version", limit=0.15, at_least=False), baseline="exec + awslambdaric", unit="ms"
    )
    for found in results:
        figure.add(found["ours"]["start_ms"], found["exec + awslambdaric"]["start_ms"])
    return [figure]


def lambda_list(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """ListFunctions of 1,000 functions in one page, p95, beside that of none: no bar."""
    results = interleave(rounds, {"ours": lambda: lambda_api.lists(round(seconds * 100))}, note)
    figure = Figure(
        bar=Bar(name="ListFunctions of 1,000, p95", limit=0, at_least=True), baseline="ListFunctions of none", unit="ms"
    )
    for found in results:
        figure.add(found["ours"]["full_ms"], found["ours"]["empty_ms"])
    return [figure]


def blocked(rounds: int, seconds: float, note: Note) -> list[Figure]:
    """A daemon's resident memory while its shards are blocked and their topic grows tenfold, to 450 MB."""
    note("grows a topic behind a function that fails")
    found = kafka.blocked()
    figure = Figure(
        bar=Bar(name="memory, blocked shards", limit=1.1, at_least=False), baseline="before the topic grew", unit="MiB"
    )
    figure.add(found["after_mib"], found["before_mib"])
    return [figure]


BENCHES = {
    f.__name__: f
    for f in (
        invoke, runtime_api, start, sandboxed_start, append, webhook, saturation, scan, match, pipeline, kinesis, aws_sources, mqtt,
        lambda_invoke, lambda_cold_start, lambda_list, blocked, ready,
    )
}  # fmt: skip


def table(figures: list[Figure]) -> Table:
    shown = Table(title="ratios: median and range over rounds")
    for heading in ("bench", "ratio", "bar", "", "ours", "baseline", "baseline is"):
        shown.add_column(heading)
    for figure in figures:
        verdict = "[green]met[/green]" if figure.is_met else "[bold red]MISSED[/bold red]"
        ours, theirs = (f"{spread(values)} {figure.unit}" for values in (figure.ours, figure.theirs))
        shown.add_row(figure.bar.name, spread(figure.ratios), str(figure.bar), verdict, ours, theirs, figure.baseline)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    figures: list[Figure] = []
    for name in options.only:
        figures += BENCHES[name](
            options.rounds, options.seconds, lambda text, name=name: console.print(f"  {name}, {text}", style="dim")
        )
    console.print(table(figures))
    missed = [figure.bar.name for figure in figures if not figure.is_met]
    console.print(
        f"{len(figures) - len(missed)} bars met, {len(missed)} missed" + (f": {', '.join(missed)}" if missed else "")
    )
    if options.json:
        options.json.write_text(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
