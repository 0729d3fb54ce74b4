"""Members come and go with records in flight, some by SIGKILL: lost 0, and where nobody was killed nothing repeats."""

import time

import pytest

from bridge.core import limits
from tests.crash.kafka_rig import BATCH_SIZE, IS_FULL, PARTITIONS, SESSION_S, assignments, outlive_a_rebalance

pytestmark = [pytest.mark.crash, pytest.mark.apache_kafka("expulsion of members that died"), pytest.mark.timeout(900)]

REBALANCES = 50 if IS_FULL else 10
RATE = 500
REPEATS_PER_KILL = limits.COMMIT_RECORDS + 2 * PARTITIONS * BATCH_SIZE


def test_members_that_join_and_leave_repeat_nothing(kafka_rig) -> None:
    """A foreign member comes and goes; a second daemon does so, too, by SIGTERM."""
    run = kafka_rig(mapping="")
    first, second = (run.daemon(record_s=0.002, session_s=8.0) for _ in range(2))
    first.start()
    with run.load(rate=RATE, poison=0.002) as load:
        with run.heals():
            pass
        while assignments(first) < REBALANCES:
            with run.outside.member(SESSION_S):
                time.sleep(run.random.uniform(0.0, 0.3))
            if run.random.random() < 0.25:
                second.start()
                time.sleep(run.random.uniform(0.0, 0.5))
                assert second.terminate() == 0
            with run.heals():
                pass
        load.until(1000)

    verdict = run.judge()

    assert verdict["valid"]
    assert (0, 0) == (verdict["duplicated"], verdict["dlq_duplicated"])


def test_members_that_are_killed_repeat_what_was_not_committed(kafka_rig) -> None:
    run = kafka_rig()
    daemons = [run.daemon(record_s=0.002) for _ in range(3)]
    for daemon in daemons:
        daemon.start()
    with run.load(rate=RATE, poison=0.002) as load:
        with run.heals():
            pass
        for number in range(max(3, REBALANCES // 6)):
            daemon = daemons[number % 3]
            time.sleep(run.random.uniform(0.2, 1.0))
            run.kill(daemon)
            time.sleep(run.random.uniform(0.0, 1.5 * SESSION_S))  # missed already, or not yet
            with run.heals():
                daemon.restart()
        load.until(1000)

    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["duplicated"] <= run.kills * REPEATS_PER_KILL


def test_a_batch_that_outlives_its_shard_commits_nothing(kafka_rig) -> None:
    """It runs longer than a rebalance waits; meanwhile another member has gone further."""
    run = kafka_rig(mapping="", batch_size=20)
    outlive_a_rebalance(run)

    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["duplicated"] <= 2 * PARTITIONS * 20, (
        "what ran when its shard was taken away, and when it was killed"
    )
