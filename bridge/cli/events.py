"""`bridge events`: list, show, tail."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import click

from bridge.cli import output
from bridge.cli.arguments import check_span, complete_event, ids_option, json_option, outcome_options, selection_options
from bridge.cli.client import Client, segment
from bridge.cli.locate import Options, connect
from bridge.cli.times import milliseconds
from bridge.util.text import escape

_PAGE_MAX = 1000
_COLUMNS = ("ID", "RECEIVED", "SOURCE", "FUNCTION", "STATE", "TRIES", "TOOK", "ERROR")


@click.group("events")
def events_command() -> None:
    """Look at stored events."""


@events_command.command("list")
@selection_options
@outcome_options
@ids_option
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="How many, newest first."
)
@json_option
@click.pass_context
def events_list(context: click.Context, /, limit: int, as_json: bool, ids: tuple[str, ...], **chosen: Any) -> None:  # noqa: FBT001 - click's signature
    """List events, newest first."""
    check_span(chosen["since"], chosen["until"])
    client = connect(Options.of(context))
    damaged: list[int] = []
    found = itertools.islice(_pages(client, chosen | {"id": list(ids)}, limit, damaged), limit)
    if as_json:
        output.lines(found)
        output.damage(sum(damaged))
        return
    rows = [_row(event) for event in found]
    output.damage(sum(damaged))
    if rows:
        output.table(_COLUMNS, rows, right=("TRIES", "TOOK"))
    else:
        output.note("no events" + (" match" if any(chosen.values()) or ids else " yet"))


def _pages(client: Client, query: dict[str, Any], limit: int, damaged: list[int]) -> Iterator[dict[str, Any]]:
    """Yield events; `damaged` gets how many of each page could not be read."""
    after = None
    while True:
        page = client.get("/events", query | {"limit": min(limit, _PAGE_MAX), "after": after})
        damaged.append(page["damaged"])
        yield from page["events"]
        after = page["next"]
        if after is None:
            return


def _row(event: dict[str, Any]) -> list[object]:
    return [
        output.short(event["id"]),
        output.at(event["received_at"]),
        event["source"],
        event["function"],
        event["state"],
        event["attempts"] or "",
        milliseconds(event["duration_ms"]),
        _error(event),
    ]


def _error(item: dict[str, Any]) -> str:
    text = ": ".join(part for part in (item["error_type"], item["error_message"]) if part)
    return text if len(text) <= 200 else text[:197] + "..."


@events_command.command("show")
@click.argument("event_id", metavar="ID", shell_complete=complete_event)
@json_option
@click.pass_context
def events_show(context: click.Context, event_id: str, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Show one event: what it holds, every attempt, what it waits for. ID may be any unique beginning."""
    event = connect(Options.of(context)).get(f"/events/{segment(event_id)}", see="bridge events list")
    if as_json:
        output.document(event)
        return
    output.fields([
        ("id", event["id"]),
        ("state", event["state"]),
        ("waits for", event["waits_for"]),
        ("received", output.when(event["received_at"])),
        ("source", event["source"]),
        ("function", event["function"]),
        ("read by", ", ".join(map(_reader, event["read_by"]))),
        ("type", event["invocation_type"]),
        ("delivery id", event["delivery_id"]),
        ("size", output.size(event["bytes"])),
        ("damaged", event.get("damage", "")),
    ])  # fmt: skip
    print_history(event["history"])
    _print_targets(event)
    if letter := event["dead_letter"]:
        output.head("\ndead letter")
        output.fields(
            [("since", output.when(letter["dead_at"])), ("why", letter["condition"]), ("state", letter["state"])]
        )
        if letter["state"] == "dead" and "damage" not in event:
            click.echo(f"send it again: bridge dlq redrive --id {event['id']}")
    print_payload("event", event["event"])


def _print_targets(event: dict[str, Any]) -> None:
    """Write where the records of the event's end went, and what waits for whom."""
    if event["sent"] or event["to_send"]:
        output.head("\nsent to")
    for sent in event["sent"]:
        click.echo(f"  {output.at(sent['at'])}  {sent['kind']}  {escape(sent['target'])}")
    for entry in event["to_send"]:
        state = "stays here" if entry["kept"] else f"waits, {entry['attempts']} tries"
        why = f": {entry['last_error']}" if entry["last_error"] else ""
        click.echo(f"  {output.paint('waiting')}  {entry['kind']}  {escape(entry['target'])}  {escape(state + why)}")


def _reader(reader: dict[str, Any]) -> str:
    return f"{reader['mapping']} ({'finished' if reader['finished'] else 'not finished'}, {reader['shard']})"


def print_history(history: list[dict[str, Any]]) -> None:
    """Write attempts, one line each, with error and log under it."""
    if history:
        output.head("\nattempts")
    for attempt in history:
        parts = [output.at(attempt["started_at"]), milliseconds(attempt["duration_ms"]), _version(attempt["version"])]
        by = f"by {attempt['replay']}" if attempt["replay"] else ""
        line = "  ".join(escape(part) for part in (*parts, by) if part)
        click.echo(f"  {attempt['number']}  {output.paint(attempt['status'])}  {line}")
        if error := _error(attempt):
            click.echo(f"     {click.style(escape(error), fg='red')}")
        if attempt["log_tail"]:
            output.block(attempt["log_tail"], indent="     | ")


def _version(version: str) -> str:
    return f"version {version}" if version else ""


def print_payload(name: str, value: Any) -> None:
    """Write a JSON value, indented, under a heading."""
    output.head(f"\n{name}")
    output.block(json.dumps(value, indent=2, ensure_ascii=False))


@events_command.command("tail")
@selection_options
@outcome_options
@json_option
@click.pass_context
def events_tail(context: click.Context, /, as_json: bool, **chosen: Any) -> None:  # noqa: FBT001 - click's signature
    """Follow events as they come in and end, until Ctrl-C."""
    client = connect(Options.of(context))
    try:
        if as_json:
            for line in client.lines("/events/tail", chosen):
                click.echo(line)
            return
        for item in client.stream("/events/tail", chosen):
            click.echo(_tail_line(item))
    except KeyboardInterrupt:
        return


def _tail_line(item: dict[str, Any]) -> str:
    is_event = item["type"] == "event"
    moment = item["received_at"] if is_event else item["started_at"]
    word = "received" if is_event else item["status"]
    tint = output.STYLES.get(word)
    padded = f"{word:<15}"
    shown = click.style(padded, fg=tint) if tint else padded
    details = _event_text(item) if is_event else _attempt_text(item)
    return f"{output.at(moment)}  {output.short(item['id'])}  {shown}  {escape(details)}"


def _event_text(event: dict[str, Any]) -> str:
    return f"{event['source']} -> {event['function'] or '-'}  {output.size(event['bytes'])}"


def _attempt_text(attempt: dict[str, Any]) -> str:
    parts = [attempt["function"], f"attempt {attempt['number']}", milliseconds(attempt["duration_ms"]), _error(attempt)]
    return "  ".join(part for part in parts if part)
