"""Kinesis and DynamoDB Streams in memory under the whole engine: reshards, limits, faults, and where reading begins."""

from itertools import pairwise
from typing import Any

import pytest

from bridge.aws.raw import RAW
from bridge.core.errors import SourceError
from bridge.core.mapping import StartingPosition
from bridge.core.stream import StreamRange
from bridge.testing.clock import settle
from bridge.testing.shards import MemoryDynamoDb, MemoryKinesis
from bridge.util import telemetry
from tests.contract.sources import Listener
from tests.unit.sources.pull.shards_world import LATEST, ShardsWorld, once

S0, S1, S2, S3, S4 = (f"shardId-{number:012d}" for number in range(5))


def numbers(*values: int) -> list[bytes]:
    return [b"%d" % value for value in values]


def values(world: ShardsWorld) -> list[Any]:
    return [value for _, value in world.seen]


# --- resharding -----------------------------------------------------------------------------------


async def test_children_begin_when_all_of_their_parent_is_finished() -> None:
    async with ShardsWorld() as world:
        world.function.duration_s = 5
        world.service.put(S0, numbers(1, 2, 3))
        one, other = world.service.split(S0)
        world.service.put(one, numbers(4))
        world.service.put(other, numbers(5))
        await world.advance(3)
        assert [call.ended for call in world.function.calls] == [False]
        assert not world.stored()[S0].has_ended

        await world.advance(20)

        assert values(world)[:3] == [1, 2, 3]
        assert sorted(values(world)[3:]) == [4, 5]
        assert world.stored()[S0].has_ended
        assert {shard.shard for shard in world.worker.shards()} == {one, other}


async def test_a_merged_shard_begins_when_both_parents_are_finished() -> None:
    async with ShardsWorld(shards=2) as world:
        world.function.script = lambda call, _: fail_while(call, 2 if world.clock.monotonic() < 30 else None)
        world.service.put(S0, numbers(1))
        world.service.put(S1, numbers(2))
        child = world.service.merge(S0, S1)
        world.service.put(child, numbers(3))
        await world.advance(29)
        assert (1, 3) not in [(1, value) for value in values(world)]
        assert world.stored()[S0].has_ended

        await world.advance(60)

        assert values(world)[-2:] == [2, 3]


def fail_while(call: Any, value: int | None) -> None:
    from tests.unit.pipeline.streams.world import Boom
    from tests.unit.sources.pull.shards_world import records

    if value is not None and any(found == value for _, found in records(call)):
        raise Boom("not yet")


@pytest.mark.parametrize("kind", ["kinesis", "dynamodb"])
async def test_reshards_one_after_the_other_while_nobody_reads_keep_their_order(kind: str) -> None:
    async with ShardsWorld(kind=kind) as world:
        world.service.put(S0, numbers(1))
        await world.advance(2)
        await world.stop()
        world.service.put(S0, numbers(2))
        one, other = world.service.split(S0)
        world.service.put(one, numbers(3))
        child = world.service.merge(one, other) if kind == "kinesis" else world.service.split(one)[0]
        world.service.put(child, numbers(4))
        last, _ = world.service.split(child)
        world.service.put(last, numbers(5))

        await world.start()
        await world.advance(20)

        assert values(world) == [1, 2, 3, 4, 5]


async def test_a_daemon_that_dies_behind_the_end_of_a_shard_goes_on_with_those_that_follow() -> None:
    async with ShardsWorld() as world:
        world.service.put(S0, numbers(1))
        await world.advance(2)
        one, _ = world.service.split(S0)
        world.service.fails = lambda operation, _: "InternalFailure" if operation == "ListShards" else None
        await world.advance(5)
        assert world.stored()[S0].has_ended
        assert set(world.stored()) == {S0}
        world.service.put(one, numbers(2))
        await world.crash()
        world.service.fails = lambda *_: None

        await world.start()
        await world.advance(5)

        assert values(world) == [1, 2]


async def test_the_marks_of_shards_that_are_gone_are_forgotten_once_their_children_have_begun() -> None:
    async with ShardsWorld() as world:
        await world.advance(1)
        one, other = world.service.split(S0)
        await world.advance(5)
        assert set(world.stored()) == {S0, one, other}

        world.service.unlist(S0)
        await world.advance(31)

        assert set(world.stored()) == {one, other}
        await world.stop()
        world.service.put(one, numbers(1))
        await world.start()
        await world.advance(3)
        assert values(world) == [1]


async def test_a_shard_that_retention_took_unread_ends_and_is_counted() -> None:
    lost = telemetry.RECORDS_LOST.labels(mapping="m")
    before = lost._value.get()
    async with ShardsWorld() as world:
        await world.advance(1)
        await world.stop()
        world.service.put(S0, numbers(1))
        one, _ = world.service.split(S0)
        world.service.put(one, numbers(2))
        world.service.unlist(S0)

        await world.start()
        await world.advance(5)

        assert values(world) == [2]
        assert lost._value.get() == before + 1


async def test_shards_are_listed_page_by_page() -> None:
    async with ShardsWorld(shards=5, per_page=2) as world:
        for number in range(5):
            world.service.put(f"shardId-{number:012d}", numbers(number))
        await world.advance(3)

        assert sorted(values(world)) == [0, 1, 2, 3, 4]


async def test_a_shard_that_has_ended_is_followed_at_once_not_after_half_a_minute() -> None:
    async with ShardsWorld() as world:
        await world.advance(2)
        one, _ = world.service.split(S0)
        world.service.put(one, numbers(1))
        await world.advance(4)

        assert values(world) == [1]


async def test_shards_that_appear_without_parents_are_found_within_half_a_minute() -> None:
    async with ShardsWorld(starting_position=LATEST) as world:
        await world.advance(2)
        world.service.put(world.service.add(), numbers(1))
        await world.advance(32)

        assert values(world) == [1]


# --- where it begins ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kinesis", "dynamodb"])
@pytest.mark.parametrize("before", [0, 3])
async def test_from_the_latest_on_nothing_is_lost_by_a_restart_before_the_first_record(kind: str, before: int) -> None:
    world = ShardsWorld(kind=kind, starting_position=LATEST)
    world.service.put(S0, numbers(*range(before)))
    await world.advance(10)
    await world.start()
    await world.advance(2)
    await world.crash()
    world.service.put(S0, numbers(7))
    await world.advance(100)

    await world.start()
    await world.advance(3)
    await world.stop()

    assert values(world) == [7]


async def test_from_the_latest_on_closed_shards_are_passed_over() -> None:
    world = ShardsWorld(starting_position=LATEST)
    world.service.put(S0, numbers(1))
    one, other = world.service.split(S0)
    world.service.put(other, numbers(2))
    await world.advance(60)
    async with world:
        world.service.put(one, numbers(3))
        await world.advance(3)

        assert values(world) == [3]


async def test_from_a_time_on() -> None:
    world = ShardsWorld()
    world.service.put(S0, numbers(1))
    await world.advance(100)
    at = world.clock.time()
    world.service.put(S0, numbers(2))
    one, _ = world.service.split(S0)
    world.service.put(one, numbers(3))
    world.mapping = ShardsWorld(starting_position=StartingPosition.AT_TIMESTAMP, starting_position_timestamp=at).mapping
    async with world:
        await world.advance(5)

        assert values(world) == [2, 3]


async def test_check_20_committed_marks_win_over_the_starting_position() -> None:
    world = ShardsWorld()
    async with world:
        world.service.put(S0, numbers(1))
        await world.advance(2)
        await world.stop()
        world.service.put(S0, numbers(2))
        world.mapping = ShardsWorld(starting_position=LATEST).mapping
        await world.start()
        await world.advance(2)

        assert values(world) == [1, 2]


async def test_a_stream_that_was_made_anew_is_read_from_its_beginning() -> None:
    async with ShardsWorld(starting_position=LATEST) as world:
        world.service.put(S0, numbers(1))
        await world.advance(2)
        await world.stop()
        world.service = MemoryKinesis(world.clock)
        world.service.put(S0, numbers(2))

        await world.start()
        await world.advance(2)

        assert values(world) == [1, 2]


async def test_a_stream_that_is_made_anew_while_it_is_read_is_read_from_its_beginning() -> None:
    async with ShardsWorld(starting_position=LATEST) as world:
        world.service.put(S0, numbers(1))
        await world.advance(2)
        world.service.make_anew()
        world.service.put(S0, numbers(2))

        await world.advance(10)

        assert values(world) == [1, 2]


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_table_s_next_stream_is_begun_when_all_of_the_one_before_is_finished(*, is_stopped: bool) -> None:
    """Neither is lost: not what the disabled one still has, not what the next one got meanwhile."""
    async with ShardsWorld(kind="dynamodb") as world:
        assert isinstance(world.service, MemoryDynamoDb)
        world.service.put(S0, numbers(1))
        await world.advance(2)
        first = world.service.arn
        if is_stopped:
            await world.stop()
        else:
            world.function.duration_s = 20
        world.service.put(S0, numbers(2))
        world.service.enable_anew()
        world.service.put(S1, numbers(3))
        if is_stopped:
            await world.start()
        await world.advance(120)

        assert values(world) == [1, 2, 3]
        arns = [record["eventSourceARN"] for call in world.function.calls for record in call.event["Records"]]
        assert arns == [first, first, world.service.arn]


async def test_a_disabled_stream_that_is_gone_gives_way_to_the_next_one() -> None:
    async with ShardsWorld(kind="dynamodb") as world:
        assert isinstance(world.service, MemoryDynamoDb)
        world.service.put(S0, numbers(1))
        await world.advance(2)
        await world.stop()
        world.service.put(S0, numbers(2))
        world.service.enable_anew()
        world.service.disabled.clear()
        world.service.put(S1, numbers(3))
        await world.start()
        await world.advance(5)

        assert values(world) == [1, 3]


async def test_a_replay_does_not_turn_the_live_reader_to_another_stream() -> None:
    async with ShardsWorld(kind="dynamodb") as world:
        assert isinstance(world.service, MemoryDynamoDb)
        world.function.duration_s = 5
        world.service.put(S0, numbers(1))
        await world.advance(0.5)
        world.service.put(S0, numbers(2))
        world.service.enable_anew()
        world.service.put(S1, numbers(3))

        await read_part(world, StreamRange())
        await world.advance(120)

        assert values(world) == [1, 2, 3]


async def test_another_stream_begins_as_the_mapping_says() -> None:
    async with ShardsWorld(starting_position=LATEST) as world:
        world.service.put(S0, numbers(1))
        await world.advance(2)
        await world.stop()
        world.service = MemoryKinesis(world.clock, name="others")
        world.service.put(S0, numbers(2))
        await world.advance(5)

        await world.start()
        world.service.put(S0, numbers(3))
        await world.advance(2)

        assert values(world) == [1, 3]


async def test_the_event_names_the_streams_own_arn() -> None:
    async with ShardsWorld() as world:
        world.service.put(S0, numbers(1))
        await world.advance(2)

        assert isinstance(world.service, MemoryKinesis)
        assert world.function.calls[0].event["Records"][0]["eventSourceARN"] == world.service.arn


# --- limits ---------------------------------------------------------------------------------------


def reads(world: ShardsWorld, shard: str) -> list[float]:
    return [
        at
        for at, operation, arguments in world.service.log
        if operation == "GetRecords" and arguments["ShardIterator"].startswith(shard)
    ]


async def test_an_idle_shard_is_read_once_a_second() -> None:
    async with ShardsWorld() as world:
        await world.advance(20)

        assert 18 <= len(reads(world, S0)) <= 21
        assert world.service.calls["GetShardIterator"] == 1


async def test_a_dynamodb_shard_is_read_four_times_a_second() -> None:
    async with ShardsWorld(kind="dynamodb") as world:
        await world.advance(10)

        assert 35 <= len(reads(world, S0)) <= 41


async def test_how_far_behind_kinesis_says_that_a_shard_is() -> None:
    world = ShardsWorld()
    world.service.records_max = 1
    world.service.put(S0, numbers(*range(40)))
    await world.clock.advance(100)
    async with world:
        await world.advance(2)
        (shard,) = world.worker.shards()
        assert shard.behind is None
        assert shard.behind_s is not None
        assert 100 <= shard.behind_s <= 103

        await world.advance(15)
        assert [shard.behind_s for shard in world.worker.shards()] == [0.0]


@pytest.mark.parametrize("kind", ["kinesis", "dynamodb"])
async def test_no_more_shards_than_the_mapping_s_maximum_concurrency_run_at_once(kind: str) -> None:
    async with ShardsWorld(kind=kind, shards=4, maximum_concurrency=2) as world:
        world.function.duration_s = 3
        for number, shard in enumerate((S0, S1, S2, S3)):
            world.service.put(shard, numbers(number))
        await world.advance(12)

        assert sorted(values(world)) == [0, 1, 2, 3]
        assert world.function.running_max == 2


async def test_a_shard_that_is_behind_is_read_as_often_as_the_service_allows() -> None:
    world = ShardsWorld(batch_size=10_000)
    world.service.records_max = 10
    world.service.put(S0, numbers(*range(200)))
    async with world:
        await world.advance(6, step_s=0.05)

        times = reads(world, S0)
        assert len(values(world)) == 200
        assert min(later - earlier for earlier, later in pairwise(times)) >= 0.2 - 1e-9
        assert times[15] <= 15 * 0.2 + 0.1


async def test_two_mebibytes_a_second_are_read_of_a_shard() -> None:
    world = ShardsWorld(batch_size=10_000)
    world.service.records_max = 4
    world.service.put(S0, [b'"' + b"x" * 500_000 + b'"'] * 40)
    async with world:
        await world.advance(12, step_s=0.05)

        assert len(values(world)) == 40
        assert reads(world, S0)[9] >= 9 * (4 * 500_000 / 2**21) * 0.98


async def test_shards_are_read_side_by_side_but_not_all_at_once() -> None:
    world = ShardsWorld(shards=100)
    running = most = 0

    async def page(self: Any, **arguments: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await world.clock.sleep(0.1)
            return await original(**arguments)
        finally:
            running -= 1

    assert isinstance(world.service, MemoryKinesis)
    original = world.service.get_records
    world.service.get_records = page.__get__(world.service)  # type: ignore[method-assign]
    async with world:
        for number in range(100):
            world.service.put(f"shardId-{number:012d}", numbers(number))
        await world.advance(3, step_s=0.05)

        assert sorted(values(world)) == list(range(100))
        assert most == 32


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kinesis", "dynamodb"])
async def test_an_iterator_that_expired_is_renewed_behind_the_last_record(kind: str) -> None:
    async with ShardsWorld(kind=kind) as world:
        world.service.put(S0, numbers(1))
        await world.advance(2)
        world.service.fails = once("GetRecords", "ExpiredIteratorException")
        world.service.put(S0, numbers(2))
        await world.advance(3)

        assert values(world) == [1, 2]
        kinds = [a["ShardIteratorType"] for _, operation, a in world.service.log if operation == "GetShardIterator"]
        assert kinds == ["TRIM_HORIZON", "AFTER_SEQUENCE_NUMBER"]


async def test_a_shard_that_was_paused_for_longer_than_an_iterator_lives_goes_on() -> None:
    world = ShardsWorld(batch_size=10)
    async with world:
        world.function.duration_s = 700
        world.service.records_max = 2000
        world.service.put(S0, numbers(*range(9000)))
        await world.advance(690, step_s=5)
        world.function.duration_s = 0
        await world.advance(60, step_s=0.5)

        assert values(world) == list(range(9000))


async def test_a_throttled_shard_waits_by_itself_and_says_so_in_the_end() -> None:
    world = ShardsWorld(shards=2)

    def fails(operation: str, arguments: Any) -> str | None:
        is_throttled = operation == "GetRecords" and arguments["ShardIterator"].startswith(S0)
        return "ProvisionedThroughputExceededException" if is_throttled else None

    world.service.fails = fails
    async with world:
        world.service.put(S0, numbers(1))
        world.service.put(S1, numbers(2))
        await world.advance(20)

        assert values(world) == [2]
        waits = [later - earlier for earlier, later in pairwise(reads(world, S0))]
        assert waits[0] >= 1
        assert all(later > earlier * 1.3 for earlier, later in pairwise(waits))
        assert "ProvisionedThroughputExceeded" in world.worker.in_trouble

        world.service.fails = lambda *_: None
        await world.advance(40)
        assert values(world) == [2, 1]
        assert world.worker.in_trouble == ""


@pytest.mark.parametrize(
    "code", ["InternalFailure", "AccessDeniedException", "ExpiredTokenException", "LimitExceededException"]
)
@pytest.mark.parametrize("operation", ["GetRecords", "GetShardIterator", "ListShards"])
async def test_what_fails_for_a_while_loses_nothing(code: str, operation: str) -> None:
    world = ShardsWorld()
    async with world:
        world.service.put(S0, numbers(1))
        await world.advance(2)
        world.service.fails = once(operation, code, times=4)
        world.service.put(S0, numbers(2))
        one, _ = world.service.split(S0)
        world.service.put(one, numbers(3))
        await world.advance(90)

        assert values(world) == [1, 2, 3]
        assert world.worker.in_trouble == ""


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
async def test_an_answer_that_is_none_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    async with ShardsWorld() as world:
        rightly, asked = world.service.get_records, 0

        async def wrongly(**arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            return {RAW: body} if asked <= 5 else await rightly(**arguments)

        monkeypatch.setattr(world.service, "get_records", wrongly)
        world.service.put(S0, numbers(1))
        await world.advance(20)
        assert "200 without records" in world.worker.in_trouble
        await world.advance(60)

        assert values(world) == [1]


async def test_a_stream_that_is_missing_is_said_in_one_line_and_found_when_it_is_there() -> None:
    world = ShardsWorld()
    world.service.is_deleted = True
    async with world:
        await world.advance(1)
        assert world.worker.in_trouble == "Stream not found: kinesis orders"

        world.service.is_deleted = False
        world.service.put(S0, numbers(1))
        await world.advance(70)

        assert values(world) == [1]


async def test_a_stream_that_is_deleted_while_it_is_read_is_said_in_one_line() -> None:
    async with ShardsWorld() as world:
        await world.advance(2)
        world.service.is_deleted = True
        await world.advance(3)

        assert world.worker.in_trouble == "Stream not found: kinesis orders"


async def test_what_dynamodb_has_taken_is_counted_and_the_rest_is_read() -> None:
    lost = telemetry.RECORDS_LOST.labels(mapping="m")
    before = lost._value.get()
    async with ShardsWorld(kind="dynamodb") as world:
        world.service.put(S0, numbers(1))
        await world.advance(1)
        await world.stop()
        world.service.put(S0, numbers(2, 3, 4))
        world.service.trim(S0, 3)

        await world.start()
        await world.advance(2)

        assert values(world) == [1, 4]
        assert lost._value.get() == before + 1


async def test_a_store_that_cannot_keep_marks_is_said_and_nothing_is_skipped() -> None:
    from bridge.core.errors import StoreError

    world = ShardsWorld()
    async with world:
        world.service.put(S0, numbers(1))
        one, _ = world.service.split(S0)
        world.marks.fail_with = StoreError("disk full")
        await world.advance(3)
        world.service.put(one, numbers(2))
        await world.advance(3)
        assert 2 not in values(world)

        world.marks.fail_with = None
        await world.advance(70)

        assert values(world)[-1] == 2


async def test_dynamodb_does_not_begin_at_a_time() -> None:
    world = ShardsWorld(kind="dynamodb")

    with pytest.raises(SourceError, match=r"Unsupported starting position for arn type: "):
        await world.source.reset(StartingPosition.AT_TIMESTAMP, timestamp=world.clock.time())


async def test_the_latest_stream_of_a_table_is_read() -> None:
    async with ShardsWorld(kind="dynamodb") as world:
        world.service.put(S0, numbers(1))
        await world.advance(1)

        assert isinstance(world.service, MemoryDynamoDb)
        assert world.function.calls[0].event["Records"][0]["eventSourceARN"] == world.service.arn


# --- parts ----------------------------------------------------------------------------------------


async def read_part(world: ShardsWorld, range_: StreamRange) -> tuple[list[int], Any]:
    """Return the positions that a part holds, and its reader."""
    import asyncio

    reader = world.source.reader(range_)
    listener = Listener()
    opening = asyncio.create_task(reader.open(listener))
    while not opening.done():
        await world.clock.advance(0.25)
        await settle(30)
    await opening
    open_shards, found = set(listener.marks), []
    while open_shards:
        reading = asyncio.create_task(reader.read(records_max=100, bytes_max=10**6, wait_s=0.5, paused=frozenset()))
        while not reading.done():
            await world.clock.advance(0.25)
            await settle(30)
        poll = await reading
        found += [position for chunk in poll.chunks for position in chunk.positions]
        open_shards -= set(poll.ended)
    await reader.close()
    return found, reader


@pytest.mark.parametrize("kind", ["kinesis", "dynamodb"])
async def test_a_part_by_sequence_numbers_as_an_on_failure_record_names_it(kind: str) -> None:
    world = ShardsWorld(kind=kind)
    put = world.service.put(S0, numbers(*range(10)))

    found, _ = await read_part(world, StreamRange(first={S0: put[3]}, last={S0: put[6]}, shards=frozenset({S0})))

    assert found == put[3:7]


@pytest.mark.parametrize("kind", ["kinesis", "dynamodb"])
async def test_a_part_that_goes_on_behind_a_record_that_was_done(kind: str) -> None:
    world = ShardsWorld(kind=kind)
    put = world.service.put(S0, numbers(*range(10)))

    found, _ = await read_part(world, StreamRange(first={S0: put[3] + 1}, last={S0: put[6]}, shards=frozenset({S0})))

    assert found == put[4:7]


async def test_a_part_over_a_reshard_says_what_follows_what() -> None:
    world = ShardsWorld()
    put = world.service.put(S0, numbers(1))
    one, other = world.service.split(S0)
    put += world.service.put(one, numbers(2))
    child = world.service.merge(one, other)
    put += world.service.put(child, numbers(3))

    found, reader = await read_part(world, StreamRange())

    assert sorted(found) == put
    assert reader.follows == {one: {S0}, other: {S0}, child: {S0, one, other}}


async def test_the_end_of_an_idle_shard_is_found_however_long_ago_it_was() -> None:
    world = ShardsWorld()
    put = world.service.put(S0, numbers(1, 2))
    await world.clock.advance(7 * 86_400)

    found, reader = await read_part(world, StreamRange())

    assert found == put
    assert reader.ends == {S0: put[-1]}


async def test_a_part_of_a_closed_shard_whose_listed_end_cannot_be() -> None:
    world = ShardsWorld()
    world.service.made_up_end = 2**63 - 1
    put = world.service.put(S0, numbers(1, 2, 3))
    world.service.split(S0)

    found, reader = await read_part(world, StreamRange())

    assert found == put
    assert reader.ends[S0] == put[-1]


async def test_what_retention_took_of_a_part_since_it_was_begun_ends_it() -> None:
    world = ShardsWorld(shards=2)
    put = world.service.put(S0, numbers(1, 2, 3)) + world.service.put(S1, numbers(4))
    world.service.unlist(S0)

    found, _ = await read_part(
        world,
        StreamRange(first={S0: put[1], S1: put[3]}, last={S0: put[2], S1: put[3]}, shards=frozenset({S0, S1})),
    )

    assert found == put[3:]
