"""Whether a Kafka cluster can be reached and lets us in: one short try, for `bridge doctor`."""

import asyncio
import contextlib
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from bridge.core.connection import KafkaConnection
from bridge.core.errors import ConfigError
from bridge.sources.pull.kafka_client import client_arguments, reason
from bridge.util.library_log import overheard


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a try found."""

    problem: str = ""
    """Why the cluster cannot be used, in one line; empty: it was reached and let us in."""
    topics: frozenset[str] = frozenset()
    """Those that we may see."""


async def reach(connection: KafkaConnection, *, deadline_s: float) -> Reach:
    """Connect, say who we are, and ask for the topics: all of it within `deadline_s` seconds."""
    with overheard() as said:
        try:
            return await _tried(connection, deadline_s=deadline_s)
        except TimeoutError:
            return Reach(problem=": ".join([f"no answer within {deadline_s:g} s", *said]))
        except ConfigError as error:
            return Reach(problem=str(error))
        except (KafkaError, OSError) as error:
            return Reach(problem=f"answers, but does not let us in: {reason(error, said)}")


async def _tried(connection: KafkaConnection, *, deadline_s: float) -> Reach:
    async with asyncio.timeout(deadline_s):
        refused = await _unreachable(connection)
        if len(refused) == len(connection.bootstrap_servers):
            return Reach(problem="cannot be reached: " + "; ".join(refused))
        return Reach(topics=await _topics(connection))


async def _topics(connection: KafkaConnection) -> frozenset[str]:
    admin = AIOKafkaAdminClient(**client_arguments(connection))
    try:
        await admin.start()
        return frozenset(await admin.list_topics())
    finally:
        await admin.close()


async def _unreachable(connection: KafkaConnection) -> list[str]:
    """Return why the addresses that nobody answers at do not, one text each."""
    return [text for text in await asyncio.gather(*map(_refusal, connection.bootstrap_servers)) if text]


async def _refusal(server: str) -> str:
    host, _, port = server.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        return f"{server}: {error}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""
