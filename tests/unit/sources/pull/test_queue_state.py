"""What an embedded queue holds of its messages: no more than there are, however many have gone through it."""

from bridge.sources.pull.queue_state import STALE_MAX, Entry, QueueState


def message(position):
    return Entry(position=position, id=str(position), body=b"", fragment=b"{}")


def taken(state, now):
    return [entry.position for entry in state.take(10, now=now, until=43_200.0)]


def test_times_of_finished_messages_are_let_go_and_no_other_is_forgotten():
    state = QueueState(is_fifo=False, mark=0)
    state.add(message(1))
    state.hide(state.get(1), 500.0)
    for position in range(2, 3 * STALE_MAX):
        state.add(message(position))
        assert taken(state, 1.0) == [position]
        assert len(state._hidden) <= 2 * len(state) + STALE_MAX
        state.finish(state.get(position))
    assert taken(state, 600.0) == [1]


def test_one_that_was_made_visible_again_and_again_is_given_once():
    state = QueueState(is_fifo=False, mark=0)
    state.add(message(1))
    assert taken(state, 1.0) == [1]
    for _ in range(2 * STALE_MAX):
        state.hide(state.get(1), 0.0)
    assert len(state._hidden) <= 2 * len(state) + STALE_MAX
    assert taken(state, 2.0) == [1]
    assert taken(state, 3.0) == []
