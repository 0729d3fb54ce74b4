"""`bridge functions deploy`: makes a function of a folder or zip, or brings it up to date, and waits until it is."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from bridge.cli import output
from bridge.cli.aliases import point
from bridge.cli.arguments import complete_alias, complete_function, json_option
from bridge.cli.client import Client
from bridge.cli.failures import Misused
from bridge.cli.lambda_calls import FUNCTIONS, LambdaRefused, call, find, function_path, settled, upload
from bridge.cli.locate import Options, connect
from bridge.cli.packing import Packed, counted, packed, request

ROLE: Final = "arn:aws:iam::000000000000:role/bridge"
"""Of functions that are given none: no role is assumed here, and Lambda's API wants one."""
BAR_MIN_BYTES: Final = 1024 * 1024
"""A smaller upload is over before a bar is read."""


def complete_runtime(_context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete AWS's names of runtimes."""
    from bridge.registry.interpreters import RUNTIMES

    return [CompletionItem(name) for name in RUNTIMES if name.startswith(typed)]


def _variables(_context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """Read NAME=VALUE; of NAME alone the value is taken from here, so that a secret is in no list of processes."""
    found: dict[str, str] = {}
    for written in values:
        name, sign, value = written.partition("=")
        if not name or (not sign and name not in os.environ):
            raise click.BadParameter(f"{written!r}: write NAME=VALUE, or NAME of a variable set here", param=param)
        found[name] = value if sign else os.environ[name]
    return found if values else None


@click.command("deploy")
@click.argument("name", shell_complete=complete_function)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--handler", metavar="MODULE.FUNCTION", help="What is called; a new function needs it.")
@click.option(
    "--runtime", metavar="NAME", help="AWS's name; a new function has the daemon's.", shell_complete=complete_runtime
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    callback=_variables,
    help="A variable; NAME alone takes its value from here. Those given replace all the function has.",
)
@click.option("--memory", type=int, metavar="MB", help="128 to 10240.")
@click.option("--timeout", type=int, metavar="SECONDS", help="1 to 900.")
@click.option("--layer", "layers", multiple=True, metavar="ARN", help="A layer version; those given replace all.")
@click.option("--role", metavar="ARN", help="Execution role: of a [roles.X], or any other.")
@click.option("--description", metavar="TEXT", help="Of the function.")
@click.option("--publish", is_flag=True, help="Publish a version of it.")
@click.option("--alias", metavar="NAME", help="Publish, and let this alias point to it.", shell_complete=complete_alias)
@json_option
@click.pass_context
def deploy_command(
    context: click.Context,
    /,
    name: str,
    path: Path,
    publish: bool,  # noqa: FBT001 - click's signature
    alias: str | None,
    as_json: bool,  # noqa: FBT001 - click's signature
    **given: Any,
) -> None:
    """Make NAME of a folder or zip, or bring it up to date; wait until it is Active.

    What is not given stays as it is. An unchanged folder is not sent again.
    """
    if ":" in name:
        raise click.BadParameter("a deploy changes $LATEST: give the name alone", param_hint="NAME")
    client = connect(Options.of(context))
    settings = _settings(given)
    with packed(path) as package:
        before = find(client, "GET", function_path(name, "/configuration"))
        if before is None:
            done = "created"
            _create(client, name, package, settings)
        else:
            done = _update(client, name, package, settings, before)
    found = settled(client, name)
    if missing := _missing_module(found, package):
        output.note(f"bridge: warning: {missing}")
    result: dict[str, Any] = {"Result": done, "Configuration": found}
    if publish or alias:
        version = call(client, "POST", function_path(name, "/versions"), body={"CodeSha256": found["CodeSha256"]})
        result["Version"] = version["Version"]
    if alias:
        result["Alias"] = point(client, name, alias, version=result["Version"], weights={})
    if as_json:
        output.document(result)
    else:
        _print(name, result)


def _missing_module(found: Mapping[str, Any], package: Packed) -> str:
    """Return that a Python handler's module is not in the package, nor maybe in a layer; empty: nothing is wrong."""
    module = found["Handler"].rpartition(".")[0].split("/")[0].split(".")[0]
    if not found["Runtime"].startswith("python") or found.get("Layers") or module in package.tops:
        return ""
    there = f"; modules at its top: {', '.join(package.modules)[:200]}" if package.modules else ""
    return f"the handler {found['Handler']} is in no {module}.py of this package{there}"


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, by AWS's names."""
    found = {
        "Runtime": given["runtime"],
        "Handler": given["handler"],
        "MemorySize": given["memory"],
        "Timeout": given["timeout"],
        "Role": given["role"],
        "Description": given["description"],
        "Environment": None if given["variables"] is None else {"Variables": given["variables"]},
        "Layers": list(given["layers"]) or None,
    }
    return {member: value for member, value in found.items() if value is not None}


def _create(client: Client, name: str, package: Packed, settings: dict[str, Any]) -> None:
    if "Handler" not in settings:
        module = package.modules[0] if len(package.modules) == 1 else "app"
        there = f"; modules at its top: {', '.join(package.modules)[:200]}" if package.modules else ""
        raise Misused(
            f"{name} is new, and a new function needs a handler{there}",
            more=[f"say which function of which module is called: --handler {module}.handler"],
        )
    members = {"FunctionName": name, "Role": ROLE, **settings}
    if "Runtime" not in members:
        members["Runtime"] = client.get("/functions")["interpreter"]
    _send(client, "POST", FUNCTIONS, members, package, within="Code")


def _update(client: Client, name: str, package: Packed, settings: dict[str, Any], before: dict[str, Any]) -> str:
    """Send what differs, code first: a version is published of both."""
    if "CodeSha256" not in before:
        raise Misused(
            f"{name} is declared in the daemon's file, which alone changes it",
            more=["edit its code or its section and run `bridge reload`, or deploy under another name"],
        )
    before = settled(client, name)
    done = "unchanged"
    if before["CodeSha256"] != package.sha256:
        done = "updated"
        _send(client, "PUT", function_path(name, "/code"), {}, package)
        before = settled(client, name)
    changed = {member: value for member, value in settings.items() if not _is_same(before, member, value)}
    if changed:
        done = "updated"
        call(client, "PUT", function_path(name, "/configuration"), body=changed)
    return done


def _is_same(before: Mapping[str, Any], member: str, value: object) -> bool:
    if member == "Environment":
        return bool(before.get("Environment", {"Variables": {}}) == value)
    if member == "Layers":
        return [layer["Arn"] for layer in before.get("Layers", ())] == value
    return bool(before.get(member) == value)


def _send(
    client: Client, method: str, path: str, members: Mapping[str, Any], package: Packed, *, within: str = ""
) -> None:
    size, pieces = request(members, package, within=within)
    with _bar(size) as show:
        try:
            upload(client, method, path, pieces=counted(pieces, show), size=size)
        except LambdaRefused as error:
            if error.status == 408:
                error.more = ("the link is too slow for the daemon: raise [listen] request_s",)
            raise


@contextmanager
def _bar(size: int) -> Iterator[Callable[[int], None]]:
    """Yield what shows how many bytes have gone: on a terminal, and of long uploads."""
    if size < BAR_MIN_BYTES or not sys.stderr.isatty():
        yield lambda _gone: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True, markup=False, highlight=False),
        transient=True,
    ) as bar:
        task = bar.add_task("upload", total=size)

        def show(gone: int) -> None:
            bar.update(task, completed=gone, description="upload" if gone < size else "unzip")

        yield show


def _print(name: str, result: Mapping[str, Any]) -> None:
    found = result["Configuration"]
    about = f"{output.size(found['CodeSize'])} zipped, {found['Runtime']}, {found['Handler']}"
    output.fields([
        (result["Result"], f"{name}  {about}"),
        ("version", result.get("Version", "")),
        ("alias", f"{result['Alias']['Name']} -> {result['Alias']['FunctionVersion']}" if "Alias" in result else ""),
    ])  # fmt: skip
    target = f"{name}:{result['Alias']['Name']}" if "Alias" in result else name
    output.note(f"invoke it: bridge invoke {target}")
