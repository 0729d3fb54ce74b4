"""Streams that are split and merged under load, the daemon running, stopped or killed: lost 0, order per key across shards."""

import time

import pytest

from tests.crash import ledger
from tests.crash.aws_feeds import KinesisFeed
from tests.crash.kafka_rig import IS_FULL

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

RATE = 150
ROUNDS = 4 if IS_FULL else 1


def shards_read(run) -> set[str]:
    return {line["shard"] for line in ledger.load(run.server.path)}


def test_running(kinesis, aws_rig) -> None:
    feed = KinesisFeed(kinesis, shards=2)
    run = aws_rig(feed=feed)
    run.daemon.start()
    with run.load(rate=RATE, poison=0.002):
        with run.heals(records=50):
            pass
        for _ in range(ROUNDS):
            feed.split()
            with run.heals(records=50):
                pass
            feed.merge()
            with run.heals(records=50):
                pass

    verdict = run.judge(by="key")

    assert verdict["acked"] >= 100, "too little landed to say anything"
    assert verdict["valid"]
    assert verdict["duplicated"] == 0
    assert len(shards_read(run)) >= 4
    assert ledger.order([line | {"key": line["shard"], "seq": int(line["position"])} for line in handled(run)])[0] == 0


def test_twice_while_it_is_stopped(kinesis, aws_rig) -> None:
    feed = KinesisFeed(kinesis, shards=2)
    run = aws_rig(feed=feed)
    run.daemon.start()
    with run.load(rate=RATE):
        with run.heals(records=50):
            pass
        run.daemon.stop()
        for _ in range(ROUNDS):
            for change in (feed.split, feed.split, feed.merge):
                change()
                time.sleep(0.5)  # records in the shards that are closed next
        with run.heals(records=50):
            run.daemon.restart()

    verdict = run.judge(by="key")

    assert verdict["valid"]
    assert verdict["duplicated"] == 0, "a stop in order repeats nothing"


def test_killed_in_between(kinesis, aws_rig) -> None:
    feed = KinesisFeed(kinesis, shards=1)
    run = aws_rig(feed=feed)
    run.daemon.start()
    with run.load(rate=RATE):
        with run.heals(records=50):
            pass
        for change in (feed.split, feed.split, feed.merge) * ROUNDS:
            change()
            run.kill_under_load(run.kills + 1, records=50)

    verdict = run.judge(by="key")

    assert verdict["valid"]


def handled(run) -> list[dict]:
    return ledger.load(run.server.path)
