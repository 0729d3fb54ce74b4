"""Event patterns (EventBridge's language, as Lambda's FilterCriteria use it): compiled once, matched often."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import orjson

from bridge.pipeline.patterns import OPERATOR_NAMES, PatternInvalid, Presence, Test, compile_tests

__all__ = ["Pattern", "PatternInvalid", "compile_pattern", "matches_event"]

PATTERN_MAX_CHARS: Final = 4096
_ALTERNATIVES_MAX: Final = 1000
"""Conjunctions that `$or` may multiply into."""
_STEPS_MAX: Final = 100_000
"""Combinations of array elements that are tried for one event; beyond it the event does not match."""

Trail = tuple[tuple[str, int], ...]
"""Which element of which array a leaf lies in, outermost first."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One condition: the field's dotted path and its tests, any of which suffices."""

    path: str
    tests: tuple[Test, ...]
    presences: tuple[Presence, ...]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """An object as written: repeated keys kept."""

    pairs: tuple[tuple[str, Any], ...]


class Pattern:
    """A compiled pattern. Immutable."""

    def __init__(self, text: str, alternatives: list[tuple[_Field, ...]]) -> None:
        self.text = text
        self._alternatives = alternatives

    def matches(self, event: Any) -> bool:
        """Tell whether a parsed JSON event matches."""
        leaves: dict[str, list[tuple[Any, Trail]]] = {}
        for path, value, trail in _leaves(event, "", ()):
            leaves.setdefault(path, []).append((value, trail))
        return any(_holds(fields, leaves) for fields in self._alternatives)

    def explain(self, event: Any) -> list[tuple[str, bool]]:
        """Return (dotted path, does it hold by itself) for the fields of the alternative that holds most."""
        leaves: dict[str, list[tuple[Any, Trail]]] = {}
        for path, value, trail in _leaves(event, "", ()):
            leaves.setdefault(path, []).append((value, trail))
        verdicts = [[(field.path, _holds((field,), leaves)) for field in fields] for fields in self._alternatives]
        return max(verdicts, key=lambda verdict: sum(held for _, held in verdict), default=[])


def compile_pattern(text: str | bytes) -> Pattern:
    """Compile a pattern's JSON text.

    Raises:
        PatternInvalid: not JSON, or not a pattern; one line says where and why.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise PatternInvalid("a pattern is JSON in UTF-8") from None
    if len(text) > PATTERN_MAX_CHARS:
        raise PatternInvalid(f"a pattern has at most {PATTERN_MAX_CHARS} characters, this one has {len(text)}")
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _Pairs(tuple(pairs)), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PatternInvalid(f"not JSON: {error}") from None
    if not isinstance(document, _Pairs) or not document.pairs:
        raise PatternInvalid('a pattern is an object with at least one field, such as {"type": ["paid"]}')
    alternatives = [tuple(conditions.values()) for conditions in _compile(document, "")]
    return Pattern(text, alternatives)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _compile(node: _Pairs, prefix: str) -> list[dict[str, _Field]]:
    """Return the alternatives an object stands for: each a map of dotted path to condition."""
    alternatives: list[dict[str, _Field]] = [{}]
    for key, value in node.pairs:
        path = f"{prefix}.{key}" if prefix else key
        if key == "$or" and _is_or(value):
            inner = [each for branch in value for each in _compile(branch, prefix)]
        elif isinstance(value, _Pairs):
            if not value.pairs:
                raise PatternInvalid(f"{path}: an empty object")
            inner = _compile(value, path)
        elif isinstance(value, list):
            tests, presences = compile_tests([_plain(each) for each in value], path=path)
            inner = [{path: _Field(path, tuple(tests), tuple(presences))}]
        else:
            raise PatternInvalid(f"{path}: a value must be in a list: [{json.dumps(value)}]")
        if len(alternatives) * len(inner) > _ALTERNATIVES_MAX:
            raise PatternInvalid(f"{path}: $or makes more than {_ALTERNATIVES_MAX} alternatives")
        # The same leaf named twice: the last one wins, as recorded on AWS; parents are merged.
        alternatives = [left | right for left, right in product(alternatives, inner)]
    return alternatives


def _is_or(value: Any) -> bool:
    """Only a list of two or more objects whose keys are no operators makes `$or` special."""
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(each, _Pairs) and each.pairs for each in value)
        and not any(key in OPERATOR_NAMES for each in value for key, _ in each.pairs)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {key: _plain(each) for key, each in value.pairs}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


def _leaves(value: Any, path: str, trail: Trail) -> Iterator[tuple[str, Any, Trail]]:
    """Yield every leaf with its dotted path; arrays are crushed, and the trail says which element it was."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else key, trail)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(each, path, (*trail, (path, index)))
    else:
        yield path, value, trail


def _holds(fields: Iterable[_Field], leaves: dict[str, list[tuple[Any, Trail]]]) -> bool:
    """Tell whether all conditions hold at once, within the same elements of the same arrays."""
    choices: list[list[Trail]] = []
    for field in fields:
        found = leaves.get(field.path)
        if any(presence.wanted is (found is not None) for presence in field.presences):
            continue
        trails = list(dict.fromkeys(trail for value, trail in found or () if any(test(value) for test in field.tests)))
        if not trails:
            return False
        if trails != [()]:
            choices.append(trails)
    return not choices or _consistent(choices)


def _consistent(choices: list[list[Trail]]) -> bool:
    """Find one leaf a field such that two fields below one array of objects lie in the same element."""
    choices.sort(key=len)
    steps = 0
    stack: list[tuple[int, dict[str, int]]] = [(0, {})]
    while stack:
        depth, elements = stack.pop()
        if depth == len(choices):
            return True
        for trail in choices[depth]:
            steps += 1
            if steps > _STEPS_MAX:
                return False
            if all(elements.get(path, index) == index for path, index in trail):
                stack.append((depth + 1, elements | dict(trail)))
    return False


def matches_event(pattern: Pattern, payload: bytes) -> bool:
    """Tell whether a stored event matches; the JSON text in an HTTP event's `body` is seen as what it says.

    An event whose body is base64 or not JSON is matched with its body as a string.
    """
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    if isinstance(event, dict) and isinstance(event.get("body"), str) and not event.get("isBase64Encoded"):
        try:
            event["body"] = orjson.loads(event["body"])
        except orjson.JSONDecodeError:
            return pattern.matches(event)
    return pattern.matches(event)
