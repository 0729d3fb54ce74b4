"""Layers in a worker: /opt on the import path, PATH and LD_LIBRARY_PATH; an exec'd worker; and without namespaces."""

import shutil
import sys

import pytest

from bridge.runtime import commands, environment, mounts
from tests.unit.runtime.conftest import own_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
SEEN = """
import os, shutil, subprocess, layered, sited
answer = {
    "module": layered.VALUE, "site": sited.VALUE, "file": layered.__file__,
    "first": os.environ["PYTHONPATH"].split(":")[0],
    "tool": subprocess.run(["tool"], capture_output=True, text=True, check=True).stdout,
    "path": os.environ["PATH"].split(":")[-1], "libraries": os.environ["LD_LIBRARY_PATH"].split(":")[-1],
}
"""


@pytest.fixture
def opt(tmp_path):
    """A folder as merged layers make it."""
    folder = tmp_path / "opt"
    site = folder / "python" / "lib" / PYTHON / "site-packages"
    site.mkdir(parents=True)
    (site / "sited.py").write_text("VALUE = 'site'\n")
    (folder / "python" / "layered.py").write_text("VALUE = 'layer'\n")
    (folder / "python" / "app.py").write_text("raise RuntimeError('the function comes first')\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "tool").write_text("#!/bin/sh\necho from the layer\n")
    (folder / "bin" / "tool").chmod(0o755)
    for path in (tmp_path, *folder.rglob("*"), folder):
        path.chmod(path.stat().st_mode | 0o055)
    return folder


def wanted(root):
    return {
        "module": "layer", "site": "site", "file": f"{root}/python/layered.py", "tool": "from the layer\n",
        "first": f"{root}/python/lib/{PYTHON}/site-packages", "path": f"{root}/bin", "libraries": f"{root}/lib",
    }  # fmt: skip


def root_of(runner, opt):
    return mounts.OPT if runner.pool._starter._opt else str(opt)


async def test_a_layer_is_opt(runner, opt):
    assert await runner.code(SEEN, opt=str(opt)) == wanted(root_of(runner, opt))


async def test_the_folders_of_the_named_python_come_first(runner, opt):
    named = opt / "python" / "lib" / "python3.8" / "site-packages"
    shutil.copytree(opt / "python" / "lib" / PYTHON / "site-packages", named)
    (named / "sited.py").write_text("VALUE = 'named'\n")
    assert await runner.code("import sited; answer = sited.VALUE", opt=str(opt), runtime="python3.8") == "named"


async def test_a_layer_with_libraries_makes_an_executed_worker(runner, opt):
    (opt / "lib").mkdir(mode=0o755)
    version = runner.version("app.run", opt=str(opt))
    assert environment.needs_exec(version)
    assert await runner.code(SEEN, opt=str(opt)) == wanted(root_of(runner, opt))


async def test_a_wrapper_of_a_layer(runner, opt):
    wrapper = opt / "wrap"
    wrapper.write_text('#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n')
    wrapper.chmod(0o755)
    variables = {commands.EXEC_WRAPPER: "/opt/wrap"}
    code = "import os; answer = os.environ.get('AWS_LAMBDA_EXEC_WRAPPER')"
    assert await runner.code(code, opt=str(opt), environment=variables) == "/opt/wrap"


async def test_opt_is_read_only_and_of_its_function_alone(runner, opt):
    if not runner.pool._starter._opt:
        assert runner.pool.sandbox_level() != "namespaces"
        return
    code = "\ntry: open('/opt/new', 'w')\nexcept OSError as error: answer = error.strerror"
    assert await runner.code(code, opt=str(opt)) in {"Read-only file system", "Permission denied"}
    code = "import os; answer = os.path.exists('/opt/python/layered.py')"
    assert await runner.code(code, name="other") is False


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["unmounted", "basic"])
async def test_without_namespaces_layers_are_where_they_are(tmp_path, opt, sandbox):
    async with own_pool(tmp_path, workers_max=2, sandbox=sandbox) as runner:
        seen = await runner.code(SEEN, opt=str(opt))
        assert seen == wanted(str(opt))
        (opt / "python" / "failing.py").write_text("def fail():\n    raise ValueError('in a layer')\n")
        result = await runner.run("app.run", {"code": "import failing; failing.fail()"}, opt=str(opt))
        assert b'\\"/opt/python/failing.py\\"' in result.payload


async def test_nothing_needed_is_covered(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "OPT", str(tmp_path))
    assert mounts.can_cover_opt(["/usr/bin/python3"])
    assert not mounts.can_cover_opt([str(tmp_path / "python" / "bin")])
    monkeypatch.setattr(mounts, "OPT", str(tmp_path / "none"))
    assert not mounts.can_cover_opt([])
