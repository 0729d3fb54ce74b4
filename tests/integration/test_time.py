"""A clock that is set: neither between two starts nor under a running daemon is a retry early, late or lost.

Between two starts the rows are moved in place of the machine's clock, which is not ours to set. Under a running daemon
libfaketime moves what it sees of the wall clock, and of nothing else.
"""

import contextlib
import re
import sqlite3
import time
from pathlib import Path

import pytest

from tests.crash.rig import LedgerServer
from tests.fake_clock import FakeClock
from tests.harness import wait_for, write_function

pytestmark = pytest.mark.integration

HOUR_S = 3600
DELAYS_S = (4.0, 3.0)

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
event_invoke = {{ retry_delays_s = [600, 0] }}

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
    wait_for(
        lambda: running.metrics().get('bridge_parked_events{function="fails"}') == 1, description="the event is parked"
    )
    running.kill9()
    assert ledger.lines == 1
    with contextlib.closing(sqlite3.connect(running.state / "p0" / "state.db")) as database, database:
        assert database.execute("UPDATE parked SET due_at = due_at - 599 + ?, delay_s = 1", (moved_s,)).rowcount == 1
    running.restart()

    wait_for(lambda: ledger.lines == 3, description="both retries ran")
    letters = wait_for(lambda: running.admin("GET", "/admin/v1/dlq").json()["dead_letters"])
    assert [(letter["condition"], letter["attempts"]) for letter in letters] == [("RetriesExhausted", 3)]


class Timed(LedgerServer):
    """Remembers when it got each line, by the clock that nobody sets."""

    def __init__(self, path: Path) -> None:
        self.times: list[float] = []
        super().__init__(path)

    def keep(self, line: bytes) -> None:
        self.times.append(time.monotonic())
        super().keep(line)


STEPPED = """
[journal]
segment_mb = 8
retention_days = 0.25

[functions.fails]
code = "{code}"
handler = "app.handler"
environment = {{ LEDGER = "{ledger}" }}
event_invoke = {{ retry_delays_s = [{delays}] }}

[functions.quick]
code = "{quick}"
handler = "app.handler"

[sources.load]
type = "webhook"
path = "/load"
function = "fails"
verify = "none"

[sources.kept]
type = "webhook"
path = "/kept"
function = "quick"
verify = "none"
"""


@pytest.mark.slow
@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S, 24 * HOUR_S], ids=["an hour on", "an hour back", "a day on"])
def test_a_step_under_a_running_daemon_moves_no_retry_and_deletes_nothing(daemon, tmp_path, step_s):
    ledger, clock = Timed(tmp_path / "ran.jsonl"), FakeClock(tmp_path)
    config = STEPPED.format(
        code=write_function(tmp_path / "code", HANDLER),
        quick=write_function(tmp_path / "quick", "def handler(event, context):\n    return 1\n"),
        ledger=ledger.address,
        delays=", ".join(map(str, DELAYS_S)),
    )
    with contextlib.closing(ledger):
        running = daemon(config, **clock.environment)
        for _ in range(12):  # more than one segment, so that the first one may be deleted
            assert running.post("/kept", b"x" * 700_000).status == 202
        segments = sorted(path.name for path in (running.state / "p0" / "journal").glob("*.seg"))
        assert len(segments) > 1
        assert running.post("/load", b"{}").status == 202
        wait_for(
            lambda: running.metrics().get('bridge_parked_events{function="fails"}') == 1,
            description="the event is parked",
        )

        clock.step(step_s)
        wait_for(
            lambda: abs(running.metrics()["bridge_clock_step_seconds"] - step_s) < 60,
            description="the step is measured",
        )
        late = running.post("/kept", b"late").json()["id"]
        wait_for(lambda: len(ledger.times) == 3, description="both retries ran")
        wait_for(lambda: "retention_paused" in running.log(), description="retention has seen the step")
        time.sleep(2)  # it deletes a second after it may

        between_s = [after - before for before, after in zip(ledger.times, ledger.times[1:], strict=False)]
        for delay_s, took_s in zip(DELAYS_S, between_s, strict=True):
            assert took_s >= delay_s - 0.1
        assert sorted(path.name for path in (running.state / "p0" / "journal").glob("*.seg")) == segments
        assert running.log().count('"clock_stepped"') == 1
        clock_line = next(line for line in running.cli("doctor").stdout.splitlines() if "clock" in line)
        (measured_s,) = re.findall(r"[+-]\d+\.\d*", clock_line)
        assert abs(float(measured_s) - step_s) < 60, clock_line
        shown = running.admin("GET", f"/admin/v1/events/{late}").json()
        assert (shown["state"], abs(shown["received_at"] - time.time()) < 200) == ("succeeded", True)
