"""A shard as it is worked on: its lanes, what waits in each, and what a former owner left to be known."""

import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from bridge.core.stream import Chunk, Mark, Position, Shard
from bridge.pipeline.streams.batch import Batch, Part, Tries, compact, partition
from bridge.pipeline.streams.notes import RANGES_MAX, Note, Span
from bridge.pipeline.streams.track import Piece, ShardTrack
from bridge.pipeline.streams.windows import Window

Keeps = Callable[[Chunk], Sequence[int]]
"""Returns the indexes of a chunk's records that the filters let pass, rising."""


@dataclass(slots=True, eq=False)
class _Restoring:
    """A batch of a former run whose records are being read again."""

    span: Span
    pieces: list[Piece] = field(default_factory=list)


class Lane:
    """What keeps one order: a shard, or the keys of a shard that hash to one number. One batch at a time."""

    __slots__ = (
        "_held", "_restoring", "busy", "first_at", "number", "pending", "queue", "records", "shard", "size_bytes",
        "window_from", "withheld",
    )  # fmt: skip

    def __init__(self, shard: "ShardWork", number: int, *, now: float) -> None:
        self.shard = shard
        self.number = number
        self.queue: deque[Piece] = deque()
        """Records that no batch holds yet."""
        self.records = 0
        self.size_bytes = 0
        self.pending: deque[Batch] = deque()
        """Batches that were tried, or are parts of one that was: they go before anything in the queue."""
        self.busy: Batch | None = None
        """The batch that runs or is being settled; perhaps one that was begun before the shard went and came back."""
        self.window_from = now
        """Monotonic time from which the batching window counts."""
        self.first_at: float | None = None
        """Monotonic time at which the first record of the queue came; None while it is empty."""
        self.withheld: list[Piece] = []
        """Records read again that are with a batch begun before the shard went: not to be begun a second time."""
        self._held: frozenset[Position] = frozenset()
        self._restoring: deque[_Restoring] = deque()

    @property
    def has_work(self) -> bool:
        """Whether something waits."""
        return bool(self.pending or self.queue)

    def restore(self, span: Span) -> None:
        """Expect the records of a batch that was blocked in a former run."""
        self._restoring.append(_Restoring(span))

    def adopt(self, batch: Batch, positions: frozenset[Position]) -> None:
        """Take a batch over that still runs: the records at these positions are not begun again before it ends."""
        self.busy = batch
        self._held = positions

    def release(self) -> tuple[list[Piece], frozenset[Position]]:
        """The adopted batch has ended: return its records as far as they were read again, and all its positions."""
        pieces, held = self.withheld, self._held
        self.withheld, self._held = [], frozenset()
        self.busy = None
        return pieces, held

    def add(self, piece: Piece) -> None:
        """Queue records, higher than all before."""
        if self._held:
            held = self._held
            withheld, rest = partition([piece], lambda chunk, index: chunk.positions[index] in held)
            self.withheld += withheld
            if not rest:
                return
            (piece,) = rest
        while self._restoring:
            restoring = self._restoring[0]
            last = restoring.span.last
            inside, beyond = partition([piece], lambda chunk, index, last=last: chunk.positions[index] <= last)  # type: ignore[misc]
            restoring.pieces += inside
            if not beyond:
                return
            self._restored()
            (piece,) = beyond
        self.queue.append(piece)
        self.records += len(piece)
        self.size_bytes += piece.size()

    def seen(self, through: Position) -> None:
        """Everything up to there was read: batches of a former run that end before it are whole."""
        while self._restoring and self._restoring[0].span.last <= through:
            self._restored()

    def restore_now(self, *, whole: bool) -> bool:
        """Wait no longer for the rest of the first batch of a former run; whether that has brought one to try.

        `whole`: nothing of any is to come; else the rest is a batch of its own.
        """
        before = len(self.pending)
        while self._restoring and whole:
            self._restored()
        if self._restoring and self._restoring[0].pieces:
            span, pieces = self._restoring[0].span, self._restoring[0].pieces
            self._restoring[0] = _Restoring(replace(span, first=pieces[-1].last + 1, tries=span.tries.copy()))
            self.pending.append(Batch(parts=[Part(lane=self, pieces=pieces)], tries=span.tries))
        return len(self.pending) > before

    def _restored(self) -> None:
        restoring = self._restoring.popleft()
        if restoring.pieces:
            part = Part(lane=self, pieces=restoring.pieces)
            self.pending.append(Batch(parts=[part], tries=restoring.span.tries))

    def take(
        self, *, records_max: int, bytes_max: int, until: Callable[[Chunk, int], bool] | None = None
    ) -> list[Piece]:
        """Take records off the queue: at least one if there is any, within both limits else.

        `until`: stop before the first record it is true for (the next tumbling window).
        """
        taken: list[Piece] = []
        count = size = 0
        while self.queue and count < records_max:
            piece = self.queue[0]
            fits = self._fits(piece, records_max=records_max - count, bytes_max=bytes_max - size, empty=not taken)
            if until is not None:
                fits = _before(piece, fits, until)
            if fits <= 0:
                break
            part = piece if fits == len(piece) else piece.cut(0, fits)
            taken.append(part)
            count += fits
            part_bytes = part.size()
            size += part_bytes
            self.records -= fits
            self.size_bytes -= part_bytes
            if fits == len(piece):
                self.queue.popleft()
            else:
                self.queue[0] = piece.cut(fits, len(piece))
                break
        return taken

    @staticmethod
    def _fits(piece: Piece, *, records_max: int, bytes_max: int, empty: bool) -> int:
        count = min(len(piece), records_max)
        first = piece if count == len(piece) else piece.cut(0, count)
        if first.size() <= bytes_max:
            return count
        size = 0
        for place, fragment in enumerate(first.fragments()):
            size += len(fragment) + 1
            if size > bytes_max:
                return max(place, 1 if empty else 0)
        return count

    def spans(self, *, now_tries: "Callable[[Batch], Tries]") -> list[Span]:
        """Return what is blocked, for the mark's note."""
        spans: list[Span] = []
        batches = [] if self.busy is None or self._held else [self.busy]
        for batch in [*batches, *self.pending]:
            tries = now_tries(batch)
            if not tries.invocations and not tries.setbacks:
                continue
            for part in batch.parts:
                if part.lane is self and part.pieces:
                    first, last = part.pieces[0].first, part.pieces[-1].last
                    spans += [Span(lane=self.number, first=first, last=last, tries=tries)]
        spans += [restoring.span for restoring in self._restoring]
        return spans


def _merged(pairs: Iterable[tuple[Position, Position]]) -> list[tuple[Position, Position]]:
    merged: list[tuple[Position, Position]] = []
    for first, last in sorted(pairs):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return merged


def _holds(ranges: Sequence[tuple[Position, Position]], position: Position) -> bool:
    at = bisect_right(ranges, position, key=lambda pair: pair[0]) - 1
    return at >= 0 and position <= ranges[at][1]


def _before(piece: Piece, fits: int, until: Callable[[Chunk, int], bool]) -> int:
    chunk = piece.track.chunk
    for place in range(fits):
        if until(chunk, piece.indexes[place]):
            return place
    return fits


class ShardWork:
    """One shard that is ours: lanes, finished prefix, and what is to be committed of it."""

    def __init__(self, name: Shard, mark: Mark, *, lanes: int, window_s: int, now: float) -> None:
        self.name = name
        self.epoch = mark.epoch
        self.track = ShardTrack(mark.position)
        self.lanes = [Lane(self, number, now=now) for number in range(lanes)]
        self.is_attached = True
        """False once it was taken away: results release nothing any more."""
        self.is_leaving = False
        """A rebalance takes it: nothing of it is begun any more."""
        self.is_dirty = False
        self.has_ended = False
        self.window = Window.restore(window_s, mark.state) if window_s else None
        note = Note.unpack(mark.note)
        self._skip = _merged(pair for pair in note.finished if pair[1] > mark.position)
        """Ranges that are finished already, wherever they come again: in order, apart from each other."""
        self._finished_to = max((last for _, last in self._skip), default=mark.position)
        """No record behind it is finished, but for those that were filtered out."""
        if note.lanes == lanes:
            for span in note.spans:
                if span.last > mark.position and 0 <= span.lane < lanes:
                    self.lanes[span.lane].restore(span)

    @property
    def is_finished(self) -> bool:
        """Whether nothing follows and nothing is left: of its records, of what is blocked, of its tumbling window."""
        return (
            self.has_ended
            and not self.track.open_records
            and not any(lane.busy is not None or lane.has_work for lane in self.lanes)
            and not (self.window is not None and self.window.is_open)
        )

    def skip(self, positions: Sequence[Position]) -> None:
        """These are finished already."""
        self._skip = _merged([*self._skip, *((position, position) for position in positions)])
        self._finished_to = max(self._finished_to, *positions) if positions else self._finished_to

    def take_in(self, chunk: Chunk, keeps: Keeps | None) -> int:
        """Take a chunk in, filter it, and hand it to the lanes; returns how many records were filtered out."""
        if not len(chunk):
            self.passed(chunk.through)
            return 0
        before = self.track.mark
        kept = self._kept(chunk, keeps)
        track = self.track.add(chunk, kept=kept)
        indexes: Sequence[int] = range(len(chunk)) if kept is None else compact(kept)
        if indexes:
            self._to_lanes(Piece(track, indexes))
        # Nobody asks for them again: the fragments hold all that is sent.
        chunk.keys = chunk.values = ()
        self.passed(chunk.through)
        self.is_dirty = self.is_dirty or self.track.mark != before
        return len(chunk) - len(indexes)

    def passed(self, through: Position) -> None:
        """Nothing up to there is left to come."""
        before = self.track.mark
        self.track.pass_over(through)
        for lane in self.lanes:
            lane.seen(through)
        self.is_dirty = self.is_dirty or self.track.mark != before

    def restore_now(self, *, whole: bool = False) -> bool:
        """Begin with what was read of batches of a former run: see `Lane.restore_now`."""
        begun = [lane.restore_now(whole=whole) for lane in self.lanes]
        return any(begun)

    def _kept(self, chunk: Chunk, keeps: Keeps | None) -> Sequence[int] | None:
        """Return the indexes that are to be handled; None: all."""
        positions = chunk.positions
        kept = None if keeps is None else keeps(chunk)
        if self._skip and self._skip[0][0] <= positions[-1]:
            skip = self._skip
            kept = [
                index for index in (range(len(chunk)) if kept is None else kept) if not _holds(skip, positions[index])
            ]
            self._skip = [pair for pair in skip if pair[1] > positions[-1]]
        return kept

    def _to_lanes(self, piece: Piece) -> None:
        lanes = self.lanes
        if len(lanes) == 1:
            lanes[0].add(piece)
            return
        chunk = piece.track.chunk
        keys, positions, count = chunk.keys, chunk.positions, len(lanes)
        split: list[list[int]] = [[] for _ in lanes]
        for index in piece.indexes:
            key = keys[index]
            # Without a key there is no order to keep: spread by position.
            number = positions[index] % count if key is None else zlib.crc32(key) % count
            split[number].append(index)
        for lane, indexes in zip(lanes, split, strict=True):
            if indexes:
                lane.add(Piece(piece.track, compact(indexes)))

    def finish(self, pieces: Sequence[Piece]) -> None:
        """These records are done with."""
        for piece in pieces:
            self.track.finish(piece)
            self._finished_to = max(self._finished_to, piece.last)
        self.is_dirty = True

    def mark(self, *, now_tries: Callable[[Batch], Tries]) -> Mark:
        """Return what is to be committed now."""
        spans = [span for lane in self.lanes for span in lane.spans(now_tries=now_tries)]
        finished = self.track.finished_above(limit=RANGES_MAX) if self._finished_to > self.track.mark else []
        finished += [pair for pair in self._skip if pair[1] > self.track.mark]
        note = Note(lanes=len(self.lanes), spans=spans, finished=finished).pack()
        return Mark(
            position=self.track.mark,
            epoch=self.epoch,
            note=note,
            state=b"" if self.window is None else self.window.pack(),
            has_ended=self.is_finished,
        )
