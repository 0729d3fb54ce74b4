"""The crash tests of AWS's sources are tested: a daemon with a planted fault must be caught by the same judge."""

import time

import pytest

from tests.crash.aws_feeds import KinesisFeed, SqsFeed

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(300)]


def killed_mid_batch(run) -> dict:
    run.daemon.start()
    with run.load(rate=200, limit=600) as load:
        with run.heals():
            pass
        run.kill()
        with run.heals():
            run.daemon.restart()
        load.wait_done()
    return run.judge(by="none", patience_s=20)


def test_deleting_messages_before_they_are_handled_is_caught(ministack, aws_rig) -> None:
    run = aws_rig(feed=SqsFeed(ministack, fifo=False), record_s=0.05, mutant="delete_before_handled")

    verdict = killed_mid_batch(run)

    assert verdict["lost"] > 0
    assert not verdict["valid"]


def test_storing_marks_before_records_are_handled_is_caught(kinesis, aws_rig) -> None:
    run = aws_rig(feed=KinesisFeed(kinesis), record_s=0.05, mutant="commit_before_handled")

    verdict = killed_mid_batch(run)

    assert verdict["lost"] > 0
    assert not verdict["valid"]


def test_reading_children_beside_their_parents_is_caught(kinesis, aws_rig) -> None:
    feed = KinesisFeed(kinesis, shards=1)
    run = aws_rig(feed=feed, record_s=0.01, mutant="children_at_once")
    with run.load(rate=300):
        time.sleep(3)
        feed.split()
        time.sleep(3)
    run.daemon.start()

    verdict = run.judge(by="key")

    assert verdict["out_of_order"] > 0
    assert not verdict["valid"]


def test_not_keeping_message_groups_is_caught(ministack, aws_rig) -> None:
    run = aws_rig(feed=SqsFeed(ministack, fifo=True), batch_size=3, record_s=0.01, mutant="groups_not_kept")
    with run.load(rate=200, limit=400, keys=2) as load:
        load.wait_done()
    run.daemon.start()

    verdict = run.judge(by="key")

    assert verdict["out_of_order"] > 0
    assert not verdict["valid"]
