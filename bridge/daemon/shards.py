"""Makes the streams of AWS that mappings read: Kinesis, DynamoDB Streams."""

from typing import Any, Final
from urllib.parse import urlsplit

from bridge.aws.clients import AwsClients
from bridge.core.arn import parse_arn
from bridge.core.connection import AwsConnection
from bridge.core.mapping import EventSourceMapping, SourceAddress
from bridge.core.ports import Clock
from bridge.core.sources import EventSource, StreamMarks
from bridge.events.dynamodb import DynamoDbShape
from bridge.events.kinesis import KinesisShape
from bridge.sources.pull import dynamodb, kinesis
from bridge.sources.pull.shard_api import ShardApi
from bridge.sources.pull.shard_source import ShardEventSource

SERVICES: Final = {"kinesis": "kinesis", "dynamodb": "dynamodbstreams"}
"""boto's name of the service, by kind of source."""
_OF_AWS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
_LABEL_UNKNOWN: Final = "0000-00-00T00:00:00.000"
"""As long as the label of a table's stream, which is asked for when it is read."""


def shard_event_source(
    mapping: EventSourceMapping,
    address: SourceAddress,
    *,
    clients: AwsClients,
    connection: AwsConnection,
    marks: StreamMarks,
    clock: Clock,
    account: str,
    is_here: bool,
) -> EventSource:
    """Return the stream of a mapping; nothing is called before it is read.

    Args:
        mapping: its settings.
        address: its `source`, taken apart.
        clients: make the calls.
        connection: by which it is reached.
        marks: keep how far it is read.
        clock: the daemon's.
        account: stands in ARNs until the service has told the stream's own.
        is_here: whether the endpoint is this machine's.
    """
    service = SERVICES[address.kind]
    region = parse_arn(address.arn).region if address.arn else connection.region
    is_aws = _is_aws(connection.endpoint(service))

    async def client() -> Any:
        return await clients.client(connection, service, region=region)

    api: ShardApi
    start = f"arn:{_partition(region)}:{address.kind}:{region}:{account}:"
    if address.kind == "kinesis":
        shape = KinesisShape(address.arn or f"{start}stream/{address.name}", identity_arn=connection.role_arn)
        api = kinesis.KinesisApi(
            client,
            stream=address.name,
            arn=address.arn,
            shape=shape,
            read_limits=kinesis.AWS_LIMITS if is_aws else kinesis.OWN_LIMITS,
            clock=clock,
        )
    else:
        api = dynamodb.DynamoDbApi(
            client,
            table=address.name,
            arn=address.arn,
            shape=DynamoDbShape(address.arn or f"{start}table/{address.name}/stream/{_LABEL_UNKNOWN}"),
            read_limits=dynamodb.AWS_LIMITS if is_aws else dynamodb.OWN_LIMITS,
            clock=clock,
        )
    of = "" if is_here else f"AWS: {api.title}" if is_aws else f"{connection.endpoint(service)}: {api.title}"
    return ShardEventSource(api, mapping, marks=marks, clock=clock, of=of)


def _is_aws(url: str) -> bool:
    """Whether an endpoint is AWS's, a private one included: its limits are known, and kept."""
    return not url or (urlsplit(url).hostname or "").endswith(_OF_AWS)


def _partition(region: str) -> str:
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"
