"""Tracks which records of a shard are finished: what is the mark below which nothing is open?"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from bridge.core.stream import Chunk, Position

_OPEN: Final = 0
_FINISHED: Final = 1


class ChunkTrack:
    """A chunk with one byte per record: open or finished."""

    __slots__ = ("chunk", "done", "ends", "finished", "size_bytes", "through")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.finished = bytearray(len(chunk))
        self.done = 0
        """Records at the front that are finished."""
        self.through = chunk.through
        """The mark once all are finished; grows when what follows the chunk holds no record."""
        self.ends = list(accumulate(map(len, chunk.fragments), initial=0))
        """Bytes of the first n fragments: the size of any run of them without another look at each."""
        self.size_bytes = self.ends[-1] + len(chunk)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some records of one chunk, in order."""

    track: ChunkTrack
    indexes: Sequence[int]
    """Rising; a range where they follow each other."""

    def __len__(self) -> int:
        return len(self.indexes)

    @property
    def first(self) -> Position:
        """Position of the first record."""
        return self.track.chunk.positions[self.indexes[0]]

    @property
    def last(self) -> Position:
        """Position of the last record."""
        return self.track.chunk.positions[self.indexes[-1]]

    def fragments(self) -> Sequence[bytes]:
        """Return the records' JSON."""
        fragments, indexes = self.track.chunk.fragments, self.indexes
        if isinstance(indexes, range):
            return fragments[indexes.start : indexes.stop]
        return [fragments[index] for index in indexes]

    def size(self) -> int:
        """Return bytes of the records' JSON with one separator each."""
        indexes, ends = self.indexes, self.track.ends
        if isinstance(indexes, range):
            return ends[indexes.stop] - ends[indexes.start] + len(indexes)
        return sum(map(len, self.fragments())) + len(indexes)

    def cut(self, start: int, stop: int) -> "Piece":
        """Return the records at those places of `indexes`."""
        return Piece(self.track, self.indexes[start:stop])


class ShardTrack:
    """All records of one shard that were read and are not in the finished prefix."""

    __slots__ = ("_tracks", "mark", "open_bytes", "open_records")

    def __init__(self, mark: Position) -> None:
        self.mark = mark
        """Last position whose whole prefix is finished; it never moves back."""
        self.open_records = 0
        """Records held: open ones, and finished ones behind an open one in their chunk."""
        self.open_bytes = 0
        self._tracks: deque[ChunkTrack] = deque()

    def add(self, chunk: Chunk, *, kept: Sequence[int] | None = None) -> ChunkTrack:
        """Take a chunk in; of `kept` (None: all) the records are open, the others finished already."""
        track = ChunkTrack(chunk)
        if kept is not None:
            track.finished = bytearray(b"\x01") * len(chunk)
            for index in kept:
                track.finished[index] = _OPEN
        self._tracks.append(track)
        self.open_records += len(chunk)
        self.open_bytes += track.size_bytes
        self._fold()
        return track

    def pass_over(self, position: Position) -> None:
        """Nothing up to `position` is left to come; one behind what is known already says nothing."""
        if self._tracks:
            last = self._tracks[-1]
            last.through = max(last.through, position)
        else:
            self.mark = max(self.mark, position)

    def finish(self, piece: Piece) -> None:
        """Close records; twice is fine."""
        finished, indexes = piece.track.finished, piece.indexes
        if isinstance(indexes, range):
            finished[indexes.start : indexes.stop] = b"\x01" * len(indexes)
        else:
            for index in indexes:
                finished[index] = _FINISHED
        self._fold()

    def _fold(self) -> None:
        tracks = self._tracks
        while tracks:
            first = tracks[0]
            at = first.finished.find(_OPEN, first.done)
            if at >= 0:
                if at > first.done:
                    first.done = at
                    self.mark = max(self.mark, first.chunk.positions[at - 1])
                return
            tracks.popleft()
            self.open_records -= len(first.chunk)
            self.open_bytes -= first.size_bytes
            self.mark = max(self.mark, first.through)

    def oldest_ms(self) -> int | None:
        """Return the arrival of the first open record, epoch milliseconds; None when nothing is open or unknown."""
        if not self._tracks:
            return None
        first = self._tracks[0]
        time_ms = first.chunk.times_ms[first.done]
        return time_ms if time_ms >= 0 else None

    def finished_above(self, *, limit: int) -> list[tuple[Position, Position]]:
        """Return up to `limit` ranges (first and last position) of finished records above the mark, lowest first."""
        ranges: list[tuple[Position, Position]] = []
        for first, last in self._runs():
            if len(ranges) == limit:
                break
            ranges.append((first, last))
        return ranges

    def _runs(self) -> Iterator[tuple[Position, Position]]:
        for track in self._tracks:
            finished, positions = track.finished, track.chunk.positions
            at = finished.find(_FINISHED, track.done)
            while at >= 0:
                end = finished.find(_OPEN, at)
                end = len(finished) if end < 0 else end
                yield positions[at], positions[end - 1]
                at = finished.find(_FINISHED, end)
