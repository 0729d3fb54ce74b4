"""`bridge sources`."""

import json

import pytest

from tests.unit.cli.test_put import add


@pytest.fixture
def sources(served):
    sources = served.world.sources
    sources.add("hook", accepted=1204, format="apigateway-v2", methods=["POST"])
    return sources


def test_none(bridge, served):
    found = bridge("sources", "list")

    assert (found.code, found.out, found.err) == (0, "", "no push sources; the configuration has no [sources.X]\n")


def test_the_list_has_what_is_asked_first(bridge, served, sources):
    add(served.world, "clicks", "hook")

    assert bridge("sources", "list").out.splitlines() == [
        "NAME  TYPE     FROM   TO             ACCEPTED",
        "hook  webhook  /hook  hello, clicks     1,204",
    ]


def test_ticks_and_troubles_have_columns_where_there_are_some(bridge, sources):
    sources.add(
        "nightly",
        kind="schedule",
        place="at(2020-01-01T00:00:00)",
        next_at=None,
        last_at=None,
        function="",
        trouble="disk full",
    )
    lines = bridge("sources", "list").out.splitlines()

    assert lines[0].split() == ["NAME", "TYPE", "FROM", "TO", "ACCEPTED", "NEXT", "TROUBLE"]
    assert lines[2].split("  ")[-2:] == ["none any more", "disk full"]


def test_show_tells_of_one(bridge, sources):
    sources.add("nightly", kind="schedule", place="rate(1 hour)", next_at=1_772_359_200, last_at=1_772_355_600)
    found = bridge("sources", "show", "nightly").out

    assert "from             rate(1 hour)" in found
    assert "next tick        " in found
    assert "last tick        " in found
    assert "methods          POST" in bridge("sources", "show", "hook").out


def test_json(bridge, sources):
    listed = json.loads(bridge("sources", "list", "--json").out)

    assert (listed["name"], listed["mappings"]) == ("hook", [])
    assert json.loads(bridge("sources", "show", "hook", "--json").out) == listed


def test_an_unknown_one(bridge, sources):
    found = bridge("sources", "show", "nobody")

    assert (found.code, found.err) == (1, "bridge: no source nobody; known are hook\n")
