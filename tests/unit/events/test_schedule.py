"""Schedules in EventBridge's words: when they tick, over daylight saving too, and what is said of a mistake."""

import calendar
import datetime as dt
import json
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from aws_lambda_powertools.utilities.data_classes import EventBridgeEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events.cron import BadSchedule
from bridge.events.schedule import UnknownZone, next_tick, parse_schedule, scheduled_event

GOLDEN = Path(__file__).parent / "golden"
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


def epoch(text, zone="UTC"):
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def ticks(expression, after, count, *, zone="UTC", began=0):
    found = islice(parse_schedule(expression, zone=zone).following(epoch(after, zone), began=began), count)
    return [dt.datetime.fromtimestamp(tick, ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M%z") for tick in found]


# --- the examples of AWS's page: eb-scheduled-rule-pattern.html ------------------------------------------------------
@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("cron(0 10 * * ? *)", ["2026-05-02T10:00", "2026-05-03T10:00"]),
        ("cron(15 12 * * ? *)", ["2026-05-02T12:15", "2026-05-03T12:15"]),
        ("cron(0 18 ? * MON-FRI *)", ["2026-05-04T18:00", "2026-05-05T18:00"]),
        ("cron(0 8 1 * ? *)", ["2026-06-01T08:00", "2026-07-01T08:00"]),
        ("cron(0/10 * ? * MON-FRI *)", ["2026-05-01T23:10", "2026-05-01T23:20"]),
        ("cron(0/5 8-17 ? * MON-FRI *)", ["2026-05-04T08:00", "2026-05-04T08:05"]),
        ("cron(0/30 20-2 ? * MON-FRI *)", ["2026-05-01T23:30", "2026-05-04T00:00"]),
        ("cron(15 10 ? * 6L 2022-2030)", ["2026-05-29T10:15", "2026-06-26T10:15"]),
        ("cron(0 9 ? * 2#1 *)", ["2026-05-04T09:00", "2026-06-01T09:00"]),
        ("cron(0 9 ? * 3#5 *)", ["2026-06-30T09:00", "2026-09-29T09:00"]),
        ("cron(0 9 3W * ? *)", ["2026-05-04T09:00", "2026-06-03T09:00"]),
        ("cron(0 9 1W 8 ? *)", ["2026-08-03T09:00", "2027-08-02T09:00"]),
        ("cron(0 9 31W 5,10 ? *)", ["2026-05-29T09:00", "2026-10-30T09:00"]),
        ("cron(0 9 L * ? *)", ["2026-05-31T09:00", "2026-06-30T09:00"]),
        ("cron(0 9 LW * ? *)", ["2026-05-29T09:00", "2026-06-30T09:00"]),
        ("cron(0 9 ? * L *)", ["2026-05-02T09:00", "2026-05-09T09:00"]),
        ("cron(0 0 29 FEB ? *)", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("cron(0 0 1 1 ? 2026,2030)", ["2030-01-01T00:00"]),
        ("cron(0 0 1 jan ? 2199)", ["2199-01-01T00:00"]),
        ("at(2026-05-01T23:30:15)", ["2026-05-01T23:30"]),
    ],
)
def test_an_expression_ticks_when_aws_says(expression, first):
    assert [f"{tick}+0000" for tick in first] == ticks(expression, "2026-05-01T23:00", 2)[: len(first)]


@pytest.mark.parametrize(
    ("expression", "seconds"), [("rate(1 minute)", 60), ("rate(5 minutes)", 300), ("rate(1 hour)", 3600), ("rate(12 days)", 1_036_800)]
)  # fmt: skip
def test_a_rate_begins_at_once_and_keeps_its_beat_whenever_it_is_asked(expression, seconds):
    schedule, began = parse_schedule(expression), 1_770_000_007

    assert schedule.begins_at_once
    assert began == next_tick(schedule, began - 1, began=began)
    assert began + seconds == next_tick(schedule, began, began=began)
    assert began + 7 * seconds == next_tick(schedule, began + 7 * seconds - 0.5, began=began)


def test_a_single_time_ticks_once_in_its_zone():
    schedule = parse_schedule("at(2026-07-01T09:00:30)", zone="America/New_York")

    assert epoch("2026-07-01T13:00:30") == next_tick(schedule, 0, began=0)
    assert next_tick(schedule, epoch("2026-07-01T13:00:30"), began=0) is None


# --- daylight saving: scheduler/latest/UserGuide/schedule-types.html -------------------------------------------------
def test_a_local_time_that_does_not_exist_is_skipped():
    expected = ["2026-03-28T02:30+0100", "2026-03-30T02:30+0200"]

    assert expected == ticks("cron(30 2 * * ? *)", "2026-03-28T00:00", 2, zone="Europe/Berlin")


def test_a_local_time_that_comes_twice_ticks_once():
    expected = ["2026-10-24T02:30+0200", "2026-10-25T02:30+0200", "2026-10-26T02:30+0100"]

    assert expected == ticks("cron(30 2 * * ? *)", "2026-10-24T00:00", 3, zone="Europe/Berlin")


def test_asked_within_the_repeated_hour_it_goes_on_behind_it():
    within = dt.datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    schedule = parse_schedule("cron(0/20 * * * ? *)", zone="Europe/Berlin")

    assert epoch("2026-10-25T02:00") == next_tick(schedule, within, began=0)


def test_a_day_of_a_rate_has_24_hours_whatever_the_zone_does():
    schedule = parse_schedule("rate(1 day)", zone="Europe/Berlin")

    began = epoch("2026-03-28T12:00")

    assert began + 86_400 == next_tick(schedule, began, began=began)


def test_a_day_that_a_country_left_out_has_no_tick():
    expected = ["2011-12-29T10:00-1000", "2011-12-31T10:00+1400"]

    assert expected == ticks("cron(0 10 * * ? *)", "2011-12-29T00:00", 2, zone="Pacific/Apia")


# --- against brute force ---------------------------------------------------------------------------------------------
def listed(low, high, names=()):
    """Return a strategy of (text, values) of a plain field."""

    def spell(number):
        return st.sampled_from([str(number), *([names[number - low]] if names else [])])

    def ranged(pair):
        first, last = pair
        inside = set(range(first, last + 1)) if first <= last else {*range(first, high + 1), *range(low, last + 1)}
        return st.tuples(spell(first), spell(last)).map(lambda s: (f"{s[0]}-{s[1]}", inside))

    number = st.integers(low, high)
    single = number.flatmap(lambda n: spell(n).map(lambda text: (text, {n})))
    span = st.tuples(number, number).flatmap(ranged)
    stepped = st.tuples(number, st.integers(1, high)).map(
        lambda p: (f"{p[0]}/{p[1]}", set(range(p[0], high + 1, p[1])))
    )
    star = st.just(("*", set(range(low, high + 1))))
    starred = st.integers(1, high).map(lambda step: (f"*/{step}", set(range(low, high + 1, step))))
    several = st.lists(st.one_of(single, span, stepped), min_size=1, max_size=3).map(
        lambda parts: (",".join(text for text, _ in parts), set().union(*(values for _, values in parts)))
    )
    return st.one_of(star, starred, several)


def fits_day(item, kind, date):
    """Say whether a date fits one special or plain day item, from first principles."""
    last = calendar.monthrange(date.year, date.month)[1]
    weekday = date.isoweekday() % 7 + 1
    match kind:
        case "L":
            return date.day == last
        case "LW":
            return date == max(d for d in month_of(date) if d.isoweekday() < 6)
        case "W":
            if item > last:
                return False
            target = date.replace(day=item)
            workdays = [d for d in month_of(date) if d.isoweekday() < 6]
            return date == min(workdays, key=lambda d: abs((d - target).days))
        case "nL":
            return weekday == item and date.day + 7 > last
        case "#":
            return weekday == item[0] and (date.day - 1) // 7 + 1 == item[1]
    raise AssertionError(kind)


def month_of(date):
    return [date.replace(day=day) for day in range(1, calendar.monthrange(date.year, date.month)[1] + 1)]


DAY_FIELDS = st.one_of(
    listed(1, 31).map(lambda f: (f"{f[0]} {{}} ?", lambda date, values=f[1]: date.day in values)),
    listed(1, 7, WEEKDAYS).map(
        lambda f: (f"? {{}} {f[0]}", lambda date, values=f[1]: date.isoweekday() % 7 + 1 in values)
    ),
    st.sampled_from(["L", "LW"]).map(lambda kind: (f"{kind} {{}} ?", lambda date: fits_day(None, kind, date))),
    st.integers(1, 31).map(lambda day: (f"{day}W {{}} ?", lambda date: fits_day(day, "W", date))),
    st.integers(1, 7).map(lambda day: (f"? {{}} {day}L", lambda date: fits_day(day, "nL", date))),
    st.tuples(st.integers(1, 7), st.integers(1, 5)).map(
        lambda pair: (f"? {{}} {pair[0]}#{pair[1]}", lambda date: fits_day(pair, "#", date))
    ),
)
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Havana")
# Changes of the clocks and a turn of a year, some hours before each.
STARTS = tuple(
    epoch(text)
    for text in ("2026-03-28T20:00", "2026-10-24T20:00", "2026-03-07T20:00", "2026-11-01T00:00", "2027-12-31T18:00", "2028-02-28T12:00")
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    minutes=listed(0, 59), hours=listed(0, 23), days=DAY_FIELDS, months=listed(1, 12, MONTHS), zone=st.sampled_from(ZONES),
    start=st.sampled_from(STARTS), shift=st.integers(-7200, 7200),
)  # fmt: skip
def test_no_tick_is_left_out_and_none_is_made_up(minutes, hours, days, months, zone, start, shift):
    fields, fits = days
    text = f"cron({minutes[0]} {hours[0]} {fields.format(months[0])} *)"
    after, until = start + shift, start + 30 * 3600
    try:
        schedule = parse_schedule(text, zone=zone)
    except BadSchedule as error:
        assert "no day ever fits" in str(error)
        return
    expected = []
    for moment in range(start - 7200 - start % 60, until + 1, 60):
        local = dt.datetime.fromtimestamp(moment, ZoneInfo(zone))
        if (
            moment > after
            and not local.fold
            and local.minute in minutes[1]
            and local.hour in hours[1]
            and local.month in months[1]
            and fits(local.date())
        ):
            expected.append(moment)

    found = []
    for tick in schedule.following(after, began=0):
        if tick > until:
            break
        found.append(tick)

    assert expected == found
    assert expected[-5:] == schedule.newest(5, after=after, until=until, began=0)


@given(
    value=st.integers(1, 5000), began=st.integers(0, 2_000_000_000), after=st.integers(-100, 9_000_000), count=st.integers(1, 5),
    span=st.integers(0, 2_000_000),
)  # fmt: skip
def test_the_newest_ticks_of_a_rate_are_the_last_of_all_that_follow(value, began, after, count, span):
    schedule = parse_schedule(f"rate({value} minute{'s' * (value > 1)})")
    since, until = began + after, began + after + span
    every = []
    for tick in schedule.following(since, began=began):
        if tick > until:
            break
        every.append(tick)

    assert all(tick > since and tick >= began and (tick - began) % (60 * value) == 0 for tick in every)
    assert every[-count:] == schedule.newest(count, after=since, until=until, began=began)


# --- mistakes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("", 1, "must be rate(5 minutes)"),
        ("RATE(5 minutes)", 1, "in lower case"),
        ("every 5 minutes", 1, "must be rate(5 minutes)"),
        ("rate(5 minutes) ", 1, "must be rate(5 minutes)"),
        ("rate(minutes)", 6, "rate(5 minutes)"),
        ("rate(0 minutes)", 6, "from 1"),
        ("rate(-5 minutes)", 6, "from 1"),
        ("rate(5  weeks)", 9, "minutes, hours or days"),
        ("rate(30 seconds)", 9, "minutes, hours or days"),
        ("rate(1 minutes)", 8, "rate(1 minute)"),
        ("rate(5 minute)", 8, "rate(5 minutes)"),
        ("cron(0 10 * * ?)", 6, "not 5; EventBridge has no seconds, and the year is needed"),
        ("cron(0 0 10 * * ? *)", 6, "not 7"),
        ("cron()", 6, "not 0"),
        ("cron(60 10 * * ? *)", 6, "minutes is 0 to 59, not 60"),
        ("cron(0 24 * * ? *)", 8, "hours is 0 to 23, not 24"),
        ("cron(0 9-25 * * ? *)", 10, "hours is 0 to 23, not 25"),
        ("cron(0 9 32 * ? *)", 10, "day-of-month is 1 to 31, not 32"),
        ("cron(0 9 * 13 ? *)", 12, "month is 1 to 12 or JAN to DEC, not 13"),
        ("cron(0 9 ? * 0 *)", 14, "day-of-week is 1 to 7 or SUN to SAT, not 0"),
        ("cron(0 9 ? * MON,FUN *)", 18, "not FUN"),
        ("cron(0 9 ? * MON#6 *)", 18, "1 to 5"),
        ("cron(0 9 * * * *)", 14, "exactly one of day-of-month and day-of-week must be ?"),
        ("cron(0 9 ? * ? *)", 14, "exactly one"),
        ("cron(0 9 1 * MON *)", 14, "exactly one"),
        ("cron(0 9 * * ? 2030-2028)", 16, "2030-2028 goes backwards"),
        ("cron(0/0 9 * * ? *)", 8, "a step is a number from 1"),
        ("cron(*-5 9 * * ? *)", 6, "is no minutes"),
        ("cron(1,,2 9 * * ? *)", 8, "nothing is no minutes"),
        ("cron(0 9 * * ? 2200)", 16, "year is 1970 to 2199"),
        ("cron(0 9 30 FEB ? *)", 10, "no day ever fits"),
        ("cron(0 9 29 2 ? 2027)", 10, "no day ever fits"),
        ("at(2026-02-30T10:00:00)", 4, "day"),
        ("at(tomorrow)", 4, "at(2026-03-01T09:00:00)"),
        ("at(2026-03-29T02:30:00)", 4, "does not exist in Europe/Berlin"),
    ],
)
def test_a_mistake_is_told_with_its_place(text, at, words):
    with pytest.raises(BadSchedule) as caught:
        parse_schedule(text, zone="Europe/Berlin")

    assert at == caught.value.at
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "zone"), [("at(9999-12-31T23:59:59)", "America/New_York"), ("at(0001-01-01T00:00:00)", "Asia/Tokyo")]
)
def test_a_time_beyond_the_calendar_is_a_mistake(text, zone):
    with pytest.raises(BadSchedule, match="beyond what a calendar holds") as caught:
        parse_schedule(text, zone=zone)

    assert caught.value.at == 4


@pytest.mark.parametrize("name", ["Europe/Berlyn", "Europe", "", "../etc/passwd", "/etc/localtime", "a\0b"])
def test_an_unknown_time_zone_is_told(name):
    with pytest.raises(UnknownZone, match="no time zone of that name"):
        parse_schedule("rate(5 minutes)", zone=name)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.text("0123456789*?/-,#LWSUNMO ", max_size=30).map("cron({})".format))
def test_any_text_is_a_schedule_or_a_mistake_within_it(text):
    try:
        schedule = parse_schedule(text)
    except BadSchedule as error:
        assert 1 <= error.at <= len(text) + 1
    else:
        tick = next_tick(schedule, 1_770_000_000, began=0)
        assert tick is None or tick > 1_770_000_000


# --- the event -------------------------------------------------------------------------------------------------------
def test_the_event_is_aws_s_own():
    golden = json.loads((GOLDEN / "sam-cli/cloudwatch-scheduled-event.json").read_bytes())
    made = scheduled_event(
        name="ExampleRule", tick=0, event_id=golden["id"], region=golden["region"], account=golden["account"]
    )

    assert {"version": "0", **golden} == json.loads(made)
    assert EventBridgeEvent(json.loads(made)).detail_type == "Scheduled Event"
