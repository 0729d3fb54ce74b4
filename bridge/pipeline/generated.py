"""Filter patterns as generated Python: the interpreter's answers at a fraction of its time.

The source walks an event along the pattern's paths and compares in place. Where the answer depends on more than plain
members, it hands the whole event to the interpreter: an array on a wanted path (elements must agree), and a member
whose own name has a dot and spells a wanted path (`{"a.b": 1}`). Both are tested for, never assumed.

No text of a pattern becomes code: names of members and operands are written by `_literal`, which lets through only
strings, numbers, booleans and null, as ASCII literals; everything else in the source is a word of this module.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.pipeline.patterns import Leaf, Members, fold

FIELDS_MAX: Final = 256
"""Fields of all alternatives together; a pattern of more is left to the interpreter."""
SEGMENTS_MAX: Final = 12
"""Names in one path; the members with dots that could spell it grow with the square."""
_TUPLE_MAX: Final = 6
"""Up to so many values `in` a tuple is as fast as a set, and needs no look at the type first."""
_SPELLINGS_INLINE_MAX: Final = 6

Matches = Callable[[object], bool]
Field = tuple[str, Leaf]
"""A dotted path and its conditions."""


def generate(rules: Sequence[Sequence[Field]], *, interpret: Matches) -> Matches | None:
    """Return a function that answers as `interpret` does, for values made by a JSON parser; None for a huge pattern."""
    if sum(map(len, rules)) > FIELDS_MAX or any(path.count(".") >= SEGMENTS_MAX for rule in rules for path, _ in rule):
        return None
    source, names = matcher_source(rules)
    names["interpret"] = interpret
    exec(compile(source, "<filter pattern>", "exec"), names)  # noqa: S102 - made of our own words and of literals
    matches: Matches = names["matches"]
    return matches


def matcher_source(rules: Sequence[Sequence[Field]]) -> tuple[str, dict[str, Any]]:
    """Return the source of `matches(event)` and the names it needs besides `interpret`."""
    writer = _Writer()
    for number, rule in enumerate(rules):
        writer.rule(f"rule_{number}", rule)
    # A rule that asked the interpreter has its answer for all rules: yes is yes, and after no the others say no too.
    writer.line(0, "def matches(event):")
    writer.line(1, "return " + " or ".join(f"rule_{number}(event)" for number in range(len(rules))))
    if len(rules) == 1:
        writer.lines = [*writer.lines[:-2], "matches = rule_0"]
    return "\n".join(writer.lines) + "\n", writer.names


@dataclass(slots=True)
class _Node:
    """A member that a rule asks for, or that lies on the way."""

    leaf: Leaf | None = None
    members: dict[str, "_Node"] = field(default_factory=dict)

    def must_be_object(self) -> bool:
        """Tell whether the rule cannot hold without something below this node."""
        return any(
            (member.leaf is not None and not member.leaf.absent) or member.must_be_object()
            for member in self.members.values()
        )

    def spellings(self, name: str) -> Iterator[str]:
        """Yield the names with dots that lead into this node, called `name`, in one step instead of several."""
        for inner, member in self.members.items():
            joined = f"{name}.{inner}"
            yield joined
            yield from member.spellings(joined)


def _tree(rule: Sequence[Field]) -> _Node:
    root = _Node()
    for path, leaf in rule:
        node = root
        for name in path.split("."):
            node = node.members.setdefault(name, _Node())
        node.leaf = leaf
    return root


class _Writer:
    """Writes one function a rule: a row of tests, each of which can say no."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "__builtins__": {},
            "type": type, "dict": dict, "list": list, "str": str, "int": int, "float": float, "bool": bool,
            "nothing": {},
        }  # fmt: skip

    def line(self, indent: int, text: str) -> None:
        self.lines.append("    " * indent + text)

    def rule(self, name: str, rule: Sequence[Field]) -> None:
        """Write the function of one alternative."""
        self.line(0, f"def {name}(event):")
        self.line(1, "if type(event) is not dict:")
        self.line(2, "return interpret(event)")
        self._object(_tree(rule), "event", [0])
        self.line(1, "return True")

    def _object(self, node: _Node, variable: str, counter: list[int]) -> None:
        """Write the tests of an object's members: what is read at once before what lies deeper."""
        leaves = [(name, member.leaf) for name, member in node.members.items() if member.leaf is not None]
        for name, leaf in sorted(leaves, key=lambda each: (each[1].absent, len(each[1].operators))):
            self._leaf(variable, _literal(name), leaf)
        for name, member in node.members.items():
            if not member.members:
                continue
            if spelled := self._spelled(variable, list(member.spellings(name))):
                self.line(1, f"if {spelled}:")
                self.line(2, "return interpret(event)")
            counter[0] += 1
            inner, key = f"object_{counter[0]}", _literal(name)
            self.line(1, f"{inner} = {variable}[{key}] if {key} in {variable} else None")
            self.line(1, f"if type({inner}) is not dict:")
            self.line(2, f"if type({inner}) is list:")
            self.line(3, "return interpret(event)")
            self.line(2, "return False" if member.must_be_object() else f"{inner} = nothing")
            self._object(member, inner, counter)

    def _spelled(self, variable: str, spellings: list[str]) -> str:
        if len(spellings) <= _SPELLINGS_INLINE_MAX:
            return " or ".join(f"{_literal(each)} in {variable}" for each in spellings)
        return f"not {variable}.keys().isdisjoint({self._constant(frozenset(spellings))})"

    def _leaf(self, variable: str, key: str, leaf: Leaf) -> None:
        condition, fits_any_type = self._condition(leaf)
        indent = 1
        if leaf.absent:
            self.line(1, f"if {key} in {variable}:")
            indent = 2
        else:
            self.line(1, f"if {key} not in {variable}:")
            self.line(2, "return False")
        self.line(indent, f"value = {variable}[{key}]")
        if leaf.absent or not fits_any_type:
            self.line(indent, "if type(value) is list:")
            self.line(indent + 1, "return interpret(event)")
            join = "is not dict and not" if leaf.absent else "is dict or not"
            self.line(indent, f"if type(value) {join} ({condition}):")
            self.line(indent + 1, "return False")
        else:
            self.line(indent, f"if not ({condition}):")
            self.line(indent + 1, "return interpret(event) if type(value) is list else False")

    def _condition(self, leaf: Leaf) -> tuple[str, bool]:
        """Return the conditions on the scalar `value`, and whether they also say no to an object and to an array."""
        parts: list[str] = []
        fits_any_type = True
        for operator, operand in leaf.operators:
            if operator == "exists":
                part = "True" if operand else ""
            else:
                part = _PARTS[operator](self, operand) if operator in _PARTS else ""
                if not part:
                    return f"{self._constant(leaf.test)}(value)", False
            fits_any_type = fits_any_type and operator not in ("exists", "anything-but")
            parts += [part] if part else []
        parts = self._equals(leaf.literals) + parts
        return " or ".join(parts) or "False", fits_any_type

    def _equals(self, values: Sequence[object]) -> list[str]:
        """Return equality with a type: in Python True is 1."""
        texts = [value for value in values if isinstance(value, str)]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        parts = [self._among(texts, "type(value) is str")] if texts else []
        if numbers:
            among = self._among(numbers, "(type(value) is int or type(value) is float)")
            is_true_or_false = any(number in (0, 1) for number in numbers)
            parts.append(f"(type(value) is not bool and {among})" if is_true_or_false else among)
        parts += [f"value is {_literal(value)}" for value in values if value is None or isinstance(value, bool)]
        return parts

    def _among(self, values: Sequence[object], is_type: str) -> str:
        if len(values) == 1:
            return f"value == {_literal(values[0])}"
        if len(values) <= _TUPLE_MAX:
            return f"value in ({', '.join(map(_literal, values))})"
        return f"({is_type} and value in {self._constant(frozenset(values))})"

    def edge(self, method: str, operand: object) -> str:
        """`prefix` or `suffix`, also of letters of any case."""
        if isinstance(operand, Members):
            text = fold(str(operand[0][1]))
            return f"(type(value) is str and value.lower().{method}({_literal(text)}))"
        return f"(type(value) is str and value.{method}({_literal(operand)}))"

    def ignore_case(self, operand: object) -> str:
        """`equals-ignore-case`."""
        return f"(type(value) is str and value.lower() == {_literal(fold(str(operand)))})"

    def numeric(self, operand: object) -> str:
        """`numeric`: one comparison, or a range."""
        assert isinstance(operand, list)
        operators = {"=": "==", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
        bounds = " and ".join(
            f"value {operators[name]} {_literal(bound)}"
            for name, bound in zip(operand[::2], operand[1::2], strict=True)
        )
        return f"((type(value) is int or type(value) is float) and {bounds})"

    def anything_but(self, operand: object) -> str:
        """`anything-but`: values, or prefixes, suffixes and letters of any case; nothing where we leave it alone."""
        if isinstance(operand, Members):
            name, values = operand[0]
            values = values if isinstance(values, list) else [values]
            if name == "wildcard":
                return ""
            excluded = " or ".join(_PARTS[name](self, value) for value in values)
        else:
            excluded = " or ".join(self._equals(operand if isinstance(operand, list) else [operand]))
        return f"not ({excluded})"

    def _constant(self, value: object) -> str:
        name = f"constant_{len(self.names)}"
        self.names[name] = value
        return name


_PARTS: Final[dict[str, Callable[[_Writer, object], str]]] = {
    "anything-but": _Writer.anything_but,
    "equals-ignore-case": _Writer.ignore_case,
    "numeric": _Writer.numeric,
    "prefix": lambda writer, operand: writer.edge("startswith", operand),
    "suffix": lambda writer, operand: writer.edge("endswith", operand),
}
"""Operators that are written in place; a field with another one asks the closure of its interpreted conditions."""


def _literal(value: object) -> str:
    """Return a scalar of a pattern as a Python literal in ASCII: the only way from its text into the source."""
    assert value is None or type(value) in (str, int, float, bool), "only scalars are written into source"
    return ascii(value)
