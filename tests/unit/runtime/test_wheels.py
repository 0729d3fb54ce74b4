"""Wheels with code of the machine in layers: numpy runs; one of another Python fails as on AWS, and the log says why."""

import json
import os
import sys
from dataclasses import replace

import pytest

from bridge.core.invocation import ResultKind
from bridge.core.logging_config import LoggingConfig
from tests import tools
from tests.unit.runtime.pythons import pythons

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUMPY = """
import numpy
square = numpy.arange(40_000.0).reshape(200, 200)
answer = [float((square @ square)[0, 1]), numpy.__file__.endswith("/python/numpy/__init__.py")]
"""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""As docs/languages.md has it for machines of many processors."""
OWN = sys.version_info[1]
OTHER = 8


@pytest.fixture
def run(runner, tmp_path):
    """Return `run(files, opt=..., **fields)`: the result of a function whose layer holds files by their names."""

    async def run(files, code="import fast", opt="", **fields):
        for name, text in {"opt/python/": None, "code/": None, "code/app.py": code, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
        for path in (tmp_path, *tmp_path.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        values = {"code": str(tmp_path / "code"), "opt": opt or str(tmp_path / "opt"), **fields}
        return await runner.run("app.handler", {}, **values)

    return run


def hints(result):
    return [line for line in result.log_tail.decode().splitlines() if "is built for" in line]


async def test_numpy_of_a_layer_runs_in_the_memory_that_a_function_has_by_default(runner):
    assert await runner.code(NUMPY, opt=tools.layer(), memory_mb=128, environment=ONE_THREAD) == [
        sum(n * (n * 200 + 1.0) for n in range(200)),
        True,
    ]


async def test_numpy_of_another_python_fails_and_the_log_says_which_it_is_for(run):
    for other in pythons():
        if other.version == f"3.{OWN}":
            continue
        needs = (other.prefix, os.path.dirname(os.path.realpath(other.program)))
        runtime = f"python{other.version}"
        result = await run({}, "import numpy", tools.layer(), interpreter=replace(other, needs=needs), runtime=runtime)
        error = json.loads(result.payload)
        assert error["errorType"] == "Runtime.ImportModuleError"
        assert error["errorMessage"].startswith("Unable to import module 'app': ")
        (line,) = hints(result)
        assert line.startswith("[WARNING]\t")
        assert "/opt/python/numpy is built for Python 3." in line
        assert (
            f"and this function runs on {other.version}: ship its wheel for cp3{other.version[2:]}, or name its runtime"
            in line
        )


async def test_a_wheel_of_another_python_is_told(run):
    extension = f"_fast.cpython-3{OTHER}-x86_64-linux-gnu.so"
    files = {"opt/python/fast/__init__.py": "from . import _fast", f"opt/python/fast/{extension}": ""}
    result = await run(files)
    assert result.kind is ResultKind.FUNCTION_ERROR
    assert json.loads(result.payload)["errorType"] == "Runtime.ImportModuleError"
    assert hints(result)[0].endswith(
        f"/opt/python/fast is built for Python 3.{OTHER} and this function runs on 3.{OWN}: "
        f"ship its wheel for cp3{OWN}, or name its runtime"
    )

    result = await run(files, logging=LoggingConfig(is_json=True))
    (line,) = hints(result)
    assert (json.loads(line)["level"], json.loads(line)["logger"]) == ("WARNING", "bridge")


async def test_a_folder_of_another_python_is_told(run):
    result = await run({f"opt/python/lib/python3.{OTHER}/site-packages/fast/__init__.py": ""})
    assert "No module named 'fast'" in json.loads(result.payload)["errorMessage"]
    assert f"/opt/python/lib/python3.{OTHER}/site-packages/fast is built for Python 3.{OTHER} and" in hints(result)[0]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"opt/python/fast/__init__.py": "from . import gone"},
        {"opt/python/fast/__init__.py": "from . import gone", "opt/python/fast/_fast.abi3.so": ""},
        {
            "opt/python/fast/__init__.py": "from . import gone",
            f"opt/python/fast/a.cpython-3{OTHER}-x86_64-linux-gnu.so": "",
            f"opt/python/fast/a.cpython-3{OWN}-x86_64-linux-gnu.so": "",
        },
    ],
    ids=["missing", "pure", "abi3", "both"],
)
async def test_nothing_is_said_where_that_is_not_why(run, files):
    result = await run(files)
    assert json.loads(result.payload)["errorType"] == "Runtime.ImportModuleError"
    assert hints(result) == []
