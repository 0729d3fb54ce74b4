"""kill -9 at random moments of mappings of Kinesis and DynamoDB under load: lost 0, unexpected 0, order kept."""

import pytest

from bridge.core import limits
from tests.crash.aws_feeds import BATCH, DynamoDbFeed, KinesisFeed
from tests.crash.kafka_rig import KILLS

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

SHARDS = 2
RATE = 150


# Per kill: what had ended and was not committed, and the batches that ran, one a lane.
def repeats_per_kill(lanes: int) -> int:
    return limits.COMMIT_RECORDS + 2 * lanes * BATCH


@pytest.mark.parametrize(
    ("mapping", "by", "lanes", "share"),
    [
        pytest.param("", "shard", SHARDS, 0.7, id="shards"),
        pytest.param("parallelization_factor = 4", "key", 4 * SHARDS, 0.3, id="lanes-by-key"),
    ],
)
def test_kinesis(kinesis, aws_rig, mapping, by, lanes, share) -> None:
    run = aws_rig(feed=KinesisFeed(kinesis, shards=SHARDS), mapping=mapping)
    kills = round(KILLS * share)
    run.daemon.start()
    with run.load(rate=RATE, poison=0.002):
        with run.heals():
            pass
        run.kill_under_load(kills)

    verdict = run.judge(by=by)

    assert verdict["acked"] >= 10 * kills, "too little landed to say anything"
    assert verdict["valid"]
    assert verdict["duplicated"] <= run.kills * repeats_per_kill(lanes)


def test_dynamodb(ministack, aws_rig) -> None:
    run = aws_rig(feed=DynamoDbFeed(ministack))
    run.daemon.start()
    with run.load(rate=RATE, poison=0.002):
        with run.heals():
            pass
        run.kill_under_load(KILLS)

    verdict = run.judge()

    assert verdict["acked"] >= 10 * run.kills, "too little landed to say anything"
    assert verdict["valid"]
    assert verdict["duplicated"] <= run.kills * repeats_per_kill(1)
