"""Compiles one field's list of tests (`["a", {"prefix": "b"}]`) into a function over a leaf value."""

import ipaddress
from collections.abc import Callable
from typing import Any, Final

Test = Callable[[Any], bool]

WILDCARDS_MAX: Final = 5
"""`*` in one wildcard: AWS refuses patterns that are too complex and does not say where; this is our bound."""
_NUMBER_MAX: Final = 5e9
_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


class PatternInvalid(ValueError):
    """A pattern that is not in the language; one line says where and why."""


class Presence:
    """`{"exists": true|false}`: asked of the field, not of a value."""

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted


def compile_tests(tests: list[Any], *, path: str) -> tuple[list[Test], list[Presence]]:
    """Return what a field's list says: tests of a leaf value, and of the field's presence; any of them suffices.

    Raises:
        PatternInvalid: with `path` in its text.
    """
    if not tests:
        raise PatternInvalid(f"{path}: an empty list matches nothing; name at least one value")
    values: list[Test] = []
    presences: list[Presence] = []
    for each in tests:
        if isinstance(each, dict):
            found = _operator(each, path=path)
            if isinstance(found, Presence):
                presences.append(found)
            else:
                values.append(found)
        elif isinstance(each, list):
            raise PatternInvalid(f"{path}: a list inside a list")
        else:
            values.append(_literal(each))
    return values, presences


def is_number(value: Any) -> bool:
    """Tell whether a JSON value is a number (true and false are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _literal(wanted: Any) -> Test:
    if wanted is None:
        return lambda value: value is None
    if isinstance(wanted, bool):
        return lambda value: value is wanted
    if is_number(wanted):
        return lambda value: is_number(value) and value == wanted
    return lambda value: isinstance(value, str) and value == wanted


def _operator(spec: dict[str, Any], *, path: str) -> Test | Presence:
    if len(spec) != 1:
        raise PatternInvalid(f"{path}: an operator is an object with one key, not {len(spec)}")
    ((name, argument),) = spec.items()
    if name == "exists":
        if not isinstance(argument, bool):
            raise PatternInvalid(f"{path}: exists takes true or false")
        return Presence(wanted=argument)
    try:
        make = _OPERATORS[name]
    except KeyError:
        raise PatternInvalid(
            f"{path}: unknown operator {name!r}; known: {', '.join([*_OPERATORS, 'exists'])}"
        ) from None
    return make(argument, path)


def _text(argument: Any, path: str, name: str) -> str:
    if not isinstance(argument, str):
        raise PatternInvalid(f"{path}: {name} takes a string")
    return argument


def _edge(name: str) -> Callable[[Any, str], Test]:
    """Return the maker of `prefix` or `suffix`, each also with equals-ignore-case inside."""

    def make(argument: Any, path: str) -> Test:
        if isinstance(argument, dict):
            if list(argument) != ["equals-ignore-case"]:
                raise PatternInvalid(f"{path}: {name} takes a string or {{equals-ignore-case: string}}")
            folded = _text(argument["equals-ignore-case"], path, name).casefold()
            if name == "prefix":
                return lambda value: isinstance(value, str) and value.casefold().startswith(folded)
            return lambda value: isinstance(value, str) and value.casefold().endswith(folded)
        text = _text(argument, path, name)
        if name == "prefix":
            return lambda value: isinstance(value, str) and value.startswith(text)
        return lambda value: isinstance(value, str) and value.endswith(text)

    return make


def _ignore_case(argument: Any, path: str) -> Test:
    folded = _text(argument, path, "equals-ignore-case").casefold()
    return lambda value: isinstance(value, str) and value.casefold() == folded


def _wildcard(argument: Any, path: str) -> Test:
    parts = _wildcard_parts(_text(argument, path, "wildcard"), path)

    def test(value: Any) -> bool:
        return isinstance(value, str) and _matches_parts(value, parts)

    return test


def _wildcard_parts(text: str, path: str) -> list[str]:
    parts = [""]
    at = 0
    while at < len(text):
        if text[at] == "\\":
            if text[at + 1 : at + 2] not in ("*", "\\"):
                raise PatternInvalid(f"{path}: wildcard: after a backslash only * or a backslash may stand")
            parts[-1] += text[at + 1]
            at += 2
            continue
        if text[at] == "*":
            if len(parts) > 1 and not parts[-1]:
                raise PatternInvalid(f"{path}: wildcard: ** is not allowed")
            parts.append("")
        else:
            parts[-1] += text[at]
        at += 1
    if len(parts) - 1 > WILDCARDS_MAX:
        raise PatternInvalid(f"{path}: wildcard: at most {WILDCARDS_MAX} * are allowed (too complex)")
    return parts


def _matches_parts(value: str, parts: list[str]) -> bool:
    """Match greedily from the left: linear in the value's length."""
    if len(parts) == 1:
        return value == parts[0]
    first, *middle, last = parts
    if not value.startswith(first) or not value.endswith(last) or len(value) < len(first) + len(last):
        return False
    at, end = len(first), len(value) - len(last)
    for part in middle:
        at = value.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return at <= end


def _numeric(argument: Any, path: str) -> Test:
    if not isinstance(argument, list) or len(argument) not in (2, 4):
        raise PatternInvalid(f"{path}: numeric takes [operator, number] or a lower and an upper bound")
    bounds = []
    for name, number in zip(argument[::2], argument[1::2], strict=True):
        if name not in _COMPARISONS or not isinstance(name, str):
            raise PatternInvalid(f"{path}: numeric knows {' '.join(_COMPARISONS)}, not {name!r}")
        if not is_number(number) or not -_NUMBER_MAX <= number <= _NUMBER_MAX:
            raise PatternInvalid(f"{path}: numeric compares with numbers of -5e9..5e9")
        bounds.append((name, number))
    if len(bounds) == 2 and not (
        bounds[0][0] in (">", ">=") and bounds[1][0] in ("<", "<=") and bounds[0][1] < bounds[1][1]
    ):
        raise PatternInvalid(f"{path}: numeric: the lower bound comes first, then a higher upper bound")
    checks = [(_COMPARISONS[name], number) for name, number in bounds]
    return lambda value: is_number(value) and all(compare(value, number) for compare, number in checks)


def _cidr(argument: Any, path: str) -> Test:
    text = _text(argument, path, "cidr")
    try:
        if "/" not in text:
            raise ValueError("no mask")
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise PatternInvalid(f"{path}: cidr takes an address block such as 10.0.0.0/24 ({error})") from None

    def test(value: Any) -> bool:
        try:
            return isinstance(value, str) and ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return test


def _anything_but(argument: Any, path: str) -> Test:
    if isinstance(argument, dict):
        if len(argument) != 1:
            raise PatternInvalid(f"{path}: anything-but takes one operator")
        ((name, inner),) = argument.items()
        if name not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise PatternInvalid(f"{path}: anything-but does not know {name!r}")
        texts = inner if isinstance(inner, list) else [inner]
        if not texts or (name in ("prefix", "suffix") and "" in texts):
            raise PatternInvalid(f"{path}: anything-but {name} would match nothing")
        excluded = [_OPERATORS[name](text, path) for text in texts]
    else:
        values = argument if isinstance(argument, list) else [argument]
        if not values or not (all(isinstance(v, str) for v in values) or all(map(is_number, values))):
            raise PatternInvalid(f"{path}: anything-but takes strings or numbers, not both, no null, no booleans")
        excluded = [_literal(value) for value in values]
    return lambda value: not any(test(value) for test in excluded)


_OPERATORS: Final[dict[str, Callable[[Any, str], Test]]] = {
    "prefix": _edge("prefix"),
    "suffix": _edge("suffix"),
    "equals-ignore-case": _ignore_case,
    "wildcard": _wildcard,
    "numeric": _numeric,
    "cidr": _cidr,
    "anything-but": _anything_but,
}
OPERATOR_NAMES: Final = frozenset(_OPERATORS) | {"exists"}
