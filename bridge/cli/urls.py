"""`bridge functions url`: the URL of a function or an alias, on the public listener."""

from typing import Any, Final

import click

from bridge.cli import output
from bridge.cli.arguments import complete_function, json_option
from bridge.cli.failures import Failed
from bridge.cli.lambda_calls import LambdaRefused, call, explained, find, function_path
from bridge.cli.locate import Options, connect

_VERSION: Final = "/2021-10-31/functions"


@click.command("url")
@click.argument("target", metavar="NAME[:ALIAS]", shell_complete=complete_function)
@click.option(
    "--auth",
    type=click.Choice(["NONE", "AWS_IAM"], case_sensitive=False),
    help="Make one, or change it: anybody may call it, or who signs with an access key.",
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
        elif delete:
            call(client, "DELETE", path, query=query)
            return
        elif found is None:
            call(client, "GET", function_path(name, "/configuration"), query=query)
    except LambdaRefused as error:
        raise explained(client, name, error) from error
    _print(target, found, as_json=as_json)


def _print(target: str, found: dict[str, Any] | None, *, as_json: bool) -> None:
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
    if found["AuthType"] == "NONE":
        output.note("anybody may call it once its policy has both public statements:")
        for sid, action in (("url", "lambda:InvokeFunctionUrl"), ("invoke", "lambda:InvokeFunction")):
            output.note(f"  bridge functions policy {target} --add {sid} --principal '*' --action {action}")
