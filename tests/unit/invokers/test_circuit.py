"""When a remote is asked: back-off, one probe, throttles as a limit; time is a number here."""

import random

import pytest

from bridge.core import limits
from bridge.invokers.circuit import Circuit


@pytest.fixture
def circuit():
    return Circuit(random.Random(1))


def fail(circuit, now, *, is_certain=True, ask=None):
    ask = ask or circuit.begin()
    circuit.failed(ask, now, "gone", is_certain=is_certain)
    circuit.end(ask)


def answer(circuit, ask=None):
    ask = ask or circuit.begin()
    circuit.answered()
    circuit.end(ask)


def test_closed_lets_all_pass(circuit):
    assert limits.REMOTE_CONNECTIONS_MAX == circuit.room(0.0)
    circuit.begin()
    assert limits.REMOTE_CONNECTIONS_MAX - 1 == circuit.room(0.0)


def test_nobody_there_opens_it_at_once_and_one_alone_tries_again(circuit):
    fail(circuit, 10.0)

    assert (0, 1) == (circuit.room(10.0), circuit.room(circuit.held_until))
    assert "gone; asked again in 1 s" == circuit.hindrance(10.0)
    probe = circuit.begin()
    assert 0 == circuit.room(circuit.held_until)
    assert "gone; one invocation tries it now" == circuit.hindrance(circuit.held_until)
    answer(circuit, probe)
    assert ("", limits.REMOTE_CONNECTIONS_MAX) == (circuit.hindrance(11.0), circuit.room(11.0))


def test_system_errors_open_it_after_some_in_a_row(circuit):
    for _ in range(limits.REMOTE_FAILURES_MAX - 1):
        fail(circuit, 1.0, is_certain=False)
    answer(circuit)
    for _ in range(limits.REMOTE_FAILURES_MAX - 1):
        fail(circuit, 1.0, is_certain=False)

    assert circuit.room(1.0) > 0
    fail(circuit, 1.0, is_certain=False)
    assert 0 == circuit.room(1.0)


def test_backs_off_from_a_second_to_five_minutes_with_jitter(circuit):
    now, waits = 0.0, []
    for _ in range(15):
        fail(circuit, now)
        waits.append(circuit.held_until - now)
        now = circuit.held_until

    assert all(max(1.0, 2**n / 2) <= wait <= 2**n for n, wait in enumerate(waits[:9]))
    assert all(150 <= wait <= 300 for wait in waits[9:])


def test_what_was_sent_before_it_opened_may_fail_without_lengthening_the_wait(circuit):
    asks = [circuit.begin() for _ in range(200)]
    for ask in asks:
        fail(circuit, 5.0, ask=ask)

    assert circuit.held_until <= 6.0


def test_what_was_sent_before_it_opened_may_close_it(circuit):
    late = circuit.begin()
    fail(circuit, 5.0)
    answer(circuit, late)

    assert circuit.room(5.0) > 0


def test_a_probe_that_vanishes_leaves_room_for_another(circuit):
    fail(circuit, 0.0)
    circuit.end(circuit.begin())

    assert 1 == circuit.room(circuit.held_until)


class TestThrottles:
    def test_what_was_not_throttled_is_the_limit(self, circuit):
        asks = [circuit.begin() for _ in range(100)]
        for ask in asks[10:]:
            circuit.throttled(1.0, retry_after_s=None, reason="R")
            circuit.end(ask)

        assert (10, 0) == (circuit.running, circuit.room(1.0))
        assert "" == circuit.hindrance(1.0)
        answer(circuit, asks[0])
        assert 1 == circuit.room(1.0)

    def test_one_more_for_each_round_of_answers_and_forgotten_after_a_minute(self, circuit):
        asks = [circuit.begin() for _ in range(5)]
        circuit.throttled(1.0, retry_after_s=None, reason="R")
        circuit.end(asks.pop())
        for ask in asks:
            answer(circuit, ask)
        answer(circuit)

        assert 5 == circuit.room(1.0)
        assert limits.REMOTE_CONNECTIONS_MAX == circuit.room(62.0)

    def test_alone_and_throttled_backs_off_and_then_tries_one(self, circuit):
        waits, now = [], 0.0
        for _ in range(10):
            ask = circuit.begin()
            circuit.throttled(now, retry_after_s=None, reason="ConcurrentInvocationLimitExceeded")
            circuit.end(ask)
            waits.append(circuit.held_until - now)
            now = circuit.held_until

        assert waits[0] == 1.0
        assert 150 <= waits[9] <= 300
        assert 0 == circuit.room(now - 0.1)
        assert circuit.hindrance(now - 0.1).startswith("throttled (ConcurrentInvocationLimitExceeded); asked again in")

    def test_retry_after_is_kept_to(self, circuit):
        others = [circuit.begin() for _ in range(3)]
        ask = circuit.begin()
        circuit.throttled(0.0, retry_after_s=7.0, reason="")
        circuit.end(ask)
        answer(circuit, others[0])

        assert (0, 7.0) == (circuit.room(6.9), circuit.held_until)
        assert circuit.room(7.0) > 0
