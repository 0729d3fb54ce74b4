"""boto3 at a daemon's Lambda API."""

from typing import Any

import boto3
from botocore.config import Config

from tests.harness import DaemonProcess


def lambda_client(
    bridge: DaemonProcess, key: str = "000000000000", secret: str = "any", *, region: str = "us-east-1", **config: Any
) -> Any:
    """Return a client that asks once. `key`: the access key id; with `auth = "none"`, an account of 12 digits."""
    return boto3.client(
        "lambda", endpoint_url=bridge.api, region_name=region, aws_access_key_id=key, aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, **config),
    )  # fmt: skip
