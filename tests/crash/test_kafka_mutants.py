"""The crash tests of Kafka mappings are tested: a daemon with a planted fault must be caught by the same judge."""

import time

import pytest

from tests.crash.kafka_rig import KafkaRig, keeps_its_membership, outlive_a_rebalance

pytestmark = [pytest.mark.crash, pytest.mark.apache_kafka("expulsion of members that died")]

STATIC = 'group_instance_id = "one"'


def killed_mid_batch(run: KafkaRig, *, kills: int = 2, poison: float = 0.0, pause_s: float = 0.4) -> dict:
    daemon = run.daemon(record_s=0.005)
    daemon.start()
    with run.load(rate=400, poison=poison):
        for _ in range(kills):
            with run.heals():
                pass
            time.sleep(pause_s)
            run.kill(daemon)
            daemon.restart()
        with run.heals():
            pass
    return run.judge()


@pytest.mark.parametrize(
    "mutant", ["commit_before_handled", pytest.param("commit_all_handed_out", marks=pytest.mark.slow)]
)
def test_committing_what_is_not_handled_is_caught(kafka_rig, mutant) -> None:
    run = kafka_rig(mapping=STATIC, mutant=mutant)

    verdict = killed_mid_batch(run)

    assert verdict["committed_past_open"] > 0
    assert verdict["lost"] > 0
    assert not verdict["valid"]


@pytest.mark.slow
def test_not_awaiting_the_dead_letter_is_caught(kafka_rig) -> None:
    run = kafka_rig(mapping=STATIC, mutant="stream_dead_letter_not_awaited")

    verdict = killed_mid_batch(run, poison=0.2, pause_s=2.0)

    assert verdict["lost"] > 0
    assert not verdict["valid"]


def test_committing_a_late_result_of_a_revoked_shard_is_caught(kafka_rig) -> None:
    run = kafka_rig(mapping="", batch_size=20, mutant="commit_of_a_revoked_shard")
    outlive_a_rebalance(run)

    verdict = run.judge()

    assert verdict["committed_back"] > 0
    assert not verdict["valid"]


@pytest.mark.slow
def test_leaving_the_client_unpolled_is_caught(kafka_rig) -> None:
    run = kafka_rig(batch_size=20, mutant="not_polled_while_running")

    assert not keeps_its_membership(run)


@pytest.mark.slow
def test_the_same_runs_without_a_fault_are_valid(kafka_rig) -> None:
    assert killed_mid_batch(kafka_rig(mapping=STATIC), poison=0.05)["valid"]
