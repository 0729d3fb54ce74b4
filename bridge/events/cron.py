"""EventBridge's six cron fields: parsed with the place of a mistake, and the days and times they mean (pure).

Fields, wildcards and restrictions: docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html.
What that page leaves open is as in Quartz, whose dialect it is: `15W` stays in its month, `LW` is the last weekday of
a month, `L` as a day of the week is Saturday. Days of the week count from 1, which is Sunday.
"""

import calendar
import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

FIELDS: Final = ("minutes", "hours", "day-of-month", "month", "day-of-week", "year")
YEARS: Final = (1970, 2199)
_MONTHS: Final = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS: Final = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_ITEM: Final = re.compile(r"(?P<first>\*|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\w+))?\Z", re.ASCII)
_NEAREST: Final = re.compile(r"(\d{1,2})W\Z", re.ASCII)
_LAST: Final = re.compile(r"([A-Z]{3}|\d)L\Z", re.ASCII)
_NTH: Final = re.compile(r"([A-Z]{3}|\d)#(\w+)\Z", re.ASCII)
_NTH_MAX: Final = 5


class BadSchedule(ValueError):
    """An expression that cannot be read: what is wrong, and at which character of it (from 1)."""

    def __init__(self, text: str, *, at: int) -> None:
        super().__init__(f"at character {at}: {text}")
        self.text = text
        self.at = at


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """Days of a month, as one of the two day fields names them."""

    numbers: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    nearest: frozenset[int] = frozenset()
    """`15W`: the day from Monday to Friday of the same month that is nearest to the 15th."""
    nth: frozenset[tuple[int, int]] = frozenset()
    """`3#2`: weekday and which one of the month; 0 is the last one (`3L`)."""
    last: bool = False
    last_weekday: bool = False

    def of(self, year: int, month: int) -> list[int]:
        """Return the days of a month, in order."""
        first, length = calendar.monthrange(year, month)  # Monday is 0

        def weekday(day: int) -> int:
            return (first + day) % 7 + 1

        days = {day for day in self.numbers if day <= length}
        days |= {day for day in range(1, length + 1) if weekday(day) in self.weekdays}
        days |= {_workday(day, weekday(day), length) for day in self.nearest if day <= length}
        for wanted, which in self.nth:
            found = [day for day in range(1, length + 1) if weekday(day) == wanted]
            days |= set(found[which - 1 : which] if which else found[-1:])
        if self.last:
            days.add(length)
        if self.last_weekday:
            days.add(_workday(length, weekday(length), length))
        return sorted(days)


def _workday(day: int, weekday: int, length: int) -> int:
    """Return the nearest day from Monday to Friday within the month."""
    if weekday == _WEEKDAYS["SAT"]:
        return day - 1 if day > 1 else day + 2
    if weekday == _WEEKDAYS["SUN"]:
        return day + 1 if day < length else day - 2
    return day


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """Six fields; times are local ones of a zone that is somebody else's business."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: Days
    months: frozenset[int]
    years: frozenset[int]

    def first_day(self, date: dt.date, *, backwards: bool = False) -> dt.date | None:
        """Return the first day that fits, this one or one behind it (before it if `backwards`); None: there is none."""
        step = -1 if backwards else 1
        for year in sorted((year for year in self.years if (year - date.year) * step >= 0), reverse=backwards):
            for month in sorted(self.months, reverse=backwards):
                if ((year - date.year) * 12 + month - date.month) * step < 0:
                    continue
                days = self.days.of(year, month)
                for day in reversed(days) if backwards else days:
                    found = dt.date(year, month, day)
                    if (found <= date) if backwards else (found >= date):
                        return found
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)
    wraps: bool = True
    """Whether a range may go over its end to its beginning."""

    @property
    def allowed(self) -> str:
        words = list(self.names)
        return f"{self.low} to {self.high}" + (f" or {words[0]} to {words[-1]}" if words else "")

    def number(self, word: str, *, at: int) -> int:
        """Return what a number or a name means."""
        value = self.names.get(word, int(word) if word.isdigit() and len(word) <= 4 else -1)
        if not self.low <= value <= self.high:
            raise BadSchedule(f"{self.name} is {self.allowed}, not {word}", at=at)
        return value

    def numbers(self, item: str, *, at: int) -> frozenset[int]:
        """Return what one item of a list means: `*`, a number, a range, any of them with a step."""
        match = _ITEM.match(item)
        if match is None or (match["first"] == "*" and match["last"]):
            raise BadSchedule(f"{item or 'nothing'} is no {self.name}: write {self.allowed}, *, a-b, a/step", at=at)
        low, high = self.low, self.high
        if match["first"] != "*":
            low = self.number(match["first"], at=at)
            # A number with a step goes on to the end of the field, alone it is itself.
            high = high if match["step"] else low
        if match["last"]:
            high = self.number(match["last"], at=at + match.start("last"))
        step = self._step(match["step"], at=at + match.start("step"))
        if high >= low:
            return frozenset(range(low, high + 1, step))
        if not self.wraps:
            raise BadSchedule(f"{item} goes backwards", at=at)
        size = self.high - self.low + 1  # 20-2 goes over the end, as in an example of AWS's
        return frozenset((number - self.low) % size + self.low for number in range(low, high + size + 1, step))

    def _step(self, word: str | None, *, at: int) -> int:
        if word is None:
            return 1
        if not word.isdigit() or len(word) > 4 or int(word) < 1:
            raise BadSchedule(f"a step is a number from 1, not {word}", at=at)
        return int(word)


_PLAIN: Final = {
    "minutes": _Field(name="minutes", low=0, high=59),
    "hours": _Field(name="hours", low=0, high=23),
    "day-of-month": _Field(name="day-of-month", low=1, high=31),
    "month": _Field(name="month", low=1, high=12, names={name.upper(): number for name, number in _MONTHS.items()}),
    "day-of-week": _Field(name="day-of-week", low=1, high=7, names=_WEEKDAYS),
    "year": _Field(name="year", low=YEARS[0], high=YEARS[1], wraps=False),
}


def parse_cron(text: str, *, at: int = 1) -> Cron:
    """Return what stands between the parentheses of `cron(…)`.

    Args:
        text: six fields.
        at: where it begins in the whole expression, from 1.

    Raises:
        BadSchedule: it is not six fields of EventBridge's, or no day ever fits.
    """
    words = [(match[0].upper(), at + match.start()) for match in re.finditer(r"\S+", text)]
    if len(words) != len(FIELDS):
        hint = "; EventBridge has no seconds, and the year is needed" if len(words) in (5, 7) else ""
        raise BadSchedule(f"cron has {len(FIELDS)} fields ({' '.join(FIELDS)}), not {len(words)}{hint}", at=at)
    by_name = dict(zip(FIELDS, words, strict=True))
    of_month, of_week = by_name["day-of-month"], by_name["day-of-week"]
    if (of_month[0] == "?") == (of_week[0] == "?"):
        raise BadSchedule("exactly one of day-of-month and day-of-week must be ?", at=of_week[1])
    days = (
        _days(*of_month, "day-of-month", _of_month) if of_week[0] == "?" else _days(*of_week, "day-of-week", _of_week)
    )
    cron = Cron(
        minutes=tuple(sorted(_set("minutes", by_name))),
        hours=tuple(sorted(_set("hours", by_name))),
        days=days,
        months=_set("month", by_name),
        years=_set("year", by_name),
    )
    if cron.first_day(dt.date(YEARS[0], 1, 1)) is None:
        raise BadSchedule("no day ever fits these fields", at=of_month[1])
    return cron


def _items(word: str, at: int) -> list[tuple[str, int]]:
    """Return the items of a list with their places."""
    found = []
    for item in word.split(","):
        found.append((item, at))
        at += len(item) + 1
    return found


def _set(name: str, words: Mapping[str, tuple[str, int]]) -> frozenset[int]:
    items = _items(*words[name])
    return frozenset().union(*(_PLAIN[name].numbers(item, at=at) for item, at in items))


_Special = Callable[[str, int], Days | None]


def _days(word: str, at: int, name: str, special: _Special) -> Days:
    parts: list[Days] = []
    for item, place in _items(word, at):
        if (found := special(item, place)) is not None:
            parts.append(found)
        elif name == "day-of-month":
            parts.append(Days(numbers=_PLAIN[name].numbers(item, at=place)))
        else:
            parts.append(Days(weekdays=_PLAIN[name].numbers(item, at=place)))
    return _joined(parts)


def _joined(parts: Sequence[Days]) -> Days:
    return Days(
        numbers=frozenset().union(*(part.numbers for part in parts)),
        weekdays=frozenset().union(*(part.weekdays for part in parts)),
        nearest=frozenset().union(*(part.nearest for part in parts)),
        nth=frozenset().union(*(part.nth for part in parts)),
        last=any(part.last for part in parts),
        last_weekday=any(part.last_weekday for part in parts),
    )


def _of_month(item: str, at: int) -> Days | None:
    if item == "L":
        return Days(last=True)
    if item == "LW":
        return Days(last_weekday=True)
    if match := _NEAREST.match(item):
        return Days(nearest=frozenset({_PLAIN["day-of-month"].number(match[1], at=at)}))
    return None


def _of_week(item: str, at: int) -> Days | None:
    plain = _PLAIN["day-of-week"]
    if item == "L":
        return Days(weekdays=frozenset({_WEEKDAYS["SAT"]}))
    if match := _LAST.match(item):
        return Days(nth=frozenset({(plain.number(match[1], at=at), 0)}))
    if match := _NTH.match(item):
        weekday = plain.number(match[1], at=at)
        if not match[2].isdigit() or not 1 <= int(match[2]) <= _NTH_MAX:
            text = f"# stands before 1 to {_NTH_MAX}, which one of the month, not {match[2]}"
            raise BadSchedule(text, at=at + match.start(2))
        return Days(nth=frozenset({(weekday, int(match[2]))}))
    return None
