"""MQTT's topic filters, against the specification's own examples and against each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.topics import apart, covers, filter_mistake, joined, matches, overlap, overlapping, uncovered

LEVEL = st.sampled_from(["a", "b", "", "$x"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=4).map("/".join).filter(bool)
FILTER = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(LEVEL | st.just("+"), max_size=3),
    st.sampled_from([[], ["#"], ["a"]]),
).filter(lambda text: text and not filter_mistake(text))


def hits(text, topic):
    return matches(text.split("/"), topic)


@pytest.mark.parametrize(
    ("text", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("#", "any/topic", True),
        ("#", "$SYS/broker", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/broker", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("a/b", "a/B", False),
    ],
)
def test_matches_as_the_specification_says(text, topic, expected):
    assert hits(text, topic) is expected


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "not empty"),
        ("a/#/b", "# may only be the last level; here it is level 2 of 3"),
        ("a/b#", "# stands alone in a level; here it is in 'b#', level 2"),
        ("a+/b", "+ stands alone in a level; here it is in 'a+', level 1"),
        ("$share/g", "$share/GROUP/FILTER"),
        ("$share//a", "$share/GROUP/FILTER"),
        ("$share/g/", "$share/GROUP/FILTER"),
        ("$share/+/a", "neither + nor #"),
        ("$share/g/a/#/b", "level 2 of 3"),
        ("a\0b", "a character that no topic can have"),
        ("x" * 65_536, "longer than 65,535 bytes"),
    ],
)
def test_a_bad_filter_is_told(text, mistake):
    assert mistake in filter_mistake(text)


@pytest.mark.parametrize("text", ["#", "+", "/", "a//b", "+/+/#", "$share/g/a/+/#", "$SYS/#", "ü/+"])
def test_a_good_filter_is_let_through(text):
    assert filter_mistake(text) == ""


@given(FILTER, FILTER, TOPIC)
def test_covering_and_overlapping_agree_with_matching(one, other, topic):
    if covers(one, other) and hits(other, topic):
        assert hits(one, topic)
    if hits(one, topic) and hits(other, topic):
        assert overlap(one, other)
        assert overlap(other, one)
    if overlap(one, other):
        both = joined(one, other)
        assert covers(both, one)
        assert covers(both, other)


@given(st.lists(FILTER, min_size=1, max_size=5), TOPIC)
def test_filters_set_apart_take_the_same_topics_once(filters, topic):
    kept = uncovered(filters)
    single = apart(kept)

    assert any(hits(each, topic) for each in kept) == any(hits(each, topic) for each in filters)
    assert not overlapping(single)
    if any(hits(each, topic) for each in filters):
        assert sum(hits(each, topic) for each in single) == 1


def test_a_shared_filter_is_never_left_out():
    assert uncovered(["a/#", "$share/g/a/b", "a/b", "a/#"]) == ("a/#", "$share/g/a/b")
