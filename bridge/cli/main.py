"""`bridge`: the command line. A verb's code is imported when it is used, so that `--version` is quick."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

_VERBS: Final[Mapping[str, tuple[str, str]]] = {
    "run": ("service", "Run the daemon."),
    "check": ("service", "Check a configuration; every mistake at once."),
    "invoke": ("invoke", "Invoke a function."),
    "put": ("put", "Put records into an embedded stream, or events into a push source."),
    "replay": ("replay", "Send stored events again."),
    "logs": ("invoke", "Show what a function printed."),
    "reload": ("service", "Read the configuration again."),
    "reset": ("reset", "Clear what Lambda's API made, where the file allows it."),
    "doctor": ("doctor", "Say what is in force, and what is wrong."),
    "config": ("service", "Show the configuration or its schema."),
    "events": ("events", "Look at stored events."),
    "dlq": ("dlq", "Look at dead letters; send them again or drop them."),
    "replays": ("replay", "Look at replays; pause, resume or cancel them."),
    "sources": ("sources", "Look at push sources: where events come from, the next tick, what is in trouble."),
    "mappings": ("mappings", "Look at event source mappings; pause or resume them, move their marks."),
    "functions": ("functions", "Look at functions; deploy and publish them, set aliases and policies."),
    "keys": ("keys", "Look at the keys that seal variables of functions; rotate them."),
    "filter": ("filter", "Say why an event matches a filter pattern, or does not."),
    "generate-event": ("generate", "Print a sample event with chosen fields."),
    "completion": ("completion", "Print the script that completes words in your shell."),
}
"""Verb -> module that holds a command of that name, and its help in one line. In the order that help shows."""


class _Verbs(click.Group):
    """Imports a verb's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in order."""
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb's command."""
        del ctx
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"bridge.cli.{_VERBS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in _VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; `bridge events list | head` is no failure: the reader has seen enough."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest verb when there is no such one."""
        word = args[0] if args else ""
        if word and not word.startswith("-") and word not in _VERBS:
            import difflib

            near = difflib.get_close_matches(word, _VERBS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(_VERBS)}."
            ctx.fail(f"No such command {word[:40]!r}.{hint}")
        return super().resolve_command(ctx, args)


def _print_version(context: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if not value or context.resilient_parsing:
        return
    from bridge import __version__

    click.echo(f"bridge {__version__}")
    context.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--url",
    envvar="BRIDGE_URL",
    metavar="URL",
    help="The daemon's api listener, such as http://127.0.0.1:8581.  [BRIDGE_URL]",
)
@click.option("--token", envvar="BRIDGE_TOKEN", metavar="TOKEN", help="Its admin token.  [BRIDGE_TOKEN]")
@click.option(
    "--state", envvar="BRIDGE_STATE", metavar="FOLDER", help="Its state folder, which tells both.  [BRIDGE_STATE]"
)
@click.option("--config", metavar="FILE", help="The configuration; default: bridge.toml in this folder.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.pass_context
def cli(context: click.Context, /, **_options: str | None) -> None:
    """Carry events from where they happen to functions that handle them, and replay them.

    Without --url the daemon is found through its state folder: BRIDGE_STATE, `state` in the
    configuration, or .bridge in this folder; else, if `bridge run --local` runs, through the same
    name with -local.

    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no daemon.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 ok, 1 failed, 2 usage or configuration, 3 no daemon."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:  # closed by whoever started us: nobody reads it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for the process's life
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = cli.main(args=args, prog_name="bridge", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:  # Ctrl-C
        click.echo("", err=True)
        status = 130
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        click.echo(f"bridge: {error.strerror or error}{where}", err=True)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)
