"""Looks at the catalog of made functions and at their packages while no daemon has them open; changes nothing."""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bridge.core.errors import StoreCorrupt
from bridge.registry.layers import LayerName, unpack_layer
from bridge.registry.made import Row, unpack
from bridge.store.functions import MIGRATIONS
from bridge.store.opt import PREFIX
from bridge.store.packages import PackageStore
from bridge.store.sqlite import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found."""

    functions: int
    packages: int
    """How many are named by functions and layers."""
    problems: tuple[str, ...]
    """One line each: a package that is gone or not what its name says, and who has it."""
    orphans: int
    """Packages that nothing names: a daemon deletes them half an hour after its start."""


def inspect_catalog(path: Path, packages: Path) -> Inspection | None:
    """Check `catalog.db`, and every package by its hash (a second a GB); None: nothing was ever made.

    Raises:
        StoreCorrupt: the database is damaged, or holds what cannot be read.
        StoreError: a newer version wrote it, or it cannot be read.
    """
    if not path.exists():
        return None
    Database(path, migrations=MIGRATIONS).check()
    owners, functions = _owners(path)
    store = PackageStore(packages)
    there = store.keys() if packages.is_dir() else frozenset()
    found = ((key, store.fault(key)) for key in sorted(owners))
    problems = [f"{', '.join(sorted(owners[key]))}: package {key} {fault}" for key, fault in found if fault]
    orphans = [key for key in there - owners.keys() if not key.startswith(PREFIX)]
    return Inspection(functions=functions, packages=len(owners), problems=tuple(problems), orphans=len(orphans))


def _owners(path: Path) -> tuple[dict[str, set[str]], int]:
    """Return who names each package, and how many functions there are."""
    grouped: dict[str, dict[Row, bytes]] = {}
    owners: dict[str, set[str]] = {}
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            for name, kind, key, document in connection.execute("SELECT name, kind, key, document FROM parts"):
                grouped.setdefault(name, {})[kind, key] = document
            layers = connection.execute("SELECT account, region, name, version, document FROM layers").fetchall()
        for name, rows in grouped.items():
            made = unpack(name, rows, last_version=0)
            for key in made.packages():
                owners.setdefault(key, set()).add(f"function {made.name}")
        for row in layers:
            version = unpack_layer(LayerName(*row[:3]), row[3], row[4])
            owners.setdefault(version.package, set()).add(f"layer {version.layer.name}:{version.version}")
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise StoreCorrupt(f"{path.name} cannot be read: {error}") from error  # else of an older schema
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{path.name} holds what cannot be read: {error}") from error
    return owners, len(grouped)
