"""Embedded queues in whole daemons: put, retried, dead letters, kills, replay; no service of AWS anywhere."""

import json

import pytest

from tests.crash.rig import LedgerServer
from tests.harness import wait_for, write_function
from tests.integration.test_sqs import CODE

pytestmark = pytest.mark.integration


@pytest.fixture
def ledger(tmp_path):
    server = LedgerServer(tmp_path / "told.jsonl")
    yield server
    server.close()


@pytest.fixture
def config(tmp_path, ledger):
    code = write_function(tmp_path / "code", CODE)
    (tmp_path / "code").chmod(0o755)

    def made(source: str, more: str = "") -> str:
        return (
            f'[functions.f]\ncode = "{code}"\nhandler = "app.handler"\n'
            f'environment = {{ LEDGER = "{ledger.address}" }}\n\n'
            f'[mappings.m]\nsource = "{source}"\nfunction = "f"\n{more}'
        )

    return made


def told(ledger) -> list[dict]:
    return [json.loads(line)["record"] for line in ledger.path.read_bytes().splitlines()]


def bodies(ledger) -> list:
    return [json.loads(record["body"]) for record in told(ledger)]


def put(process, *values, key=None) -> None:
    for value in values:
        done = process.cli("put", "m", json.dumps(value), *(["--key", key] if key else []))
        assert done.returncode == 0, done.stderr


def test_what_is_put_is_handled_once_and_what_fails_becomes_a_dead_letter(daemon, config, ledger) -> None:
    options = "&visibility_timeout_s=1&max_receive_count=2"
    reports = 'function_response_types = ["ReportBatchItemFailures"]\n'
    process = daemon(config(f"local://jobs?as=sqs{options}", reports))
    put(process, [{"id": 1}, {"id": 2, "fail": 9}, {"id": 3, "fail": 1}])
    wait_for(lambda: "received 2 times" in process.cli("dlq", "list").stdout, description="a dead letter")
    wait_for(lambda: sorted(body["id"] for body in bodies(ledger)) == [1, 2, 2, 3, 3])

    assert told(ledger)[0]["eventSourceARN"] == "arn:aws:sqs:us-east-1:000000000000:jobs"
    shown = process.cli("mappings", "show", "m").stdout
    assert "after 2 receives" in shown


def test_groups_keep_their_order_over_a_kill(daemon, config, ledger) -> None:
    process = daemon(config("local://jobs.fifo?as=sqs&visibility_timeout_s=1", "batch_size = 1\n"))
    put(process, [{"id": n, "group": g, "sleep": 0.05} for n in range(10) for g in "ab"], key="group")
    wait_for(lambda: len(told(ledger)) > 5)
    process.kill9()
    process.restart()
    wait_for(lambda: len({(b["id"], b["group"]) for b in bodies(ledger)}) == 20)

    for group in "ab":
        seen = [body["id"] for body in bodies(ledger) if body["group"] == group]
        assert list(dict.fromkeys(seen)) == list(range(10))
    assert told(ledger)[0]["attributes"]["MessageGroupId"] in "ab"
    assert len(told(ledger)) <= 20 + 4  # what ran, or was being deleted, when it was killed


def test_an_embedded_queue_is_replayed_from_the_journal(daemon, config, ledger) -> None:
    process = daemon(config("local://jobs?as=sqs"))
    put(process, [{"id": n} for n in range(12)])
    wait_for(lambda: len(told(ledger)) == 12)
    done = process.cli("replay", "--mapping", "m", "--yes")

    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(told(ledger)) == 24)
