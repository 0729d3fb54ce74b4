"""Whole daemons that tell queues, topics, buckets, buses and functions how events ended; read back with boto3."""

import json
import re

import pytest

from tests.brokers import fault_kinds as faults
from tests.harness import request, wait_for, write_function

pytestmark = [pytest.mark.integration]

READ_S = 60
ENDING = """
def handler(event, context):
    if event.get("boom"):
        raise ValueError("boom " + "x" * event.get("size", 0))
    return {"did": event["n"], "large": "y" * event.get("size", 0)}
"""
CONFIG = """
{connection}
[functions.ending]
code = "{code}"
handler = "app.handler"
timeout_s = 10
{function}

[functions.ending.event_invoke]
maximum_retry_attempts = 0
{invoke}

[functions.other]
code = "{code}"
handler = "app.handler"
"""
ARN = "arn:aws:lambda:us-east-1:000000000000:function:ending"


@pytest.fixture
def ending(daemon, tmp_path):
    """Return `ending(service, invoke, function="")`: a daemon whose function fails when told to, and its post."""

    def start(service, invoke="", function=""):
        code = write_function(tmp_path / "ending", ENDING)
        return daemon(CONFIG.format(connection=service.connection(), code=code, invoke=invoke, function=function))

    return start


def queue_of(service, **attributes):
    """Return (name, ARN, url) of a new queue."""
    name = service.name()
    url = service.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return name, service.arn("sqs", name), url


def received(service, url, count, *, wait_s=READ_S):
    """Return `count` messages, once they are there; and no more are."""
    found = []

    def read():
        answer = service.client("sqs").receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        for message in answer.get("Messages", ()):
            service.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found.append(message)
        return len(found) >= count

    wait_for(read, wait_s, f"{count} messages")
    return found


def invoke(process, event, function="ending"):
    """Invoke asynchronously; returns the request id."""
    url = f"{process.api}/admin/v1/invoke/{function}"
    headers = {"Authorization": f"Bearer {process.token}", "X-Amz-Invocation-Type": "Event"}
    done = request("POST", url, body=json.dumps(event), headers=headers)
    assert done.status == 202, done
    return done.headers["x-amzn-requestid"]


# --- each kind of target ---------------------------------------------------------------------------------------------


def test_a_success_and_a_failure_go_to_their_queues(ministack, ending) -> None:
    (_, done, done_url), (_, failed, failed_url) = queue_of(ministack), queue_of(ministack)
    process = ending(ministack, f'on_success = "{done}"\non_failure = "{failed}"')

    good, bad = invoke(process, {"n": 1}), invoke(process, {"boom": True})

    (success,) = received(ministack, done_url, 1)
    record = json.loads(success["Body"])
    assert record["requestContext"] == {
        "requestId": good, "functionArn": f"{ARN}:$LATEST", "condition": "Success", "approximateInvokeCount": 1,
    }  # fmt: skip
    assert (record["requestPayload"], record["responsePayload"]) == ({"n": 1}, {"did": 1, "large": ""})
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    (failure,) = received(ministack, failed_url, 1)
    record = json.loads(failure["Body"])
    assert (record["requestContext"]["requestId"], record["requestContext"]["condition"]) == (bad, "RetriesExhausted")
    assert record["responsePayload"]["errorMessage"] == "boom "
    wait_for(lambda: not process.admin("GET", "/admin/v1/dlq").json()["dead_letters"], READ_S, "no dead letter here")
    event = wait_for(lambda: process.admin("GET", f"/admin/v1/events/{bad}").json(), READ_S)
    assert [(sent["kind"], sent["target"]) for sent in event["sent"]] == [("on_failure", failed)]
    assert failed in process.cli("events", "show", bad).stdout


def test_moto_takes_what_ministack_takes(moto, ending) -> None:
    (_, done, done_url), (_, dead, dead_url) = queue_of(moto), queue_of(moto)
    topic = moto.client("sns").create_topic(Name=moto.name())["TopicArn"]
    moto.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=dead, Attributes={"RawMessageDelivery": "true"}
    )
    process = ending(
        moto, f'on_success = "{done}"', f'dead_letter_config = {{ target_arn = "{topic}" }}\nconnection = "aws"'
    )

    good, bad = invoke(process, {"n": 1}), invoke(process, {"boom": True})

    (success,) = received(moto, done_url, 1)
    assert json.loads(success["Body"])["requestContext"]["requestId"] == good
    (letter,) = received(moto, dead_url, 1)
    assert json.loads(letter["Body"]) == {"boom": True}
    assert letter["MessageAttributes"]["RequestID"]["StringValue"] == bad
    assert letter["MessageAttributes"]["ErrorCode"] | {"StringValue": "200"} == letter["MessageAttributes"]["ErrorCode"]


def test_a_dead_letter_queue_and_a_destination_both_get_the_event(ministack, ending) -> None:
    """Annex B 10."""
    (_, dead, dead_url), (_, failed, failed_url) = queue_of(ministack), queue_of(ministack)
    process = ending(
        ministack, f'on_failure = "{failed}"', f'dead_letter_config = {{ target_arn = "{dead}" }}\nconnection = "aws"'
    )

    request_id = invoke(process, {"boom": True, "size": 3000})

    (letter,) = received(ministack, dead_url, 1)
    assert json.loads(letter["Body"]) == {"boom": True, "size": 3000}
    assert {name: (value["DataType"], value["StringValue"]) for name, value in letter["MessageAttributes"].items()} == {
        "RequestID": ("String", request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", ("boom " + "x" * 3000)[:1024]),
    }
    (failure,) = received(ministack, failed_url, 1)
    assert json.loads(failure["Body"])["requestContext"]["requestId"] == request_id


def test_a_topic_delivers_the_record_to_its_queue(ministack, ending) -> None:
    _, queue, url = queue_of(ministack)
    topic = ministack.client("sns").create_topic(Name=ministack.name())["TopicArn"]
    ministack.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    process = ending(ministack, f'on_failure = "{topic}"', f'dead_letter_config = {{ target_arn = "{topic}" }}')

    request_id = invoke(process, {"boom": True})

    messages = [json.loads(message["Body"]) for message in received(ministack, url, 2)]
    (letter,) = [message for message in messages if message.get("MessageAttributes")]
    (record,) = [json.loads(message["Message"]) for message in messages if not message.get("MessageAttributes")]
    assert json.loads(letter["Message"]) == {"boom": True}
    assert letter["MessageAttributes"]["RequestID"] == {"Type": "String", "Value": request_id}
    assert record["requestContext"]["requestId"] == request_id


def test_a_bucket_keeps_failures_under_their_keys(ministack, ending) -> None:
    bucket = ministack.name()
    ministack.client("s3").create_bucket(Bucket=bucket)
    process = ending(ministack, f'on_failure = "arn:aws:s3:::{bucket}"')

    request_id = invoke(process, {"boom": True})

    (found,) = wait_for(
        lambda: ministack.client("s3").list_objects_v2(Bucket=bucket).get("Contents"), READ_S, "the object"
    )
    assert re.fullmatch(
        r"aws/lambda/async/ending/\d{4}/\d\d/\d\d/\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d-[0-9a-f-]{36}", found["Key"]
    )
    body = ministack.client("s3").get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
    assert json.loads(body)["requestContext"]["requestId"] == request_id


def test_a_bus_matches_rules_on_the_record(ministack, ending) -> None:
    _, queue, url = queue_of(ministack)
    bus = ministack.name()
    arn = ministack.client("events").create_event_bus(Name=bus)["EventBusArn"]
    pattern = {"source": ["lambda"], "detail": {"requestContext": {"condition": ["Success"]}}}
    ministack.client("events").put_rule(Name="r", EventBusName=bus, EventPattern=json.dumps(pattern))
    ministack.client("events").put_targets(Rule="r", EventBusName=bus, Targets=[{"Id": "1", "Arn": queue}])
    process = ending(ministack, f'on_success = "{arn}"\non_failure = "{arn}"')

    invoke(process, {"boom": True})
    request_id = invoke(process, {"n": 1})

    (message,) = received(ministack, url, 1)
    event = json.loads(message["Body"])
    assert event["detail-type"] == "Lambda Function Invocation Result - Success"
    assert event["source"] == "lambda"
    assert event["resources"] == [arn, f"{ARN}:$LATEST"]
    assert event["detail"]["requestContext"]["requestId"] == request_id


def test_a_function_of_the_file_gets_the_record_as_an_event_of_its_own(ministack, ending) -> None:
    process = ending(ministack, f'on_failure = "{ARN.replace("ending", "other")}"')

    request_id = invoke(process, {"boom": True})

    def of_other():
        return process.admin("GET", "/admin/v1/events?function=other").json()["events"]

    (event,) = wait_for(of_other, READ_S, "the other function's event")
    whole = process.admin("GET", f"/admin/v1/events/{event['id']}").json()
    assert (whole["source"], whole["event"]["requestContext"]["requestId"]) == ("destination", request_id)


def test_a_mapping_s_failures_go_to_a_queue_without_and_to_a_bucket_with_their_records(
    ministack, daemon, tmp_path
) -> None:
    _, failed, url = queue_of(ministack)
    bucket = ministack.name()
    ministack.client("s3").create_bucket(Bucket=bucket)
    code = write_function(tmp_path / "ending", "def handler(event, context):\n    raise ValueError('boom')\n")
    text = f'{ministack.connection()}\n[functions.f]\ncode = "{code}"\nhandler = "app.handler"\n'
    for name, target in (("queue", failed), ("bucket", f"arn:aws:s3:::{bucket}")):
        text += f'[mappings.{name}]\nsource = "local://{name}?as=kinesis"\nfunction = "f"\nmaximum_retry_attempts = 0\n'
        text += f'on_failure = "{target}"\n'
    process = daemon(text)

    for name in ("queue", "bucket"):
        done = process.cli("put", name, '{"n": 1}')
        assert done.returncode == 0, done.stderr

    (message,) = received(ministack, url, 1)
    record = json.loads(message["Body"])
    assert record["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert record["requestContext"]["functionArn"] == ARN.replace("ending", "f")
    assert record["KinesisBatchInfo"]["batchSize"] == 1
    assert "payload" not in record
    (found,) = wait_for(
        lambda: ministack.client("s3").list_objects_v2(Bucket=bucket).get("Contents"), READ_S, "the object"
    )
    body = json.loads(ministack.client("s3").get_object(Bucket=bucket, Key=found["Key"])["Body"].read())
    assert len(body["payload"]["Records"]) == 1
    shard = body["KinesisBatchInfo"]["shardId"]
    assert re.match(rf"aws/lambda/[0-9a-f-]{{36}}/{shard}/\d{{4}}/\d\d/\d\d/", found["Key"])


# --- a target in trouble ---------------------------------------------------------------------------------------------


def test_while_the_target_is_down_the_event_waits_here_and_is_sent_when_it_is_back(
    ministack, aws_faults, ending
) -> None:
    _, failed, url = queue_of(ministack)
    stub = aws_faults(ministack)
    process = ending(stub, f'on_failure = "{failed}"')
    stub.down()

    ids = {invoke(process, {"boom": True, "n": n}) for n in range(5)}

    def waits():
        return process.admin("GET", "/admin/v1/targets").json()["targets"]

    (status,) = wait_for(lambda: [t for t in waits() if t["waiting"] == 5 and t["failures"] > 2], READ_S, "5 wait")
    assert (status["target"], status["kept"]) == (failed, 0)
    assert status["last_error"]
    listed = process.cli("dlq", "list")
    assert listed.stdout.count("waiting") == 5
    assert "5 records wait for 1 target: bridge dlq targets" in listed.stderr
    process.kill9()
    process.restart()
    wait_for(lambda: [t for t in waits() if t["waiting"] == 5 and t["failures"] > 1], READ_S, "5 wait still")
    stub.up()
    assert process.cli("dlq", "push").returncode == 0

    found = received(ministack, url, 5)
    assert {json.loads(message["Body"])["requestContext"]["requestId"] for message in found} == ids
    wait_for(lambda: not waits(), READ_S, "nothing waits any more")
    assert not process.admin("GET", "/admin/v1/dlq").json()["dead_letters"]


@pytest.mark.parametrize(
    "fault",
    [
        faults.error(403, "AccessDenied", "not authorized to perform sqs:SendMessage"),
        faults.throttle(retry_after_s=1),
        faults.server_error(500),
        faults.reset_before(),
        faults.reset_after(),
        faults.half_answer(),
        faults.error(400, "AWS.SimpleQueueService.NonExistentQueue", "no such queue"),
    ],
    ids=lambda fault: fault.name,
)
def test_no_fault_of_a_target_loses_a_record(ministack, aws_faults, ending, fault) -> None:
    _, done, url = queue_of(ministack)
    stub = aws_faults(ministack)
    stub.script("SendMessage", fault, fault, fault)
    process = ending(stub, f'on_success = "{done}"')

    request_id = invoke(process, {"n": 1})

    found = {json.loads(m["Body"])["requestContext"]["requestId"] for m in received(ministack, url, 1)}
    assert found == {request_id}


def test_what_is_too_large_is_pointed_at_and_the_whole_stays(ministack, ending) -> None:
    topic = ministack.client("sns").create_topic(Name=ministack.name())["TopicArn"]
    _, queue, url = queue_of(ministack)
    ministack.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    process = ending(ministack, f'on_success = "{topic}"\non_failure = "{topic}"')

    good = invoke(process, {"n": 1, "size": 300_000})
    bad = invoke(process, {"boom": True, "filling": "z" * 300_000})

    records = [json.loads(json.loads(message["Body"])["Message"]) for message in received(ministack, url, 2)]
    told = {record["requestContext"]["condition"]: record for record in records}
    assert told["Success"]["bridge"]["event"] == good
    assert told["RetriesExhausted"]["bridge"]["deadLetter"] == bad
    assert all("requestPayload" not in record for record in records)

    def letters():
        return process.admin("GET", "/admin/v1/dlq?state=dead").json()["dead_letters"]

    (letter,) = wait_for(letters, READ_S, "the whole stays")
    assert letter["id"] == bad
    (kept,) = [json.loads(line) for line in process.cli("dlq", "waiting", "--json").stdout.splitlines()]
    assert (kept["id"], kept["kept"], len(kept["record"]["responsePayload"]["large"])) == (good, True, 300_000)
