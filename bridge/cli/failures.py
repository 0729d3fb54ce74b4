"""How a command ends other than well: one line on standard error and an exit code."""

from collections.abc import Sequence
from typing import Any

import click

from bridge.util.text import escape

__all__ = ["Failed", "Misused", "NoDaemon"]


class Failed(click.ClickException):
    """The asked-for thing failed: exit code 1."""

    exit_code = 1

    def __init__(self, text: str, *, more: Sequence[str] = ()) -> None:
        super().__init__(escape(text))
        self.more = tuple(escape(line) for line in more)

    def show(self, file: Any = None) -> None:
        """Write it to standard error."""
        click.echo(f"bridge: {self.message}", err=file is None, file=file)
        for line in self.more:
            click.echo(f"  {line}", err=file is None, file=file)


class Misused(Failed):
    """Usage or configuration: exit code 2."""

    exit_code = 2


class NoDaemon(Failed):
    """There is no daemon to talk to: exit code 3, and how to start one."""

    exit_code = 3

    def __init__(self, text: str) -> None:
        super().__init__(text, more=["start one with `bridge run [FILE]`, or say where it is: --url, --state"])
