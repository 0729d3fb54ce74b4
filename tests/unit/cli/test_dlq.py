"""`bridge dlq`."""

import json
from dataclasses import replace

import pytest

from bridge.core.invocation import Attempt, AttemptStatus
from tests.unit.api.harness import NOW, event_id


@pytest.fixture
def settles(served):
    """Let every redriven event settle at once: those numbered in the returned set fail again."""
    failing: set[int] = set()
    world = served.world
    redrive = world.letters.redrive

    async def at_once(letter, entry):
        if not await redrive(letter, entry):
            return False
        del world.parked.entries[entry.queue, entry.record.id]
        current = world.letters.letters[letter.queue, letter.id]
        if int(letter.id[:8], 16) in failing:
            world.letters.letters[letter.queue, letter.id] = replace(current, state="dead", dead_at=world.clock.time())
        else:
            await world.letters.resolve(letter.id, queue=letter.queue)
        return True

    world.letters.redrive = at_once
    return failing


def left(served) -> list[int]:
    return sorted(int(key[1][:8], 16) for key in served.world.letters.letters)


def test_list(bridge, served):
    served.world.bury(1, error_message="no\x1b[2J")
    served.world.bury(2, queue="replay:r")

    head, row = bridge("dlq", "list").out.splitlines()

    assert head.split() == ["ID", "DEAD", "SINCE", "SOURCE", "FUNCTION", "WHY", "TRIES", "STATE", "ERROR"]
    assert row.startswith("00000001  ")
    assert row.endswith("RetriesExhausted      3  dead   ValueError: no\\x1b[2J")
    assert [json.loads(line)["queue"] for line in bridge("dlq", "list", "--queue", "*", "--json").out.splitlines()] == [
        "default",
        "replay:r",
    ]
    assert bridge("dlq", "list", "--source", "x").err == "no dead letters match\n"


def test_list_takes_as_many_pages_as_the_limit_needs(bridge, served, monkeypatch):
    monkeypatch.setattr("bridge.cli.dlq._PAGE_MAX", 2)
    for number in range(6):
        served.world.bury(number)

    assert len(bridge("dlq", "list", "--limit", "5", "--json").out.splitlines()) == 5
    assert bridge("dlq", "list", "--limit", "0").code == 2


def test_show(bridge, served):
    attempt = Attempt(
        position=1, request_id=event_id(1), function="hello", number=3, status=AttemptStatus.DEAD, started_at=NOW, error_type="ValueError"
    )  # fmt: skip
    served.world.bury(1, history=(attempt,), response=b'{"errorMessage":"no"}')

    out = bridge("dlq", "show", "00000001").out

    assert "why         RetriesExhausted" in out
    assert "  3  dead" in out
    assert '"errorMessage": "no"' in out
    assert '"n": 1' in out
    assert json.loads(bridge("dlq", "show", "00000001", "--json").out)["event"] == {"n": 1}
    assert bridge("dlq", "show", "ffffffff").code == 1


def test_redrive_says_how_it_went(bridge, served, settles):
    served.world.bury(1)

    found = bridge("dlq", "redrive", "--yes")

    assert (found.code, found.out) == (0, "1 redriven: 1 succeeded, 0 failed again\n")
    assert left(served) == []


def test_what_fails_again_is_one_dead_letter_and_1(bridge, served, settles):
    settles.add(2)
    for number in (1, 2, 3):
        served.world.bury(number)

    found = bridge("dlq", "redrive", "--yes", "--rate", "1000")

    assert (found.code, found.out) == (1, "3 redriven: 2 succeeded, 1 failed again\n")
    assert "bridge dlq list" in found.err
    assert left(served) == [2]
    assert bridge("dlq", "redrive", "--yes", "--json").code == 1


@pytest.mark.parametrize(
    ("args", "redriven"),
    [(["00000001"], [1]), (["00000001", "--id", event_id(3)], [1, 3]), (["--source", "other"], [2]), (["--function", "hello"], [1, 2, 3]),
     (["--where", '{"n":[3]}'], [3]), (["--since", "2026-01-01T00:00:02Z"], [2, 3]), (["--queue", "replay:r"], [4]), (["--queue", "*"], [1, 2, 3, 4]),
     (["00000004"], [4]), ([], [1, 2, 3])],
)  # fmt: skip
def test_selections(bridge, served, settles, args, redriven):
    for number in (1, 2, 3):
        served.world.bury(number, source="other" if number == 2 else "hello")
    served.world.bury(4, queue="replay:r")

    assert bridge("dlq", "redrive", "--dry-run", *args).out.startswith(f"{len(redriven)} dead letter")
    assert left(served) == [1, 2, 3, 4]
    assert bridge("dlq", "redrive", "--yes", *args).code == 0
    assert left(served) == sorted({1, 2, 3, 4} - set(redriven))


def test_without_yes_and_without_a_terminal_nothing_happens(bridge, served, settles):
    served.world.bury(1)

    for verb in ("redrive", "purge"):
        found = bridge("dlq", verb, stdin="y\n")
        assert (found.code, "say --yes" in found.err) == (2, True)
    assert left(served) == [1]


def test_nothing_to_do_is_no_failure(bridge):
    assert (bridge("dlq", "redrive", "--yes").code, bridge("dlq", "purge", "--yes").out) == (
        0,
        "0 dead letters; nothing was deleted\n",
    )


def test_purge(bridge, served):
    for number in (1, 2):
        served.world.bury(number)

    assert bridge("dlq", "purge", "--dry-run").out == "2 dead letters; nothing was deleted\n"
    assert bridge("dlq", "purge", "00000002", "--yes").out == "1 deleted\n"
    assert left(served) == [1]
    assert bridge("dlq", "purge", "ffffffff", "--yes").code == 1


@pytest.mark.parametrize(
    ("args", "code"),
    [(["--rate", "0"], 2), (["--rate", "nan"], 2), (["--where", "{"], 2), (["--to", "a b"], 2), (["--to", "nope"], 1), (["--name", "../x"], 2), (["zz"], 1),
     (["--since", "1h", "--until", "2h"], 2)],
)  # fmt: skip
def test_mistakes_redrive_nothing(bridge, served, settles, args, code):
    served.world.bury(1)

    found = bridge("dlq", "redrive", "--yes", *args)

    assert found.code == code, found.err
    assert left(served) == [1]


def test_ctrl_c_leaves_the_redrive_to_the_daemon(bridge, served, monkeypatch):
    served.world.bury(1)

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("bridge.cli.client.Client._split", interrupted)
    found = bridge("dlq", "redrive", "--yes", "--name", "mend")

    assert (found.code, "redrive mend goes on in the daemon" in found.err) == (130, True)
