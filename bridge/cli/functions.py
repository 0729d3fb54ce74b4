"""`bridge functions`: those of the file, those that Lambda's API made, those elsewhere."""

from typing import Any, Final

import click

from bridge.cli import aliases, output
from bridge.cli.arguments import complete_function, json_option
from bridge.cli.client import Client
from bridge.cli.deploy import deploy_command
from bridge.cli.lambda_calls import LambdaRefused, call, explained, function_path, pages, versions_of
from bridge.cli.locate import Options, connect
from bridge.cli.permissions import policy_command
from bridge.cli.urls import url_command
from bridge.core.function import space_name

_COLUMNS: Final = ("NAME", "FROM", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "VERSIONS", "ALIASES")
_TROUBLE: Final = "TROUBLE"
_VERSIONS: Final = ("VERSION", "SIZE", "MODIFIED", "SHA256", "DESCRIPTION")
_SHA_CHARS: Final = 12


@click.group("functions")
def functions_command() -> None:
    """Look at functions; deploy and publish them, set their aliases, say who may invoke them."""


for _command in (deploy_command, aliases.publish_command, aliases.alias_command, policy_command, url_command):
    functions_command.add_command(_command)


@functions_command.command("list")
@click.option("--all", "is_all", is_flag=True, help="Those of other accounts and regions, too: NAME@REGION.ACCOUNT.")
@json_option
@click.pass_context
def functions_list(context: click.Context, is_all: bool, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """List functions: who made them, what runs them, their versions and aliases."""
    answer = connect(Options.of(context)).get("/functions")
    found = [each for each in answer["functions"] if is_all or not space_name(each["name"])]
    if as_json:
        output.lines(found)
    elif found:
        troubles = [str(function.get("trouble", "")) for function in found]
        columns = (*_COLUMNS, _TROUBLE) if any(troubles) else _COLUMNS
        rows = [
            [*_row(function, answer["interpreter"]), why][: len(columns)]
            for function, why in zip(found, troubles, strict=True)
        ]
        output.table(columns, rows, right=("MEMORY", "TIMEOUT", "VERSIONS"))
    else:
        output.note("no functions; make one with: bridge functions deploy NAME FOLDER --handler app.handler")


def _row(function: dict[str, Any], interpreter: str) -> list[object]:
    return [
        function["name"],
        _maker(function),
        _runtime(function, interpreter),
        function.get("handler", ""),
        f"{function['memory_mb']} MB" if "memory_mb" in function else "",
        f"{function['timeout_s']} s",
        len(function.get("versions", ())) or "",
        ", ".join(f"{name}={version}" for name, version in function.get("aliases", {}).items()),
    ]


def _maker(function: dict[str, Any]) -> str:
    if "arn" in function:
        return "elsewhere"
    return "api" if "made_by" in function else "file"


def _runtime(function: dict[str, Any], interpreter: str) -> str:
    return str(function.get("runtime", "")) or ("" if "arn" in function else interpreter)


@functions_command.command("show")
@click.argument("target", metavar="NAME[:QUALIFIER]", shell_complete=complete_function)
@json_option
@click.pass_context
def functions_show(context: click.Context, target: str, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Show a function, or a version or alias of it: configuration, limits, versions, aliases."""
    client = connect(Options.of(context))
    found = _whole(client, target)
    if as_json:
        output.document(found)
        return
    output.fields(_fields(found))
    if found["Versions"]:
        click.echo()
        output.table(_VERSIONS, [_version_row(version) for version in found["Versions"]], right=("SIZE",))
    if found["Aliases"]:
        click.echo()
        output.table(aliases.COLUMNS, [aliases.alias_row(alias) for alias in found["Aliases"]])


def _whole(client: Client, target: str) -> dict[str, Any]:
    """Return what GetFunction tells, with all versions and aliases and what the daemon itself says of it."""
    name, _, qualifier = target.partition(":")
    try:
        found: dict[str, Any] = call(client, "GET", function_path(name), query={"Qualifier": qualifier or None})
    except LambdaRefused as error:
        raise explained(client, name, error, versions_of(name)) from error
    versions = pages(client, function_path(name, "/versions"), "Versions")
    found["Versions"] = [version for version in versions if version["Version"] != "$LATEST"]
    found["Aliases"] = pages(client, function_path(name, "/aliases"), "Aliases")
    arn = ":".join(found["Configuration"]["FunctionArn"].split(":")[:7])
    functions = client.get("/functions")["functions"]
    local = [function for function in functions if function["name"] == name or function.get("arn") == arn]
    found["Local"] = local[0] if local else {}
    return found


def _fields(found: dict[str, Any]) -> list[tuple[str, object]]:
    shown, local = found["Configuration"], found["Local"]
    reserved = found.get("Concurrency", {}).get("ReservedConcurrentExecutions")
    environment = shown.get("Environment", {})
    return [
        ("name", shown["FunctionName"]),
        ("arn", local.get("arn") or shown["FunctionArn"]),
        ("version", shown["Version"]),
        ("from", {"api": "Lambda's API", "file": "the daemon's file"}.get(_maker(local), "elsewhere")),
        ("state", _state(shown)),
        ("description", shown.get("Description", "")),
        ("runtime", (shown["Version"] == "$LATEST" and local.get("runtime")) or shown.get("Runtime", "")),
        ("handler", shown.get("Handler", "")),
        ("timeout", f"{shown['Timeout']} s"),
        ("memory", f"{shown['MemorySize']} MB" if "MemorySize" in shown else ""),
        ("/tmp", f"{shown['EphemeralStorage']['Size']} MB" if "MemorySize" in shown else ""),  # noqa: S108 - a heading
        (
            "variables",
            ", ".join(sorted(environment.get("Variables", ()))) or environment.get("Error", {}).get("Message"),
        ),
        ("layers", ", ".join(_layers(shown, local))),
        ("code", f"{output.size(shown['CodeSize'])} zipped, {shown['CodeSha256']}" if "CodeSha256" in shown else ""),
        ("changed", shown.get("LastModified", "")),
        ("reserved concurrency", reserved),
        ("retries", local.get("maximum_retry_attempts")),
        ("on failure", local.get("on_failure", "")),
        ("on success", local.get("on_success", "")),
        ("dead letters", local.get("dead_letter_target", "")),
        ("network", local.get("network", "")),
        ("interfaces", ", ".join(f"{eni} in {subnet}" for subnet, eni in local.get("network_interfaces", {}).items())),
        ("addresses on AWS", _addresses(local)),
        ("role", local.get("role", "")),
        ("allows", "; ".join(local.get("role_allows", ()))),
        ("tags", ", ".join(f"{key}={value}" for key, value in found.get("Tags", {}).items())),
        ("sandbox", local.get("sandbox", "")),
        ("trouble", local.get("trouble", "")),
    ]


def _layers(shown: dict[str, Any], local: dict[str, Any]) -> list[str]:
    """Return the layers: of a function of the file as they are written there."""
    if shown["Version"] == "$LATEST" and "layers" in local:
        return [str(layer) for layer in local["layers"]]
    return [layer["Arn"] for layer in shown.get("Layers", ())]


def _addresses(local: dict[str, Any]) -> str:
    if "projected_addresses" not in local:
        return ""
    count, peak, memory_mb = local["projected_addresses"], local["peak_concurrency"], local["memory_mb"]
    return f"{count} projected: {peak} at once x {memory_mb} MB / 3 GB"


def _state(shown: dict[str, Any]) -> str:
    update = shown.get("LastUpdateStatus", "Successful")
    return str(shown["State"]) if update == "Successful" else f"{shown['State']}, update {update}"


def _version_row(version: dict[str, Any]) -> list[object]:
    return [
        version["Version"],
        output.size(version["CodeSize"]),
        version["LastModified"],
        version["CodeSha256"][:_SHA_CHARS],
        version["Description"],
    ]
