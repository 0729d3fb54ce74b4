"""What a test sees of an AWS endpoint: its address, outside clients (boto3, the awscli), names of its own, a connection's TOML."""

import json
import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

from tests.brokers.emulators import awscli

KEY = "test"
SECRET = "a-secret-of-the-tests-alone"
"""A daemon masks it in its logs, wherever it stands."""
CLI_MAX_S = 60.0


class AwsService:
    """An endpoint with clients of the test's own; what a test makes there has names that nobody else uses."""

    def __init__(self, endpoint_url: str, *, folder: Path, stem: str, account: str, region: str = "us-east-1") -> None:
        """`folder` is the test's own; `stem` begins the names."""
        self.endpoint_url = endpoint_url
        self.region = region
        self.account = account
        self._stem = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40]
        self._clients: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._secret = folder / "secret_access_key"
        self._secret.touch(mode=0o600)
        self._secret.write_text(SECRET)

    def client(self, service: str) -> Any:
        """Return a boto3 client (one a service); it makes one attempt per call."""
        if service not in self._clients:
            import boto3
            from botocore.config import Config

            session = boto3.session.Session(KEY, SECRET, region_name=self.region)
            self._clients[service] = session.client(
                service,
                endpoint_url=self.endpoint_url,
                config=Config(
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path"},
                    read_timeout=30,
                    max_pool_connections=50,
                ),
            )
        return self._clients[service]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def cli(self, *arguments: str) -> Any:
        """Run `aws ARGUMENTS` against the endpoint; returns what it prints as JSON (None for nothing), fails when it fails."""
        program = awscli()
        assert program is not None, "no awscli: make aws"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PYTHON"))}
        done = subprocess.run(
            [program.parent / "python", program, "--endpoint-url", self.endpoint_url, "--output", "json", *arguments],
            env=clean | self.environment() | {"AWS_PAGER": ""},
            stdin=subprocess.DEVNULL, capture_output=True, timeout=CLI_MAX_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout) if done.stdout.strip() else None

    def environment(self) -> dict[str, str]:
        """Return the variables of boto's chain for the endpoint's credentials and region; without an address."""
        return {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    def name(self, suffix: str = "") -> str:
        """Return a new name, good for every service (also a bucket); `suffix` as `.fifo` ends it."""
        return f"{self._stem}-{uuid.uuid4().hex[:8]}{suffix}"

    def connection(self, name: str = "aws", **settings: str) -> str:
        """Return the TOML of a connection to the endpoint; a setting of '' is left out."""
        lines = {
            "type": "aws",
            "region": self.region,
            "endpoint_url": self.endpoint_url,
            "access_key_id": KEY,
        } | settings
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items() if value)
        return f"\n[connections.{name}]\n{text}secret_access_key = {{ file = {json.dumps(str(self._secret))} }}\n"

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"
