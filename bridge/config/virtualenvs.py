"""`virtualenv` of `[functions.X]`: the virtual environment whose Python and packages a function has."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bridge.config.files import beside
from bridge.config.mistakes import Loc
from bridge.config.tree import tables
from bridge.core.errors import ConfigError
from bridge.registry.interpreters import PYTHON_RUNTIMES, RUNTIMES
from bridge.registry.virtualenvs import virtualenv


def mistakes(data: Mapping[str, Any], folder: Path) -> Iterator[tuple[Loc, str]]:
    """Yield virtual environments that are none, or not of the Python that the function names; each one's is run."""
    for name, function in tables(data, "functions"):
        written = function.get("virtualenv")
        if not isinstance(written, str) or not written or "\0" in written:
            continue  # told by the section
        if text := _mistake(str(beside(folder, written)), function.get("runtime") or ""):
            yield ("functions", name, "virtualenv"), text if text.isprintable() else ascii(text)


def _mistake(path: str, runtime: object) -> str:
    if runtime and runtime in RUNTIMES and runtime not in PYTHON_RUNTIMES:
        return f"is for Python; functions of {runtime} have no virtual environment"
    try:
        version = virtualenv(path).version
    except ConfigError as error:
        return str(error)
    if runtime and runtime in RUNTIMES and runtime != f"python{version}":
        return (
            f'is of Python {version} and the function of {runtime}: runtime = "python{version}", or make it anew with '
            f"{runtime} -m venv --clear {path}"
        )
    return ""
