"""`bridge reset`: clears what Lambda's API made; the file must allow it."""

import click

from bridge.cli import jobs, output
from bridge.cli.arguments import json_option, yes_option
from bridge.cli.locate import Options, connect


@click.command("reset")
@yes_option
@json_option
@click.pass_context
def reset_command(context: click.Context, yes: bool, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Clear all that Lambda's API made: functions, versions, aliases, layers, policies, URLs, mappings.

    Only where the daemon's file has [dev] reset = true, on loopback. What the file declares, stored
    events and dead letters stay.
    """
    client = connect(Options.of(context))
    told = _told(client.get("/reset")["cleared"])
    if told:
        jobs.confirm(f"Clear {told} of the daemon at {client.url}, for good?", yes=yes)
    cleared = client.post("/reset")["cleared"]
    if as_json:
        output.document(cleared)
    elif told := _told(cleared):
        click.echo(f"cleared {told}")
    else:
        output.note("nothing was made by Lambda's API")


def _told(counts: dict[str, int]) -> str:
    """Return `2 functions, 1 alias`: what there is any of."""
    parts = [(count, name if count != 1 else _singular(name)) for name, count in counts.items() if count]
    return ", ".join(f"{count:,} {name}" for count, name in parts)


def _singular(name: str) -> str:
    return {"aliases": "alias", "policies": "policy", "layer versions": "layer version"}.get(name, name[:-1])
