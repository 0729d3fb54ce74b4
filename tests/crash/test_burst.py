"""Ten times more than a slow handler takes, for a minute: memory stays flat, intake pushes back, nothing is lost."""

import threading
import time

import pytest

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(900)]

BURST_S = 60.0
HANDLER_S = 1.0
RSS_MAX_MIB = 256
WORKERS = 16
# A lane small enough that the burst fills it: what the handler takes in the minute, and half as much again.
LANE_EVENTS_MAX = int(1.5 * BURST_S * WORKERS / HANDLER_S / 2)


def test_a_burst_is_pushed_back_and_what_was_accepted_is_handled(rig) -> None:
    run = rig(workers=WORKERS, settings=f"journal = {{ lane_events_max = {LANE_EVENTS_MAX} }}")
    run.daemon.start()
    samples: list[float] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.5):
            samples.append(run.daemon.rss_mib())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    per_second = 10 * WORKERS / HANDLER_S
    threads = 32
    with run.load(threads=threads, sleep_s=HANDLER_S, pause_s=threads / per_second):
        time.sleep(BURST_S)
    run.drain(timeout_s=600)
    stop.set()
    sampler.join()

    verdict = run.judge()
    print(f"RSS max {max(samples):.0f} MiB over {len(samples)} samples; pushed back {verdict['pushed_back']}")

    assert verdict["valid"]
    assert verdict["duplicated"] == 0
    assert verdict["pushed_back"] > 0
    assert verdict["handled_ok"] == verdict["acked"]
    assert max(samples) <= RSS_MAX_MIB
