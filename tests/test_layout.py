"""The layout is kept by a test: layers, the map in docs/ARCHITECTURE.md, sizes, and what must not be written."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT

PACKAGE = ROOT / "bridge"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
LINES_MAX = 500
PATIENCE_S = 30

TOP_LEVEL = {
    ".ci", ".dockerignore", ".github", ".gitignore", "bridge", "CHANGELOG.md", "config", "CONTRIBUTING.md", "Dockerfile",
    "docs", "LICENSE", "Makefile", "pyproject.toml", "README.md", "requirements", "tests",
}  # fmt: skip

FORBIDDEN_CALLS = {
    "asyncio.wait_for": "asyncio.timeout: up to Python 3.11 wait_for can swallow a cancellation",
    "yaml.load": "TOML is what we read",
    "eval": "no text becomes code",
    "exec": "no text becomes code",
    "os.system": "subprocess with a list",
    "pickle.load": "unpickling runs code",
    "pickle.loads": "unpickling runs code",
}
FORBIDDEN_IMPORTS = {"pickle", "shelve", "marshal", "yaml"}
# The first runs the functions users give it, by name; the second writes source in which only literals are theirs.
COMPILERS = {"bridge/runtime/bootstrap.py", "bridge/pipeline/generated.py"}


def tracked(*paths: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def documented() -> dict[str, set[str]]:
    """Return package -> modules, as the map in docs/ARCHITECTURE.md has them."""
    rows = {}
    for line in (ROOT / "docs" / "ARCHITECTURE.md").read_text().splitlines():
        if match := re.match(r"\| L\d \| `bridge/([\w/]*)` \| ([^|]*) \|", line):
            rows[match[1].rstrip("/")] = set(re.findall(r"`(\w+)`", match[2]))
    return rows


def found() -> dict[str, set[str]]:
    rows: dict[str, set[str]] = {}
    for path in MODULES:
        package = str(path.parent.relative_to(PACKAGE)).replace(".", "", 1)
        modules = rows.setdefault(package, set())
        if path.name != "__init__.py":
            modules.add(path.stem)
    return {package: modules for package, modules in rows.items() if modules}


@pytest.mark.slow
def test_arrows_point_down() -> None:
    linter = Path(sys.executable).parent / "lint-imports"

    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_the_map_in_the_architecture_is_the_tree() -> None:
    assert documented() == found()


def test_the_top_level_holds_nothing_else() -> None:
    assert {path.split("/")[0] for path in tracked()} <= TOP_LEVEL


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_has_a_duty_and_a_bounded_size(path: Path) -> None:
    text = path.read_text()

    assert len(text.splitlines()) <= LINES_MAX
    if path.name != "__init__.py":
        duty = (ast.get_docstring(ast.parse(text)) or "").splitlines()
        assert duty, "a module opens with one sentence that says its duty"
        assert duty[0].endswith((".", ":", "?"))


def calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def imports(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_calls_nothing_that_is_banned(path: Path) -> None:
    tree = ast.parse(path.read_text())

    banned = FORBIDDEN_CALLS.keys() if name(path) not in COMPILERS else FORBIDDEN_CALLS.keys() - {"exec"}
    assert not calls(tree) & banned
    assert not imports(tree) & FORBIDDEN_IMPORTS


def test_nothing_names_a_machine_or_an_unfinished_thought() -> None:
    pattern = re.compile(
        r"\bTO" + r"DO\b|\bFIX" + r"ME\b|/wo" + r"rk/(main|shared)|pyth" + r"onhosted|NotImplemented" + r"Error"
    )
    guilty = []
    for path in tracked("bridge", "tests", "docs", "config", "requirements", "Makefile", "README.md", "Dockerfile"):
        file = ROOT / path
        if file.is_file() and (match := pattern.search(file.read_text(errors="replace"))):
            guilty.append(f"{path}: {match[0]}")
    assert guilty == []


def test_no_merge_was_left_half_done() -> None:
    half = re.compile(r"^(?:<{7} |>{7} )", re.MULTILINE)

    assert [path for path in tracked() if half.search((ROOT / path).read_text("utf-8", "replace"))] == []


def test_every_test_runs() -> None:
    """The one reason to be left out is to need root, which CI is; or Kafka , mosquitto or an emulator of AWS, which CI must have."""
    skip, reasons = "sk" + "ip", "(needs root|a table)"
    pattern = re.compile(rf"pytest\.mark\.({skip}|xf" + rf"ail)|pytest\.{skip}\((?!\"[^\"]*{reasons})|importor{skip}")
    tests = set(tracked("tests")) - {f"tests/brokers/{kind}fixtures.py" for kind in ("", "aws_", "mqtt_")}
    assert [path for path in sorted(tests) if pattern.search((ROOT / path).read_text(errors="replace"))] == []


def test_no_test_depends_on_the_machines_pace() -> None:
    """Speed lives in benchmarks: a test waits for what happens, and gives up only when it will not happen any more."""
    guilty = []
    for path in tracked("tests"):
        if not path.endswith(".py") or path.startswith(("tests/bench/", "tests/unit/runtime/functions/")):
            continue
        text = (ROOT / path).read_text()
        ours = re.search(r"from tests\.harness import [^\n]*\bwait_for\b", text)  # others have their own of that name
        waits = {"wait_until", "wait_for"} if ours else {"wait_until"}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = node.args[1:2] if called in waits else []
                given += node.args[:1] if called in {"asyncio.timeout", "pytest.mark.timeout"} else []
                given += [each.value for each in node.keywords if each.arg == "timeout_s" and called in waits]
                short = [ast.unparse(each) for each in given if isinstance(each, ast.Constant) and is_short(each.value)]
                guilty += [f"{path}:{node.lineno}: {called} gives up after {seconds} s" for seconds in short]
    assert guilty == []


def is_short(seconds: object) -> bool:
    """Tell whether a busy machine may take longer. Less than a second is meant: a test of a timeout itself."""
    return isinstance(seconds, int | float) and 1 <= seconds < PATIENCE_S
