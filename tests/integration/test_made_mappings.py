"""boto3 maps queues and streams to functions while the daemon runs: made, changed, killed and restarted, deleted."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.harness import wait_for, write_function
from tests.integration.conftest import TELLING
from tests.lambda_client import lambda_client

pytestmark = pytest.mark.integration

CONFIG = """
account = "{account}"
region = "us-east-1"
api = {{ auth = "none" }}
{connection}
[functions.telling]
code = "{code}"
handler = "app.handler"
timeout_s = 2
environment = {{ LEDGER = "{ledger}" }}
"""


@pytest.fixture
def bridge(daemon, told, tmp_path, ministack):
    code = write_function(tmp_path / "code", TELLING)
    return daemon(
        CONFIG.format(account=ministack.account, connection=ministack.connection(), code=code, ledger=told.address)
    )


def settled(api, made, state):
    wait_for(lambda: api.get_event_source_mapping(UUID=made["UUID"])["State"] == state, description=f"it is {state}")


def test_a_queue_is_mapped_and_unmapped(bridge, told, ministack):
    api, sqs = lambda_client(bridge, ministack.account), ministack.client("sqs")
    name = ministack.name()
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = ministack.arn("sqs", name)
    made = api.create_event_source_mapping(EventSourceArn=arn, FunctionName="telling", BatchSize=1)
    assert (made["State"], made["ResponseMetadata"]["HTTPStatusCode"]) == ("Creating", 202)
    settled(api, made, "Enabled")
    sqs.send_message(QueueUrl=url, MessageBody="one")
    wait_for(lambda: [record["body"] for record in told.records()] == ["one"], description="the message is handled")
    with pytest.raises(ClientError) as caught:
        api.create_event_source_mapping(EventSourceArn=arn, FunctionName="telling")
    assert caught.value.response["Error"]["Code"] == "ResourceConflictException"
    assert api.delete_event_source_mapping(UUID=made["UUID"])["State"] == "Deleting"
    wait_for(lambda: not api.list_event_source_mappings()["EventSourceMappings"], description="it is gone")
    bridge.kill9()
    api = lambda_client(bridge.restart(), ministack.account)
    assert api.list_event_source_mappings()["EventSourceMappings"] == []

    stream, queue = ministack.arn("kinesis", "stream/none"), ministack.arn("sqs", "none-of-mine")
    for arn, text, more in (
        (stream, f"Stream not found: {stream}", {"StartingPosition": "LATEST"}),
        (queue, "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue does not exist.", {}),
    ):  # fmt: skip
        with pytest.raises(ClientError) as caught:
            api.create_event_source_mapping(EventSourceArn=arn, FunctionName="telling", **more)
        assert caught.value.response["Error"] == {"Code": "InvalidParameterValueException", "Message": text}


def test_a_stream_is_mapped_and_goes_on_at_its_mark(bridge, told, ministack):
    api, kinesis = lambda_client(bridge, ministack.account), ministack.client("kinesis")
    name = ministack.name()
    kinesis.create_stream(StreamName=name, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    arn = ministack.arn("kinesis", f"stream/{name}")
    made = api.create_event_source_mapping(
        EventSourceArn=arn, FunctionName="telling", StartingPosition="TRIM_HORIZON", BatchSize=10
    )
    keys = lambda: [record["kinesis"]["partitionKey"] for record in told.records()]  # noqa: E731
    kinesis.put_record(StreamName=name, Data=b"1", PartitionKey="one")
    wait_for(lambda: keys() == ["one"], description="the record is handled")
    wait_for(
        lambda: api.get_event_source_mapping(UUID=made["UUID"])["LastProcessingResult"] == "OK",
        description="it says so",
    )
    shown = json.loads(bridge.cli("mappings", "pause", made["UUID"], "--json").stdout)
    assert (shown["name"], shown["function"]) == (made["UUID"], "telling")
    settled(api, made, "Disabled")
    kinesis.put_record(StreamName=name, Data=b"2", PartitionKey="two")
    bridge.kill9()
    api = lambda_client(bridge.restart(), ministack.account)
    settled(api, made, "Disabled")
    assert api.update_event_source_mapping(UUID=made["UUID"], Enabled=True)["State"] == "Enabling"
    wait_for(lambda: keys() == ["one", "two"], description="it goes on at its mark")
