"""Times as people write and read them: `2h`, `yesterday 14:00`, ISO; shown local and relative."""

import datetime as dt
import re
from typing import Final

_DURATION: Final = re.compile(r"(?:(\d{1,6}(?:\.\d{1,3})?)\s*(ms|s|m|min|h|d|w))(?:\s+ago)?\Z", re.ASCII)
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_CLOCK: Final = re.compile(r"(?:(today|yesterday)\s+)?(\d{1,2}):(\d{2})(?::(\d{2}))?\Z", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
FORMS: Final = "10m, 2h, 1d, 1w; now, today, yesterday, yesterday 14:00, 14:00; 2026-01-31T08:00[Z]"


def parse_time(text: str, now: float) -> float:
    """Return the moment that `text` names, epoch seconds.

    A duration counts back from `now`. Without a zone the machine's own counts. A bare time of day is today's.

    Raises:
        ValueError: not a time; the text says which forms there are.
    """
    wanted = " ".join(text.strip().lower().split())
    if wanted == "now":
        return now
    if found := _DURATION.match(wanted):
        return max(0.0, now - float(found[1]) * _UNIT_S[found[2]])
    midnight = _local(now).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
    if wanted in ("today", "yesterday"):
        return _epoch(midnight - dt.timedelta(days=wanted == "yesterday"))
    try:
        if found := _CLOCK.match(wanted):
            day = midnight - dt.timedelta(days=found[1] == "yesterday")
            return _epoch(day.replace(hour=int(found[2]), minute=int(found[3]), second=int(found[4] or 0)))
        return _epoch(dt.datetime.fromisoformat(text.strip() if _DATE.match(wanted) else ""))
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is not a time; known forms: {FORMS}") from None


def _local(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).astimezone()


def _epoch(at: dt.datetime) -> float:
    seconds = at.astimezone().timestamp() if at.tzinfo is None else at.timestamp()
    if seconds < 0:
        raise ValueError
    return seconds


def clock_time(seconds: float, now: float) -> str:
    """Return a moment in local time: `14:03:07` on the same day, else `2026-01-31 14:03:07`, as far as years go."""
    try:
        at, today = _local(seconds), _local(now)
    except (ValueError, OverflowError, OSError):  # a producer of records sets what it likes
        return "beyond the calendar"
    return f"{at:%H:%M:%S}" if at.date() == today.date() else f"{at:%Y-%m-%d %H:%M:%S}"


def relative(seconds: float, now: float) -> str:
    """Return the distance of a moment in one unit: `3 s ago`, `in 2 min`."""
    away = now - seconds
    text = span(abs(away))
    return f"{text} ago" if away >= 0 else f"in {text}"


def span(seconds: float) -> str:
    """Return a length of time in one unit: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    if 0 < seconds < 0.95:
        return f"{seconds:.1f} s"
    for unit, size, until in (("s", 1.0, 100), ("min", 60.0, 100), ("h", 3600.0, 48)):
        if round(seconds / size) < until:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def milliseconds(value: float | None) -> str:
    """Return a duration given in milliseconds: `3.1 ms`, `240 ms`, `2.5 s`."""
    if value is None:
        return ""
    if value < 100:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"
