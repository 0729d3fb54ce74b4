"""The commands of the README and of the guides, run as they are written, in a copy of the project; what they print has the shape it shows.

Files that it shows under their names are written where it is at that point.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from bridge.config.load import load
from tests.harness import ROOT, request, wait_for

GUIDES = (
    "README.md", "docs/local-testing.md", "docs/kafka.md", "docs/kinesis-and-dynamodb.md", "docs/sqs.md", "docs/webhooks.md",
    "docs/schedules.md", "docs/mqtt.md", "docs/destinations.md", "docs/functions-on-aws.md", "docs/lambda-api.md",
)  # fmt: skip
"""In the order in which a reader may go through them: commands follow on what came before, each page in the project's folder."""
TEXT = "\n".join((ROOT / page).read_text() for page in GUIDES)
BLOCK = re.compile(r"(?:^`([\w./]+)`[^\n]*:\n\n)?^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
"""Name of a file where one is shown, language, text."""
VARYING = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}|\d{2}:\d{2}:\d{2}|\d+(\.\d+)?(?= ms| MB|s\b)|\s+"
)


def steps() -> list[tuple[str, str, str]]:
    """Return (command, shown output, "") and ("", text, name of a file) of all blocks, in order."""
    found = []
    for page in GUIDES:
        found.append(("cd ~", "", ""))  # where the test has the project's folder
        for name, language, block in BLOCK.findall((ROOT / page).read_text()):
            if name:
                found.append(("", block, name))
            elif language == "console":
                for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                    command, _, shown = part.partition("\n")
                    found.append((command, shown, ""))
    return found


def shape(text: str) -> set[str]:
    """Return the lines with ids, times and figures left out, in any order: lists depend on the clock."""
    return {VARYING.sub("", line) for line in text.splitlines() if line.strip()}


@pytest.mark.integration
@pytest.mark.slow
def test_the_first_five_minutes_are_as_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    environment = dict(os.environ) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for name in ("BRIDGE_STATE", "BRIDGE_URL", "BRIDGE_TOKEN", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    environment["HOME"] = str(tmp_path)
    if not metadata.entry_points(group="pytest11", name="bridge"):
        environment["PYTEST_ADDOPTS"] = "-p bridge.plugin"  # installed from before it had the plugin
    log = (tmp_path / "log").open("wb")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "bridge", "run", "--watch", "config/quickstart.toml"],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: daemon.poll() is not None or _is_ready(), description="the quickstart daemon is ready")
        assert daemon.poll() is None, (tmp_path / "log").read_text()
        where = tmp_path
        for command, shown, file in steps():
            if file:
                (where / file).write_text(shown)
                continue
            if command.startswith(". "):
                continue  # the environment these tests run in
            done = subprocess.run(
                ["bash", "-c", f"{{ {command}\n}} && pwd > ~/where"], cwd=where, env=environment, capture_output=True,
                text=True, timeout=200, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            missing = shape(shown) - shape(done.stdout)
            assert not missing, f"$ {command}\nsaid\n{done.stdout}{done.stderr}\nand lacks\n{missing}"
            where = Path((tmp_path / "where").read_text().strip())
    finally:
        daemon.terminate()
        assert daemon.wait(60) == 0
        log.close()


def _is_ready() -> bool:
    try:
        return request("GET", "http://127.0.0.1:8581/ready", timeout_s=10).status == 200
    except OSError:
        return False


def test_every_configuration_it_shows_holds_no_mistake(tmp_path: Path) -> None:
    shown = [text for _, language, text in BLOCK.findall(TEXT) if language == "toml"]
    code = tmp_path / "clicks"
    code.mkdir()
    (code / "app.py").write_text("def handler(event, context): ...\n")
    (tmp_path / "layers" / "common").mkdir(parents=True)

    for number, text in enumerate(shown):
        file = tmp_path / f"{number}.toml"
        file.write_text(re.sub(r"/srv/functions/\w+", str(code), text))
        loaded = load(file, dict.fromkeys(re.findall(r'env = "(\w+)"', text), "secret"))
        assert loaded.settings.functions.keys() == tomllib.loads(text).get("functions", {}).keys()
    assert len(shown) == TEXT.count("```toml") > 0


def test_every_relative_link_leads_somewhere() -> None:
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"
