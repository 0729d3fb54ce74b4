"""Schedules of whole daemons: each tick is one event, whenever the daemon is killed; by hand, as a stream, reloaded.

The daemon's wall clock is set on with libfaketime, so that nobody waits for a minute to pass.
"""

import json
import random
import time

import pytest

from tests.fake_clock import FakeClock
from tests.harness import wait_for, write_function
from tests.integration.conftest import TELLING

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MINUTE_S = 60
POLL_S = 0.3
"""Under libfaketime every look at the clock reads a file: a daemon that is asked all the time does little else."""
ROUNDS = 20
CONFIG = """
[functions.telling]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}

[sources.beat]
type = "schedule"
schedule = "cron(* * * * ? *)"
missed = "all"
{function}
"""
STREAM = """
[mappings.read]
source = "beat"
function = "telling"
"""
FUNCTION = 'function = "telling"\n'


@pytest.fixture
def clock(tmp_path):
    return FakeClock(tmp_path)


@pytest.fixture
def config(told, tmp_path):
    code = write_function(tmp_path / "code", TELLING)
    return lambda function=FUNCTION: CONFIG.format(code=code, ledger=told.address, function=function)


def ticks(running):
    """Return the times of the ticks that are stored, in their order."""
    lines = running.admin("GET", "/admin/v1/events/export?source=beat").body.splitlines()
    return sorted(event["delivery_id"] for event in map(json.loads, lines) if event.get("delivery_id"))


def beat(running):
    return running.admin("GET", "/admin/v1/sources/beat").json()


def first_tick(running):
    """Return when it ticks first: it has begun to count, and a kill does not change that."""

    return wait_for(lambda: beat(running)["next_at"], description="the schedule has begun", poll_s=POLL_S)


def minutes(first, last):
    """Return every minute from one to another, epoch seconds, as ticks are named."""
    return [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in range(first, last + 1, MINUTE_S)]


def caught_up(running, first, *, step_s):
    """Return the stored ticks once that of this minute is among them, and every minute that should be.

    `first` is the next tick as it was told after the start: the minute may have passed in between, and does again while
    ticks are waited for.
    """
    (name,) = minutes(*[minute(step_s)] * 2)
    found = wait_for(
        lambda: name in (found := ticks(running)) and found, description="all ticks are stored", poll_s=POLL_S
    )
    expected = minutes(first - MINUTE_S, minute(step_s))
    assert found[0] in expected[:2], f"{found[0]} is not the first, which is {expected[1]} or just before"
    return found, expected[expected.index(found[0]) : expected.index(found[-1]) + 1]


def minute(step_s):
    """Return the minute it is with a daemon whose clock was set on, epoch seconds."""
    return int(time.time() + step_s) // MINUTE_S * MINUTE_S


@pytest.mark.parametrize("step", ["schedule.claimed", "journal.written", "intake.committed", "schedule.stored"])
def test_a_tick_is_stored_once_wherever_the_daemon_is_killed(daemon, clock, config, told, step):
    running = daemon(config(), **clock.environment)
    first = first_tick(running)
    running.kill9()
    clock.step(2 * MINUTE_S)
    running.start(ready=False, BRIDGE_CRASH_AT=step)
    assert running.wait() == 137
    clock.step(4 * MINUTE_S)
    running.restart()
    found, expected = caught_up(running, first, step_s=4 * MINUTE_S)

    assert found == expected
    wait_for(lambda: {event["time"] for event in told()} >= set(found), description="each was handled", poll_s=POLL_S)
    assert {event["detail-type"] for event in told()} == {"Scheduled Event"}


def test_killed_at_any_moment_no_tick_is_lost_and_none_comes_twice(daemon, clock, config, told):
    running = daemon(config(), **clock.environment)
    first = first_tick(running)
    chance = random.Random(5)
    for number in range(1, ROUNDS + 1):
        running.kill9()
        clock.step(2 * number * MINUTE_S)
        running.start(ready=False)
        time.sleep(chance.uniform(0.1, 1.5))  # a start takes half a second or more, its ticks are due at once
    running.kill9()
    running.restart()
    found, expected = caught_up(running, first, step_s=2 * ROUNDS * MINUTE_S)

    assert found == expected
    assert len(found) >= 2 * ROUNDS
    wait_for(lambda: {event["time"] for event in told()} >= set(found), description="each was handled", poll_s=POLL_S)


def test_a_running_daemon_follows_its_clock_on_and_repeats_nothing_back(daemon, clock, config):
    running = daemon(config(), **clock.environment)
    first = first_tick(running)
    clock.step(5 * MINUTE_S)
    found, expected = caught_up(running, first, step_s=5 * MINUTE_S)
    clock.step(-10 * MINUTE_S)
    wait_for(
        lambda: "set back" in beat(running)["trouble"],
        description="it is told that the clock was set back",
        poll_s=POLL_S,
    )

    (line,) = [line for line in running.cli("doctor").stdout.splitlines() if "source beat" in line]
    assert line.startswith("!!")
    assert ticks(running)[: len(found)] == found == expected
    assert len(ticks(running)) <= len(found) + 1, "none but that of a minute that passed before the step"


def test_as_a_stream_ticks_are_records_of_a_mapping(daemon, clock, config, told):
    running = daemon(config("") + STREAM, **clock.environment)
    first_tick(running)
    running.kill9()
    clock.step(3 * MINUTE_S)
    running.restart()
    records = wait_for(lambda: len(found := told.records()) >= 3 and found, description="the mapping has read them")

    assert {record["eventSource"] for record in records} == {"bridge:schedule"}
    assert {record["eventSourceARN"] for record in records} == {"arn:bridge:schedule:us-east-1:000000000000:beat"}
    assert {record["source"] for record in records} == {"aws.events"}
    assert len({record["eventID"] for record in records}) == len(records)


def test_it_is_seen_fired_by_hand_and_changed(daemon, clock, config, told):
    running = daemon(config().replace("* * * * ?", "0 10 1 1 ?"), **clock.environment)
    fired = running.cli("put", "beat", "--at", "2030-01-01T10:00:00Z").stdout.strip()
    wait_for(told, description="it was handled")
    assert [(event["id"], event["time"]) for event in told()] == [(fired, "2030-01-01T10:00:00Z")]

    (listed,) = map(json.loads, running.cli("sources", "list", "--json").stdout.splitlines())
    assert (listed["type"], listed["place"], listed["accepted"]) == ("schedule", "cron(0 10 1 1 ? *)", 1)
    assert listed["next_at"] % MINUTE_S == 0
    assert "schedule: cron(0 10 1 1 ? *)" in running.cli("doctor").stdout

    text = running.file.read_text()
    running.file.write_text(text.replace("cron(0 10 1 1 ? *)", "rate(1 day)"))
    assert running.admin("POST", "/admin/v1/reload", {}).status == 200
    wait_for(lambda: len(told()) == 2, description="a new rate ticks at once")
    running.file.write_text(text.replace("cron(0 10 1 1 ? *)", "cron(0 25 1 1 ? *)"))
    refused = running.cli("reload")
    assert (refused.returncode, "sources.beat.schedule: at character 8: hours is 0 to 23" in refused.stderr) == (
        2,
        True,
    )
