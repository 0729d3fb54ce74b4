"""`bridge completion`: the script that makes a shell complete verbs, options and names."""

import click
from click.shell_completion import get_completion_class

from bridge.cli.failures import Failed


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash, zsh:  eval "$(bridge completion bash)"
    fish:       bridge completion fish | source
    """  # noqa: D301 - the mark of click is the character
    found = get_completion_class(shell)
    if found is None:
        raise Failed(f"no completion for {shell}")
    root = context.find_root()
    click.echo(found(root.command, {}, "bridge", "_BRIDGE_COMPLETE").source())
