"""What the simulation and a reading of the engine found: each was a bug once."""

import asyncio

import orjson
import pytest

from bridge.core.errors import SourceError
from bridge.core.stream import Mark
from bridge.pipeline.streams.batch import Tries
from bridge.pipeline.streams.notes import Note, Span
from bridge.testing.clock import settle
from tests.unit.pipeline.streams.test_worker import fails_on
from tests.unit.pipeline.streams.world import REPORTS, World


async def test_a_chunk_of_a_shard_that_came_back_while_it_was_archived_is_read_again_instead():
    async def archive(_chunk):
        await world.clock.sleep(1)

    async with World(work={"archive": archive}) as world:
        world.stream.put(1, 2)
        await world.advance(0.1)
        await world.stream.take("s-0")
        world.stream.put(3)
        await world.stream.give("s-0")
        await world.advance(5)

        assert world.function.batches == [[1, 2, 3]]
        assert world.stream.mark() == 2


async def test_a_record_that_expired_in_the_middle_of_the_only_lane_is_not_given_up_again_after_a_crash():
    async with World(maximum_record_age_s=60, batch_size=3) as world:
        now = world.clock.time()
        world.function.slots = 0
        world.stream.put("old", time=now - 100)
        world.stream.put(1, time=now)
        world.stream.put("older", time=now - 100)
        await world.advance(2)
        assert world.letters.values == [["old"], ["older"]]
        await world.crash()
        world.function.slots = 100
        world.worker.kick()
        await world.advance(2)

        assert world.letters.values == [["old"], ["older"]]
        assert world.function.batches == [[1]]


async def test_the_call_that_ends_a_window_waits_for_a_slot_when_the_next_record_is_too_old():
    async with World(tumbling_window_s=10, maximum_record_age_s=60) as world:
        world.function.script = lambda *_: {"state": {}}
        now = world.clock.time() // 10 * 10
        world.stream.put(1, time=now + 1)
        await world.advance(0.1)
        world.function.slots = 0
        world.stream.put(2, time=now + 11)
        await world.advance(100)
        assert world.function.batches == [[1]]
        world.function.exists = False
        await world.advance(2)
        world.function.exists, world.function.slots = True, 1
        await world.advance(6)

        assert world.worker._error is None
        assert world.function.batches[:2] == [[1], []]
        assert world.letters.values == [[2]]


async def test_a_blocked_batch_that_no_longer_fits_the_buffers_goes_on_in_parts():
    note = Note(spans=[Span(lane=0, first=0, last=8, tries=Tries(attempts=2, invocations=2))]).pack()
    world = World(maximum_retry_attempts=2, batch_size=2, work={"buffer_records_max": 4})
    world.stream.shards["s-0"].mark = Mark(position=-1, note=note)
    world.function.script = fails_on(*range(9))
    async with world:
        for number in range(12):
            world.stream.put(number)
            await world.advance(0.2)
        await world.advance(60)

        assert [number for values in world.letters.values for number in values] == list(range(9))
        assert world.stream.mark() == 11


async def test_a_blocked_batch_whose_end_is_gone_goes_on_when_the_shard_ends():
    note = Note(spans=[Span(lane=0, first=0, last=8, tries=Tries(attempts=1, invocations=1))]).pack()
    world = World(work={"is_bounded": True})
    world.stream.shards["s-0"].mark = Mark(position=-1, note=note)
    world.stream.put(1, 2)
    world.stream.end()
    async with world:
        await world.advance(3)

        assert world.function.batches == [[1, 2]]
        assert world.task is not None
        assert world.task.done()


async def test_a_blocked_batch_waits_as_long_as_it_was_to_where_its_end_was_compacted():
    world = World()
    due_at = world.clock.time() + 30
    tries = Tries(attempts=1, invocations=1, setbacks=1, due_at=due_at, delay_s=40.0)
    note = Note(spans=[Span(lane=0, first=0, last=2, tries=tries)]).pack()
    world.stream.shards["s-0"].mark = Mark(position=-1, note=note)
    world.stream.put(1)
    async with world:
        await world.advance(1)
        world.stream.skip(5)
        await world.advance(20)
        assert world.function.batches == []
        await world.advance(10)

        assert world.function.batches == [[1]]


async def test_a_dead_letter_names_the_last_run_also_after_partial_answers_and_splits():
    async with World(function_response_types=REPORTS, maximum_retry_attempts=1) as world:
        world.function.script = lambda call, _: {"batchItemFailures": [{"itemIdentifier": "s-0:1"}]}
        world.stream.put(1, 2)
        await world.advance(5)

        requests = [call.invocation.request_id for call in world.function.calls]
        (letter,) = world.letters.letters
        assert [attempt.request_id for attempt in letter.history] == requests
        assert orjson.loads(letter.outcome)["requestContext"]["requestId"] == requests[-1]


async def test_the_parts_of_a_bisected_batch_remember_the_run_before():
    async with World(bisect_batch_on_function_error=True, maximum_retry_attempts=0) as world:
        world.function.script = fails_on(2)
        world.stream.put(1, 2)
        await world.advance(5)

        whole, _first, second = (call.invocation.request_id for call in world.function.calls)
        (letter,) = world.letters.letters
        assert [attempt.request_id for attempt in letter.history] == [whole, second]


async def test_a_state_that_has_grown_leaves_less_room_for_what_is_tried_again():
    limit = 6 * 1024 * 1024
    text = "x" * (limit // 3 - 1000)

    def script(call, number):
        state = {"x": "y" * 1_000_000}
        if number == 1:
            return {"state": state, "batchItemFailures": [{"itemIdentifier": "s-0:0"}]}
        return {"state": state}

    async with World(tumbling_window_s=900, function_response_types=REPORTS) as world:
        world.function.script = script
        world.stream.put(text, text, text[: limit // 4], time=world.clock.time())
        await world.advance(30)

        assert [len(call.values) for call in world.function.calls] == [3, 2, 1]
        assert all(len(call.invocation.payload) <= limit for call in world.function.calls)


async def test_a_record_that_a_state_leaves_no_room_for_becomes_a_dead_letter():
    async with World(tumbling_window_s=900) as world:
        world.function.script = lambda *_: {"state": {"x": "y" * 1_000_000}}
        world.stream.put(1, time=world.clock.time())
        await world.advance(0.1)
        world.stream.put("x" * (5_500_000), 2, time=world.clock.time())
        await world.advance(1)

        assert [letter.condition for letter in world.letters.letters] == ["RecordTooLarge"]
        assert world.function.batches == [[1], [2]]


async def test_nothing_goes_on_behind_a_batch_that_a_bug_ended():
    def script(call, number):
        if number == 1:
            raise RuntimeError("a bug")

    world = World(batch_size=1)
    world.function.script = script
    world.stream.put(1, 2)
    world.start()
    await settle(30)
    await world.advance(3)

    assert world.task is not None
    with pytest.raises(RuntimeError, match="a bug"):
        await world.task
    assert world.function.batches == [[1]]
    await world.worker.stop()


async def test_marks_that_a_bug_keeps_from_being_committed_stop_the_mapping(monkeypatch):
    world = World()
    world.start()
    await settle(30)

    async def bug():
        raise RuntimeError("a bug")

    monkeypatch.setattr(world.worker._commits, "try_now", bug)
    world.stream.put(1)
    await world.advance(30)

    assert world.task is not None
    assert world.task.done()
    with pytest.raises(RuntimeError, match="a bug"):
        await world.task
    await world.worker.stop()


async def test_a_scripted_read_that_is_full_skips_nothing_of_the_next_shard():
    async with World(shards=("s-0", "s-1"), batch_size=10) as world:
        world.function.slots = 0
        world.stream.fail_with = SourceError("later")
        world.stream.arrived.set()
        await world.advance(1)
        world.stream.put(*range(1000), shard="s-0")
        world.stream.put("here", shard="s-1")
        world.stream.fail_with = None
        world.function.slots = 100
        await world.advance(20)

        assert ["here"] in world.function.batches


# --- a rebalance that is not waited out ---------------------------------------------------------------


async def test_what_has_ended_is_committed_before_a_rebalance_s_deadline_though_something_runs_beyond_it():
    async with World(shards=("s-0", "s-1")) as world:
        world.stream.put("ended", shard="s-1")
        await world.advance(0.05)
        world.function.duration_s = 20
        world.stream.put("runs", shard="s-0")
        await world.advance(0.05)

        assert world.stream.mark("s-1") == -1, "the next commit is not due yet"

        revoking = asyncio.create_task(world.stream.live.revoke({"s-0", "s-1"}, deadline_s=5))
        await settle()
        await world.advance(4.9)

        assert revoking.done()
        assert (world.stream.mark("s-0"), world.stream.mark("s-1")) == (-1, 0)
        assert world.worker.shards() == ()


async def test_a_rebalance_that_is_cut_short_leaves_no_shard_behind():
    async with World() as world:
        world.function.duration_s = 20
        world.stream.put("runs")
        await world.advance(0.05)
        revoking = asyncio.create_task(world.stream.live.revoke({"s-0"}, deadline_s=5))
        await world.advance(1)
        revoking.cancel()
        await settle()

        assert world.worker.shards() == ()
        await world.advance(30)

        assert world.stream.mark() == -1, "it ended, for nobody"
