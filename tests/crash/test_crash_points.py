"""The daemon ends at each named step: nothing is lost, and how often an event runs is known beforehand."""

import time

import pytest

from tests.crash import ledger
from tests.crash.rig import WORKERS
from tests.harness import wait_for

pytestmark = [pytest.mark.crash]

STEPS = {
    # step: runs of the one event that was in flight, least and most
    "journal.written": (0, 1),  # written, not synced, not acknowledged: it may come out, once
    "intake.committed": (1, 1),  # stored, the sender got no answer: it comes out once
    "delivery.handled": (2, 2),  # handled, the outcome not written: it runs again, once
}


@pytest.mark.parametrize("step", STEPS)
def test_one_event_in_flight_runs_as_often_as_stated(rig, step) -> None:
    run = rig()
    run.daemon.start(BRIDGE_CRASH_AT=step)

    run.post()
    assert run.daemon.wait(60) == 137
    run.daemon.restart()
    verdict = run.judge()

    least, most = STEPS[step]
    assert verdict["valid"]
    assert least <= run.server.lines <= most


def test_a_dead_letter_before_its_parked_row_goes_is_one_dead_letter(rig) -> None:
    run = rig()
    run.daemon.start(BRIDGE_CRASH_AT="delivery.dead_letter")

    assert run.post(poison=True) == "ok"
    assert run.daemon.wait(60) == 137
    run.daemon.restart()
    verdict = run.judge()

    assert verdict["valid"]
    assert (1, 0, 0) == (verdict["dlq"], verdict["dlq_duplicated"], verdict["in_both"])
    assert 3 <= run.server.lines <= 4, "three attempts, and at most one more after the crash"


@pytest.mark.parametrize("step", [*STEPS, "delivery.dead_letter"])
def test_under_load_repeats_stay_within_what_was_running(rig, step) -> None:
    run = rig()
    passes = run.random.randrange(5, 60) if step != "delivery.dead_letter" else run.random.randrange(1, 5)
    run.daemon.start(BRIDGE_CRASH_AT=f"{step}:{passes}")

    with run.load(threads=6, poison=0.1, sleep_s=0.005):
        assert run.daemon.wait(60) == 137
        run.daemon.restart()
        healed = run.server.lines
        wait_for(lambda: run.server.lines > healed + 50, description="events flow again")
        time.sleep(0.2)
    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["duplicated"] <= 2 * WORKERS, "one running and one unread a worker"
    assert verdict["dlq_duplicated"] == 0
    assert len(ledger.load(run.server.path)) == run.server.lines
