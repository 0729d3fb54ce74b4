"""What `bridge put` reads: a file, a pipe or the command line, record by record; and the progress it shows."""

import json
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import click

from bridge.cli import output
from bridge.cli.failures import Misused

FLUSH_S: Final = 0.2
"""A pipe that says nothing for so long: what it said goes out."""
WHOLE_MAX_BYTES: Final = 256 * 1024 * 1024
"""Largest document that is read as one; lines may go on for ever."""

Line = tuple[bytes, int]
"""A value as it was read, and how many bytes of the input it ends at."""


@contextmanager
def opened(data: str | None, *, is_text: bool = False) -> Iterator[tuple[IO[bytes], int | None]]:
    """Yield what is to be read, and its size where it is known; with `is_text` what is no file need not be JSON."""
    from io import BytesIO

    if data is None:
        yield BytesIO(), 0
        return
    if data == "-":
        yield sys.stdin.buffer, None
        return
    try:
        with Path(data).open("rb") as file:
            yield file, Path(data).stat().st_size
            return
    except (OSError, ValueError) as error:
        text = data if is_text else data.lstrip()
        if not is_text and not is_json(text.encode("utf-8", "surrogateescape")):
            what = getattr(error, "strerror", None) or str(error)
            raise click.BadParameter(f"{data[:100]}: {what}, and it is not JSON either", param_hint="DATA") from error
    raw = text.encode("utf-8", "surrogateescape")
    yield BytesIO(raw), len(raw)


def values(file: IO[bytes]) -> Iterator[Line | None]:
    """Yield the values of the input; None where a pipe pauses."""
    lines = _lines(file)
    at, first = 0, b""
    for line in lines:
        if line is None:
            continue
        at += len(line)
        first = line
        if first.strip():
            break
    head = first.strip()
    if not head:
        return
    # A line that is whole JSON begins lines, unless it is an array and all there is.
    if head[:1] == b"[" or (head[:1] == b"{" and not is_json(head)):
        yield from _whole(lines, first, at)
        return
    yield head, at
    yield from _further(lines, at)


def whole(file: IO[bytes]) -> Iterator[Line | None]:
    """Yield all of the input as one value."""
    content = file.read(WHOLE_MAX_BYTES + 1)
    if len(content) > WHOLE_MAX_BYTES:
        raise Misused("an input of more than 256 MiB")
    yield content, len(content)


def _further(lines: Iterator[bytes | None], at: int) -> Iterator[Line | None]:
    for line in lines:
        if line is None:
            yield None
            continue
        at += len(line)
        if value := line.strip():
            yield value, at


def _whole(lines: Iterator[bytes | None], first: bytes, at: int) -> Iterator[Line | None]:
    """Read one document to its end: an array's elements, or itself."""
    rest = b"".join(line for line in lines if line is not None)
    document = first + rest
    if len(document) > WHOLE_MAX_BYTES:
        raise Misused("a document of more than 256 MiB; give it as lines")
    try:
        parsed = json.loads(document)
    except ValueError as error:
        if is_json(first.strip()):  # lines that are arrays
            yield first.strip(), at
            yield from _further(iter(rest.splitlines(keepends=True)), at)
            return
        raise Misused(f"the input begins like JSON but is none: {error}") from error
    if not isinstance(parsed, list):
        yield document.strip(), len(document)
        return
    for number, element in enumerate(parsed, 1):
        value = json.dumps(element, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        yield value, len(document) * number // len(parsed)


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Yield lines with their ends; None when a pipe or terminal has said nothing for a while."""
    try:
        descriptor = file.fileno()
    except (OSError, AttributeError):  # not a file of the system's
        yield from file
        return
    read = getattr(file, "read1", file.read)
    pending = bytearray()
    while True:
        if not select.select([descriptor], [], [], FLUSH_S)[0]:
            yield None
            continue
        piece = read(1 << 16)
        if not piece:
            break
        pending += piece
        if b"\n" in piece:
            *whole, rest = bytes(pending).split(b"\n")
            pending = bytearray(rest)
            for line in whole:
                yield line + b"\n"
        elif len(pending) > WHOLE_MAX_BYTES:
            raise Misused("a line of more than 256 MiB")
    if pending:
        yield bytes(pending)


def is_json(text: bytes) -> bool:
    """Tell whether a text is JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@contextmanager
def progress(size: int | None) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows (records, bytes of the input) on a terminal."""
    if not (output.is_tty() and sys.stderr.isatty()):
        yield lambda _count, _at: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("put", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, markup=False, highlight=False),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=size, count="")
        yield lambda count, at: bar.update(task, completed=at, count=output.records(count))
