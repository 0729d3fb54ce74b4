"""Filter patterns: compiled once, then asked whether an event matches (the language of EventBridge and Lambda).

A pattern compiles to alternatives (`$or` multiplied out), each a set of dotted paths with their conditions, all of
which must hold: `{"a.b": [1]}` is `{"a": {"b": [1]}}`. An event is read along these paths only. Its arrays are
crushed: a condition on a field holds if it does for any element. But two conditions below the same array of objects
must hold in the same element (array consistency), for which every value keeps the elements it was found in.

Where EventBridge's own engine and its guide differ, the recorded behaviour counts: the same leaf written twice, the
last one wins; `exists` sees leaves only; and a missing field is judged in the elements that fields earlier in
alphabetical order were found in, because that is the order its engine reads them.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.pipeline.generated import generate
from bridge.pipeline.patterns import OPERATORS, Leaf, Members, PatternInvalid, compile_leaf, refuse, shown

__all__ = ["Explanation", "FieldReport", "Pattern", "PatternInvalid", "compile_pattern", "matches_event"]

PATTERN_MAX_CHARS: Final = 4096
"""FilterCriteria's limit (API_Filter)."""
ALTERNATIVES_MAX: Final = 1000
"""Combinations that the `$or`s of one pattern may multiply to."""
DEPTH_MAX: Final = 100
_STATES_MAX: Final = 100_000
"""Combinations of array elements followed at once; only an event made for it has more, and then does not match."""
_FOUND_SHOWN_MAX: Final = 5

Chain = tuple[tuple[int, int], ...]
"""The array elements a value was found in, outermost first: (number of the array, index)."""
Found = dict[str, list[tuple[object, Chain]]]
"""Scalars of an event by dotted path."""
Rule = dict[str, Leaf]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldReport:
    """What one field of one alternative wanted and found."""

    alternative: int
    """0 for the first; more than one only where the pattern has `$or`."""
    path: str
    wanted: str
    """The conditions as JSON."""
    found: tuple[str, ...]
    """The first few values at that path as JSON, each cut to 80 characters."""
    matched: bool
    note: str = ""
    """Why the values were not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an event matched a pattern or did not."""

    matched: bool
    fields: tuple[FieldReport, ...]
    note: str = ""
    """What the fields alone do not tell: they match, but not within the same element of an array."""


class Pattern:
    """A compiled filter pattern; made by `compile_pattern`, safe to use from several threads."""

    __slots__ = ("_prefixes", "_wanted", "matches", "rules", "text")

    matches: Callable[[object], bool]
    """Tells whether a parsed JSON value matches; one that is not an object never does."""

    def __init__(self, text: str, rules: Sequence[Mapping[str, Leaf]], *, is_generated: bool = True) -> None:
        self.text = text
        """The pattern as written."""
        self.rules: Final = tuple(tuple(sorted(rule.items())) for rule in rules)
        """The alternatives, each its paths and their conditions in the order they are judged in."""
        self._wanted = frozenset(path for rule in rules for path in rule)
        self._prefixes = frozenset(prefix for path in self._wanted for prefix in _prefixes(path))
        generated = generate(self.rules, interpret=self.interpret) if is_generated else None
        self.matches = generated or self.interpret

    def interpret(self, event: object) -> bool:
        """Answer as `matches` does, without generated code: ten times slower, arrays included."""
        if not isinstance(event, dict):
            return False
        found = self._gather(event)
        return any(_matches(rule, found) for rule in self.rules)

    def looks_into(self, field: str) -> bool:
        """Tell whether the pattern asks for anything below the top-level member `field`."""
        return field in self._prefixes

    def explain(self, event: object) -> Explanation:
        """Return what each field wanted and found."""
        if not isinstance(event, dict):
            return Explanation(matched=False, fields=(), note="the event is not a JSON object")
        found = self._gather(event)
        reports: list[FieldReport] = []
        matched = False
        note = ""
        for number, rule in enumerate(self.rules):
            fields = [_report(number, path, leaf, found) for path, leaf in rule]
            reports += fields
            is_match = _matches(rule, found)
            matched = matched or is_match
            if not is_match and all(field.matched for field in fields):
                note = "every field matches, but not in the same element of an array"
        return Explanation(matched=matched, fields=tuple(reports), note="" if matched else note)

    def _gather(self, event: Mapping[str, object]) -> Found:
        """Read the scalars at the wanted paths. Without recursion: an event may be nested deeper than the stack."""
        wanted, prefixes = self._wanted, self._prefixes
        found: Found = {}
        arrays = 0
        stack: list[tuple[str | None, object, Chain]] = [(None, event, ())]
        while stack:
            path, value, chain = stack.pop()
            if isinstance(value, dict):
                start = "" if path is None else path + "."
                for key, member in value.items():
                    name = start + key
                    if name in wanted or name in prefixes:
                        stack.append((name, member, chain))
            elif isinstance(value, list):
                array, arrays = arrays, arrays + 1
                for index, element in enumerate(value):
                    if isinstance(element, dict | list):
                        stack.append((path, element, (*chain, (array, index))))
                    elif path in wanted:
                        found.setdefault(path, []).append((element, chain))
            elif path in wanted:
                found.setdefault(path, []).append((value, chain))
        return found


def compile_pattern(text: str | bytes) -> Pattern:
    """Compile the JSON text of a filter pattern.

    Raises:
        PatternInvalid: not JSON, not of the language, or above a limit; the text says where and why.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise PatternInvalid(f"the pattern is not UTF-8 (byte {error.start})") from error
    if len(text) > PATTERN_MAX_CHARS:
        raise PatternInvalid(f"the pattern has {len(text)} characters, at most {PATTERN_MAX_CHARS} are allowed")
    try:
        parsed = json.loads(text, object_pairs_hook=Members, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise PatternInvalid(f"the pattern is not JSON: {error}") from error
    except RecursionError as error:
        raise PatternInvalid("the pattern is nested too deeply") from error
    if not isinstance(parsed, Members):
        raise PatternInvalid(f'a pattern is a JSON object such as {{"type": ["paid"]}}, not {shown(parsed)}')
    return Pattern(text, _object(parsed, path=(), rules=[{}]))


def matches_event(pattern: Pattern, payload: bytes) -> bool:
    """Tell whether a stored event matches; one that is not a JSON object never does.

    The body of an API Gateway v2 event is text. Where the pattern looks into it (`{"body": {"type": ["paid"]}}`) and
    that text is JSON, base64 taken off, it is read as JSON, as Lambda does for the body of an SQS record.
    """
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    if pattern.looks_into("body") and isinstance(event, dict) and isinstance(event.get("body"), str):
        event["body"] = _parsed_body(event["body"], is_base64=event.get("isBase64Encoded") is True)
    return pattern.matches(event)


def _parsed_body(body: str, *, is_base64: bool) -> object:
    try:
        return orjson.loads(base64.b64decode(body, validate=True) if is_base64 else body)
    except ValueError:  # neither base64 nor JSON, or no ASCII where base64 was promised
        return body


# --- compiling ------------------------------------------------------------------------------------


def _no_constant(name: str) -> object:
    raise PatternInvalid(f"the pattern is not JSON: {name}")


def _prefixes(path: str) -> Iterator[str]:
    """Yield what a path begins with, cut at each dot: where the search for it must go down."""
    at = path.find(".")
    while at >= 0:
        yield path[:at]
        at = path.find(".", at + 1)


def _object(members: Members, *, path: tuple[str, ...], rules: list[Rule]) -> list[Rule]:
    """Add the fields of one object to each of `rules` and return them: more of them where there is an `$or`."""
    where = ".".join(path)
    if not members:
        refuse(where, "an empty object matches nothing; name at least one field")
    if len(path) >= DEPTH_MAX:
        refuse(where, f"nested deeper than {DEPTH_MAX} levels")
    for key, value in members:
        inner = (*path, key)
        if key == "$or" and (choices := _choices(value)):
            rules = _alternatives(choices, path=path, rules=rules)
        elif isinstance(value, Members):
            rules = _object(value, path=inner, rules=rules)
        elif isinstance(value, list):
            name = ".".join(inner)
            leaf = compile_leaf(value, where=name)
            for rule in rules:
                rule[name] = leaf
        else:
            refuse(".".join(inner), f"must be an object or an array of conditions, not {shown(value)}")
    return rules


def _choices(value: object) -> list[Members]:
    """Return what `$or` chooses from; nothing where it is an ordinary field of that name."""
    if not isinstance(value, list) or len(value) < 2:
        return []
    choices = [each for each in value if isinstance(each, Members)]
    if len(choices) < len(value) or any(key in OPERATORS for choice in choices for key, _ in choice):
        return []
    return choices


def _alternatives(choices: Sequence[Members], *, path: tuple[str, ...], rules: list[Rule]) -> list[Rule]:
    combined: list[Rule] = []
    for choice in choices:
        combined += _object(choice, path=path, rules=[dict(rule) for rule in rules])
        if len(combined) > ALTERNATIVES_MAX:
            refuse(".".join((*path, "$or")), f"too complex: more than {ALTERNATIVES_MAX} combinations")
    return combined


# --- matching -------------------------------------------------------------------------------------


def _matches(rule: Sequence[tuple[str, Leaf]], found: Found) -> bool:
    """Tell whether all fields of one alternative hold, within the same elements of arrays."""
    chained = False
    for path, leaf in rule:
        values = found.get(path)
        if values is None:
            if not leaf.absent:
                return False
            continue
        has_chain = any(chain for _, chain in values)
        chained = chained or has_chain
        # In arrays a field may also be missing in just the element that the others hold in.
        if not (leaf.absent and has_chain) and not any(leaf.test(value) for value, _ in values):
            return False
    return not chained or _matches_consistently(rule, found)


def _matches_consistently(rule: Sequence[tuple[str, Leaf]], found: Found) -> bool:
    """Follow every combination of array elements in which the fields so far hold.

    Of a combination only the arrays that later fields lie in are kept, so that what cannot matter does not multiply.
    """
    states: set[Chain] = {()}
    for (path, leaf), later in zip(rule, _arrays_needed_after(rule, found), strict=True):
        values = found.get(path, [])
        hits = _Elements(chain for value, chain in values if leaf.test(value))
        everything = _Elements(chain for _, chain in values) if leaf.absent else None
        following: set[Chain] = set()
        for state in states:
            chosen = dict(state)
            for chain in hits.within(chosen):
                following.add(_kept(chosen, chain, later))
            if everything is not None and next(everything.within(chosen), None) is None:
                following.add(_kept(chosen, (), later))
            if len(following) > _STATES_MAX:
                return False
        if not following:
            return False
        states = following
    return True


def _arrays_needed_after(rule: Sequence[tuple[str, Leaf]], found: Found) -> list[frozenset[int]]:
    needed: list[frozenset[int]] = []
    later: frozenset[int] = frozenset()
    for path, _ in reversed(rule):
        needed.append(later)
        later |= {array for _, chain in found.get(path, ()) for array, _ in chain}
    needed.reverse()
    return needed


def _kept(chosen: Mapping[int, int], chain: Chain, later: frozenset[int]) -> Chain:
    if not later:
        return ()
    merged = {**chosen, **dict(chain)}
    return tuple(sorted((array, index) for array, index in merged.items() if array in later))


class _Elements:
    """The array elements that values were found in, as a tree: which agree with a choice is found without a scan."""

    __slots__ = ("_root",)

    def __init__(self, chains: Iterable[Chain]) -> None:
        self._root = _Node()
        for chain in chains:
            node = self._root
            for array, index in chain:
                node = node.arrays.setdefault(array, {}).setdefault(index, _Node())
            node.chain = chain

    def within(self, chosen: Mapping[int, int]) -> Iterator[Chain]:
        """Yield the chains that lie in the chosen element of every array that `chosen` names."""
        stack = [self._root]
        while stack:
            node = stack.pop()
            if node.chain is not None:
                yield node.chain
            for array, elements in node.arrays.items():
                index = chosen.get(array)
                if index is None:
                    stack.extend(elements.values())
                elif index in elements:
                    stack.append(elements[index])


class _Node:
    __slots__ = ("arrays", "chain")

    def __init__(self) -> None:
        self.chain: Chain | None = None
        self.arrays: dict[int, dict[int, _Node]] = {}


def _report(number: int, path: str, leaf: Leaf, found: Found) -> FieldReport:
    values = found.get(path)
    if values is None:
        return FieldReport(alternative=number, path=path, wanted=leaf.text, found=(), matched=leaf.absent)
    return FieldReport(
        alternative=number,
        path=path,
        wanted=leaf.text,
        found=tuple(shown(value) for value, _ in values[:_FOUND_SHOWN_MAX]),
        matched=any(leaf.test(value) for value, _ in values),
    )
