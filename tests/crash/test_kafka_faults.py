"""Brokers that go away, a daemon that stands still, a full disk, a slow handler: nothing is lost, and it goes on by itself."""

import os
import signal
import time

import pytest

from bridge.core import limits
from tests.crash import ledger
from tests.crash.kafka_rig import BATCH_SIZE, IS_FULL, PARTITIONS, SESSION_S, keeps_its_membership, share
from tests.harness import wait_for
from tests.integration.test_disk import SmallDisk

pytestmark = [pytest.mark.crash, pytest.mark.apache_kafka("expulsion of members that died"), pytest.mark.timeout(600)]

RATE = 300
REPEATS = limits.COMMIT_RECORDS + 2 * PARTITIONS * BATCH_SIZE
"""Of one member that the group gave up."""
SMALL = "journal = { segment_mb = 8, ballast_mb = 4, low_water_mb = 2 }"


@pytest.mark.parametrize("away_s", [10.0, 60.0] if IS_FULL else [5.0])
def test_a_broker_that_was_killed_and_comes_back(kafka_broker, new_kafka_rig, away_s) -> None:
    broker = kafka_broker()
    run = new_kafka_rig(bootstrap=broker.bootstrap)
    daemon = run.daemon(session_s=None)
    daemon.start()
    with run.load(rate=RATE, poison=0.002) as load:
        with run.heals(records=300):
            pass
        broker.kill()
        time.sleep(away_s)
        assert daemon.is_running()
        before = time.monotonic()
        with run.heals(records=300):
            broker.start()
            started_s = time.monotonic() - before
        load.until(1000)
    resumed_s = run.healed_s[-1] - started_s

    verdict = run.judge()
    print(f"{away_s:g} s away: handled again {resumed_s:.2f} s after Kafka had started")

    assert verdict["valid"]
    assert verdict["duplicated"] <= REPEATS


def test_a_daemon_that_stands_still_commits_nothing_late(kafka_rig) -> None:
    """Its workers go on while it is stopped; meanwhile the other daemon has its shards."""
    run = kafka_rig()
    session_s = None if IS_FULL else SESSION_S
    still, other = (run.daemon(record_s=0.005, session_s=session_s) for _ in range(2))
    still.start()
    other.start()
    with run.load(rate=RATE, poison=0.002) as load:
        with run.heals(records=300):
            pass
        # Stopped in the middle of a division, it would hear of that one when it wakes, and not that it was missed.
        wait_for(lambda: share(still) == share(other) == PARTITIONS // 2, description="each has its share")
        os.kill(still.pid, signal.SIGSTOP)
        try:
            wait_for(lambda: len(run.outside.members()) == 1, description="it is missed")
            with run.heals(records=300):
                pass
        finally:
            os.kill(still.pid, signal.SIGCONT)
        with run.heals(records=300):
            pass
        wait_for(lambda: "shards_lost" in still.log(), description="it knows that it was missed")
        load.until(1000)

    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["duplicated"] <= REPEATS


def test_dead_letters_that_find_the_disk_full_hold_their_records_open(kafka_rig, tmp_path) -> None:
    run = kafka_rig()
    disk = SmallDisk(tmp_path / "disk", 24)
    try:
        daemon = run.daemon(settings=SMALL, state=disk.folder / "state")
        daemon.start()
        with run.load(rate=100, poison=0.3):
            with run.heals(records=50):
                pass
            filled = fill(disk, until=lambda: "batch_unsettled" in daemon.log())
            time.sleep(2)
            run.kill(daemon)  # and what was not taken is not forgotten
            (disk.folder / "fill").unlink()
            with run.heals(records=50):
                daemon.restart()

        verdict = run.judge()
        print(f"{filled:,} bytes filled the disk")

        assert verdict["dlq"] > 0
        assert verdict["valid"]
        assert verdict["lost"] == 0
    finally:
        for daemon in run.daemons:
            daemon.stop()
        disk.close()


def fill(disk: SmallDisk, *, until) -> int:
    """Take what is free, again and again (the daemon has a ballast to let go), until something has shown."""

    def has_shown() -> bool:
        with (disk.folder / "fill").open("ab", buffering=0) as file:
            try:
                while file.write(b"x" * 65536) == 65536:
                    pass
            except OSError:
                pass
        return until()

    wait_for(has_shown, 120, "the full disk shows")
    return (disk.folder / "fill").stat().st_size


def test_a_handler_slower_than_the_poll_interval_costs_no_membership(kafka_rig) -> None:
    run = kafka_rig(batch_size=20)

    assert keeps_its_membership(run)

    verdict = run.judge()
    assert verdict["valid"]
    assert verdict["duplicated"] == 0
    assert len(ledger.load(run.server.path)) == verdict["acked"]
