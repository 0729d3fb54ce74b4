"""kill -9 at random moments of mappings of queues under load: lost 0, unexpected 0, order of each message group kept."""

import pytest

from tests.crash.aws_feeds import SqsFeed
from tests.crash.kafka_rig import KILLS

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

RATE = 80


@pytest.mark.parametrize(
    ("fifo", "share"), [pytest.param(False, 0.7, id="standard"), pytest.param(True, 0.3, id="fifo")]
)
def test_random_kills_under_load(ministack, aws_rig, fifo, share) -> None:
    run = aws_rig(feed=SqsFeed(ministack, fifo=fifo))
    kills = round(KILLS * share)
    run.daemon.start()
    with run.load(rate=RATE):
        with run.heals():
            pass
        run.kill_under_load(kills)

    verdict = run.judge(by="key" if fifo else "none")

    assert verdict["acked"] >= 10 * kills, "too little landed to say anything"
    assert verdict["valid"]
    assert verdict["dlq"] == 0, "nothing was received 100 times"


@pytest.mark.parametrize("fifo", [pytest.param(False, id="standard"), pytest.param(True, id="fifo")])
def test_what_a_queue_s_function_refuses_goes_where_its_redrive_policy_says(ministack, aws_rig, fifo) -> None:
    run = aws_rig(feed=SqsFeed(ministack, fifo=fifo, visibility_s=3, receives_max=2), BRIDGE_TEST_QUEUE_S="30")
    run.daemon.start()
    with run.load(rate=RATE, poison=0.02, limit=400) as load:
        load.wait_done()

    verdict = run.judge(by="key" if fifo else "none")

    assert verdict["valid"]
    assert verdict["dlq"] >= len(load.poisoned) > 0
    assert verdict["duplicated"] == 0
