"""Many records of one segment at once: one read, one checksum a frame, a Record only for whom looks at one."""

from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import overload

import structlog

from bridge.core.record import Record
from bridge.journal.frames import Span, unpack
from bridge.journal.segment import Segment

log = structlog.get_logger("bridge.journal")


class Chunk(Sequence[Record]):
    """Records whose checksums hold, as columns."""

    __slots__ = ("_base", "_frames", "_spans")

    def __init__(self, base: int, spans: list[Span], frames: list[memoryview]) -> None:
        self._base = base
        self._spans = spans
        self._frames = frames

    @property
    def positions(self) -> list[int]:
        """Journal positions."""
        return [self._base | offset for offset, _, _ in self._spans]

    @property
    def payloads(self) -> list[memoryview]:
        """Payloads, as views into what was read."""
        return [
            frame[length - size :] for (_, length, size), frame in zip(self._spans, self._frames, strict=True)
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return Chunk(self._base, self._spans[index], self._frames[index])
        return unpack(self._frames[index], position=self._base | self._spans[index][0])

    def __iter__(self) -> Iterator[Record]:
        for (offset, _, _), frame in zip(self._spans, self._frames, strict=True):
            yield unpack(frame, position=self._base | offset)


def read_chunk(
    segment: Segment, spans: list[Span], *, selects: Callable[[memoryview], bool] | None, reverse: bool
) -> Chunk:
    """Return the records at `spans`, in rising order, that `selects`; damaged ones are left out and reported.

    Raises:
        FileNotFoundError: retention took the segment meanwhile.
    """
    found = segment.frames(spans)
    frames = [frame for frame in found if frame is not None]
    if len(frames) < len(found):
        damaged = [span for span, frame in zip(spans, found, strict=True) if frame is None]
        log.error("records_unreadable", segment=segment.path.name, offset=damaged[0][0], records=len(damaged))
        spans = [span for span, frame in zip(spans, found, strict=True) if frame is not None]
    if selects is not None:
        wanted = [selects(frame) for frame in frames]
        spans, frames = list(compress(spans, wanted)), list(compress(frames, wanted))
    return Chunk(segment.base, spans[::-1], frames[::-1]) if reverse else Chunk(segment.base, spans, frames)
