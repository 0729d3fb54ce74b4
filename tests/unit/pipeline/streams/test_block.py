"""The Block policy as a pure rule: every record of a batch is finished, given up, or stands in front again, in order."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.invocation import Condition
from bridge.core.limits import STREAM_BACKOFF_MAX_S
from bridge.core.mapping import EventSourceMapping
from bridge.core.sources import PartialAnswer
from bridge.pipeline.streams.answers import Answer
from bridge.pipeline.streams.batch import Batch
from bridge.pipeline.streams.block import BlockPolicy, Step
from bridge.testing.source import ScriptedShape
from tests.unit.pipeline.streams.chunks import FAILED, OK, batches, positions_of, pure, rng

NOW = 150.0

retries = st.sampled_from((-1, 0, 1, 3))
ages = st.sampled_from((-1, 60))


def policy(*, retries_max=-1, age=-1, bisects=False, partial=PartialAnswer.LISTED) -> BlockPolicy:
    mapping = EventSourceMapping(
        name="m", source="x", function="f", maximum_retry_attempts=retries_max, maximum_record_age_s=age,
        bisect_batch_on_function_error=bisects,
    )  # fmt: skip
    return BlockPolicy(mapping, ScriptedShape(partial_answer=partial), rng())


def check(step: Step, whole: list[tuple[str, int]]) -> None:
    """Nothing is lost or doubled, and what follows is in the order of each lane."""
    finished = positions_of(Batch(parts=step.finished))
    given_up = [one for discard in step.discards for one in positions_of(discard.batch)]
    follow = [one for each in step.follow for one in positions_of(each)]
    assert sorted(finished + given_up + follow) == sorted(whole)
    for lane in {shard for shard, _ in whole}:
        for part in (finished, given_up, follow):
            places = [position for shard, position in part if shard == lane]
            assert places == sorted(places)
    assert all(len(each.parts) == 1 and len(each) for each in (*step.follow, *(one.batch for one in step.discards)))
    assert len({id(each.tries) for each in step.follow}) == len(step.follow)


@pure
@given(batches(), retries, ages, st.booleans())
def test_after_a_function_error(batch, retries_max, age, bisects):
    whole, attempts, count, lanes = positions_of(batch), batch.tries.attempts, len(batch), len(batch.parts)
    step = policy(retries_max=retries_max, age=age, bisects=bisects).after_failure(batch, FAILED, now=NOW)

    check(step, whole)
    assert step.finished == []
    if lanes > 1 or (bisects and count > 1):  # a split uses no retry
        assert step.discards == []
        assert {each.tries.attempts for each in step.follow} == {attempts}
        assert len(step.follow) == (lanes if lanes > 1 else 2)
    elif 0 <= retries_max <= attempts:
        assert [discard.condition for discard in step.discards] == [Condition.RETRY_ATTEMPTS_EXHAUSTED]
    else:
        assert [each.tries.attempts for each in step.follow] == [attempts + 1]


@pure
@given(batches(), retries, ages)
def test_a_setback_uses_no_retry_and_gives_nothing_up(batch, retries_max, age):
    whole, attempts = positions_of(batch), batch.tries.attempts
    step = policy(retries_max=retries_max, age=age).after_setback(batch, FAILED, now=NOW)

    check(step, whole)
    assert (step.finished, step.discards) == ([], [])
    assert {each.tries.attempts for each in step.follow} == {attempts}


@pure
@given(st.data(), retries, st.booleans(), st.sampled_from(PartialAnswer))
def test_after_a_partial_answer(data, retries_max, bisects, partial):
    batch = data.draw(batches(lanes_max=3 if partial is PartialAnswer.LISTED else 1))
    whole, attempts = positions_of(batch), batch.tries.attempts
    named = data.draw(st.sets(st.sampled_from(whole), min_size=1))
    answer = Answer(failed=frozenset(f"{shard}:{position}" for shard, position in named))
    step = policy(retries_max=retries_max, bisects=bisects, partial=partial).after_answer(batch, answer, OK, now=NOW)

    check(step, whole)
    lowest = min(whole.index(one) for one in named)
    left = [one for one in whole if one in named] if partial is PartialAnswer.LISTED else whole[lowest:]
    assert positions_of(Batch(parts=step.finished)) == [one for one in whole if one not in left]
    if bisects and len(left) < len(whole):
        assert {each.tries.attempts for each in step.follow} == {attempts}
    elif 0 <= retries_max <= attempts:
        assert step.follow == []
    else:
        assert {each.tries.attempts for each in step.follow} == {attempts + 1}


@pure
@given(batches(), st.sampled_from((59.0, 60.0, 70.0, 160.0, 1000.0)))
def test_only_what_is_too_old_is_given_up_one_discard_a_contiguous_part(batch, now):
    whole = positions_of(batch)
    times = [chunk.times_ms[index] for chunk, index in batch.records()]
    rule = policy(age=60)
    left_s = rule.expires_in_s(batch, now=now)
    discards, rest = rule.expire(batch, now=now)
    step = Step(discards=discards, follow=rest.by_lane() if rest is not None else [])

    check(step, whole)
    old = [one for one, time_ms in zip(whole, times, strict=True) if 0 <= time_ms <= (now - 60) * 1000]
    assert [one for discard in discards for one in positions_of(discard.batch)] == old
    assert (left_s is not None and left_s <= 0) == bool(old)
    runs = sum(
        one in old and (at == 0 or whole[at - 1] not in old or whole[at - 1][0] != one[0])
        for at, one in enumerate(whole)
    )
    assert len(discards) == runs


@pure
@given(batches(lanes_max=1), st.integers(0, 10_000_000))
def test_what_is_said_to_be_too_old_is_given_up(batch, offset_ms):
    """Whoever takes a batch out for its age relies on it: both must round alike."""
    for piece in batch.pieces:
        piece.track.chunk.times_ms = [1_767_225_600_000 + offset_ms] * len(piece.track.chunk)
    rule = policy(age=60)
    now = (1_767_225_600_000 + offset_ms) / 1000 + 60
    left_s = rule.expires_in_s(batch, now=now)
    assert left_s is not None

    assert bool(rule.expire(batch, now=now)[0]) == (left_s <= 0)


@pure
@given(batches(), st.sampled_from((100.0, 150.0, 159.9, 160.0)))
def test_a_wait_is_bounded_and_not_slept_past_the_age_limit(batch, now):
    left_s = policy(age=60).expires_in_s(batch, now=now)
    step = policy(age=60).after_setback(batch, FAILED, now=now)

    for each in step.follow:
        assert 0 <= each.tries.delay_s <= STREAM_BACKOFF_MAX_S
        assert left_s is None or each.tries.delay_s <= left_s
