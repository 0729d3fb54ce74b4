"""What the readers of senders' bodies share: how a body is refused, JSON that can be written again, members (pure)."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from bridge.core import limits

SHOWN_MAX_CHARS: Final = 60
"""Of a sender's own words in an answer."""
_SPACE: Final = re.compile(r"[ \t\r\n]*")


class Unreadable(ValueError):
    """A body is not of its format; the text is one line and goes to the sender."""


class ReadEvent(NamedTuple):
    """One event out of a sender's body."""

    payload: bytes
    """The Lambda event, serialised."""
    delivery_id: str = ""
    """What the sender calls this event, the same when it sends it again; empty: it has no name for it."""


def read_json(body: bytes) -> Any:
    """Return a body's value.

    Raises:
        Unreadable: not JSON, or nested deeper than `limits.JSON_DEPTH_MAX`: it could not be written again.
    """
    if not body:
        raise Unreadable("the body is empty")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"the body is not JSON: {error.msg}") from error
    if is_too_deep(body, lambda _: value):
        raise Unreadable(f"the body is nested deeper than {limits.JSON_DEPTH_MAX} levels")
    return value


def read_as_written(body: bytes) -> Any:
    """Return a body's value to be written again by orjson, every number as its sender wrote it: 1.10, or 70 digits.

    Args:
        body: what `read_json` has read.
    """

    def number(text: str) -> orjson.Fragment:
        return orjson.Fragment(text.encode())

    return json.loads(body, parse_int=number, parse_float=number)


def read_object(body: bytes) -> dict[str, Any]:
    """Return a body that is a JSON object. Raises Unreadable."""
    return needed_object(read_json(body), "the body")


def raw_items(body: bytes) -> list[bytes]:
    """Return the items of a JSON list, each as it is written: a number of 70 digits stays one.

    Args:
        body: a list that `read_json` has read.
    """
    text, scan = body.decode("utf-8"), json.JSONDecoder().raw_decode
    items: list[bytes] = []
    at = _skip(text, text.index("[") + 1)
    while text[at] != "]":
        _, end = scan(text, at)
        items.append(text[at:end].encode())
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return items


def _skip(text: str, at: int) -> int:
    """Return where the next token begins."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def is_too_deep(text: bytes, parse: Callable[[bytes], Any] = orjson.loads) -> bool:
    """Say whether JSON is nested deeper than what can be written again (`limits.JSON_DEPTH_MAX`).

    Args:
        text: the JSON; most has too few brackets to be looked at further.
        parse: returns its value.
    """
    deepest = limits.JSON_DEPTH_MAX
    if text.count(b"[") + text.count(b"{") <= deepest:
        return False
    level = [parse(text)]
    for _ in range(deepest + 1):
        outer = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        if not outer:
            return False
        level = [inner for values in outer for inner in values]
    return True


def needed_object(value: Any, what: str) -> dict[str, Any]:
    """Return a value that is an object. Raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable(f"{what} is no JSON object")
    return value


def needed_list(value: Any, what: str) -> list[Any]:
    """Return a value that is a list. Raises Unreadable."""
    if not isinstance(value, list):
        raise Unreadable(f"{what} is no list")
    return value


def needed_text(value: Mapping[str, Any], name: str) -> str:
    """Return a member that is text and not empty. Raises Unreadable."""
    found = value.get(name)
    if found is None:
        raise Unreadable(f"{name} is missing")
    if not isinstance(found, str):
        raise Unreadable(f"{name} is no text")
    if not found:
        raise Unreadable(f"{name} is empty")
    return found


def given_text(value: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return a member that is text, or absent or null. Raises Unreadable."""
    found = value.get(name)
    if found is None:
        return default
    if not isinstance(found, str):
        raise Unreadable(f"{name} is no text")
    return found


def shown(text: str) -> str:
    """Return a sender's own words fit to stand in one line of an answer."""
    kept = text if len(text) <= SHOWN_MAX_CHARS else text[:SHOWN_MAX_CHARS] + "…"
    return repr(kept)


def single_header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    """Return a header's value, empty where there is none; names are lower-case.

    Raises:
        Unreadable: it is there more than once.
    """
    found = [value for key, value in headers if key == name]
    if len(found) > 1:
        raise Unreadable(f"header {name.decode('latin-1')} is given more than once")
    return found[0].decode("latin-1").strip() if found else ""
