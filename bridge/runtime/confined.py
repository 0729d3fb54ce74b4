"""What confines workers of each kind, as measured in one of them, and the level that it amounts to."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from bridge.core.function import FunctionVersion
from bridge.runtime import commands
from bridge.runtime.landlock import NOTHING_LEFT
from bridge.runtime.sandbox import Fact

LEVELS: Final = ("basic", "seccomp", "landlock", "namespaces", "cgroup")
"""Of a sandbox, weakest first."""
PYTHON: Final = "python"
"""Run by our Python bootstrap."""
COMMAND: Final = "command"
"""Run by a program of their own, behind the Runtime API."""
KINDS: Final = (PYTHON, COMMAND)
CONTROL_GROUP: Final = "control group"
_NAMESPACES: Final = frozenset({"mount namespace", "process namespace"})


def level(facts: Collection[Fact]) -> str:
    """Return the strongest of LEVELS that these facts amount to."""
    in_force = {fact.mechanism for fact in facts if fact.in_force}
    if in_force >= _NAMESPACES:
        return "cgroup" if CONTROL_GROUP in in_force else "namespaces"
    return next((one for one in ("landlock", "seccomp") if one in in_force), "basic")


def findings(of: str, facts: Iterable[tuple[str, bool, str]]) -> list[tuple[str, bool, str]]:
    """Return what a doctor says of level `of` and its facts (mechanism, in force, detail): name, all well, why.

    Where nobody lets us have control groups, the daemon itself bounds workers: that is no trouble.
    """
    found = [("sandbox level", True, of)]
    for mechanism, in_force, detail in facts:
        if mechanism == CONTROL_GROUP and not in_force:
            found.append((mechanism, True, f"none: {detail}"))
        else:
            found.append((mechanism, in_force or detail == NOTHING_LEFT, detail))
    return found


class Confined:
    """Facts by kind of worker; empty until measured."""

    def __init__(self) -> None:
        self._of: Mapping[str, Collection[Fact]] = {}

    def measured(self, of: Mapping[str, Collection[Fact]]) -> None:
        """Take what was found in workers of every kind."""
        self._of = of

    @property
    def facts(self) -> list[Fact]:
        """Every mechanism; in force where it is in force for each kind."""
        if not self._of:
            return []
        lacking = {fact.mechanism: fact for facts in self._of.values() for fact in facts if not fact.in_force}
        return [lacking.get(fact.mechanism, fact) for fact in self._of[PYTHON]]

    @property
    def level(self) -> str:
        """The strongest level in force for each kind."""
        return min((level(facts) for facts in self._of.values()), key=LEVELS.index, default=LEVELS[0])

    def level_of(self, version: FunctionVersion) -> str:
        """Return the level of the workers of a function."""
        return level(self._of.get(COMMAND if commands.is_served(version) else PYTHON, ()))
