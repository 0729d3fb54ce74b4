"""Whether a Kafka cluster can be reached and lets us in: one short try, for `bridge doctor`."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from bridge.core.connection import KafkaConnection
from bridge.core.errors import ConfigError
from bridge.sources.pull.kafka_client import client_arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a try found."""

    problem: str = ""
    """Why the cluster cannot be used, in one line; empty: it was reached and let us in."""
    topics: frozenset[str] = frozenset()
    """Those that we may see."""


async def reach(connection: KafkaConnection, *, deadline_s: float) -> Reach:
    """Connect, say who we are, and ask for the topics: all of it within `deadline_s` seconds."""
    said: list[str] = []
    try:
        async with asyncio.timeout(deadline_s):
            refused = await _unreachable(connection)
            if len(refused) == len(connection.bootstrap_servers):
                return Reach(problem="cannot be reached: " + "; ".join(refused))
            with _overheard(said):
                return Reach(topics=await _topics(connection))
    except TimeoutError:
        return Reach(problem=_with(f"no answer within {deadline_s:g} s", said))
    except ConfigError as error:
        return Reach(problem=str(error))
    except (KafkaError, OSError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return Reach(problem=_with(f"answers, but does not let us in ({text})", said))


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


class _Ear(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said[:] = [" ".join(record.getMessage().split())]


@contextlib.contextmanager
def _overheard(said: list[str]) -> Iterator[None]:
    """Keep the library's last warning: why a broker hung up is in no exception of its."""
    ear, logger = _Ear(said), logging.getLogger("aiokafka")
    logger.addHandler(ear)
    try:
        yield
    finally:
        logger.removeHandler(ear)


def _with(text: str, said: list[str]) -> str:
    return ": ".join([text, *said])
