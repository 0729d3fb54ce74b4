"""The outside clients of the brokers: topics by aiokafka's admin client, records by kcat, and TLS for both."""

import asyncio
import ssl
import subprocess
from collections.abc import Mapping, Sequence

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.helpers import create_ssl_context

from tests.brokers.certificates import Certificates

KCAT_MAX_S = 60.0


def tls_context(certificates: Certificates, *, client: bool = True) -> ssl.SSLContext:
    """Return what trusts the broker, and with `client` shows it a client's certificate."""
    if not client:
        return create_ssl_context(cafile=str(certificates.ca))
    return create_ssl_context(
        cafile=str(certificates.ca),
        certfile=str(certificates.client_certificate),
        keyfile=str(certificates.client_key),
    )


async def create_topic(
    bootstrap: str, name: str, *, partitions: int = 1, configs: Mapping[str, str] | None = None
) -> None:
    """Create a topic with topic-level `configs`; raises aiokafka's error when the broker refuses it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))])
        # The answer may come before the broker knows its own new partitions (KRaft).
        for _ in range(1200):
            described = await admin.describe_topics([name])
            if not described[0]["error_code"] and len(described[0]["partitions"]) == partitions:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} does not appear")
    finally:
        await admin.close()


async def delete_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Delete topics, as far as they are there."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(list(names))
    finally:
        await admin.close()


def kcat(bootstrap: str, *arguments: str, records: bytes | None = None) -> bytes:
    """Run kcat against a broker with `records` on its standard input and return what it prints; fails when it fails."""
    done = subprocess.run(
        ["kcat", "-b", bootstrap, *arguments],
        input=records if records is not None else b"",
        capture_output=True,
        timeout=KCAT_MAX_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout
