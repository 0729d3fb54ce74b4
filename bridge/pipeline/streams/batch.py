"""A batch: the records of one invocation, whose they are, and what was tried so far."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bridge.core.invocation import Attempt, InvocationResult
from bridge.core.stream import Chunk, Position
from bridge.pipeline.streams.track import Piece

if TYPE_CHECKING:
    from bridge.pipeline.streams.lane import Lane

HISTORY_MAX = 5
"""Attempts that a batch remembers for its dead letter."""


@dataclass(slots=True, kw_only=True, eq=False)
class Tries:
    """What was tried with a batch; its parts inherit it when it is split."""

    attempts: int = 0
    """Function errors that used a retry."""
    invocations: int = 0
    """Runs that these records were part of (approximateInvokeCount of semantics 3.10)."""
    setbacks: int = 0
    """Failures in a row of whatever kind, since the last split: what back-off grows with."""
    failed_at: float = 0.0
    """Wall clock of the first failure; 0 when there was none."""
    due_at: float = 0.0
    """Wall clock; 0: now."""
    delay_s: float = 0.0
    reason: str = ""
    """Why it waits, in one line."""
    unsettled: str = ""
    """Why what is given up of it is not durable elsewhere yet."""
    last: InvocationResult | None = None
    history: tuple[Attempt, ...] = ()

    def copy(self) -> "Tries":
        """Return one of its own."""
        return replace(self)


@dataclass(slots=True, kw_only=True, eq=False)
class Part:
    """The records of one lane in a batch."""

    lane: "Lane"
    pieces: list[Piece]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """What one invocation carries; empty only for the last call of a tumbling window."""

    parts: list[Part]
    tries: Tries = field(default_factory=Tries)
    is_final: bool = False
    """The last call of a tumbling window."""
    is_early: bool = False
    """…that ends it early, because its state became too large."""
    due: float = 0.0
    """Monotonic time from which it may run."""
    is_due_known: bool = False
    """False for a batch of a former run whose wait has not been counted anew yet."""

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def pieces(self) -> Iterator[Piece]:
        """All pieces, in order."""
        for part in self.parts:
            yield from part.pieces

    def records(self) -> Iterator[tuple[Chunk, int]]:
        """Yield (chunk, index) of every record, in order."""
        for piece in self.pieces:
            chunk = piece.track.chunk
            for index in piece.indexes:
                yield chunk, index

    def by_lane(self) -> "list[Batch]":
        """Return one batch a lane, with the same history: a split that uses no retry."""
        if len(self.parts) == 1:
            return [self]
        return [Batch(parts=[part], tries=self.tries.copy()) for part in self.parts]

    def split(self, at: int) -> "tuple[Batch, Batch]":
        """Return the first `at` records and the rest, for a batch of one lane."""
        (part,) = self.parts
        first, rest = split_pieces(part.pieces, at)
        return self._of(part.lane, first), self._of(part.lane, rest)

    def only(self, keep: Callable[[Chunk, int], bool]) -> "tuple[Batch, Batch]":
        """Return the records that `keep` wants and the others, lanes kept; either may be empty."""
        wanted: list[Part] = []
        others: list[Part] = []
        for part in self.parts:
            kept, left = partition(part.pieces, keep)
            if kept:
                wanted.append(Part(lane=part.lane, pieces=kept))
            if left:
                others.append(Part(lane=part.lane, pieces=left))
        return Batch(parts=wanted, tries=self.tries.copy()), Batch(parts=others, tries=self.tries.copy())

    def _of(self, lane: "Lane", pieces: list[Piece]) -> "Batch":
        return Batch(parts=[Part(lane=lane, pieces=pieces)], tries=self.tries.copy())


def split_pieces(pieces: Sequence[Piece], at: int) -> tuple[list[Piece], list[Piece]]:
    """Return the first `at` records of `pieces` and the rest."""
    first: list[Piece] = []
    rest: list[Piece] = []
    for piece in pieces:
        room = at - sum(map(len, first)) if not rest else 0
        if room >= len(piece):
            first.append(piece)
        elif room <= 0:
            rest.append(piece)
        else:
            first.append(piece.cut(0, room))
            rest.append(piece.cut(room, len(piece)))
    return first, rest


def partition(pieces: Sequence[Piece], keep: Callable[[Chunk, int], bool]) -> tuple[list[Piece], list[Piece]]:
    """Return the records that `keep` wants and the others."""
    kept: list[Piece] = []
    left: list[Piece] = []
    for piece in pieces:
        chunk = piece.track.chunk
        wanted = [index for index in piece.indexes if keep(chunk, index)]
        if len(wanted) == len(piece):
            kept.append(piece)
        elif not wanted:
            left.append(piece)
        else:
            chosen = set(wanted)
            kept.append(Piece(piece.track, compact(wanted)))
            left.append(Piece(piece.track, compact([index for index in piece.indexes if index not in chosen])))
    return kept, left


def compact(indexes: Sequence[int]) -> Sequence[int]:
    """Return rising indexes as a range where they follow each other: cheaper to slice."""
    if indexes and indexes[-1] - indexes[0] + 1 == len(indexes):
        return range(indexes[0], indexes[-1] + 1)
    return indexes


def span(pieces: Sequence[Piece]) -> tuple[Position, Position]:
    """Return the first and the last position."""
    return pieces[0].first, pieces[-1].last
