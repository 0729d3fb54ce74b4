"""Why a package cannot be imported that is there: its wheel is of another Python; child side.

Standard library only. Called where an import has failed, never where it has not.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final

CAUSES_MAX: Final = 8
"""Errors behind an error that are looked at."""
FILES_MAX: Final = 5000
"""Of a package, that are looked at."""
_EXTENSION: Final = re.compile(r"\.cpython-3(\d+)[^.]*\.so$")
_LIBRARY: Final = re.compile(r"/lib/python3\.(\d+)/site-packages/")


def hint(error: ImportError, folders: Sequence[str]) -> str:
    """Return one line that says so; empty: that is not the reason.

    Args:
        error: of the import.
        folders: where packages of the function may be.
    """
    own = sys.version_info[1]
    for name in _names(error):
        for folder in folders:
            minors = _built_for(folder, name)
            if minors and own not in minors:
                return _line(f"{folder}/{name}", minors)
            elsewhere = [f"{site}/{name}" for site in _sites(folder) if os.path.isdir(f"{site}/{name}")]
            minors = {int(found[1]) for path in elsewhere if (found := _LIBRARY.search(path))}
            if minors and own not in minors:
                return _line(elsewhere[0], minors)
    return ""


def _names(error: BaseException | None) -> Iterator[str]:
    """Yield the packages of which something was missing; the errors behind an error know better than the error."""
    for _ in range(CAUSES_MAX):
        if error is None:
            return
        if isinstance(error, ImportError) and error.name:
            yield error.name.partition(".")[0]
        error = error.__cause__ or error.__context__


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # a zip, or none
        return []


def _sites(folder: str) -> list[str]:
    """Return where a layer has packages of one version of Python."""
    return [f"{folder}/lib/{name}/site-packages" for name in _listed(f"{folder}/lib") if name.startswith("python3.")]


def _built_for(folder: str, name: str) -> set[int]:
    """Return the minor versions of Python that a package's extension modules are built for; of any version: none."""
    files = [file for file in _listed(folder) if file.startswith(f"{name}.")]
    for _, _, names in os.walk(f"{folder}/{name}"):
        files += names
        if len(files) > FILES_MAX:
            break
    return {int(found[1]) for file in files if (found := _EXTENSION.search(file))}


def _line(place: str, minors: set[int]) -> str:
    built = " and ".join(f"3.{minor}" for minor in sorted(minors))
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    remedy = f"ship its wheel for {tag}, or name its runtime"
    return f"{place} is built for Python {built} and this function runs on {own}: {remedy}"
