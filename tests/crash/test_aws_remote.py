"""A function behind a Lambda API that misbehaves: lost 0, and nothing is invoked again except where nobody can know."""

import collections
import json
import time

import pytest

from tests.brokers import fault_kinds as faults
from tests.brokers.wire import Answer, answer_json
from tests.crash import ledger
from tests.crash.kafka_rig import IS_FULL
from tests.crash.rig import Rig
from tests.harness import wait_for

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

KILLS = 10 if IS_FULL else 3
LOADED_S = 30.0 if IS_FULL else 5.0
KNOWN = (
    faults.throttle(retry_after_s=0.2), faults.throttle(), faults.error(500, "ServiceException"),
    faults.error(502, "EC2UnexpectedException"), faults.bare_error(503), faults.reset_before(),
)  # fmt: skip
UNKNOWN = (faults.reset_after(), faults.half_answer())
MAYBE_HANDLED = {"reset after", "half answer"}

CONFIG = """
log = {{ level = "info" }}
listen = {{ public = "127.0.0.1:{public}", api = "127.0.0.1:0" }}
{connection}
[functions.ledger]
arn = "arn:aws:lambda:us-east-1:123456789012:function:billing:live"
timeout_s = 3
event_invoke = {{ retry_delays_s = [0.1, 0.2] }}

[sources.load]
type = "webhook"
path = "/load"
function = "ledger"
verify = "none"
"""


class RemoteRig(Rig):
    """The rig of webhooks, whose function is on the other side of a stub."""

    def __init__(self, folder, stub) -> None:
        super().__init__(folder)
        self.stub = stub
        self.daemon.file.write_text(CONFIG.format(public=self.public, connection=stub.connection()))
        stub.answer("Invoke", self._handle)

    def _handle(self, call) -> Answer:
        """Be the function: on disk before it is answered, as handlers are."""
        event = json.loads(call.json()["body"])
        line = {name: event[name] for name in ("id", "key", "seq")} | {"ok": not event.get("poison"), "t": time.time()}
        call.headers["stub-event"] = str(event["id"])
        self.server.keep(json.dumps(line).encode() + b"\n")
        if event.get("poison"):
            return answer_json({"errorMessage": "poison", "errorType": "ValueError"}, x_amz_function_error="Unhandled")
        return answer_json(None, x_amz_executed_version="7")

    def dead_letters(self) -> list[dict]:
        """Read them back by the event that each has."""
        answer = self.daemon.cli("dlq", "list", "--json", "--limit", "1000000")
        assert answer.returncode == 0, answer.stderr
        letters = [json.loads(line) for line in answer.stdout.splitlines()]
        events = {
            each["id"]: self.daemon.admin("GET", f"/admin/v1/dlq/{each['id']}").json()["event"] for each in letters
        }
        return [{"id": json.loads(events[each["id"]]["body"])["id"], "reason": each["condition"]} for each in letters]

    def repeated(self) -> list[int]:
        """Return the events that were handled again after an answer that the daemon had had whole."""
        calls = collections.defaultdict(list)
        for call in self.stub.seen("Invoke"):
            if "stub-event" in call.headers:  # else the stub went down before the function began
                calls[call.headers["stub-event"]].append(call)
        return [
            int(event)
            for event, made in calls.items()
            if any(call.status == 200 and call.fault not in MAYBE_HANDLED for call in made[:-1])
        ]


@pytest.fixture
def remote_rig(request, aws_faults, tmp_path):
    rig = RemoteRig(tmp_path / "remote", aws_faults())
    request.node.daemons = [rig.daemon]
    yield rig
    rig.close()


def test_nothing_is_lost_and_nothing_repeated_but_what_nobody_can_know(remote_rig) -> None:
    run = remote_rig
    run.stub.sometimes("Invoke", 0.2, *KNOWN, seed=run.seed)
    run.stub.sometimes("Invoke", 0.1, *UNKNOWN, seed=run.seed)
    run.daemon.start()
    with run.load(threads=4, pause_s=0.01):
        time.sleep(LOADED_S)
    run.stub.calm()

    verdict = run.judge()

    assert verdict["acked"] >= 100, "too little landed to say anything"
    assert verdict["valid"]
    assert verdict["dlq"] == 0, "a service error is no failure of the function"
    assert run.repeated() == []
    unknown = sum(call.fault in MAYBE_HANDLED for call in run.stub.seen("Invoke"))
    assert verdict["duplicated"] <= unknown


def test_a_function_that_fails_is_tried_as_often_as_here(remote_rig) -> None:
    run = remote_rig
    run.stub.sometimes("Invoke", 0.2, *KNOWN, seed=run.seed)
    run.daemon.start()
    for _ in range(3):
        assert run.post(poison=True) == "ok"
    wait_for(lambda: len(run.dead_letters()) == 3, 60, "all three are dead letters")
    run.stub.calm()

    verdict = run.judge()

    assert verdict["valid"]
    assert collections.Counter(line["id"] for line in ledger.load(run.server.path)) == {1: 3, 2: 3, 3: 3}


def test_a_remote_that_is_away_loses_and_counts_nothing(remote_rig) -> None:
    run = remote_rig
    run.daemon.start()
    with run.load(threads=2, pause_s=0.02):
        time.sleep(1)
        run.stub.down()
        time.sleep(60 if IS_FULL else 5)
        run.stub.up()
        before = run.server.lines
        wait_for(lambda: run.server.lines > before, 60, "events are handled again")

    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["dlq"] == 0
    assert run.repeated() == []


def test_kills_repeat_only_what_ran(remote_rig) -> None:
    run = remote_rig
    run.stub.sometimes("Invoke", 0.1, *KNOWN, seed=run.seed)
    run.daemon.start()
    with run.load(threads=2, pause_s=0.01):
        for _ in range(KILLS):
            time.sleep(run.random.uniform(0.3, 1.0))
            run.kill_and_restart()
    run.stub.calm()

    verdict = run.judge()

    assert verdict["valid"]
    assert verdict["dlq"] == 0
