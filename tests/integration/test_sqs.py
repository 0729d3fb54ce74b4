"""Mappings of SQS queues in whole daemons against an emulator: events, order, failures, kills, the archive, dead letters."""

import base64
import collections
import json

import pytest

from tests.brokers import fault_kinds as faults
from tests.brokers.wire import answer_json
from tests.crash.rig import LedgerServer
from tests.harness import wait_for, write_function

pytestmark = pytest.mark.integration

CODE = """
import json, os, socket, time

host, port = os.environ["LEDGER"].split(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def handler(event, context):
    failed = []
    for record in event["Records"]:
        body = json.loads(record["body"])
        custom = context.client_context and context.client_context.custom
        connection.sendall(json.dumps({"record": record, "batch": len(event["Records"]), "custom": custom}).encode() + b"\\n")
        answers.readline()
        time.sleep(body.get("sleep", 0))
        if body.get("fail") and int(record["attributes"]["ApproximateReceiveCount"]) <= body["fail"]:
            failed.append(record["messageId"])
            if body.get("raise"):
                raise ValueError("told to")
    return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}
"""


class Queues:
    """What a test needs: a ledger of what was handled, queues, and the configuration of a mapping."""

    def __init__(self, service, folder) -> None:
        self.service = service
        self.sqs = service.client("sqs")
        self.ledger = LedgerServer(folder / "told.jsonl")
        self.code = write_function(folder / "code", CODE)
        (folder / "code").chmod(0o755)

    def make(self, suffix="", **attributes):
        name = self.service.name(suffix)
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return name, url

    def config(self, source, more="", *, timeout_s=3, endpoint=None) -> str:
        connection = self.service.connection(**({"endpoint_url": endpoint} if endpoint else {}))
        return (
            f'{connection}\n[functions.f]\ncode = "{self.code}"\nhandler = "app.handler"\ntimeout_s = {timeout_s}\n'
            f'environment = {{ LEDGER = "{self.ledger.address}" }}\n\n'
            f'[mappings.m]\nsource = "{source}"\nfunction = "f"\n{more}'
        )

    def send(self, url, *bodies, **more):
        for at in range(0, len(bodies), 10):
            entries = [
                {"Id": str(n), "MessageBody": json.dumps(body)} | {k: v(body) for k, v in more.items()}
                for n, body in enumerate(bodies[at : at + 10])
            ]
            assert not self.sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")

    @property
    def told(self):
        return [json.loads(line) for line in self.ledger.path.read_bytes().splitlines()]

    @property
    def bodies(self):
        return [json.loads(each["record"]["body"]) for each in self.told]

    def count(self, url) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)


@pytest.fixture
def queues(ministack, tmp_path):
    made = Queues(ministack, tmp_path)
    yield made
    made.ledger.close()


def test_messages_are_handled_as_aws_shapes_them_and_deleted(queues, daemon) -> None:
    name, url = queues.make()
    daemon(queues.config(f"sqs://aws/{name}"))
    queues.sqs.send_message(
        QueueUrl=url, MessageBody='{"id": 1}',
        MessageAttributes={
            "Title": {"DataType": "String", "StringValue": "The Whistler"},
            "Blob": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        },
    )  # fmt: skip
    wait_for(lambda: queues.told, description="the message is handled")
    (told,) = queues.told
    record = told["record"]

    assert {
        "messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfBody", "md5OfMessageAttributes",
        "eventSource", "eventSourceARN", "awsRegion",
    } == set(record)  # fmt: skip
    assert ('{"id": 1}', "aws:sqs", queues.service.arn("sqs", name), "us-east-1") == tuple(
        record[key] for key in ("body", "eventSource", "eventSourceARN", "awsRegion")
    )
    assert all(isinstance(value, str) for value in record["attributes"].values())
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["messageAttributes"] == {
        "Title": {"stringValue": "The Whistler", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
        "Blob": {
            "binaryValue": base64.b64encode(b"\x00\xff").decode(), "stringListValues": [], "binaryListValues": [],
            "dataType": "Binary",
        },
    }  # fmt: skip
    wait_for(lambda: queues.count(url) == 0, description="it is deleted")


def test_a_queue_is_read_by_its_arn_and_shown(queues, daemon) -> None:
    name, url = queues.make(VisibilityTimeout="2")
    process = daemon(queues.config(queues.service.arn("sqs", name)))
    queues.send(url, *[{"id": number} for number in range(30)])
    wait_for(lambda: len(queues.told) == 30)
    wait_for(lambda: queues.count(url) == 0)

    shown = process.cli("mappings", "show", "m").stdout
    assert "Queue visibility timeout: 2 seconds is less than Function timeout: 3 seconds" in shown
    assert f"arn:aws:sqs:us-east-1:{queues.service.account}:{name}" in shown
    assert "Enabled" in process.cli("mappings", "list").stdout
    refused = process.cli("mappings", "reset", "m", "--position", "LATEST", "--yes")
    assert refused.returncode != 0
    assert "no marks to move" in refused.stderr


def test_failures_count_in_the_queues_redrive_policy(queues, daemon) -> None:
    _, dead_url = queues.make()
    dead_arn = queues.sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": "2"})
    name, url = queues.make(VisibilityTimeout="1", RedrivePolicy=policy)
    process = daemon(queues.config(f"sqs://aws/{name}", 'function_response_types = ["ReportBatchItemFailures"]\n'))
    queues.send(url, {"id": 1}, {"id": 2, "fail": 9}, {"id": 3, "fail": 1}, {"id": 4})
    wait_for(lambda: queues.count(dead_url) == 1, description="the poison is a dead letter")
    wait_for(lambda: queues.count(url) == 0, description="all else is handled")

    tries = collections.Counter(body["id"] for body in queues.bodies)
    assert tries == {1: 1, 2: 2, 3: 2, 4: 1}
    assert "after 2 receives" in process.cli("mappings", "show", "m").stdout


def test_groups_of_a_fifo_queue_keep_their_order_though_some_fail(queues, daemon) -> None:
    name, url = queues.make(".fifo", FifoQueue="true", VisibilityTimeout="1", ContentBasedDeduplication="true")
    daemon(queues.config(f"sqs://aws/{name}", "batch_size = 1\n"))
    sent = [
        {"id": number, "group": group, "fail": int(number % 7 == 3), "raise": True}
        for number in range(10) for group in "abc"
    ]  # fmt: skip
    queues.send(url, *sent, MessageGroupId=lambda body: body["group"])
    wait_for(lambda: queues.count(url) == 0 and len({json.dumps(b) for b in queues.bodies}) == 30, timeout_s=120)

    for group in "abc":
        seen = [b["id"] for b in queues.bodies if b["group"] == group]
        assert list(dict.fromkeys(seen)) == list(range(10))
        # What failed came again before anything behind it.
        assert seen == [n for n in range(10) for _ in range(2 if n % 7 == 3 else 1)]


def test_a_window_makes_batches_larger_than_a_receive(queues, daemon) -> None:
    name, url = queues.make()
    queues.send(url, *[{"id": number} for number in range(100)])
    daemon(queues.config(f"sqs://aws/{name}", "batch_size = 200\nmaximum_batching_window_s = 3\n", timeout_s=30))
    wait_for(lambda: len(queues.told) == 100)
    wait_for(lambda: queues.count(url) == 0)

    assert max(each["batch"] for each in queues.told) > 10


def test_kills_lose_nothing_and_the_archive_holds_every_message_once(queues, daemon) -> None:
    name, url = queues.make(VisibilityTimeout="1")
    more = "batch_size = 5\n"
    process = daemon(queues.config(f"sqs://aws/{name}", more, timeout_s=1))
    for number in range(3):
        queues.send(url, *[{"id": number * 100 + at, "sleep": 0.02} for at in range(100)])
        wait_for(lambda: len(queues.told) > number * 100 + 30)
        process.kill9()
        process.restart()
    # A kill leaves messages hidden for as long as a receive asked for: timeout and half a minute.
    wait_for(lambda: len({b["id"] for b in queues.bodies}) == 300, timeout_s=120)
    wait_for(lambda: queues.count(url) == 0, timeout_s=120)

    events = process.admin("GET", "/admin/v1/mappings/m/records").body.splitlines()
    archived = collections.Counter(json.loads(json.loads(line)["record"]["body"])["id"] for line in events)
    assert set(archived) == set(range(300))
    assert sum(archived.values()) <= 300 + 3 * 50  # what was being deleted when it was killed came again


def test_messages_that_were_deleted_are_replayed_from_the_archive(queues, daemon) -> None:
    name, url = queues.make()
    process = daemon(queues.config(f"sqs://aws/{name}"))
    queues.send(url, *[{"id": number} for number in range(25)])
    wait_for(lambda: queues.count(url) == 0 and len(queues.told) == 25)
    done = process.cli("replay", "--mapping", "m", "--since", "10m", "--yes", "--name", "again")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(queues.told) == 50)

    replayed = queues.told[25:]
    assert {json.loads(each["record"]["body"])["id"] for each in replayed} == set(range(25))
    assert {each["custom"]["bridge-replay"] for each in replayed} == {"again"}
    assert replayed[0]["record"]["attributes"]["ApproximateReceiveCount"] == "1"
    assert (
        "25 records" in process.cli("replay", "--mapping", "m", "--dry-run").stdout
    )  # replayed ones are not kept again


def test_without_an_archive_a_replay_says_why_there_is_none(queues, daemon) -> None:
    name, _ = queues.make()
    process = daemon(queues.config(f"sqs://aws/{name}", "archive = false\n"))
    refused = process.cli("replay", "--mapping", "m", "--yes")

    assert refused.returncode != 0
    assert "archive = false" in refused.stderr
    assert "nothing of this queue can be replayed" in process.log()


def test_a_missing_queue_is_said_in_aws_words_until_it_is_there(queues, daemon) -> None:
    name = queues.service.name()
    process = daemon(queues.config(f"sqs://aws/{name}"))
    said = wait_for(
        lambda: (text := process.cli("mappings", "show", "m").stdout) and "NonExistentQueue" in text and text
    )
    assert "SQS Error Message: The specified queue does not exist." in said
    url = queues.sqs.create_queue(QueueName=name)["QueueUrl"]
    queues.send(url, {"id": 1})

    wait_for(lambda: queues.bodies == [{"id": 1}])


def test_a_service_that_misbehaves_costs_time_and_nothing_else(queues, daemon, aws_faults) -> None:
    stub = aws_faults(queues.service)
    name, url = queues.make(VisibilityTimeout="2")
    stub.script("ReceiveMessage", faults.throttle(), faults.reset_after(), faults.server_error())
    stub.script("DeleteMessageBatch", faults.server_error(), faults.partial(2), faults.reset_before())
    stub.script("ChangeMessageVisibilityBatch", faults.server_error())
    daemon(queues.config(f"sqs://aws/{name}", endpoint=stub.endpoint_url))
    queues.send(url, *[{"id": number} for number in range(20)])

    wait_for(lambda: queues.count(url) == 0 and {b["id"] for b in queues.bodies} == set(range(20)), timeout_s=90)


# --- dead-letter queues ---


def test_a_dead_letter_queue_is_looked_at_without_consuming(moto, tmp_path, daemon) -> None:
    queues = Queues(moto, tmp_path)  # ministack cannot say whose dead-letter queue one is
    try:
        dead_name, dead_url = queues.make()
        policy = json.dumps({"deadLetterTargetArn": queues.service.arn("sqs", dead_name), "maxReceiveCount": "1"})
        name, _ = queues.make(RedrivePolicy=policy)
        process = daemon(queues.config(f"sqs://aws/{name}"))
        queues.send(dead_url, *[{"id": number} for number in range(4)])
        shown = process.cli("dlq", "list", f"sqs://aws/{dead_name}")
        assert shown.returncode == 0, shown.stderr
        found = json.loads(process.cli("dlq", "list", queues.service.arn("sqs", dead_name), "--json").stdout)

        assert name in shown.stdout
        assert (4, 4) == (found["visible"], len(found["messages"]))
        assert [url.rpartition("/")[2] for url in found["sources"]] == [name]
        assert queues.count(dead_url) == 4
        missing = process.cli("dlq", "list", "sqs://aws/nothing-here")
        assert (1, True) == (missing.returncode, "NonExistentQueue" in missing.stderr)
        assert "no [connections.other]" in process.cli("dlq", "list", "sqs://other/q").stderr
        refused = process.cli("dlq", "redrive", f"sqs://aws/{name}", "--yes")
        assert (2, True) == (refused.returncode, "--function NAME" in refused.stderr)
    finally:
        queues.ledger.close()


def test_sqs_moves_dead_letters_back_where_it_may(queues, daemon, aws_faults) -> None:
    stub = aws_faults(queues.service)  # no emulator moves messages
    name, url = queues.make()
    source, _ = queues.make()
    queues.send(url, {"id": 1}, {"id": 2})
    polls = iter([1, 2])
    asked = []

    def start(call):
        asked.append(json.loads(call.body))
        return answer_json({"TaskHandle": "t"})

    def tasks(_call):
        moved = next(polls, 2)
        task = {"Status": "RUNNING" if moved < 2 else "COMPLETED", "ApproximateNumberOfMessagesMoved": moved}
        return answer_json({"Results": [task | {"ApproximateNumberOfMessagesToMove": 2}]})

    stub.answer("ListDeadLetterSourceQueues", lambda _call: answer_json({"queueUrls": ["http://h/0/orders"]}))
    stub.answer("StartMessageMoveTask", start)
    stub.answer("ListMessageMoveTasks", tasks)
    process = daemon(queues.config(f"sqs://aws/{source}", endpoint=stub.endpoint_url))
    dry = process.cli("dlq", "redrive", f"sqs://aws/{name}", "--dry-run")
    assert f"about 2 messages of {queues.service.arn('sqs', name)} back to orders; nothing was sent" in dry.stdout
    done = process.cli("dlq", "redrive", f"sqs://aws/{name}", "--rate", "50", "--yes")

    assert (0, "completed: 2 moved") == (done.returncode, done.stdout.strip())
    assert asked == [{"SourceArn": queues.service.arn("sqs", name), "MaxNumberOfMessagesPerSecond": 50}]


def test_a_functions_dead_letters_are_handed_to_a_function(queues, daemon) -> None:
    name, url = queues.make(VisibilityTimeout="60")
    source, _ = queues.make()
    handler = (
        "def handler(event, context):\n    if event.get('fail'):\n        raise ValueError('still')\n    return event\n"
    )
    code = write_function(queues.code.parent / "plain", handler)
    code.chmod(0o755)
    more = f'\n[functions.plain]\ncode = "{code}"\nhandler = "app.handler"\n'
    process = daemon(queues.config(f"sqs://aws/{source}") + more)
    attributes = {
        "RequestID": {"DataType": "String", "StringValue": "6b2b0b1a-7e0b-4e59-9d2b-0f2f0a1c3d4e"},
        "ErrorCode": {"DataType": "Number", "StringValue": "200"},
        "ErrorMessage": {"DataType": "String", "StringValue": "no such row"},
    }
    queues.send(url, *[{"n": n, "fail": n == 3} for n in range(12)], MessageAttributes=lambda _body: attributes)
    assert "200 no such row" in process.cli("dlq", "list", f"sqs://aws/{name}").stdout
    unknown = process.cli("dlq", "redrive", f"sqs://aws/{name}", "--function", "nope", "--yes")
    assert unknown.returncode == 1
    done = process.cli("dlq", "redrive", f"sqs://aws/{name}", "--function", "plain", "--yes", "--json")

    told = json.loads(done.stdout)
    assert (11, 1) == (told["succeeded"], told["failed"]), told
    assert "ValueError: still" in told["errors"][0]
    assert done.returncode == 1
    assert queues.count(url) == 1
