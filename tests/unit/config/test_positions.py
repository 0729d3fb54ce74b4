"""The line of every key, found in whatever TOML allows."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.config.positions import key_lines

TEXT = '''\
# comment [not.a.table]
a = 1
b.c . "d e" = [  # x = 1
    1, "]", [2,
    3],
    { k = """
] } # "
""", 'l.m' = { n = '#' } },
]
"qu\\u0061" = """x
y = 1
\\""" z = 2"""
[t] # [u]
s = \'\'\'
[no]
it's'\'\'\'
d = 1979-05-27 07:32:00

  [ t . u ]
f = -1.5e3
[[arr]]
x = 1
[[arr]]
x = 2
[arr.sub]
y = 3
[[arr.deep]]
z = 4
'''


def test_every_form():
    lines = key_lines(TEXT)

    assert lines == {
        (): 1,
        ("a",): 2,
        ("b",): 3, ("b", "c"): 3, ("b", "c", "d e"): 3,
        ("b", "c", "d e", 0): 4, ("b", "c", "d e", 1): 4, ("b", "c", "d e", 2): 4,
        ("b", "c", "d e", 2, 0): 4, ("b", "c", "d e", 2, 1): 5,
        ("b", "c", "d e", 3): 6, ("b", "c", "d e", 3, "k"): 6,
        ("b", "c", "d e", 3, "l.m"): 8, ("b", "c", "d e", 3, "l.m", "n"): 8,
        ("qua",): 10,
        ("t",): 13, ("t", "s"): 14, ("t", "d"): 17, ("t", "u"): 19, ("t", "u", "f"): 20,
        ("arr",): 21, ("arr", 0): 21, ("arr", 0, "x"): 22, ("arr", 1): 23, ("arr", 1, "x"): 24,
        ("arr", 1, "sub"): 25, ("arr", 1, "sub", "y"): 26,
        ("arr", 1, "deep"): 27, ("arr", 1, "deep", 0): 27, ("arr", 1, "deep", 0, "z"): 28,
    }  # fmt: skip


def paths(value: object, loc: tuple = ()) -> set[tuple]:
    found = {loc}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found |= paths(item, (*loc, key))
    return found


def test_finds_what_tomllib_reads():
    assert set(key_lines(TEXT)) == paths(tomllib.loads(TEXT))


SCALARS = (
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12) | st.datetimes() | st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=5))
@pytest.mark.slow
def test_finds_what_tomllib_reads_in_anything_tomlkit_writes(data):
    import tomlkit

    text = tomlkit.dumps(data)
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # tomlkit's own mistake

    assert set(key_lines(text)) == paths(read)


def test_a_megabyte_takes_no_time():
    text = "".join(f"key_{n} = [{{ a = '{'x' * 10}' }}, 1]\n" for n in range(8_000))

    assert key_lines(text)[("key_7999", 0, "a")] == 8_000
