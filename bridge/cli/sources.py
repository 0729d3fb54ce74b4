"""`bridge sources`: the push sources that run, where their events come from and go to, and when the next one comes."""

from typing import Any, Final

import click

from bridge.cli import output
from bridge.cli.arguments import complete_source, json_option
from bridge.cli.client import segment
from bridge.cli.locate import Options, connect

_COLUMNS: Final = ("NAME", "TYPE", "FROM", "TO", "ACCEPTED", "NEXT")
_WHY: Final = "TROUBLE"


@click.group("sources")
def sources_command() -> None:
    """Look at push sources: webhooks, MQTT, schedules."""


@sources_command.command("list")
@json_option
@click.pass_context
def sources_list(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """List push sources: path or topic, function, events accepted since the start, next tick."""
    found = connect(Options.of(context)).get("/sources")["sources"]
    if as_json:
        output.lines(found)
    elif found:
        columns = list(_COLUMNS)
        if not any("next_at" in source for source in found):
            columns.remove("NEXT")
        rows = [[*_row(source)][: len(columns)] for source in found]
        # Most are in no trouble: the column is there when it has something to say.
        if any(source["trouble"] for source in found):
            columns.append(_WHY)
            rows = [[*row, source["trouble"]] for row, source in zip(rows, found, strict=True)]
        output.table(columns, rows, right=("ACCEPTED",))
    else:
        output.note("no push sources; the configuration has no [sources.X]")


@sources_command.command("show")
@click.argument("name", shell_complete=complete_source)
@json_option
@click.pass_context
def sources_show(context: click.Context, name: str, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Show one push source."""
    source = connect(Options.of(context)).get(f"/sources/{segment(name)}")
    if as_json:
        output.document(source)
        return
    output.fields([
        ("name", source["name"]),
        ("type", source["type"]),
        ("from", source["place"]),
        ("methods", ", ".join(source.get("methods", ()))),
        ("format", source.get("format", "")),
        ("function", source["function"]),
        ("mappings", ", ".join(source["mappings"])),
        ("invocation type", source["invocation_type"]),
        ("accepted", f"{source['accepted']:,}, since the daemon started"),
        ("last tick", output.when(source.get("last_at"))),
        ("next tick", _next(source, output.when(source.get("next_at")))),
        ("trouble", source["trouble"]),
    ])  # fmt: skip


def _row(source: dict[str, Any]) -> list[object]:
    return [
        source["name"],
        source["type"],
        source["place"],
        ", ".join([*([source["function"]] if source["function"] else []), *source["mappings"]]),
        f"{source['accepted']:,}",
        _next(source, output.at(source.get("next_at"))),
    ]


def _next(source: dict[str, Any], shown: str) -> str:
    """Return when the next tick is: nothing of sources that do not tick."""
    return shown or ("none any more" if "next_at" in source else "")
