"""The note of a mark: attempts and due times of what is blocked, and what is finished above the gap, as small JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bridge.core import limits
from bridge.core.stream import Position
from bridge.pipeline.streams.batch import Tries

RANGES_MAX: Final = 64
SPANS_MAX: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A batch that waits for another try: the records of a lane from `first` to `last`."""

    lane: int
    first: Position
    last: Position
    tries: Tries


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a note holds."""

    lanes: int = 1
    """How many lanes the shard was split in: spans of another number of lanes say nothing."""
    spans: Sequence[Span] = ()
    finished: Sequence[tuple[Position, Position]] = field(default_factory=tuple)
    """Ranges above the mark in which all is finished, first and last position."""

    def pack(self) -> bytes:
        """Return it as JSON of at most MARK_NOTE_MAX_BYTES: of what does not fit, the highest positions are left out.

        What is left out costs a repeated record or a forgotten attempt, never a lost one.
        """
        if not self.spans and not self.finished:
            return b""
        spans, finished = list(self.spans[:SPANS_MAX]), list(self.finished[:RANGES_MAX])
        while True:
            packed = orjson.dumps(
                {"p": self.lanes, "b": [_packed(span) for span in spans], "r": [[str(a), str(b)] for a, b in finished]}
            )
            if len(packed) <= limits.MARK_NOTE_MAX_BYTES:
                return packed
            if finished:
                del finished[len(finished) // 2 :]
            else:
                spans.pop()

    @classmethod
    def unpack(cls, packed: bytes) -> "Note":
        """Return what `pack` made; anything else (another program's commit) is an empty note."""
        try:
            data = orjson.loads(packed) if packed else {}
            return cls(
                lanes=int(data.get("p", 1)),
                spans=tuple(_span(item) for item in data.get("b", ())),
                finished=tuple((int(first), int(last)) for first, last in data.get("r", ())),
            )
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError):
            return cls()


def _packed(span: Span) -> list[Any]:
    tries = span.tries
    # Positions as text: they may exceed 64 bits.
    return [
        span.lane, str(span.first), str(span.last), tries.attempts, tries.invocations, tries.setbacks,
        round(tries.failed_at, 3), round(tries.due_at, 3), round(tries.delay_s, 3),
    ]  # fmt: skip


def _span(item: list[Any]) -> Span:
    lane, first, last, attempts, invocations, setbacks, failed_at, due_at, delay_s = item
    if not all(math.isfinite(float(time)) for time in (failed_at, due_at, delay_s)):
        raise ValueError("no time")
    return Span(
        lane=int(lane),
        first=int(first),
        last=int(last),
        tries=Tries(
            attempts=int(attempts),
            invocations=int(invocations),
            setbacks=int(setbacks),
            failed_at=float(failed_at),
            due_at=float(due_at),
            delay_s=float(delay_s),
            reason="was blocked before",
        ),
    )
