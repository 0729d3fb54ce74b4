"""The finished prefix of a shard: its mark never passes an open record, and equals a naive model's."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.stream import BEFORE_ALL
from bridge.pipeline.streams.batch import compact
from bridge.pipeline.streams.track import Piece, ShardTrack
from tests.unit.pipeline.streams.chunks import chunk, pure


class NaiveTrack:
    """A dict of positions."""

    def __init__(self) -> None:
        self.open: dict[int, bool] = {}
        self.through = BEFORE_ALL

    @property
    def mark(self) -> int:
        return next((position - 1 for position, is_open in sorted(self.open.items()) if is_open), self.through)

    def finished(self) -> set[int]:
        return {position for position, is_open in self.open.items() if not is_open and position > self.mark}


@pure
@given(st.data())
def test_the_mark_is_the_one_of_a_naive_model(data):
    track, naive = ShardTrack(BEFORE_ALL), NaiveTrack()
    handed: list[Piece] = []
    at = 0
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(("add", "add", "finish", "finish", "pass"))):
            case "add":
                positions = range(at, at + data.draw(st.integers(1, 6)))
                through = positions[-1] + data.draw(st.integers(0, 2))
                kept = data.draw(st.none() | st.sets(st.sampled_from(range(len(positions)))).map(sorted))
                added = track.add(chunk(positions, through=through), kept=kept)
                naive.open |= {p: kept is None or index in kept for index, p in enumerate(positions)}
                naive.through = through
                at = through + 1
                handed += [Piece(added, [index]) for index in (range(len(positions)) if kept is None else kept)]
            case "finish" if handed:
                picked = data.draw(st.sampled_from(handed))
                same = [piece.indexes[0] for piece in handed if piece.track is picked.track]
                indexes = sorted(data.draw(st.sets(st.sampled_from(same), min_size=1)))
                track.finish(Piece(picked.track, compact(indexes)))
                naive.open |= {picked.track.chunk.positions[index]: False for index in indexes}
            case "pass":
                naive.through = max(naive.through, at + 1)
                track.pass_over(at + 1)
                at = naive.through + 1
        # A hole before an open record is passed by one and not by the other; neither passes a record.
        holes = [p for p in range(track.mark + 1, naive.mark + 1) if p in naive.open]
        assert holes == []
        assert track.mark <= naive.mark
        assert not any(is_open and position <= track.mark for position, is_open in naive.open.items())
        ranges = track.finished_above(limit=1000)
        assert {p for first, last in ranges for p in range(first, last + 1) if p in naive.open} == naive.finished()
    for piece in handed:
        track.finish(piece)
    assert (track.mark, track.open_records, track.open_bytes) == (naive.through, 0, 0)


@pure
@given(st.integers(1, 5))
def test_of_many_ranges_the_lowest_are_told(limit):
    track = ShardTrack(BEFORE_ALL)
    added = track.add(chunk(range(20)))
    track.finish(Piece(added, list(range(1, 20, 2))))

    assert track.finished_above(limit=limit) == [(at, at) for at in range(1, 20, 2)][:limit]
