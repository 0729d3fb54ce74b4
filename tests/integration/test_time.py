"""Retries whose due times were written under another clock: a step between two starts neither delays nor loses them.

The rows are moved in place of the machine's clock, which is not ours to set. Steps while it runs: unit tests, on a
manual clock.
"""

import contextlib
import sqlite3

import pytest

from tests.crash.rig import LedgerServer
from tests.harness import wait_for, write_function

pytestmark = pytest.mark.integration

HANDLER = """
import os, socket

host, port = os.environ["LEDGER"].split(":")


def handler(event, context):
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"ran\\n")
        connection.recv(8)
    raise ValueError("poison")
"""

CONFIG = """
[functions.fails]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}
event_invoke = {{ retry_delays_s = [2, 0] }}

[sources.load]
type = "webhook"
path = "/load"
function = "fails"
verify = "none"
"""


@pytest.fixture
def ledger(tmp_path):
    made = LedgerServer(tmp_path / "ran.jsonl")
    yield made
    made.close()


@pytest.mark.parametrize(
    "moved_s",
    [pytest.param(86_400.0, id="the clock was set back a day"), pytest.param(-86_400.0, id="it was set forward a day")],
)
def test_a_parked_event_is_retried_within_its_delay_whatever_the_clock_did(daemon, ledger, tmp_path, moved_s):
    running = daemon(CONFIG.format(code=write_function(tmp_path / "code", HANDLER), ledger=ledger.address))
    assert running.post("/load", b"{}").status == 202
    wait_for(lambda: running.metrics().get('bridge_parked_events{function="fails"}') == 1, 5, "the event is parked")
    running.kill9()
    assert ledger.lines == 1
    with contextlib.closing(sqlite3.connect(running.state / "p0" / "state.db")) as database, database:
        assert database.execute("UPDATE parked SET due_at = due_at + ?", (moved_s,)).rowcount == 1
    running.restart()

    wait_for(lambda: ledger.lines == 3, 4, "both retries ran")
    letters = wait_for(lambda: running.admin("GET", "/admin/v1/dlq").json()["dead_letters"], 5)
    assert [(letter["condition"], letter["attempts"]) for letter in letters] == [("RetriesExhausted", 3)]
