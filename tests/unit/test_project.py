"""The project's own files agree with each other: dependencies, locks, licence, make targets."""

import json
import re
import subprocess
import tomllib

from tests.harness import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def locked(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ \\]+)", text, re.MULTILINE))


def required(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0].lower() for line in lines}


def test_every_dependency_is_locked_and_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()

    names = required(PYPROJECT["project"]["dependencies"])

    assert names <= locked("run.txt").keys()
    assert [name for name in names if f"`{name}`" not in reasons] == []


def test_a_lock_pins_by_hash_and_records_no_address() -> None:
    for lock in LOCKS:
        text = lock.read_text()
        assert "://" not in text
        entries = re.findall(r"^[A-Za-z0-9._-]+==.*?(?=^[A-Za-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert entries
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_what_other_languages_need_is_pinned_without_an_address() -> None:
    node = json.loads((ROOT / "requirements" / "node" / "package-lock.json").read_text())
    packages = [each for path, each in node["packages"].items() if path]
    sums = (ROOT / "tests" / "languages" / "go" / "go.sum").read_text()
    jars = (ROOT / "requirements" / "java.sha256").read_text()

    assert all(each["integrity"].startswith("sha512-") and "resolved" not in each for each in packages)
    assert "://" not in json.dumps(packages) + sums + jars
    assert all(re.fullmatch(r"\S+ v\S+ h1:\S{44}", line) for line in sums.splitlines())
    assert all(re.match(r"[0-9a-f]{64} ", line) for line in jars.splitlines())


def test_the_locks_agree_on_versions() -> None:
    everything = locked("test.txt")

    for lock in ("run.txt", "build.txt", "functions.txt"):
        for name, version in locked(lock).items():
            assert everything.get(name, version) == version


def test_what_is_asked_for_is_locked() -> None:
    for name in ("build", "functions", "fuzz", "layer", "sbom", "services", "test"):
        lines = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
        asked = required([line for line in lines if line and not line.startswith("#")])
        assert asked <= locked(f"{name}.txt").keys()


def test_the_licence_is_the_one_that_is_declared() -> None:
    text = (ROOT / "LICENSE").read_text()

    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_make_has_the_targets_that_are_documented() -> None:
    makefile = (ROOT / "Makefile").read_text()

    for target in ("run", "test", "check", "fuzz", "bench", "sbom", "crash", "soak", "lock", "image"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_runs_make_test_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"

    commands = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]

    assert commands == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', "exec make test </dev/null"]
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_shell_scripts_parse() -> None:
    for script in (ROOT / "requirements").glob("*.sh"):
        assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
        assert script.stat().st_mode & 0o111


def test_kafka_is_pinned_by_hash() -> None:
    jars = (ROOT / "requirements" / "kafka.sha256").read_text().splitlines()
    version = re.search(
        r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)<", (ROOT / "requirements" / "kafka.xml").read_text()
    )

    assert version is not None
    assert [jar for jar in jars if not re.fullmatch(r"[0-9a-f]{64}  [\w.-]+\.jar", jar)] == []
    assert f"kafka_2.13-{version[1]}.jar" in {jar.split()[1] for jar in jars}


def test_kinesis_local_is_pinned_by_hash() -> None:
    line = (ROOT / "requirements" / "kinesis.sha512").read_text()

    assert re.fullmatch(r"[0-9a-f]{128}  kinesis-local-[\d.]+\.tgz\n", line)


def test_each_test_that_the_security_page_names_is_there():
    text = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text))

    assert len(named) > 40
    for path, function in named:
        source = (ROOT / path).read_text()
        assert not function or re.search(rf"def {function}\(", source), f"{path} has no {function}"


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(
            r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        )
    }

    assert [str(link) for link in links if not link.exists()] == []
    assert [page.name for page in pages if page.resolve() not in links and page.name != "README.md"] == []
