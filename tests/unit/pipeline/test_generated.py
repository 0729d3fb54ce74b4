"""Generated matchers answer as the interpreter does, and no text of a pattern becomes code."""

import ast
import builtins
import json
import random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bridge.pipeline.filters import PatternInvalid, compile_pattern
from bridge.pipeline.generated import FIELDS_MAX, SEGMENTS_MAX, generate, matcher_source

TEXTS = st.sampled_from(["", "a", "b", "ab", "Ab", "aB", "ba", "a*b", "ß", "SS", "10.0.0.1", "5"])
NUMBERS = st.integers(-2, 6) | st.sampled_from([0.0, 1.0, 2.5, -0.0, 1e300, 12345678901234567890, -5e9])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
NAMES = st.sampled_from(["a", "b", "c", "a.b", "b.c", "a.b.c", "", ".a", "$or", "d"])
EVENTS = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS,
        lambda inner: st.dictionaries(NAMES, inner, max_size=4) | st.lists(inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)
OPERANDS = st.one_of(
    st.booleans().map(lambda is_there: {"exists": is_there}),
    st.sampled_from(["prefix", "suffix"]).flatmap(
        lambda name: (TEXTS | TEXTS.map(lambda text: {"equals-ignore-case": text})).map(lambda operand: {name: operand})
    ),
    TEXTS.map(lambda text: {"equals-ignore-case": text}),
    st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), st.integers(-2, 6) | st.just(2.5)).map(
        lambda pair: {"numeric": list(pair)}
    ),
    st.tuples(st.sampled_from([">", ">="]), st.integers(-2, 1), st.sampled_from(["<", "<="]), st.integers(2, 6)).map(
        lambda four: {"numeric": list(four)}
    ),
    (TEXTS | NUMBERS | st.lists(TEXTS, min_size=1, max_size=8) | st.lists(NUMBERS, min_size=1, max_size=8)).map(
        lambda operand: {"anything-but": operand}
    ),
    st.tuples(
        st.sampled_from(["prefix", "suffix", "equals-ignore-case", "wildcard"]), st.lists(TEXTS, min_size=1, max_size=3)
    ).map(lambda pair: {"anything-but": {pair[0]: pair[1]}}),
    st.sampled_from(["a*", "*b", "a*b", "*"]).map(lambda text: {"wildcard": text}),
    st.just({"cidr": "10.0.0.0/24"}),
)
CONDITIONS = st.lists(SCALARS | OPERANDS, min_size=1, max_size=9)
FIELDS = st.recursive(
    CONDITIONS, lambda inner: st.dictionaries(NAMES.filter(lambda name: name != "$or"), inner, min_size=1, max_size=3)
)
OBJECTS = st.dictionaries(NAMES.filter(lambda name: name != "$or"), FIELDS, min_size=1, max_size=4)
PATTERNS = OBJECTS | st.tuples(OBJECTS, st.lists(OBJECTS, min_size=2, max_size=3)).map(
    lambda pair: {**pair[0], "$or": pair[1]}
)


def compiled(pattern):
    try:
        return compile_pattern(json.dumps(pattern))
    except PatternInvalid:
        assume(False)
        raise


@settings(max_examples=200, deadline=None)
@given(PATTERNS, st.lists(EVENTS, min_size=1, max_size=4))
@example({"a": [1]}, [{"a": True}])
@example({"a": [0, False]}, [{"a": False}, {"a": 0.0}])
@example({"a": [{"anything-but": [1]}]}, [{"a": True}, {"a": 1.0}, {"a": {}}, {"a": []}, {"a": [{"a": 2}]}])
@example({"a": {"b": [1]}}, [{"a": {}, "a.b": 1}, {"a.b": 1}, {"a": [{"b": 1}]}])
@example({"a": [None], "a.b": [{"exists": False}]}, [{"a": None}, {"a": {"b": None}}, {}])
@example({"a": [1], "a.b": [{"exists": False}]}, [{"a": 1}, {"a": {"b": 1}}, {"a": [1, {"b": 1}]}])
@pytest.mark.slow
def test_generated_and_interpreted_agree(pattern, events):
    made = compiled(pattern)

    for event in [*events, *(part for event in events for part in event.values())]:
        assert made.interpret(event) == made.matches(event), (pattern, event)


# --- a faster generator, for quantity ---------------------------------------------------------------------------------

PLAIN = [None, True, False, 0, 1, 2, 2.5, 1.0, -1, "", "a", "b", "ab", "Ab", "a*b", "10.0.0.1"]
WORDS = ["a", "b", "c", "d", "e", "f", "a", "b", "c", "a.b", "", "a.b.c"]


def some_condition(dice):
    word = dice.choice(["", "a", "b", "Ab"])
    return dice.choice([
        dice.choice(PLAIN), dice.choice(PLAIN), {"exists": dice.random() < 0.5}, {"prefix": word},
        {"suffix": {"equals-ignore-case": word}}, {"equals-ignore-case": word}, {"anything-but": dice.choice([word, 1, 0])},
        {"anything-but": dice.sample(["a", "b", "ab", "c", "d", "e", "f", "g"], dice.randint(1, 8))},
        {"anything-but": dice.sample([0, 1, 2, 3, 4, 5, 6, 2.5], dice.randint(1, 8))},
        {"anything-but": {"prefix": word or "a"}}, {"anything-but": {"wildcard": "a*"}}, {"wildcard": "*b"},
        {"numeric": [dice.choice(["=", "<", ">="]), 1]}, {"numeric": [">", 0, "<=", 2]}, {"cidr": "10.0.0.0/8"},
    ])  # fmt: skip


def some_pattern(dice, depth=0):
    pattern = {}
    for _ in range(dice.randint(1, 3 - depth // 2)):
        if depth < 2 and dice.random() < 0.4:
            pattern[dice.choice(WORDS)] = some_pattern(dice, depth + 1)
        else:
            pattern[dice.choice(WORDS)] = [some_condition(dice) for _ in range(dice.choice([1, 1, 1, 2, 3]))]
    if depth < 2 and dice.random() < 0.15:
        pattern["$or"] = [some_pattern(dice, depth + 1) for _ in range(2)]
    return pattern


def event_for(dice, pattern):
    """Return an event of the pattern's build, with a flaw here and there: most tests get as far as the last field."""
    event = {}
    for name, inner in pattern.items():
        luck = dice.random()
        if luck < 0.04:
            continue
        if name == "$or":
            event.update(event_for(dice, dice.choice(inner)))
            continue
        value = event_for(dice, inner) if isinstance(inner, dict) else dice.choice([*filter(is_plain, inner), *PLAIN])
        if luck > 0.96:
            value = dice.choice([{}, [], None, {"a": value}, dice.choice(PLAIN)])
        if luck > 0.9:
            value = [value, dice.choice(PLAIN)] if luck > 0.94 else [value]
        event[name] = value
    if dice.random() < 0.05:
        event[dice.choice(WORDS)] = dice.choice(PLAIN)
    return event


def is_plain(condition):
    return not isinstance(condition, dict)


PAIRS = 50


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
@pytest.mark.slow
def test_they_agree_on_events_of_the_same_build(seed):
    dice = random.Random(seed)
    for _ in range(PAIRS):
        pattern = some_pattern(dice)
        made = compile_pattern(json.dumps(pattern))
        for event in (event_for(dice, pattern), event_for(dice, pattern), event_for(dice, some_pattern(dice))):
            assert made.interpret(event) == made.matches(event), (pattern, event)


def test_the_generator_meets_both_answers_and_the_interpreter():
    """A generator that never matches proves nothing."""
    dice = random.Random(7)
    answers = {True: 0, False: 0}
    handed = 0
    for _ in range(200):
        pattern = some_pattern(dice)
        rules = compile_pattern(json.dumps(pattern)).rules
        event = event_for(dice, pattern)
        asked = []
        matches = generate(rules, interpret=lambda event, asked=asked: bool(asked.append(event)))
        answer = matches(event)
        if asked:
            handed += 1
        else:
            answers[answer] += 1

    assert min(answers[True], answers[False], handed) > 20, (answers, handed)


# --- no text becomes code ---------------------------------------------------------------------------------------------

NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.If, ast.IfExp, ast.Return, ast.Assign, ast.Call, ast.Attribute,
    ast.Subscript, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Tuple, ast.Name, ast.Constant, ast.expr_context, ast.boolop,
    ast.unaryop, ast.cmpop,
)  # fmt: skip
ATTRIBUTES = {"startswith", "endswith", "lower", "keys", "isdisjoint"}
NASTY = st.text() | st.sampled_from(
    [
        "'",
        '"',
        "\\",
        "'''",
        "\n",
        "\r",
        "\u2028",
        "\ud800",
        "{0}",
        "%s",
        "'+__import__('os').system('x')+'",
        "a\\'b",
        "\0",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        NASTY,
        st.lists(
            NASTY
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.sampled_from(["prefix", "suffix", "equals-ignore-case", "anything-but"]).flatmap(
                lambda name: NASTY.filter(bool).map(lambda text: {name: text})
            ),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=3,
    )
)
@pytest.mark.slow
def test_what_is_generated_holds_words_of_ours_and_literals(pattern):
    rules = compiled(pattern).rules
    source, names = matcher_source(rules)
    tree = ast.parse(source)
    known = {*names, "interpret", "event", "value", "matches", *(f"rule_{i}" for i in range(len(rules)))}

    assert source.isascii()
    for node in ast.walk(tree):
        assert isinstance(node, NODES), ast.dump(node)
        if isinstance(node, ast.Name):
            assert node.id in known or node.id.startswith("object_")
        if isinstance(node, ast.Attribute):
            assert node.attr in ATTRIBUTES
    allowed = {*pattern, *(part for name in pattern for part in name.split(".")), None, True, False}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    operands = {
        text
        for leaf in pattern.values()
        for each in leaf
        for text in (each.values() if isinstance(each, dict) else [each])
    }
    assert texts <= allowed | operands | {str(each).lower() for each in operands} | spellings(pattern)


def spellings(pattern):
    """Return every run of the parts of a path, joined again."""
    found = set()
    for name in pattern:
        parts = name.split(".")
        found |= {".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    return found


def test_generated_code_reaches_no_builtin():
    matches = compile_pattern('{"a": [1]}').matches

    assert {} == matches.__globals__["__builtins__"]
    assert not {*matches.__globals__} & {*dir(builtins)} - {
        "type",
        "dict",
        "list",
        "str",
        "int",
        "float",
        "bool",
        "__builtins__",
    }


# --- what is left to the interpreter ----------------------------------------------------------------------------------


def spied(pattern):
    """Return a pattern's generated matcher and the events it hands on."""
    handed = []

    def interpret(event):
        handed.append(event)
        return False

    matches = generate(compile_pattern(json.dumps(pattern)).rules, interpret=interpret)
    assert matches is not None
    return matches, handed


@pytest.mark.parametrize(
    "event",
    [{"a": [{"b": 1}]}, {"a": {"b": [1]}}, {"a.b": 1}, {"a": {"b": 1}, "a.b": 2}, [], None, "x"],
)
def test_the_interpreter_is_asked_where_more_than_one_value_may_be_meant(event):
    matches, handed = spied({"a": {"b": [1]}})

    matches(event)

    assert [event] == handed


@pytest.mark.parametrize(
    "event", [{"a": {"b": 1}}, {"a": {"b": 2}}, {"a": 1}, {}, {"a": {"b": 1}, "c": [{"d": 1}]}, {"a": {"b": {"c": []}}}]
)
def test_the_interpreter_is_left_alone_otherwise(event):
    matches, handed = spied({"a": {"b": [1]}})

    matches(event)

    assert [] == handed


def test_a_huge_pattern_is_interpreted():
    many = compile_pattern(json.dumps({f"f{i}": [1] for i in range(FIELDS_MAX + 1)}))
    deep = compile_pattern(json.dumps({".".join("a" * (SEGMENTS_MAX + 1)): [1]}))

    assert many.matches == many.interpret
    assert deep.matches == deep.interpret
    assert many.matches({f"f{i}": 1 for i in range(FIELDS_MAX + 1)})
