"""`bridge generate-event`: sample events with chosen fields, for `invoke --payload -`, tests and streams."""

import time
from typing import Any

import click

from bridge.cli.failures import Misused
from bridge.cli.generate_aws import AWS_COMMANDS
from bridge.cli.generate_http import HTTP_COMMANDS
from bridge.cli.generate_notifications import NOTIFICATION_COMMANDS
from bridge.cli.generate_push import PUSH_COMMANDS
from bridge.cli.generate_values import Data, Milliseconds, Pair, check_are_texts, is_given
from bridge.events import generate
from bridge.events.kafka import CREATE_TIME, KafkaRecord


@click.group("generate-event")
def generate_event_command() -> None:
    """Print a sample event with chosen fields.

    \b
    bridge generate-event kafka --value '{"id": 7}' | bridge invoke hello --payload -
    bridge generate-event kinesis --records --count 10 | bridge put clicks - --records
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
    help="How many records, with rising offsets.",
)  # fmt: skip
@click.option("--records", is_flag=True, help="Not an event, but each record as a line of JSON: key, value, headers.")
def _kafka(**options: Any) -> None:
    """Print the event of Kafka records."""
    check_are_texts(options)
    if options["tombstone"] and is_given("value"):
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


for command in (*AWS_COMMANDS, *NOTIFICATION_COMMANDS, *HTTP_COMMANDS, *PUSH_COMMANDS):
    generate_event_command.add_command(command)
