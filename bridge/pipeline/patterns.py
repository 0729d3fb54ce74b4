"""Leaf conditions of the filter pattern language: what one value of an event must be like.

The operators and what makes them invalid are EventBridge's (eb-create-pattern-operators.html), of which Lambda's
event filtering (invocation-eventfiltering.html) names a part. Every condition becomes a closure over one scalar:
objects are no leaves, and of an array each element is asked on its own.
"""

import ipaddress
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

NUMBER_MAX: Final = 5_000_000_000
"""`numeric` compares numbers from -5e9 to 5e9."""
WILDCARDS_MAX: Final = 5
"""Most `*` in one wildcard: AWS measures complexity by a rule of its own, this bound is ours."""
OPERATORS: Final = frozenset(
    {"anything-but", "cidr", "equals-ignore-case", "exists", "numeric", "prefix", "suffix", "wildcard"}
)
_IP_MAX_CHARS: Final = 45
_SHOWN_MAX_CHARS: Final = 80

Test = Callable[[object], bool]


class PatternInvalid(ValueError):
    """A filter pattern that is none; the text is one line that says where and why."""


class Members(tuple[tuple[str, object], ...]):
    """A JSON object of a pattern with its members as written: a repeated key is kept."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """All conditions of one field: any of them is enough."""

    test: Test
    """Whether a scalar meets one of them."""
    absent: bool
    """Whether the field may be missing (`{"exists": false}`)."""
    text: str
    """The conditions as JSON, for explanations."""
    literals: tuple[object, ...] = ()
    """The values that are compared as they are; what `test` asks, for those who ask it in another way."""
    operators: tuple[tuple[str, object], ...] = ()
    """The other conditions: operator and operand, valid."""


def compile_leaf(values: Sequence[object], *, where: str) -> Leaf:
    """Compile the array that stands at a field of a pattern.

    Args:
        values: its elements; objects as `Members`.
        where: dotted path of the field, for errors.

    Raises:
        PatternInvalid: an empty array, an unknown operator or an operand that does not fit.
    """
    if not values:
        refuse(where, "an empty array matches nothing; give at least one value")
    tests: list[Test] = []
    literals: list[object] = []
    operators: list[tuple[str, object]] = []
    absent = False
    for value in values:
        if isinstance(value, Members):
            operator, operand = _single(value, where)
            operators.append((operator, operand))
            if operator == "exists":
                if not isinstance(operand, bool):
                    refuse(where, '"exists" takes true or false')
                absent = absent or not operand
                if operand:
                    tests.append(_any_value)
            else:
                tests.append(_OPERATORS[operator](operand, f"{where}.{operator}"))
        elif isinstance(value, list):
            refuse(where, "an array inside an array is no condition")
        else:
            literals.append(_finite(value, where))
    if literals:
        tests.insert(0, _equal_to_any(literals))
    return Leaf(
        test=_any_of(tests),
        absent=absent,
        text=shown(list(values)),
        literals=tuple(literals),
        operators=tuple(operators),
    )


def refuse(where: str, why: str) -> NoReturn:
    """Raise PatternInvalid for the field at `where` (empty: the whole pattern)."""
    place = json.dumps(where)[1:-1][:200]
    raise PatternInvalid(f"{place}: {why}" if place else why)


def shown(value: object) -> str:
    """Return a value of a pattern or an event as short JSON text in one line."""
    text = json.dumps(_plain(value), ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_MAX_CHARS else text[: _SHOWN_MAX_CHARS - 1] + "…"


def _plain(value: object) -> object:
    if isinstance(value, Members):
        return {key: _plain(member) for key, member in value}
    if isinstance(value, list):
        return [_plain(element) for element in value]
    return value


def _single(members: Members, where: str) -> tuple[str, object]:
    if len(members) != 1:
        refuse(where, f"a condition has exactly one operator, this one has {len(members)}")
    operator, operand = members[0]
    if operator not in OPERATORS:
        refuse(where, f"unknown operator {shown(operator)}; known are {', '.join(sorted(OPERATORS))}")
    return operator, operand


def _finite(value: object, where: str) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        refuse(where, "the number is out of range")
    return value


# --- conditions -----------------------------------------------------------------------------------


def _any_value(value: object) -> bool:
    del value
    return True


def _any_of(tests: Sequence[Test]) -> Test:
    """Join conditions: any of them, none of none."""
    if len(tests) == 1:
        return tests[0]
    return lambda value: any(test(value) for test in tests)


def _equal_to_any(literals: Sequence[object]) -> Test:
    """Equality with a type: `1`, `true` and `"1"` are three values, `300` and `300.0` are one."""
    texts = frozenset(value for value in literals if isinstance(value, str))
    numbers = frozenset(value for value in literals if _is_number(value))
    constants = [value for value in literals if value is None or isinstance(value, bool)]

    def test(value: object) -> bool:
        if isinstance(value, str):
            return value in texts
        if value is None or isinstance(value, bool):
            return any(value is constant for constant in constants)
        return value in numbers

    return test


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text_test(check: Callable[[str], bool]) -> Test:
    return lambda value: isinstance(value, str) and check(value)


def _text(operand: object, where: str) -> str:
    if not isinstance(operand, str):
        refuse(where, f"takes a string, not {shown(operand)}")
    return operand


def fold(text: str) -> str:
    """Fold case letter by letter, so that "ß" is not "ss": the engine compares each with its other case."""
    return text.lower()


def _equals_ignore_case(operand: object, where: str) -> Test:
    wanted = fold(_text(operand, where))
    return _text_test(lambda value: fold(value) == wanted)


def _edge(operand: object, where: str, *, at_start: bool) -> Test:
    """`prefix` or `suffix`, also as `{"prefix": {"equals-ignore-case": "x"}}`."""
    if isinstance(operand, Members):
        if len(operand) != 1 or operand[0][0] != "equals-ignore-case":
            refuse(where, 'takes a string or {"equals-ignore-case": string}')
        folded = fold(_text(operand[0][1], where))
        if at_start:
            return _text_test(lambda value: fold(value).startswith(folded))
        return _text_test(lambda value: fold(value).endswith(folded))
    wanted = _text(operand, where)
    if at_start:
        return _text_test(lambda value: value.startswith(wanted))
    return _text_test(lambda value: value.endswith(wanted))


def _prefix(operand: object, where: str) -> Test:
    return _edge(operand, where, at_start=True)


def _suffix(operand: object, where: str) -> Test:
    return _edge(operand, where, at_start=False)


def _wildcard(operand: object, where: str) -> Test:
    """`*` stands for any run of characters; the parts between are looked for from left to right, once each."""
    parts = _wildcard_parts(_text(operand, where), where)
    if len(parts) == 1:
        return _text_test(lambda value: value == parts[0])
    first, middle, last = parts[0], parts[1:-1], parts[-1]
    shortest = sum(map(len, parts))

    def check(value: str) -> bool:
        if len(value) < shortest or not value.startswith(first) or not value.endswith(last):
            return False
        position, end = len(first), len(value) - len(last)
        for part in middle:
            position = value.find(part, position, end)
            if position < 0:
                return False
            position += len(part)
        return True

    return _text_test(check)


def _wildcard_parts(text: str, where: str) -> list[str]:
    parts = [""]
    after_star = False
    characters = iter(text)
    for character in characters:
        if character == "*":
            if after_star:
                refuse(where, 'two "*" in a row are not allowed')
            parts.append("")
            after_star = True
            continue
        after_star = False
        if character == "\\":
            character = next(characters, "")  # noqa: PLW2901 - the escaped character takes its place
            if character not in ("*", "\\"):
                refuse(where, r'a backslash may only stand before "*" or another backslash')
        parts[-1] += character
    if len(parts) - 1 > WILDCARDS_MAX:
        refuse(where, f'too complex: {len(parts) - 1} "*", at most {WILDCARDS_MAX} are allowed')
    return parts


def _cidr(operand: object, where: str) -> Test:
    text = _text(operand, where)
    address, slash, bits = text.partition("/")
    if not slash or not (bits.isascii() and bits.isdigit()) or "%" in address:
        refuse(where, f"{shown(text)} is not an address and a number of bits, like 10.0.0.0/24")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        refuse(where, f"{shown(text)} is not a range of addresses, like 10.0.0.0/24")

    def check(value: str) -> bool:
        if len(value) > _IP_MAX_CHARS or "%" in value:
            return False
        try:
            return ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return _text_test(check)


def _numeric(operand: object, where: str) -> Test:
    """`[op, number]`, or a range with its lower bound first; JSON numbers only, never "5"."""
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        refuse(where, 'takes [operator, number] or a range like [">", 0, "<=", 5]')
    if len(operand) == 2:
        operator, bound = operand[0], _bound(operand[1], where)
        if not isinstance(operator, str) or operator not in _COMPARISONS:
            refuse(where, f"unknown comparison {shown(operator)}; known are = < <= > >=")
        compare = _COMPARISONS[operator]
        return lambda value: _is_number(value) and compare(value, bound)
    low_operator, high_operator = operand[0], operand[2]
    if low_operator not in (">", ">=") or high_operator not in ("<", "<="):
        refuse(where, 'a range has its lower bound first, like [">", 0, "<=", 5]')
    low, high = _bound(operand[1], where), _bound(operand[3], where)
    if low >= high:
        refuse(where, "the lower bound of a range must be less than the upper one")
    above, below = _COMPARISONS[low_operator], _COMPARISONS[high_operator]
    return lambda value: _is_number(value) and above(value, low) and below(value, high)


def _bound(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        refuse(where, f"compares with a number, not {shown(value)}")
    if not -NUMBER_MAX <= value <= NUMBER_MAX:
        refuse(where, "compares numbers from -5e9 to 5e9")
    return value


_COMPARISONS: Final[dict[str, Callable[[object, float], bool]]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,  # type: ignore[operator]
    "<=": lambda value, bound: value <= bound,  # type: ignore[operator]
    ">": lambda value, bound: value > bound,  # type: ignore[operator]
    ">=": lambda value, bound: value >= bound,  # type: ignore[operator]
}


def _anything_but(operand: object, where: str) -> Test:
    """Any value but these; the field must exist, and values of another type are other values."""
    if isinstance(operand, Members):
        excluded = _anything_but_operator(operand, where)
    else:
        values = operand if isinstance(operand, list) else [operand]
        are_texts = all(isinstance(value, str) for value in values)
        if not values or not (are_texts or all(map(_is_number, values))):
            refuse(where, "takes a string, a number, a list of strings or a list of numbers")
        excluded = _equal_to_any([_finite(value, where) for value in values])
    return lambda value: not excluded(value)


def _anything_but_operator(operand: Members, where: str) -> Test:
    name = operand[0][0] if len(operand) == 1 else ""
    if name not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
        refuse(where, "takes values, or one of prefix, suffix, equals-ignore-case and wildcard")
    values = operand[0][1]
    values = values if isinstance(values, list) else [values]
    where = f"{where}.{name}"
    texts = [_text(value, where) for value in values]
    if not texts:
        refuse(where, "an empty array matches nothing; give at least one value")
    if name in ("prefix", "suffix") and "" in texts:
        refuse(where, "an empty string would exclude every string")
    return _any_of([_OPERATORS[name](text, where) for text in texts])


_OPERATORS: Final[dict[str, Callable[[object, str], Test]]] = {
    "anything-but": _anything_but,
    "cidr": _cidr,
    "equals-ignore-case": _equals_ignore_case,
    "numeric": _numeric,
    "prefix": _prefix,
    "suffix": _suffix,
    "wildcard": _wildcard,
}
