"""The managed policies that execution roles name: exactly the actions that AWS publishes for each (pure).

docs.aws.amazon.com/aws-managed-policy/latest/reference; the documents were read as zoph-io/MAMIP mirrors them
(`policies/AWSLambda…`), in the default versions that stand below the table. All of them allow their actions on every
resource.
"""

from collections.abc import Mapping
from typing import Final

PREFIX: Final = "AWS"
_PATH: Final = ":policy/service-role/"

_LOGS: Final = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")

ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "AWSLambdaBasicExecutionRole": _LOGS,
    "AWSLambdaKinesisExecutionRole": (
        "kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator",
        "kinesis:ListShards", "kinesis:ListStreams", "kinesis:SubscribeToShard", *_LOGS,
    ),
    "AWSLambdaDynamoDBExecutionRole": (
        "dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams", *_LOGS,
    ),
    "AWSLambdaSQSQueueExecutionRole": (
        "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", *_LOGS,
    ),
    "AWSLambdaMSKExecutionRole": (
        "kafka:DescribeCluster", "kafka:DescribeClusterV2", "kafka:GetBootstrapBrokers", "ec2:CreateNetworkInterface",
        "ec2:DescribeNetworkInterfaces", "ec2:DescribeVpcs", "ec2:DeleteNetworkInterface", "ec2:DescribeSubnets",
        "ec2:DescribeSecurityGroups", *_LOGS,
    ),
    "AWSLambdaVPCAccessExecutionRole": (
        *_LOGS, "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
        "ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
    ),
}  # fmt: skip
"""By name; of each the default version: Basic v1, Kinesis v2, DynamoDB v1, SQS v1, MSK v2, VPC v3."""


def managed_actions(name: str) -> tuple[str, ...] | None:
    """Return what a managed policy allows, by its name (with or without `AWS` before it) or its ARN; None: unknown."""
    short = name.rpartition(_PATH)[2] if name.startswith("arn:") else name
    return ACTIONS.get(short) or ACTIONS.get(PREFIX + short)
