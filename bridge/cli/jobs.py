"""Following a replay or redrive: a progress bar on a terminal, two lines elsewhere; how it ended in words."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from bridge.cli import output
from bridge.cli.client import Client, segment
from bridge.cli.failures import Failed, Misused

ENDED: Final = frozenset({"COMPLETED", "CANCELLED", "FAILED"})
STEP: Final = {"replay": ("replayed", "failed"), "redrive": ("redriven", "failed again")}


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something real; without a terminal `--yes` must be said.

    Raises:
        Misused: nobody is there to ask.
        click.exceptions.Exit: the answer is no.
    """
    if yes:
        return
    if not (sys.stdin and sys.stdin.isatty()):
        raise Misused(f"{question} Nobody is here to ask: say --yes")
    if not click.confirm(question, default=False, err=True):
        raise click.exceptions.Exit(1)


def follow(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Watch a job until it ends, is paused or its daemon stops; return its last state. KeyboardInterrupt passes."""
    path = f"/{job['kind']}s/{segment(job['name'])}/watch"
    with _progress(job) as show:
        try:
            for state in client.stream(path):
                job = state
                show(job)
        except Failed as error:
            raise Failed(f"{error.message}; {job['name']} goes on when the daemon runs again") from error
    return job


@contextmanager
def _progress(job: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    if not (output.is_tty() and sys.stderr.isatty()):
        yield lambda _job: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.fields[job]}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, markup=False, highlight=False),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=job["total"], job=job["name"], rate="")

        def show(state: dict[str, Any]) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.0f}/s" if speed and speed >= 1 else ""
            bar.update(task, completed=settled(state), total=state["total"], rate=rate)

        yield show


def settled(job: dict[str, Any]) -> int:
    """Return how many of a job's events have come to an end."""
    return sum(_counts(job))


def _counts(job: dict[str, Any]) -> tuple[int, int, int]:
    """Return (succeeded, failed, left out)."""
    skipped = int(job["skipped"])
    if job["kind"] == "redrive":
        ends = job.get("settled") or {"succeeded": 0, "failed_again": 0}
        return int(ends["succeeded"]), int(ends["failed_again"]), skipped
    return int(job["done"]), int(job["failed"]), skipped


def summary(job: dict[str, Any]) -> str:
    """Return `12 replayed: 11 succeeded, 1 failed`."""
    verb, failing = STEP[job["kind"]]
    succeeded, failed, skipped = _counts(job)
    text = f"{succeeded + failed:,} {verb}: {succeeded:,} succeeded, {failed:,} {failing}"
    return f"{text}, {skipped:,} left out (gone or not matching any more)" if skipped else text


def report(job: dict[str, Any]) -> int:
    """Say how a job ended; return the exit code."""
    state = job["state"]
    if state == "PAUSED":
        click.echo(f"{job['name']} is paused after {settled(job):,} of {job['total'] or 0:,}")
        output.note(f"go on with: bridge replays resume {job['name']}")
        return 1
    click.echo(summary(job))
    if state == "COMPLETED" and job["reason"]:
        output.note(job["reason"])
    if state == "CANCELLED":
        output.note(f"{job['name']} was cancelled")
        return 1
    if state == "FAILED":
        raise Failed(f"{job['name']} failed: {job['reason'] or 'the daemon log says why'}")
    if state not in ENDED:
        raise Failed(f"{job['name']} is not at its end ({state}); it goes on when the daemon runs again")
    if _counts(job)[1]:
        queue = f" --queue replay:{job['name']}" if job["kind"] == "replay" else ""
        output.note(f"see why: bridge dlq list{queue}")
        return 1
    return 0


def exit_code(job: dict[str, Any]) -> int:
    """Return 0 when everything went well."""
    return 0 if job["state"] == "COMPLETED" and not _counts(job)[1] else 1
