"""Looks at the source of an event source mapping before Lambda's API makes it: is it there, does its queue fit."""

import asyncio
from typing import Final

import structlog

from bridge.api.awslambda.mapped import SourceLook
from bridge.core.errors import ConfigError, SourceError, SourceMissing
from bridge.core.mapping import EventSourceMapping
from bridge.daemon.streams import Streams

log = structlog.get_logger("bridge.mappings")

LOOK_MAX_S: Final = 30.0
"""A source that does not answer in this time may be there: the mapping is made, and its state says how it is."""


async def look(streams: Streams, mapping: EventSourceMapping) -> SourceLook:
    """Return what is wrong with a mapping's source, as far as that is known after `LOOK_MAX_S` seconds at most."""
    try:
        streams.check(mapping)
        async with asyncio.timeout(LOOK_MAX_S):
            await streams.check_hosts(mapping)
            return await _look(streams, mapping)
    except ConfigError as error:
        return SourceLook(problem=str(error))
    except TimeoutError:
        log.info("source_not_looked_at", source=mapping.source, reason="no answer in time")
    except SourceMissing as error:
        return SourceLook(problem=error.told)
    except SourceError as error:
        log.info("source_not_looked_at", source=mapping.source, reason=str(error))
    return SourceLook()


async def _look(streams: Streams, mapping: EventSourceMapping) -> SourceLook:
    from bridge.sources.pull.shard_source import ShardEventSource

    queue = streams.queue(mapping)
    if queue is not None:
        consumer = queue.consumer()
        try:
            facts = await consumer.open()
        finally:
            await consumer.close()
        return SourceLook(visibility_s=facts.visibility_s)
    source = streams.event_source(mapping)
    if isinstance(source, ShardEventSource):
        await source.look()
    return SourceLook()
