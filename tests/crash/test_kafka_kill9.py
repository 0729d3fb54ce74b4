"""kill -9 at random moments of a Kafka mapping under load: lost 0, order kept, no commit past what is unfinished."""

import time

import pytest

from bridge.core import limits
from tests.crash import marks
from tests.crash.kafka_rig import BATCH_SIZE, IS_FULL, KILLS, PARTITIONS

pytestmark = [pytest.mark.crash, pytest.mark.apache_kafka("expulsion of members that died"), pytest.mark.timeout(900)]

RATE = 600


# Per kill: what had ended and was not committed (at most COMMIT_RECORDS, and what ends while a commit is on its way:
# a batch a lane), and the batches that ran, one a lane (architecture, "How much can be handled twice").
def repeats_per_kill(lanes: int) -> int:
    return limits.COMMIT_RECORDS + 2 * lanes * BATCH_SIZE


def test_the_checker_sees_planted_commits() -> None:
    marks.selftest()


@pytest.mark.parametrize(
    ("mapping", "by", "lanes", "share"),
    [
        pytest.param('group_instance_id = "one"', "partition", PARTITIONS, 0.6, id="static-member"),
        pytest.param("", "partition", PARTITIONS, 0.2, id="member"),
        pytest.param(
            'parallelization_factor = 4\ngroup_instance_id = "one"', "key", 4 * PARTITIONS, 0.2, id="lanes-by-key"
        ),
    ],
)
def test_random_kills_under_load(kafka_rig, mapping, by, lanes, share) -> None:
    run = kafka_rig(mapping=mapping)
    daemon = run.daemon()
    daemon.start()
    kills = round(KILLS * share)
    with run.load(rate=RATE, poison=0.002) as load:
        with run.heals():
            pass
        while run.kills < kills:
            time.sleep(run.random.uniform(0.0, 0.5))
            run.kill(daemon)
            if run.kills % 3 == 2:  # killed again before it had the time to become ready, or to join
                daemon.start(ready=False)
                time.sleep(run.random.uniform(0.0, 1.0))
                run.kill(daemon)
            with run.heals(records=run.random.randrange(1, 300)):
                daemon.restart()
        load.until(100 * kills)

    verdict = run.judge(by=by)

    assert verdict["valid"]
    assert verdict["duplicated"] <= run.kills * repeats_per_kill(lanes)
    assert verdict["dlq_duplicated"] <= run.kills, "a dead letter before its mark was stored is there again"


def test_without_a_fault_nothing_is_handled_twice(kafka_rig) -> None:
    run = kafka_rig()
    run.daemon(session_s=None).start()
    with run.load(rate=RATE if not IS_FULL else 2 * RATE, poison=0.002) as load, run.heals():
        load.until(1500)

    verdict = run.judge()

    assert verdict["valid"]
    assert (0, 0, 0) == (verdict["duplicated"], verdict["dlq_duplicated"], verdict["in_both"])
