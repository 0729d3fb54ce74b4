"""`[runtimes]` and `[dev]`: whose names and interpreters are taken, which substitute is explicit, who may reset."""

import sys
from dataclasses import replace

import pytest

from bridge.config.runtimes import interpreters
from bridge.core.function import FunctionVersion, Interpreter
from bridge.registry.interpreters import INTERPRETER, described, is_substituted, trouble
from tests.unit.config.conftest import GOOD

PYTHON = getattr(sys, "_base_executable", sys.executable) or sys.executable


def script(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_path_is_run_once_to_see_what_it_is(folder, load_text):
    script(folder, "python", 'echo x >> "$0.runs"; echo \'[[3, 11], "/opt/py", "cpython"]\'')
    settings = load_text(f'{GOOD}[runtimes]\n"python3.9" = "python"\n"python3.12" = "bridge"\n').settings
    found = interpreters(settings)

    assert found["python3.9"] == Interpreter(program=str(folder / "python"), version="3.11", prefix="/opt/py")
    assert found["python3.12"] == Interpreter(program="", version=INTERPRETER.removeprefix("python"), prefix="")
    assert (folder / "python.runs").read_text() == "x\n"


def test_the_python_of_these_tests_is_one(load_text):
    settings = load_text(f'{GOOD}[runtimes]\n"python3.9" = "{PYTHON}"\n').settings

    assert f"python{interpreters(settings)['python3.9'].version}" == INTERPRETER


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"python3.99" = "bridge"', 'runtimes."python3.99": no runtime that Python can run; did you mean python3.9?'),
        ('"nodejs22.x" = "bridge"', 'runtimes."nodejs22.x": no runtime that Python can run: known are python2.7 to python3.15'),
        ('"python3.9" = 3', 'must be the path of a Python, or "bridge"'),
        ('"python3.9" = ""', 'must be the path of a Python, or "bridge"'),
        ('"python3.9" = "gone"', "gone: no such file or directory"),
        ('"python3.9" = "code"', "code is no Python that runs"),
        ('"python3.9" = "broken"', "broken is no Python that runs"),
        ('"python3.9" = "talks"', "talks is no Python that runs"),
        ('"python3.9" = "old"', "old is cpython 3.9; functions need CPython 3.11 or later"),
        ('"python3.9" = "pypy"', "pypy is pypy 3.11; functions need CPython 3.11 or later"),
    ],
)  # fmt: skip
def test_mistakes_name_the_key_and_say_what_would_do(folder, mistakes, line, text):
    script(folder, "broken", "exit 3")
    script(folder, "talks", "echo hello")
    script(folder, "old", 'echo \'[[3, 9], "/opt/py", "cpython"]\'')
    script(folder, "pypy", 'echo \'[[3, 11], "/opt/py", "pypy"]\'')
    (found,) = mistakes(f"{GOOD}[runtimes]\n{line}\n")

    assert text in found
    assert found.startswith("bridge.toml:")


def test_what_is_not_mapped_runs_here_or_says_how_to_map_it():
    assert trouble("python3.9") == ""
    assert trouble("python2.7").endswith("; [runtimes] may map it")
    assert trouble("nodejs22.x").startswith("InvalidRuntimeException: the runtime nodejs22.x has no interpreter here")
    assert "[runtimes]" not in trouble("nodejs22.x")


def test_a_substitute_is_told_as_one():
    other = Interpreter(program="/usr/bin/python3.11", version="3.11", prefix="/usr")
    version = FunctionVersion(name="f", arn="a", code="/c", revision="r", handler="a.b", runtime="python3.9")

    assert not is_substituted(version)
    assert described(INTERPRETER, None) == INTERPRETER
    assert described("python3.9", None) == f"python3.9, run by {INTERPRETER}"
    assert is_substituted(replace(version, interpreter=other))
    assert not is_substituted(replace(version, runtime="python3.11", interpreter=other))
    assert described("python3.9", other) == "python3.9, run by python3.11 at /usr/bin/python3.11 ([runtimes])"


def test_a_reset_is_for_loopback_only(mistakes, load_text):
    assert load_text(f"{GOOD}[dev]\nreset = true\n").settings.dev.reset is True
    elsewhere = '[dev]\nreset = true\n[listen]\napi = "0.0.0.0:8581"\ntls = "off"\n'
    assert mistakes(f"{GOOD}{elsewhere}")[0].endswith(
        "dev.reset: is for loopback only, and listen.api is reachable from elsewhere"
    )
