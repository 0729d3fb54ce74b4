"""Programs that tests need and that no package of Python brings."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from bridge.runtime import links

CI = os.environ.get("CI") == "true"


def needed(program: str, *, package: str) -> str:
    """Return where a program is; without it a test fails in CI, and is skipped elsewhere, with the line that helps."""
    path = shutil.which(program)
    if path is None:
        lacking(f"no {program} on PATH: apt-get install {package}")
    return os.path.abspath(path)


def layer() -> str:
    """Return the folder of a layer with wheels for the Python of these tests (requirements/layer.txt)."""
    folder = Path(sys.prefix) / "share" / "layer"
    if not (folder / "python" / "numpy").is_dir():
        lacking(f"no wheels in {folder}: make .venv/.stamp-test")
    return str(folder)


def node_packages() -> str:
    """Return the node_modules of a function in Node.js (requirements/node)."""
    folder = Path(sys.prefix) / "share" / "node"
    if not (folder / "brought.json").is_file():
        lacking(f"no packages of Node.js in {folder}: requirements/npm.sh .venv")
    return str(folder / "node_modules")


def network_namespaces() -> None:
    """Skip or fail without root, `ip` and `nft`; skip where they are here and the machine still allows no namespace."""
    if missing := links.missing():
        lacking(f"needs root, ip and nft: {missing}")
    try:
        os.close(links._new_namespace())  # noqa: SLF001 - what the daemon itself would try
    except OSError as error:
        pytest.skip("needs root that may make network namespaces: " + str(error))


def lacking(text: str) -> NoReturn:
    """Fail the test in CI, skip it elsewhere: what it needs is not here, and `text` says how to get it."""
    (pytest.fail if CI else pytest.skip)(text)
