"""`bridge generate-event schedule`: the events of sources that run by themselves."""

import itertools
import time
import uuid
from typing import Any, Final

import click

from bridge.cli.generate_aws import count_option, place_options
from bridge.cli.generate_values import Milliseconds, check_are_texts
from bridge.core.schedules import UTC_NAME
from bridge.events.schedule import BadSchedule, UnknownZone, parse_schedule, scheduled_event


@click.command("schedule")
@click.option("--name", default="nightly", show_default=True, metavar="NAME", help="The source's; the rule has it.")
@click.option("--timestamp", type=Milliseconds(), metavar="TIME|MS", help="When it ticks; else now.")
@click.option("--schedule", metavar="TEXT", help="Tick when this next does: cron(0 10 ? * MON-FRI *).")
@click.option("--timezone", default=UTC_NAME, show_default=True, metavar="ZONE", help="Of --schedule.")
@click.option("--id", "event_id", default="", metavar="ID", help="Of the first event; else a new one.")
@place_options
@count_option("So many events, one a line: the next ticks of --schedule.")
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


PUSH_COMMANDS: Final = (_schedule,)
