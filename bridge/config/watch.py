"""Watches functions' folders and the configuration file, and tells what was edited (`bridge run --watch`)."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

QUIET_MS: Final = 50
"""Editors write a file in several steps: an edit is told once this long nothing followed."""
EDIT_MAX_MS: Final = 500
"""An edit is told after this long even if more follows."""
RECHECK_MS: Final = 1000
"""How often it is looked whether a path has become another file or folder: of that the kernel tells nothing."""

_Identity: TypeAlias = tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """What changed since the last time."""

    functions: frozenset[str] = frozenset()
    """Names of functions (and of layers) in whose folder something changed."""
    config: bool = False


async def watch(
    functions: Mapping[str, Path], config: Path | None = None, *, marks: Mapping[str, Path] | None = None
) -> AsyncIterator[Edited]:
    """Yield edits, for ever; close the iterator (`aclosing`) to end.

    A folder may be missing, vanish and come back, or be a link that is turned elsewhere: each is an edit. So is a
    configuration file that is replaced by a rename. A new set of folders, after a reload, takes a new call.

    Args:
        functions: folders, by the function's name; all that is in them counts.
        config: the file.
        marks: folders where an entry that comes or goes is an edit of the function, and nothing else is.

    Raises:
        OSError: the system's limit of watched files is reached.
    """
    known, marked = _identities(functions, config), _stamps(marks or {})
    replaced: AbstractSet[Path] = frozenset()
    while True:
        present = [path for path, identity in known.items() if identity is not None]
        async with aclosing(_changes(present)) as rounds:
            async for changed in rounds:
                current = _identities(functions, config)
                # What was replaced is told once more now that it is watched: it may have grown in between.
                touched = changed | replaced | {path for path in known if current[path] != known[path]}
                replaced = {path for path in known if _node(current[path]) != _node(known[path])}
                known = current
                before, marked = marked, _stamps(marks or {})
                names = {name for name in marked if marked[name] != before[name]}
                names |= {name for name, folder in functions.items() if _touches(folder, touched)}
                edited = Edited(
                    functions=frozenset(names),
                    config=config is not None and config in touched,
                )
                if edited.functions or edited.config:
                    yield edited
                if replaced:
                    break  # the kernel watches what was there before


async def _changes(paths: list[Path]) -> AsyncGenerator[AbstractSet[Path], None]:
    """Yield what changed below `paths`; nothing, every RECHECK_MS in which nothing did."""
    from watchfiles import awatch  # only --watch pays for it

    if paths:
        notices = awatch(*paths, debounce=EDIT_MAX_MS, step=QUIET_MS, rust_timeout=RECHECK_MS, yield_on_timeout=True)
        try:
            async with aclosing(notices) as rounds:
                async for changes in rounds:
                    yield {Path(path) for _, path in changes}
        except FileNotFoundError:
            pass  # gone since we looked; its identity says so
    await asyncio.sleep(RECHECK_MS / 1000)
    yield frozenset()


def identity(path: Path) -> tuple[int, ...] | None:
    """Return what tells a file from what it was or will be: saved again, it is another; None: there is none."""
    status = _status(path)
    return status and (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _identities(functions: Mapping[str, Path], config: Path | None) -> dict[Path, _Identity]:
    """Return what stands at each path now: another file or folder has another identity; None: nothing."""
    found: dict[Path, _Identity] = {}
    for folder in functions.values():
        status = _status(folder)
        found[folder] = status and (status.st_dev, status.st_ino)
    if config is not None:
        found[config] = identity(config)
    return found


def _stamps(marks: Mapping[str, Path]) -> dict[str, int]:
    """Return when something last came or went in each folder; 0: there is none."""
    return {name: status.st_mtime_ns if (status := _status(folder)) else 0 for name, folder in marks.items()}


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _node(identity: _Identity) -> _Identity:
    return identity and identity[:2]


def _touches(folder: Path, changed: AbstractSet[Path]) -> bool:
    real = folder.resolve()
    return any(path.is_relative_to(folder) or path.is_relative_to(real) for path in changed)
