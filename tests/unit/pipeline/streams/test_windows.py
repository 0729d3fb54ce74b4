"""Tumbling windows: aligned, restored as they were, closed only by what is later."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.limits import WINDOW_STATE_MAX_BYTES
from bridge.pipeline.streams.windows import EMPTY, Window
from tests.unit.pipeline.streams.chunks import pure

lengths = st.integers(1, 900)
times = st.integers(0, 4_000_000_000_000).map(lambda time_ms: time_ms / 1000)


@pure
@given(lengths, times, times)
def test_a_record_is_inside_the_window_that_it_opens(length_s, first, other):
    window = Window(length_s)
    window.open_for(first)

    assert window.start % length_s == 0
    assert window.start <= first < window.end
    assert not window.is_later(first)
    assert window.is_later(other) == (other // length_s > first // length_s)


@pure
@given(lengths, times, st.sampled_from((b"{}", b'{"n":1}', b'{"x":"' + b"y" * WINDOW_STATE_MAX_BYTES + b'"}')))
def test_it_is_restored_as_it_was(length_s, time, state):
    window = Window(length_s)
    window.open_for(time)
    window.answered(state, is_final=False, is_early=False)
    again = Window.restore(length_s, window.pack())

    assert (again.is_open, again.start, again.state) == (True, window.start, state)
    assert again.needs_early_end == (len(state) > WINDOW_STATE_MAX_BYTES)
    again.answered(None, is_final=True, is_early=again.needs_early_end)
    assert again.state == EMPTY
    assert again.is_open == window.needs_early_end
    assert not again.needs_early_end
