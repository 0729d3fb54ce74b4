"""Options that several verbs share: times, selections, targets, --json; and the completion of names."""

import time
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click
from click.shell_completion import CompletionItem

from bridge.cli.failures import Failed
from bridge.cli.locate import Options, connect
from bridge.cli.times import FORMS, parse_time
from bridge.util.text import escape

if TYPE_CHECKING:
    from bridge.cli.client import Query

Command = TypeVar("Command", bound=Callable[..., Any])
_COMPLETION_S = 0.2
"""A daemon that does not answer this fast completes nothing."""
_COMPLETED_MAX = 50
"""Ids that are looked at: of the newest events, the oldest dead letters."""
_ABOUT = ("source", "function", "state", "error_type")
_Complete: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


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


def _found(
    context: click.Context, typed: str, path: str, key: str, field: str = "name", *, query: "Query | None" = None
) -> list[CompletionItem]:
    """Return what the daemon's list has that begins with what was typed."""
    try:
        found = connect(Options.of(context), timeout_s=_COMPLETION_S, quiet=True).get(path, query)[key]
        # What goes with an id, where a shell has room for it.
        abouts = [escape(" ".join(str(item[name]) for name in _ABOUT if item.get(name))) for item in found]
        names = [str(item[field]) for item in found]
    except (Failed, LookupError, TypeError, AttributeError):  # no daemon, no names: the shell must not see an error
        return []
    return [
        CompletionItem(name, help=about if field == "id" else None)
        for name, about in zip(names, abouts, strict=True)
        if name.startswith(typed)
    ]


def _names(path: str, key: str, *, query: "Query | None" = None) -> _Complete:
    return lambda context, _param, typed: _found(context, typed, path, key, query=query)


complete_function = _names("/functions", "functions")
complete_mapping = _names("/mappings", "mappings", query={"quick": True})
complete_replay = _names("/replays", "replays")
complete_source = _names("/status", "sources")


def complete_put(context: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete what `bridge put` may name: mappings and sources."""
    found = {
        item.value: item for complete in (complete_mapping, complete_source) for item in complete(context, param, typed)
    }
    return [found[name] for name in sorted(found)]


def complete_shard(context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the shards of the mapping that --mapping names."""
    from bridge.cli.client import segment  # `bridge run` needs none

    mapping = context.params.get("mapping")
    return _found(context, typed, f"/mappings/{segment(mapping)}", "shards", "shard") if mapping else []


def _of_function(path: str, key: str, field: str) -> _Complete:
    def complete(context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
        from bridge.cli.client import segment

        # While an option waits for its value, click has not told the arguments apart yet.
        name = context.params.get("name") or next(iter(context.args), None)
        found = f"/lambda/2015-03-31/functions/{segment(name)}/{path}" if name else ""
        return _found(context, typed, found, key, field) if found else []

    return complete


complete_alias = _of_function("aliases", "Aliases", "Name")
"""…of the function that stands before."""
complete_version = _of_function("versions", "Versions", "Version")


def complete_event(context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the ids of the newest events."""
    return _found(context, typed, "/events", "events", "id", query={"limit": _COMPLETED_MAX})


def complete_letter(context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the ids of dead letters, of the queue that --queue names."""
    query = {"limit": _COMPLETED_MAX, "queue": context.params.get("queue") or "*"}
    return _found(context, typed, "/dlq", "dead_letters", "id", query=query)


def complete_queue(context: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the names of dead letter queues."""
    replays = [f"replay:{item.value}" for item in complete_replay(context, param, "")]
    return [CompletionItem(name) for name in ("default", "*", *replays) if name.startswith(typed)]


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


def _ids_option(complete: _Complete) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        option = click.option(
            "--id",
            "ids",
            multiple=True,
            metavar="ID",
            help="Only this event; may be repeated.",
            shell_complete=complete,
        )
        return _decorated(command, option)

    return add


ids_option = _ids_option(complete_event)
letter_ids_option = _ids_option(complete_letter)
"""…of events that are dead letters."""


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
