"""Reads the fields of a query or a JSON body by name and type; every mistake names its field."""

import datetime as dt
import difflib
import math
import re
import uuid
from collections.abc import Mapping
from typing import Final, cast

import orjson

from bridge.api.http import HttpError, Request
from bridge.core.function import TARGET_PATTERN

_TEXT_MAX_CHARS: Final = 4096
_IDS_MAX: Final = 10_000
_WORDS_MAX: Final = 1024
_TIME_MAX: Final = 253_402_300_799.0
"""The end of the year 9999, epoch seconds."""
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}\Z")
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,12})?\Z")
_POSITION: Final = re.compile(r"[0-9]{1,128}\Z")
"""Sequence numbers of Kinesis have up to 128 digits."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class Fields:
    """Fields that are taken one by one; what is left at `finish()` is unknown and refused.

    `prefix` stands before names in errors (`selection.`). Every method raises HttpError 400.
    """

    def __init__(self, values: Mapping[str, object], *, prefix: str = "") -> None:
        self._values = dict(values)
        self._known: set[str] = set()
        self._prefix = prefix

    @classmethod
    def of_query(cls, request: Request) -> "Fields":
        """Take the query's fields; a field given twice is refused, `id` alone may repeat."""
        values: dict[str, object] = {}
        for name, text in request.query():
            if name == "id":
                cast("list[str]", values.setdefault("id", [])).append(text)
            elif name in values:
                raise HttpError(400, f"{name[:100]}: given twice")
            else:
                values[name] = text
        return cls(values)

    @classmethod
    async def of_body(cls, request: Request) -> "Fields":
        """Take the members of the body's JSON object; an empty body is an empty object."""
        body = await request.body()
        if not body.strip():
            return cls({})
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise HttpError(400, f"the body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise HttpError(400, "the body must be a JSON object")
        return cls(value)

    def _take(self, name: str) -> object:
        self._known.add(name)
        return self._values.pop(name, None)

    def wrong(self, name: str, what: str) -> HttpError:
        """Return the error to raise for a field."""
        return HttpError(400, f"{self._prefix}{name}: {what}")

    def text(self, name: str) -> str | None:
        """Return a text that is not empty, or None when it is not given."""
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(name, "must be a text")
        if not value or len(value) > _TEXT_MAX_CHARS:
            raise self.wrong(name, f"must have 1 to {_TEXT_MAX_CHARS} characters")
        return value

    def name(self, name: str) -> str | None:
        """Return a name for a replay or redrive: letters, digits, `.`, `_`, `-`."""
        value = self.text(name)
        if value is not None and not _NAME.match(value):
            raise self.wrong(
                name, "must have 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit"
            )
        return value

    def boolean(self, name: str) -> bool:
        """Return a boolean, False when it is not given; in a query also `true`, `1`, `false`, `0` and nothing."""
        return self.flag(name, default=False)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a boolean as `boolean` does, with another default."""
        value = self._take(name)
        known = {None: default, True: True, False: False, "true": True, "1": True, "": True, "false": False, "0": False}
        if isinstance(value, bool | str | None) and value in known:
            return known[value]
        raise self.wrong(name, "must be true or false")

    def integer(self, name: str, *, low: int, high: int) -> int | None:
        """Return a whole number in [low, high], or None when it is not given."""
        value = self._take(name)
        if value is None:
            return None
        if isinstance(value, str) and _INTEGER.match(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, *, low: float, high: float) -> float | None:
        """Return a number in [low, high], or None when it is not given."""
        value = self._take(name)
        if value is None:
            return None
        if isinstance(value, str) and _NUMBER.match(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(name, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def time(self, name: str) -> float | None:
        """Return epoch seconds, given as such or as ISO 8601 with a zone."""
        value = self._take(name)
        if value is None:
            return None
        if isinstance(value, str):
            value = _parsed_time(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _TIME_MAX:
            raise self.wrong(name, "must be epoch seconds, or ISO 8601 with a zone (2026-01-31T08:00:00Z)")
        return float(value)

    def target(self, name: str) -> str | None:
        """Return `function[:qualifier]`."""
        value = self.text(name)
        if value is not None and not TARGET_PATTERN.match(value):
            raise self.wrong(name, "must be a function's name, with or without :qualifier")
        return value

    def ids(self, name: str) -> frozenset[str]:
        """Return a set of request ids (a JSON list; a repeated query field), in lower case."""
        try:
            return frozenset(str(uuid.UUID(text)) for text in self.texts(name))
        except ValueError as error:
            raise self.wrong(name, "must be whole ids, 36 characters each") from error

    def texts(self, name: str) -> frozenset[str]:
        """Return a set of texts (a JSON list; a repeated query field)."""
        value = self._take(name)
        if value is None:
            return frozenset()
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.wrong(name, "must be a list of texts")
        if len(value) > _IDS_MAX:
            raise self.wrong(name, f"more than {_IDS_MAX} entries")
        return frozenset(value)

    def words(self, name: str) -> tuple[str, ...]:
        """Return texts in order, each once (a JSON list; in a query with commas between them)."""
        value = self._take(name)
        items = [] if value is None else value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
            raise self.wrong(name, "must be a list of texts")
        if len(items) > _WORDS_MAX:
            raise self.wrong(name, f"more than {_WORDS_MAX} entries")
        return tuple(dict.fromkeys(items))

    def places(self, name: str) -> dict[str, int]:
        """Return positions by shard (a JSON object; in a query `SHARD:POSITION` with commas between them)."""
        value = self._take(name)
        if isinstance(value, str):
            value = dict(item.rpartition(":")[::2] for item in value.split(","))
        if value is None:
            return {}
        if not isinstance(value, dict) or len(value) > _WORDS_MAX:
            raise self.wrong(name, "must be positions by shard")
        places: dict[str, int] = {}
        for shard, position in value.items():
            text = str(position) if isinstance(position, int) and not isinstance(position, bool) else position
            if not shard or not isinstance(text, str) or not _POSITION.match(text):
                raise self.wrong(name, f"{str(shard)[:100]}: must be a whole number, 0 or more")
            places[str(shard)] = int(text)
        return places

    def inner(self, name: str) -> "Fields":
        """Return the fields of a nested object, an empty one when it is not given."""
        value = self._take(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        return Fields(value, prefix=f"{self._prefix}{name}.")

    def page(self, *, default: int = 50, high: int = 1000) -> int:
        """Return `limit`: how many entries a page may have."""
        return self.integer("limit", low=1, high=high) or default

    def span(self) -> tuple[float | None, float | None]:
        """Return `since` and `until`, which must be in that order."""
        since, until = self.time("since"), self.time("until")
        if since is not None and until is not None and since >= until:
            raise self.wrong("since", "must be before until")
        return since, until

    def finish(self) -> None:
        """Refuse what was not taken."""
        for name in self._values:
            near = difflib.get_close_matches(name, self._known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(self._known)) or 'none'}"
            raise self.wrong(name[:100], f"unknown field{hint}")


def _parsed_time(text: str) -> float | None:
    if _NUMBER.match(text):
        return float(text)
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    seconds = at.timestamp()
    return seconds if math.isfinite(seconds) else None
