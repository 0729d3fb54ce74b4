"""Options that several verbs share: times, selections, targets, --json; and the completion of names."""

import time
from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from bridge.cli.failures import Failed
from bridge.cli.locate import Options, connect
from bridge.cli.times import FORMS, parse_time

Command = TypeVar("Command", bound=Callable[..., Any])
_COMPLETION_S = 0.5
"""A daemon that does not answer this fast completes nothing."""


class Moment(click.ParamType[float]):
    """A time as people write it; the value is epoch seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse it; the usage error lists the known forms."""
        if isinstance(value, float):
            return value
        try:
            return parse_time(str(value), time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _names(path: str, key: str, field: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
        try:
            found = connect(Options.of(context), timeout_s=_COMPLETION_S, quiet=True).get(path)[key]
            names = [str(item[field]) for item in found]
        except (Failed, LookupError, TypeError):  # no daemon, no names: the shell must not see an error
            return []
        return [CompletionItem(name) for name in names if name.startswith(typed)]

    return complete


complete_function = _names("/functions", "functions", "name")
complete_mapping = _names("/mappings", "mappings", "name")
complete_replay = _names("/replays", "replays", "name")
complete_source = _names("/status", "sources", "name")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="JSON for scripts: one object a line for lists and streams."
)


def _finite(_context: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse `nan`, which lies in every range."""
    if value is not None and value != value:  # noqa: PLR0124 - the definition of nan
        raise click.BadParameter("must be a number", param=param)
    return value


rate_option = click.option(
    "--rate",
    type=click.FloatRange(0.001, 1_000_000),
    callback=_finite,
    metavar="N",
    help="At most N events a second.",
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def selection_options(command: Command) -> Command:
    """Add --since, --until, --source and --function."""
    return _decorated(
        command,
        click.option("--since", type=Moment(), metavar="TIME", help=f"From this time on: {FORMS}."),
        click.option("--until", type=Moment(), metavar="TIME", help="Up to, not including, this time."),
        click.option(
            "--source", metavar="NAME", help="Only what came in by this source.", shell_complete=complete_source
        ),
        click.option(
            "--function", metavar="NAME", help="Only what is for this function.", shell_complete=complete_function
        ),
    )


def outcome_options(command: Command) -> Command:
    """Add --failed and --where."""
    return _decorated(
        command,
        click.option("--failed", is_flag=True, help="Only what failed and has not succeeded since."),
        click.option(
            "--where", metavar="PATTERN", help='Only what matches a filter pattern: \'{"body": {"paid": [true]}}\'.'
        ),
    )


def ids_option(command: Command) -> Command:
    """Add --id."""
    return _decorated(
        command, click.option("--id", "ids", multiple=True, metavar="ID", help="Only this event; may be repeated.")
    )


def _decorated(command: Command, *options: Callable[[Command], Command]) -> Command:
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def check_span(since: float | None, until: float | None) -> None:
    """Refuse an empty or future range as a usage error."""
    if since is not None and since > time.time() + 1:
        raise click.BadParameter(
            "lies in the future; for a time of the day before write `yesterday 14:00`", param_hint="--since"
        )
    if since is not None and until is not None and since >= until:
        raise click.BadParameter("must be before --until", param_hint="--since")
