"""Event source mappings through the api."""

from dataclasses import replace

import pytest

from bridge.core.errors import MappingNotFound, SourceError
from bridge.core.mapping import EventSourceMapping, MappingState, StartingPosition
from bridge.core.sources import MappingStatus, ShardStatus
from tests.unit.api.harness import NOW


def status(name: str = "orders", *shards: ShardStatus) -> MappingStatus:
    mapping = EventSourceMapping(name=name, source=f"kafka://main/{name}", function="hello", filters=('{"a":[1]}',))
    return MappingStatus(
        mapping=mapping, state=MappingState.ENABLED, reason="USER_INITIATED", result="OK", modified_at=NOW, running=1,
        shards=shards,
    )  # fmt: skip


def shard(number: int, **changes) -> ShardStatus:
    given = {"position": 10 * number, "behind": number, "buffered": 2, "oldest_at": NOW + number, "running": 0}
    return ShardStatus(shard=f"orders-{number}", **(given | changes))


async def test_none(world):
    assert (await world.get("/mappings")).json() == {"mappings": []}


async def test_the_list_sums_up_the_shards(world):
    world.mappings.add(status("orders", shard(1, attempts=3, due_at=NOW, reason="ValueError: no"), shard(2)))
    world.mappings.add(status("clicks"))

    clicks, orders = (await world.get("/mappings")).json()["mappings"]

    assert orders == {
        "name": "orders", "uuid": status().mapping.uuid, "source": "kafka://main/orders", "function": "hello",
        "state": "Enabled", "state_transition_reason": "USER_INITIATED", "last_processing_result": "OK",
        "modified_at": NOW, "running": 1, "shard_count": 2, "behind": 3, "behind_s": None, "oldest_at": NOW + 1,
        "blocked": 1,
    }  # fmt: skip
    assert (clicks["shard_count"], clicks["behind"], clicks["oldest_at"], clicks["blocked"]) == (0, None, None, 0)


async def test_a_lag_of_which_a_part_is_not_known_is_not_known(world):
    world.mappings.add(status("orders", shard(1), shard(2, behind=None)))

    assert (await world.get("/mappings")).json()["mappings"][0]["behind"] is None


async def test_a_lag_in_seconds_is_that_of_the_shard_that_is_furthest_behind(world):
    world.mappings.add(
        status("orders", *(shard(n, behind=None, behind_s=s) for n, s in ((1, 0.5), (2, 90), (3, None))))
    )

    found = (await world.get("/mappings/orders")).json()

    assert (found["behind"], found["behind_s"]) == (None, 90)
    assert [each["behind_s"] for each in found["shards"]] == [0.5, 90, None]


async def test_a_lag_that_is_known_in_sum_is_told_in_sum(world):
    world.mappings.add(replace(status("orders", shard(1, behind=None), shard(2)), behind=7))

    assert (await world.get("/mappings")).json()["mappings"][0]["behind"] == 7
    found = (await world.get("/mappings/orders")).json()
    assert (found["behind"], [each["behind"] for each in found["shards"]]) == (7, [None, 2])
    assert world.mappings.looks == 2


async def test_one_has_its_settings_and_shards(world):
    world.mappings.add(status("orders", shard(1, attempts=3, due_at=NOW + 9, reason="ValueError: no", running=1)))

    found = (await world.get("/mappings/orders")).json()

    assert found["shards"] == [
        {
            "shard": "orders-1", "position": 10, "behind": 1, "behind_s": None, "buffered": 2, "oldest_at": NOW + 1, "running": 1,
            "attempts": 3, "due_at": NOW + 9, "reason": "ValueError: no",
        }
    ]  # fmt: skip
    assert found["settings"]["batch_size"] == 100
    assert found["settings"]["filters"] == ['{"a":[1]}']
    assert found["settings"]["starting_position"] == "TRIM_HORIZON"


async def test_positions_beyond_what_json_numbers_hold_are_text(world):
    world.mappings.add(status("orders", shard(1, position=2**70), shard(2, position=2**53 - 1)))

    found = (await world.get("/mappings/orders")).json()["shards"]

    assert [shard["position"] for shard in found] == [str(2**70), 2**53 - 1]


async def test_pause_and_resume(world):
    world.mappings.add(status())

    assert (await world.post("/mappings/orders/pause")).json()["state"] == "Disabled"
    assert (await world.get("/mappings/orders")).json()["state"] == "Disabled"
    assert (await world.post("/mappings/orders/resume")).json()["state"] == "Enabled"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"position": "TRIM_HORIZON"}, (StartingPosition.TRIM_HORIZON, None)),
        ({"position": "LATEST"}, (StartingPosition.LATEST, None)),
        ({"position": "AT_TIMESTAMP", "timestamp": NOW}, (StartingPosition.AT_TIMESTAMP, NOW)),
        ({"position": "AT_TIMESTAMP", "timestamp": "2026-01-01T00:00:00Z"}, (StartingPosition.AT_TIMESTAMP, NOW)),
    ],
)
async def test_reset(world, body, told):
    world.mappings.add(status("orders", shard(10), shard(2)))

    answer = (await world.post("/mappings/orders/reset", body)).json()

    assert list(answer["marks"].items()) == [("orders-2", -1), ("orders-10", -1)]
    assert world.mappings.resets == [("orders", *told)]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "position: must be TRIM_HORIZON, LATEST or AT_TIMESTAMP"),
        ({"position": "earliest"}, "position: must be TRIM_HORIZON, LATEST or AT_TIMESTAMP"),
        ({"position": "AT_TIMESTAMP"}, "timestamp: belongs to AT_TIMESTAMP, which needs it"),
        ({"position": "LATEST", "timestamp": NOW}, "timestamp: belongs to AT_TIMESTAMP, which needs it"),
        ({"position": "AT_TIMESTAMP", "timestamp": 9e9}, "timestamp: must not be in the future"),
        ({"positon": "LATEST"}, "positon: unknown field; did you mean position?"),
    ],
)
async def test_resets_that_are_refused_move_nothing(world, body, error):
    world.mappings.add(status())

    answer = await world.post("/mappings/orders/reset", body)

    assert (answer.status, answer.error) == (400, error)
    assert world.mappings.resets == []


async def test_what_is_not_there_is_404(world):
    world.mappings.add(status())

    for answer in (await world.get("/mappings/order"), await world.post("/mappings/order/pause")):
        assert (answer.status, answer.error) == (404, "no mapping order; known are orders")
    answer = await world.post("/mappings/orders/stop")
    assert (answer.status, answer.error) == (404, "a mapping can be told to pause, resume, reset")


async def test_what_the_source_refuses_is_a_conflict(world):
    world.mappings.add(status())
    world.mappings.fail_with = SourceError("others consume with group bridge-orders: stop them first")

    answer = await world.post("/mappings/orders/reset", {"position": "LATEST"})

    assert (answer.status, answer.error) == (409, "others consume with group bridge-orders: stop them first")


async def test_a_mapping_that_goes_meanwhile(world):
    world.mappings.add(status())
    world.mappings.fail_with = MappingNotFound("no mapping orders")

    assert (await world.post("/mappings/orders/pause")).status == 404


async def test_fields_that_nobody_knows(world):
    world.mappings.add(status())

    assert (await world.get("/mappings?limit=3")).status == 400
    assert (await world.post("/mappings/orders/pause", {"now": True})).status == 400
    assert world.mappings.statuses["orders"].state is MappingState.ENABLED
