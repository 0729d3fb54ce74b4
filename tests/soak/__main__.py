"""`make soak`: Mosquitto, Kafka, emulators of AWS and two functions, everything flowing at once for minutes, with faults.

python -m tests.soak [--minutes M] [--rate R] [--folder F] [--seed N] [--json FILE]

Faults come for the first two thirds, one every few seconds: kill -9, SIGTERM and reload of the daemon, brokers that go
away and services that stand still. In the last third nothing is disturbed and the daemon's memory must stay flat. Then
the ledgers of every feed are judged: nothing lost, nothing unexpected, first deliveries in order where the feed has an
order. Exit status 1 if any of that fails.
"""

import argparse
import contextlib
import json
import logging
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from tests.soak.world import Fed, World

FAULT_EVERY_S = (4.0, 16.0)
AWAY_S = (1.0, 6.0)
CALM = 1 / 3
WARM_S = 30.0
"""After the last start memory may still grow to what the daemon needs."""
GROWTH_MAX_MIB = 16.0
SAMPLE_S = 1.0
SHOWN_EVERY_S = 15.0


class Faults:
    """What goes wrong, by name; each returns once it is over."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world, self._chance = world, chance
        self.counts: dict[str, int] = {}
        self._kinds: dict[str, Callable[[], None]] = {
            "kill -9": self._kill,
            "SIGTERM": self._stop,
            "reload": self._reload,
            "Kafka killed": self._kafka,
            "Mosquitto restarted": self._mosquitto,
            "AWS stands still": lambda: self._pause(world.ministack),
            "Kinesis stands still": lambda: self._pause(world.kinesis),
        }

    def run_one(self) -> str:
        """Let one happen and return its name; every kind comes as often as the others."""
        name = min(self._kinds, key=lambda name: (self.counts.get(name, 0), self._chance.random()))
        self.counts[name] = self.counts.get(name, 0) + 1
        self._kinds[name]()
        return name

    def _kill(self) -> None:
        self._world.daemon.kill9()
        self._world.daemon.restart()

    def _stop(self) -> None:
        self._world.daemon.terminate()
        self._world.daemon.restart()

    def _reload(self) -> None:
        self._world.daemon.process.send_signal(signal.SIGHUP)

    def _kafka(self) -> None:
        self._world.kafka.kill()
        self._away()
        self._world.kafka.restart()

    def _mosquitto(self) -> None:
        self._world.mosquitto.stop()
        self._away()
        self._world.mosquitto.start()

    def _pause(self, service: Any) -> None:
        service.pause()
        try:
            self._away()
        finally:
            service.resume()

    def _away(self) -> None:
        time.sleep(self._chance.uniform(*AWAY_S))


class Memory:
    """Samples of the daemon's resident memory, each with the time and the process it is of."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, int, float]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        import psutil

        while not self._stop.wait(SAMPLE_S):
            with contextlib.suppress(psutil.Error, AssertionError):
                self.samples.append((time.monotonic(), self._world.daemon.pid, self._world.daemon.rss_mib()))

    def growth(self, *, since: float) -> float | None:
        """Return MiB between the medians of the first and the last quarter behind `since`; None: too few samples."""
        sizes = [size for at, _, size in self.samples if at >= since]
        quarter = len(sizes) // 4
        if not quarter:
            return None
        return statistics.median(sizes[-quarter:]) - statistics.median(sizes[:quarter])


def soak(world: World, *, minutes: float, rate: float, seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Let everything flow for so long and return the verdicts, with what was done to it."""
    chance = random.Random(seed)
    faults = Faults(world, chance)
    loads = world.loads(rate=rate)
    began = time.monotonic()
    calm_at, ends_at = began + minutes * 60 * (1 - CALM), began + minutes * 60
    with contextlib.ExitStack() as running:
        memory = running.enter_context(Memory(world))
        for fed in loads.values():
            running.enter_context(fed.load)
        shown_at = began
        while (now := time.monotonic()) < ends_at:
            if now < calm_at:
                note(f"{now - began:5.0f} s  {faults.run_one()}")
            if now - shown_at >= SHOWN_EVERY_S:
                note(f"{now - began:5.0f} s  {progress(world, loads, memory)}")
                shown_at = now
            time.sleep(min(chance.uniform(*FAULT_EVERY_S), max(0.0, ends_at - time.monotonic())))
    note("draining")
    verdicts = world.judge(loads)
    settled = [at for at, pid, _ in memory.samples if pid == world.daemon.pid]
    growth = memory.growth(since=max(calm_at, settled[0] if settled else 0.0) + min(WARM_S, minutes * 60 * CALM / 4))
    return {
        "minutes": minutes,
        "seed": seed,
        "faults": faults.counts,
        "feeds": verdicts,
        "rss_max_mib": round(max(size for _, _, size in memory.samples), 1),
        "rss_growth_mib": None if growth is None else round(growth, 1),
        "valid": all(verdict["valid"] for verdict in verdicts.values())
        and (growth is None or growth <= GROWTH_MAX_MIB),
    }


def progress(world: World, loads: dict[str, Fed], memory: Memory) -> str:
    """Return one line: how much of each feed is sent, what is handled, how large the daemon is."""
    sent = "  ".join(f"{name} {fed.load.sent:,}" for name, fed in loads.items())
    size = f"{memory.samples[-1][2]:.0f} MiB" if memory.samples else ""
    return f"sent: {sent}  handled: {world.server.lines:,}  {size}"


def show(result: dict[str, Any], console: Console) -> None:
    """Print the verdicts as a table."""
    table = Table("feed", "acked", "handled", "dead", "lost", "alien", "again", "disorder")
    for name, verdict in result["feeds"].items():
        columns = ("acked", "handled_ok", "dlq", "lost", "unexpected", "duplicated", "out_of_order")
        table.add_row(name, *(f"{verdict[column]:,}" for column in columns))
    console.print(table)
    console.print("faults: " + ", ".join(f"{name} {count}" for name, count in result["faults"].items()))
    growth = result["rss_growth_mib"]
    console.print(
        f"memory: {result['rss_max_mib']} MiB at most; "
        + (
            "too short to say whether it grows"
            if growth is None
            else f"grew by {growth} MiB while nothing was disturbed"
        )
        + f" (<= {GROWTH_MAX_MIB:g})"
    )
    console.print("clean" if result["valid"] else f"NOT clean (seed {result['seed']})", style="bold")


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=30.0, help="events a second of each feed")
    parser.add_argument("--folder", type=Path, help="keeps ledgers and logs; left out: a temporary one")
    parser.add_argument("--seed", type=int, default=0, help="0: a new one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the result there")
    given = parser.parse_args()
    seed = given.seed or random.SystemRandom().randrange(1, 2**31)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the producer's: its broker is killed on purpose
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        console.print(f"seed {seed}; starting Kafka, Mosquitto and the emulators of AWS")
        world = World(folder, seed=seed)
        stack.callback(world.close)
        result = soak(world, minutes=given.minutes, rate=given.rate, seed=seed, note=console.print)
    show(result, Console(highlight=False))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2))
    return 0 if result["valid"] else 1


if __name__ == "__main__":
    sys.exit(main())
