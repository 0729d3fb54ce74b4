"""Limits of a whole daemon, measured in the handler: caps are never passed, refusals say why, nothing is lost by them."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.harness import WAIT_MAX_S, request, wait_for, write_function

pytestmark = pytest.mark.integration

# One line when an invocation begins and one when it ends: how many ran at once is counted from outside.
COUNTED = """
import json, os, socket, time

host, port = os.environ["COUNTER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def say(word):
    connection.sendall(word + b"\\n")
    answers.readline()


def handler(event, context):
    say(b"+")
    time.sleep(float(os.environ.get("SLEEP_S", "0.05")))
    say(b"-")
    return "done"
"""


def sections(code, counter, *, function="", daemon="", kind="Event"):
    return f"""
runtime = {{ workers_max = 12 }}
{daemon}
[functions.counted]
code = "{code}"
handler = "app.handler"
timeout_s = 100
environment = {{ COUNTER = "{counter.address}", SLEEP_S = "{counter.sleep_s}" }}
{function}

[sources.stored]
type = "webhook"
path = "/stored"
function = "counted"
verify = "none"

[sources.answered]
type = "webhook"
path = "/answered"
function = "counted"
verify = "none"
invocation_type = "RequestResponse"
"""


class Counter:
    """Counts who is inside the handler, and the most that ever were."""

    def __init__(self):
        import socketserver

        outer = self
        self.inside = self.highest = self.entered = 0
        self.sleep_s = 0.05
        self.gate = threading.Event()
        """Whoever comes in waits for it: one who comes last opens it, or the test."""
        self.gate.set()
        self.opens_with = 0
        """How many inside open the gate; 0: the test does."""
        self._lock = threading.Lock()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    for line in self.rfile:
                        outer.note(line[:1])
                        if line.startswith(b"+"):
                            outer.gate.wait(WAIT_MAX_S)
                        self.wfile.write(b"ok\n")
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = "{}:{}".format(*self._server.server_address[:2])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def note(self, word):
        with self._lock:
            if word == b"+":
                self.inside += 1
                self.entered += 1
                self.highest = max(self.highest, self.inside)
                if self.inside == self.opens_with:
                    self.gate.set()
            else:
                self.inside -= 1

    def meets(self, count):
        """Keep those who come in until so many are inside at once."""
        self.opens_with = count
        self.gate.clear()

    def close(self):
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def counter():
    made = Counter()
    yield made
    made.close()


def burst(daemon, path, count, threads=20):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda number: daemon.post(path, {"n": number}), range(count)))


def drained(daemon):
    samples = daemon.metrics()
    return not any(
        value for name, value in samples.items() if name.startswith(("bridge_lane_waiting", "bridge_running"))
    )


def test_reserved_concurrency_is_never_passed_by_a_burst_of_both_kinds(daemon, counter, tmp_path):
    code = write_function(tmp_path / "code", COUNTED)
    counter.meets(3)
    running = daemon(sections(code, counter, function="reserved_concurrency = 3"))
    answers = burst(running, "/stored", 30)
    assert {answer.status for answer in answers} == {202}
    answered = burst(running, "/answered", 12)
    wait_for(lambda: counter.entered == 30 + sum(each.status == 200 for each in answered), description="all ran")
    wait_for(lambda: drained(running))

    assert counter.highest == 3
    assert {answer.status for answer in answered} <= {200, 429}


def test_the_account_limit_holds_for_functions_without_a_reservation(daemon, counter, tmp_path):
    code = write_function(tmp_path / "code", COUNTED)
    counter.meets(2)
    running = daemon(sections(code, counter, daemon="invocation = { account_concurrency = 2 }"))
    burst(running, "/stored", 20)
    wait_for(lambda: counter.entered == 20 and drained(running), description="all ran")

    assert counter.highest == 2


def test_a_function_stopped_by_reserved_0_refuses_callers_and_makes_dead_letters(daemon, counter, tmp_path):
    code = write_function(tmp_path / "code", COUNTED)
    running = daemon(sections(code, counter, function="reserved_concurrency = 0"))
    answer = request(
        "POST",
        f"{running.api}/admin/v1/invoke/counted",
        body=b"{}",
        headers={"Authorization": f"Bearer {running.token}"},
    )
    stored = running.post("/stored", b"{}")
    letters = wait_for(
        lambda: json.loads(running.admin("GET", "/admin/v1/dlq").body)["dead_letters"], description="a dead letter"
    )

    assert answer.status == 429
    assert answer.headers["x-amzn-errortype"] == "TooManyRequestsException"
    assert answer.json()["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert stored.status == 202
    assert [letter["condition"] for letter in letters] == ["ZeroReservedConcurrency"]
    assert counter.entered == 0


def test_a_caller_over_the_limit_waits_a_second(daemon, counter, tmp_path):
    counter.gate.clear()
    code = write_function(tmp_path / "code", COUNTED)
    running = daemon(sections(code, counter, function="reserved_concurrency = 1"))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(running.post, "/answered", b"{}")
        wait_for(lambda: counter.inside == 1)
        began = time.monotonic()
        second = running.post("/answered", b"{}")
        took_s = time.monotonic() - began
        counter.gate.set()
        assert first.result().status == 200

    assert second.status == 429
    assert took_s > 0.9
    assert b"ReservedFunctionConcurrentInvocationLimitExceeded" in second.body
    assert "retry-after" in second.headers


def test_a_full_lane_pushes_back_on_its_own_routes_only(daemon, counter, tmp_path):
    counter.gate.clear()
    code = write_function(tmp_path / "code", COUNTED)
    settings = sections(code, counter, daemon="journal = { lane_events_max = 5 }", function="reserved_concurrency = 1")
    running = daemon(
        settings
        + f"""
[functions.other]
code = "{code}"
handler = "app.handler"
environment = {{ COUNTER = "{counter.address}" }}

[sources.other]
type = "webhook"
path = "/other"
function = "other"
verify = "none"
"""
    )
    answers = burst(running, "/stored", 20)
    accepted = sum(answer.status == 202 for answer in answers)
    refused = [answer for answer in answers if answer.status == 503]
    other = running.post("/other", b"{}")
    counter.gate.set()

    assert accepted == 5
    assert len(refused) == 15
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert other.status == 202
    wait_for(lambda: counter.entered == accepted + 1 and drained(running), description="what was accepted is handled")
    assert running.post("/stored", b"{}").status == 202


FORKS = """
import os, subprocess, sys, time

MARKER = "{marker}"


def handler(event, context):
    sleep = "import time; time.sleep(300)"
    subprocess.Popen([sys.executable, "-c", sleep, MARKER])
    subprocess.Popen([sys.executable, "-c", sleep, MARKER], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execv(sys.executable, [sys.executable, "-c", sleep, MARKER])
    time.sleep(300)
"""


def test_a_timeout_ends_the_handler_with_all_its_descendants(daemon, tmp_path):
    marker = f"descendant-{tmp_path.name}"
    code = write_function(tmp_path / "code", FORKS.format(marker=marker))
    running = daemon(
        f"""
[functions.forks]
code = "{code}"
handler = "app.handler"
timeout_s = 3

[sources.forks]
type = "webhook"
path = "/forks"
function = "forks"
verify = "none"
invocation_type = "RequestResponse"
"""
    )

    def marked():
        found = []
        for process in psutil.process_iter():
            try:
                if marker in process.cmdline():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    seen = 0
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(running.post, "/forks", b"{}")
        while not answer.done():
            seen = max(seen, len(marked()))
            time.sleep(0.02)
        status = answer.result().status
    assert seen >= 3, "the handler's descendants were seen"
    assert status in (502, 504)
    wait_for(lambda: not marked(), description="no descendant is left")
