"""`bridge generate-event sns|s3|eventbridge`: events of services that push."""

import uuid
from typing import Any, Final

import click
import orjson

from bridge.cli.generate_aws import (
    ATTRIBUTE_OPTION,
    arn_of,
    attributes_of,
    count_option,
    now_ms,
    place_options,
    text_of,
)
from bridge.cli.generate_values import Data, Milliseconds, check_are_texts
from bridge.core.function import REGION_DEFAULT
from bridge.events.notifications import BusEvent, S3Change, SnsMessage, eventbridge_event, s3_event, sns_event

_S3_EVENTS: Final = (
    "ObjectCreated:Put", "ObjectCreated:Post", "ObjectCreated:Copy", "ObjectCreated:CompleteMultipartUpload",
    "ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "ObjectRestore:Post", "ObjectRestore:Completed",
    "ObjectTagging:Put", "ObjectTagging:Delete", "LifecycleExpiration:Delete", "ReducedRedundancyLostObject",
)  # fmt: skip


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
@count_option("So many records; AWS sends one.")
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
            time_ms=now_ms(options),
            subject=options["subject"],
            attributes=attributes_of(options),
            signature="EXAMPLE",
            signing_cert_url=f"https://sns.{region}.amazonaws.com/SimpleNotificationService-example.pem",
            unsubscribe_url=f"https://sns.{region}.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={subscription}",
        )
        for number in range(options["count"])
    ]
    click.echo(sns_event(messages))


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
@count_option("So many records; AWS sends one.")
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
    click.echo(s3_event([change] * options["count"]))


@click.command("eventbridge")
@click.option("--source", default="com.example.orders", show_default=True, metavar="NAME")
@click.option("--detail-type", default="Order placed", show_default=True, metavar="TEXT")
@click.option("--detail", type=Data(), default='{"id": 1}', show_default=True, metavar="JSON|@FILE|-")
@click.option("--resource", "resources", multiple=True, metavar="ARN", help="May be repeated.")
@click.option("--id", "event_id", default="", metavar="ID", help="Else a new one.")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="Else now.")
@click.option("--replay-name", default="", metavar="NAME", help="Of a replay of an archive.")
@place_options
def _eventbridge(**options: Any) -> None:
    """Print an event of an EventBridge bus."""
    check_are_texts(options)
    try:
        detail = orjson.loads(options["detail"])
    except orjson.JSONDecodeError as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint="--detail") from error
    if not isinstance(detail, dict):
        raise click.BadParameter("is no JSON object", param_hint="--detail")
    click.echo(
        eventbridge_event(
            BusEvent(
                event_id=options["event_id"] or str(uuid.uuid4()),
                source=options["source"],
                detail_type=options["detail_type"],
                detail=detail,
                time=now_ms(options) / 1000,
                region=options["region"],
                account=options["account"],
                resources=options["resources"],
                replay_name=options["replay_name"],
            )
        )
    )


NOTIFICATION_COMMANDS: Final = (_sns, _s3, _eventbridge)
