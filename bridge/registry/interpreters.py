"""What runs functions: AWS's names of runtimes, what `[runtimes]` maps them to, and what is installed."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from bridge.core.errors import ConfigError
from bridge.core.function import FunctionVersion, Interpreter
from bridge.registry import installed

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
"""Those that a Python runs."""
NATIVE_RUNTIMES: Final = tuple(name for name in RUNTIMES if name.startswith(("provided", "go1")))
"""Those whose functions bring their own program, so that nothing is mapped."""
MAPPED_RUNTIMES: Final = tuple(name for name in RUNTIMES if name not in NATIVE_RUNTIMES)
"""Those that `[runtimes]` may map."""
OWN: Final = "bridge"
"""Stands in `[runtimes]` for the Python that the daemon itself runs on."""
INTERPRETER: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"
"""What runs functions whose runtime is mapped to nothing else."""
PYTHON_MIN: Final = (3, 11)
"""The oldest Python that the workers' own code runs on."""
PYTHON_MAX: Final = (3, 14)
"""The newest that it is known to run on: a newer one only where the file says so."""
NO_INTERPRETER: Final = "InvalidRuntimeException"
"""AWS's code of a function whose runtime nothing here runs."""
COMMAND_MAX: Final = 32
"""Words of a command."""
_PYTHON: Final = re.compile(r"python(\d+)\.(\d+)")
# What the worker's own code imports must be there: Pythons built without libffi have no ctypes.
_PROBE: Final = """
import ctypes, json, sys
print(json.dumps([list(sys.version_info[:2]), sys.base_prefix, sys.implementation.name]))
"""


def named(runtime: str, written: str | Sequence[str]) -> Interpreter:
    """Return what an entry of `[runtimes]` maps a runtime to (blocking, interpreters are run).

    Args:
        runtime: one of `MAPPED_RUNTIMES`.
        written: a path, `bridge`, or the words of a command; paths are absolute.

    Raises:
        ConfigError: it is not there, or does not run such functions.
    """
    if not isinstance(written, str):
        return _command(written)
    if runtime in PYTHON_RUNTIMES:
        return interpreter(written)
    if (kind := installed.kind_of(runtime)) is not None and written != OWN:
        return installed.program(kind, written)
    raise ConfigError(f'{runtime} needs a client of the Runtime API: {{ command = ["/path/of/program", "..."] }}')


def interpreter(written: str) -> Interpreter:
    """Return what an entry of `[runtimes]` names: `bridge`, or the absolute path of a Python (blocking, it is run).

    Raises:
        ConfigError: it is not there, no Python, or too old a one.
    """
    if written == OWN:
        return Interpreter(program="", version=INTERPRETER.removeprefix("python"), prefix="")
    status = _status(written)
    return _probed(written, status.st_ino, status.st_mtime_ns)


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)  # noqa: PTH116 - a text, from the file
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or 'unreadable').lower()}") from None


def _command(words: Sequence[str]) -> Interpreter:
    program = words[0]
    _status(program)
    if not os.access(program, os.X_OK):
        raise ConfigError(f"{program} may not be executed")
    prefix = os.path.dirname(os.path.realpath(program))  # noqa: PTH120 - a text, from the file
    return Interpreter(program=program, version="", prefix=prefix, language="command", command=tuple(words))


def found(runtime: str, mapped: Mapping[str, Interpreter]) -> Interpreter | None:
    """Return what runs a runtime: what the file maps it to, or what is on PATH for it (blocking, it is run once).

    On PATH, Node.js and Ruby run every `nodejs*` and `ruby*` that is not too old for them, and `python3.x` the runtime
    of that name.
    None: the daemon's own Python, the function's own bootstrap, or nothing; `trouble` tells.
    """
    if runtime in mapped:
        return mapped[runtime]
    if path := python_path(runtime):
        return _installed(path, runtime)
    kind = installed.kind_of(runtime)
    if kind is None or not kind.runs_unasked(runtime) or not (path := installed.on_path(kind)):
        return None
    try:
        return installed.program(kind, path)
    except ConfigError:
        return None


def reachable(mapped: Mapping[str, Interpreter]) -> list[Interpreter]:
    """Return all that functions may be run by here; those on PATH unseen, their version is empty."""
    programs = list(mapped.values())
    paths = [python_path(runtime) for runtime in PYTHON_RUNTIMES if runtime not in mapped]
    programs += [Interpreter(program=path, version="", prefix=str(Path(path).parent.parent)) for path in paths if path]
    for kind in installed.KINDS:
        if path := installed.on_path(kind):
            prefix = installed.prefix(kind, path)
            programs.append(Interpreter(program=path, version="", prefix=prefix, language=kind.language))
    return programs


def python_path(runtime: str) -> str:
    """Return where the Python of a runtime on PATH really is; empty: there is none, or the daemon runs on it itself.

    Scripts are passed over: the shims of version managers run only where a home folder with their settings is.
    """
    number = _PYTHON.fullmatch(runtime)
    if number is None or runtime == INTERPRETER or not PYTHON_MIN <= (int(number[1]), int(number[2])) <= PYTHON_MAX:
        return ""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = shutil.which(runtime, path=folder) if folder else None
        if path is not None and not _is_script(path):
            return os.path.realpath(path)
    return ""


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a text, from the environment
            return file.read(2) == b"#!"
    except OSError:
        return True


def _installed(path: str, runtime: str) -> Interpreter | None:
    """Return the Python at this path if functions of the runtime can run on it."""
    try:
        one = interpreter(path)
    except ConfigError:
        return None
    return one if one.version == runtime.removeprefix("python") else None


@lru_cache(maxsize=64)
def _probed(path: str, _inode: int, _modified_ns: int) -> Interpreter:
    try:
        answer = subprocess.run(
            [path, "-I", "-S", "-c", _PROBE], capture_output=True, timeout=installed.PROBE_MAX_S, check=True,
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


def trouble(runtime: str, interpreter: Interpreter | None) -> str:
    """Return why nothing here runs a runtime, with AWS's code before it; empty: it is run."""
    if interpreter is not None or runtime.startswith("python3.") or runtime in NATIVE_RUNTIMES:
        return ""
    if runtime in PYTHON_RUNTIMES:
        why = f"functions run on {INTERPRETER}, whichever python3.x they name"
    elif (kind := installed.kind_of(runtime)) is not None:
        why = kind.trouble(runtime)
    else:
        why = "a program that speaks the Runtime API is needed"
    return f"{NO_INTERPRETER}: the runtime {runtime} has no interpreter here: {why}; [runtimes] may map it"


def described(runtime: str, interpreter: Interpreter | None) -> str:
    """Return a runtime and what runs it, for people: an explicit substitute is told as one."""
    if interpreter is None:
        if runtime in NATIVE_RUNTIMES:
            return f"{runtime}, the function's own program"
        return runtime if runtime == INTERPRETER else f"{runtime}, run by {INTERPRETER}"
    if interpreter.language == "command":
        return f"{runtime}, run by {interpreter.program} ([runtimes])"
    if (kind := installed.BY_LANGUAGE.get(interpreter.language)) is not None:
        return f"{runtime}, run by {kind.label} {interpreter.version} at {interpreter.program}"
    if interpreter.virtualenv:
        return f"{runtime} in {interpreter.virtualenv}"
    if runtime == f"python{interpreter.version}" and interpreter.program:
        return f"{runtime} at {interpreter.program}"
    where = f" at {interpreter.program}" if interpreter.program else ""
    return f"{runtime}, run by python{interpreter.version}{where} ([runtimes])"


def is_substituted(version: FunctionVersion) -> bool:
    """Tell whether another version runs it than the one that it was made for."""
    interpreter = version.interpreter
    if interpreter is None or interpreter.language == "command":
        return False
    if (kind := installed.BY_LANGUAGE.get(interpreter.language)) is not None:
        return version.runtime != kind.release(interpreter.version)
    return version.runtime != f"python{interpreter.version}"


def facts(versions: Iterable[FunctionVersion]) -> list[tuple[str, bool, str]]:
    """Return what runs each runtime that functions name, for `doctor`: name, whether it is run, by what or why not."""
    named_ones = {version.runtime: version for version in versions if version.runtime and not _has_own(version)}
    return [
        (f"runtime {runtime}", not text, text or described(runtime, version.interpreter) + _remedy(version))
        for runtime, version in sorted(named_ones.items())
        for text in [trouble(runtime, version.interpreter).partition(": ")[2]]
    ]


def _has_own(version: FunctionVersion) -> bool:
    return version.interpreter is not None and bool(version.interpreter.virtualenv)


def _remedy(version: FunctionVersion) -> str:
    """Return how a function would be run by the very Python that it names; empty: it is, or cannot be."""
    number = _PYTHON.fullmatch(version.runtime)
    if number is None or version.interpreter is not None or version.runtime == INTERPRETER:
        return ""
    if not (int(number[1]), int(number[2])) >= PYTHON_MIN:
        return ""
    return f": no {version.runtime} is on the daemon's PATH; install it, or name one in [runtimes]"
