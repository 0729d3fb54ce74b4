"""The crash tests are tested: a daemon with a planted fault must be caught by the same judge."""

import pytest

from tests.harness import ROOT, wait_for

pytestmark = [pytest.mark.crash]

LAUNCHER = str(ROOT / "tests" / "crash" / "mutants" / "launch.py")


def test_acknowledging_before_the_commit_is_caught(rig) -> None:
    run = rig(command=(LAUNCHER, "acknowledge_before_commit"))
    run.daemon.start()
    with run.load(threads=6):
        for _ in range(4):
            run.more(50)
            run.kill_and_restart()

    verdict = run.judge()

    assert verdict["lost"] > 0
    assert not verdict["valid"]


def test_dropping_on_a_full_queue_is_caught(rig) -> None:
    run = rig(command=(LAUNCHER, "drop_on_full_queue"))
    run.daemon.start()
    with run.load(threads=6):
        run.more(1000)

    verdict = run.judge()

    assert verdict["lost"] > 0
    assert not verdict["valid"]


def test_not_awaiting_the_dead_letter_is_caught(rig) -> None:
    run = rig(command=(LAUNCHER, "dead_letter_not_awaited"))
    run.daemon.start()
    with run.load(threads=4, poison=1.0, pause_s=0.02):
        for _ in range(3):
            handled = run.server.lines
            wait_for(lambda handled=handled: run.server.lines > handled + 150, description="some have died")
            run.kill_and_restart()

    verdict = run.judge()

    assert verdict["lost"] > 0
    assert not verdict["valid"]


def test_the_same_runs_without_a_fault_are_valid(rig) -> None:
    run = rig(command=(LAUNCHER, "none"))
    run.daemon.start()
    with run.load(threads=6, poison=0.2):
        run.more(200)
        run.kill_and_restart()

    assert run.judge()["valid"]
