"""A Kafka mapping's daemon ends at each named step: how often a record runs is known beforehand, nothing is lost."""

import pytest

from tests.crash import ledger
from tests.crash.kafka_rig import KafkaRig
from tests.harness import wait_for

pytestmark = [pytest.mark.crash, pytest.mark.apache_kafka("expulsion of members that died")]

STATIC = 'group_instance_id = "one"'
"""Comes back without being missed first."""

RUNS = {
    # step: how often the one record is handled in all
    "stream.assigned": 1,  # nothing was begun
    "stream.handled": 2,  # handled, and nobody knows
    "stream.committing": 2,  # known, and not said
    "stream.committed": 1,
}


def crashed_and_judged(run: KafkaRig, step: str, **load: object) -> dict:
    daemon = run.daemon()
    daemon.start(ready=False, BRIDGE_CRASH_AT=step)
    with run.load(rate=100, limit=1, **load):
        assert daemon.wait(60) == 137, daemon.log_tail()
    daemon.restart()
    return run.judge()


@pytest.mark.parametrize("step", RUNS)
def test_one_record_runs_as_often_as_stated(kafka_rig, step) -> None:
    run = kafka_rig(partitions=1, mapping=STATIC)

    verdict = crashed_and_judged(run, step)

    assert verdict["valid"]
    assert (1, RUNS[step]) == (verdict["handled_ok"], len(ledger.load(run.server.path)))


def test_a_dead_letter_before_its_mark_is_there_twice_at_most(kafka_rig) -> None:
    run = kafka_rig(partitions=1, mapping=STATIC)

    verdict = crashed_and_judged(run, "stream.dead_letter", poison=1.0)

    assert verdict["valid"]
    assert (1, 0) == (verdict["dlq"], verdict["in_both"])
    assert verdict["dlq_duplicated"] <= 1
    assert 2 <= run.server.lines <= 4, "its two attempts, and at most as many after the crash"


def test_a_rebalance_cut_off_behind_its_commit_repeats_nothing(kafka_rig) -> None:
    run = kafka_rig(mapping="")
    daemon = run.daemon(session_s=6.0)
    daemon.start(BRIDGE_CRASH_AT="stream.revoked")
    with run.load(rate=300):
        with run.heals():
            pass
        wait_for(lambda: run.server.lines > 100, description="under way")
        with run.outside.member(2.0):
            assert daemon.wait(60) == 137, daemon.log_tail()
        with run.heals():
            daemon.restart()

    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["duplicated"] == 0, "all that ran had ended, and was committed"


@pytest.mark.slow
@pytest.mark.parametrize("step", [*RUNS, "stream.dead_letter"])
def test_under_load(kafka_rig, step) -> None:
    run = kafka_rig(mapping=STATIC)
    daemon = run.daemon()
    passes = 1 if step == "stream.assigned" else run.random.randrange(2, 6)
    daemon.start(ready=False, BRIDGE_CRASH_AT=f"{step}:{passes}")
    with run.load(rate=300, poison=0.02):
        assert daemon.wait(60) == 137, daemon.log_tail()
        with run.heals(records=50):
            daemon.restart()

    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["duplicated"] <= 1400, "what ended within 200 ms and was not committed, and a batch a lane"
    assert verdict["dlq_duplicated"] <= 4, "one a lane"
