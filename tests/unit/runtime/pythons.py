"""Which Pythons are here to run functions."""

import glob
import os
import shutil
import sys

from bridge.core.errors import ConfigError
from bridge.core.function import Interpreter
from bridge.registry.interpreters import PYTHON_MAX, PYTHON_MIN, interpreter


def pythons() -> list[Interpreter]:
    """Return one of each version that is here: that of these tests, those on the path, and pyenv's."""
    own = os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    found = {sys.version_info[1]: own}
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    for minor in range(PYTHON_MIN[1], PYTHON_MAX[1] + 1):
        name = f"python3.{minor}"
        places = (
            shutil.which(name, path="/usr/bin:/usr/local/bin"),
            *sorted(glob.glob(f"{pyenv}/versions/*/bin/{name}")),
        )
        for path in places:
            if path is not None:
                found.setdefault(minor, path)
    usable = []
    for _, path in sorted(found.items()):
        try:
            usable.append(interpreter(path))
        except ConfigError:  # a build without ctypes
            continue
    return usable
