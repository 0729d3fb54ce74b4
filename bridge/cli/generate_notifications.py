"""`bridge generate-event sns|s3|eventbridge|cloudwatch-logs|cloudevents`: events of services that push."""

import uuid
from collections.abc import Callable
from typing import Any, Final

import click
import orjson

from bridge.cli.generate_aws import (
    ATTRIBUTE_OPTION,
    Command,
    arn_of,
    attributes_of,
    count_option,
    now_ms,
    place_options,
    text_of,
)
from bridge.cli.generate_values import Data, Milliseconds, Pair, check_are_texts
from bridge.core.function import ACCOUNT_DEFAULT, REGION_DEFAULT
from bridge.events.batches import iso_milliseconds
from bridge.events.bodies import Unreadable, read_as_written
from bridge.events.cloudevents import SPEC_VERSION, cloudevent
from bridge.events.cloudwatch_logs import LogBatch, logs_event, logs_json
from bridge.events.eventbridge import BusEvent, eventbridge_event, put_events_entry
from bridge.events.s3 import S3Change, minio_body, s3_event
from bridge.events.sns import NOTIFICATION, SnsMessage, SnsPost, sns_event

_S3_EVENTS: Final = (
    "ObjectCreated:Put", "ObjectCreated:Post", "ObjectCreated:Copy", "ObjectCreated:CompleteMultipartUpload",
    "ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "ObjectRestore:Post", "ObjectRestore:Completed",
    "ObjectTagging:Put", "ObjectTagging:Delete", "LifecycleExpiration:Delete", "ReducedRedundancyLostObject",
)  # fmt: skip
_AS_SENT: Final = "Print what %s, instead of the event."


def _as_sent(sender: str) -> Callable[[Command], Command]:
    """Return the option --as-sent."""
    return click.option("--as-sent", is_flag=True, help=_AS_SENT % sender)


@click.command("sns")
@click.option("--topic", default="orders", show_default=True, metavar="NAME")
@click.option("--message", type=Data(), default='{"id": 1}', show_default=True, metavar="TEXT|@FILE|-")
@click.option("--subject", metavar="TEXT", help="Else null.")
@ATTRIBUTE_OPTION
@click.option("--message-id", default="", metavar="ID", help="Of the first record; else a new one.")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="When it was published; else now.")
@click.option("--subscription-arn", default="", metavar="ARN", help="Else one of the topic.")
@click.option("--arn", default="", metavar="ARN", help="The topic's; else of --region, --account and --topic.")
@place_options
@count_option("How many records (AWS sends one).")
@_as_sent("the topic posts (a line each, with a made-up signature)")
def _sns(**options: Any) -> None:
    """Print the event of notifications of an SNS topic."""
    check_are_texts(options)
    arn = arn_of(options, "sns", options["topic"])
    region = arn.split(":")[3]
    subscription = options["subscription_arn"] or f"{arn}:21be56ed-a058-49f5-8c98-aedd2564c486"
    messages = [
        SnsMessage(
            topic_arn=arn,
            subscription_arn=subscription,
            message=text_of(options["message"], "--message"),
            message_id=(options["message_id"] if not number else "") or str(uuid.uuid4()),
            timestamp=iso_milliseconds(now_ms(options)),
            subject=options["subject"],
            attributes=attributes_of(options),
            signature="EXAMPLE",
            signing_cert_url=f"https://sns.{region}.amazonaws.com/SimpleNotificationService-example.pem",
            unsubscribe_url=f"https://sns.{region}.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={subscription}",
        )
        for number in range(options["count"])
    ]
    if not options["as_sent"]:
        click.echo(sns_event(messages))
        return
    for message in messages:
        click.echo(orjson.dumps(SnsPost(kind=NOTIFICATION, message=message).members()))


@click.command("s3")
@click.option("--bucket", default="uploads", show_default=True, metavar="NAME")
@click.option(
    "--key", default="orders/1.json", show_default=True, metavar="KEY", help="As it is; encoded in the event."
)
@click.option("--event-name", type=click.Choice(_S3_EVENTS), default=_S3_EVENTS[0], show_default=True)
@click.option("--size", type=click.IntRange(0), default=1024, show_default=True, metavar="BYTES")
@click.option("--etag", default="d41d8cd98f00b204e9800998ecf8427e", show_default=True, metavar="TEXT")
@click.option("--version-id", default="", metavar="ID", help="Of a bucket with versions.")
@click.option("--sequencer", default="0A1B2C3D4E5F678901", show_default=True, metavar="HEX")
@click.option("--configuration-id", default="bridge", show_default=True, metavar="ID")
@click.option("--source-ip", default="127.0.0.1", show_default=True, metavar="ADDRESS")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now.")
@click.option("--region", default=REGION_DEFAULT, show_default=True, metavar="REGION")
@count_option("How many records (AWS sends one).")
@_as_sent("MinIO posts")
def _s3(**options: Any) -> None:
    """Print the event of changes in an S3 bucket."""
    check_are_texts(options)
    change = S3Change(
        bucket=options["bucket"],
        key=options["key"],
        time_ms=now_ms(options),
        region=options["region"],
        event_name=options["event_name"],
        size=options["size"],
        etag=options["etag"],
        version_id=options["version_id"],
        sequencer=options["sequencer"],
        source_ip=options["source_ip"],
        configuration_id=options["configuration_id"],
        request_id="C3D13FE58DE4C810",
        host_id="FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD",
    )
    if not options["as_sent"]:
        click.echo(s3_event([change] * options["count"]))
        return
    for _ in range(options["count"]):
        click.echo(minio_body(change))


@click.command("eventbridge")
@click.option("--source", default="com.example.orders", show_default=True, metavar="NAME")
@click.option("--detail-type", default="Order placed", show_default=True, metavar="TEXT")
@click.option("--detail", type=Data(), default='{"id": 1}', show_default=True, metavar="JSON|@FILE|-")
@click.option("--resource", "resources", multiple=True, metavar="ARN", help="May be repeated.")
@click.option("--id", "event_id", default="", metavar="ID", help="Else a new one.")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now.")
@click.option("--replay-name", default="", metavar="NAME", help="Of a replay of an archive.")
@place_options
@_as_sent("an application puts on the bus (an entry of PutEvents)")
def _eventbridge(**options: Any) -> None:
    """Print an event of an EventBridge bus."""
    check_are_texts(options)
    try:
        is_object = isinstance(orjson.loads(options["detail"]), dict)
    except orjson.JSONDecodeError as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint="--detail") from error
    if not is_object:
        raise click.BadParameter("is no JSON object", param_hint="--detail")
    event = BusEvent(
        event_id=options["event_id"] or str(uuid.uuid4()),
        source=options["source"],
        detail_type=options["detail_type"],
        detail=read_as_written(options["detail"]),
        time=now_ms(options) / 1000,
        region=options["region"],
        account=options["account"],
        resources=options["resources"],
        replay_name=options["replay_name"],
    )
    click.echo(put_events_entry(event) if options["as_sent"] else eventbridge_event(event))


@click.command("cloudwatch-logs")
@click.option("--log-group", default="/aws/lambda/orders", show_default=True, metavar="NAME")
@click.option("--log-stream", default="2020/01/01/[$LATEST]0123456789abcdef", show_default=True, metavar="NAME")
@click.option("--message", "messages", multiple=True, metavar="TEXT", help="A line of the log. May be repeated.")
@click.option("--filter-name", default="bridge", show_default=True, metavar="NAME", help="The subscription filter's.")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Of the log events; else now.")
@click.option("--account", default=ACCOUNT_DEFAULT, show_default=True, metavar="ID")
@count_option("How many times the messages.")
@_as_sent("a log shipper posts (plain JSON, neither zipped nor in base64)")
def _cloudwatch_logs(**options: Any) -> None:
    """Print the event of a CloudWatch Logs subscription."""
    check_are_texts(options)
    at = now_ms(options)
    messages = (options["messages"] or ("[ERROR] order 1 was refused",)) * options["count"]
    batch = LogBatch(
        owner=options["account"],
        group=options["log_group"],
        stream=options["log_stream"],
        subscriptions=[options["filter_name"]],
        events=[(f"{at:013}{number:043}", at, text) for number, text in enumerate(messages)],
    )
    click.echo(logs_json(batch) if options["as_sent"] else logs_event(batch))


@click.command("cloudevents")
@click.option("--source", default="/orders", show_default=True, metavar="URI")
@click.option("--type", "kind", default="com.example.order.placed", show_default=True, metavar="NAME")
@click.option("--data", type=Data(), default='{"id": 1}', show_default=True, metavar="TEXT|@FILE|-")
@click.option("--content-type", default="application/json", show_default=True, metavar="TYPE", help="Of the data.")
@click.option("--subject", default="", metavar="TEXT", help="Else none.")
@click.option("--extension", "extensions", type=Pair(), multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--id", "event_id", default="", metavar="ID", help="Else a new one.")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now.")
@_as_sent("a sender posts as application/cloudevents+json")
def _cloudevents(**options: Any) -> None:
    """Print a CloudEvent in the JSON format, which is what a function gets of every mode."""
    check_are_texts(options)
    attributes = {
        "specversion": SPEC_VERSION,
        "id": options["event_id"] or str(uuid.uuid4()),
        "source": options["source"],
        "type": options["kind"],
        "time": iso_milliseconds(now_ms(options)),
    }
    if options["subject"]:
        attributes["subject"] = options["subject"]
    attributes |= dict(options["extensions"])
    try:
        click.echo(cloudevent(attributes, data=options["data"], content_type=options["content_type"]))
    except Unreadable as error:
        raise click.BadParameter(str(error), param_hint="--data") from error


NOTIFICATION_COMMANDS: Final = (_sns, _s3, _eventbridge, _cloudwatch_logs, _cloudevents)
