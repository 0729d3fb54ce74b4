"""Many records of one segment at once: one read, one checksum a frame, a Record only for whom looks at one."""

from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import overload

import structlog

from bridge.core.ports import SourcePage
from bridge.core.record import Record
from bridge.journal.frames import Span, id_text, stream_head, unpack
from bridge.journal.segment import Segment

log = structlog.get_logger("bridge.journal")


class Chunk(Sequence[Record]):
    """Records whose checksums hold, as columns."""

    __slots__ = ("_base", "_read", "_spans", "damaged")

    def __init__(
        self, base: int, spans: list[Span], read: list[tuple[memoryview, int]], damaged: Sequence[int] = ()
    ) -> None:
        self._base = base
        self._spans = spans
        self._read = read
        """For each span the bytes that were read, and the offset at which they begin."""
        self.damaged = damaged
        """Journal positions of what was left out: it lies among them and its checksum does not hold."""

    @property
    def positions(self) -> list[int]:
        """Journal positions."""
        return [self._base | offset for offset, _, _ in self._spans]

    @property
    def payloads(self) -> list[memoryview]:
        """Payloads, as views into what was read."""
        return [
            view[offset + length - size - begin : offset + length - begin]
            for (offset, length, size), (view, begin) in zip(self._spans, self._read, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return Chunk(self._base, self._spans[index], self._read[index])
        return unpack(_frame(self._spans[index], self._read[index]), position=self._base | self._spans[index][0])

    def __iter__(self) -> Iterator[Record]:
        for span, read in zip(self._spans, self._read, strict=True):
            yield unpack(_frame(span, read), position=self._base | span[0])


def read_chunk(
    segment: Segment, spans: list[Span], *, selects: Callable[[memoryview], bool] | None, reverse: bool
) -> Chunk:
    """Return the records at `spans`, in rising order, that `selects`; damaged ones are left out and reported.

    Raises:
        FileNotFoundError: retention took the segment meanwhile.
    """
    spans, read, offsets = _load(segment, spans)
    damaged = [segment.base | offset for offset in offsets]
    if selects is not None:
        wanted = [selects(_frame(span, each)) for span, each in zip(spans, read, strict=True)]
        spans, read = list(compress(spans, wanted)), list(compress(read, wanted))
    if reverse:
        spans, read = spans[::-1], read[::-1]
    return Chunk(segment.base, spans, read, damaged)


def read_columns(segment: Segment, spans: list[Span], *, source: str, page: SourcePage) -> None:
    """Append the records at `spans` that are of `source` to a page; damaged ones apart.

    Raises:
        FileNotFoundError: retention took the segment meanwhile.
    """
    spans, read, damaged = _load(segment, spans)
    for offset in damaged:
        record = segment.salvage(offset)
        # A name that does not fit the index any more is left empty: better a dead letter too many than a loss.
        if record is not None and record.source in {"", source}:
            page.damaged.append(record)
    base, begins_with = segment.base, len(encoded := source.encode())
    for (offset, length, size), (view, begin) in zip(spans, read, strict=True):
        at = offset - begin
        received_ms, raw_id, source_at, source_n, key_at, key_n = stream_head(view, at)
        if source_n != begins_with or view[source_at : source_at + source_n] != encoded:
            continue  # another name of the same hash
        page.positions.append(base | offset)
        page.times_ms.append(received_ms)
        page.ids.append(id_text(raw_id))
        page.keys.append(bytes(view[key_at : key_at + key_n]) if key_n else b"")
        page.payloads.append(bytes(view[at + length - size : at + length]))


def _load(segment: Segment, spans: list[Span]) -> tuple[list[Span], list[tuple[memoryview, int]], list[int]]:
    """Return the spans that are whole, what was read for each, and the offsets of the damaged ones."""
    offsets = list[int]()
    read, damaged = segment.load(spans)
    if damaged:
        log.error(
            "records_unreadable", segment=segment.path.name, offset=spans[damaged[0]][0], records=len(damaged)
        )  # fmt: skip
        bad, offsets = frozenset(damaged), [spans[number][0] for number in damaged]
        spans = [span for number, span in enumerate(spans) if number not in bad]
        read = [each for number, each in enumerate(read) if number not in bad]
    return spans, read, offsets


def _frame(span: Span, read: tuple[memoryview, int]) -> memoryview:
    view, begin = read
    return view[span[0] - begin : span[0] - begin + span[1]]
