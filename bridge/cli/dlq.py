"""`bridge dlq`: list, show, redrive, purge the local dead letters; targets.py has what waits for others."""

import itertools
from collections.abc import Iterator
from typing import Any

import click

from bridge.cli import jobs, output, queues
from bridge.cli.arguments import (
    check_span,
    complete_function,
    complete_letter,
    complete_queue,
    json_option,
    letter_ids_option,
    rate_option,
    selection_options,
    yes_option,
)
from bridge.cli.client import Client, segment
from bridge.cli.events import print_history, print_payload
from bridge.cli.locate import Options, connect
from bridge.cli.targets import give_up_command, note_waiting, push_command, targets_command, waiting_command

_PAGE_MAX = 1000
_HAND_OVER_S = 1000.0
"""A function may run for a quarter of an hour."""
_COLUMNS = ("ID", "DEAD SINCE", "SOURCE", "FUNCTION", "WHY", "TRIES", "STATE", "ERROR")
_queue_option = click.option(
    "--queue",
    metavar="NAME",
    help="Which dead letters: `default`, `replay:NAME` (those of a replay), or `*` for all.",
    shell_complete=complete_queue,
)
_where_option = click.option("--where", metavar="PATTERN", help="Only events that match a filter pattern.")
_FIELDS = ("since", "until", "source", "function", "queue")


@click.group("dlq")
def dlq_command() -> None:
    """Look at dead letters; send them again or drop them. Look at what waits for targets."""


for _command in (targets_command, waiting_command, push_command, give_up_command):
    dlq_command.add_command(_command)


@dlq_command.command("list")
@click.argument("queue_of_sqs", metavar="[SQS-QUEUE]", required=False)
@selection_options
@_where_option
@_queue_option
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="How many, oldest first."
)
@json_option
@click.pass_context
def dlq_list(
    context: click.Context,
    /,
    queue_of_sqs: str | None,
    limit: int,
    as_json: bool,  # noqa: FBT001 - click's signature
    **chosen: Any,
) -> None:
    """List dead letters, oldest first; or look at a dead-letter queue, sqs://CONNECTION/QUEUE or its ARN."""
    check_span(chosen["since"], chosen["until"])
    client = connect(Options.of(context))
    if queue_of_sqs is not None:
        if not queues.is_queue(queue_of_sqs):
            raise click.BadParameter("must be sqs://CONNECTION/QUEUE or an ARN", param_hint="SQS-QUEUE")
        queues.refuse_options(chosen)
        queues.list_queue(client, queue_of_sqs, limit=limit, as_json=as_json)
        return
    found = itertools.islice(_pages(client, chosen, limit), limit)
    if as_json:
        output.lines(found)
        return
    rows = [_row(letter) for letter in found]
    if rows:
        output.table(_COLUMNS, rows, right=("TRIES",))
    else:
        output.note("no dead letters" + (" match" if any(chosen.values()) else ""))
    note_waiting(client)


def _pages(client: Client, query: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        page = client.get("/dlq", query | {"limit": min(limit, _PAGE_MAX), "after": after})
        yield from page["dead_letters"]
        after = page["next"]
        if after is None:
            return


def _row(letter: dict[str, Any]) -> list[object]:
    error = ": ".join(part for part in (letter["error_type"], letter["error_message"][:200]) if part)
    return [
        output.short(letter["id"]),
        output.at(letter["dead_at"]),
        letter["source"],
        letter["function"],
        letter["condition"],
        letter["attempts"],
        letter["state"],
        error,
    ]


@dlq_command.command("show")
@click.argument("letter_id", metavar="ID", shell_complete=complete_letter)
@_queue_option
@json_option
@click.pass_context
def dlq_show(context: click.Context, letter_id: str, queue: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Show one dead letter: why, every attempt, the event. ID may be any unique beginning."""
    letter = connect(Options.of(context)).get(
        f"/dlq/{segment(letter_id)}", {"queue": queue}, see="bridge dlq list --queue '*'"
    )
    if as_json:
        output.document(letter)
        return
    output.fields([
        ("id", letter["id"]),
        ("state", letter["state"]),
        ("queue", letter["queue"]),
        ("why", letter["condition"]),
        ("error", ": ".join(part for part in (letter["error_type"], letter["error_message"]) if part)),
        ("dead since", output.when(letter["dead_at"])),
        ("received", output.when(letter["received_at"])),
        ("source", letter["source"]),
        ("function", letter["function"]),
        ("attempts", letter["attempts"]),
        ("redrives", letter["redrives"] or ""),
    ])  # fmt: skip
    print_history(letter["history"])
    if letter["response"] is not None:
        print_payload("last answer", letter["response"])
    print_payload("event", letter["event"])


@dlq_command.command("redrive")
@click.argument("letter_ids", nargs=-1, metavar="[ID|SQS-QUEUE]...", shell_complete=complete_letter)
@selection_options
@letter_ids_option
@_where_option
@_queue_option
@click.option("--failed", is_flag=True, help="Only what has not succeeded since, by a replay for instance.")
@click.option(
    "--to",
    metavar="FUNCTION[:Q]",
    help="To this function; else where each was meant to go.",
    shell_complete=complete_function,
)
@rate_option
@click.option("--name", help="A name for it; made up otherwise.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@yes_option
@json_option
@click.pass_context
def dlq_redrive(
    context: click.Context,
    /,
    letter_ids: tuple[str, ...],
    ids: tuple[str, ...],
    dry_run: bool,  # noqa: FBT001 - click's signature
    yes: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    **chosen: Any,
) -> int:
    """Send dead letters to their function again: all, those selected, or those named. States the count and asks.

    Of a dead-letter queue (sqs://CONNECTION/QUEUE or its ARN): back to the queues they came from, or with --function
    NAME each body to that function, deleted when it is handled.
    """
    check_span(chosen["since"], chosen["until"])
    if any(map(queues.is_queue, letter_ids)):
        if len(letter_ids) > 1 or ids:
            raise click.UsageError("one queue at a time, and no ids beside it")
        queues.refuse_options(chosen, but=("function", "to", "rate"))
        return queues.redrive_queue(
            connect(Options.of(context), timeout_s=_HAND_OVER_S),
            letter_ids[0],
            function=chosen["function"] or chosen["to"],
            rate=chosen["rate"],
            dry_run=dry_run,
            yes=yes,
            as_json=as_json,
        )
    client = connect(Options.of(context))
    body: dict[str, Any] = {"selection": _selection(client, chosen, (*letter_ids, *ids)), "failed": chosen["failed"]}
    body |= {key: chosen[key] for key in ("where", "to", "rate", "name") if chosen[key] is not None}
    count = client.post("/dlq/redrive", body | {"dry_run": True})["count"]
    text = _counted(count, chosen["to"])
    if dry_run:
        click.echo(f"{text}; nothing was sent")
        return 0
    if count == 0:
        output.note("no dead letters match; nothing to redrive")
        return 0
    jobs.confirm(f"Redrive {text}?", yes=yes)
    job = client.post("/dlq/redrive", body)
    try:
        job = jobs.follow(client, job)
    except KeyboardInterrupt:
        output.note(f"\nredrive {job['name']} goes on in the daemon; see: bridge dlq list")
        return 130
    if as_json:
        output.document(job)
        return jobs.exit_code(job)
    return jobs.report(job)


@dlq_command.command("purge")
@click.argument("letter_ids", nargs=-1, metavar="[ID]...", shell_complete=complete_letter)
@selection_options
@letter_ids_option
@_queue_option
@click.option("--dry-run", is_flag=True, help="Only count.")
@yes_option
@click.pass_context
def dlq_purge(
    context: click.Context,
    /,
    letter_ids: tuple[str, ...],
    ids: tuple[str, ...],
    dry_run: bool,  # noqa: FBT001 - click's signature
    yes: bool,  # noqa: FBT001
    **chosen: Any,
) -> None:
    """Delete dead letters for good: all, those selected, or those named. States the count and asks."""
    check_span(chosen["since"], chosen["until"])
    client = connect(Options.of(context))
    body = {"selection": _selection(client, chosen, (*letter_ids, *ids))}
    count = client.post("/dlq/purge", body | {"dry_run": True})["count"]
    if dry_run or count == 0:
        click.echo(f"{_counted(count)}; nothing was deleted")
        return
    jobs.confirm(f"Delete {_counted(count)} for good?", yes=yes)
    click.echo(f"{client.post('/dlq/purge', body)['count']:,} deleted")


def _selection(client: Client, chosen: dict[str, Any], ids: tuple[str, ...]) -> dict[str, Any]:
    """Return the selection as the api takes it; beginnings of ids are looked up."""
    selection: dict[str, Any] = {name: chosen[name] for name in _FIELDS if chosen[name] is not None}
    if ids:
        query = {"queue": chosen["queue"]} if chosen["queue"] not in (None, "*") else {}
        found = [client.get(f"/dlq/{segment(letter_id)}", query) for letter_id in ids]
        selection["ids"] = [letter["id"] for letter in found]
        if chosen["queue"] is None and any(letter["queue"] != "default" for letter in found):
            selection["queue"] = "*"
    return selection


def _counted(count: int, to: str | None = None) -> str:
    text = f"{count:,} dead letter{'' if count == 1 else 's'}"
    return f"{text} to {to}" if to else text
