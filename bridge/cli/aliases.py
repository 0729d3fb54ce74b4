"""`bridge functions publish` and `alias`: versions, and the names that point to them."""

from collections.abc import Mapping
from typing import Any, Final

import click

from bridge.cli import output
from bridge.cli.arguments import complete_alias, complete_function, complete_version, json_option
from bridge.cli.client import Client, segment
from bridge.cli.failures import Failed
from bridge.cli.lambda_calls import LambdaRefused, call, explained, find, function_path, pages, versions_of
from bridge.cli.locate import Options, connect

COLUMNS: Final = ("ALIAS", "VERSION", "ALSO", "DESCRIPTION")
"""Of `alias_row`."""


@click.command("publish")
@click.argument("name", shell_complete=complete_function)
@click.option("--description", metavar="TEXT", help="Of the version.")
@json_option
@click.pass_context
def publish_command(context: click.Context, name: str, description: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Publish what NAME is now as a version; unchanged since the last one, it is that one again."""
    client = connect(Options.of(context))
    body = {} if description is None else {"Description": description}
    try:
        version = call(client, "POST", function_path(name, "/versions"), body=body)
    except LambdaRefused as error:
        raise explained(client, name, error, versions_of(name)) from error
    if as_json:
        output.document(version)
        return
    click.echo(version["Version"])
    output.note(f"let an alias point to it: bridge functions alias {name} live {version['Version']}")


def _weight(_context: click.Context, param: click.Parameter, value: str | None) -> dict[str, float] | None:
    """Read VERSION=SHARE."""
    if value is None:
        return None
    version, _, share = value.partition("=")
    try:
        weight = float(share)
    except ValueError:
        weight = -1.0
    if not version or not 0 <= weight <= 1:
        raise click.BadParameter(f"{value!r}: write VERSION=SHARE with a share of 0 to 1, such as 3=0.1", param=param)
    return {version: weight} if weight else {}


@click.command("alias")
@click.argument("name", metavar="FUNCTION", shell_complete=complete_function)
@click.argument("alias", required=False, shell_complete=complete_alias)
@click.argument("version", required=False, shell_complete=complete_version)
@click.option(
    "--weight",
    "weights",
    metavar="VERSION=SHARE",
    callback=_weight,
    help="Let this share of invocations, 0 to 1, go to another version; 0 ends it.",
)
@click.option("--description", metavar="TEXT", help="Of the alias.")
@click.option("--delete", is_flag=True, help="Delete the alias.")
@json_option
@click.pass_context
def alias_command(
    context: click.Context,
    /,
    name: str,
    alias: str | None,
    version: str | None,
    weights: dict[str, float] | None,
    description: str | None,
    delete: bool,  # noqa: FBT001 - click's signature
    as_json: bool,  # noqa: FBT001 - click's signature
) -> None:
    """List the aliases of FUNCTION, show one, or let ALIAS point to VERSION.

    With VERSION and without --weight all invocations go to VERSION.
    """
    client = connect(Options.of(context))
    changes = version is not None or weights is not None or description is not None
    if (changes or delete) and alias is None:
        raise click.UsageError("say which alias: bridge functions alias FUNCTION ALIAS VERSION")
    if delete and changes:
        raise click.UsageError("--delete goes with nothing else")
    try:
        if delete:
            found = call(client, "DELETE", _path(name, alias or ""))
        elif changes:
            assert alias is not None
            found = point(client, name, alias, version=version, weights=weights, description=description)
        elif alias is not None:
            found = call(client, "GET", _path(name, alias))
        else:
            found = pages(client, function_path(name, "/aliases"), "Aliases")
    except LambdaRefused as error:
        raise explained(client, name, error, versions_of(name)) from error
    _print(name, found, as_json=as_json)


def _print(name: str, found: Any, *, as_json: bool) -> None:
    if as_json:
        if isinstance(found, list):
            output.lines(found)
        elif found is not None:
            output.document(found)
    elif isinstance(found, list) and not found:
        output.note(f"{name} has no aliases; make one with: bridge functions alias {name} live VERSION")
    elif found:
        output.table(COLUMNS, [alias_row(each) for each in (found if isinstance(found, list) else [found])])


def alias_row(alias: Mapping[str, Any]) -> list[str]:
    """Return a row of a table: the alias, its version, the share of another one, its description."""
    weights = alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
    also = ", ".join(
        f"{version} ({weight:.0%})" if weight >= 0.01 else f"{version} ({weight})"
        for version, weight in weights.items()
    )
    return [alias["Name"], alias["FunctionVersion"], also, alias["Description"]]


def point(
    client: Client,
    name: str,
    alias: str,
    *,
    version: str | None = None,
    weights: Mapping[str, float] | None = None,
    description: str | None = None,
) -> Any:
    """Make an alias or change it; weights that are not given end where a version is.

    Raises:
        LambdaRefused: in AWS's words.
        Failed: the alias is new and no version is given.
    """
    body: dict[str, Any] = {} if description is None else {"Description": description}
    if version is not None:
        body |= {"FunctionVersion": version, "RoutingConfig": {"AdditionalVersionWeights": weights or {}}}
    elif weights is not None:
        body["RoutingConfig"] = {"AdditionalVersionWeights": weights}
    if find(client, "GET", _path(name, alias)) is not None:
        return call(client, "PUT", _path(name, alias), body=body)
    if version is None:
        raise Failed(
            f"{name} has no alias {alias}; a new one needs a version",
            more=[f"bridge functions alias {name} {alias} VERSION; versions: bridge functions show {name}"],
        )
    return call(client, "POST", function_path(name, "/aliases"), body={"Name": alias, **body})


def _path(name: str, alias: str) -> str:
    return function_path(name, f"/aliases/{segment(alias)}")
