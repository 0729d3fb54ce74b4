"""`bridge generate-event kinesis|dynamodb|sqs`: events of AWS's pull sources."""

import hashlib
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final, TypeVar

import click
import orjson

from bridge.cli.failures import Misused
from bridge.cli.generate_values import Data, Milliseconds, check_are_texts, is_given
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.events import generate, generate_aws
from bridge.events.generate_aws import Change, KinesisRecord, QueueMessage
from bridge.events.items import NotAnItem, item, parse_plain
from bridge.events.streams import shard_name

Command = TypeVar("Command", bound=Callable[..., Any])


class _Position(click.IntRange):
    """A sequence number: 129 digits at most, which help does not write out."""

    def _describe_range(self) -> str:
        return "up to 129 digits"


_POSITION: Final = _Position(0, 10**129 - 1)
_ATTRIBUTE_KINDS: Final = ("String", "Number", "Binary")


class Attribute(click.ParamType[tuple[str, str, str]]):
    """NAME[:TYPE]=VALUE; the value is name, type and value, base64 where the type is Binary."""

    name = "attribute"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str, str]:
        """Split it; a Binary's value may be @file."""
        if isinstance(value, tuple):
            return value
        what, equals, rest = str(value).partition("=")
        name, _, kind = what.partition(":")
        kind = kind or "String"
        if not equals or not name or kind.partition(".")[0] not in _ATTRIBUTE_KINDS:
            self.fail(f"{value!r} is not NAME=VALUE or NAME:TYPE=VALUE (String, Number, Binary)", param, ctx)
        if generate_aws.is_binary(kind):
            rest = b64encode(Data().convert(rest, param, ctx)).decode()
        return name, kind, rest


def place_options(command: Command) -> Command:
    """Add --region and --account, which ARNs are made of."""
    options = (
        click.option("--region", default=REGION_DEFAULT, show_default=True, metavar="REGION"),
        click.option("--account", default=ACCOUNT_DEFAULT, show_default=True, metavar="ID"),
    )
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def count_option(what: str) -> Callable[[Command], Command]:
    """Return the option --count."""
    return click.option(
        "--count", type=click.IntRange(1, generate.COUNT_MAX), default=1, show_default=True, metavar="N", help=what
    )


def arn_of(options: Mapping[str, Any], service: str, resource: str) -> str:
    """Return --arn, else the one that the other options make."""
    given: str = options["arn"]
    if given and len(given.split(":")) < 6:
        raise click.BadParameter("must be arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE", param_hint="--arn")
    return given or f"arn:aws:{service}:{options['region']}:{options['account']}:{resource}"


def now_ms(options: Mapping[str, Any]) -> int:
    """Return --timestamp, else now, in epoch milliseconds."""
    given: int | None = options["timestamp"]
    return round(time.time() * 1000) if given is None else given


def text_of(data: bytes, option: str) -> str:
    """Return data as text; raises BadParameter where it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter("is not UTF-8", param_hint=option) from error


def attributes_of(options: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return --attribute by name."""
    return {name: (kind, value) for name, kind, value in options["attributes"]}


ATTRIBUTE_OPTION: Final = click.option(
    "--attribute",
    "attributes",
    type=Attribute(),
    multiple=True,
    metavar="NAME[:TYPE]=VALUE",
    help="String, Number or Binary (VALUE or @FILE). May be repeated.",
)


@click.command("kinesis")
@click.option("--stream", default="orders", show_default=True, metavar="NAME")
@click.option("--shard", type=click.IntRange(0, 10**12 - 1), default=0, show_default=True, metavar="N")
@click.option("--partition-key", default="1", show_default=True, metavar="TEXT")
@click.option("--data", type=Data(), default='{"id": 1}', show_default=True, metavar="TEXT|@FILE|-")
@click.option(
    "--sequence-number", type=_POSITION, default=generate_aws.SEQUENCE_FIRST, metavar="N", help="Of the first record."
)
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Arrival; else now.")
@click.option("--encrypted", is_flag=True, help="As of a stream that is encrypted by KMS.")
@click.option("--identity-arn", default="", metavar="ARN", help="The execution role; else one that is made up.")
@click.option("--arn", default="", metavar="ARN", help="The stream's; else of --region, --account and --stream.")
@place_options
@count_option("How many records, with rising sequence numbers.")
@click.option("--records", is_flag=True, help="Not an event, but each record as a line for `bridge put --records`.")
def _kinesis(**options: Any) -> None:
    """Print the event of Kinesis records."""
    check_are_texts(options)
    at = now_ms(options)
    records = [
        KinesisRecord(
            data=options["data"],
            partition_key=options["partition_key"],
            sequence_number=options["sequence_number"] + number,
            time_ms=at,
            is_encrypted=options["encrypted"],
        )
        for number in range(options["count"])
    ]
    if not options["records"]:
        arn = arn_of(options, "kinesis", f"stream/{options['stream']}")
        shard = shard_name(options["shard"])
        click.echo(generate_aws.kinesis_event(records, arn=arn, shard=shard, identity_arn=options["identity_arn"]))
        return
    for record in records:
        click.echo(_line(key=record.partition_key, value=record.data))


@click.command("dynamodb")
@click.option("--table", default="orders", show_default=True, metavar="NAME")
@click.option("--event-name", type=click.Choice(["INSERT", "MODIFY", "REMOVE"]), help="Else by --new and --old.")
@click.option(
    "--new", type=Data(), metavar="JSON|@FILE|-", help='The item after it; else {"id": 1} where there is one.'
)
@click.option(
    "--old", type=Data(), metavar="JSON|@FILE", help="The item before it; else as --new, where there was one."
)
@click.option("--typed", is_flag=True, help='Items are DynamoDB\'s own JSON: {"id": {"N": "1"}}.')
@click.option("--key", default="id", show_default=True, metavar="NAME[,NAME]", help="Attributes that are the key.")
@click.option("--view", type=click.Choice(list(generate_aws.VIEWS)), default="NEW_AND_OLD_IMAGES", show_default=True)
@click.option("--ttl", is_flag=True, help="Removed by its time to live.")
@click.option("--event-id", default="", metavar="ID", help="Of the first record; else made of its sequence number.")
@click.option(
    "--sequence-number", type=_POSITION, default=generate_aws.CHANGE_FIRST, show_default=True, metavar="N",
    help="Of the first record.",
)  # fmt: skip
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now.")
@click.option("--arn", default="", metavar="ARN", help="The stream's; else of --region, --account and --table.")
@place_options
@count_option("How many records, with rising sequence numbers.")
@click.option("--records", is_flag=True, help="Not an event, but each record as a line of JSON for `bridge put`.")
def _dynamodb(**options: Any) -> None:
    """Print the event of changes in a DynamoDB table."""
    check_are_texts(options)
    name, keys, new, old = _change(options)
    at = now_ms(options)
    changes = [
        Change(
            event_name=name,
            keys=keys,
            new=new,
            old=old,
            view=options["view"],
            event_id=(options["event_id"] if not index else "") or _hex(sequence),
            sequence_number=sequence,
            time_ms=at,
            is_by_ttl=options["ttl"],
        )
        for index, sequence in enumerate(
            range(options["sequence_number"], options["sequence_number"] + options["count"])
        )
    ]
    arn = arn_of(options, "dynamodb", f"table/{options['table']}/stream/2020-01-01T00:00:00.000")
    if not options["records"]:
        click.echo(generate_aws.dynamodb_event(changes, arn=arn))
        return
    for change in changes:
        click.echo(generate_aws.change_line(change, arn=arn))


def _change(options: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]:
    """Return what happened, the key, and the item after and before it."""
    given_new, given_old = options["new"], options["old"]
    name = options["event_name"]
    if name is None:
        name = "REMOVE" if options["ttl"] or (given_old and not given_new) else "MODIFY" if given_old else "INSERT"
    if options["ttl"] and name != "REMOVE":
        raise click.UsageError("--ttl is of a REMOVE")
    if name == "INSERT" and given_old is not None:
        raise click.UsageError("an INSERT has no --old")
    if name == "REMOVE" and given_new is not None:
        raise click.UsageError("a REMOVE has no --new")
    sample = b'{"id": 1}'
    new = None if name == "REMOVE" else _item(options, "--new", given_new or given_old or sample)
    old = None if name == "INSERT" else _item(options, "--old", given_old or given_new or sample)
    whole = new if new is not None else old or {}
    missing = [key for key in options["key"].split(",") if key not in whole]
    if missing:
        raise click.BadParameter(f"the item has no {missing[0]}", param_hint="--key")
    return name, {key: whole[key] for key in options["key"].split(",")}, new, old


def _item(options: Mapping[str, Any], option: str, text: bytes) -> dict[str, Any]:
    try:
        document = parse_plain(text)
        if not isinstance(document, dict):
            raise NotAnItem("is no JSON object")
        if not options["typed"]:
            return item(document)
    except NotAnItem as error:
        raise click.BadParameter(str(error), param_hint=option) from error
    typed: dict[str, Any] = orjson.loads(text)
    for name, value in typed.items():
        if not isinstance(value, dict) or len(value) != 1:
            raise click.BadParameter(f'with --typed {name} is like {{"S": "a"}}', param_hint=option)
    return typed


@click.command("sqs")
@click.option("--queue", default="orders", show_default=True, metavar="NAME", help="A FIFO queue's ends with .fifo.")
@click.option("--body", type=Data(), default='{"id": 1}', show_default=True, metavar="TEXT|@FILE|-")
@ATTRIBUTE_OPTION
@click.option("--message-id", default="", metavar="ID", help="Of the first message; else a new one.")
@click.option("--receipt-handle", default="", metavar="TEXT", help="Else a new one.")
@click.option("--receive-count", type=click.IntRange(1), default=1, show_default=True, metavar="N")
@click.option("--sender-id", default="AIDAIENQZJOLO23YVJ4VO", show_default=True, metavar="ID")
@click.option("--group", default="", metavar="ID", help="FIFO: the message group; else 1.")
@click.option("--deduplication-id", default="", metavar="ID", help="FIFO; else the body's SHA-256.")
@click.option("--sequence-number", type=_POSITION, default=generate_aws.MESSAGE_FIRST, metavar="N", help="FIFO.")
@click.option("--dead-letter-source", default="", metavar="ARN", help="The queue that it was moved from.")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="When it was sent; else now.")
@click.option("--arn", default="", metavar="ARN", help="The queue's; else of --region, --account and --queue.")
@place_options
@count_option("How many messages.")
@click.option("--records", is_flag=True, help="Not an event, but each message as a line for `bridge put --records`.")
def _sqs(**options: Any) -> None:
    """Print the event of SQS messages."""
    check_are_texts(options)
    at, arn = now_ms(options), arn_of(options, "sqs", options["queue"])
    is_fifo = arn.endswith(".fifo")
    for fifo in ("group", "deduplication_id", "sequence_number"):
        if is_given(fifo) and not is_fifo:
            raise click.UsageError(f"--{fifo.replace('_', '-')} is of a FIFO queue, whose name ends with .fifo")
    group = (options["group"] or "1") if is_fifo else ""
    if options["records"]:
        for _ in range(options["count"]):
            click.echo(_line(key=group or None, value=options["body"], attributes=attributes_of(options)))
        return
    body = text_of(options["body"], "--body")
    messages = [
        QueueMessage(
            body=body,
            message_id=(options["message_id"] if not number else "") or str(uuid.uuid4()),
            receipt_handle=options["receipt_handle"] or b64encode(uuid.uuid4().bytes * 8).decode(),
            time_ms=at,
            sender_id=options["sender_id"],
            receive_count=options["receive_count"],
            attributes=attributes_of(options),
            group_id=group,
            deduplication_id=options["deduplication_id"] or hashlib.sha256(body.encode()).hexdigest(),
            sequence_number=options["sequence_number"] + number * 256,
            dead_letter_source=options["dead_letter_source"],
        )
        for number in range(options["count"])
    ]
    click.echo(generate_aws.sqs_event(messages, arn=arn))


def _line(*, key: str | None, value: bytes, attributes: Mapping[str, tuple[str, str]] | None = None) -> bytes:
    headers = {name: text for name, (_, text) in (attributes or {}).items()}
    try:
        return orjson.dumps({"key": key, "value": generate.json_or_text(value), "headers": headers})
    except generate.NotText as error:
        raise Misused(str(error)) from error


def _hex(sequence: int) -> str:
    """Return an event id: 32 hexadecimal digits, the same for the same sequence number."""
    return hashlib.md5(str(sequence).encode(), usedforsecurity=False).hexdigest()


AWS_COMMANDS: Final = (_kinesis, _dynamodb, _sqs)
