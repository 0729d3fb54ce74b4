"""`make fuzz`: what reads strangers' bytes, on bytes that nobody thought of, for as long as asked.

python -m tests.fuzz [--seconds S] [--jobs N] [--json FILE] [TARGET …]
python -m tests.fuzz TARGET --input FILE

Each target runs in a process of its own, guided by coverage (atheris, which is libFuzzer). A finding is any exception that
is not the piece's own refusal, a broken promise (tests/fuzz/targets.py says which), 10 s for one input, or 1 GB of memory:
the input is kept in dist/fuzz, and the second form runs it again. Exit status 1 if there is any.
"""

import argparse
import collections
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.targets import TARGETS

FINDINGS = Path("dist/fuzz")
INPUT_MAX_S = 10
INPUT_MAX_BYTES = 8192
MEMORY_MAX_MB = 1024
GRACE_S = 60
"""Beyond its time a target may take this long to start, under load, and to end."""
TAIL_LINES = 40
NO_GUIDE = "fuzzing needs atheris, whose wheels are for x86-64 Linux alone: run make fuzz there"
_PULSE = re.compile(r"#(\d+)\s.*?\bcov: (\d+)")
_DONE = re.compile(r"Done (\d+) runs")
_KEPT = re.compile(r"Test unit written to (\S+)")


@dataclass
class Outcome:
    """What became of one target."""

    target: str
    inputs: int = 0
    branches: int = 0
    """Places in the code that some input reached."""
    finding: str = ""
    """File of the input; empty: none."""
    error: str = ""
    """Why it did not run to its end; empty: it did."""


def fuzz(name: str, seconds: int) -> Outcome:
    """Run one target and return what became of it."""
    outcome = Outcome(name)
    with tempfile.TemporaryDirectory(prefix="bridge-fuzz-") as folder:
        for number, seed in enumerate(TARGETS[name].seeds()):
            Path(folder, f"seed-{number}").write_bytes(seed)
        command = [
            sys.executable, "-m", "tests.fuzz.one", name, f"-max_total_time={seconds}", f"-timeout={INPUT_MAX_S}",
            f"-rss_limit_mb={MEMORY_MAX_MB}", f"-max_len={INPUT_MAX_BYTES}", f"-artifact_prefix={FINDINGS}/{name}-", folder,
        ]  # fmt: skip
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        late = threading.Timer(seconds + GRACE_S, child.kill)
        late.start()
        tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                tail.append(line)
                if found := _PULSE.match(line):
                    outcome.inputs, outcome.branches = int(found[1]), int(found[2])
                elif done := _DONE.match(line):
                    outcome.inputs = int(done[1])
                elif kept := _KEPT.search(line):
                    outcome.finding = kept[1]
        late.cancel()
    if child.returncode:
        outcome.error = f"status {child.returncode}\n" + "".join(tail)
    elif not outcome.branches:
        outcome.error = "no branch was reached: nothing guides the search"
    return outcome


def run(names: list[str], *, seconds: int, jobs: int) -> list[Outcome]:
    """Run the targets, `jobs` of them at a time, and return what became of each."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    outcomes: list[Outcome] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar, ThreadPoolExecutor(jobs) as pool:
        whole = bar.add_task("fuzzing", total=seconds * -(-len(names) // jobs))
        waiting = {pool.submit(fuzz, name, seconds): name for name in names}
        began = time.monotonic()
        while waiting:
            for future in [each for each in waiting if each.done()]:
                del waiting[future]
                outcomes.append(future.result())
            bar.update(whole, completed=time.monotonic() - began, description=f"fuzzing {', '.join(waiting.values())}")
            time.sleep(0.2)
    return sorted(outcomes, key=lambda outcome: names.index(outcome.target))


def show(outcomes: list[Outcome], seconds: int) -> None:
    """Print a table, and the end of what each failed target said."""
    table = Table("target", "inputs", "branches", "finding", title=f"{seconds} s each")
    for outcome in outcomes:
        finding = outcome.finding or ("failed" if outcome.error else "none")
        table.add_row(outcome.target, f"{outcome.inputs:,}", str(outcome.branches), finding)
    console = Console()
    console.print(table)
    for outcome in outcomes:
        if outcome.error:
            console.print(f"{outcome.target}: {outcome.error}", markup=False, highlight=False)
        if outcome.finding:
            console.print(f"again: python -m tests.fuzz {outcome.target} --input {outcome.finding}", markup=False)


def main() -> int:
    """Return 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all when none is named")
    parser.add_argument("--seconds", type=int, default=600, help="for each target, default 600")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time, default 2")
    parser.add_argument("--input", type=Path, metavar="FILE", help="run one target on one input, without fuzzing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the outcomes here")
    given = parser.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"unknown target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if given.input:
        if len(given.targets) != 1:
            parser.error("--input needs one target")
        TARGETS[given.targets[0]].run(given.input.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        print(NO_GUIDE, file=sys.stderr)
        return os.environ.get("CI") == "true"
    outcomes = run(given.targets or list(TARGETS), seconds=given.seconds, jobs=given.jobs)
    show(outcomes, given.seconds)
    if given.json:
        given.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    return any(outcome.error for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
