"""Turns what was kept as JSON back into values: members that only a newer version writes are refused by name."""

import dataclasses
from typing import Any, TypeVar

from bridge.core.errors import StoreCorrupt, StoreTooNew

T = TypeVar("T")


def restored(kind: type[T], members: object, *, what: str, **beside: Any) -> T:
    """Return a value of stored members. None is left out: it may be what keeps somebody away.

    Args:
        kind: a dataclass.
        members: what was stored of it.
        what: what it is, for people: `a function URL`.
        beside: members that are kept elsewhere, a key of the store for one.

    Raises:
        StoreTooNew: there is a member that this version does not know.
        StoreCorrupt: it is no object, or a member is missing.
    """
    if not isinstance(members, dict):
        raise StoreCorrupt(f"what was kept of {what} cannot be read: it is no object")
    fields = {each.name: each for each in dataclasses.fields(kind) if each.init}  # type: ignore[arg-type]
    if unknown := sorted(set(members) - set(fields)):
        raise StoreTooNew(
            f"{what} was kept by a newer bridge (it has {', '.join(map(str, unknown))[:200]}, which this one does not "
            "know): nothing was changed; start the newer one"
        )
    found = {**members, **beside}
    needed = (
        name
        for name, each in fields.items()
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    )
    if missing := [name for name in needed if name not in found]:
        raise StoreCorrupt(f"what was kept of {what} cannot be read: it has no {', '.join(missing)}")
    return kind(**found)
