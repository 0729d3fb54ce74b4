"""`bridge mappings`: list, show, pause, resume event source mappings, and move their marks."""

import dataclasses
import time
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from bridge.cli import jobs, output
from bridge.cli.arguments import complete_mapping, json_option, yes_option
from bridge.cli.client import segment
from bridge.cli.locate import Options, connect
from bridge.cli.times import FORMS, parse_time, span
from bridge.core.mapping import USER_ACTION, EventSourceMapping

_COLUMNS: Final = ("NAME", "SOURCE", "FUNCTION", "STATE", "LAST RESULT", "LAG", "OLDEST", "BLOCKED")
_SHARDS: Final = ("SHARD", "MARK", "LAG", "READ", "RUNNING", "OLDEST", "TRIES", "NEXT TRY", "WHY")
_WORDS: Final = ("TRIM_HORIZON", "LATEST")
_name = click.argument("name", shell_complete=complete_mapping)


class Place(click.ParamType[tuple[str, float | None]]):
    """Where marks are moved to: TRIM_HORIZON, LATEST, or a time."""

    name = "position"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float | None]:
        """Return AWS's word and the time that goes with AT_TIMESTAMP."""
        text = str(value)
        if (word := text.strip().upper()) in _WORDS:
            return word, None
        now = time.time()
        try:
            moment = parse_time(text, now)
        except ValueError:
            self.fail(f"{text!r} is neither TRIM_HORIZON nor LATEST nor a time; times: {FORMS}", param, ctx)
        if moment > now:
            self.fail("lies in the future", param, ctx)
        return "AT_TIMESTAMP", moment

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the two words."""
        del ctx, param
        return [CompletionItem(word) for word in _WORDS if word.startswith(incomplete.upper())]


@click.group("mappings")
def mappings_command() -> None:
    """Look at event source mappings; pause or resume them, move their marks."""


@mappings_command.command("list")
@json_option
@click.pass_context
def mappings_list(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """List mappings: state, lag, age of the oldest unfinished record, blocked batches."""
    found = connect(Options.of(context)).get("/mappings")["mappings"]
    if as_json:
        output.lines(found)
    elif found:
        whys = [_why(mapping) for mapping in found]
        # Nothing keeps most of them from anything: the column is there when it has something to say.
        columns = (*_COLUMNS, "WHY") if any(whys) else _COLUMNS
        rows = [[*_row(mapping), why][: len(columns)] for mapping, why in zip(found, whys, strict=True)]
        output.table(columns, rows, right=("LAG", "OLDEST", "BLOCKED"))
    else:
        output.note("no mappings; the configuration has no [mappings.X]")


def _why(mapping: dict[str, Any]) -> str:
    """Return what keeps a mapping from reading, or why it does not read; empty when a person wanted it so."""
    why = str(mapping["state_transition_reason"])
    return "" if why == USER_ACTION else why


def _row(mapping: dict[str, Any]) -> list[object]:
    return [
        mapping["name"],
        mapping["source"],
        mapping["function"],
        mapping["state"],
        mapping["last_processing_result"] or "",
        _lag(mapping),
        _age(mapping["oldest_at"]),
        mapping["blocked"] or "",
    ]


@mappings_command.command("show")
@_name
@json_option
@click.pass_context
def mappings_show(context: click.Context, name: str, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Show one mapping and each of its shards: mark, lag, what is blocked, until when and why."""
    mapping = connect(Options.of(context)).get(f"/mappings/{segment(name)}")
    if as_json:
        output.document(mapping)
        return
    output.fields([
        ("name", mapping["name"]),
        ("uuid", mapping["uuid"]),
        ("source", mapping["source"]),
        ("function", mapping["function"]),
        ("state", mapping["state"]),
        ("why", mapping["state_transition_reason"]),
        ("last result", mapping["last_processing_result"] or ""),
        ("changed", output.when(mapping["modified_at"])),
        ("running", mapping["running"] or ""),
        ("lag", _lag(mapping)),
        ("oldest", _age(mapping["oldest_at"])),
        ("settings", _settings(mapping["settings"])),
    ])  # fmt: skip
    if mapping.get("queue"):
        click.echo()
        output.fields(_queue(mapping["queue"]))
    if mapping["shards"]:
        click.echo()
        right = ("MARK", "LAG", "READ", "RUNNING", "OLDEST", "TRIES")
        output.table(_SHARDS, [_shard(shard) for shard in mapping["shards"]], right=right)


def _queue(queue: dict[str, Any]) -> list[tuple[str, object]]:
    """Return what a queue says of itself, and what is ours of it now."""
    counts = {"visible": queue["visible"], "in flight": queue["in_flight"], "delayed": queue["delayed"]}
    tries = queue["max_receive_count"]
    return [
        ("queue", queue["arn"]),
        ("messages", "about " + ", ".join(f"{_count(count)} {name}" for name, count in counts.items())),
        ("visibility", "" if queue["visibility_timeout_s"] is None else span(queue["visibility_timeout_s"])),
        ("dead letters", "none: it has no redrive policy" if tries is None else f"after {tries} receives"),
        ("here", ", ".join(f"{queue[name]:,} {name}" for name in ("waiting", "running", "settling") if queue[name])),
        ("why", queue["reason"]),
        ("next try", output.when(queue["due_at"])),
        ("last failure", queue["failure"]),
        *(("note", note) for note in queue["notes"]),
    ]


def _settings(settings: dict[str, Any]) -> str:
    """Return what is not at its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(EventSourceMapping)}
    shown = {key: value for key, value in settings.items() if key not in ("name", "source", "function")}
    return "  ".join(f"{key}={value}" for key, value in shown.items() if value and value != defaults.get(key))


def _shard(shard: dict[str, Any]) -> list[object]:
    return [
        shard["shard"],
        "none" if shard["position"] == -1 else shard["position"],
        _lag(shard),
        shard["buffered"] or "",
        shard["running"] or "",
        _age(shard["oldest_at"]),
        shard["attempts"] or "",
        output.when(shard["due_at"]),
        shard["reason"],
    ]


def _lag(of: dict[str, Any]) -> str:
    """Return how many records, or else how many seconds, reading is behind."""
    behind, behind_s = of["behind"], of.get("behind_s")
    return _count(behind) if behind is not None or behind_s is None else span(behind_s)


def _count(behind: int | None) -> str:
    return "?" if behind is None else f"{behind:,}"


def _age(oldest_at: float | None) -> str:
    return "" if oldest_at is None else span(max(0.0, time.time() - oldest_at))


def _action(verb: str, text: str) -> click.Command:
    @click.command(verb, help=text)
    @_name
    @json_option
    @click.pass_context
    def command(context: click.Context, name: str, as_json: bool) -> None:  # noqa: FBT001 - click's signature
        mapping = connect(Options.of(context)).post(f"/mappings/{segment(name)}/{verb}")
        if as_json:
            output.document(mapping)
        else:
            click.echo(f"{mapping['name']}: {mapping['state']}")

    return command


mappings_command.add_command(
    _action("pause", "Stop reading, over restarts too; what runs is finished, marks are kept.")
)
mappings_command.add_command(_action("resume", "Go on from the marks."))


@mappings_command.command("reset")
@_name
@click.option(
    "--position",
    type=Place(),
    required=True,
    metavar="TRIM_HORIZON|LATEST|TIME",
    help=f"Where reading goes on: the oldest record there is, only new ones, or a time: {FORMS}.",
)
@yes_option
@json_option
@click.pass_context
def mappings_reset(
    context: click.Context,
    name: str,
    position: tuple[str, float | None],
    yes: bool,  # noqa: FBT001 - click's signature
    as_json: bool,  # noqa: FBT001
) -> None:
    """Move a mapping's marks: forwards passes records over, backwards has them processed again. Asks first."""
    client = connect(Options.of(context))
    mapping = client.get(f"/mappings/{segment(name)}")
    word, moment = position
    jobs.confirm(_question(mapping, word, moment), yes=yes)
    body = {"position": word} if moment is None else {"position": word, "timestamp": moment}
    answer = client.post(f"/mappings/{segment(name)}/reset", body)
    if as_json:
        output.document(answer)
        return
    click.echo(f"{mapping['name']}: {_shards(len(answer['marks']))} moved to {_place(word, moment)}")


def _question(mapping: dict[str, Any], word: str, moment: float | None) -> str:
    """Return what a reset will do, in numbers where there are any."""
    count, behind = mapping["shard_count"], mapping["behind"]
    what = f"the marks of {_shards(count)}" if count else "its marks (not known while it does not read)"
    lag = "an unknown number of records" if behind is None else f"{behind:,} record{'' if behind == 1 else 's'}"
    effect = {
        "LATEST": f"{lag} behind the marks will not be processed",
        "TRIM_HORIZON": f"everything the source still has is processed again; {lag} are behind the marks now",
    }.get(word, f"what came since then is processed, again too; {lag} are behind the marks now")
    return f"Move {what} of {mapping['name']} to {_place(word, moment)}: {effect}?"


def _place(word: str, moment: float | None) -> str:
    return word if moment is None else output.at(moment)


def _shards(count: int) -> str:
    return f"{count} shard{'' if count == 1 else 's'}"
