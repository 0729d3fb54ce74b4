"""Looks into the tree of a file that may hold anything: what is not the expected table is passed over."""

from collections.abc import Iterator, Mapping
from typing import Any


def table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the table at `key`, an empty one when there is none."""
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def tables(data: Mapping[str, Any], key: str, *, broken: bool = False) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the named tables of a section; with `broken`, also the names of what should be tables."""
    for name, found in table(data, key).items():
        if isinstance(found, dict):
            yield name, found
        elif broken:
            yield name, {}


def text(data: Mapping[str, Any], key: str, default: str = "") -> str:
    """Return the string at `key`, `default` when it is not there or is none."""
    found = data.get(key, default)
    return found if isinstance(found, str) else default


def number(data: Mapping[str, Any], key: str, default: float) -> float:
    """Return the number at `key`, `default` when it is not there or is none."""
    found = data.get(key, default)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else default
