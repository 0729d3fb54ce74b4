"""What execution roles are asked for: the actions behind a poll, a send and a log stream, and AWS's words (pure).

semantics 5.8. The actions are those of docs.aws.amazon.com/lambda/latest/dg/services-kinesis-permissions.html,
services-dynamodb-permissions.html, services-sqs-permissions.html, with-msk-permissions.html and
invocation-async-retain-records.html: of them, those that name a resource and that are made use of here.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from bridge.core.arn import parse_arn
from bridge.registry.roles import Role

READING: Final[Mapping[str, tuple[str, ...]]] = {
    "kinesis": ("kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:DescribeStream", "kinesis:ListShards"),
    "dynamodb": ("dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:DescribeStream"),
    "sqs": ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
    "kafka": ("kafka:DescribeCluster", "kafka:GetBootstrapBrokers"),
}
"""By the service in a source's ARN; a cluster that is not MSK's asks for none, but for a password of its own."""
SENDING: Final[Mapping[str, str]] = {
    "sqs": "sqs:SendMessage",
    "sns": "sns:Publish",
    "lambda": "lambda:InvokeFunction",
    "events": "events:PutEvents",
    "s3": "s3:PutObject",
}
"""By the service in a target's ARN."""
LOGGING: Final = ("logs:CreateLogStream", "logs:PutLogEvents")
NETWORKING: Final = "ec2:CreateNetworkInterface"
_SERVICES: Final[Mapping[str, str]] = {
    "sqs": "SQS", "sns": "SNS", "lambda": "Lambda", "events": "EventBridge", "s3": "S3", "ec2": "EC2",
}  # fmt: skip
"""As AWS's refusals call them."""


def reading_refusal(role: Role, arn: str) -> str:
    """Return AWS's words for a source that a role may not read, empty where it may; `arn` is the source's."""
    service = parse_arn(arn).service
    missing = next((each for each in READING.get(service, ()) if not role.allows(each, _stream(arn))), "")
    if not missing:
        return ""
    if service == "sqs":
        return f"The function execution role does not have permissions to call {missing.partition(':')[2]} on SQS"
    if service == "kafka":  # no words of AWS's are recorded: those of a stream
        return f"Cannot access cluster {arn}. Please ensure the role can perform the {_listed(service)} Actions on it."
    return (
        f"Cannot access stream {arn}. Please ensure the role can perform the GetRecords, GetShardIterator, "
        "DescribeStream, ListShards, and ListStreams Actions on your stream in IAM."
    )


def _stream(arn: str) -> str:
    """Return the stream of a consumer's ARN; any other ARN as it is."""
    return arn.partition("/consumer/")[0] if ":kinesis:" in arn else arn


def _listed(service: str) -> str:
    *first, last = [action.partition(":")[2] for action in READING[service]]
    return f"{', '.join(first)} and {last}"


def sending_action(arn: str) -> str:
    """Return the action that sends a record to what an ARN names; empty: none is known."""
    return SENDING.get(parse_arn(arn).service, "")


def sending_refusal(role: Role, target: str) -> str:
    """Return AWS's words for a target that a role may not write to, empty where it may; topics of Kafka ask for none.

    That is what a configuration is refused with; `Role.denial` is what a send fails with. Which objects a bucket
    will get is known when they are sent: here it does to be allowed some.
    """
    if not target.startswith("arn:"):
        return ""
    action = sending_action(target)
    if not action:
        return ""
    is_bucket = parse_arn(target).service == "s3"
    may = role.may_within(action, f"{target}/aws/lambda/") if is_bucket else role.allows(action, target)
    return "" if may else _called(action)


def network_refusal(role: Role) -> str:
    """Return AWS's words for a role that may not make network interfaces, empty where it may."""
    return "" if role.allows(NETWORKING, "*") else _called(NETWORKING)


def _called(action: str) -> str:
    service, _, operation = action.partition(":")
    return f"The provided execution role does not have permissions to call {operation} on {_SERVICES[service]}"


def may_log(role: Role, *, group: str, stream: str, region: str, account: str) -> bool:
    """Tell whether a role lets a log stream be made in a log group, and written."""
    resource = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:{stream}"
    return all(role.allows(action, resource) for action in LOGGING)


def in_short(role: Role) -> Iterator[str]:
    """Yield what a role's statements allow and deny, a line each."""
    for statement in role.statements:
        actions = statement.get("Action", statement.get("NotAction"))
        names = [actions] if isinstance(actions, str) else list(actions or ())
        resources = statement.get("Resource", statement.get("NotResource"))
        places = [resources] if isinstance(resources, str) else list(resources or ())
        word = "all but " if "NotAction" in statement else ""
        other = "all but " if "NotResource" in statement else ""
        condition = " (on conditions)" if statement.get("Condition") else ""
        yield f"{statement['Effect']} {word}{', '.join(names)} on {other}{', '.join(places)}{condition}"
