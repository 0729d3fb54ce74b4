"""The verbs about a daemon and its configuration: run, check, config, reload."""

import gc
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bridge.cli import output
from bridge.cli.arguments import json_option
from bridge.cli.failures import Failed, Misused
from bridge.cli.locate import Options, config_path, connect
from bridge.util.text import escape

if TYPE_CHECKING:
    from bridge.config.load import Loaded
    from bridge.config.settings import Settings

_NAMED: Final = ("access_keys", "connections", "functions", "sources", "mappings")
_file = click.argument("file", required=False, metavar="[FILE]")


def load_settings(context: click.Context, file: str | None, *, local: bool = False, remote: bool = False) -> "Loaded":
    """Load the configuration that was named, `./bridge.toml` else, and tell its warnings.

    With `local`, every pull source of it is an embedded stream; with `remote` too, remote functions are invoked.

    Raises:
        Misused: with every mistake.
    """
    from bridge.config.load import load
    from bridge.config.mistakes import ConfigErrors

    options = Options.of(context)
    if options.state:
        os.environ["BRIDGE_STATE"] = options.state  # one way in for the setting: the environment
    try:
        loaded = load(config_path(options, file), local=local, remote=remote)
    except ConfigErrors as error:
        mistakes = error.mistakes
        if len(mistakes) == 1:
            raise Misused(mistakes[0]) from error
        raise Misused(f"{len(mistakes)} mistakes in the configuration", more=mistakes) from error
    for warning in loaded.warnings:
        output.note(f"bridge: warning: {warning}")
    return loaded


@click.command("run")
@_file
@click.option(
    "--watch",
    is_flag=True,
    help="Take an edited file at once: code from the next invocation on, and the configuration.",
)
@click.option(
    "--local",
    is_flag=True,
    help="Try the file without brokers and AWS: embedded streams in place of pull sources, a state folder apart.",
)
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Read what others may be reading too (consumer groups, AWS), and invoke functions elsewhere.",
)
@click.pass_context
def run_command(
    context: click.Context,
    file: str | None,
    watch: bool,  # noqa: FBT001 - click's signature
    local: bool,  # noqa: FBT001
    allow_remote: bool,  # noqa: FBT001
) -> int:
    """Run the daemon with FILE, or bridge.toml of this folder, until SIGTERM or Ctrl-C."""
    gc.disable()  # what a start makes stays: looking for garbage in it is a fifteenth of its time
    try:
        loaded = load_settings(context, file, local=local, remote=allow_remote)
        return _run(loaded, watch=watch, local=local, allow_remote=allow_remote)
    finally:
        gc.enable()


def _run(loaded: "Loaded", *, watch: bool, local: bool, allow_remote: bool) -> int:
    from bridge.config.access import hidden_ports
    from bridge.runtime import launch

    is_confined = loaded.settings.runtime.sandbox != "basic"
    # It and the imports below take about as long.
    launch.ahead(denied_ports=hidden_ports(loaded.settings) if is_confined else ())
    from bridge import daemon
    from bridge.cli import banner
    from bridge.core.errors import BridgeError, ConfigError, StoreBusy, StoreTooNew

    try:
        return daemon.run(
            loaded.settings,
            config_path=loaded.path,
            watch=watch,
            on_ready=banner.show if _is_read(loaded, watch=watch) else None,
            local=local,
            allow_remote=allow_remote,
        )
    except (ConfigError, StoreBusy, StoreTooNew) as error:
        raise Misused(str(error)) from error
    except BridgeError as error:
        raise Failed(str(error)) from error
    finally:
        launch.drop()


def _is_read(loaded: "Loaded", *, watch: bool) -> bool:
    """Tell whether a person reads standard output: a log collector wants entries and nothing else."""
    return watch or output.is_tty() or loaded.settings.log.format == "console"


@click.command("check")
@_file
@json_option
@click.pass_context
def check_command(context: click.Context, file: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Check FILE, or bridge.toml of this folder; nothing is started."""
    loaded = load_settings(context, file)
    settings = loaded.settings
    if as_json:
        names = {section: list(getattr(settings, section)) for section in _NAMED}
        found = {"file": str(loaded.path), "ok": True, "warnings": list(loaded.warnings)} | names
        output.document(found | {"remote_functions": _remote(settings)})
        return
    shown = Path(file) if file else loaded.path
    click.echo(f"{click.style('OK', fg='green')}  {escape(str(shown))}")
    output.fields([
        *((section, ", ".join(getattr(settings, section)) or "none") for section in _NAMED),
        *(("remote", f"{name}: {at['arn']} {_by(at['connection'])}") for name, at in _remote(settings).items()),
        ("public", settings.listen.public),
        ("api", settings.listen.api),
        ("state", settings.state),
    ])  # fmt: skip


def _remote(settings: "Settings") -> dict[str, dict[str, str]]:
    """Return where each remote function is: its ARN, and the connection by which it is reached (empty: none)."""
    from bridge.config.connections import aws_connection
    from bridge.config.functions import RemoteFunctionSettings
    from bridge.core.arn import parse_arn

    return {
        name: {
            "arn": function.arn,
            "connection": aws_connection(settings, arn=parse_arn(function.arn), name=function.connection).name,
        }
        for name, function in settings.functions.items()
        if isinstance(function, RemoteFunctionSettings)
    }


def _by(connection: str) -> str:
    return f"by connection {connection}" if connection else "by boto's own chain of credentials"


@click.group("config")
def config_command() -> None:
    """Show the configuration or its schema."""


@config_command.command("show")
@_file
@click.pass_context
def config_show(context: click.Context, file: str | None) -> None:
    """Print what FILE comes to: defaults filled in, paths absolute, secrets masked."""
    loaded = load_settings(context, file)
    from bridge.config.show import show

    click.echo(show(loaded.settings), nl=False)


@config_command.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from bridge.config.show import schema

    click.echo(json.dumps(schema(), indent=2))


@click.command("reload")
@json_option
@click.pass_context
def reload_command(context: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click's signature
    """Make the daemon read its configuration again; a file with mistakes changes nothing."""
    answer = connect(Options.of(context)).post("/reload")
    if as_json:
        output.document(answer)
        return
    changes = answer["changes"]
    click.echo(f"{click.style('OK', fg='green')}  {len(changes)} changed" if changes else "OK  nothing changed")
    for change in changes:
        click.echo(f"  {escape(change)}")
