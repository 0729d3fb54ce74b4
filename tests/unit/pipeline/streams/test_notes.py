"""The note of a mark: small, and read back as it was written, from the lowest positions on."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.limits import MARK_NOTE_MAX_BYTES
from bridge.pipeline.streams.batch import Tries
from bridge.pipeline.streams.notes import Note, Span
from tests.unit.pipeline.streams.chunks import pure

positions = st.integers(0, 1 << 190)
seconds = st.floats(0, 4e9).map(lambda value: round(value, 3))
tries = st.builds(
    Tries, attempts=st.integers(0, 10_000), invocations=st.integers(0, 1 << 40), setbacks=st.integers(0, 1 << 40),
    failed_at=seconds, due_at=seconds, delay_s=seconds,
)  # fmt: skip
spans = st.builds(Span, lane=st.integers(0, 9), first=positions, last=positions, tries=tries)
notes = st.builds(
    Note, lanes=st.integers(1, 10), spans=st.lists(spans, max_size=40),
    finished=st.lists(st.tuples(positions, positions), max_size=100),
)  # fmt: skip
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 1 << 62)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(("nan", "inf", "-1")),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.sampled_from(("p", "b", "r", "x")), inner),
    max_leaves=10,
)


def told(span: Span) -> tuple[object, ...]:
    kept = span.tries
    return (
        span.lane, span.first, span.last, kept.attempts, kept.invocations, kept.setbacks, kept.failed_at, kept.due_at,
        kept.delay_s,
    )  # fmt: skip


@pure
@given(notes)
def test_what_is_read_back_is_the_front_of_what_was_written(note):
    packed = note.pack()
    read = Note.unpack(packed)

    assert len(packed) <= MARK_NOTE_MAX_BYTES
    assert list(map(told, read.spans)) == list(map(told, note.spans))[: len(read.spans)]
    assert list(read.finished) == list(note.finished)[: len(read.finished)]
    assert not packed or read.lanes == note.lanes


@pure
@given(notes.filter(lambda note: len(note.spans) < 4 and len(note.finished) < 4))
def test_a_few_always_fit(note):
    read = Note.unpack(note.pack())

    assert (len(read.spans), len(read.finished)) == (len(note.spans), len(note.finished))


@pure
@given(st.binary() | json.map(orjson.dumps))
def test_a_note_of_another_program_says_nothing_and_breaks_nothing(packed):
    assert isinstance(Note.unpack(packed), Note)


@pytest.mark.parametrize("time", ["nan", "inf", "-inf", "1e999"])
def test_times_that_are_none_are_not_waited_for(time):
    packed = orjson.dumps({"p": 1, "b": [[0, "0", "1", 1, 1, 1, 0, time, 1]], "r": []})

    assert Note.unpack(packed) == Note()
    assert Note.unpack(packed.replace(b'"1",1,1,1', b'"1",%s,1,1' % time.encode())) == Note()
