"""kill -9 at random moments under load: nothing acknowledged is lost, repeats stay within the stated bound."""

import os
import subprocess
import sys
import time

import pytest

from tests.crash.rig import WORKERS
from tests.harness import ROOT

KILLS = int(os.environ.get("BRIDGE_CRASH_KILLS", "20"))

# Per kill: what was running, and what ended within one pass of the loop (architecture, "How much can be
# handled twice"): each of the workers may have had one event running and one answer unread.
REPEATS_PER_KILL = 2 * WORKERS

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

    assert verdict["acked"] >= 1000, "too little landed to say anything"
    assert (0, 0, 0) == (verdict["lost"], verdict["unexpected"], verdict["rejected_but_handled"])
    assert verdict["valid"]
    assert verdict["duplicated"] <= KILLS * REPEATS_PER_KILL
    assert verdict["dlq_duplicated"] == 0


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
