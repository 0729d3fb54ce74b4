"""`bridge replay` and `bridge replays`: send stored events again, or write them to a file."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

import click

from bridge.cli import jobs, output
from bridge.cli.arguments import (
    check_span,
    complete_function,
    complete_replay,
    ids_option,
    json_option,
    outcome_options,
    rate_option,
    selection_options,
    yes_option,
)
from bridge.cli.client import Client, segment
from bridge.cli.failures import Failed, Misused
from bridge.cli.locate import Options, connect
from bridge.cli.ranges import check_range, export_query, range_options, selected_range, stated_range
from bridge.core.function import TARGET_PATTERN

_SEE: Final = "bridge replays list"


@click.command("replay")
@selection_options
@outcome_options
@ids_option
@range_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most this many, oldest first.")
@click.option(
    "--to",
    metavar="FUNCTION[:Q]|FILE|-",
    help="Where to: a function, a file (its name has a . or /), or - for standard output. Else where each went.",
    shell_complete=complete_function,
)
@rate_option
@click.option("--concurrency", type=click.IntRange(1, 1000), metavar="N", help="At most N at once.")
@click.option("--no-order", is_flag=True, help="Do not keep the order within a source: faster.")
@click.option("--name", help="Its name, for `bridge replays`; made up otherwise.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@yes_option
@json_option
@click.pass_context
def replay_command(
    context: click.Context,
    /,
    to: str | None,
    limit: int | None,
    dry_run: bool,  # noqa: FBT001 - click's signature
    yes: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    **chosen: Any,
) -> int:
    """Send stored events again, oldest first: original bytes, ids and times, marked as a replay.

    With --mapping: records of its stream, in batches, read apart from live reading, up to where the stream ends now;
    its filters count, --where is one more. --range and --from-dead-letter take everything between the first and the
    last record that failed.

    States the count and asks. Ctrl-C pauses it.
    """
    check_span(chosen["since"], chosen["until"])
    check_range(chosen)
    client = connect(Options.of(context))
    ranged = selected_range(client, chosen)
    is_file = to is not None and (to == "-" or not TARGET_PATTERN.match(to))
    if is_file and not dry_run:
        assert to is not None
        return _export(client, to, limit, chosen, ranged, yes=yes)
    if ranged and limit is not None:
        raise click.UsageError("--limit does not go with --mapping, but to a file: say --first and --last")
    body = _body(chosen, ranged, to=None if is_file else to, limit=limit)
    counted = client.post("/replays", body | {"dry_run": True})
    stated = stated_range(counted, ranged, to) if ranged else _stated(counted, to)
    output.damage(counted.get("damaged", 0))
    if dry_run:
        if as_json:
            output.document(counted)
        else:
            click.echo(f"{stated}; nothing was sent")
        return 0
    if counted["count"] == 0:
        output.note(f"no {'records' if ranged else 'events'} match; nothing to replay")
        return 0
    jobs.confirm(f"Replay {stated}?", yes=yes)
    job = client.post("/replays", body)
    return _watched(client, job, as_json=as_json)


def _body(chosen: dict[str, Any], ranged: dict[str, Any], *, to: str | None, limit: int | None) -> dict[str, Any]:
    selection = {
        "since": chosen["since"],
        "until": chosen["until"],
        "source": chosen["source"],
        "function": chosen["function"],
        "ids": list(chosen["ids"]) or None,
    } | ranged
    return {
        "selection": {key: value for key, value in selection.items() if value is not None},
        "failed": chosen["failed"],
        "ordered": not chosen["no_order"],
    } | {
        key: value
        for key, value in {
            "where": chosen["where"],
            "limit": limit,
            "to": to,
            "rate": chosen["rate"],
            "concurrency": chosen["concurrency"],
            "name": chosen["name"],
        }.items()
        if value is not None
    }


def _stated(counted: dict[str, Any], to: str | None) -> str:
    """Return `12 events: hello 8, orders 4`, or `12 events to mirror`."""
    text = output.events(counted["count"])
    by_function = counted.get("functions") or {}
    if to is not None:
        return f"{text} to {to}"
    if by_function:
        text += ": " + ", ".join(f"{name or '(no function)'} {count:,}" for name, count in sorted(by_function.items()))
    return text


def _watched(client: Client, job: dict[str, Any], *, as_json: bool) -> int:
    """Follow a replay to its end; Ctrl-C pauses it and says how to go on."""
    try:
        if not as_json:
            output.note(f"replay {job['name']}; Ctrl-C pauses it")
        job = jobs.follow(client, job)
    except KeyboardInterrupt:
        output.note("")
        job = _paused(client, job["name"])
    if as_json:
        output.document(job)
        return jobs.exit_code(job)
    return jobs.report(job)


def _paused(client: Client, name: str) -> dict[str, Any]:
    """Pause a replay and return it; one that ended at that very moment is returned as it ended."""
    path = f"/replays/{segment(name)}"
    try:
        return dict(client.post(f"{path}/pause"))
    except Failed:
        job = dict(client.get(path))
        if job["state"] not in jobs.ENDED:
            raise
        return job


# --- to a file ------------------------------------------------------------------------------------------------------
def _export(
    client: Client, to: str, limit: int | None, chosen: dict[str, Any], ranged: dict[str, Any], *, yes: bool
) -> int:
    for name in ("rate", "concurrency", "name"):
        if chosen[name] is not None:
            raise click.UsageError(f"--{name} says how functions are invoked; --to {to} invokes none")
    if ranged:
        lines = client.lines(f"/mappings/{segment(ranged['mapping'])}/records", export_query(chosen, ranged, limit))
    else:
        query = {key: chosen[key] for key in ("since", "until", "source", "function", "failed", "where")}
        lines = client.lines("/events/export", query | {"id": list(chosen["ids"]), "limit": limit})
    if to == "-":
        _write(sys.stdout.buffer, lines)
        return 0
    path = Path(to)
    if path.exists() and not yes:
        raise Misused(f"{to} is there already; choose another name, or --yes to replace it")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            count = _write(file, lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Failed(f"{to}: {error.strerror}; nothing was kept") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    click.echo(f"{output.records(count) if ranged else output.events(count)} written to {to}")
    return 0


def _write(file: IO[bytes], lines: Iterable[bytes]) -> int:
    count = 0
    for line in lines:
        file.write(line + b"\n")
        count += 1
    file.flush()
    return count


# --- replays --------------------------------------------------------------------------------------------------------
@click.group("replays")
def replays_command() -> None:
    """Look at replays; pause, resume or cancel them."""


@replays_command.command("list")
@json_option
@click.pass_context
def replays_list(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """List replays, newest first."""
    found = connect(Options.of(context)).get("/replays")["replays"]
    if as_json:
        output.lines(found)
    elif found:
        rows = [
            [
                job["name"],
                job["state"],
                f"{jobs.settled(job):,}/{job['total'] or 0:,}",
                job["failed"] or "",
                output.when(job["created_at"]),
            ]
            for job in found
        ]
        output.table(("NAME", "STATE", "DONE", "FAILED", "STARTED"), rows, right=("DONE", "FAILED"))
    else:
        output.note("no replays yet")


@replays_command.command("show")
@click.argument("name", shell_complete=complete_replay)
@json_option
@click.pass_context
def replays_show(context: click.Context, name: str, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Show one replay."""
    job = connect(Options.of(context)).get(f"/replays/{segment(name)}", see=_SEE)
    if as_json:
        output.document(job)
        return
    output.fields([
        ("name", job["name"]),
        ("state", job["state"]),
        ("why", job["reason"]),
        ("done", f"{jobs.settled(job):,} of {job['total'] or 0:,}"),
        ("result", jobs.summary(job)),
        ("started", output.when(job["created_at"])),
        ("ended", output.when(job["ended_at"])),
    ])  # fmt: skip
    if job["spec"]:
        output.fields([("asked for", "  ".join(f"{key}={value}" for key, value in job["spec"].items() if value))])


@replays_command.command("resume")
@click.argument("name", shell_complete=complete_replay)
@json_option
@click.pass_context
def replays_resume(context: click.Context, name: str, as_json: bool) -> int:  # noqa: FBT001 - click's signature
    """Go on with a paused replay and follow it to its end; Ctrl-C pauses it again."""
    client = connect(Options.of(context))
    return _watched(client, client.post(f"/replays/{segment(name)}/resume", see=_SEE), as_json=as_json)


def _action(verb: str, text: str) -> click.Command:
    @click.command(verb, help=text)
    @click.argument("name", shell_complete=complete_replay)
    @json_option
    @click.pass_context
    def command(context: click.Context, name: str, as_json: bool) -> None:  # noqa: FBT001 - click's signature
        job = connect(Options.of(context)).post(f"/replays/{segment(name)}/{verb}", see=_SEE)
        if as_json:
            output.document(job)
        else:
            click.echo(f"{name}: {job['state']}, {jobs.settled(job):,} of {job['total'] or 0:,} done")

    return command


replays_command.add_command(_action("pause", "Stop sending; `resume` goes on from there, after a restart too."))
replays_command.add_command(_action("cancel", "End a replay for good; what was sent stays sent."))
