"""`virtualenv` of a function: what is one, of which Python it is, what doctor says, and when its packages change."""

import subprocess
import sys
from pathlib import Path

import pytest

from bridge.config.functions import function_specs
from bridge.config.load import load
from bridge.registry import virtualenvs
from bridge.registry.catalog import FunctionCatalog
from bridge.registry.interpreters import INTERPRETER, facts
from bridge.runtime.in_process import _layer_paths
from tests.unit.config.conftest import GOOD

PYTHON = getattr(sys, "_base_executable", sys.executable) or sys.executable
OTHER = "python3.12" if INTERPRETER != "python3.12" else "python3.11"
DECLARED = GOOD.replace('handler = "', 'virtualenv = "venv"\nhandler = "')


@pytest.fixture(autouse=True)
def anywhere(monkeypatch):
    """Tests have their folders in /tmp."""
    monkeypatch.setattr(virtualenvs, "HIDDEN", ())


@pytest.fixture
def venv(folder):
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    return folder / "venv"


def test_its_python_runs_the_function(venv, load_text):
    (spec,) = function_specs(load_text(DECLARED).settings)
    one = spec.interpreter

    assert one is not None
    assert (spec.runtime, one.version) == (INTERPRETER, INTERPRETER.removeprefix("python"))
    assert (one.virtualenv, one.program) == (str(venv), f"{venv}/bin/python")
    assert one.needs[0] == str(venv)
    assert Path(PYTHON).resolve().parent in map(Path, one.needs)
    named = DECLARED.replace("virtualenv", f'runtime = "{INTERPRETER}"\nvirtualenv')
    assert function_specs(load_text(named).settings)[0].interpreter == one


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        ("rm -r venv", "venv; python3 -m venv {venv} makes it"),
        ("rm venv/pyvenv.cfg", "venv is no virtual environment: it has no pyvenv.cfg; python3 -m venv {venv} makes one"),
        ("rm venv/bin/*", "has lost its Python (bin/python leads nowhere); python3 -m venv {venv} --clear makes it anew"),
        ("rm venv/bin/*; ln -s /bin/false venv/bin/python", "venv/bin/python is no Python that runs"),
    ],
)  # fmt: skip
def test_what_is_none_says_what_to_do(venv, mistakes, spoil, text):
    subprocess.run(spoil, shell=True, check=True, cwd=venv.parent)
    (told,) = mistakes(DECLARED)

    assert told.startswith("bridge.toml:3: functions.hello.virtualenv: ")
    assert text.format(venv=venv) in told


def test_one_of_another_python_or_for_another_language_is_refused(venv, mistakes):
    (told,) = mistakes(DECLARED.replace("virtualenv", f'runtime = "{OTHER}"\nvirtualenv'))
    version = INTERPRETER.removeprefix("python")
    assert f'is of Python {version} and the function of {OTHER}: runtime = "{INTERPRETER}", or make it anew' in told
    assert f"{OTHER} -m venv --clear {venv}" in told
    (told,) = mistakes(DECLARED.replace("virtualenv", 'runtime = "provided.al2023"\nvirtualenv'))
    assert told.endswith("is for Python; functions of provided.al2023 have no virtual environment")


def test_one_that_workers_would_not_see_is_refused(venv, mistakes, monkeypatch):
    monkeypatch.setattr(virtualenvs, "HIDDEN", (str(venv.parent),))
    (told,) = mistakes(DECLARED)
    assert f"is below {venv.parent}, of which functions have one of their own: make it elsewhere" in told


def test_doctor_names_it_and_a_package_that_comes_makes_another_revision(venv, load_text, folder):
    settings = load_text(DECLARED).settings
    catalog = FunctionCatalog.from_specs(function_specs(settings))
    latest = catalog.get("hello").latest
    assert facts([latest]) == []
    assert virtualenvs.facts([latest]) == [(f"virtualenv {venv}", True, f"{INTERPRETER}, of hello")]
    assert _layer_paths(latest) == [virtualenvs.site_packages(latest.interpreter)]

    assert not catalog.refresh("hello")
    (Path(virtualenvs.site_packages(latest.interpreter)) / "new.py").touch()
    assert catalog.refresh("hello")
    assert function_specs(load(None, {}).settings)[0].interpreter == latest.interpreter

    subprocess.run(["rm", "-r", venv], check=True)
    ((_, is_there, detail),) = virtualenvs.facts([latest])
    assert not is_there
    assert detail == "it is gone, or of another Python by now; `bridge check` says more, of hello"
