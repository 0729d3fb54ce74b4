"""The Return policy over a scripted queue, on virtual time.

1. handled messages are deleted, failed ones come again when the queue's own timeout says, and its redrive policy counts
2. partial answers (semantics 3.7, the SQS column)
3. batches: size, weight, window, FIFO at most 10
4. filters: what does not match is deleted
5. visibility: what is asked for, extended while it runs, lost
6. throttles are tried again within the visibility timeout, then returned
7. FIFO: groups in order, side by side, and a failed one blocks itself alone
8. pause and drain
9. faults of the queue's calls
10. the archive
"""

import pytest

from bridge.core import limits
from bridge.core.errors import SourceError, StoreError, Throttled
from bridge.core.invocation import THROTTLE_RESERVED
from tests.unit.pipeline.queues.world import REPORTS, Boom, World, virtually


def raise_boom(_call):
    raise Boom("no")


# --- 1 ---


def test_handled_messages_are_deleted():
    async def story(clock):
        async with World(clock) as world:
            world.queue.put(*range(25))
            await world.empty()

            assert sorted(value for batch in world.function.batches for value in batch) == list(range(25))
            assert max(map(len, world.function.batches)) == 10
            assert world.worker.queue().facts.visibility_s == 30

    virtually(story)


def test_failed_messages_come_again_at_the_queues_own_timeout_not_at_our_longer_one():
    async def story(clock):
        async with World(clock, queue={"visibility_s": 20.0}) as world:
            world.function.script = raise_boom
            world.queue.put("a")
            await world.until(lambda: len(world.function.calls) == 2)
            first, second = (call.at for call in world.function.calls)

            assert second - first == pytest.approx(20.0, abs=1.1)
            assert "Boom: no" in world.worker.queue().failure

    virtually(story)


def test_the_queues_redrive_policy_counts():
    async def story(clock):
        async with World(clock, queue={"max_receive_count": 3}) as world:
            world.function.script = raise_boom
            world.queue.put("a")
            await world.until(lambda: bool(world.queue.dead))

            assert len(world.function.calls) == 3
            assert world.queue.deleted == []

    virtually(story)


def test_a_message_larger_than_an_invocation_may_be_goes_back():
    async def story(clock):
        async with World(clock, queue={"max_receive_count": 2}) as world:
            from bridge.core.errors import PayloadTooLarge

            def refuse(_call):
                raise PayloadTooLarge("too large")

            world.function.script = refuse
            world.queue.put("a")
            await world.until(lambda: bool(world.queue.dead))

            assert len(world.function.calls) == 2

    virtually(story)


# --- 2 ---


@pytest.mark.parametrize(
    "answer",
    [
        b'""',
        b"null",
        b"{}",
        b"[]",
        b"",
        b'{"statusCode":200}',
        b'{"batchItemFailures":[]}',
        b'{"batchItemFailures":null}',
    ],
)
def test_check_16_answers_that_are_success(answer):
    async def story(clock):
        async with World(clock, function_response_types=REPORTS) as world:
            world.function.script = lambda _call: answer
            world.queue.put(1, 2)
            await world.empty(within_s=5)

    virtually(story)


@pytest.mark.parametrize(
    "answer",
    [
        b'"hello"',
        b"5",
        b"[1]",
        b'{"batchItemFailures":[{"itemIdentifier":""}]}',
        b'{"batchItemFailures":[{"itemIdentifier":null}]}',
        b'{"batchItemFailures":[{"foo":"m1"}]}',
        b'{"batchItemFailures":[{"itemIdentifier":"unknown"}]}',
        b"nonsense",
    ],
)
def test_check_17_answers_that_fail_the_whole_batch(answer):
    async def story(clock):
        async with World(clock, function_response_types=REPORTS) as world:
            world.function.script = lambda _call: answer
            world.queue.put(1, 2)
            await world.until(lambda: len(world.function.calls) == 2)

            assert world.function.batches == [[1, 2], [1, 2]]
            assert world.queue.deleted == []

    virtually(story)


def test_check_18_one_of_ten_listed_comes_back_and_nine_are_deleted():
    async def story(clock):
        async with World(clock, function_response_types=REPORTS) as world:
            ids = world.queue.put(*range(10))
            world.function.script = lambda call: {
                "batchItemFailures": [{"itemIdentifier": ids[3]}] if len(call.ids) > 1 else []
            }
            await world.empty()

            assert world.function.batches == [list(range(10)), [3]]

    virtually(story)


def test_without_the_feature_the_answer_is_not_looked_at():
    async def story(clock):
        async with World(clock) as world:
            world.function.script = lambda call: {"batchItemFailures": [{"itemIdentifier": call.ids[0]}]}
            world.queue.put(1)
            await world.empty(within_s=5)

            assert len(world.function.calls) == 1

    virtually(story)


# --- 3 ---


def test_a_window_gathers_a_batch_of_more_than_ten():
    async def story(clock):
        async with World(clock, batch_size=100, maximum_batching_window_s=5.0) as world:
            world.queue.put(*range(30))
            await clock.sleep(3)
            world.queue.put(*range(30, 40))
            await world.empty()

            assert [len(batch) for batch in world.function.batches] == [40]
            assert world.function.calls[0].at == pytest.approx(5.0, abs=0.5)

    virtually(story)


def test_a_full_batch_does_not_wait_for_its_window():
    async def story(clock):
        async with World(clock, batch_size=50, maximum_batching_window_s=60.0) as world:
            world.queue.put(*range(50))
            await world.empty(within_s=5)

            assert len(world.function.batches) == 1

    virtually(story)


def test_a_batch_is_cut_by_the_weight_of_the_event():
    async def story(clock):
        async with World(clock, work={"payload_max_bytes": 300}) as world:
            world.queue.put(*["x" * 60] * 6)
            await world.empty()

            assert [len(batch) for batch in world.function.batches] == [3, 3]

    virtually(story)


def test_a_fifo_batch_is_ten_at_most_and_has_no_window():
    async def story(clock):
        async with World(clock, queue={"is_fifo": True}, batch_size=100, maximum_batching_window_s=60.0) as world:
            for number in range(15):
                world.queue.put(number, group=str(number))
            await world.empty(within_s=10)

            assert max(map(len, world.function.batches)) <= 10

    virtually(story)


def test_no_more_than_maximum_concurrency_run_at_once():
    async def story(clock):
        async with World(clock, batch_size=1, maximum_concurrency=3) as world:
            world.function.duration_s = lambda _call: 1.0
            world.queue.put(*range(12))
            await world.empty()

            assert world.function.running_max == 3

    virtually(story)


def test_little_is_received_ahead_of_a_slow_function():
    async def story(clock):
        async with World(clock, batch_size=1) as world:
            world.function.slots = 2
            world.function.duration_s = lambda _call: 10.0
            world.queue.put(*range(50))
            await clock.sleep(5)

            assert world.function.running == 2
            assert world.worker.queue().waiting <= 2
            assert "free slot" in world.worker.queue().reason

    virtually(story)


# --- 4 ---


def test_check_22_what_no_filter_keeps_is_deleted_unseen():
    async def story(clock):
        async with World(clock, work={"keeps": lambda message: int(message.body) % 2 == 0}) as world:
            world.queue.put(*range(10))
            await world.empty()

            assert sorted(v for b in world.function.batches for v in b) == [0, 2, 4, 6, 8]
            assert len(world.queue.deleted) == 10

    virtually(story)


# --- 5 ---


def test_a_long_invocation_is_not_delivered_twice():
    async def story(clock):
        async with World(clock) as world:
            world.function.target.version.timeout_s = 3
            world.function.duration_s = lambda _call: 600.0
            world.queue.put("a")
            await world.empty(within_s=900)

            assert len(world.function.calls) == 1
            assert world.queue.calls["hide"] >= 10

    virtually(story)


def test_messages_are_hidden_for_window_timeout_and_half_a_minute_where_that_is_longer():
    async def story(clock):
        async with World(clock, maximum_batching_window_s=2.0) as world:
            world.function.target.version.timeout_s = 100
            world.queue.put("a")
            await clock.sleep(1)
            (stored,) = world.queue.stored.values()

            assert stored.visible_at == pytest.approx(132.0, abs=1.0)
            assert world.worker.queue().notes == (
                "Queue visibility timeout: 30 seconds is less than Function timeout: 100 seconds",
            )

    virtually(story)


def test_a_message_is_hidden_for_so_long_at_most_as_a_queue_can(monkeypatch):
    monkeypatch.setattr(limits, "QUEUE_HIDDEN_MAX_S", 600.0)  # twelve hours, and their look each second, take long

    async def story(clock):
        async with World(clock) as world:
            world.function.duration_s = lambda _call: 700.0
            world.queue.put("a")
            await clock.sleep(limits.QUEUE_HIDDEN_MAX_S - 10)
            assert world.queue.facts().in_flight == 1
            await clock.sleep(20)

            assert world.queue.stored["m1"].receive_count == 2  # it came again, and is the one that runs

    virtually(story)


def test_what_was_lost_while_it_waited_is_not_run():
    async def story(clock):
        async with World(clock) as world:
            world.function.slots = 0
            world.queue.put("a")
            await clock.sleep(1)

            def fail(call):
                if call in ("hide", "receive"):
                    raise SourceError("down")

            world.queue.fail = fail
            await clock.sleep(35)
            world.function.slots = 1
            world.worker.kick()
            await clock.sleep(1)

            assert world.function.calls == []
            world.queue.fail = lambda _call: None
            await world.empty()

            assert world.function.batches == [["a"]]

    virtually(story)


# --- 6 ---


def test_a_throttle_is_tried_again_and_does_not_count():
    async def story(clock):
        async with World(clock) as world:

            def throttle(_call):
                if len(world.function.calls) < 4:
                    raise Throttled(THROTTLE_RESERVED)

            world.function.script = throttle
            world.queue.put("a")
            await world.empty(within_s=25)

            assert len(world.function.calls) == 4
            assert world.queue.deleted == ["m1"]

    virtually(story)


def test_a_throttle_that_lasts_ends_at_the_visibility_timeout():
    async def story(clock):
        async with World(clock, queue={"max_receive_count": 2}) as world:

            def throttle(_call):
                raise Throttled(THROTTLE_RESERVED)

            world.function.script = throttle
            world.queue.put("a")
            await world.until(lambda: world.queue.stored["m1"].receive_count == 2)
            assert 10 < clock.monotonic() < 40
            await world.until(lambda: bool(world.queue.dead))

    virtually(story)


def test_without_a_slot_messages_go_back_at_the_visibility_timeout():
    async def story(clock):
        async with World(clock) as world:
            world.function.slots = 0
            world.queue.put("a")
            await clock.sleep(30)
            assert world.queue.stored["m1"].receive_count == 1
            await clock.sleep(10)

            assert world.queue.stored["m1"].receive_count == 2

    virtually(story)


def test_a_function_that_is_not_there_is_said_and_waited_for():
    async def story(clock):
        async with World(clock) as world:
            world.queue.put("a")
            world.function.exists = False
            await clock.sleep(10)
            world.function.exists = True
            await world.empty()

            assert world.function.batches == [["a"]]

    virtually(story)


# --- 7 ---


def test_groups_keep_their_order_and_run_side_by_side():
    async def story(clock):
        async with World(clock, queue={"is_fifo": True}, batch_size=1) as world:
            world.function.duration_s = lambda _call: 1.0
            for number in range(5):
                for group in "abc":
                    world.queue.put((group, number), group=group)
            await world.empty()

            assert world.function.running_max == 3
            for group in "abc":
                seen = [n for batch in world.function.batches for g, n in batch if g == group]
                assert seen == [0, 1, 2, 3, 4]

    virtually(story)


def test_a_failed_group_waits_with_all_that_is_behind_and_the_others_go_on():
    async def story(clock):
        async with World(clock, queue={"is_fifo": True}, batch_size=1, function_response_types=REPORTS) as world:

            def fail_once(call):
                if call.values == [["a", 0]] and len([c for c in world.function.calls if c.values == [["a", 0]]]) == 1:
                    raise Boom("no")

            world.function.script = fail_once
            for number in range(3):
                for group in "ab":
                    world.queue.put((group, number), group=group)
            await world.until(lambda: sum(b[0][0] == "b" for b in world.function.batches) == 3, within_s=20)
            assert [b for b in world.function.batches if b[0][0] == "a"] == [[["a", 0]]]
            await world.empty()

            assert [n for b in world.function.batches for g, n in b if g == "a"] == [0, 0, 1, 2]
            assert world.function.calls[-3].at >= 30

    virtually(story)


def test_of_a_partial_failure_what_is_not_listed_is_deleted_though_it_breaks_the_order():
    async def story(clock):
        async with World(clock, queue={"is_fifo": True}, function_response_types=REPORTS) as world:
            ids = world.queue.put(0, 1, 2, group="a")
            world.function.script = lambda call: {
                "batchItemFailures": [{"itemIdentifier": ids[1]}] if len(call.ids) > 1 else []
            }
            await world.empty()

            assert world.function.batches == [[0, 1, 2], [1]]

    virtually(story)


# --- 8 ---


def test_a_drain_lets_run_what_runs_and_hands_the_rest_back_at_once():
    async def story(clock):
        async with World(clock, batch_size=1) as world:
            world.function.slots = 1
            world.function.duration_s = lambda _call: 5.0
            world.queue.put(*range(3))
            await clock.sleep(1)

            assert await world.worker.drain(deadline_s=60.0)
            assert clock.monotonic() == pytest.approx(5.0, abs=0.2)
            assert len(world.queue.deleted) == 1
            assert world.queue.facts().visible == 2
            assert [stored.receive_count for stored in world.queue.stored.values()] == [1, 0]

    virtually(story)


def test_visibility_is_kept_while_a_drain_waits():
    async def story(clock):
        async with World(clock) as world:
            world.function.duration_s = lambda _call: 200.0
            world.queue.put("a")
            await clock.sleep(1)

            assert await world.worker.drain(deadline_s=900.0)
            assert world.queue.deleted == ["m1"]

    virtually(story)


# --- 9 ---


def test_a_queue_that_cannot_be_had_is_said_and_tried_again():
    async def story(clock):
        world = World(clock)
        missing = "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue."

        def fail(_call):
            raise SourceError(missing)

        world.queue.fail = fail
        async with world:
            world.queue.put("a")
            await clock.sleep(5)
            assert world.worker.in_trouble == missing
            world.queue.fail = lambda _call: None
            await world.empty()

            assert world.worker.in_trouble == ""

    virtually(story)


def test_a_receive_that_fails_is_backed_off():
    async def story(clock):
        async with World(clock) as world:

            def fail(call):
                if call == "receive":
                    raise SourceError("RequestThrottled")

            world.queue.fail = fail
            await clock.sleep(600)

            assert world.worker.in_trouble == "RequestThrottled"
            assert world.queue.calls["receive"] < 20

    virtually(story)


def test_a_delete_that_fails_is_tried_again():
    async def story(clock):
        async with World(clock) as world:
            failures = iter(range(3))

            def fail(call):
                if call == "delete" and next(failures, None) is not None:
                    raise SourceError("InternalError")

            world.queue.fail = fail
            world.queue.put("a")
            await world.empty(within_s=20)

            assert len(world.function.calls) == 1

    virtually(story)


def test_a_delete_that_fails_for_good_is_given_up_and_said(capsys):
    async def story(clock):
        async with World(clock) as world:

            def fail(call):
                if call == "delete":
                    raise SourceError("AccessDenied")

            world.queue.fail = fail
            world.queue.put("a")
            await world.until(lambda: len(world.function.calls) == 2, within_s=1500)

            assert world.queue.stored["m1"].receive_count == 2

    virtually(story)
    assert "message_not_deleted" in capsys.readouterr().out


# --- 10 ---


def test_nothing_is_deleted_before_it_is_archived():
    async def story(clock):
        archived = []
        fails = iter([StoreError("full")] * 3)

        async def archive(messages):
            if (error := next(fails, None)) is not None:
                raise error
            archived.extend(message.id for message in messages)

        async with World(clock, work={"archive": archive}) as world:
            world.queue.put("a")
            await clock.sleep(0.5)
            assert world.queue.deleted == []
            await world.empty()

            assert archived == ["m1"]
            assert len(world.function.calls) == 1

    virtually(story)


# --- 11: bugs of ours ---


def test_what_a_bug_cut_short_comes_again():
    async def story(clock):
        async with World(clock) as world:

            def fail_once(_call):
                if len(world.function.calls) == 1:
                    raise RuntimeError("a bug")

            world.function.script = fail_once
            world.queue.put("a")
            await world.until(lambda: world.task.done())
            assert isinstance(world.task.exception(), RuntimeError)
            world.start()  # as the supervisor of tasks does
            await world.empty()

            assert world.function.batches == [["a"], ["a"]]

    virtually(story)


@pytest.mark.parametrize("helper", ["look", "hide"])
def test_a_helper_that_a_bug_ended_stops_the_mapping_for_all_to_see(helper):
    """Else messages would come again while they run, and nobody would know why."""

    async def story(clock):
        async with World(clock) as world:

            def fail(call):
                if call == helper:
                    raise RuntimeError("a bug")

            world.function.duration_s = lambda _call: 60
            world.queue.put("a")
            await clock.sleep(1)
            world.queue.fail = fail
            await world.until(lambda: world.task.done())

            assert isinstance(world.task.exception(), RuntimeError)

    virtually(story)


def test_deletes_that_fail_are_not_repeated_at_once():
    async def story(clock):
        async with World(clock) as world:

            def fail(call):
                if call == "delete":
                    raise SourceError("InternalError")

            world.queue.fail = fail
            world.queue.put("a")
            await clock.sleep(5)

            assert world.queue.calls["delete"] <= 6

    virtually(story)
