"""What bridge does, one concept a test. Read from top to bottom."""

import json

import pytest

from tests.harness import wait_for

pytestmark = pytest.mark.integration

JSON = {"Content-Type": "application/json"}


def show(bridge, event_id):
    """What `bridge events show ID` prints."""
    shown = bridge.cli("events", "show", event_id)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def dead_letters(bridge):
    """What `bridge dlq list` lists."""
    listed = bridge.cli("dlq", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    return [json.loads(line) for line in listed.stdout.splitlines()]


def test_an_event_is_stored_and_then_invoked(bridge):
    """A webhook is answered 202 when its event is on disk; the function runs after that.

    The id in the answer is the request id that the handler sees, and the key to all that is known of the event.
    """
    answer = bridge.post("/orders", {"amount": 1}, **JSON)

    assert answer.status == 202
    wait_for(lambda: "ok" in show(bridge, answer.json()["id"]))


def test_a_synchronous_route_answers_with_what_the_function_returned(bridge):
    """With `invocation_type = "RequestResponse"` the sender waits, and nothing is retried: the answer is his."""
    answer = bridge.post("/orders/now", {"amount": 2}, **JSON)

    assert answer.status == 200
    assert answer.json() == {"order": 2, "replay": None}


def test_what_fails_is_retried_then_kept_as_a_dead_letter_and_redriven_when_it_is_mended(bridge, code):
    """Two retries, then the event waits among the dead letters until somebody has mended the function."""
    event_id = bridge.post("/orders", {"wrong": True}, **JSON).json()["id"]
    wait_for(lambda: dead_letters(bridge), description="the dead letter")
    (letter,) = dead_letters(bridge)
    assert (letter["id"], letter["attempts"], letter["condition"]) == (event_id, 3, "RetriesExhausted")
    assert letter["error_message"] == "an order without an amount"

    (code / "app.py").write_text("def handler(event, context):\n    return 'mended'\n")
    assert bridge.cli("reload").returncode == 0
    assert bridge.cli("dlq", "redrive", "--yes").returncode == 0
    wait_for(lambda: not dead_letters(bridge), description="the dead letter is gone: its event succeeded")


def test_events_can_be_replayed(bridge):
    """What was stored can be sent again: the same bytes, id and time, marked in the context as a replay."""
    event_id = bridge.post("/orders", {"amount": 3}, **JSON).json()["id"]
    wait_for(lambda: "ok" in show(bridge, event_id))
    counted = bridge.cli("replay", "--since", "10m", "--function", "orders", "--dry-run")
    assert "1" in counted.stdout
    assert "nothing was sent" in counted.stdout

    done = bridge.cli("replay", "--since", "10m", "--function", "orders", "--name", "monday", "--yes")
    assert done.returncode == 0, done.stderr
    assert "monday" in show(bridge, event_id), "the event's history names the replay"


def test_a_sender_who_tries_again_changes_nothing(bridge):
    """Senders deliver again when an answer got lost. The second one gets the first one's id, and nothing runs."""
    first = bridge.post("/orders", {"amount": 4}, **JSON, **{"X-Delivery-Id": "d-1"})
    second = bridge.post("/orders", {"amount": 4}, **JSON, **{"X-Delivery-Id": "d-1"})

    assert first.status == second.status == 202
    assert second.json() == {"id": first.json()["id"], "duplicate": True}
    listed = bridge.cli("events", "list", "--json")
    assert len(listed.stdout.splitlines()) == 1


def test_the_configuration_is_taken_anew_without_a_stop_or_not_at_all(bridge):
    """`bridge reload` takes a file as a whole; one with a mistake changes nothing and is told with its line."""
    good = bridge.file.read_text()
    bridge.file.write_text(good.replace('path = "/orders"', 'path = "/purchases"'))
    assert bridge.cli("reload").returncode == 0
    assert bridge.post("/purchases", {"amount": 5}, **JSON).status == 202
    assert bridge.post("/orders", {"amount": 5}, **JSON).status == 404

    bridge.file.write_text(good.replace("handler =", "handlr ="))
    refused = bridge.cli("reload")
    assert refused.returncode != 0
    assert "handlr" in refused.stdout + refused.stderr
    assert bridge.post("/purchases", {"amount": 6}, **JSON).status == 202
