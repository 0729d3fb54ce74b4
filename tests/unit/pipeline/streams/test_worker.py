"""A mapping's life: batches, order, marks, windows, rebalances; on virtual time."""

import asyncio

import orjson
import pytest

from bridge.core.errors import DestinationError, SourceError, Throttled
from bridge.core.invocation import THROTTLE_RESERVED, Condition
from bridge.core.mapping import CALL_FAILED, PROCESSED
from bridge.core.sources import PartialAnswer
from bridge.testing.clock import settle
from tests.unit.pipeline.streams.world import REPORTS, Boom, World


def fails_on(*bad):
    def script(call, _number):
        if set(call.values) & set(bad):
            raise Boom("bad")

    return script


# --- batching -------------------------------------------------------------------------------------


async def test_sends_what_a_read_returned_when_there_is_no_window():
    async with World() as world:
        world.stream.put(1, 2, 3)
        await world.advance(0.01)

        assert world.function.batches == [[1, 2, 3]]


async def test_cuts_at_the_batch_size_and_keeps_the_order():
    async with World(batch_size=2) as world:
        world.stream.put(1, 2, 3, 4, 5)
        await world.advance(0.01)

        assert world.function.batches == [[1, 2], [3, 4], [5]]


async def test_waits_for_the_window_unless_the_batch_is_full():
    async with World(batch_size=3, maximum_batching_window_s=5) as world:
        await world.advance(1)
        world.stream.put(1, 2)
        await world.advance(3.9)
        assert world.function.batches == []
        await world.advance(0.2)
        assert world.function.batches == [[1, 2]]
        world.stream.put(3, 4, 5)
        await world.advance(0.1)

        assert world.function.batches == [[1, 2], [3, 4, 5]]


async def test_windows_begin_when_the_batch_before_has_ended():
    async with World(batch_size=10, maximum_batching_window_s=5) as world:
        world.stream.put(1)
        await world.advance(5.01)
        world.stream.put(2)
        await world.advance(4.9)
        assert world.function.batches == [[1]]
        await world.advance(0.2)

        assert world.function.batches == [[1], [2]]


async def test_cuts_at_six_megabytes_of_the_serialised_event():
    text = "x" * (2 * 1024 * 1024)
    async with World(batch_size=10) as world:
        world.stream.put(text, text, text, text)
        await world.advance(0.5)

        assert [len(batch) for batch in world.function.batches] == [2, 2]
        assert all(len(call.invocation.payload) <= 6 * 1024 * 1024 for call in world.function.calls)


async def test_a_record_too_large_for_any_event_becomes_a_dead_letter():
    async with World() as world:
        world.stream.put("x" * (6 * 1024 * 1024), 2)
        await world.advance(0.5)

        assert [letter.condition for letter in world.letters.letters] == ["RecordTooLarge"]
        assert world.function.batches == [[2]]
        assert world.stream.mark() == 1


async def test_a_batch_never_mixes_shards_unless_the_shape_does():
    async with World(shards=("s-0", "s-1")) as world:
        world.stream.put(1, shard="s-0")
        world.stream.put(2, shard="s-1")
        await world.advance(0.01)

        assert sorted(world.function.batches) == [[1], [2]]


async def test_check_19_several_shards_share_an_event_where_the_shape_mixes_them():
    async with World(shards=("s-0", "s-1"), mixes_shards=True, maximum_batching_window_s=1) as world:
        world.stream.put(1, shard="s-0")
        world.stream.put(2, shard="s-1")
        await world.advance(1.01)

        assert world.function.batches == [[1, 2]]
        await world.advance(0.3)
        assert (world.stream.mark("s-0"), world.stream.mark("s-1")) == (0, 0)


# --- order and concurrency ------------------------------------------------------------------------


async def test_one_batch_of_a_shard_at_a_time():
    async with World(batch_size=1) as world:
        world.function.duration_s = 1
        world.stream.put(1, 2, 3)
        await world.advance(3.5)

        assert world.function.batches == [[1], [2], [3]]
        assert world.function.running_max == 1


async def test_lanes_keep_the_order_of_a_key_and_run_beside_each_other():
    async with World(parallelization_factor=4, batch_size=1) as world:
        world.function.duration_s = 1
        for number in range(12):
            world.stream.put([number % 3, number], key=b"k%d" % (number % 3))
        await world.advance(13)

        assert world.function.running_max > 1
        for key in range(3):
            order = [batch[0][1] for batch in world.function.batches if batch[0][0] == key]
            assert order == sorted(order)
        assert len(world.function.calls) == 12


async def test_the_mark_never_passes_an_unfinished_record_of_another_lane():
    def script(call, _number):
        if "slow" in str(call.values):
            raise Boom("no")

    async with World(parallelization_factor=10) as world:
        world.function.script = script
        world.stream.put("slow", key=b"a")
        for number in range(20):
            world.stream.put(number, key=b"k%d" % number)
        await world.advance(2)

        assert world.stream.mark() == -1
        world.function.script = lambda *_: None
        await world.advance(60)
        await world.advance(1)
        assert world.stream.mark() == 20


async def test_a_local_limit_is_no_failure_the_batch_waits():
    async with World() as world:
        world.function.slots = 0
        world.stream.put(1)
        await world.advance(100)
        assert world.function.calls == []
        assert world.worker.wants_slot
        world.function.slots = 1
        world.worker.kick()
        await world.advance(0.01)

        assert world.function.batches == [[1]]
        assert world.letters.letters == []


async def test_maximum_concurrency_bounds_the_mapping():
    async with World(shards=("a", "b", "c", "d"), maximum_concurrency=2) as world:
        world.function.duration_s = 1
        for shard in ("a", "b", "c", "d"):
            world.stream.put(1, 2, shard=shard)
        await world.advance(10)

        assert world.function.running_max == 2
        assert len(world.function.calls) == 4


# --- failures -------------------------------------------------------------------------------------


async def test_the_same_batch_again_until_it_succeeds_and_nothing_passes_it():
    async with World(batch_size=2) as world:
        world.function.script = lambda call, number: fails_on(1)(call, number) if number < 4 else None
        world.stream.put(1, 2, 3)
        await world.advance(120)

        assert world.function.batches == [[1, 2], [1, 2], [1, 2], [1, 2], [3]]
        assert world.worker.result == PROCESSED


async def test_check_11_retries_1_are_two_calls_then_a_dead_letter_and_the_next_batch():
    async with World(batch_size=1, maximum_retry_attempts=1) as world:
        world.function.script = fails_on(1)
        world.stream.put(1, 2)
        await world.advance(60)

        assert world.function.batches == [[1], [1], [2]]
        assert world.letters.values == [[1]]
        context = world.letters.outcomes[0]["requestContext"]
        assert (context["condition"], context["approximateInvokeCount"]) == ("RetryAttemptsExhausted", 2)
        assert world.letters.outcomes[0]["responseContext"] == {
            "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
        }  # fmt: skip
        assert world.letters.outcomes[0]["ScriptedBatchInfo"] == {"shardId": "s-0", "positions": [0], "batchSize": 1}
        assert world.stream.mark() == 1


async def test_check_12_throttles_are_not_counted():
    def script(call, number):
        if number <= 5:
            raise Throttled(THROTTLE_RESERVED)
        raise Boom("now it is counted")

    async with World(maximum_retry_attempts=1) as world:
        world.function.script = script
        world.stream.put(1)
        await world.advance(600)

        assert len(world.function.calls) == 7
        assert world.letters.outcomes[0]["requestContext"]["approximateInvokeCount"] == 2
        assert world.worker.result == CALL_FAILED


async def test_check_13_only_the_expired_records_are_dropped():
    async with World(maximum_record_age_s=60) as world:
        now = world.clock.time()
        world.stream.put("old", "older", time=now - 100)
        world.stream.put(1, 2, 3, time=now)
        await world.advance(0.1)

        assert world.letters.values == [["old", "older"]]
        assert world.worker.result == PROCESSED
        outcome = world.letters.outcomes[0]
        assert outcome["requestContext"]["condition"] == "RecordAgeExceeded"
        assert outcome["requestContext"]["approximateInvokeCount"] == 1
        assert outcome["ScriptedBatchInfo"]["batchSize"] == 2
        assert "responseContext" not in outcome
        assert world.function.batches == [[1, 2, 3]]


async def test_a_retry_is_not_slept_past_the_age_limit():
    async with World(maximum_record_age_s=60) as world:
        world.function.script = fails_on(1)
        world.stream.put(1)
        await world.advance(60.01)

        assert [letter.condition for letter in world.letters.letters] == ["RecordAgeExceeded"]
        assert world.letters.letters[0].attempts == len(world.function.calls)
        await world.advance(0.3)
        assert world.stream.mark() == 0


async def test_age_needs_no_slot():
    async with World(maximum_record_age_s=60) as world:
        world.function.slots = 0
        world.stream.put(1, 2)
        await world.advance(62)

        assert world.letters.values == [[1, 2]]
        assert world.stream.mark() == 1


async def test_check_14_bisect_isolates_the_poison_record_in_order():
    async with World(bisect_batch_on_function_error=True, maximum_retry_attempts=2) as world:
        world.function.script = fails_on(3)
        world.stream.put(1, 2, 3, 4)
        await world.advance(60)

        assert world.function.batches[:4] == [[1, 2, 3, 4], [1, 2], [3, 4], [3]]
        assert world.function.batches[-1] == [4]
        assert world.function.batches.count([3]) == 3
        assert world.letters.values == [[3]]
        assert [outcome["ScriptedBatchInfo"]["batchSize"] for outcome in world.letters.outcomes] == [1]
        assert world.stream.mark() == 3


async def test_a_failed_batch_of_several_shards_is_first_split_by_shard_without_a_retry():
    async with World(
        shards=("s-0", "s-1"), mixes_shards=True, maximum_batching_window_s=1, maximum_retry_attempts=0
    ) as world:
        world.function.script = fails_on(1)
        world.stream.put(1, shard="s-0")
        world.stream.put(2, shard="s-1")
        await world.advance(3)

        assert world.function.batches[0] == [1, 2]
        assert sorted(world.function.batches[1:]) == [[1], [2]]
        assert world.letters.values == [[1]]


async def test_check_15_partial_answer_retries_from_the_lowest_and_does_not_reset_the_counter():
    async with World(function_response_types=REPORTS, maximum_retry_attempts=3) as world:
        world.function.script = lambda call, _: {"batchItemFailures": [{"itemIdentifier": "s-0:1"}]}
        world.stream.put(1, 2, 3)
        await world.advance(60)

        assert world.function.batches == [[1, 2, 3], [2, 3], [2, 3], [2, 3]]
        assert world.letters.values == [[2, 3]]
        assert world.letters.outcomes[0]["responseContext"]["functionError"] is None
        assert world.stream.mark() == 2


async def test_partial_answer_of_listed_records_retries_only_them():
    async with World(function_response_types=REPORTS, partial_answer=PartialAnswer.LISTED) as world:
        answers = [{"batchItemFailures": [{"itemIdentifier": "s-0:0"}, {"itemIdentifier": "s-0:2"}]}, None]
        world.function.script = lambda _call, number: answers[number - 1]
        world.stream.put(1, 2, 3, 4)
        await world.advance(10)

        assert world.function.batches == [[1, 2, 3, 4], [1, 3]]
        assert world.stream.mark() == 3


@pytest.mark.parametrize("answer", ["", None, {}, [], {"batchItemFailures": None}, {"batchItemFailures": []}, {"x": 1}])
async def test_check_16_answers_that_are_success(answer):
    async with World(function_response_types=REPORTS) as world:
        world.function.script = lambda *_: answer
        world.stream.put(1)
        await world.advance(5)

        assert world.function.batches == [[1]]


@pytest.mark.parametrize(
    "answer",
    [
        "hello",
        5,
        [1],
        {"batchItemFailures": "s-0:0"},
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"foo": "s-0:0"}]},
        {"batchItemFailures": [{"itemIdentifier": "s-0:9"}]},
        {"batchItemFailures": [{"itemIdentifier": 7}]},
    ],
)
async def test_check_17_answers_that_fail_the_whole_batch(answer):
    async with World(function_response_types=REPORTS) as world:
        world.function.script = lambda _, number: answer if number == 1 else None
        world.stream.put(1, 2)
        await world.advance(5)

        assert world.function.batches == [[1, 2], [1, 2]]


async def test_answers_are_not_looked_at_without_the_response_type():
    async with World() as world:
        world.function.script = lambda *_: {"batchItemFailures": [{"itemIdentifier": "s-0:0"}]}
        world.stream.put(1)
        await world.advance(5)

        assert world.function.batches == [[1]]


async def test_a_failure_destination_that_is_down_leaves_it_to_the_local_dead_letters():
    async with World(maximum_retry_attempts=0) as world:
        world.letters.fail_with = DestinationError("down")
        world.function.script = fails_on(1)
        world.stream.put(1, 2)
        await world.advance(1)
        assert world.stream.mark() == -1
        assert world.worker.shards()[0].reason == "given up, not settled yet: down"
        assert world.worker.shards()[0].due_at is None
        await world.advance(60)

        assert world.spill.values == [[1, 2]]
        assert world.worker.shards()[0].reason == ""
        assert world.stream.mark() == 1


async def test_a_batch_that_is_given_up_again_after_a_crash_is_the_same_dead_letter():
    async with World(maximum_retry_attempts=0, batch_size=1) as world:
        world.function.script = fails_on(1, 2)
        world.stream.put(1, 2)
        world.stream.commit_fails_with = SourceError("gone")
        await world.advance(1)
        await world.crash()
        await world.advance(1)

        assert world.letters.values == [[1], [2], [1], [2]]
        first, second, *again = [letter.id for letter in world.letters.letters]
        assert first != second
        assert again == [first, second]


async def test_a_damaged_record_is_a_dead_letter_before_the_mark_passes_it():
    async with World(keeps=lambda chunk: [n for n, value in enumerate(chunk.values) if value != b"0"]) as world:
        world.letters.fail_with = world.spill.fail_with = DestinationError("down")
        world.stream.put(0, 1, 2, 3)
        world.stream.damage(1, 3)
        await world.advance(100)
        assert world.stream.mark() == -1
        world.letters.fail_with = world.spill.fail_with = None
        await world.advance(20)

        assert [(letter.condition, letter.payload) for letter in world.spill.letters] == [
            (Condition.RECORD_DAMAGED, b"\xff1")
        ]
        assert [letter.payload for letter in world.letters.letters] == [b"\xff3"]
        letter = world.letters.letters[0]
        assert (letter.mapping, letter.function, letter.attempts) == ("m", "f", 0)
        assert letter.error_message == "event s-0:3: s-0 is damaged at 3"
        outcome = world.letters.outcomes[0]
        assert outcome["requestContext"]["condition"] == "RecordDamaged"
        assert outcome["ScriptedBatchInfo"] == {"shardId": "s-0", "positions": [3], "batchSize": 1}
        assert world.function.batches == [[2]]
        assert world.stream.mark() == 3


async def test_a_damaged_record_that_is_read_again_is_the_same_dead_letter():
    async with World() as world:
        world.stream.put(1, 2)
        world.stream.damage(0, 1)
        world.stream.commit_fails_with = SourceError("full")
        await world.advance(1)
        await world.crash()
        await world.advance(5)

        ids = [letter.id for letter in world.letters.letters]
        assert len(ids) == 4
        assert ids[:2] == ids[2:]
        assert ids[0] != ids[1]
        assert world.function.calls == []
        assert world.stream.mark() == 1


async def test_a_replay_counts_a_damaged_record_as_failed():
    ended = []
    work = {"is_bounded": True, "on_delivered": lambda records, ok: ended.append((records, ok)), "queue": "replay:r"}
    async with World(work=work) as world:
        world.stream.put(1, 2)
        world.stream.damage(1)
        world.stream.end()
        await world.advance(1)

        assert sorted(ended) == [(1, False), (1, True)]
        assert [letter.queue for letter in world.letters.letters] == ["replay:r"]
        assert world.task.done()


# --- marks and restarts ---------------------------------------------------------------------------


async def test_filtered_records_and_holes_move_the_mark():
    async with World(
        keeps=lambda chunk: [i for i, value in enumerate(chunk.values) if orjson.loads(value) % 2 == 0]
    ) as world:
        world.stream.put(1, 2, 3)
        world.stream.skip(5)
        await world.advance(0.5)

        assert world.function.batches == [[2]]
        assert world.stream.mark() == 7


async def test_a_restart_goes_on_behind_the_mark():
    async with World(batch_size=1) as world:
        world.stream.put(1, 2)
        await world.advance(0.5)
        await world.crash()
        world.stream.put(3)
        await world.advance(0.5)

        assert world.function.batches == [[1], [2], [3]]


async def test_attempts_and_due_time_survive_a_crash():
    async with World(maximum_retry_attempts=4, batch_size=2) as world:
        world.function.script = fails_on(1)
        world.stream.put(1, 2)
        for _ in range(100):
            await world.advance(0.05)
            if len(world.function.calls) >= 3:
                break
        await world.advance(0.3)
        before = len(world.function.calls)
        await world.crash()
        await world.advance(300)

        assert world.letters.values == [[1, 2]]
        assert len(world.function.calls) <= 6, before
        assert all(batch == [1, 2] for batch in world.function.batches)


async def test_a_throttles_back_off_survives_a_crash():
    def throttled(*_):
        raise Throttled(THROTTLE_RESERVED)

    async with World() as world:
        world.function.script = throttled
        world.stream.put(1)
        for _ in range(600):  # until it waits for a while, and that is committed
            await world.advance(1)
            due_at = world.worker.shards()[0].due_at or 0.0
            if due_at - world.clock.time() > 5:
                break
        await world.advance(0.5)
        before = len(world.function.calls)
        await world.crash()
        await world.advance(due_at - world.clock.time() - 1)
        assert len(world.function.calls) == before
        await world.advance(1.5)

        assert len(world.function.calls) > before


async def test_what_is_finished_above_the_gap_is_not_run_again_after_a_crash():
    async with World(parallelization_factor=8) as world:
        world.function.script = fails_on("stuck")
        world.stream.put("stuck", key=b"a")
        for number in range(8):
            world.stream.put(number, key=b"k%d" % number)
        await world.advance(1)
        done = [batch for batch in world.function.batches if "stuck" not in batch]
        assert done != []
        await world.crash()
        await world.advance(5)

        assert [batch for batch in world.function.batches if "stuck" not in batch] == done


async def test_a_source_that_fails_is_opened_again_with_back_off():
    async with World() as world:
        world.stream.fail_with = SourceError("broker is gone")
        world.stream.arrived.set()
        await world.advance(1.5)
        assert world.worker.trouble == "broker is gone"
        world.stream.fail_with = None
        world.stream.put(1)
        await world.advance(70)

        assert world.function.batches == [[1]]
        assert world.worker.trouble == ""


async def test_the_back_off_of_a_source_begins_anew_once_it_was_read():
    async with World() as world:
        for number in range(10):  # a broker that restarts now and then, over months
            world.stream.fail_with = SourceError("broker is gone")
            world.stream.arrived.set()
            await world.advance(0.1)
            assert world.worker.trouble == "broker is gone"
            world.stream.fail_with = None
            world.stream.put(number)
            await world.advance(1.5)
            assert world.function.batches[-1] == [number]


async def test_reads_of_nothing_do_not_end_the_back_off_of_a_source():
    async with World() as world:
        for _ in range(40):  # it opens, is read for a moment while a group is being joined, and fails again
            world.stream.fail_with = SourceError("not authorized")
            world.stream.arrived.set()
            await world.advance(0.1)
            world.stream.fail_with = None
            await world.advance(2.9)
        assert world.stream.opened <= 9


async def test_a_source_that_is_idle_for_a_minute_ends_its_back_off():
    async with World() as world:
        for _ in range(7):
            world.stream.fail_with = SourceError("broker is gone")
            world.stream.arrived.set()
            await world.advance(0.1)
            world.stream.fail_with = None
            for _ in range(65):
                await world.advance(1)
        opened = world.stream.opened
        world.stream.fail_with = SourceError("broker is gone")
        world.stream.arrived.set()
        await world.advance(0.1)
        world.stream.fail_with = None
        await world.advance(1.5)
        assert world.stream.opened == opened + 1


async def test_a_commit_that_fails_is_tried_again():
    async with World() as world:
        world.stream.commit_fails_with = SourceError("coordinator is away")
        world.stream.put(1)
        await world.advance(3)
        assert world.stream.mark() == -1
        world.stream.commit_fails_with = None
        await world.advance(1)

        assert world.stream.mark() == 0


async def test_drain_lets_what_runs_end_and_commits_it():
    world = World(batch_size=1)
    async with world:
        world.function.duration_s = 2
        world.stream.put(1, 2)
        await world.advance(0.1)
        drain = asyncio.create_task(world.worker.drain(deadline_s=25))
        await world.advance(2.1)

        assert await drain is True
        assert world.function.batches == [[1]]
        assert world.stream.mark() == 0


# --- rebalances -----------------------------------------------------------------------------------


async def test_a_shard_that_goes_is_finished_and_committed_first():
    async with World() as world:
        world.function.duration_s = 2
        world.stream.put(1)
        await world.advance(0.1)
        take = asyncio.create_task(world.stream.take("s-0"))
        await world.advance(2.1)
        await take

        assert world.stream.mark() == 0


async def test_late_results_of_a_shard_that_went_release_nothing():
    async with World() as world:
        world.function.duration_s = 20
        world.stream.put(1)
        await world.advance(0.1)
        take = asyncio.create_task(world.stream.take("s-0"))
        await world.advance(5.1)
        await take
        await world.advance(30)

        assert world.stream.mark() == -1


async def test_a_shard_that_comes_back_is_adopted_never_two_invocations_of_one_lane():
    async with World(batch_size=1) as world:
        world.function.duration_s = 20
        world.stream.put(1, 2)
        await world.advance(0.1)
        take = asyncio.create_task(world.stream.take("s-0"))
        await world.advance(5.1)
        await take
        await world.stream.give("s-0")
        await world.advance(5)
        assert world.function.running_max == 1
        await world.advance(60)

        assert world.function.batches == [[1], [2]]
        assert world.stream.mark() == 1


async def test_an_adopted_batch_that_fails_is_retried_with_its_attempts():
    async with World(batch_size=1, maximum_retry_attempts=1) as world:
        world.function.duration_s = 20
        world.function.script = fails_on(1)
        world.stream.put(1, 2)
        await world.advance(0.1)
        take = asyncio.create_task(world.stream.take("s-0"))
        await world.advance(5.1)
        await take
        await world.stream.give("s-0")
        await world.advance(100)

        assert world.function.batches == [[1], [1], [2]]
        assert world.letters.values == [[1]]
        assert world.function.running_max == 1


# --- memory ---------------------------------------------------------------------------------------


async def test_a_blocked_shard_is_paused_and_does_not_hold_up_the_others():
    async with World(shards=("s-0", "s-1"), work={"buffer_records_max": 10}, batch_size=5) as world:
        world.function.script = fails_on("stuck")
        world.stream.put("stuck", *range(1000), shard="s-0")
        await world.advance(1)
        held = world.worker._shards["s-0"].track.open_records
        world.stream.put(*range(50), shard="s-1")
        await world.advance(30)

        assert held <= 1010
        assert world.stream.mark("s-1") == 49
        assert world.worker._shards["s-0"].track.open_records == held
        await settle()


# --- tumbling windows -----------------------------------------------------------------------------


async def test_a_window_gathers_state_and_ends_with_a_final_call():
    def script(call, _number):
        state = dict(call.event["state"])
        state["sum"] = state.get("sum", 0) + sum(call.values)
        return {"state": state}

    async with World(tumbling_window_s=60, batch_size=2) as world:
        world.function.script = script
        start = world.clock.time() // 60 * 60
        await world.clock.advance(start + 60 - world.clock.time())
        world.stream.put(1, 2, 3)
        await world.advance(1)
        world.stream.put(4)
        await world.advance(62)

        calls = [
            (call.values, call.event["state"], call.event["isFinalInvokeForWindow"]) for call in world.function.calls
        ]
        assert calls == [
            ([1, 2], {}, False),
            ([3], {"sum": 3}, False),
            ([4], {"sum": 6}, False),
            ([], {"sum": 10}, True),
        ]
        assert all(call.event["window"] == {"start": start + 60, "end": start + 120} for call in world.function.calls)


async def test_a_record_of_a_later_window_closes_the_one_before():
    async with World(tumbling_window_s=60) as world:
        world.function.script = lambda call, _: {"state": {"n": call.values}}
        now = world.clock.time() // 60 * 60
        world.stream.put(1, time=now + 1)
        world.stream.put(2, time=now + 61)
        await world.advance(0.1)

        assert [(c.values, c.event["isFinalInvokeForWindow"]) for c in world.function.calls][:3] == [
            ([1], False), ([], True), ([2], False),
        ]  # fmt: skip


async def test_check_24_an_answer_without_state_is_a_failed_invocation():
    async with World(tumbling_window_s=60, maximum_retry_attempts=0) as world:
        world.function.script = lambda *_: {"ok": True}
        world.stream.put(1)
        await world.advance(0.1)

        assert world.letters.values == [[1]]


async def test_state_is_stored_with_its_mark_and_survives_a_crash():
    async with World(tumbling_window_s=900) as world:
        world.function.script = lambda call, _: {"state": {"n": call.event["state"].get("n", 0) + len(call.values)}}
        world.stream.put(1, 2)
        await world.advance(0.5)
        await world.crash()
        world.stream.put(3)
        await world.advance(0.5)

        assert world.function.calls[-1].event["state"] == {"n": 2}


async def test_a_state_above_one_megabyte_ends_the_window_early():
    async with World(tumbling_window_s=900, batch_size=1) as world:
        world.function.script = lambda call, _: {"state": {"x": "y" * 1_100_000 if call.values == [1] else ""}}
        world.stream.put(1, 2)
        await world.advance(0.5)

        assert [
            (c.values, c.event["isFinalInvokeForWindow"], c.event["isWindowTerminatedEarly"])
            for c in world.function.calls
        ] == [([1], False, False), ([], True, True), ([2], False, False)]
        assert world.function.calls[-1].event["state"] == {}


def ended(world):
    return [mark.position for _, mark in world.stream.commits if mark.has_ended]


async def test_the_end_of_a_closed_shard_is_stored_once_all_of_it_is_finished():
    async with World(batch_size=2) as world:
        world.function.duration_s = 5
        world.stream.put(1, 2, 3)
        world.stream.end()
        await world.advance(7)
        assert world.stream.mark() == 1
        assert not ended(world)

        await world.advance(5)

        assert ended(world) == [2]
        await world.advance(60)
        assert ended(world) == [2]


async def test_the_end_of_a_closed_shard_waits_for_what_is_retried():
    async with World() as world:
        world.function.script = fails_on(1)
        world.stream.put(1)
        world.stream.end()
        await world.advance(30)
        assert len(world.function.calls) > 2
        assert not ended(world)

        world.function.script = fails_on()
        await world.advance(120)

        assert ended(world) == [0]


async def test_the_end_of_an_empty_closed_shard_is_stored():
    async with World() as world:
        world.stream.end()
        await world.advance(1)

        assert ended(world) == [-1]


async def test_the_end_of_a_closed_shard_ends_its_window_first():
    async with World(tumbling_window_s=900) as world:
        world.function.script = lambda *_: {"state": {}}
        world.stream.put(1)
        world.stream.end()
        await world.advance(2)

        assert [call.event["isFinalInvokeForWindow"] for call in world.function.calls] == [False, True]
        assert ended(world) == [0]
        assert world.stream.commits[-1][1].state == b""


async def test_the_end_of_a_closed_shard_is_stored_when_a_commit_failed():
    async with World() as world:
        world.stream.commit_fails_with = SourceError("full")
        world.stream.end()
        await world.advance(2)
        world.stream.commit_fails_with = None
        await world.advance(2)

        assert ended(world) == [-1]


async def test_a_bounded_source_ends_when_all_is_finished():
    world = World(work={"is_bounded": True})
    world.stream.put(1, 2)
    world.stream.end()
    async with world:
        await world.advance(2)

        assert world.task is not None
        assert world.task.done()
        assert world.function.batches == [[1, 2]]
        assert world.stream.mark() == 1
