"""Functions in virtual environments: their Python, their packages and .pth files, what hides what, who sees them."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.core.errors import RuntimeUnavailable
from bridge.registry import virtualenvs
from bridge.runtime import environment, mounts
from tests.unit.runtime.conftest import own_pool
from tests.unit.runtime.pythons import pythons

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN = """
import os, sys, installed, linked, packaged
answer = {
    "prefix": sys.prefix, "other": sys.base_prefix != sys.prefix, "executable": sys.executable,
    "version": "%d.%d" % sys.version_info[:2], "installed": installed.VALUE, "linked": linked.VALUE,
    "packaged": packaged.VALUE, "env": os.environ["AWS_EXECUTION_ENV"], "first": sys.path[0],
    "bridge": [name for name in sys.modules if name.startswith("bridge")],
}
"""


@pytest.fixture(scope="module")
def away():
    """A closed folder that workers see the host's of, unlike /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="bridge-", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder)


def made(folder, python=""):
    """Make a virtual environment with a package, and with a folder that a .pth file links to."""
    program = python or environment.interpreter()
    subprocess.run([program, "-m", "venv", "--without-pip", folder], check=True)
    one = virtualenvs.virtualenv(str(folder))
    site = Path(virtualenvs.site_packages(one))
    (site / "installed.py").write_text("VALUE = 'installed'\n")
    (folder / "linked").mkdir()
    (folder / "linked" / "linked.py").write_text("VALUE = 'linked'\n")
    (site / "linked.pth").write_text(f"{folder}/linked\n")
    return one


def wanted(one, root):
    return {
        "prefix": one.virtualenv, "other": True, "executable": f"{one.virtualenv}/bin/python", "version": one.version,
        "installed": "installed", "linked": "linked", "packaged": 1, "env": f"AWS_Lambda_python{one.version}",
        "first": root, "bridge": [],
    }  # fmt: skip


@pytest.mark.parametrize("python", pythons(), ids=lambda python: f"python{python.version}")
async def test_a_virtual_environment_is_one(runner, away, python):
    one = made(away / python.version, python.program)
    found = await runner.code(SEEN, interpreter=one, runtime=f"python{one.version}")
    assert found == wanted(one, found["first"])


async def test_its_packages_come_before_those_of_the_bridge_and_after_layers(runner, away, tmp_path):
    one = made(away / "order")
    site = Path(virtualenvs.site_packages(one))
    (site / "packaged.py").write_text("VALUE = 'its own'\n")
    code = "import packaged; answer = packaged.VALUE"
    assert await runner.code(code, interpreter=one) == "its own"

    opt = tmp_path / "opt"
    (opt / "python").mkdir(parents=True)
    (opt / "python" / "packaged.py").write_text("VALUE = 'of a layer'\n")
    for folder in (tmp_path, opt, opt / "python"):
        folder.chmod(0o755)
    assert await runner.code(code, interpreter=one, opt=str(opt)) == "of a layer"


async def test_other_functions_do_not_see_what_lies_in_a_closed_folder(runner, away):
    one = made(away / "seen")
    code = f"import os; answer = [os.path.exists(path) for path in ({str(away)!r} + '/seen/pyvenv.cfg', {str(away)!r} + '/new')]"
    (away / "new").touch()
    assert await runner.code(code, interpreter=one) == [True, not runner.pool._starter._own_users]
    if runner.pool._starter._own_users:
        assert await runner.code(code, name="other") == [False, False]


async def test_nothing_there_can_be_written(runner, away):
    one = made(away / "written")
    code = f"\ntry: open({one.virtualenv!r} + '/new', 'w')\nexcept OSError as error: answer = error.strerror"
    code = f"answer = 'written'{code}"
    refused = {"Read-only file system", "Permission denied"}
    is_free = runner.pool.sandbox_level() in {"basic", "seccomp"} and not runner.pool._starter._own_users
    assert await runner.code(code, interpreter=one) in (refused if not is_free else {"written"})


async def test_one_that_is_closed_itself_says_so(runner, away):
    one = made(away / "closed")
    (away / "closed").chmod(0o700)
    if not runner.pool._starter._own_users:  # they run under our own user id, which it is open to
        assert await runner.code("answer = 1", interpreter=one) == 1
        return
    with pytest.raises(RuntimeUnavailable, match=f"{away}/closed is closed to other users: chmod o\\+rx it"):
        await runner.run("app.run", {"code": "answer = 1"}, interpreter=one)


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["unmounted", "basic"])
async def test_without_namespaces_it_is_where_it_is(tmp_path, away, sandbox):
    one = made(away / sandbox)
    away.chmod(0o755)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "packaged.py").write_text("VALUE = 1\n")
    async with own_pool(tmp_path, workers_max=2, sandbox=sandbox, packages=tmp_path / "packages") as runner:
        found = await runner.code(SEEN, interpreter=one)
        assert found == wanted(one, found["first"])


async def test_layers_do_not_cover_one_that_is_in_opt(runner, tmp_path):
    version = runner.version("app.run", opt=str(tmp_path))
    assert environment.shows_opt(version)
    one = replace(pythons()[0], virtualenv="/opt/venv", needs=("/opt/venv",))
    assert not environment.shows_opt(replace(version, interpreter=one))
    assert environment.layer_paths(version, mounts.OPT)[-1] == "/opt/python"
    assert not os.path.exists("/opt/venv")
