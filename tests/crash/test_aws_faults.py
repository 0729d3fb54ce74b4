"""Services of AWS that are away, throttle, break off and answer in part: nothing is lost, and mappings go on by themselves."""

import json
import time

import pytest

from tests.brokers import fault_kinds as faults
from tests.crash import ledger
from tests.crash.aws_feeds import DynamoDbFeed, KinesisFeed, SqsFeed
from tests.crash.kafka_rig import IS_FULL
from tests.harness import wait_for

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

RATE = 150
AWAY_S = 60.0 if IS_FULL else 5.0
SENT_MAX_S = 400.0  # a target that was away is asked again within five minutes
LOADED_S = 30.0 if IS_FULL else 6.0

TROUBLE = (
    faults.throttle(), faults.server_error(500), faults.server_error(503), faults.bare_error(), faults.reset_before(),
    faults.reset_after(), faults.half_answer(), faults.slow(0.5),
)  # fmt: skip

STREAM = {
    "GetRecords": (*TROUBLE, faults.expired_iterator(), faults.expired_token()),
    "GetShardIterator": (faults.throttle(), faults.reset_after()),
    "ListShards": (faults.throttle(), faults.half_answer()),
    "DescribeStream": (faults.server_error(500),),
    "DescribeStreamSummary": (faults.server_error(500),),
}
QUEUE = {
    "ReceiveMessage": (*TROUBLE, faults.expired_token()),
    "DeleteMessageBatch": (*TROUBLE, faults.partial()),
    "ChangeMessageVisibilityBatch": (faults.throttle(), faults.partial()),
}
MEETS = {"kinesis": STREAM, "dynamodb": STREAM, "sqs": QUEUE, "fifo": QUEUE}


@pytest.fixture
def new_feed(kinesis, ministack):
    """Return `new_feed(name)`: a new source of a kind."""
    return {
        "kinesis": lambda: KinesisFeed(kinesis),
        "dynamodb": lambda: DynamoDbFeed(ministack),
        "sqs": lambda: SqsFeed(ministack, fifo=False),
        "fifo": lambda: SqsFeed(ministack, fifo=True),
    }.__getitem__


@pytest.mark.parametrize("source", ["kinesis", "dynamodb", "sqs", "fifo"])
def test_a_misbehaving_service_loses_nothing(new_feed, source, aws_faults, aws_rig) -> None:
    """Faults meet the daemon's calls only: the load goes to the emulator itself."""
    feed = new_feed(source)()
    stub = aws_faults(feed.service)
    run = aws_rig(feed=feed, connection=stub.connection())
    for operation, kinds in MEETS[source].items():
        for fault in kinds:  # each once for certain, then by chance
            stub.script(operation, None, fault)
        stub.sometimes(operation, 0.2, *kinds, seed=run.seed)
    run.daemon.start()
    with run.load(rate=RATE):
        time.sleep(LOADED_S)
    stub.calm()

    verdict = run.judge(by={"kinesis": "shard", "sqs": "none"}.get(source, "key"))
    met = sum(bool(call.fault) for call in stub.calls)
    print(f"{met} of {len(stub.calls)} calls met a fault")

    assert met >= 3
    assert verdict["acked"] >= 100, "too little landed to say anything"
    assert verdict["valid"]
    if source in ("kinesis", "dynamodb"):
        assert verdict["duplicated"] == 0, "reading again is no reason to handle again"


@pytest.mark.parametrize("source", ["kinesis", "sqs"])
def test_a_service_that_is_away_and_comes_back(new_feed, source, aws_faults, aws_rig) -> None:
    feed = new_feed(source)()
    stub = aws_faults(feed.service)
    run = aws_rig(feed=feed, connection=stub.connection())
    run.daemon.start()
    with run.load(rate=RATE):
        with run.heals(records=50):
            pass
        stub.down()
        time.sleep(AWAY_S)
        assert run.daemon.is_running()
        with run.heals(records=50):
            stub.up()

    verdict = run.judge(by="shard" if source == "kinesis" else "none")

    assert verdict["valid"]


def test_a_destination_that_is_away_gets_what_failed_once_it_is_back(kinesis, ministack, aws_faults, aws_rig) -> None:
    """What a batch fails with is in the target's queue in the end, and nothing of it is lost to a kill in between."""
    feed, stub, sqs = KinesisFeed(kinesis), aws_faults(ministack), ministack.client("sqs")
    queue = sqs.create_queue(QueueName=(name := ministack.name()))["QueueUrl"]
    run = aws_rig(
        feed=feed,
        connection=kinesis.connection() + f'endpoint_urls = {{ sqs = "{stub.endpoint_url}" }}\n',
        mapping=f'on_failure = "{ministack.arn("sqs", name)}"\n',
    )
    told: list[dict] = []

    def receive() -> int:
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                told.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return len(told)

    def covers(place: tuple[str, int]) -> bool:
        batches = (each["KinesisBatchInfo"] for each in told if each["KinesisBatchInfo"]["shardId"] == place[0])
        return any(int(b["startSequenceNumber"]) <= place[1] <= int(b["endSequenceNumber"]) for b in batches)

    run.daemon.start()
    with run.load(rate=RATE, poison=0.05) as load:
        with run.heals(records=50):
            pass
        stub.down()
        before = receive()
        time.sleep(AWAY_S / 2)
        assert before == receive()
        run.kill()
        run.daemon.restart()
        time.sleep(AWAY_S / 2)
        stub.up()

    seen: set[int] = set()

    def returned() -> list[dict]:
        receive()
        found = {number for number, place in feed.places().items() if covers(place)} - seen
        seen.update(found)
        return [{"id": number} for number in found]

    feed.returned = returned  # what the target was told of is dead there; what still waits for it is a dead letter here
    verdict = run.judge(by="shard")
    handled = {line["id"] for line in ledger.load(run.server.path) if line["ok"]}
    given_up = [place for number, place in feed.places().items() if number not in handled]
    wait_for(
        lambda: receive() and all(map(covers, given_up)), SENT_MAX_S, "the target is told of all that was given up"
    )

    assert verdict["valid"]
    assert given_up
    assert load.poisoned.isdisjoint(handled)
    assert {each["requestContext"]["condition"] for each in told} == {"RetryAttemptsExhausted"}
