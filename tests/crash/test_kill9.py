"""kill -9 at random moments under load: nothing acknowledged is lost, repeats stay within the stated bound."""

import os
import subprocess
import sys
import time

import pytest

from bridge.runtime.fleet import AHEAD_DEPTH_MAX
from tests.crash.rig import WORKERS
from tests.harness import ROOT

KILLS = int(os.environ.get("BRIDGE_CRASH_KILLS", "20"))

# Per kill: what the workers had been given and had not yet reported (architecture, "How much can be handled
# twice"). This handler takes about a millisecond, so a worker may have been sent up to the depth ahead.
REPEATS_PER_KILL = AHEAD_DEPTH_MAX * WORKERS
# A handler this slow is sent nothing ahead: one event running a worker, and one whose answer was not yet read.
SLOW_S = 0.005
SLOW_REPEATS_PER_KILL = 2 * WORKERS

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]


def test_random_kills_under_load_lose_nothing(rig) -> None:
    run = rig()
    run.daemon.start()
    with run.load(threads=6, poison=0.02):
        for number in range(KILLS):
            time.sleep(run.random.uniform(0.05, 0.6))
            # Every third daemon is killed again before it had the time to become ready.
            run.kill_and_restart(ready=number % 3 != 2)
        run.daemon.wait_ready()
        time.sleep(0.3)

    verdict = run.judge()

    assert verdict["acked"] >= min(1000, 50 * KILLS), "too little landed to say anything"
    assert (0, 0, 0) == (verdict["lost"], verdict["unexpected"], verdict["rejected_but_handled"])
    assert verdict["valid"]
    assert verdict["duplicated"] <= KILLS * REPEATS_PER_KILL
    assert verdict["dlq_duplicated"] == 0


def test_kills_repeat_only_what_was_running_of_a_slower_function(rig) -> None:
    run = rig()
    run.daemon.start()
    kills = max(3, KILLS // 4)
    with run.load(threads=6, sleep_s=SLOW_S):
        for _ in range(kills):
            time.sleep(run.random.uniform(0.3, 0.6))
            run.kill_and_restart()

    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["duplicated"] <= kills * SLOW_REPEATS_PER_KILL


def test_without_a_fault_nothing_is_handled_twice(rig) -> None:
    run = rig()
    run.daemon.start()
    with run.load(threads=6, poison=0.02):
        time.sleep(3)

    verdict = run.judge()

    assert verdict["valid"]
    assert (0, 0, 0) == (verdict["duplicated"], verdict["dlq_duplicated"], verdict["in_both"])


def test_sigterm_under_load_loses_and_repeats_nothing(rig) -> None:
    run = rig()
    run.daemon.start()
    with run.load(threads=4, poison=0.02):
        for _ in range(max(3, KILLS // 4)):
            time.sleep(run.random.uniform(0.1, 0.6))
            before = time.monotonic()
            assert run.daemon.terminate(30) == 0, run.daemon.log_tail()
            assert time.monotonic() - before <= 26
            run.daemon.restart()

    verdict = run.judge()

    assert verdict["valid"]
    assert (0, 0) == (verdict["duplicated"], verdict["dlq_duplicated"])


def test_a_second_daemon_on_the_same_state_folder_is_refused(rig) -> None:
    run = rig()
    run.daemon.start()
    environment = {k: v for k, v in os.environ.items() if k != "BRIDGE_STATE"} | {"BRIDGE_STATE": str(run.daemon.state)}

    second = subprocess.run(
        [sys.executable, "-m", "bridge", "run", str(run.daemon.file)],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert second.returncode == 2, second.stdout + second.stderr
    assert str(run.daemon.pid) in second.stderr + second.stdout
    assert run.post() == "ok"
