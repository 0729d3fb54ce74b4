"""Whole daemons that read queues of SQS, with boto3 and the awscli on the other side."""

import pytest

from tests.harness import wait_for

pytestmark = [pytest.mark.integration]

READ_S = 60


def test_a_message_of_the_awscli_is_the_event_of_aws_and_is_deleted(ministack, telling, told) -> None:
    queue = ministack.name()
    url = ministack.cli("sqs", "create-queue", "--queue-name", queue)["QueueUrl"]
    sent = ministack.cli(
        "sqs", "send-message", "--queue-url", url, "--message-body", "grüezi",
        "--message-attributes", '{"trace": {"DataType": "String", "StringValue": "t-1"}}',
    )  # fmt: skip
    telling(ministack, f"sqs://aws/{queue}")

    wait_for(told, READ_S, "the message is read")

    (record,) = told.records()
    assert record["messageId"] == sent["MessageId"]
    assert record["body"] == "grüezi"
    assert record["md5OfBody"] == sent["MD5OfMessageBody"]
    assert record["messageAttributes"]["trace"]["stringValue"] == "t-1"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert (record["eventSource"], record["awsRegion"]) == ("aws:sqs", "us-east-1")
    assert record["eventSourceARN"] == ministack.arn("sqs", queue)
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def left() -> dict:
        return ministack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]

    wait_for(lambda: set(left().values()) == {"0"}, READ_S, "the message is deleted")


def test_moto_s_queue_is_read_as_ministack_s(moto, telling, told) -> None:
    queue = moto.client("sqs").create_queue(QueueName=moto.name())["QueueUrl"]
    moto.client("sqs").send_message(QueueUrl=queue, MessageBody="one")

    telling(moto, f"sqs://aws/{queue.rsplit('/', 1)[1]}")
    wait_for(told, READ_S, "the message is read")

    assert [record["body"] for record in told.records()] == ["one"]


def test_messages_of_a_group_come_in_their_order(ministack, telling, told) -> None:
    name = ministack.name(".fifo")
    client = ministack.client("sqs")
    url = client.create_queue(QueueName=name, Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})
    for number in range(30):
        client.send_message(QueueUrl=url["QueueUrl"], MessageBody=str(number), MessageGroupId=f"g{number % 3}")

    telling(ministack, f"sqs://aws/{name}", "batch_size = 4")
    wait_for(lambda: len(told.records()) >= 30, READ_S, "all messages are read")

    for group in range(3):
        found = [int(each["body"]) for each in told.records() if each["attributes"]["MessageGroupId"] == f"g{group}"]
        assert found == list(range(group, 30, 3))


def test_a_queue_that_is_not_there_is_told_and_found_once_it_is(ministack, telling, told) -> None:
    queue = ministack.name()
    process = telling(ministack, f"sqs://aws/{queue}", ready=False)
    wait_for(lambda: queue in process.log(), READ_S, "the log names the queue")

    url = ministack.client("sqs").create_queue(QueueName=queue)["QueueUrl"]
    ministack.client("sqs").send_message(QueueUrl=url, MessageBody="late")
    wait_for(told, READ_S, "the message is read")

    assert process.is_running()
    assert [record["body"] for record in told.records()] == ["late"]
