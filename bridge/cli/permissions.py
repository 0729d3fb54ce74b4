"""`bridge functions policy`: who may invoke a function, a version or an alias, by its resource policy."""

import json
from collections.abc import Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from bridge.cli import output
from bridge.cli.arguments import complete_function, json_option
from bridge.cli.client import Client, segment
from bridge.cli.failures import Failed
from bridge.cli.lambda_calls import LambdaRefused, call, explained, find, function_path, versions_of
from bridge.cli.locate import Options, connect

_COLUMNS: Final = ("SID", "PRINCIPAL", "ACTION", "CONDITIONS")
_PRINCIPALS: Final = (
    "apigateway.amazonaws.com", "elasticloadbalancing.amazonaws.com", "events.amazonaws.com", "iot.amazonaws.com",
    "logs.amazonaws.com", "s3.amazonaws.com", "sns.amazonaws.com", "cognito-idp.amazonaws.com",
)  # fmt: skip
_MEMBERS: Final = {
    "action": "Action",
    "principal": "Principal",
    "source_arn": "SourceArn",
    "source_account": "SourceAccount",
    "function_url_auth_type": "FunctionUrlAuthType",
    "invoked_via_function_url": "InvokedViaFunctionUrl",
}
INVOKE: Final = "lambda:InvokeFunction"
INVOKE_URL: Final = "lambda:InvokeFunctionUrl"


def _complete_principal(_context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in (*_PRINCIPALS, "*") if name.startswith(typed)]


def _complete_action(_context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in (INVOKE, INVOKE_URL) if name.startswith(typed)]


@click.command("policy")
@click.argument("target", metavar="NAME[:QUALIFIER]", shell_complete=complete_function)
@click.option("--add", metavar="SID", help="Add a statement under this id.")
@click.option(
    "--principal",
    metavar="WHO",
    help="Of --add: a service, an account of 12 digits, an ARN, or *.",
    shell_complete=_complete_principal,
)
@click.option(
    "--action",
    metavar="ACTION",
    help=f"Of --add; left out: {INVOKE}, and {INVOKE_URL} with --function-url-auth-type.",
    shell_complete=_complete_action,
)
@click.option("--source-arn", metavar="ARN", help="Of --add: only from there; may hold * and ?.")
@click.option("--source-account", metavar="ACCOUNT", help="Of --add: only from there.")
@click.option(
    "--function-url-auth-type",
    type=click.Choice(["NONE", "AWS_IAM"], case_sensitive=False),
    metavar="NONE|AWS_IAM",
    help=f"Of --add, for {INVOKE_URL}: only while its URL has that one.",
)
@click.option("--invoked-via-function-url", is_flag=True, help=f"Of --add, for {INVOKE}: only by its URL.")
@click.option("--remove", metavar="SID", help="Remove the statement of this id.")
@json_option
@click.pass_context
def policy_command(
    context: click.Context,
    /,
    target: str,
    add: str | None,
    remove: str | None,
    as_json: bool,  # noqa: FBT001 - click's signature
    **given: Any,
) -> None:
    """Show who may invoke a function, a version or an alias; add or remove a statement.

    `config-NAME` are what the file's routes and sources imply.
    """
    if add is not None and remove is not None:
        raise click.UsageError("--add and --remove are two commands")
    if add is None and any(given.values()):
        raise click.UsageError("these options belong to --add SID")
    if add is not None and not given["principal"]:
        raise click.UsageError("say who may: --principal s3.amazonaws.com, an account, an ARN or *")
    client = connect(Options.of(context))
    name, _, qualifier = target.partition(":")
    path, query = function_path(name, "/policy"), {"Qualifier": qualifier or None}
    try:
        if add is not None:
            members = {_MEMBERS[option]: value for option, value in given.items() if value}
            action = INVOKE_URL if "FunctionUrlAuthType" in members else INVOKE
            call(client, "POST", path, query=query, body={"Action": action, **members, "StatementId": add})
        elif remove is not None:
            call(client, "DELETE", f"{path}/{segment(remove)}", query=query)
    except LambdaRefused as error:
        raise _explained(client, target, error) from error
    _show(client, target, as_json=as_json)


def _show(client: Client, target: str, *, as_json: bool) -> None:
    name, _, qualifier = target.partition(":")
    found = find(client, "GET", function_path(name, "/policy"), query={"Qualifier": qualifier or None})
    if found is None:
        _check_there(client, target)
    statements = [] if found is None else json.loads(found["Policy"])["Statement"]
    if as_json:
        output.lines(statements)
    elif statements:
        output.table(_COLUMNS, [_row(statement) for statement in statements])
    else:
        output.note(f"{target} has no policy: only this account's keys may invoke it")


def _row(statement: Mapping[str, Any]) -> list[str]:
    principal = statement["Principal"]
    who = principal if isinstance(principal, str) else ", ".join(str(value) for value in principal.values())
    conditions = [
        f"{key}={value}" for values in statement.get("Condition", {}).values() for key, value in values.items()
    ]
    return [statement["Sid"], who, str(statement["Action"]), ", ".join(conditions)]


def _check_there(client: Client, target: str) -> None:
    """Raise what is wrong where there is no policy since there is no such function, version or alias."""
    name, _, qualifier = target.partition(":")
    try:
        call(client, "GET", function_path(name, "/configuration"), query={"Qualifier": qualifier or None})
    except LambdaRefused as error:
        raise _explained(client, target, error) from error


def _explained(client: Client, target: str, error: LambdaRefused) -> Failed:
    """Return a refusal with what to do next."""
    name, _, qualifier = target.partition(":")
    if "principal was invalid" in error.message:
        error.more = (
            "who may: a service such as s3.amazonaws.com, an account of 12 digits, an identity's ARN, or '*'",
        )
    if error.status == 409:
        error.more = (f"remove it first: bridge functions policy {target} --remove SID",)
    more = (versions_of(name),) if qualifier else ()
    return explained(client, name, error, *more, f"statements that there are: bridge functions policy {target}")
