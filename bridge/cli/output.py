"""What people see: aligned tables, states in colour, NDJSON for scripts; the same text on a pipe as on a terminal."""

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli.times import clock_time, relative
from bridge.util.text import escape

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES: Final = {
    "succeeded": "green", "ok": "green", "replayed_ok": "green", "COMPLETED": "green", "active": "green",
    "answered": "green", "stored": "green",
    "dead": "red", "failed": "red", "replayed_failed": "red", "FAILED": "red", "stopped": "red", "no function": "red",
    "waiting": "cyan", "running": "cyan", "started": "cyan", "RUNNING": "cyan", "STARTING": "cyan", "redriving": "cyan",
    "retrying": "yellow", "unknown": "yellow", "PAUSED": "yellow", "CANCELLED": "yellow", "CANCELLING": "yellow",
    "backing off": "yellow", "draining": "yellow",
    "Enabled": "green", "OK": "green", "Failed": "red", "PROBLEM: Function call failed": "red", "Disabled": "yellow",
    "Creating": "cyan", "Enabling": "cyan", "Disabling": "cyan", "Updating": "cyan", "Deleting": "cyan",
}  # fmt: skip
_PIPE_WIDTH: Final = 100_000
"""On a pipe nothing is cut or folded."""
ID_CHARS: Final = 8
"""Enough of an id to name an event; commands take any unique beginning."""


def console() -> "Console":
    """Return a console on standard output; colours only on a terminal and without NO_COLOR."""
    from rich.console import Console

    is_terminal = is_tty()
    return Console(
        file=sys.stdout,
        width=None if is_terminal else _PIPE_WIDTH,
        no_color=None if is_terminal else True,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        legacy_windows=False,
    )


def is_tty() -> bool:
    """Tell whether a person reads standard output."""
    return bool(sys.stdout and sys.stdout.isatty()) and os.environ.get("TERM") != "dumb"


def styled(value: object, style: str = "") -> "Text":
    """Return a cell: escaped, in the colour of its state unless `style` says otherwise."""
    from rich.text import Text

    text = escape("" if value is None else str(value))
    return Text(text, style=style or STYLES.get(text, ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Write an aligned table without lines; on a terminal it is cut to the width."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=True)
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", no_wrap=True, overflow="crop")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else styled(cell) for cell in row))
    with out.capture() as capture:
        out.print(grid)
    for line in capture.get().splitlines():
        click.echo(line.rstrip(), color=True)


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Write `name  value` lines, the values aligned; pairs without a value are left out."""
    known = [(name, "" if value is None else str(value)) for name, value in pairs]
    known = [(name, value) for name, value in known if value]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {paint(value)}")


def paint(value: str) -> str:
    """Return a text escaped, in the colour of its state."""
    text = escape(value)
    colour = STYLES.get(text.partition("  ")[0])
    return click.style(text, fg=colour) if colour else text


def head(text: str) -> None:
    """Write a heading."""
    click.echo(click.style(text, bold=True))


def block(text: str, *, indent: str = "  ") -> None:
    """Write text of several lines, each escaped and set in."""
    for line in text.splitlines():
        click.echo(indent + escape(line.replace("\t", "  ").rstrip()))


def note(text: str) -> None:
    """Write a line for the person, on standard error."""
    click.echo(escape(text), err=True)


def damage(count: int) -> None:
    """Say that damaged records were left out, if any were."""
    if count:
        note(f"{count} damaged record{' was' if count == 1 else 's were'} left out; `bridge doctor` says where")


def document(value: Any) -> None:
    """Write one JSON document, indented on a terminal."""
    click.echo(json.dumps(value, indent=2 if is_tty() else None, ensure_ascii=False).encode("utf-8", "replace"))


def lines(values: Iterable[Any]) -> None:
    """Write NDJSON."""
    for value in values:
        click.echo(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def short(event_id: str) -> str:
    """Return the beginning of an id."""
    return event_id[:ID_CHARS]


def when(seconds: float | None) -> str:
    """Return `14:03:07 (3 s ago)`."""
    if seconds is None:
        return ""
    now = time.time()
    return f"{clock_time(seconds, now)} ({relative(seconds, now)})"


def at(seconds: float | None) -> str:
    """Return a moment in local time."""
    return "" if seconds is None else clock_time(seconds, time.time())


def counted(count: int, what: str) -> str:
    """Return `1 record`, `2,000 records`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Return bytes as `312 B`, `4.0 KiB`, `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def events(count: int) -> str:
    """Return `1 event`, `1,204 events`."""
    return f"{count:,} event{'' if count == 1 else 's'}"


def records(count: int) -> str:
    """Return `1 record`, `1,204 records`: of a stream."""
    return f"{count:,} record{'' if count == 1 else 's'}"
