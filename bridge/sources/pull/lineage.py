"""Which shards of a stream that splits and merges may be read: none before those it comes from are finished (pure)."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from bridge.core.stream import BEFORE_ALL, Mark, Position, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedShard:
    """A shard as the stream lists it."""

    name: Shard
    parents: tuple[Shard, ...] = ()
    """What it was split from (one) or merged of (two); they may be listed no more."""
    first: Position = 0
    """Its first sequence number."""
    last: Position | None = None
    """Its last sequence number; None while it is open."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing is added to it any more."""
        return self.last is not None

    @property
    def end(self) -> Position | None:
        """Its last sequence number; None while it is open, and where one is listed that cannot be (kinesis-local)."""
        return None if self.last is None or self.last < self.first else self.last


Listing = Mapping[Shard, ListedShard]


def first_marks(listed: Listing, *, latest: Mapping[Shard, Position] | None = None) -> dict[Shard, Mark]:
    """Return the marks of a mapping that begins: every shard as its starting position says.

    `latest`: it begins behind the last records, where these are known. What is closed already is finished then.
    """
    if latest is None:
        return {name: Mark(position=BEFORE_ALL) for name in listed}
    return {
        name: Mark(position=latest.get(name, BEFORE_ALL), has_ended=shard.is_closed) for name, shard in listed.items()
    }


def startable(listed: Listing, marks: Mapping[Shard, Mark], owned: AbstractSet[Shard]) -> list[Shard]:
    """Return the shards to be read from now on, beside those that are `owned`, in the stream's order.

    A shard waits until its parents are finished. A parent is finished when its mark says so; without a mark, when the
    stream lists it no more (retention took it) or one that comes from it has a mark: it was finished then, and its
    mark forgotten. A shard with a mark that is listed no more is read all the same: the service says that it is gone.
    """
    passed = _ancestors(marks, listed)

    def is_finished(shard: Shard) -> bool:
        if shard in marks:
            return marks[shard].has_ended
        return shard not in listed or shard in passed

    unlisted = [ListedShard(name=name) for name in marks if name not in listed]
    waiting = [shard for shard in (*unlisted, *listed.values()) if shard.name not in owned]
    found = [shard for shard in waiting if not is_finished(shard.name) and all(map(is_finished, shard.parents))]
    return [shard.name for shard in sorted(found, key=lambda shard: (shard.first, shard.name))]


def forgettable(listed: Listing, marks: Mapping[Shard, Mark]) -> set[Shard]:
    """Return the shards whose marks say nothing any more: ended, listed no more, and all their children were begun."""
    begun: dict[Shard, bool] = {}
    for shard in listed.values():
        for parent in shard.parents:
            begun[parent] = begun.get(parent, True) and shard.name in marks
    return {name for name, mark in marks.items() if mark.has_ended and name not in listed and begun.get(name, True)}


def predecessors(listed: Listing, chosen: AbstractSet[Shard]) -> dict[Shard, frozenset[Shard]]:
    """Return, for each of the chosen shards that come from others of them, those others; also over shards between."""
    found = {name: frozenset(_above(name, listed) & chosen) for name in chosen}
    return {name: others for name, others in found.items() if others}


def _ancestors(names: Iterable[Shard], listed: Listing) -> set[Shard]:
    return {above for name in names for above in _above(name, listed)}


def _above(name: Shard, listed: Listing) -> set[Shard]:
    found: set[Shard] = set()
    waiting = [name]
    while waiting:
        shard = listed.get(waiting.pop())
        for parent in () if shard is None else shard.parents:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
