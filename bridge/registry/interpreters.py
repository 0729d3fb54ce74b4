"""Which Pythons run functions: AWS's names of runtimes, and what an interpreter of `[runtimes]` is."""

import json
import os
import subprocess
import sys
from functools import lru_cache
from typing import Final

from bridge.core.errors import ConfigError
from bridge.core.function import FunctionVersion, Interpreter

RUNTIMES: Final = (
    "nodejs", "nodejs4.3", "nodejs6.10", "nodejs8.10", "nodejs10.x", "nodejs12.x", "nodejs14.x", "nodejs16.x",
    "nodejs18.x", "nodejs20.x", "nodejs22.x", "nodejs24.x", "nodejs26.x", "java8", "java8.al2", "java8.al2023",
    "java11", "java11.al2023", "java17", "java17.al2023", "java21", "java25", "python2.7", "python3.6", "python3.7",
    "python3.8", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13", "python3.14", "python3.15",
    "dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1", "dotnet6", "dotnet8", "dotnet10",
    "nodejs4.3-edge", "go1.x", "ruby2.5", "ruby2.7", "ruby3.2", "ruby3.3", "ruby3.4", "ruby4.0", "provided",
    "provided.al2", "provided.al2023",
)  # fmt: skip
"""botocore's model, `Runtime`."""
PYTHON_RUNTIMES: Final = tuple(name for name in RUNTIMES if name.startswith("python"))
"""Those that `[runtimes]` may map."""
OWN: Final = "bridge"
"""Stands in `[runtimes]` for the Python that the daemon itself runs on."""
INTERPRETER: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"
"""What runs functions whose runtime is mapped to nothing else."""
PYTHON_MIN: Final = (3, 11)
"""The oldest Python that the workers' own code runs on."""
NO_INTERPRETER: Final = "InvalidRuntimeException"
"""AWS's code of a function whose runtime nothing here runs."""
PROBE_MAX_S: Final = 10.0
_PROBE: Final = (
    "import json, sys; print(json.dumps([list(sys.version_info[:2]), sys.base_prefix, sys.implementation.name]))"
)


def interpreter(written: str) -> Interpreter:
    """Return what an entry of `[runtimes]` names: `bridge`, or the absolute path of a Python (blocking, it is run).

    Raises:
        ConfigError: it is not there, no Python, or too old a one.
    """
    if written == OWN:
        return Interpreter(program="", version=INTERPRETER.removeprefix("python"), prefix="")
    try:
        status = os.stat(written)  # noqa: PTH116 - a text, from the file
    except OSError as error:
        raise ConfigError(f"{written}: {(error.strerror or 'unreadable').lower()}") from None
    return _probed(written, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _probed(path: str, _inode: int, _modified_ns: int) -> Interpreter:
    try:
        answer = subprocess.run(
            [path, "-I", "-S", "-c", _PROBE], capture_output=True, timeout=PROBE_MAX_S, check=True,
            stdin=subprocess.DEVNULL, env={"LC_CTYPE": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        version, prefix, implementation = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        raise ConfigError(f"{path} is no Python that runs") from None
    text = ".".join(map(str, version))
    if implementation != "cpython" or tuple(version) < PYTHON_MIN:
        least = ".".join(map(str, PYTHON_MIN))
        raise ConfigError(f"{path} is {implementation} {text}; functions need CPython {least} or later")
    return Interpreter(program=path, version=text, prefix=os.path.realpath(prefix))


def trouble(runtime: str) -> str:
    """Return why nothing here runs a runtime that is not mapped, with AWS's code before it; empty: it is run."""
    if runtime.startswith("python3."):
        return ""
    hint = "; [runtimes] may map it" if runtime in PYTHON_RUNTIMES else ""
    return (
        f"{NO_INTERPRETER}: the runtime {runtime} has no interpreter here: functions run on {INTERPRETER}, "
        f"whichever python3.x they name{hint}"
    )


def described(runtime: str, found: Interpreter | None) -> str:
    """Return a runtime and what runs it, for people: an explicit substitute is told as one."""
    if found is None:
        return runtime if runtime == INTERPRETER else f"{runtime}, run by {INTERPRETER}"
    where = f" at {found.program}" if found.program else ""
    return f"{runtime}, run by python{found.version}{where} ([runtimes])"


def is_substituted(version: FunctionVersion) -> bool:
    """Tell whether the file has it run by another Python than the one that it was made for."""
    return version.interpreter is not None and version.runtime != f"python{version.interpreter.version}"
