"""`bridge mappings`."""

import json
import time
from dataclasses import replace

import pytest

from bridge.core.errors import SourceError
from bridge.core.mapping import StartingPosition
from tests.unit.api.harness import NOW
from tests.unit.api.test_mappings import shard, status


@pytest.fixture
def mappings(served):
    return served.world.mappings


@pytest.fixture
def orders(mappings):
    blocked = shard(1, oldest_at=time.time() - 90, attempts=3, due_at=NOW, reason="ValueError: no\x1b[2J", running=1)
    mappings.add(status("orders", blocked, shard(2, position=-1, behind=1203, oldest_at=None)))
    return mappings


def test_none(bridge):
    found = bridge("mappings", "list")

    assert (found.code, found.out) == (0, "")
    assert found.err == "no mappings; the configuration has no [mappings.X]\n"


def test_list(bridge, orders):
    orders.add(status("clicks"))

    head, clicks, row = bridge("mappings", "list").out.splitlines()

    assert head.split() == ["NAME", "SOURCE", "FUNCTION", "STATE", "LAST", "RESULT", "LAG", "OLDEST", "BLOCKED"]
    assert clicks.split() == ["clicks", "kafka://main/clicks", "hello", "Enabled", "OK", "?"]
    assert row.split() == ["orders", "kafka://main/orders", "hello", "Enabled", "OK", "1,204", "90", "s", "1"]
    assert [json.loads(line)["name"] for line in bridge("mappings", "list", "--json").out.splitlines()] == [
        "clicks",
        "orders",
    ]


def test_list_says_why_where_there_is_something_to_say(bridge, orders):
    orders.add(replace(status("clicks"), reason="kafka main: no topic clicks"))

    head, clicks, row = bridge("mappings", "list").out.splitlines()

    assert head.endswith("BLOCKED  WHY")
    assert clicks.endswith("  kafka main: no topic clicks")
    assert row.endswith(" 1")


def test_a_lag_is_in_seconds_where_records_are_not_counted(bridge, mappings):
    mappings.add(status("orders", shard(1, behind=None, behind_s=90, oldest_at=None)))

    assert " 90 s" in bridge("mappings", "list").out.splitlines()[1]
    assert " 90 s" in bridge("mappings", "show", "orders").out.splitlines()[-1]


def test_show(bridge, orders):
    out = bridge("mappings", "show", "orders").out
    *fields, _, head, first, second = out.splitlines()

    assert "state        Enabled" in fields
    assert "lag          1,204" in fields
    assert "oldest       90 s" in fields
    assert "settings     filters=['{\"a\":[1]}']" in fields
    assert head.split()[:7] == ["SHARD", "MARK", "LAG", "READ", "RUNNING", "OLDEST", "TRIES"]
    assert first.split()[:8] == ["orders-1", "10", "1", "2", "1", "90", "s", "3"]
    assert first.endswith("ValueError: no\\x1b[2J")
    assert "ago)" in first
    assert second.split() == ["orders-2", "none", "1,203", "2"]
    assert json.loads(bridge("mappings", "show", "orders", "--json").out)["shards"][0]["attempts"] == 3


def test_one_that_is_not_there_fails_and_names_those_that_are(bridge, orders):
    for args in (["show", "order"], ["pause", "order"], ["reset", "order", "--position", "LATEST", "--yes"]):
        found = bridge("mappings", *args)
        assert (found.code, found.err) == (1, "bridge: no mapping order; known are orders\n")


def test_pause_and_resume(bridge, orders):
    assert bridge("mappings", "pause", "orders").out == "orders: Disabled\n"
    assert "state        Disabled" in bridge("mappings", "show", "orders").out
    assert json.loads(bridge("mappings", "resume", "orders", "--json").out)["state"] == "Enabled"


@pytest.mark.parametrize(
    ("position", "question"),
    [
        ("LATEST", "to LATEST: 1,204 records behind the marks will not be processed?"),
        ("trim_horizon", "to TRIM_HORIZON: everything the source still has is processed again; 1,204 records are behind the marks now?"),
        ("2026-01-01T00:00:00Z", ": what came since then is processed, again too; 1,204 records are behind the marks now?"),
    ],
)  # fmt: skip
def test_reset_says_what_it_will_move_and_does_nothing_unasked(bridge, orders, position, question):
    found = bridge("mappings", "reset", "orders", "--position", position, stdin="y\n")

    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("bridge: Move the marks of 2 shards of orders to ")
    assert f"{question} Nobody is here to ask: say --yes\n" in found.err
    assert orders.resets == []


def test_reset_of_a_mapping_that_does_not_read(bridge, mappings):
    mappings.add(status("orders"))

    found = bridge("mappings", "reset", "orders", "--position", "LATEST")

    assert found.err.startswith(
        "bridge: Move its marks (not known while it does not read) of orders to LATEST: "
        "an unknown number of records behind the marks will not be processed?"
    )


@pytest.mark.parametrize(
    ("position", "told"),
    [
        ("LATEST", (StartingPosition.LATEST, None)),
        ("TRIM_HORIZON", (StartingPosition.TRIM_HORIZON, None)),
        ("2026-01-01T00:00:00Z", (StartingPosition.AT_TIMESTAMP, NOW)),
    ],
)
def test_reset_with_yes(bridge, orders, position, told):
    found = bridge("mappings", "reset", "orders", "--position", position, "--yes")

    assert found.code == 0
    assert found.out.startswith("orders: 2 shards moved to ")
    assert orders.resets == [("orders", *told)]


def test_reset_as_json(bridge, orders):
    found = bridge("mappings", "reset", "orders", "--position", "LATEST", "--yes", "--json")

    assert json.loads(found.out) == {"name": "orders", "marks": {"orders-1": -1, "orders-2": -1}}


@pytest.mark.parametrize("args", [[], ["--position", "soon"], ["--position", "2999-01-01"], ["--position", ""]])
def test_usage_mistakes_are_2_and_move_nothing(bridge, orders, args):
    assert bridge("mappings", "reset", "orders", "--yes", *args).code == 2
    assert orders.resets == []


def test_a_source_that_refuses_is_1(bridge, orders):
    orders.fail_with = SourceError("others consume with group bridge-orders")

    found = bridge("mappings", "reset", "orders", "--position", "LATEST", "--yes")

    assert (found.code, found.err) == (1, "bridge: others consume with group bridge-orders\n")


def test_without_a_daemon_it_is_3(alone):
    assert alone("mappings", "list").code == 3


def test_names_and_positions_are_completed(bridge, orders, served, monkeypatch):
    from click.shell_completion import ShellComplete

    from bridge.cli.main import cli

    monkeypatch.setattr("bridge.cli.arguments._COMPLETION_S", 20.0)

    def completed(args: list[str], typed: str) -> list[str]:
        completion = ShellComplete(cli, {"obj": None}, "bridge", "_BRIDGE_COMPLETE")
        return [item.value for item in completion.get_completions(["--state", str(served.state), *args], typed)]

    assert completed(["mappings", "show"], "or") == ["orders"]
    assert completed(["mappings", "reset", "orders", "--position"], "la") == ["LATEST"]
    assert served.world.mappings.looks == 0
    shards = completed(["replay", "--mapping", "orders", "--shard"], "")
    assert shards == completed(["replay", "--mapping=orders", "--key", "k", "--shard"], "orders-")
    assert shards == [shard.shard for shard in served.world.mappings.statuses["orders"].shards] != []
    assert completed(["replay", "--mapping", "nope", "--shard"], "") == []
    assert completed(["replay", "--shard"], "") == []
