"""Our encoder writes what AWS's runtime writes: checked against its own library, simplejson."""

import collections
import decimal
import enum
import json
import math
from typing import Any, NamedTuple

import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st

from bridge.runtime import encoding


class Point(NamedTuple):
    x: Any
    y: Any


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Reference(simplejson.JSONEncoder):
    """awslambdaric 4.2.2, lambda_runtime_marshaller.Encoder."""

    def __init__(self, *, ensure_ascii):
        super().__init__(use_decimal=False, ensure_ascii=ensure_ascii, allow_nan=True)

    def default(self, value):
        if isinstance(value, decimal.Decimal):
            return math.nan if value.is_nan() else simplejson.raw_json.RawJSON(str(value))
        return super().default(value)


def outcome(work):
    try:
        return work()
    except (TypeError, ValueError) as error:
        return type(error), str(error)


VALUES = [
    {"a": 1, "b": [1, 2.5, None, True, 'é\u2028\x7f"\\']},
    decimal.Decimal("1.10"),
    {"x": decimal.Decimal("1E+5"), "y": [decimal.Decimal("NaN")]},
    Point(1, [Point(2, 3)]),
    {"p": Point(1, (2,))},
    {"b": b"xy"},
    {1: 2, None: 3, 1.5: 5, False: 6},
    {Colour.RED: Colour.RED},
    [], {}, (), {"e": [], "f": {}},
    float("inf"), -0.0, 2**70, 1e300, (1, 2), Text("x"), {Text("k"): Text("v")},
    collections.OrderedDict(a=1), collections.deque([1]),
    {"s": {1}}, {(1, 2): 3}, object, bytearray(b"x"), 1j,
]  # fmt: skip


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_as_awss_runtime(value, ascii_only):
    expected = outcome(lambda: Reference(ensure_ascii=ascii_only).encode(value))

    assert outcome(lambda: encoding.make_encoder(ascii_only=ascii_only)(value)) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(json_values)
def test_as_awss_runtime_for_any_value(value):
    expected = outcome(lambda: Reference(ensure_ascii=False).encode(value))

    assert outcome(lambda: encoding.make_encoder(ascii_only=False)(value)) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
        max_leaves=20,
    )
)
def test_loads_reads_what_json_writes(value):
    assert encoding.loads(json.dumps(value)) == value
    assert encoding.loads(f" {json.dumps(value)}\n") == value


@pytest.mark.parametrize("text", ["", " ", "{", "{}x", "nul", "NaN", "[Infinity]", "01", "'a'", "\ufeff{}", "[1,]"])
def test_loads_refuses_what_is_no_json(text):
    with pytest.raises(ValueError):
        encoding.loads(text)


def test_a_value_shared_but_not_circular():
    inner = {"a": 1}

    assert encoding.make_encoder(ascii_only=True)([inner, inner]) == '[{"a": 1}, {"a": 1}]'


def test_a_circle_is_refused():
    circle = {}
    circle["self"] = [circle]

    with pytest.raises(ValueError, match="Circular reference detected"):
        encoding.make_encoder(ascii_only=True)(circle)


def test_too_deep_is_refused():
    value = []
    for _ in range(100_000):
        value = [value]

    with pytest.raises((RecursionError, ValueError)):
        encoding.make_encoder(ascii_only=True)(value)


def test_many_containers_are_no_depth():
    assert json.loads(encoding.make_encoder(ascii_only=True)([[] for _ in range(5000)])) == [[] for _ in range(5000)]
