"""Streams of AWS as mappings get them: by which client, within whose limits, and whether somebody has to be asked."""

import pytest

from bridge.core.connection import AwsConnection
from bridge.core.mapping import EventSourceMapping, parse_source
from bridge.daemon.shards import shard_event_source
from bridge.events.kinesis import KinesisShape
from bridge.testing.clock import ManualClock
from bridge.testing.streams import MemoryStreamMarks

STREAM_ARN = "arn:aws:kinesis:us-west-2:123456789012:stream/orders"
CONSUMER_ARN = STREAM_ARN + "/consumer/fast:1579121551"


class Clients:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def client(self, _connection, service, *, region):
        self.asked.append((service, region))
        raise OSError("no network here")


def made(source: str, *, url: str = "", role: str = "", is_here: bool = False):
    clients = Clients()
    connection = AwsConnection(name="a", region="eu-central-1", endpoint_url=url, role_arn=role)
    found = shard_event_source(
        EventSourceMapping(name="m", source=source, function="f"), parse_source(source), clients=clients,
        connection=connection, marks=MemoryStreamMarks(), clock=ManualClock(), account="000000000000",
        is_here=is_here,
    )  # fmt: skip
    return found, clients


@pytest.mark.parametrize(
    ("source", "service", "region"),
    [
        ("kinesis://a/orders", "kinesis", "eu-central-1"),
        (STREAM_ARN, "kinesis", "us-west-2"),
        ("dynamodb://a/stock", "dynamodbstreams", "eu-central-1"),
    ],
)
async def test_the_client_is_that_of_the_service_and_of_the_arns_region(source, service, region):
    stream, clients = made(source)

    with pytest.raises(Exception, match="no network here"):
        await stream.reset("TRIM_HORIZON")

    assert clients.asked == [(service, region)]


async def test_a_stream_of_aws_is_somebodys_and_one_of_this_machine_is_not():
    assert await made("kinesis://a/orders")[0].others() == ["AWS: kinesis orders"]
    assert await made("kinesis://a/orders", url="https://kinesis.eu-central-1.amazonaws.com")[0].others() == [
        "AWS: kinesis orders"
    ]
    assert await made("dynamodb://a/stock", url="https://aws.test/x")[0].others() == [
        "https://aws.test/x: dynamodb stock"
    ]
    assert await made("kinesis://a/orders", url="http://127.0.0.1:1", is_here=True)[0].others() == []


@pytest.mark.parametrize(
    ("url", "calls_a_second"),
    [("", 5), ("https://vpce-1.kinesis.eu-central-1.vpce.amazonaws.com", 5), ("http://127.0.0.1:4566", None)],
)
def test_the_limits_of_the_service_are_kept_on_aws(url, calls_a_second):
    limits = made("kinesis://a/orders", url=url)[0]._api.limits

    assert (None if limits.call_s == 0 else round(1 / limits.call_s)) == calls_a_second


def test_events_say_who_reads_and_what():
    shape = made(CONSUMER_ARN, role="arn:aws:iam::123456789012:role/reader")[0].shape
    assert isinstance(shape, KinesisShape)

    assert b'"invokeIdentityArn":"arn:aws:iam::123456789012:role/reader"' in shape.frame("shardId-0").end
    assert f'"eventSourceARN":"{CONSUMER_ARN}"'.encode() in shape.frame("shardId-0").end
