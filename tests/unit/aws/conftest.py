"""A stub that stands for AWS, clients towards it, and a machine without credentials of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bridge.aws.clients import AwsClients
from bridge.core.connection import AwsConnection
from bridge.testing.clock import ManualClock
from tests.http_stub import HttpStub, http_stub


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    """Nothing of this machine's own reaches the chain, and no metadata service is asked for."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[HttpStub]:
    async with http_stub() as made:
        yield made


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def clients(clock) -> AsyncIterator[AwsClients]:
    made = AwsClients(clock=clock)
    yield made
    await made.close()


@pytest.fixture
def connection(stub) -> AwsConnection:
    return AwsConnection(
        name="main", region="eu-central-1", endpoint_url=stub.url, access_key_id="AKID", secret_access_key="secret"
    )
