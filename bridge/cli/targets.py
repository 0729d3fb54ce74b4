"""`bridge dlq targets`, `waiting`, `push`, `give-up`: records that wait for the targets they are sent to."""

import itertools
from collections.abc import Iterator
from typing import Any

import click

from bridge.cli import jobs, output
from bridge.cli.arguments import json_option, yes_option
from bridge.cli.client import Client
from bridge.cli.locate import Options, connect

_PAGE_MAX = 1000
_target_argument = click.argument("target", metavar="[TARGET]", required=False)
_connection_option = click.option(
    "--connection", metavar="NAME", help="By which connection, where several lead to the target."
)


@click.command("targets")
@json_option
@click.pass_context
def targets_command(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """List the targets that records wait for: since when, and why."""
    found = connect(Options.of(context)).get("/targets")["targets"]
    if as_json:
        output.lines(found)
        return
    rows = [
        [
            target["target"],
            target["waiting"],
            target["kept"] or "",
            output.at(target["oldest_at"]),
            output.at(target["failing_since"]),
            output.at(target["retry_at"]),
            target["last_error"][:200],
        ]
        for target in found
    ]
    if rows:
        columns = ("TARGET", "WAITING", "KEPT", "OLDEST", "FAILING SINCE", "NEXT TRY", "ERROR")
        output.table(columns, rows, right=("WAITING", "KEPT"))
    else:
        output.note("nothing waits for any target")


@click.command("waiting")
@_target_argument
@_connection_option
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="How many, oldest first."
)
@json_option
@click.pass_context
def waiting_command(
    context: click.Context,
    target: str | None,
    connection: str | None,
    limit: int,
    as_json: bool,  # noqa: FBT001 - click's signature
) -> None:
    """List the records that wait for TARGET (or any).

    Those that the target refused for good are kept, and listed too.
    With --json the records of successes are shown whole; those of failures are in their dead letters.
    """
    query = {"target": target, "connection": connection, "whole": as_json}
    found = itertools.islice(_pages(connect(Options.of(context)), query, limit), limit)
    if as_json:
        output.lines(found)
        return
    rows = [
        [
            output.short(record["id"]),
            output.at(record["created_at"]),
            record["function"],
            record["kind"],
            record["target"],
            record["attempts"],
            "kept" if record["kept"] else "waiting",
            record["last_error"][:200],
        ]
        for record in found
    ]
    if rows:
        output.table(("ID", "SINCE", "FUNCTION", "KIND", "TARGET", "TRIES", "STATE", "ERROR"), rows, right=("TRIES",))
    else:
        output.note("nothing waits" + (f" for {target}" if target else ""))


def _pages(client: Client, query: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        page = client.get("/targets/records", query | {"limit": min(limit, _PAGE_MAX), "after": after})
        yield from page["records"]
        after = page["next"]
        if after is None:
            return


@click.command("push")
@_target_argument
@_connection_option
@click.pass_context
def push_command(context: click.Context, target: str | None, connection: str | None) -> None:
    """Try TARGET (or all) again now, instead of when its back-off ends."""
    body = {key: value for key, value in (("target", target), ("connection", connection)) if value is not None}
    count = connect(Options.of(context)).post("/targets/push", body)["pushed"]
    click.echo(f"{output.counted(count, 'target')} tried again; see: bridge dlq targets")


@click.command("give-up")
@click.argument("target", metavar="TARGET")
@_connection_option
@yes_option
@click.pass_context
def give_up_command(context: click.Context, target: str, connection: str | None, yes: bool) -> None:  # noqa: FBT001
    """Stop sending what waits for TARGET.

    Failures stay here as dead letters, records of successes are deleted. Events that end later are sent
    there again, for as long as the configuration names the target.
    """
    client = connect(Options.of(context))
    body = {"target": target} | ({} if connection is None else {"connection": connection})
    count = client.post("/targets/give-up", body | {"dry_run": True})["count"]
    jobs.confirm(f"Give up {output.counted(count, 'record')} that {target} did not take?", yes=yes)
    gone = client.post("/targets/give-up", body)
    click.echo(
        f"{output.counted(gone['dead_letters'], 'failure')} stay as dead letters, "
        f"{output.counted(gone['deleted'], 'record')} of successes deleted"
    )


def note_waiting(client: Client) -> None:
    """Say that records wait for targets, if some do."""
    found = client.get("/targets")["targets"]
    count = sum(target["waiting"] for target in found)
    if count:
        verb = "waits" if count == 1 else "wait"
        output.note(
            f"{output.counted(count, 'record')} {verb} for {output.counted(len(found), 'target')}: bridge dlq targets"
        )
