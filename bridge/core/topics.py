"""MQTT's topic filters: what is wrong with one, what it matches, and which overlap (MQTT 5, 4.7 and 4.8; pure)."""

import hashlib
from collections.abc import Sequence
from typing import Final

FILTER_MAX_BYTES: Final = 65_535
_SHARE: Final = "$share"
STORED_KEY_MAX_BYTES: Final = 255
"""Of `Record.key`."""


def filter_mistake(text: str) -> str:
    """Return what is wrong with a topic filter, in one line; empty when nothing is."""
    if not text:
        return "a topic filter is not empty"
    if len(text.encode("utf-8", "replace")) > FILTER_MAX_BYTES:
        return f"longer than {FILTER_MAX_BYTES:,} bytes"
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        return "holds a character that no topic can have"
    levels = text.split("/")
    if levels[0] == _SHARE:
        if len(levels) < 3 or not levels[1] or not "/".join(levels[2:]):
            return "a shared subscription is $share/GROUP/FILTER"
        if set(levels[1]) & set("+#"):
            return "a group's name holds neither + nor #"
        levels = levels[2:]
    for number, level in enumerate(levels, 1):
        if "#" in level and level != "#":
            return f"# stands alone in a level; here it is in {level!r}, level {number}"
        if "+" in level and level != "+":
            return f"+ stands alone in a level; here it is in {level!r}, level {number}"
        if level == "#" and number < len(levels):
            return f"# may only be the last level; here it is level {number} of {len(levels)}"
    return ""


def split_shared(text: str) -> tuple[str, str]:
    """Return the group (empty: none) and the plain filter."""
    if text.startswith(f"{_SHARE}/"):
        _, group, plain = text.split("/", 2)
        return group, plain
    return "", text


def matches(levels: Sequence[str], topic: str) -> bool:
    """Tell whether a plain filter, split at its slashes, matches a topic; `a/#` matches `a` too (4.7.1.2).

    A wildcard in the first level never matches `$…` (4.7.2).
    """
    parts = topic.split("/")
    if topic.startswith("$") and levels[0] in ("+", "#"):
        return False
    for number, level in enumerate(levels):
        if level == "#":
            return True
        if number >= len(parts) or (level not in ("+", parts[number])):
            return False
    return len(parts) == len(levels)


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every topic that `narrow` matches is matched by `wide` too; plain filters."""
    a, b = wide.split("/"), narrow.split("/")
    if b[0].startswith("$") and a[0] in ("+", "#"):
        return False
    for number, level in enumerate(a):
        if level == "#":
            return True
        if number >= len(b):
            return False
        if b[number] == "#" or (level != "+" and level != b[number]):
            return False
    return len(a) == len(b)


def overlap(one: str, other: str) -> bool:
    """Tell whether some topic is matched by both; plain filters."""
    a, b = one.split("/"), other.split("/")
    for first, second in ((a[0], b[0]), (b[0], a[0])):
        if first in ("+", "#") and second.startswith("$"):
            return False
    for number in range(max(len(a), len(b))):
        here = {levels[number] if number < len(levels) else None for levels in (a, b)}
        if "#" in here:
            return True
        if None in here or ("+" not in here and len(here) > 1):
            return False
    return True


def joined(one: str, other: str) -> str:
    """Return the narrowest filter that covers two plain filters which overlap."""
    a, b = one.split("/"), other.split("/")
    levels = list[str]()
    for number in range(max(len(a), len(b))):
        here = {each[number] if number < len(each) else "#" for each in (a, b)}
        if "#" in here:
            levels.append("#")
            break
        levels.append(here.pop() if len(here) == 1 else "+")
    return "/".join(levels)


def uncovered(filters: Sequence[str]) -> tuple[str, ...]:
    """Return the filters, in their order, without those that another one covers; shared ones stay as they are."""
    kept = list(dict.fromkeys(filters))
    for text in tuple(kept):
        if not split_shared(text)[0] and any(
            other != text and not split_shared(other)[0] and covers(other, text) for other in kept
        ):
            kept.remove(text)
    return tuple(kept)


def overlapping(filters: Sequence[str]) -> bool:
    """Tell whether a topic may be matched by two of these plain filters."""
    return any(overlap(one, other) for number, one in enumerate(filters) for other in filters[:number])


def apart(filters: Sequence[str]) -> tuple[str, ...]:
    """Return filters that cover these plain ones and no two of which overlap."""
    found = list[str]()
    for text in filters:
        while (other := next((each for each in found if overlap(each, text)), None)) is not None:
            found.remove(other)
            text = joined(text, other)  # noqa: PLW2901 - it grows until it overlaps none
        found.append(text)
    return tuple(found)


def stored_key(topic: bytes) -> bytes:
    """Return a topic as a record keeps it: one that is too long by its hash, behind a NUL, which no topic has."""
    if len(topic) <= STORED_KEY_MAX_BYTES:
        return topic
    return b"\0" + hashlib.blake2b(topic, digest_size=16).digest()
