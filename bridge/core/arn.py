"""Amazon Resource Names: taken apart and put together again (IAM User Guide, reference-arns.html)."""

import re
from dataclasses import dataclass
from typing import Final

_PARTITION: Final = re.compile(r"aws[a-z-]{0,20}\Z")
_SERVICE: Final = re.compile(r"[a-z0-9-]{1,32}\Z")
_REGION: Final = re.compile(r"(?:[a-z]{2,8}(?:-[a-z]{2,16}){1,3}-[0-9]{1,2})?\Z")
_ACCOUNT: Final = re.compile(r"(?:[0-9]{12})?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arn:
    """One ARN; `str()` gives it back as it was written."""

    partition: str = "aws"
    service: str
    region: str = ""
    """Empty where a resource has none (S3, IAM)."""
    account: str = ""
    """12 digits; empty where a resource has none (S3)."""
    resource: str
    """All that follows the account, colons and slashes included."""

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"


def parse_arn(text: str) -> Arn:
    """Take an ARN apart.

    Raises:
        ValueError: not an ARN; the text says what is wrong.
    """
    parts = text.split(":", 5)
    if len(parts) < 6 or parts[0] != "arn":
        raise ValueError("must be an ARN: arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE")
    _, partition, service, region, account, resource = parts
    if not _PARTITION.match(partition):
        raise ValueError("an ARN's partition is aws, aws-cn, aws-us-gov, …")
    if not _SERVICE.match(service):
        raise ValueError("an ARN's service is a word such as kinesis, sqs or lambda")
    if not _REGION.match(region):
        raise ValueError("an ARN's region looks like eu-central-1")
    if not _ACCOUNT.match(account):
        raise ValueError("an ARN's account has 12 digits")
    if not resource or not resource.isprintable() or any(char.isspace() for char in resource):
        raise ValueError("an ARN ends with its resource, without blanks")
    return Arn(partition=partition, service=service, region=region, account=account, resource=resource)
