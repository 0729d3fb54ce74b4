"""Layers merged into the folder that becomes /opt: a later one's files in the place of an earlier one's."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

PREFIX: Final = ".opt-"
"""How names of merged folders begin."""


def opt_name(keys: Sequence[str]) -> str:
    """Return the name of the folder that the packages of these keys are merged into, in this order."""
    return PREFIX + hashlib.sha256("\n".join(keys).encode()).hexdigest()


def merge(layers: Sequence[Path], target: Path) -> None:
    """Make `target` of all files of some folders, read-only; blocking.

    Files are hard links: no space, and no time to speak of. Where the file system has none, they are copies.

    Raises:
        OSError: the disk failed, or is full.
    """
    target.mkdir(mode=0o700)
    made = {target}
    for name, source in _plan(layers).items():
        path = target / name
        make_folders(path.parent, made)
        try:
            os.link(source, path, follow_symlinks=False)
        except OSError:
            shutil.copy2(source, path, follow_symlinks=False)
    for folder in made:
        folder.chmod(0o555)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; blocking."""
    return sum(path.lstat().st_size for _, path in _files(folder))


def _plan(layers: Sequence[Path]) -> dict[str, Path]:
    """Return the file that stands under each name in the end."""
    found: dict[str, Path] = {}
    folders: set[str] = set()
    for layer in layers:
        for name, path in _files(layer):
            if name in folders:  # a file where an earlier layer has a folder
                found = {other: each for other, each in found.items() if not other.startswith(name + "/")}
            for above in _above(name):
                found.pop(above, None)  # and the other way round
                folders.add(above)
            found[name] = path
    return found


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, _, files in os.walk(root):
        for name in files:
            path = Path(folder, name)
            yield str(path.relative_to(root)), path


def _above(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def make_folders(folder: Path, made: set[Path]) -> None:
    """Make a folder, and those above it, that are not among `made` yet, writable for now."""
    missing = []
    while folder not in made:
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700)
        made.add(each)
