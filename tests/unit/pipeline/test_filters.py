"""Filter patterns: the recorded cases, the rules that surprise, every way to be invalid, and the limits."""

import base64
import functools
import json
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.pipeline.filters import PatternInvalid, compile_pattern, matches_event

CASES = json.loads((Path(__file__).parent / "golden" / "eventbridge-pattern-cases.json").read_bytes())["cases"]


def matches(pattern, event) -> bool:
    text = pattern if isinstance(pattern, str) else json.dumps(pattern)
    return compile_pattern(text).matches(event)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_check_25_case_recorded_on_aws(case):
    text = json.dumps(case["pattern"])
    if case["expected"] == "invalid":
        with pytest.raises(PatternInvalid):
            compile_pattern(text)
        return

    assert (case["expected"] == "match") == compile_pattern(text).matches(case["event"])


def test_check_25_all_cases_are_there():
    assert 78 == len(CASES)


# --- the guide's own examples and the rules that surprise -------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ({"a.b": [1]}, {"a": {"b": 1}}, True),
        ({"a": {"b": [1]}}, {"a.b": 1}, True),
        ({"a.b": {"c": [1]}}, {"a": {"b.c": 1}}, True),
        ({"a": [1]}, {"a": True}, False),
        ({"a": [True]}, {"a": 1}, False),
        ({"a": ["1"]}, {"a": 1}, False),
        ({"a": [1]}, {"a": "1"}, False),
        ({"a": [None]}, {"a": None}, True),
        ({"a": [None]}, {}, False),
        ({"a": [""]}, {"a": ""}, True),
        ({"a": [""]}, {"a": None}, False),
        ({"a": [3.5]}, {"a": 3.5}, True),
        ({"a": [123456789012]}, {"a": 123456789012}, True),
        ({"a": ["x"]}, {"a": ["y", "x"]}, True),
        ({"a": ["x"]}, {"a": [["y"], ["x"]]}, True),
        ({"a": ["x"]}, {"a": {"x": "x"}}, False),
        ({"a": [{"exists": True}]}, {"a": {"b": 1}}, False),
        ({"a": [{"exists": True}]}, {"a": None}, True),
        ({"a": [{"exists": False}]}, {"a": []}, True),
        ({"a": {"b": [{"exists": False}]}}, {}, True),
        ({"a": [{"exists": False}, "x"]}, {"a": "x"}, True),
        ({"a": [{"exists": False}, "x"]}, {}, True),
        ({"a": [{"exists": False}, "x"]}, {"a": "y"}, False),
        ({"a": [{"anything-but": "x"}]}, {}, False),
        ({"a": [{"anything-but": ["x"]}]}, {"a": 5}, True),
        ({"a": [{"anything-but": [5]}]}, {"a": "5"}, True),
        ({"a": [{"anything-but": [5]}]}, {"a": 5.0}, False),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": 5}, True),
        ({"a": [{"anything-but": {"wildcard": "a*"}}]}, {"a": "abc"}, False),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}, False),
        ({"a": [{"numeric": [">=", 0, "<", 5]}]}, {"a": 0}, True),
        ({"a": [{"numeric": ["=", 3.018e2]}]}, {"a": 301.8}, True),
        ({"a": [{"numeric": ["<", 5]}]}, {"a": True}, False),
        ({"a": [{"numeric": ["<", 5]}]}, {"a": None}, False),
        ({"a": [{"prefix": "us-"}]}, {"a": "us-east-1"}, True),
        ({"a": [{"prefix": "5"}]}, {"a": 5}, False),
        ({"a": [{"suffix": {"equals-ignore-case": ".PNG"}}]}, {"a": "x.png"}, True),
        ({"a": [{"equals-ignore-case": "ÄB"}]}, {"a": "äb"}, True),
        ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.1.1"}, False),
        ({"a": [{"cidr": "2001:db8::/32"}]}, {"a": "2001:db8::1"}, True),
        ({"a": [{"cidr": "2001:db8::/32"}]}, {"a": "10.0.0.1"}, False),
        ({"a": [{"cidr": "10.0.0.7/24"}]}, {"a": "10.0.0.1"}, True),
        ({"a": [{"cidr": "0.0.0.0/0"}]}, {"a": "no address"}, False),
        ({"a": [{"wildcard": "a*b"}]}, {"a": "a--b"}, True),
        ({"a": [{"wildcard": "a*b"}]}, {"a": "ab"}, True),
        ({"a": [{"wildcard": "ab*ba"}]}, {"a": "aba"}, False),
        ({"a": [{"wildcard": r"a\*b"}]}, {"a": "a*b"}, True),
        ({"a": [{"wildcard": r"a\*b"}]}, {"a": "axb"}, False),
        ({"a": [{"wildcard": r"a\\*"}]}, {"a": "a\\x"}, True),
        ({"a": [{"wildcard": "*"}]}, {"a": ""}, True),
        ({"a": [{"wildcard": "a*b*c*d*e*f"}]}, {"a": "a1b2c3d4e5f"}, True),
        ({"": [1]}, {"": 1}, True),
        ({"": {"a": [1]}}, {"": {"a": 1}}, True),
    ],
)
def test_match(pattern, event, expected):
    assert expected == matches(pattern, event)


def test_check_23_what_has_fields_below_is_no_field_itself():
    assert matches({"a": [{"exists": False}]}, {"a": {"b": 1}})


def test_of_a_leaf_written_twice_the_last_one_counts():
    assert matches('{"a": [1], "a": [2]}', {"a": 2})
    assert not matches('{"a": [1], "a": [2]}', {"a": 1})


def test_check_21_a_parent_written_twice_keeps_both_children():
    text = '{"dynamodb": {"Keys": {"id": [1]}}, "dynamodb": {"NewImage": {"n": [2]}}}'

    assert matches(text, {"dynamodb": {"Keys": {"id": 1}, "NewImage": {"n": 2}}})
    assert not matches(text, {"dynamodb": {"Keys": {"id": 1}, "NewImage": {"n": 3}}})
    assert not matches(text, {"dynamodb": {"NewImage": {"n": 2}}})


def test_two_fields_must_hold_in_the_same_element():
    pattern = {"employees": {"firstName": ["Anna"], "lastName": ["Smith"]}}

    assert not matches(
        pattern, {"employees": [{"firstName": "Anna", "lastName": "Doe"}, {"firstName": "Bob", "lastName": "Smith"}]}
    )
    assert matches(pattern, {"employees": [{"firstName": "Bob"}, {"firstName": "Anna", "lastName": "Smith"}]})


def test_elements_are_kept_apart_through_nested_arrays():
    pattern = {"a": {"b": {"c": [1], "d": [2]}, "e": [3]}}

    assert matches(pattern, {"a": [{"b": [{"c": 0}, {"c": 1, "d": 2}], "e": 3}]})
    assert not matches(pattern, {"a": [{"b": [{"c": 1, "d": 2}], "e": 4}, {"b": [{"c": 1}, {"d": 2}], "e": 3}]})


def test_fields_of_different_arrays_are_independent():
    assert matches({"a": {"x": [1]}, "b": {"y": [2]}}, {"a": [{"x": 0}, {"x": 1}], "b": [{"y": 2}, {"y": 3}]})


def test_a_missing_field_is_judged_in_the_chosen_element():
    pattern = {"a": {"b": [1], "c": [{"exists": False}]}}

    assert matches(pattern, {"a": [{"b": 1}, {"c": 2}]})
    assert not matches(pattern, {"a": [{"b": 1, "c": 2}]})


def test_or_needs_one_side_and_the_rest():
    pattern = {"source": ["s"], "$or": [{"a": [1]}, {"b": [2], "c": [3]}]}

    assert matches(pattern, {"source": "s", "a": 1})
    assert matches(pattern, {"source": "s", "b": 2, "c": 3})
    assert not matches(pattern, {"source": "s", "b": 2})
    assert not matches(pattern, {"a": 1})


def test_or_inside_or_and_beside_it():
    pattern = '{"$or": [{"a": [1]}, {"b": [1], "$or": [{"c": [1]}, {"d": [1]}]}], "$or": [{"x": [1]}, {"y": [1]}]}'

    assert matches(pattern, {"a": 1, "y": 1})
    assert matches(pattern, {"b": 1, "d": 1, "x": 1})
    assert not matches(pattern, {"b": 1, "x": 1})
    assert not matches(pattern, {"a": 1})


def test_or_with_operator_names_is_a_field_of_that_name():
    assert matches({"$or": [{"prefix": "a"}, {"suffix": "z"}]}, {"$or": "abc"})
    assert matches({"$or": {"a": [1]}}, {"$or": {"a": 1}})
    assert matches({"$or": ["x"]}, {"$or": "x"})


@pytest.mark.parametrize("event", [None, 5, "x", [], [{"a": 1}], True])
def test_what_is_no_object_never_matches(event):
    assert not matches({"a": [1, {"exists": False}]}, event)


# --- invalid patterns -------------------------------------------------------------------------------------------------

INVALID = [
    ("", "not JSON"),
    ("null", "a pattern is a JSON object"),
    ('"x"', "a pattern is a JSON object"),
    ("[]", "a pattern is a JSON object"),
    ("{}", "empty object"),
    ('{"a": NaN}', "not JSON"),
    ('{"a": {}}', "a: an empty object"),
    ('{"k": "v"}', "k: must be an object or an array"),
    ('{"k": []}', "k: an empty array"),
    ('{"a": {"b": 5}}', "a.b: must be"),
    ('{"a": [[1]]}', "a: an array inside"),
    ('{"a": [1e999]}', "a: the number"),
    ('{"a": [{}]}', "exactly one operator"),
    ('{"a": [{"prefix": "x", "suffix": "y"}]}', "exactly one operator"),
    ('{"a": [{"Prefix": "x"}]}', "unknown operator"),
    ('{"a": [{"exists": "true"}]}', "exists"),
    ('{"a": [{"prefix": 5}]}', "takes a string"),
    ('{"a": [{"prefix": {"suffix": "x"}}]}', "equals-ignore-case"),
    ('{"a": [{"suffix": null}]}', "takes a string"),
    ('{"a": [{"anything-but": []}]}', "takes a string"),
    ('{"a": [{"anything-but": ["x", 5]}]}', "takes a string"),
    ('{"a": [{"anything-but": true}]}', "takes a string"),
    ('{"a": [{"anything-but": {"prefix": ""}}]}', "empty string"),
    ('{"a": [{"anything-but": {"prefix": []}}]}', "empty array"),
    ('{"a": [{"anything-but": {"numeric": [">", 5]}}]}', "takes values"),
    ('{"a": [{"anything-but": {"prefix": {"equals-ignore-case": "x"}}}]}', "takes a string"),
    ('{"a": [{"numeric": [">", "5"]}]}', "a number"),
    ('{"a": [{"numeric": [">", true]}]}', "a number"),
    ('{"a": [{"numeric": ["!=", 5]}]}', "unknown comparison"),
    ('{"a": [{"numeric": ["<", 5, ">", 0]}]}', "lower bound first"),
    ('{"a": [{"numeric": [">", 5, "<", 5]}]}', "less than"),
    ('{"a": [{"numeric": [">", 5000000001]}]}', "-5e9"),
    ('{"a": [{"numeric": [[">"], 5]}]}', "unknown comparison"),
    ('{"a": [{"numeric": [">", 1e999]}]}', "-5e9"),
    ('{"a": [{"cidr": "10.0.0.0"}]}', "number of bits"),
    ('{"a": [{"cidr": "10.0.0.0/33"}]}', "range of addresses"),
    ('{"a": [{"cidr": "10.0.0.0/255.0.0.0"}]}', "number of bits"),
    ('{"a": [{"wildcard": "a**"}]}', "in a row"),
    ('{"a": [{"wildcard": "a\\\\x"}]}', "backslash"),
    ('{"a": [{"wildcard": "a\\\\"}]}', "backslash"),
    ('{"a": [{"wildcard": "******"}]}', "in a row"),
    ('{"a": [{"wildcard": "1*2*3*4*5*6*"}]}', "too complex"),
    ('{"$or": [{"a": [1]}]}', "unknown operator"),
    ('{"$or": [{"a": [1]}, [1]]}', "unknown operator"),
    ('{"$or": [{}, {"a": [1]}]}', "empty object"),
    ("{" + ",".join(f'"$or":[{{"a{i}":[1]}},{{"b{i}":[1]}}]' for i in range(11)) + "}", "combinations"),
    ('{"a": ["' + "x" * 4096 + '"]}', "4096"),
    ('{"a":' * 150 + "[1]" + "}" * 150, "nested deeper"),
    ('{"a":' * 800 + "1" + "}" * 90, "not JSON"),
    (b'{"a": ["\xff"]}', "UTF-8"),
]


@pytest.mark.parametrize(("text", "why"), INVALID, ids=range(len(INVALID)))
def test_invalid_pattern_says_where_and_why(text, why):
    with pytest.raises(PatternInvalid) as caught:
        compile_pattern(text)

    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_any_text_compiles_or_is_refused_in_one_line(text):
    try:
        compile_pattern(text)
    except PatternInvalid as error:
        assert "\n" not in str(error)


SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b", "ab"])
EVENTS = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_size=3,
)
CONDITIONS = st.lists(
    SCALARS
    | st.sampled_from(
        [{"exists": True}, {"exists": False}, {"anything-but": "a"}, {"prefix": "a"}, {"numeric": ["<", 3]}]
    ),
    min_size=1,
    max_size=2,
)
PATTERNS = st.dictionaries(
    st.sampled_from(["a", "b", "a.b", "a.c", "b.a", "a.b.c"]), CONDITIONS, min_size=1, max_size=4
)


def flattened(value, path=None, chain=(), counter=None):
    counter = counter if counter is not None else [0]
    if isinstance(value, dict):
        for key, member in value.items():
            yield from flattened(member, key if path is None else f"{path}.{key}", chain, counter)
    elif isinstance(value, list):
        counter[0] += 1
        number = counter[0]
        for index, element in enumerate(value):
            inner = (*chain, (number, index)) if isinstance(element, dict | list) else chain
            yield from flattened(element, path, inner, counter)
    else:
        yield path, value, chain


alone = functools.cache(compile_pattern)


def naive(pattern, event) -> bool:
    """Every combination of leaves, tried one after the other: slow, and plainly right."""
    leaves = list(flattened(event))

    def holds(conditions, value):
        return any(alone(json.dumps({"x": [c]})).matches({"x": value}) for c in conditions if c != {"exists": False})

    def walk(paths, chosen):
        if not paths:
            return True
        path, rest = paths[0], paths[1:]
        here = [(v, c) for p, v, c in leaves if p == path and all(chosen.get(a, i) == i for a, i in c)]
        if {"exists": False} in pattern[path] and not here and walk(rest, chosen):
            return True
        return any(holds(pattern[path], v) and walk(rest, {**chosen, **dict(c)}) for v, c in here)

    return walk(sorted(pattern), {})


@settings(max_examples=500, deadline=None)
@given(PATTERNS, EVENTS)
@pytest.mark.slow
def test_agrees_with_a_naive_matcher(pattern, event):
    assert naive(pattern, event) == matches(pattern, event)


# --- bounds -----------------------------------------------------------------------------------------------------------


MOMENT_S = 10.0
"""Processor time far above what is linear (milliseconds), and far below what is not (minutes at the least)."""


def took(pattern, event) -> float:
    compiled = compile_pattern(json.dumps(pattern))
    begin = time.thread_time()
    compiled.matches(event)
    return time.thread_time() - begin


@pytest.mark.slow
def test_a_hostile_wildcard_text_costs_little():
    assert took({"a": [{"wildcard": "*a*a*a*a*b"}]}, {"a": "a" * 200_000}) < MOMENT_S


@pytest.mark.slow
def test_a_large_array_of_objects_costs_linear_time():
    event = {"a": [{"b": 1} if i % 2 else {"c": 2} for i in range(20_000)]}

    assert took({"a": {"b": [1], "c": [2]}}, event) < MOMENT_S


@pytest.mark.slow
def test_many_independent_arrays_do_not_multiply():
    event = {name: [{"x": 1, "y": 1} for _ in range(200)] for name in "abcdefgh"}
    event["z"] = 2

    assert took({**{name: {"x": [1], "y": [1]} for name in "abcdefgh"}, "z": [1, 3]}, event) < MOMENT_S
    event["z"] = [{"x": 1}, {"y": 1}]
    assert took({**{name: {"x": [1], "y": [1]} for name in "abcdefgh"}, "z": {"x": [1], "y": [1]}}, event) < MOMENT_S


def test_an_event_nested_deeper_than_the_stack_is_read():
    event: object = 1
    for _ in range(5000):
        event = [event]

    assert matches({"a": [1]}, {"a": event})


# --- stored events ----------------------------------------------------------------------------------------------------


def stored(**fields) -> bytes:
    return orjson.dumps({"version": "2.0", "routeKey": "$default", "isBase64Encoded": False, **fields})


def test_the_json_body_of_a_stored_event_is_looked_into():
    pattern = compile_pattern('{"body": {"type": ["paid"]}}')

    assert matches_event(pattern, stored(body='{"type": "paid"}'))
    assert not matches_event(pattern, stored(body='{"type": "open"}'))
    assert not matches_event(pattern, stored(body="type=paid"))
    assert matches_event(pattern, stored(body=base64.b64encode(b'{"type":"paid"}').decode(), isBase64Encoded=True))
    assert matches_event(pattern, b'{"body": {"type": "paid"}}')


def test_a_pattern_on_the_body_itself_sees_its_text():
    assert matches_event(compile_pattern('{"body": [{"wildcard": "*paid*"}]}'), stored(body='{"type": "paid"}'))
    assert not matches_event(compile_pattern('{"body": [{"exists": false}]}'), stored(body='{"type": "paid"}'))


@pytest.mark.parametrize("payload", [b"", b"not json", b"5", b"[]", b'"x"', b"\xff"])
def test_a_payload_that_is_no_object_never_matches(payload):
    assert not matches_event(compile_pattern('{"a": [{"exists": false}]}'), payload)


# --- explanations -----------------------------------------------------------------------------------------------------


def test_explain_lists_each_field():
    told = compile_pattern('{"a": [1, {"prefix": "x"}], "b": {"c": [2]}}').explain({"a": 1, "b": {"c": [3, 4]}})

    assert not told.matched
    assert [("a", True, ("1",)), ("b.c", False, ("3", "4"))] == [(f.path, f.matched, f.found) for f in told.fields]
    assert '[1, {"prefix": "x"}]' == told.fields[0].wanted


def test_explain_tells_of_different_elements():
    told = compile_pattern('{"a": {"b": [1], "c": [2]}}').explain({"a": [{"b": 1}, {"c": 2}]})

    assert not told.matched
    assert "same element" in told.note
    assert compile_pattern('{"a": [1]}').explain([]).note
