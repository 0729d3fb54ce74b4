"""`bridge generate-event mqtt|schedule`: the events of sources that run by themselves."""

import itertools
import time
import uuid
from typing import Any, Final

import click

from bridge.cli.generate_aws import count_option, place_options
from bridge.cli.generate_values import Data, Milliseconds, Pair, check_are_texts
from bridge.core.schedules import UTC_NAME
from bridge.events.mqtt import Message, MessageProperties, MessageShape, raw_event, records_event
from bridge.events.schedule import BadSchedule, UnknownZone, parse_schedule, scheduled_event
from bridge.events.select import SelectMistake, parse_select

_FORMATS: Final = ("iot-raw", "iot-rule", "records")


@click.command("schedule")
@click.option("--name", default="nightly", show_default=True, metavar="NAME", help="The source's; the rule has it.")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="When it ticks; else now.")
@click.option("--schedule", metavar="TEXT", help="Tick when this next does: cron(0 10 ? * MON-FRI *).")
@click.option("--timezone", default=UTC_NAME, show_default=True, metavar="ZONE", help="Of --schedule.")
@click.option("--id", "event_id", default="", metavar="ID", help="Of the first event; else a new one.")
@place_options
@count_option("How many events, one a line, for the next ticks of --schedule.")
def _schedule(**options: Any) -> None:
    """Print the event of a tick, as a schedule and EventBridge send it."""
    check_are_texts(options)
    since = time.time() if options["timestamp"] is None else options["timestamp"] / 1000
    for number, tick in enumerate(_ticks(options, since)):
        event = scheduled_event(
            name=options["name"],
            tick=tick,
            event_id=(options["event_id"] if number == 0 else "") or str(uuid.uuid4()),
            region=options["region"],
            account=options["account"],
        )
        click.echo(event)


def _ticks(options: dict[str, Any], since: float) -> list[int]:
    if options["schedule"] is None:
        return [int(since)] * int(options["count"])
    try:
        schedule = parse_schedule(options["schedule"], zone=options["timezone"])
    except BadSchedule as error:
        raise click.BadParameter(str(error), param_hint="--schedule") from error
    except UnknownZone as error:
        raise click.BadParameter(str(error), param_hint="--timezone") from error
    found = list(itertools.islice(schedule.following(since, began=int(since)), options["count"]))
    if not found:
        raise click.BadParameter("never ticks any more", param_hint="--schedule")
    return found


@click.command("mqtt")
@click.option("--topic", default="plant/3/temperature", show_default=True, metavar="TOPIC")
@click.option("--payload", type=Data(), default='{"t": 21.5}', show_default=True, metavar="TEXT|@FILE|-")
@click.option("--format", "form", type=click.Choice(_FORMATS), default=_FORMATS[0], show_default=True)
@click.option("--select", metavar="LIST", help="Of iot-rule: *, topic(2) AS device.")
@click.option("--qos", type=click.IntRange(0, 1), default=1, show_default=True)
@click.option("--retain", is_flag=True, help="The topic's last message, kept by the broker.")
@click.option("--message-id", type=click.IntRange(1, 65_535), default=1, show_default=True, metavar="N")
@click.option(
    "--property", "properties", type=Pair(), multiple=True, metavar="NAME=VALUE", help="A user property (MQTT 5)."
)
@click.option("--content-type", metavar="TEXT", help="Content type (MQTT 5).")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="When it came; else now.")
def _mqtt(**options: Any) -> None:
    """Print the event of an MQTT message, by format."""
    check_are_texts(options)
    if (options["select"] is None) == (options["form"] == "iot-rule"):
        raise click.UsageError("--select goes with --format iot-rule, which needs it")
    shape: MessageShape = records_event if options["form"] == "records" else raw_event
    if options["select"] is not None:
        try:
            shape = parse_select(options["select"])
        except SelectMistake as error:
            raise click.BadParameter(str(error), param_hint="--select") from error
    message = Message(
        options["topic"],
        options["payload"],
        qos=options["qos"],
        mid=options["message_id"] if options["qos"] else 0,
        retain=options["retain"],
        properties=MessageProperties(user=options["properties"], content_type=options["content_type"]),
        received_ms=round(time.time() * 1000) if options["timestamp"] is None else options["timestamp"],
    )
    click.echo(shape(message)[0])


PUSH_COMMANDS: Final = (_mqtt, _schedule)
