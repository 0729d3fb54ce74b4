"""What options of `bridge generate-event` take: times, data, pairs; and what no event can hold."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from bridge.cli.times import FORMS, parse_time
from bridge.core import limits

_DATA_MAX_BYTES: Final = limits.SYNC_PAYLOAD_MAX_BYTES


class Milliseconds(click.ParamType[int]):
    """A time as people write it, or epoch milliseconds; the value is epoch milliseconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it; the usage error lists the known forms."""
        text = str(value)
        if text.isascii() and text.isdigit():
            return int(text)
        try:
            return round(parse_time(text, time.time()) * 1000)
        except ValueError:
            self.fail(f"{text!r} is neither epoch milliseconds nor a time; times: {FORMS}", param, ctx)


class Data(click.ParamType[bytes]):
    """Text (as UTF-8), @file, or - for standard input; the value is bytes."""

    name = "data"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """Return the bytes."""
        text = str(value)
        if text == "-":
            return sys.stdin.buffer.read(_DATA_MAX_BYTES)
        if not text.startswith("@"):
            return text.encode("utf-8", "surrogateescape")
        try:
            with Path(text[1:]).open("rb") as file:
                return file.read(_DATA_MAX_BYTES)
        except OSError as error:
            self.fail(f"{text[1:]}: {error.strerror}", param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "pair"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split at the first equals sign."""
        if isinstance(value, tuple):
            return value
        name, equals, rest = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, rest


def check_are_texts(options: Mapping[str, Any]) -> None:
    """Refuse what a shell can pass but JSON cannot hold; bytes come from a file."""
    for name, value in options.items():
        pairs = value if isinstance(value, tuple) else ((value,),)
        for text in (each for pair in pairs for each in pair if isinstance(each, str)):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise click.UsageError(f"{_option(name)} is not UTF-8") from error


def is_given(name: str) -> bool:
    """Tell whether an option is on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(name: str) -> str:
    """Return an option as it is written on the command line."""
    for param in click.get_current_context().command.params:
        if param.name == name:
            return param.opts[0]
    return name
