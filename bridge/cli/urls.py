"""`bridge functions url`: the URL of a function or an alias, on the public listener."""

import json
from collections.abc import Mapping
from typing import Final

import click

from bridge.cli import output
from bridge.cli.arguments import complete_function, json_option
from bridge.cli.client import Client, Query, segment
from bridge.cli.failures import Failed
from bridge.cli.lambda_calls import LambdaRefused, call, explained, find, function_path
from bridge.cli.locate import Options, connect
from bridge.cli.permissions import INVOKE, INVOKE_URL

_OPEN: Final[Mapping[str, Mapping[str, object]]] = {
    "FunctionURLAllowPublicAccess": {"Action": INVOKE_URL, "FunctionUrlAuthType": "NONE"},
    "FunctionURLInvokeAllowPublicAccess": {"Action": INVOKE, "InvokedViaFunctionUrl": True},
}
"""The statements that AWS's console adds with an open URL, by their ids there."""
_VERSION: Final = "/2021-10-31/functions"


@click.command("url")
@click.argument("target", metavar="NAME[:ALIAS]", shell_complete=complete_function)
@click.option(
    "--auth",
    type=click.Choice(["NONE", "AWS_IAM"], case_sensitive=False),
    metavar="NONE|AWS_IAM",
    help="Make one, or change it: anybody may call it (its policy gets both public statements), or who signs with an "
    "access key.",
)
@click.option("--cors", "origins", multiple=True, metavar="ORIGIN", help="With --auth: pages that may call it, or *.")
@click.option("--delete", is_flag=True, help="Delete it; its id is unknown from then on.")
@json_option
@click.pass_context
def url_command(
    context: click.Context,
    /,
    target: str,
    auth: str | None,
    origins: tuple[str, ...],
    delete: bool,  # noqa: FBT001 - click's signature
    as_json: bool,  # noqa: FBT001 - click's signature
) -> None:
    """Show the URL of a function or an alias; make, change or delete it."""
    if delete and (auth or origins):
        raise click.UsageError("--delete goes with nothing else")
    if origins and auth is None:
        raise click.UsageError("--cors goes with --auth NONE or --auth AWS_IAM")
    client = connect(Options.of(context))
    name, _, qualifier = target.partition(":")
    path, query = function_path(name, "/url", version=_VERSION), {"Qualifier": qualifier or None}
    try:
        found = find(client, "GET", path, query=query)
        if auth is not None:
            body: dict[str, object] = {"AuthType": auth.upper()}
            if origins:
                body["Cors"] = {"AllowOrigins": list(origins)}
            found = call(client, "POST" if found is None else "PUT", path, query=query, body=body)
            _set_statements(client, name, query, is_open=found["AuthType"] == "NONE")
        elif delete:
            call(client, "DELETE", path, query=query)
            _set_statements(client, name, query, is_open=False)
            return
        elif found is None:
            call(client, "GET", function_path(name, "/configuration"), query=query)
    except LambdaRefused as error:
        raise explained(client, name, error) from error
    if found is None:
        raise Failed(f"{target} has no URL", more=[f"make one with: bridge functions url {target} --auth NONE"])
    if as_json:
        output.document(found)
        return
    output.fields([
        ("url", found["FunctionUrl"]),
        ("auth", found["AuthType"]),
        ("cors", ", ".join(found.get("Cors", {}).get("AllowOrigins", ()))),
    ])  # fmt: skip
    if found["AuthType"] == "NONE" and not _is_open(client, name, query):
        output.note(f"its policy lacks a public statement; add them with: bridge functions url {target} --auth NONE")


def _set_statements(client: Client, name: str, query: Query, *, is_open: bool) -> None:
    """Have the public statements of an open URL in the policy of its function or alias, or have them not."""
    path = function_path(name, "/policy")
    there = {statement["Sid"] for statement in _statements(client, name, query)}
    for sid, members in _OPEN.items():
        if is_open and sid not in there:
            call(client, "POST", path, query=query, body={**members, "StatementId": sid, "Principal": "*"})
        elif not is_open and sid in there:
            call(client, "DELETE", f"{path}/{segment(sid)}", query=query)


def _is_open(client: Client, name: str, query: Query) -> bool:
    """Tell whether statements for anybody are there, whatever else they ask for."""
    open_to = {each["Action"] for each in _statements(client, name, query) if each["Principal"] == "*"}
    return bool(open_to & {"*", "lambda:*"}) or {INVOKE, INVOKE_URL} <= open_to


def _statements(client: Client, name: str, query: Query) -> list[Mapping[str, object]]:
    found = find(client, "GET", function_path(name, "/policy"), query=query)
    return [] if found is None else list(json.loads(found["Policy"])["Statement"])
