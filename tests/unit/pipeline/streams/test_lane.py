"""What a lane hands out: in order, within the limits, nothing lost or doubled; what a former owner left is kept."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.stream import BEFORE_ALL, Mark
from bridge.pipeline.streams.batch import Tries
from bridge.pipeline.streams.lane import ShardWork
from bridge.pipeline.streams.notes import Note, Span
from bridge.pipeline.streams.track import Piece
from tests.unit.pipeline.streams.chunks import chunk, lane, pieces, places, pure


@pure
@given(pieces(), st.data())
def test_takes_in_order_within_the_limits(queued, data):
    taking = lane()
    for piece in queued:
        taking.add(piece)
    before = [position for piece in queued for position in places(piece)]
    taken: list[int] = []
    while taking.queue:
        records_max, bytes_max = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 30))
        stop = data.draw(st.none() | st.sampled_from(before))
        got = taking.take(
            records_max=records_max,
            bytes_max=bytes_max,
            until=None
            if stop is None or stop <= (taken[-1] if taken else -1)
            else lambda c, i, s=stop: c.positions[i] >= s,
        )
        flat = [position for piece in got for position in places(piece)]
        if not flat:  # the next window has to be opened first
            assert stop is not None and stop <= before[len(taken)]
            continue
        assert len(flat) <= records_max
        assert sum(piece.size() for piece in got) <= bytes_max or len(flat) == 1
        taken += flat
        assert (taking.records, taking.size_bytes) == (
            sum(map(len, taking.queue)), sum(piece.size() for piece in taking.queue)
        )  # fmt: skip

    assert taken == before
    assert (taking.records, taking.size_bytes) == (0, 0)


def mark(*, spans=(), finished=(), position=BEFORE_ALL, lanes=1) -> Mark:
    return Mark(position=position, note=Note(lanes=lanes, spans=spans, finished=finished).pack())


def span(first: int, last: int, *, attempts: int = 1, number: int = 0) -> Span:
    return Span(lane=number, first=first, last=last, tries=Tries(attempts=attempts, invocations=attempts))


def waiting(shard: ShardWork) -> list[tuple[int, list[int]]]:
    """Attempts and positions of what waits in the only lane, in order."""
    (one,) = shard.lanes
    batches = [(batch.tries.attempts, [p for piece in batch.pieces for p in places(piece)]) for batch in one.pending]
    return batches + ([(0, [p for piece in one.queue for p in places(piece)])] if one.queue else [])


@pure
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_batches_of_a_former_run_are_the_same_again_however_they_are_read(sizes):
    shard = ShardWork("s-0", mark(spans=[span(0, 2), span(3, 6, attempts=3)]), lanes=1, window_s=0, now=0.0)
    at = 0
    for size in sizes:
        shard.take_in(chunk(range(at, at + size)), None)
        at += size
    whole = [(1, [0, 1, 2])] * (at > 2) + [(3, [3, 4, 5, 6])] * (at > 6)

    assert waiting(shard) == whole + ([(0, list(range(7, at)))] if at > 7 else [])


def test_a_range_that_is_read_in_part_stays_in_the_note():
    shard = ShardWork("s-0", mark(finished=[(1, 9)]), lanes=1, window_s=0, now=0.0)
    shard.take_in(chunk(range(4)), None)
    first = Note.unpack(shard.mark(now_tries=lambda batch: batch.tries).note)
    shard.finish([shard.lanes[0].queue[0]])
    second = shard.mark(now_tries=lambda batch: batch.tries)

    assert 9 in {last for _, last in first.finished}
    assert second.position == 3
    assert [last for _, last in Note.unpack(second.note).finished] == [9]


def test_a_gap_in_the_only_lane_is_in_the_note():
    shard = ShardWork("s-0", mark(), lanes=1, window_s=0, now=0.0)
    shard.take_in(chunk(range(4)), None)
    (queued,) = shard.lanes[0].queue
    shard.finish([Piece(queued.track, range(2, 3))])

    assert Note.unpack(shard.mark(now_tries=lambda batch: batch.tries).note).finished == ((2, 2),)


def test_positions_above_64_bits_are_skipped_too():
    high = 1 << 180
    shard = ShardWork("s-0", mark(finished=[(high, high + 1)]), lanes=1, window_s=0, now=0.0)
    shard.take_in(chunk([1, high, high + 1, high + 2]), None)

    assert waiting(shard) == [(0, [1, high + 2])]


def test_a_batch_that_will_not_be_read_to_its_end_goes_on_with_what_there_is():
    shard = ShardWork("s-0", mark(spans=[span(0, 5), span(6, 8, attempts=2)]), lanes=1, window_s=0, now=0.0)
    shard.take_in(chunk(range(4)), None)
    assert waiting(shard) == []
    assert shard.restore_now()
    assert waiting(shard) == [(1, [0, 1, 2, 3])]
    assert not shard.restore_now()
    shard.take_in(chunk([4, 5, 6]), None)
    assert waiting(shard) == [(1, [0, 1, 2, 3]), (1, [4, 5])]
    assert shard.restore_now(whole=True)

    assert waiting(shard) == [(1, [0, 1, 2, 3]), (1, [4, 5]), (2, [6])]
