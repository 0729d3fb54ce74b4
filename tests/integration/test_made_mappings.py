"""boto3 maps queues and streams to functions while the daemon runs: made, changed, killed and restarted, deleted."""

import asyncio
import base64
import json

import pytest
from aiokafka import AIOKafkaProducer
from botocore.exceptions import ClientError

from tests.harness import wait_for, write_function
from tests.integration.conftest import TELLING
from tests.lambda_client import lambda_client

pytestmark = [pytest.mark.integration]

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


def lives(bridge, account, asked, *, put, values):
    """Create, update, disable, kill and restart, enable and delete a mapping; what it is asked with is `asked`.

    `put(value)` adds a record, `values()` returns the batches that came, of values each.
    """
    a, b, c, d = "abcd"
    flat = lambda: [value for batch in values() for value in batch]  # noqa: E731
    api = lambda_client(bridge, account)
    made = api.create_event_source_mapping(
        FunctionName="telling", StartingPosition="TRIM_HORIZON", BatchSize=1, Tags={"team": "a"}, **asked
    )
    settled(api, made, "Enabled")
    put(a)
    put(b)
    wait_for(lambda: len(flat()) >= 2, description="two records are handled")
    assert values() == [[a], [b]], "one a batch"
    updated = api.update_event_source_mapping(UUID=made["UUID"], BatchSize=10, MaximumRetryAttempts=1)
    assert (updated["State"], updated["BatchSize"], updated["MaximumRetryAttempts"]) == ("Updating", 10, 1)
    settled(api, made, "Enabled")
    assert api.update_event_source_mapping(UUID=made["UUID"], Enabled=False)["State"] == "Disabling"
    settled(api, made, "Disabled")
    put(c)
    bridge.kill9()
    api = lambda_client(bridge.restart(), account)
    settled(api, made, "Disabled")
    assert api.list_tags(Resource=made["EventSourceMappingArn"])["Tags"] == {"team": "a"}
    (kept,) = api.list_event_source_mappings(FunctionName="telling")["EventSourceMappings"]
    assert (kept["UUID"], kept["BatchSize"], kept["MaximumRetryAttempts"]) == (made["UUID"], 10, 1)
    assert api.update_event_source_mapping(UUID=made["UUID"], Enabled=True)["State"] == "Enabling"
    wait_for(lambda: len(flat()) >= 3, description="it goes on")
    assert flat() == [a, b, c], "at its mark"
    settled(api, made, "Enabled")
    api.delete_event_source_mapping(UUID=made["UUID"])
    wait_for(lambda: not api.list_event_source_mappings()["EventSourceMappings"], description="it is gone")
    put(d)
    assert flat() == [a, b, c]


def test_a_tables_stream_is_mapped_all_its_life(bridge, told, ministack):
    dynamodb, table = ministack.client("dynamodb"), ministack.name()
    made = dynamodb.create_table(
        TableName=table, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
    )  # fmt: skip
    lives(
        bridge,
        ministack.account,
        {"EventSourceArn": made["TableDescription"]["LatestStreamArn"]},
        put=lambda value: dynamodb.put_item(TableName=table, Item={"id": {"S": value}}),
        values=lambda: [[record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"]] for event in told()],
    )


CLUSTER = "arn:aws:kafka:us-east-1:000000000000:cluster/main/0b1c2d3e-1"
KAFKA = """
[connections.main]
type = "kafka"
bootstrap_servers = ["{bootstrap}"]
event_source_arn = "{cluster}"

[egress]
allow = ["127.0.0.1"]
"""


async def test_a_topic_is_mapped_all_its_life_by_its_brokers_and_by_its_clusters_arn(
    daemon, told, tmp_path, kafka, kafka_topic
):
    own, managed = await kafka_topic(), await kafka_topic()
    code = write_function(tmp_path / "code", TELLING)
    connection = KAFKA.format(bootstrap=kafka.bootstrap, cluster=CLUSTER)
    account = CLUSTER.split(":")[4]
    bridge = daemon(CONFIG.format(account=account, connection=connection, code=code, ledger=told.address))

    def values():
        return [
            [base64.b64decode(record["value"]).decode() for records in event["records"].values() for record in records]
            for event in told()
        ]

    def put_to(topic):
        async def put(value):
            async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
                await producer.send_and_wait(topic, value.encode())

        return lambda value: asyncio.run(put(value))

    # Brokers that no connection names: reached as they are written.
    servers = [kafka.bootstrap.replace("127.0.0.1", "localhost")]
    assert servers != [kafka.bootstrap]
    of_brokers = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": servers}}, "Topics": [own]}
    await asyncio.to_thread(lives, bridge, account, of_brokers, put=put_to(own), values=values)
    api = lambda_client(bridge, account)
    of_brokers["SelfManagedEventSource"]["Endpoints"]["KAFKA_BOOTSTRAP_SERVERS"] = ["127.0.0.2:9092"]
    with pytest.raises(ClientError, match=r"127\.0\.0\.2:9092 is not allowed .* \[egress\] allow") as caught:
        api.create_event_source_mapping(FunctionName="telling", StartingPosition="LATEST", **of_brokers)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"
    made = api.create_event_source_mapping(
        FunctionName="telling", EventSourceArn=CLUSTER, Topics=[managed], StartingPosition="TRIM_HORIZON"
    )
    assert made["AmazonManagedKafkaEventSourceConfig"] == {"ConsumerGroupId": made["UUID"]}
    await asyncio.to_thread(put_to(managed), "msk")
    await asyncio.to_thread(wait_for, lambda: len(values()) == 4, description="the record is handled")
    assert values()[-1] == ["msk"]
    sources = [(event["eventSource"], event.get("eventSourceArn")) for event in told()]
    assert sources == [("SelfManagedKafka", None)] * 3 + [("aws:kafka", CLUSTER)]
