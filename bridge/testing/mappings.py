"""Event source mappings in memory: what the api and the command line show, without an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bridge.core.errors import MappingNotFound
from bridge.core.mapping import EventSourceMapping, MappingState, StartingPosition
from bridge.core.sources import EventSource, MappingStatus
from bridge.core.stream import BEFORE_ALL, Mark, Shard


class MemoryMappings:
    """Implements the seam `Mappings` over the statuses it was given; keeps what it was told to do."""

    def __init__(self, *statuses: MappingStatus) -> None:
        self.statuses = {status.mapping.name: status for status in statuses}
        self.resets: list[tuple[str, StartingPosition, float | None]] = []
        self.looks = 0
        """How often somebody wanted to know where those stand that do not read."""
        self.fail_with: Exception | None = None
        self.sources: dict[str, EventSource] = {}
        """Streams by mapping, for replays."""

    def add(self, status: MappingStatus) -> None:
        """Know one more mapping, or another status of one."""
        self.statuses[status.mapping.name] = status

    def get(self, name: str) -> EventSourceMapping:
        """Return one."""
        return self._known(name).mapping

    def source(self, name: str) -> EventSource:
        """Return its stream."""
        self._known(name)
        return self.sources[name]

    def status(self) -> Sequence[MappingStatus]:
        """See Mappings.status."""
        return [self.statuses[name] for name in sorted(self.statuses)]

    async def look(self) -> None:
        """See Mappings.look: all is known."""
        self.looks += 1

    async def pause(self, name: str) -> MappingStatus:
        """See Mappings.pause."""
        return self._changed(name, MappingState.DISABLED)

    async def resume(self, name: str) -> MappingStatus:
        """See Mappings.resume."""
        return self._changed(name, MappingState.ENABLED)

    async def reset(
        self, name: str, start: StartingPosition, *, timestamp: float | None = None
    ) -> Mapping[Shard, Mark]:
        """Say that every shard is at its beginning."""
        status = self._known(name)
        self.resets.append((name, start, timestamp))
        return {shard.shard: Mark(position=BEFORE_ALL) for shard in status.shards}

    def _changed(self, name: str, state: MappingState) -> MappingStatus:
        changed = replace(self._known(name), state=state, reason="USER_INITIATED")
        self.statuses[name] = changed
        return changed

    def _known(self, name: str) -> MappingStatus:
        if self.fail_with is not None:
            raise self.fail_with
        if name not in self.statuses:
            raise MappingNotFound(f"no mapping {name}")
        return self.statuses[name]
