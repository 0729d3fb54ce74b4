"""What the daemon says of its mappings and connections: from what it knows, without trying anything."""

import pytest

from bridge.core.connection import KafkaConnection
from bridge.core.mapping import NO_RECORDS, USER_ACTION, EventSourceMapping, MappingState
from bridge.core.sources import MappingStatus
from bridge.daemon.health import Health
from bridge.testing.clock import ManualClock

AWAY = "no broker of main answers"


def status(name="orders", *, state=MappingState.ENABLED, reason=USER_ACTION, source="kafka://main/orders", **more):
    mapping = EventSourceMapping(name=name, source=source, function="handle", **more)
    return MappingStatus(mapping=mapping, state=state, reason=reason, result=NO_RECORDS, modified_at=0.0)


class World:
    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.clock = ManualClock()
        connections = {"main": KafkaConnection(name="main", bootstrap_servers=("a:1",))}
        self.health = Health(mappings=lambda: self.statuses, connections=lambda: connections, clock=self.clock)

    async def passes(self, seconds):
        for _ in range(seconds):
            self.health.observe()
            await self.clock.advance(1.0)

    def fact(self, name):
        return {each: (ok, detail) for each, ok, detail in self.health.facts()}[name]


async def test_trouble_is_told_once_it_has_lasted_for_a_minute():
    world = World(status(reason=AWAY), status("other"))
    await world.passes(60)
    assert world.health.troubles() == []
    await world.passes(1)
    assert world.health.troubles() == [f"mapping orders is in trouble for 61 s: {AWAY}"]

    world.statuses[0] = status()
    await world.passes(1)
    world.statuses[0] = status(reason=AWAY)
    await world.passes(30)
    assert world.health.troubles() == [], "it counts anew"


@pytest.mark.parametrize("state", [MappingState.DISABLED, MappingState.FAILED, MappingState.UPDATING])
async def test_what_does_not_try_to_run_is_in_no_trouble(state):
    world = World(status(state=state, reason="whatever"))
    await world.passes(100)
    assert world.health.troubles() == []


def test_each_mapping_says_its_state_and_why():
    world = World(
        status(),
        status("away", reason=AWAY),
        status("failed", state=MappingState.FAILED, reason="ValueError: no"),
        status("paused", state=MappingState.DISABLED),
    )

    assert world.fact("mapping orders") == (True, "Enabled, reads kafka://main/orders for handle")
    assert world.fact("mapping away") == (False, f"Enabled, reads kafka://main/orders for handle: {AWAY}")
    assert world.fact("mapping failed") == (False, "Failed, reads kafka://main/orders for handle: ValueError: no")
    ok, text = world.fact("mapping paused")
    assert ok
    assert "bridge mappings resume paused" in text


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], (True, "no mapping uses it")),
        ([status(source="local://x?as=kafka")], (True, "no mapping uses it")),
        ([status(), status("more")], (True, "reached and let in: mapping orders, more reads")),
        ([status(), status("more", reason=AWAY)], (False, f"mapping more: {AWAY}")),
        (
            [status(reason="FUNCTION_CONFIG_NOT_VALID: Function not found: handle")],
            (True, "reached and let in: mapping orders reads"),
        ),
        ([status(state=MappingState.DISABLED)], (True, "not in use now: mapping orders is Disabled")),
        (
            [status(source="local://x?as=kafka", on_failure="kafka://main/failed")],
            (True, "not in use yet: failures of mapping orders go there"),
        ),
    ],
)
def test_a_connection_is_known_by_the_mappings_that_read_from_it(statuses, expected):
    assert World(*statuses).fact("connection main") == expected
