"""When a schedule ticks, in EventBridge's words (`rate(…)`, `cron(…)`, `at(…)`), and the event of a tick (pure).

Expressions, time zones and daylight saving: docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html. As
that page has it, a local time that does not exist is skipped, one that comes twice ticks once (here the first time), a
day of a rate has 24 hours, and a rate begins at once.
"""

import datetime as dt
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from bridge.core.schedules import UTC_NAME
from bridge.events.cron import BadSchedule, Cron, parse_cron
from bridge.events.eventbridge import BusEvent, eventbridge_event

__all__ = ["BadSchedule", "Schedule", "UnknownZone", "next_tick", "parse_schedule", "scheduled_event", "time_zone"]

_UNITS_S: Final = {"minute": 60, "hour": 3600, "day": 86_400}
_KINDS: Final = re.compile(r"(?P<kind>rate|cron|at)\((?P<inside>.*)\)\Z", re.DOTALL)
_RATE: Final = re.compile(r"\s*(?P<value>\S+)\s+(?P<unit>\S+)\s*\Z")
_RATE_DIGITS_MAX: Final = 6
_AT: Final = re.compile(r"\s*(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})\s*\Z", re.ASCII)
_DAY: Final = dt.timedelta(days=1)


class Schedule(Protocol):
    """Times at which something happens: epoch seconds, whole ones."""

    @property
    def begins_at_once(self) -> bool:
        """Whether it first ticks when it begins, and counts from then (a rate)."""
        ...

    def following(self, after: float, *, began: int) -> Iterator[int]:
        """Yield the ticks later than `after`, in order; `began` is when the schedule was first seen."""
        ...

    def newest(self, count: int, *, after: float, until: float, began: int) -> list[int]:
        """Return the last `count` ticks later than `after` and not later than `until`, in order."""
        ...


def next_tick(schedule: Schedule, after: float, *, began: int) -> int | None:
    """Return the first tick later than `after`; None: there is none any more."""
    return next(schedule.following(after, began=began), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Every so many seconds from its beginning on."""

    interval_s: int
    begins_at_once: bool = True

    def following(self, after: float, *, began: int) -> Iterator[int]:
        """Yield the ticks later than `after`."""
        tick = began + max(0, int((after - began) // self.interval_s) + 1) * self.interval_s
        while True:
            yield tick
            tick += self.interval_s

    def newest(self, count: int, *, after: float, until: float, began: int) -> list[int]:
        """Return the last ticks of a span."""
        passed = int((until - began) // self.interval_s)
        first = began + max(0, passed - count + 1) * self.interval_s
        ticks = self.following(max(after, first - 1), began=began)
        return list(takewhile(lambda tick: tick <= until, islice(ticks, count)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """Six cron fields in a time zone."""

    cron: Cron
    zone: ZoneInfo
    begins_at_once: bool = False

    def following(self, after: float, *, began: int) -> Iterator[int]:
        """Yield the ticks later than `after`."""
        del began
        local = dt.datetime.fromtimestamp(after, self.zone)
        since = (local.hour, local.minute)  # of the first day; what lies before it is not even looked at
        day = self.cron.first_day(local.date())
        while day is not None:
            for hour in self.cron.hours:
                if day == local.date() and hour < since[0]:
                    continue
                for minute in self.cron.minutes:
                    if day == local.date() and (hour, minute) < since:
                        continue
                    tick = self._epoch(day, hour, minute)
                    if tick is not None and tick > after:
                        yield tick
            day = self.cron.first_day(day + _DAY)

    def newest(self, count: int, *, after: float, until: float, began: int) -> list[int]:
        """Return the last ticks of a span."""
        del began
        found: deque[int] = deque()
        local = dt.datetime.fromtimestamp(until, self.zone)
        # Of the last day; in an hour that comes twice its first time may still have later ones.
        upto = (23, 59) if local.fold else (local.hour, local.minute)
        day = self.cron.first_day(local.date(), backwards=True)
        while day is not None and len(found) < count:
            for hour in reversed(self.cron.hours):
                for minute in reversed(self.cron.minutes):
                    if day == local.date() and (hour, minute) > upto:
                        continue
                    tick = self._epoch(day, hour, minute)
                    if tick is None or tick > until:
                        continue
                    if tick <= after or len(found) == count:
                        return list(found)
                    found.appendleft(tick)
            day = self.cron.first_day(day - _DAY, backwards=True)
        return list(found)

    def _epoch(self, day: dt.date, hour: int, minute: int) -> int | None:
        """Return when a local time comes (the first time); None: it does not exist that day."""
        return _epoch(dt.datetime(day.year, day.month, day.day, hour, minute), self.zone)  # noqa: DTZ001 - zone follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """One single time."""

    at: int
    begins_at_once: bool = False

    def following(self, after: float, *, began: int) -> Iterator[int]:
        """Yield it if it is later."""
        del began
        if self.at > after:
            yield self.at

    def newest(self, count: int, *, after: float, until: float, began: int) -> list[int]:
        """Return it if it lies in the span."""
        del began
        return [self.at][:count] if after < self.at <= until else []


def parse_schedule(text: str, *, zone: str = UTC_NAME) -> Schedule:
    """Return what an expression means.

    Args:
        text: `rate(5 minutes)`, `cron(0 10 * * ? *)` or `at(2026-03-01T09:00:00)`.
        zone: name of the time zone that local times are of; a rate has none.

    Raises:
        BadSchedule: it cannot be read, or can never tick.
        UnknownZone: no such time zone.
    """
    found_zone = time_zone(zone)
    match = _KINDS.match(text)
    if match is None:
        raise BadSchedule(_shape_hint(text), at=1)
    inside, at = match["inside"], match.start("inside") + 1
    if match["kind"] == "rate":
        return _rate(inside, at=at)
    if match["kind"] == "cron":
        return Calendar(cron=parse_cron(inside, at=at), zone=found_zone)
    return _once(inside, found_zone, at=at)


def _shape_hint(text: str) -> str:
    wanted = "rate(5 minutes), cron(0 10 * * ? *) or at(2026-03-01T09:00:00)"
    return f"must be {wanted}" + (", in lower case" if _KINDS.match(text.lower()) else "")


def _rate(inside: str, *, at: int) -> Rate:
    match = _RATE.match(inside)
    if match is None:
        raise BadSchedule("a rate is a number and minutes, hours or days: rate(5 minutes)", at=at)
    value, unit = match["value"], match["unit"]
    if not (value.isascii() and value.isdigit() and len(value) <= _RATE_DIGITS_MAX and int(value) >= 1):
        raise BadSchedule(f"a rate is a number from 1 to {10**_RATE_DIGITS_MAX - 1}", at=at + match.start("value"))
    unit_at = at + match.start("unit")
    if unit.removesuffix("s") not in _UNITS_S:
        raise BadSchedule("the unit of a rate is minutes, hours or days (minute, hour, day after 1)", at=unit_at)
    if (int(value) == 1) == unit.endswith("s"):
        right = unit.removesuffix("s") if int(value) == 1 else f"{unit}s"
        raise BadSchedule(f"EventBridge wants rate({value} {right})", at=unit_at)
    return Rate(interval_s=int(value) * _UNITS_S[unit.removesuffix("s")])


def _once(inside: str, zone: ZoneInfo, *, at: int) -> Once:
    match = _AT.match(inside)
    try:
        if match is None:
            raise BadSchedule("a single time is at(2026-03-01T09:00:00), of the time zone beside it", at=at)
        local = dt.datetime(*map(int, match.groups()))  # type: ignore[arg-type]  # noqa: DTZ001 - the zone follows
    except BadSchedule:
        raise
    except ValueError as error:
        raise BadSchedule(str(error), at=at) from error
    try:
        epoch = _epoch(local, zone)
    except OverflowError as error:
        raise BadSchedule("this time is beyond what a calendar holds", at=at) from error
    if epoch is None:
        raise BadSchedule(f"this time does not exist in {zone.key}: daylight saving begins", at=at)
    return Once(at=epoch)


class UnknownZone(ValueError):
    """No such time zone."""


def time_zone(name: str) -> ZoneInfo:
    """Return a time zone of the system's database. Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:  # unknown, a folder (`Europe`), not a name at all
        raise UnknownZone("no time zone of that name here; such as UTC or Europe/Berlin") from error


def _epoch(local: dt.datetime, zone: ZoneInfo) -> int | None:
    """Return when a local time comes, the first time if it comes twice; None: it does not exist."""
    moment = local.replace(tzinfo=zone).astimezone(dt.UTC)
    if moment.astimezone(zone).replace(tzinfo=None) != local:
        return None
    return int(moment.timestamp())


def scheduled_event(*, name: str, tick: int, event_id: str, region: str, account: str) -> bytes:
    """Return the event of a tick, as a rule of EventBridge sends it (lambda/latest/dg/with-eventbridge-scheduler.html).

    Args:
        name: the schedule's; the rule in `resources` has it.
        tick: when it was to happen, epoch seconds.
        event_id: a UUID.
        region: of the rule.
        account: of the rule.
    """
    return eventbridge_event(
        BusEvent(
            event_id=event_id,
            source="aws.events",
            detail_type="Scheduled Event",
            detail={},
            time=tick,
            region=region,
            account=account,
            resources=(f"arn:aws:events:{region}:{account}:rule/{name}",),
        )
    )
