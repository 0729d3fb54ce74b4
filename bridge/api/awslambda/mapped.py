"""The event source mappings that Lambda's API makes: kept durably, put beside those of the file (semantics 3.2)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from bridge.api.awslambda.errors import Refused
from bridge.core.connection import KafkaConnection
from bridge.core.mapping import EventSourceMapping
from bridge.core.ports import Clock
from bridge.registry.mapped import MadeMapping, cluster_of, runs


class MappingStore(Protocol):
    """Keeps what was made; durable when a call returns, raises StoreError."""

    async def load(self) -> dict[str, MadeMapping]:
        """Return all of them by UUID."""
        ...

    async def put(self, made: MadeMapping) -> None:
        """Keep one, in the place of an earlier one of its UUID."""
        ...

    async def drop(self, uuid: str) -> None:
        """Forget one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLook:
    """What a look at a source brought, before a mapping of it is made."""

    problem: str = ""
    """Why no mapping can read it, in AWS's words where it has some; empty: nothing is known to be wrong."""
    visibility_s: float | None = None
    """A queue's visibility timeout; None: not a queue, or it does not answer."""


class MadeMappings:
    """Mappings by UUID; every change is durable before it counts, one at a time.

    Args:
        store: where they are kept.
        clusters: the file's connections, as they are now.
        look: looks at the source of a mapping, half a minute at most.
        changed: has the mappings that run become those of the file and these.
        refused: says why the role of a mapping's function refuses it, in AWS's words; empty: it does not.
        is_busy: whether an earlier change of a mapping is not through.
        clock: the daemon's.
    """

    def __init__(
        self,
        *,
        store: MappingStore,
        clusters: Callable[[], Mapping[str, KafkaConnection]],
        look: Callable[[EventSourceMapping], Awaitable[SourceLook]],
        changed: Callable[[], Awaitable[None]],
        is_busy: Callable[[str], bool],
        clock: Clock,
        refused: Callable[[EventSourceMapping], Awaitable[str]] | None = None,
    ) -> None:
        self._store = store
        self._clusters = clusters
        self._look = look
        self._changed = changed
        self._is_busy = is_busy
        self._clock = clock
        self._refused = refused
        self._mappings: dict[str, MadeMapping] = {}
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Load everything. Raises StoreError: what was kept cannot be read."""
        self._mappings = await self._store.load()

    def get(self, uuid: str) -> MadeMapping | None:
        """Return one; None: there is none of that UUID."""
        return self._mappings.get(uuid)

    def values(self) -> list[EventSourceMapping]:
        """Return all of them as they run, under the connections that the file has now."""
        return [self.as_runs(made) for made in self._mappings.values()]

    def as_runs(self, made: MadeMapping) -> EventSourceMapping:
        """Return a mapping as it runs."""
        return runs(made, self._clusters())

    def is_declared(self, made: MadeMapping) -> bool:
        """Tell whether the file has a connection to a mapping's cluster: else nothing says who we are there."""
        return cluster_of(made, self._clusters()) in self._clusters()

    async def look(self, made: MadeMapping) -> SourceLook:
        """Look at a source before a mapping of it is made."""
        return await self._look(self.as_runs(made))

    async def refused(self, made: MadeMapping) -> str:
        """Return why the role of a mapping's function refuses it, in AWS's words; empty: it does not."""
        return "" if self._refused is None else await self._refused(self.as_runs(made))

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Let one caller at a time look and then change."""
        async with self._lock:
            yield

    def check_idle(self, uuid: str, what: str) -> None:
        """Refuse a change while an earlier one is not through."""
        if self._is_busy(uuid):
            raise Refused(
                "ResourceInUseException", f"Cannot {what} the event source mapping because it is in use.", status=400
            )

    async def save(self, made: MadeMapping) -> MadeMapping:
        """Keep a mapping as it is now, and have it run so; under `changing`. Returns it with its time."""
        made = replace(made, modified_at=round(self._clock.time(), 3))
        await self._store.put(made)
        self._mappings[made.uuid] = made
        await self._changed()
        return made

    async def keep_tags(self, made: MadeMapping, tags: Mapping[str, str]) -> None:
        """Keep a mapping under these tags: what runs does not know them. Under `changing`."""
        made = replace(made, tags=dict(tags))
        await self._store.put(made)
        self._mappings[made.uuid] = made

    async def delete(self, made: MadeMapping) -> None:
        """Forget a mapping; what runs of it ends first. Under `changing`."""
        await self._store.drop(made.uuid)
        del self._mappings[made.uuid]
        await self._changed()

    async def clear(self) -> None:
        """Forget all of them, once what runs has ended. Raises StoreError."""
        async with self._lock:
            gone = list(self._mappings)
            for uuid in gone:
                await self._store.drop(uuid)
                del self._mappings[uuid]
            if gone:
                await self._changed()

    async def enable(self, uuid: str, *, enabled: bool) -> None:
        """Pause or resume a mapping as UpdateEventSourceMapping would. Raises StoreError."""
        async with self._lock:
            if (made := self._mappings.get(uuid)) is not None:
                await self.save(replace(made, enabled=enabled))
