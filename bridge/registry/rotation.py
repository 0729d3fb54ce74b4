"""Rotation of the key file: a new key, every value's own key wrapped by it, then the old keys go; and who holds what.

Both keys are in the file until nothing is wrapped by the old one: a rotation that is cut short, wherever, leaves every
value open, and the next one goes on with it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bridge.core.errors import SealBroken
from bridge.registry.keyring import Key
from bridge.registry.made import MadeFunction, MadeVersion
from bridge.registry.secrets import KEY_NAME, Binding, Seal
from bridge.util.crash import crash_point

ArnOf = Callable[[str], str]
"""Unqualified ARN of a function's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a rotation did."""

    key: Key | None
    """The newest now; None: nothing was ever sealed, and there is no key file."""
    rewrapped: int = 0
    dropped: int = 0
    """Old keys that left the file."""
    unreadable: int = 0
    """Values that no key of the file opens: they stay as they are, and so do the old keys."""
    resumed: bool = False
    """An earlier rotation was cut short: this one finished it, with its key."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "id": "" if self.key is None else self.key.id,
            "rewrapped": self.rewrapped,
            "dropped": self.dropped,
            "unreadable": self.unreadable,
            "resumed": self.resumed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A key and what it wraps."""

    name: str
    """`aws/lambda`, or the ARN of a key of KMS."""
    id: str = ""
    """Of a key of the file."""
    made_at: float | None = None
    """Epoch seconds; None: KMS knows."""
    values: int = 0


def binding(arn: str, version: str) -> Binding:
    """Return what a version's variables are bound to."""
    return Binding(function_arn=arn, version=version)


async def rotate(
    seal: Seal,
    functions: Sequence[MadeFunction],
    *,
    arn_of: ArnOf,
    save: Callable[[MadeFunction, MadeFunction], Awaitable[None]],
) -> Rotation:
    """Rotate, or finish a rotation that was cut short; values that KMS's keys wrap stay as they are.

    Args:
        seal: over the key file.
        functions: all that is kept; nobody changes it meanwhile.
        arn_of: names what values are bound to.
        save: keeps a function durably, given what it was and is.

    Raises:
        SealBroken: the key file is missing and should not be, unusable, or cannot be written.
        StoreError: a function could not be kept; whatever is sealed can be opened, and the next call goes on.
    """
    if not await asyncio.to_thread(seal.keys) and not any(_sealed(functions)):
        return Rotation(key=None)
    is_fresh = await asyncio.to_thread(seal.add_key)
    crash_point("keys.added")
    rewrapped = unreadable = 0
    for made in functions:
        after, done, failed = await asyncio.to_thread(_rewrapped, seal, made, arn_of)
        if done:
            await save(made, after)
            crash_point("keys.rewrapped")
        rewrapped, unreadable = rewrapped + done, unreadable + failed
    dropped = 0 if unreadable else await asyncio.to_thread(seal.drop_keys)
    crash_point("keys.dropped")
    return Rotation(
        key=seal.keys()[0], rewrapped=rewrapped, dropped=dropped, unreadable=unreadable, resumed=not is_fresh
    )


def holders(seal: Seal, functions: Iterable[MadeFunction], *, arn_of: ArnOf) -> tuple[list[Holder], int]:
    """Return the keys of the file, newest first, then those of KMS; and how many values none of them opens. Blocking.

    Raises:
        SealBroken: the key file cannot be used.
    """
    keys, found, unreadable = seal.keys(), Counter[str](), 0
    for made, version in _sealed(functions):
        try:
            found[seal.holder(version.environment, bound_to=binding(arn_of(made.name), version.version))] += 1
        except SealBroken:
            unreadable += 1
    own = [Holder(name=KEY_NAME, id=key.id, made_at=key.made_at, values=found.pop(key.id, 0)) for key in keys]
    return [*own, *(Holder(name=name, values=count) for name, count in sorted(found.items()))], unreadable


def _sealed(functions: Iterable[MadeFunction]) -> Iterator[tuple[MadeFunction, MadeVersion]]:
    return ((made, version) for made in functions for version in made.all_versions() if version.environment)


def _rewrapped(seal: Seal, made: MadeFunction, arn_of: ArnOf) -> tuple[MadeFunction, int, int]:
    """Return a function whose values the newest key wraps, how many were changed, and how many no key opens."""
    arn, failed = arn_of(made.name), 0
    changed: dict[str, MadeVersion] = {}
    for version in made.all_versions():
        if not version.environment:
            continue
        try:
            sealed = seal.rewrap(version.environment, bound_to=binding(arn, version.version))
        except SealBroken:
            failed += 1
            continue
        if sealed != version.environment:
            changed[version.version] = replace(version, environment=sealed)
    versions = {number: changed.get(number, version) for number, version in made.versions.items()}
    latest = changed.get(made.latest.version, made.latest)
    return replace(made, latest=latest, versions=versions), len(changed), failed
