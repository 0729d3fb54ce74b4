"""Cutting batches: every record is in exactly one part, in order."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.pipeline.streams.batch import partition, split_pieces
from tests.unit.pipeline.streams.chunks import batches, pieces, places, positions_of, pure


@pure
@given(pieces(), st.integers(0, 40))
def test_split_pieces(cut, at):
    whole = [position for piece in cut for position in places(piece)]
    first, rest = split_pieces(cut, at)

    assert [position for piece in first for position in places(piece)] == whole[:at]
    assert [position for piece in rest for position in places(piece)] == whole[at:]
    assert all(map(len, first + rest))


@pure
@given(pieces(), st.sets(st.integers(0, 40)))
def test_partition(cut, wanted):
    whole = [position for piece in cut for position in places(piece)]
    kept, left = partition(cut, lambda chunk, index: chunk.positions[index] in wanted)

    assert [position for piece in kept for position in places(piece)] == [p for p in whole if p in wanted]
    assert [position for piece in left for position in places(piece)] == [p for p in whole if p not in wanted]
    assert all(map(len, kept + left))


@pure
@given(batches(), st.sets(st.integers(0, 40)))
def test_only_keeps_lanes_and_tries(batch, wanted):
    whole = positions_of(batch)
    kept, left = batch.only(lambda chunk, index: chunk.positions[index] in wanted)

    assert positions_of(kept) == [one for one in whole if one[1] in wanted]
    assert positions_of(left) == [one for one in whole if one[1] not in wanted]
    assert kept.tries.attempts == left.tries.attempts == batch.tries.attempts
    assert kept.tries is not left.tries


@pure
@given(batches())
def test_by_lane_makes_one_batch_a_lane(batch):
    split = batch.by_lane()

    assert [one for each in split for one in positions_of(each)] == positions_of(batch)
    assert all(len(each.parts) == 1 for each in split)
    assert len({id(each.tries) for each in split}) == len(split)
