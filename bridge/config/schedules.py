"""`[sources.X] type = "schedule"`: when it ticks, in EventBridge's words, and what becomes of missed ticks."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from bridge.config.mistakes import near
from bridge.config.section import Section
from bridge.config.values import checked_target, refuse
from bridge.core import limits
from bridge.core.schedules import SCHEDULE_MAX_CHARS, UTC_NAME, Missed

# What reads expressions and zones loads only where a file has a schedule.


def _checked_zone(name: str) -> str:
    from zoneinfo import available_timezones

    from bridge.events.schedule import UnknownZone, time_zone

    try:
        time_zone(name)
    except UnknownZone as error:
        refuse(f"{error}{near(name, available_timezones())}")
    return name


def _checked_schedule(expression: str, info: ValidationInfo) -> str:
    from bridge.events.schedule import BadSchedule, parse_schedule

    try:
        parse_schedule(expression, zone=info.data.get("timezone", UTC_NAME))
    except BadSchedule as error:
        refuse(str(error))
    return expression


def _checked_input(text: str) -> str:
    import orjson

    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        refuse(f"must be JSON, the event as it is: {error}")
    return text


class ScheduleSettings(Section):
    """Events at times."""

    type: Literal["schedule"] = Field(description="Kind of source.")
    timezone: Annotated[str, AfterValidator(_checked_zone)] = Field(
        default=UTC_NAME,
        max_length=100,
        description="Time zone of cron and at, with its daylight saving, such as Europe/Berlin.",
    )
    schedule: Annotated[str, AfterValidator(_checked_schedule)] = Field(
        max_length=SCHEDULE_MAX_CHARS,
        description="rate(5 minutes), cron(0 10 * * ? *) or at(2026-03-01T09:00:00), as EventBridge has them.",
    )
    missed: Annotated[Missed, Field(strict=False)] = Field(
        default=Missed.ONCE,
        description="Ticks while the daemon was down: skip, once (the newest) or all "
        f"(the newest {limits.SCHEDULE_MISSED_MAX}).",
    )
    function: Annotated[str, AfterValidator(checked_target)] | None = Field(
        default=None,
        description="name[:version or alias] or ARN of the function that gets the events; none: only mappings read it.",
    )
    input: Annotated[str, AfterValidator(_checked_input)] | None = Field(
        default=None,
        min_length=1,
        max_length=limits.SYNC_PAYLOAD_MAX_BYTES,
        description="JSON that is the event of each tick; left out: EventBridge's own event.",
    )
    policy: Literal["implied", "explicit"] = Field(
        default="implied",
        description="implied: naming the function allows it; explicit: its resource policy must (AddPermission).",
    )
    invocation_type: Literal["Event"] = Field(default="Event", description="Event: stored, then invoked.")

    @property
    def form(self) -> str:
        """What its events are as a stream, as `sources.pull.push` calls it."""
        return self.type

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be seen in a log: nothing."""
        return ()
