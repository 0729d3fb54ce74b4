"""Programs that tests need and that no package of Python brings."""

import os
import shutil

import pytest

CI = os.environ.get("CI") == "true"


def needed(program: str, *, package: str) -> str:
    """Return where a program is; without it a test fails in CI, and is skipped elsewhere, with the line that helps."""
    path = shutil.which(program)
    if path is None:
        lacking(f"no {program} on PATH: apt-get install {package}")
    return os.path.abspath(path)


def lacking(text: str) -> None:
    """Fail the test in CI, skip it elsewhere: what it needs is not here, and `text` says how to get it."""
    (pytest.fail if CI else pytest.skip)(text)
