"""`bridge put`: records for an embedded stream, from a file, a pipe or the command line."""

import json
import select
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import click

from bridge.cli import output
from bridge.cli.arguments import complete_mapping, json_option, rate_option
from bridge.cli.client import Client, refusal, segment
from bridge.cli.failures import Failed, Misused
from bridge.cli.locate import Options, connect
from bridge.core import limits
from bridge.core.mapping import SourceAddress, parse_source

_BATCH_RECORDS_MAX: Final = 500
_BATCH_MAX_BYTES: Final = 512 * 1024
"""Of keys and values in one request, a larger record alone."""
_FLUSH_S: Final = 0.2
"""A pipe that says nothing for so long: what it said goes out."""
_WHOLE_MAX_BYTES: Final = 256 * 1024 * 1024
"""Largest document that is read as one; lines may go on for ever."""
_FULL_TRIES_MAX: Final = 60
"""One a second, while the mapping is too far behind."""

Line = tuple[bytes, int]
"""A value as it was read, and how many bytes of the input it ends at."""


@click.command("put")
@click.argument("mapping", shell_complete=complete_mapping)
@click.argument("data", metavar="FILE|-|JSON")
@click.option(
    "--key",
    metavar="FIELD",
    help="The key is this field of the value: id, user.id. Of a DynamoDB stream: the item's key, pk or pk,sk; else id.",
)
@click.option(
    "--records", "as_records", is_flag=True, help="Each line is a record: key, value, headers; or DynamoDB's own."
)
@rate_option
@json_option
@click.pass_context
def put_command(
    context: click.Context,
    mapping: str,
    data: str,
    key: str | None,
    as_records: bool,  # noqa: FBT001 - click's signature
    rate: float | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    """Put records into the embedded stream that MAPPING reads.

    A line is a record; a JSON array is a record an element; any other JSON document is one record.

    \b
    bridge put orders '{"id": 7}'
    bridge generate-event kafka --records --count 10 | bridge put orders - --records
    """  # noqa: D301 - the mark of click is the character
    if key is not None and as_records:
        raise click.UsageError("--key reads a field of the value; with --records the lines have their keys")
    client = connect(Options.of(context))
    address = _stream(client, mapping)
    stream, is_table = address.name, address.format == "dynamodb"
    with _opened(data) as (file, size), _progress(size) as show:
        sender = _Sender(client, stream, rate=rate, show=show)
        make = _maker(key, as_records=as_records, is_table=is_table)
        try:
            for line in _values(file):
                if line is None:
                    sender.flush()
                else:
                    sender.add(make(line[0]), line[1])
            sender.flush()
        except KeyboardInterrupt:
            output.note("")
            output.note(f"stopped; {_records(sender.count)} went into local://{stream}")
            return 130
        except Failed as error:
            raise type(error)(f"{error.message}; {_records(sender.count)} went into local://{stream}") from error
    if as_json:
        output.document({"mapping": mapping, "stream": stream, "records": sender.count, "last": sender.last})
    else:
        click.echo(f"{_records(sender.count)} put into local://{stream}")
    return 0


def _records(count: int) -> str:
    return f"{count:,} record{'' if count == 1 else 's'}"


def _maker(key: str | None, *, as_records: bool, is_table: bool) -> Callable[[bytes], dict[str, Any]]:
    """Return what makes a record of a line."""
    if as_records:
        return lambda line: _record_of(line, is_table=is_table)
    if is_table and key is not None:
        return lambda value: _change_of(value, key.split(","))
    return lambda value: _keyed(value, key)


def _stream(client: Client, mapping: str) -> SourceAddress:
    """Return the embedded stream that a mapping reads."""
    reply = client.raw("GET", f"/mappings/{segment(mapping)}", refuse=False)
    if reply.status >= 400:
        error = refusal(reply)
        raise Misused(error.message) if reply.status == 404 else error
    source = str(json.loads(reply.body)["source"])
    address = parse_source(source)
    if address.kind == "push":
        raise Misused(f"{mapping} reads what is sent to the source {source}, no embedded stream")
    if address.kind != "local":
        raise Misused(f"{mapping} reads {source}, no embedded stream; `bridge run --local FILE` makes it one")
    return address


# --- reading ------------------------------------------------------------------------------------------------------
@contextmanager
def _opened(data: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """Yield what is to be read, and its size where it is known."""
    from io import BytesIO

    if data == "-":
        yield sys.stdin.buffer, None
        return
    try:
        with Path(data).open("rb") as file:
            yield file, Path(data).stat().st_size
            return
    except (OSError, ValueError) as error:
        text = data.lstrip()
        if not _is_json(text.encode("utf-8", "surrogateescape")):
            what = getattr(error, "strerror", None) or str(error)
            raise click.BadParameter(f"{data[:100]}: {what}, and it is not JSON either", param_hint="DATA") from error
    raw = text.encode("utf-8", "surrogateescape")
    yield BytesIO(raw), len(raw)


def _values(file: IO[bytes]) -> Iterator[Line | None]:
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
    if head[:1] == b"[" or (head[:1] == b"{" and not _is_json(head)):
        yield from _whole(lines, first, at)
        return
    yield head, at
    yield from _further(lines, at)


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
    if len(document) > _WHOLE_MAX_BYTES:
        raise Misused("a document of more than 256 MiB; give it as lines")
    try:
        parsed = json.loads(document)
    except ValueError as error:
        if _is_json(first.strip()):  # lines that are arrays
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
        if not select.select([descriptor], [], [], _FLUSH_S)[0]:
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
        elif len(pending) > _WHOLE_MAX_BYTES:
            raise Misused("a line of more than 256 MiB")
    if pending:
        yield bytes(pending)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


# --- records ------------------------------------------------------------------------------------------------------
def _keyed(value: bytes, key: str | None) -> dict[str, Any]:
    found: Any = None
    if key is not None:
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        for name in key.split("."):
            found = found.get(name) if isinstance(found, dict) else None
    return {"key": _base64(_bytes(found)), "value": _base64(value)}


def _change_of(value: bytes, names: Sequence[str]) -> dict[str, Any]:
    """Return a DynamoDB stream record of a new item whose key is these attributes."""
    from bridge.events.dynamodb import record_key
    from bridge.events.items import NotAnItem, keyed_change

    try:
        change = keyed_change(value, names)
    except NotAnItem as error:
        raise Misused(f"an item {error}") from error
    text = json.dumps(change, ensure_ascii=False, separators=(",", ":")).encode()
    return {"key": _base64(record_key(change)), "value": _base64(text)}


def _record_of(line: bytes, *, is_table: bool) -> dict[str, Any]:
    """Return a record of a line as `bridge generate-event kafka|kinesis|dynamodb --records` prints it."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise Misused(
            f"with --records a line is a JSON object with value, and perhaps key and headers: {error}"
        ) from error
    if is_table and isinstance(record, dict) and "dynamodb" in record:
        return {"key": None, "value": _base64(line)}
    if not isinstance(record, dict) or "value" not in record or set(record) - {"key", "value", "headers", "timestamp"}:
        raise Misused("with --records a line is a JSON object with value, and perhaps key, headers and timestamp")
    headers = record.get("headers") or {}
    pairs = headers.items() if isinstance(headers, dict) else [pair for each in headers for pair in each.items()]
    made = {
        "key": _base64(_bytes(record.get("key"))),
        "value": _base64(_bytes(record["value"])),
        "headers": [{name: None if value is None else list(_bytes(value) or b"")} for name, value in pairs],
    }
    return made if record.get("timestamp") is None else made | {"timestamp": record["timestamp"]}


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode("ascii")


# --- sending ------------------------------------------------------------------------------------------------------
class _Sender:
    """Gathers records into requests, at most so many a second."""

    def __init__(self, client: Client, stream: str, *, rate: float | None, show: Callable[[int, int], None]) -> None:
        self._client = client
        self._path = f"/streams/{segment(stream)}/records"
        self._rate = rate
        self._batch_max = _BATCH_RECORDS_MAX if rate is None else max(1, min(_BATCH_RECORDS_MAX, int(rate / 10)))
        self._show = show
        self._batch: list[dict[str, Any]] = []
        self._size = 0
        self._at = 0
        self._began = time.monotonic()
        self.count = 0
        """Records that are stored."""
        self.last: int | None = None
        """Position of the last one."""

    def add(self, record: dict[str, Any], at: int) -> None:
        """Put a record, which ends at byte `at` of the input, now or with others that follow."""
        size = len(record["value"] or "") + len(record["key"] or "")
        if self._batch and (len(self._batch) >= self._batch_max or self._size + size > _BATCH_MAX_BYTES):
            self.flush()
        self._batch.append(record)
        self._size += size
        self._at = at

    def flush(self) -> None:
        """Put what has gathered."""
        if not self._batch:
            return
        if self._rate is not None:
            time.sleep(max(0.0, self._began + self.count / self._rate - time.monotonic()))
        body = json.dumps({"records": self._batch}).encode()
        if len(body) > limits.PUT_MAX_BYTES:
            raise Misused(f"a record of more than {output.size(limits.PUT_MAX_BYTES * 3 / 4)}")
        for _ in range(_FULL_TRIES_MAX):
            reply = self._client.raw("POST", self._path, body=body, refuse=False)
            if reply.status != 503:
                break
            time.sleep(1.0)
        if reply.status >= 400:
            raise refusal(reply)
        self.last = json.loads(reply.body)["positions"][-1]
        self.count += len(self._batch)
        self._batch, self._size = [], 0
        self._show(self.count, self._at)


@contextmanager
def _progress(size: int | None) -> Iterator[Callable[[int, int], None]]:
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
        yield lambda count, at: bar.update(task, completed=at, count=_records(count))
