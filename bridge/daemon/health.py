"""What the mappings' states say of themselves and of the connections that they use, for /ready, /status and doctor."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from bridge.core.connection import KafkaConnection
from bridge.core.mapping import USER_ACTION, EventSourceMapping, MappingState, parse_source
from bridge.core.ports import Clock
from bridge.core.sources import MappingStatus

TROUBLE_TOLD_S: Final = 60.0
"""Trouble that lasts longer is told without being asked for: brokers restart, rebalances take a while."""
_FUNCTION: Final = ("FUNCTION_CONFIG_NOT_VALID", "function ")
"""How trouble begins that is the function's, not the connection's."""
_AT_WORK: Final = frozenset({MappingState.ENABLED, MappingState.ENABLING})

Fact = tuple[str, bool, str]
"""Name, is it as it should be, what is known."""


class Health:
    """Remembers since when each mapping is in trouble; `observe` it every second or so.

    Args:
        mappings: returns the state of every mapping.
        connections: returns the file's connections by name.
        clock: how long trouble lasts.
    """

    def __init__(
        self,
        *,
        mappings: Callable[[], Sequence[MappingStatus]],
        connections: Callable[[], Mapping[str, KafkaConnection]],
        clock: Clock,
    ) -> None:
        self._mappings = mappings
        self._connections = connections
        self._clock = clock
        self._since: dict[str, float] = {}
        """Monotonic time at which each mapping's trouble was first seen."""

    def observe(self) -> None:
        """Look which mappings are in trouble now."""
        now = self._clock.monotonic()
        troubled = [status.mapping.name for status in self._mappings() if trouble(status)]
        self._since = {name: self._since.get(name, now) for name in troubled}

    def troubles(self) -> list[str]:
        """Return a line for each mapping whose trouble lasts longer than `TROUBLE_TOLD_S` seconds."""
        now = self._clock.monotonic()
        lines = []
        for status in self._mappings():
            name, text = status.mapping.name, trouble(status)
            lasts_s = now - self._since.get(name, now)
            if text and lasts_s > TROUBLE_TOLD_S:
                lines.append(f"mapping {name} is in trouble for {lasts_s:.0f} s: {text}")
        return lines

    def facts(self) -> list[Fact]:
        """Return what is known of each connection and each mapping; nothing is tried."""
        statuses = self._mappings()
        connections = [_connection_fact(name, statuses) for name in sorted(self._connections())]
        return connections + [_mapping_fact(status) for status in statuses]


def trouble(status: MappingStatus) -> str:
    """Return what keeps a mapping that should run from doing so; empty when nothing does, or it has failed for good."""
    return status.reason if status.state in _AT_WORK and status.reason != USER_ACTION else ""


def _mapping_fact(status: MappingStatus) -> Fact:
    text = f"{status.state.value}, reads {status.mapping.source} for {status.mapping.function}"
    if status.state is MappingState.FAILED or trouble(status):
        return f"mapping {status.mapping.name}", False, f"{text}: {status.reason}"
    if status.state is MappingState.DISABLED:
        text += f" (`bridge mappings resume {status.mapping.name}`)"
    return f"mapping {status.mapping.name}", True, text


def _connection_fact(name: str, statuses: Sequence[MappingStatus]) -> Fact:
    users = [status for status in statuses if name in connections_of(status.mapping)]
    readers = [status for status in users if status.state in _AT_WORK and reads_from(status.mapping) == name]
    fact = f"connection {name}"
    for status in readers:
        if (text := trouble(status)) and not text.startswith(_FUNCTION):
            return fact, False, f"mapping {status.mapping.name}: {text}"
    if readers:
        names = ", ".join(status.mapping.name for status in readers)
        return fact, True, f"reached and let in: mapping {names} reads"
    idle = [f"{s.mapping.name} is {s.state.value}" for s in users if reads_from(s.mapping) == name]
    if idle:
        return fact, True, f"not in use now: mapping {', '.join(idle)}"
    if users:
        return fact, True, f"not in use yet: failures of mapping {', '.join(s.mapping.name for s in users)} go there"
    return fact, True, "no mapping uses it"


def reads_from(mapping: EventSourceMapping) -> str:
    """Return the connection of a mapping's source: its name, or host:port; empty when it has none."""
    return _place(mapping.source)


def connections_of(mapping: EventSourceMapping) -> frozenset[str]:
    """Return the connections of a mapping's source and of its failure destination."""
    return frozenset(_places(mapping))


def _places(mapping: EventSourceMapping) -> Iterator[str]:
    for text in (mapping.source, mapping.on_failure):
        if place := _place(text):
            yield place


def _place(text: str) -> str:
    try:
        return parse_source(text).connection
    except ValueError:
        return ""
