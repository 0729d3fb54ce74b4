"""kill -9 and SIGTERM at random moments under load: nothing acknowledged is lost, repeats stay within the bound."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from bridge.runtime.fleet import AHEAD_DEPTH_MAX
from tests.crash.rig import WORKERS
from tests.harness import ROOT

KILLS = int(os.environ.get("BRIDGE_CRASH_KILLS", "20"))
STOPS = int(os.environ.get("BRIDGE_CRASH_STOPS", "5"))

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
        run.more(max(300, 1000 - run.acked))

    verdict = run.judge()

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
        run.more(1000)

    verdict = run.judge()

    assert verdict["valid"]
    assert (0, 0, 0) == (verdict["duplicated"], verdict["dlq_duplicated"], verdict["in_both"])


def test_sigterm_at_random_moments_loses_and_repeats_nothing(rig) -> None:
    """Fast and slow invocations, retries that are parked, and clients that never end their request."""
    run = rig()
    run.daemon.start()
    took_s = []
    with run.load(threads=3, poison=0.05), run.load(threads=2, sleep_s=0.3, pause_s=0.25):
        for number in range(STOPS):
            time.sleep(run.random.uniform(0.0, 0.8))
            with half_a_request(run.public):
                before = time.monotonic()
                assert run.daemon.terminate() == 0, run.daemon.log_tail()
                took_s.append(time.monotonic() - before)
            if number % 5 == 4:  # one that is stopped while it starts: before it listens for signals, or after
                run.daemon.start(ready=False)
                time.sleep(run.random.uniform(0.0, 0.6))
                assert run.daemon.terminate() in (0, -signal.SIGTERM), run.daemon.log_tail()
            run.daemon.restart()
        run.more(max(1, 20 * STOPS - run.acked))

    verdict = run.judge()
    print(f"{STOPS} times SIGTERM; ended after {sorted(took_s)[STOPS // 2]:.2f} s, at most {max(took_s):.2f} s")

    assert (0, 0, 0) == (verdict["lost"], verdict["unexpected"], verdict["rejected_but_handled"])
    assert verdict["valid"]
    assert (0, 0) == (verdict["duplicated"], verdict["dlq_duplicated"])


@contextlib.contextmanager
def half_a_request(port: int) -> Iterator[None]:
    """A client that sends a head and half a body, and says no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"POST /load HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        yield


def test_a_second_daemon_on_the_same_state_folder_is_refused(rig) -> None:
    run = rig()
    run.daemon.start()
    environment = {k: v for k, v in os.environ.items() if k != "BRIDGE_STATE"} | {"BRIDGE_STATE": str(run.daemon.state)}

    second = subprocess.run(
        [sys.executable, "-m", "bridge", "run", str(run.daemon.file)],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert second.returncode == 2, second.stdout + second.stderr
    assert str(run.daemon.pid) in second.stderr + second.stdout
    assert run.post() == "ok"
