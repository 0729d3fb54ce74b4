"""The container image without a container engine: its Dockerfile is linted, built and run in a bubblewrap.

Everything is read from the Dockerfile (stages, ENV, USER, ENTRYPOINT, CMD, HEALTHCHECK), so the two cannot drift.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.harness import ROOT, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

# What the base image would have: the machine's own programs, libraries, certificates and this Python.
BASE = ("/usr", "/etc/ssl", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/alternatives",
        "/etc/passwd", "/etc/group", "/etc/pip.conf", "/opt/wheels", sys.base_prefix)  # fmt: skip
PYTHON_PATH = f"{sys.base_prefix}/bin"


class Stage:
    """One FROM of the Dockerfile with its instructions."""

    def __init__(self) -> None:
        self.instructions: list[tuple[str, str]] = []

    def all(self, name: str) -> list[str]:
        return [value for instruction, value in self.instructions if instruction == name]

    def one(self, name: str) -> str:
        return self.all(name)[-1]

    def environment(self) -> dict[str, str]:
        pairs = [word.partition("=") for value in self.all("ENV") for word in shlex.split(value)]
        return {name: value for name, _, value in pairs}


def stages() -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[Stage] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            found.append(Stage())
        elif name:
            found[-1].instructions.append((name, " ".join(value.split())))
    return found


class Image:
    """The image's file system: a folder for each place that the Dockerfile writes to."""

    WRITTEN = ("/opt/bridge", "/opt/build", "/src", "/dist", "/etc/bridge", "/srv")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.build, self.final = stages()
        for place in self.WRITTEN:
            self.host(place).mkdir(parents=True)

    def host(self, path: str) -> Path:
        return self.folder / path.strip("/")

    def sandbox(self, *options: str, writable: bool, environment: dict[str, str]) -> list[str]:
        """Return the command line in front of a command that runs inside the image."""
        command = ["bwrap", "--die-with-parent", "--clearenv", "--tmpfs", "/"]
        for path in BASE:
            command += ["--ro-bind-try", path, path]
        for name in ("bin", "lib", "lib64", "sbin"):
            command += ["--symlink", f"usr/{name}", f"/{name}"]
        for place in self.WRITTEN:
            command += ["--bind" if writable else "--ro-bind", str(self.host(place)), place]
        for name, value in environment.items():
            command += ["--setenv", name, value]
        return [*command, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *options]

    def make(self) -> None:
        """Carry out COPY and RUN of both stages; only what needs apt is the machine's own."""
        pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        for stage in (self.build, self.final):
            environment = pip | stage.environment() | {"PATH": f"{PYTHON_PATH}:/usr/bin:/bin", "HOME": "/tmp"}
            workdir = "/"
            for instruction, value in stage.instructions:
                if instruction == "WORKDIR" and stage is self.build:
                    workdir = value
                elif instruction == "COPY" and not value.startswith("--from"):
                    self.copy(value.split(), workdir)
                elif instruction == "RUN" and "apt-get" not in value:
                    command = self.sandbox("--chdir", workdir, writable=True, environment=environment)
                    done = subprocess.run([*command, "sh", "-ec", value], capture_output=True, text=True, check=False)
                    assert done.returncode == 0, f"RUN {value}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"

    def copy(self, words: list[str], workdir: str) -> None:
        *sources, target = words
        for source in sources:
            origin, destination = ROOT / source, self.host(os.path.join(workdir, target))
            if target.endswith("/"):
                destination /= Path(source).name
            destination.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                shutil.copytree(origin, destination, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, destination)

    def start(self, state: Path, log: Path) -> "Container":
        """Start ENTRYPOINT CMD as USER, on a read-only root, with nothing but the state volume and /tmp.

        User namespaces are off inside, as a container engine's default seccomp profile has it.
        """
        final = self.final
        uid, _, gid = final.one("USER").partition(":")
        read, write = os.pipe()
        command = self.sandbox(
            "--bind", str(state), final.environment()["BRIDGE_STATE"], "--chdir", final.one("WORKDIR"), "--remount-ro", "/",
            "--unshare-all", "--unshare-user", "--disable-userns", "--uid", uid, "--gid", gid, "--cap-drop", "ALL", "--as-pid-1", "--info-fd", str(write),
            writable=False, environment=final.environment(),
        )  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *json.loads(final.one("ENTRYPOINT")), *json.loads(final.one("CMD"))],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(write,),
            )  # fmt: skip
        os.close(write)
        with os.fdopen(read) as info:
            child = json.loads(info.read() or "{}").get("child-pid")
        assert child, log.read_text()
        return Container(process, int(child), final, log)


class Container:
    """The running image."""

    def __init__(self, process: "subprocess.Popen[bytes]", child: int, stage: Stage, log: Path) -> None:
        self.process = process
        self.child = child
        self.log = log
        self._environment = stage.environment()

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command inside, as `docker exec` would."""
        enter = [
            "nsenter",
            "--target",
            str(self.child),
            "--user",
            "--net",
            "--mount",
            "--pid",
            "--preserve-credentials",
        ]
        environment = [f"{name}={value}" for name, value in self._environment.items()]
        return subprocess.run(
            [*enter, "env", "-i", *environment, *command], capture_output=True, text=True, timeout=60, check=False
        )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        made = Image(Path(folder) / "root")
        made.make()
        yield made


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Iterator[Container]:
    state = tmp_path / "state"
    state.mkdir()
    running = image.start(state, tmp_path / "log")
    yield running
    running.stop()


def health(container: Container, image: Image) -> int:
    _, _, command = image.final.one("HEALTHCHECK").partition("CMD ")
    return container.execute(*json.loads(command)).returncode


def fetch(container: Container, path: str, body: str | None = None) -> tuple[int, str]:
    program = (
        "import sys, urllib.request as r; a = r.urlopen(r.Request(sys.argv[1], data=sys.argv[2].encode() or None)); "
        "print(a.status, a.read().decode())"
    )
    answer = container.execute("python", "-c", program, f"http://127.0.0.1:8580{path}", body or "")
    assert answer.returncode == 0, answer.stderr + container.log.read_text()
    status, _, text = answer.stdout.strip().partition(" ")
    return int(status), text


def test_the_dockerfile_has_no_lint() -> None:
    linter = Path(sys.executable).parent / "hadolint"

    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_the_image_runs_without_root_and_says_what_it_promises() -> None:
    final = stages()[-1]

    assert final.one("USER") == "10001:10001"
    assert json.loads(final.one("ENTRYPOINT")) == ["tini", "--", "bridge"]
    assert json.loads(final.one("VOLUME")) == [final.environment()["BRIDGE_STATE"]]
    assert {
        "BRIDGE_PUBLIC": "0.0.0.0:8580",
        "BRIDGE_API": "0.0.0.0:8581",
        "BRIDGE_TLS": "upstream",
    }.items() <= final.environment().items()


def test_the_compose_file_takes_every_privilege_away() -> None:
    service = yaml.safe_load((ROOT / "config" / "compose.yaml").read_text())["services"]["bridge"]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert any(volume.endswith(":" + stages()[-1].environment()["BRIDGE_STATE"]) for volume in service["volumes"])


def test_the_image_serves_on_a_read_only_root_and_ends_with_0(container: Container, image: Image) -> None:
    wait_for(
        lambda: health(container, image) == 0 or container.process.poll() is not None,
        description="the image is healthy",
    )

    status, body = fetch(container, "/hooks/hello", '{"name":"Ada"}')
    assert (202, 36) == (status, len(json.loads(body)["id"]))
    status, body = fetch(container, "/hello?name=Ada")
    assert (200, True) == (status, "Ada" in body)
    listed = container.execute("bridge", "events", "list", "--json")
    assert (0, True) == (listed.returncode, '"hello"' in listed.stdout), listed.stdout + listed.stderr

    for place in ("/", "/etc/bridge", "/srv/functions", "/opt/bridge"):
        assert container.execute("touch", f"{place}/x").returncode != 0
    assert container.execute("id", "-u").stdout.strip() == "10001"

    os.kill(container.child, signal.SIGTERM)
    assert container.process.wait(60) == 0, container.log.read_text()


def test_an_unhealthy_image_is_reported(container: Container, image: Image) -> None:
    wait_for(
        lambda: health(container, image) == 0 or container.process.poll() is not None,
        description="the image is healthy",
    )
    os.kill(container.child, signal.SIGTERM)
    container.process.wait(60)

    assert health(container, image) != 0
