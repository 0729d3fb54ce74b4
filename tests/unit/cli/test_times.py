"""Times as people write them."""

import datetime as dt
import os
import time

import pytest

from bridge.cli.times import clock_time, milliseconds, parse_time, relative, span


@pytest.fixture(autouse=True)
def _berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    os.environ.pop("TZ", None)
    time.tzset()


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


NOW = dt.datetime(2026, 3, 10, 9, 30, tzinfo=dt.timezone(dt.timedelta(hours=1))).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("250ms", 0.25), ("90s", 90), ("10m", 600), ("10 min", 600), ("2h", 7200), ("1.5h", 5400),
     ("1d", 86400), ("1w", 604800), (" 2H ", 7200), ("2h ago", 7200), ("now", 0)],
)  # fmt: skip
def test_durations_count_back_from_now(text, seconds):
    assert parse_time(text, NOW) == pytest.approx(NOW - seconds)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01T08:00:00Z", "2026-03-01T08:00:00+00:00"),
        ("2026-03-01T08:00:00+05:30", "2026-03-01T08:00:00+05:30"),
        ("2026-03-01 08:00:00.250", "2026-03-01T08:00:00.250+01:00"),
        ("2026-03-01T08:00", "2026-03-01T08:00:00+01:00"),
        ("2026-03-01", "2026-03-01T00:00:00+01:00"),
        ("2026-07-01T08:00", "2026-07-01T08:00:00+02:00"),
        ("today", "2026-03-10T00:00:00+01:00"),
        ("yesterday", "2026-03-09T00:00:00+01:00"),
        ("yesterday 14:00", "2026-03-09T14:00:00+01:00"),
        ("Yesterday  14:00", "2026-03-09T14:00:00+01:00"),
        ("today 08:15", "2026-03-10T08:15:00+01:00"),
        ("8:15", "2026-03-10T08:15:00+01:00"),
        ("08:15:30", "2026-03-10T08:15:30+01:00"),
        ("23:59", "2026-03-10T23:59:00+01:00"),
    ],
)
def test_moments(text, moment):
    assert parse_time(text, NOW) == at(moment)


def test_yesterday_is_a_day_of_the_calendar_when_clocks_change():
    morning_after = dt.datetime(2026, 3, 29, 12, 0, tzinfo=dt.timezone(dt.timedelta(hours=2))).timestamp()

    assert parse_time("yesterday 14:00", morning_after) == at("2026-03-28T14:00:00+01:00")
    assert parse_time("today", morning_after) == at("2026-03-29T00:00:00+01:00")


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "5", "5x", "-5m", "1e3s", "25:00", "12:60", "2026-02-30", "2026-13-01T00:00", "2026-03-01T08:00+99:00",
     "2026-03-01T08:00 Mars/Olympus", "tomorrow", "20260301", "99999999w", "1960-01-01", "0001-01-01", "2h 30m", "\u0662h"],
)  # fmt: skip
def test_what_is_not_a_time_is_refused_with_the_known_forms(text):
    with pytest.raises(ValueError, match="known forms"):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.41, "0.4 s"), (3, "3 s"), (12.4, "12 s"), (99, "99 s"), (150, "2 min"), (3599, "60 min"),
     (7200, "2 h"), (90_000, "25 h"), (200_000, "2 d")],
)  # fmt: skip
def test_spans(seconds, text):
    assert span(seconds) == text


def test_moments_are_shown_local_and_with_their_date_when_it_is_another_day():
    assert clock_time(NOW - 60, NOW) == "09:29:00"
    assert clock_time(NOW - 86_400, NOW) == "2026-03-09 09:30:00"
    assert clock_time(253_402_300_800, NOW) == clock_time(1e300, NOW) == "beyond the calendar"
    assert relative(NOW - 3, NOW) == "3 s ago"
    assert relative(NOW + 120, NOW) == "in 2 min"


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.04, "0.0 ms"), (3.14, "3.1 ms"), (240.2, "240 ms"), (12_345, "12.3 s")]
)
def test_milliseconds(value, text):
    assert milliseconds(value) == text
