"""Marks of streams and states of mappings in memory: the same contract as those in SQLite."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from bridge.core.stream import BEFORE_ALL, Mark, Shard


class MemoryStreamMarks:
    """`sources.StreamMarks` in a dict. `fail_with` makes every write raise it."""

    def __init__(self) -> None:
        self.marks: dict[str, dict[Shard, Mark]] = {}
        self.layouts: dict[str, str] = {}
        self.fail_with: Exception | None = None

    async def load(self, mapping: str) -> Mapping[Shard, Mark]:
        """Return all of a mapping."""
        return dict(self.marks.get(mapping, {}))

    async def layout(self, mapping: str) -> str:
        """Return what `replace` was told last."""
        return self.layouts.get(mapping, "")

    async def commit(self, mapping: str, marks: Mapping[Shard, Mark]) -> None:
        """Move forward what the newest owner says."""
        self._check()
        known = self.marks.get(mapping, {})
        for shard, mark in marks.items():
            stored = known.get(shard)
            if stored is not None and stored.position <= mark.position and stored.epoch <= mark.epoch:
                known[shard] = replace(mark, has_ended=mark.has_ended or stored.has_ended)

    async def claim(self, mapping: str, shards: AbstractSet[Shard]) -> Mapping[Shard, Mark]:
        """Raise the epochs."""
        self._check()
        known = self.marks.setdefault(mapping, {})
        for shard in shards:
            stored = known.get(shard, Mark(position=BEFORE_ALL))
            known[shard] = replace(stored, epoch=stored.epoch + 1)
        return {shard: known[shard] for shard in sorted(shards)}

    async def discard(self, mapping: str, shards: AbstractSet[Shard]) -> None:
        """Remove some."""
        self._check()
        for shard in shards:
            self.marks.get(mapping, {}).pop(shard, None)

    async def replace(self, mapping: str, marks: Mapping[Shard, Mark], *, layout: str = "") -> None:
        """Begin anew."""
        self._check()
        epoch = max((mark.epoch for mark in self.marks.get(mapping, {}).values()), default=0) + 1
        self.marks[mapping] = {
            shard: Mark(position=mark.position, epoch=epoch, has_ended=mark.has_ended) for shard, mark in marks.items()
        }
        self.layouts[mapping] = layout

    async def forget(self, mapping: str) -> None:
        """Remove all of a mapping."""
        self._check()
        self.marks.pop(mapping, None)
        self.layouts.pop(mapping, None)

    def _check(self) -> None:
        if self.fail_with is not None:
            raise self.fail_with


class MemoryMappingStates:
    """`sources.MappingStates` in a set."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    async def paused(self) -> frozenset[str]:
        """Return the names."""
        return frozenset(self.names)

    async def pause(self, name: str) -> None:
        """Add it."""
        self.names.add(name)

    async def resume(self, name: str) -> None:
        """Remove it."""
        self.names.discard(name)
