"""Targets of asynchronous events through crashes: no record of an end is lost, how often one may repeat is stated.

The queues are a stub of ours, so that what they were sent is known whatever the daemon says: what it answered 200.
"""

import collections
import hashlib
import json
import time

import pytest

from tests.brokers import fault_kinds as faults
from tests.brokers.wire import answer_json
from tests.crash import ledger
from tests.crash.kafka_rig import KILLS
from tests.crash.rig import WORKERS
from tests.harness import wait_for

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]


@pytest.fixture
def told(rig, aws_faults):
    """Return `told(**settings)` -> (rig, stub): a rig whose function's successes and failures go to queues of a stub."""

    def make(**settings):
        stub = aws_faults()
        stub.answer("SendMessage", _taken)
        targets = f'on_success = "{stub.arn("sqs", "done")}", on_failure = "{stub.arn("sqs", "failed")}"'
        return rig(settings=stub.connection(), event_invoke=targets, **settings), stub

    return make


def _taken(call):
    body = call.json()["MessageBody"]
    return answer_json({"MessageId": "1", "MD5OfMessageBody": hashlib.md5(body.encode()).hexdigest()})


def taken(stub, queue: str) -> collections.Counter:
    """Count the records that a queue has taken, by request id."""
    calls = [call.json() for call in stub.seen("SendMessage") if call.status == 200 and not call.fault]
    records = [json.loads(call["MessageBody"]) for call in calls if call["QueueUrl"].endswith("/" + queue)]
    return collections.Counter(record["requestContext"]["requestId"] for record in records)


def settled(run, stub) -> None:
    """Return once nothing waits for a target."""
    run.drain()

    def nothing_waits() -> bool:
        return not run.daemon.admin("GET", "/admin/v1/targets").json()["targets"]

    run.daemon.admin("POST", "/admin/v1/targets/push", {})
    wait_for(nothing_waits, description="every record was sent")


SUCCESS_STEPS = {
    # step: runs of the event, records of it; least and most
    "delivery.handled": ((2, 2), (1, 1)),  # nothing is kept: it runs again
    "delivery.recorded": ((2, 2), (1, 2)),  # the record is kept, the outcome not: both again, unless it was not sent
    "outbox.sent": ((1, 1), (2, 2)),  # the target has it, we do not know: just the record again
}


@pytest.mark.parametrize("step", SUCCESS_STEPS)
def test_a_success_and_its_record_repeat_as_often_as_stated(told, step) -> None:
    run, stub = told()
    run.daemon.start(BRIDGE_CRASH_AT=step)

    run.post()
    assert run.daemon.wait(60) == 137
    run.daemon.restart()
    settled(run, stub)

    (least, most), (fewest, highest) = SUCCESS_STEPS[step]
    assert least <= run.server.lines <= most
    ((_, records),) = taken(stub, "done").items()
    assert fewest <= records <= highest


@pytest.mark.parametrize(("step", "records"), [("delivery.dead_letter", (1, 2)), ("outbox.sent", (2, 2))])
def test_a_failure_and_its_record_repeat_as_often_as_stated(told, step, records) -> None:
    run, stub = told()
    run.daemon.start(BRIDGE_CRASH_AT=step)

    assert run.post(poison=True) == "ok"
    assert run.daemon.wait(60) == 137
    run.daemon.restart()
    settled(run, stub)

    assert run.server.lines == 3, "durable with its parking gone: it does not run again"
    ((_, sent),) = taken(stub, "failed").items()
    assert records[0] <= sent <= records[1]
    assert run.dead_letters() == []


def test_killed_at_random_with_targets_that_are_down_and_faulty_no_record_is_lost(told) -> None:
    run, stub = told()
    run.daemon.start()
    kills = max(4, KILLS // 4)
    stub.sometimes(
        "SendMessage", 0.1, faults.server_error(500), faults.throttle(), faults.reset_before(), faults.reset_after(),
        faults.half_answer(), seed=run.seed,
    )  # fmt: skip

    with run.load(threads=4, poison=0.2, pause_s=0.01):
        for number in range(kills):
            if number % 2:
                stub.down()
            time.sleep(run.random.uniform(0.2, 1.0))
            run.kill_and_restart()
            if number % 2:
                time.sleep(run.random.uniform(0.0, 1.0))
                stub.up()
    stub.calm()
    settled(run, stub)

    done, failed = taken(stub, "done"), taken(stub, "failed")
    handled = ledger.load(run.server.path)
    ids = {line["request_id"]: line["id"] for line in handled}
    (run.folder / "dlq.jsonl").write_text("".join(json.dumps({"id": ids.get(one, one)}) + "\n" for one in failed))
    run._sent.flush()
    verdict = ledger.check(
        ledger.load(run.folder / "sent.jsonl"), handled, [{"id": ids.get(one, one)} for one in failed]
    )
    print(json.dumps(verdict | {"records": done.total() + failed.total(), "kills": run.kills}), flush=True)
    assert verdict["valid"]
    succeeded = {line["request_id"] for line in handled if line["ok"]}
    assert succeeded == set(done), "each success was told, and nothing else was"
    assert run.dead_letters() == []
    # Per kill: what was on its way to a target, and what had run without its record being kept.
    repeated = sum(count - 1 for count in (*done.values(), *failed.values()))
    lost_answers = sum(call.fault in ("reset after", "half answer") for call in stub.seen("SendMessage"))
    assert repeated <= run.kills * 2 * (32 + 2 * WORKERS) + lost_answers
