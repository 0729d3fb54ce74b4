"""How figures are taken: every variant a process of its own, rounds interleaved, ratios within a round, medians."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.harness import ROOT

# Two vCPUs wake each other in 25-35 us, one wakes itself in 2-4: what is compared runs on one CPU.
PINNED_CPU = max(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One ratio that the project holds itself to."""

    name: str
    limit: float
    at_least: bool
    """True: the ratio must reach `limit`; False: it must not pass it."""
    unit: str = "x"

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{self.unit}"


@dataclass(slots=True, kw_only=True)
class Figure:
    """What came out for one bar: the ratio of each round with both absolute values."""

    bar: Bar
    baseline: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    unit: str = ""

    def add(self, ours: float, theirs: float) -> None:
        self.ours.append(ours)
        self.theirs.append(theirs)
        self.ratios.append(ours / theirs if theirs else float("inf"))

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool:
        return self.bar.is_met(self.ratio)

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"median": self.ratio, "met": self.is_met}


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder on the disk that the project is on: /tmp may be memory, where every sync is free."""
    with tempfile.TemporaryDirectory(dir=sys.prefix, prefix="bench-") as name:
        yield Path(name)


def spread(values: Sequence[float], digits: str = ".3g") -> str:
    """Return median [min-max]."""
    return f"{statistics.median(values):{digits}} [{min(values):{digits}}-{max(values):{digits}}]"


def environment() -> dict[str, str]:
    """Return an environment in which byte code is kept, as installed programs have it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(module: str, *arguments: str, pinned: bool = False) -> dict[str, float]:
    """Run `python -m module` and return the JSON object of its last line."""
    command = [sys.executable, "-m", module, *arguments]
    if pinned:
        command = ["taskset", "-c", str(PINNED_CPU), *command]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def interleave(
    rounds: int, variants: dict[str, Callable[[], dict[str, float]]], note: Callable[[str], None]
) -> list[dict[str, dict[str, float]]]:
    """Run every variant once a round, rotating the order, and return the results of each round."""
    names = list(variants)
    results = []
    for number in range(rounds):
        order = names[number % len(names) :] + names[: number % len(names)]
        found = {}
        for name in order:
            note(f"round {number + 1}/{rounds}: {name}")
            found[name] = variants[name]()
        results.append(found)
    return results


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0..1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def elapsed(work: Callable[[], object]) -> float:
    """Return how many seconds `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
