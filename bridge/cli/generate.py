"""`bridge generate-event`: sample events with chosen fields, for `invoke --payload -`, tests and streams."""

import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from bridge.cli.failures import Misused
from bridge.cli.times import FORMS, parse_time
from bridge.core import limits
from bridge.events import generate
from bridge.events.http import TooManyParameters
from bridge.events.kafka import CREATE_TIME, KafkaRecord

_DATA_MAX_BYTES: Final = limits.SYNC_PAYLOAD_MAX_BYTES

_FLAGS: Final = {
    "headers": "header",
    "msk_arn": "msk-arn",
    "bootstrap_servers": "bootstrap-servers",
    "source_ip": "source-ip",
    "request_id": "request-id",
}


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


@click.group("generate-event")
def generate_event_command() -> None:
    """Print a sample event with chosen fields.

    \b
    bridge generate-event kafka --value '{"id": 7}' | bridge invoke hello --payload -
    """  # noqa: D301 - the mark of click is the character


@generate_event_command.command("kafka")
@click.option("--topic", default="orders", show_default=True, metavar="NAME")
@click.option("--partition", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, metavar="N")
@click.option(
    "--offset", type=click.IntRange(0, 2**62), default=0, show_default=True, metavar="N", help="Of the first record."
)
@click.option("--key", type=Data(), metavar="TEXT|@FILE", help="Else null.")
@click.option("--value", type=Data(), default='{"id": 1}', show_default=True, metavar="TEXT|@FILE|-")
@click.option("--tombstone", is_flag=True, help="A null value.")
@click.option(
    "--header", "headers", type=Pair(), multiple=True, metavar="NAME=VALUE|NAME=@FILE", help="May be repeated."
)
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now.")
@click.option("--msk-arn", default="", metavar="ARN", help="An event of MSK; else of a self-managed cluster.")
@click.option("--bootstrap-servers", default="localhost:9092", show_default=True, metavar="HOST:PORT,…")
@click.option(
    "--count", type=click.IntRange(1, generate.COUNT_MAX), default=1, show_default=True, metavar="N",
    help="So many records, at rising offsets.",
)  # fmt: skip
@click.option("--records", is_flag=True, help="Not an event, but each record as a line of JSON: key, value, headers.")
def _kafka(**options: Any) -> None:
    """Print the event of Kafka records."""
    _check_are_texts(options)
    if options["tombstone"] and _is_given("value"):
        raise click.UsageError("--tombstone and --value exclude each other.")
    timestamp_ms = round(time.time() * 1000) if options["timestamp"] is None else options["timestamp"]
    data = Data()
    headers = tuple((name, data.convert(value, None, None)) for name, value in options["headers"])
    records = [
        KafkaRecord(
            topic=options["topic"],
            partition=options["partition"],
            offset=options["offset"] + number,
            timestamp_ms=timestamp_ms,
            timestamp_type=CREATE_TIME,
            key=options["key"],
            value=None if options["tombstone"] else options["value"],
            headers=headers,
        )
        for number in range(options["count"])
    ]
    if not options["records"]:
        event = generate.kafka_event(
            records, bootstrap_servers=options["bootstrap_servers"], msk_arn=options["msk_arn"]
        )
        click.echo(event)
        return
    try:
        lines = [generate.record_line(record) for record in records]
    except generate.NotText as error:
        raise Misused(str(error)) from error
    for line in lines:
        click.echo(line)


@generate_event_command.command("webhook")
@click.option("--method", default="POST", show_default=True, metavar="METHOD")
@click.option("--path", default="/", show_default=True, metavar="PATH", help="Percent-encoded, as it is sent.")
@click.option("--body", type=Data(), metavar="TEXT|@FILE|-", help='Else {"id": 1} for POST, PUT and PATCH.')
@click.option("--header", "headers", type=Pair(), multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--query", type=Pair(), multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--source-ip", default="127.0.0.1", show_default=True, metavar="ADDRESS")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now.")
@click.option("--request-id", default="", metavar="ID", help="Else a new one.")
def _webhook(**options: Any) -> None:
    """Print the event of an HTTP request (API Gateway v2, function URL)."""
    _check_are_texts(options)
    method = options["method"].upper()
    body = options["body"]
    if body is None:
        body = b'{"id": 1}' if method in ("POST", "PUT", "PATCH") else b""
    if not options["path"].startswith("/"):
        raise click.BadParameter("begins with /", param_hint="--path")
    request = generate.WebhookRequest(
        method=method,
        path=options["path"],
        query=options["query"],
        headers=options["headers"],
        body=body,
        source_ip=options["source_ip"],
    )
    received_at = time.time() if options["timestamp"] is None else options["timestamp"] / 1000
    try:
        event = generate.webhook_event(
            request, request_id=options["request_id"] or str(uuid.uuid4()), received_at=received_at
        )
    except TooManyParameters as error:
        raise click.BadParameter(str(error), param_hint="--query") from error
    click.echo(event)


def _check_are_texts(options: Mapping[str, Any]) -> None:
    """Refuse what a shell can pass but JSON cannot hold; bytes come from a file."""
    for name, value in options.items():
        pairs = value if isinstance(value, tuple) else ((value,),)
        for text in (each for pair in pairs for each in pair if isinstance(each, str)):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise click.UsageError(f"--{_FLAGS.get(name, name)} is not UTF-8") from error


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
