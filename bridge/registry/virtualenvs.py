"""Virtual environments of functions: whether a folder is one, what runs in it, and when its packages changed."""

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from bridge.core.errors import ConfigError
from bridge.core.function import FunctionVersion, Interpreter
from bridge.registry.interpreters import interpreter

SETTINGS: Final = "pyvenv.cfg"
"""What makes a folder a virtual environment (PEP 405)."""
SETTINGS_MAX_BYTES: Final = 64 * 1024
HIDDEN: Final = ("/tmp", "/var/task", "/var/runtime")  # noqa: S108 - a worker's own
"""Folders that workers see others of."""


def virtualenv(folder: str) -> Interpreter:
    """Return the Python in a virtual environment, with its packages (blocking, it is run).

    Args:
        folder: its absolute path.

    Raises:
        ConfigError: it is none, it is where no worker sees it, or its Python does not run functions.
    """
    real = os.path.realpath(folder)
    make = f"python3 -m venv {folder}"
    if not os.path.isdir(real):  # noqa: PTH112 - a text, as those of [runtimes]
        raise ConfigError(f"no such folder: {folder}; {make} makes it")
    settings = _settings(real)
    if settings is None:
        raise ConfigError(f"{folder} is no virtual environment: it has no {SETTINGS}; {make} makes one")
    for hidden in HIDDEN:
        if real == hidden or real.startswith(hidden + "/"):
            raise ConfigError(
                f"{folder} is below {hidden}, of which functions have one of their own: make it elsewhere"
            )
    program = f"{real}/bin/python"
    if not os.path.exists(program):  # noqa: PTH110
        raise ConfigError(f"{folder} has lost its Python (bin/python leads nowhere); {make} --clear makes it anew")
    found = interpreter(program)
    needs = [real, found.prefix, os.path.dirname(os.path.realpath(program))]  # noqa: PTH120
    if os.path.isdir(home := os.path.realpath(settings.get("home", real))):  # noqa: PTH112
        needs.append(home)
    return replace(found, virtualenv=real, needs=tuple(dict.fromkeys(needs)))


def _settings(folder: str) -> dict[str, str] | None:
    try:
        with open(f"{folder}/{SETTINGS}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            lines = file.read(SETTINGS_MAX_BYTES).splitlines()
    except OSError:
        return None
    pairs = (line.partition("=") for line in lines)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def site_packages(one: Interpreter) -> str:
    """Return the folder of a virtual environment's packages."""
    return f"{one.virtualenv}/lib/python{one.version}/site-packages"


def changed_ns(one: Interpreter | None) -> int:
    """Return when a package was last installed or removed there (blocking), in ns since 1970; 0: it has no such folder.

    A file that is edited inside of a package does not count.
    """
    if one is None or not one.virtualenv:
        return 0
    try:
        return os.stat(site_packages(one)).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def facts(versions: Iterable[FunctionVersion]) -> list[tuple[str, bool, str]]:
    """Return what virtual environments functions have (blocking), for `doctor`: name, whether all is well, more."""
    users: dict[str, list[FunctionVersion]] = {}
    for version in versions:
        if version.interpreter is not None and version.interpreter.virtualenv:
            users.setdefault(version.interpreter.virtualenv, []).append(version)
    return [
        (
            f"virtualenv {folder}",
            not trouble,
            f"{trouble or found[0].runtime}, of {', '.join(each.name for each in found)}",
        )
        for folder, found in sorted(users.items())
        for trouble in [_trouble(found[0].interpreter)]
    ]


def _trouble(one: Interpreter | None) -> str:
    if not changed_ns(one):
        return "it is gone, or of another Python by now; `bridge check` says more"
    if one is not None and not os.access(one.program, os.X_OK):
        return "its Python is gone; `bridge check` says more"
    return ""
