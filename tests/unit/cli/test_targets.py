"""`bridge dlq targets`, `waiting`, `push`, `give-up`, and what `dlq list` and `events show` say of targets."""

import json

from bridge.core.invocation import AttemptStatus
from tests.unit.api.harness import event_id
from tests.unit.api.test_targets import QUEUE, SUCCESS, TOPIC, wait_for


def test_nothing_waits(bridge):
    assert bridge("dlq", "targets").err == "nothing waits for any target\n"
    assert bridge("dlq", "waiting").err == "nothing waits\n"
    assert bridge("dlq", "list").err == "no dead letters\n"


def test_targets_and_what_waits_for_them(bridge, served):
    served.call(wait_for(served.world, 1, last_error="SendMessage: AccessDenied: no\x1b[2J"))
    served.call(wait_for(served.world, 2, TOPIC, **SUCCESS))

    head, topic, queue = bridge("dlq", "targets").out.splitlines()
    assert head.split()[:4] == ["TARGET", "WAITING", "KEPT", "OLDEST"]
    assert topic.startswith(TOPIC.target)
    assert queue.startswith(QUEUE.target)
    assert queue.endswith("SendMessage: AccessDenied: no\\x1b[2J")
    assert json.loads(bridge("dlq", "targets", "--json").out.splitlines()[1])["connection"] == "main"

    _, first, second = bridge("dlq", "waiting").out.splitlines()
    assert first.split()[0] == event_id(1)[:8]
    assert "on_failure" in first
    assert "on_success" in second
    (line,) = bridge("dlq", "waiting", TOPIC.target, "--json").out.splitlines()
    assert json.loads(line)["record"] == {"responsePayload": 12345678901234567890}
    assert bridge("dlq", "waiting", "arn:x").code == 1


def test_a_list_of_dead_letters_tells_of_what_waits(bridge, served):
    served.call(wait_for(served.world, 1))

    listed = bridge("dlq", "list")
    assert "waiting" in listed.out
    assert listed.err == "1 record waits for 1 target: bridge dlq targets\n"


def test_push(bridge, served):
    served.call(wait_for(served.world, 1))
    served.call(served.world.sender.open())

    assert bridge("dlq", "push").out == "1 target tried again; see: bridge dlq targets\n"
    assert bridge("dlq", "push", QUEUE.target, "--connection", "main").code == 0


def test_give_up_asks_first(bridge, served):
    served.call(wait_for(served.world, 1))
    served.call(wait_for(served.world, 2, **SUCCESS))

    refused = bridge("dlq", "give-up", QUEUE.target, stdin="n\n")
    assert refused.code != 0
    assert len(served.world.outbox.entries) == 2

    done = bridge("dlq", "give-up", QUEUE.target, "--yes")
    assert done.out == "1 failure stay as dead letters, 1 record of successes deleted\n"
    assert [letter.state for letter in served.world.letters.letters.values()] == ["dead"]


def test_an_event_says_where_its_records_went(bridge, served):
    record = served.world.store(1)
    served.world.attempt(record, AttemptStatus.DEAD)
    served.world.attempt(record, AttemptStatus.SENT, error_type="dead_letter", error_message=TOPIC.target)
    served.call(wait_for(served.world, 1, attempts=4, last_error="down"))

    shown = bridge("events", "show", record.id).out
    assert "\nsent to\n" in shown
    assert f"dead_letter  {TOPIC.target}\n" in shown
    assert f"waiting  on_failure  {QUEUE.target}  waits, 4 tries: down\n" in shown
