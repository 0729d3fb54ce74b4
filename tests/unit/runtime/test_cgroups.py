"""Control groups of workers: where they may be made, what they bound, that nothing of them stays."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from bridge.runtime import cgroup_home, watch
from bridge.runtime.cgroups import EXTRA_MB, Cgroups
from bridge.runtime.logs import FunctionLogs
from bridge.runtime.pool import WorkerPool
from bridge.runtime.sandbox import PROCESSES_MAX
from bridge.util.clocks import SystemClock
from tests.harness import ROOT, wait_until
from tests.unit.runtime.bootstraps import talker
from tests.unit.runtime.conftest import Runner, own_pool

# --- version 2, in a tree that behaves as the kernel's --------------------------------------------------------------


class Tree:
    """Folders that get the files of a control group, one of which is busy for as long as it has processes."""

    FILES = ("cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.swap.max", "memory.oom.group",
             "memory.events", "pids.max", "cgroup.kill")  # fmt: skip

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = folder / "sys"
        self.proc = folder / "proc"
        self.run = folder / "run"
        self.ended: set[int] = set()
        self.other_mounts: list[str] = []
        self.run.mkdir()
        self.proc.mkdir()
        self._mkdir, self._write = Path.mkdir, Path.write_text
        self.group("", controllers="cpu memory pids", below="cpu memory pids")
        monkeypatch.setattr(Path, "mkdir", lambda path, **_: self.made(path))
        monkeypatch.setattr(Path, "write_text", lambda path, text, **_: self.written(path, text))
        monkeypatch.setattr(Path, "rmdir", lambda path: path.rename(folder / f"removed-{path.name}-{id(path)}"))

    def group(self, path: str, *, controllers: str = "memory pids", below: str = "", processes: str = "") -> Path:
        folder = self.top / path
        self._mkdir(folder, parents=True, exist_ok=True)
        for name in self.FILES:
            (folder / name).touch()
        for name, text in (
            ("cgroup.controllers", controllers), ("cgroup.subtree_control", below), ("cgroup.procs", processes),
        ):  # fmt: skip
            self._write(folder / name, text)
        return folder

    def made(self, path: Path) -> None:
        if path.is_dir() or self.top not in path.parents:
            self._mkdir(path, exist_ok=True)
        else:
            above = (path.parent / "cgroup.subtree_control").read_text().replace("+", "")
            self.group(str(path.relative_to(self.top)), controllers=above)

    def written(self, path: Path, text: str) -> None:
        if path.name == "cgroup.subtree_control" and (path.parent / "cgroup.procs").read_text().split():
            raise OSError(16, "Device or resource busy")
        if path.name == "cgroup.procs":
            for other in self.top.rglob("cgroup.procs"):
                self._write(other, " ".join(pid for pid in other.read_text().split() if pid != text))
            if int(text) in self.ended:
                raise ProcessLookupError(3, "No such process")
            text = f"{path.read_text()} {text}"
        self._write(path, text)

    def find(self, own: str) -> cgroup_home.Home:
        lines = [f"{29 - n} 24 8:{n} / {path} rw - ext4 /dev/sda rw\n" for n, path in enumerate(self.other_mounts)]
        lines.append(f"30 24 0:26 / {self.top} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n")
        (self.proc / "mountinfo").write_bytes(os.fsencode("".join(lines)))
        (self.proc / "cgroup").write_bytes(os.fsencode(f"0::{own}\n"))
        return cgroup_home.find(self.run, proc=self.proc)


@contextlib.contextmanager
def opened(*folders: Path) -> Iterator[Cgroups]:
    """Yield the groups below these folders."""
    descriptors = [os.open(folder, os.O_RDONLY) for folder in folders]
    try:
        yield Cgroups(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A child of ours."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that is neither a child of ours nor, as our parent may be, the first of a container."""
    with subprocess.Popen(["sh", "-c", "sleep 1000 <&- >&- & echo $!"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
    yield pid
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    return Tree(tmp_path, monkeypatch)


def test_a_group_that_is_the_daemons_alone_is_divided_and_it_moves_to_a_part(tree):
    own = tree.group("bridge.service", processes=str(os.getpid()))

    (home,) = tree.find("/bridge.service").folders

    assert home.parent == own
    assert home.name.startswith("bridge-")
    assert (own / "cgroup.procs").read_text().split() == []
    assert (home / "daemon" / "cgroup.procs").read_text().split() == [str(os.getpid())]
    for folder in (own, home):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_unit_whose_name_begins_as_ours_do_is_no_home(tree):
    own = tree.group("bridge-prod.service", processes=str(os.getpid()))

    (home,) = tree.find("/bridge-prod.service").folders

    assert home.parent == own


@pytest.mark.parametrize("name", [b"caf\xe9", "a\u2028b".encode(), "a\u00a0b".encode(), b"a\x0cb", b"a\rb"])
def test_a_name_may_be_any_bytes_of_another_mount_and_of_our_own_group(tree, name):
    tree.other_mounts.append("/mnt/" + os.fsdecode(name))
    own = tree.group(os.fsdecode(name), processes=str(os.getpid()))
    (home,) = tree.find("/" + own.name).folders
    assert home.parent == own

    tree.group("two.scope", processes=str(os.getpid()))
    tree.find("/two.scope")

    assert not home.exists(), "remembered, so cleared"


def test_why_there_is_none_can_be_shown(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError("2 other processes are in it (" + os.fsdecode(b"/sys/fs/caf\xe9") + ")")

    monkeypatch.setattr(cgroup_home, "find", refuse)
    starter = WorkerPool(run_folder=tmp_path, logs=FunctionLogs(tmp_path), clock=SystemClock())._starter

    starter._find_home()

    assert starter._no_home.encode().endswith(rb"caf\udce9)")


def test_a_child_that_has_ended_meanwhile_is_not_moved(tree, sleeper):
    own = tree.group("bridge.service", processes=f"{os.getpid()} {sleeper}")
    tree.ended.add(sleeper)

    (home,) = tree.find("/bridge.service").folders

    assert home.parent == own
    assert (home / "daemon" / "cgroup.procs").read_text().split() == [str(os.getpid())]


def test_a_second_look_finds_the_same_and_not_one_below_it(tree):
    tree.group("bridge.service", processes=str(os.getpid()))
    (home,) = tree.find("/bridge.service").folders

    assert tree.find(f"/bridge.service/{home.name}/daemon").folders == (home,)


def test_where_others_are_the_groups_above_are_tried(tree, stranger):
    tree.group("user.slice", below="memory pids")
    own = tree.group("user.slice/session.scope", processes=f"{os.getpid()} {stranger}")

    (home,) = tree.find("/user.slice/session.scope").folders

    assert home.parent == own.parent
    assert (own / "cgroup.procs").read_text().split() == [str(os.getpid()), str(stranger)]


def test_where_others_are_everywhere_there_is_none(tree, stranger):
    tree.group("", processes=f"{os.getpid()} {stranger}")

    with pytest.raises(OSError, match=r"1 other processes are in it \("):
        tree.find("/")
    assert not [entry for entry in tree.top.iterdir() if entry.is_dir()]


def test_where_the_memory_is_not_counted_there_is_none(tree):
    tree.group("", controllers="cpu pids")

    with pytest.raises(OSError, match=r"no controller memory \("):
        tree.find("/")


def test_a_machine_without_any_says_so(tree):
    tree._write(tree.proc / "mountinfo", "")
    tree._write(tree.proc / "cgroup", "0::/\n")

    with pytest.raises(OSError, match="no control groups are mounted"):
        cgroup_home.find(tree.run, proc=tree.proc)


def test_what_a_killed_daemon_left_is_ended_wherever_it_was(tree):
    tree.group("one.scope", processes=str(os.getpid()))
    (home,) = tree.find("/one.scope").folders
    left = tree.group(str((home / "7").relative_to(tree.top)))
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        tree._write(left / "cgroup.procs", str(sleeper.pid))
        tree.group("two.scope", processes=str(os.getpid()))

        tree.find("/two.scope")

        assert sleeper.wait(60) == -signal.SIGKILL
    assert not left.exists()


LIMITS = {
    "cgroup.procs": "4321", "memory.max": str(3 << 20), "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "9",
}  # fmt: skip


def test_the_limits_of_a_group_of_version_2(tree):
    group = tree.group("7")
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    with opened(tree.top) as groups:
        groups.limit("7", memory_mb=3, tasks=9)
        groups.enter("7", 4321)

        assert {name: (group / name).read_text().strip() for name in LIMITS} == LIMITS
        assert not groups.was_short_of_memory("7")
        tree._write(group / "memory.events", "low 0\noom 1\noom_kill 2\n")
        assert groups.was_short_of_memory("7")
        assert not groups.kill("7")
    assert ((group / "pids.max").read_text(), (group / "cgroup.kill").read_text()) == ("0", "1")


@pytest.mark.asyncio
@pytest.mark.parametrize("mount", ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"])
async def test_the_kernel_ends_a_group_of_version_2_as_a_whole(mount):
    """Its controllers may be elsewhere: that needs none of them."""
    top = Path(mount)
    if not (top / "cgroup.procs").exists() or not os.access(top, os.W_OK):
        return
    name = f"bridge-test-{os.getpid()}"
    with opened(top) as groups:
        try:
            groups.make(name)
        except OSError:
            return  # a container: read-only
        command = ["sh", "-c", "read _; sleep 1000 & sleep 1000 & wait"]  # none before the group is entered
        with subprocess.Popen(command, stdin=subprocess.PIPE) as shell:
            groups.enter(name, shell.pid)
            shell.stdin.close()
            await wait_until(lambda: len(groups.members(name)) == 3, description="they are in it")
            groups.kill(name)
            assert shell.wait(60) == -signal.SIGKILL
        await wait_until(lambda: groups.kill(name) and groups.remove(name), description="its children have ended")


# --- what there is here ---------------------------------------------------------------------------------------------
HERE = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_grouped(tmp_path_factory) -> AsyncIterator[Runner]:
    async with own_pool(tmp_path_factory.mktemp("groups"), workers_max=4) as runner:
        yield runner


@pytest_asyncio.fixture(loop_scope="module")
async def grouped(shared_grouped) -> AsyncIterator[Runner]:
    if shared_grouped.pool.sandbox_level() != "cgroup":
        pytest.skip("control groups of its own (needs root, and a machine that has them: see `bridge doctor`)")
    yield shared_grouped
    await shared_grouped.clear()


def groups_of(runner):
    """Return the folders of all groups; also those of the workers that the zygote has ready."""
    return [
        Path(entry) for folder in runner.pool._starter._home.folders for entry in os.scandir(folder) if entry.is_dir()
    ]


def processes(group):
    return map(int, (group / "cgroup.procs").read_text().split())


def held_by(group, *names):
    return next((int((group / name).read_text()) for name in names if (group / name).exists()), None)


@HERE
async def test_every_worker_has_a_group_with_the_functions_limits(grouped):
    await grouped.value("app.echo", 1, memory_mb=256, ephemeral_storage_mb=600)
    (worker,) = grouped.pool._workers.values()
    inside = {process.pid for process in psutil.Process(worker.pid).children(recursive=True)}

    groups = [group for group in groups_of(grouped) if inside & set(processes(group))]

    sizes = [held for group in groups if (held := held_by(group, "memory.max", "memory.limit_in_bytes"))]
    tasks = [held for group in groups if (held := held_by(group, "pids.max"))]
    assert (sizes, tasks) == ([(256 + 600 + EXTRA_MB) << 20], [PROCESSES_MAX])


@HERE
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["python", "command"])
async def test_memory_that_nobody_looks_at_is_bounded_by_the_group(grouped, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(watch.memory, "measure", lambda *_, **__: ((), 0))
    code = {"code": "held = b'x' * (600 << 20); answer = len(held)"}
    command = {"code": talker(tmp_path / "code"), "runtime": "provided.al2023"} if kind == "command" else {}

    result = await grouped.run("app.run", code, ephemeral_storage_mb=16, **command)

    assert result.error_type == "Runtime.ExitError"
    assert result.error_message.endswith("Error: Runtime exited with error: signal: killed")
    assert result.memory_used_mb == 128


@HERE
async def test_the_group_of_a_worker_that_has_ended_is_removed(grouped):
    await grouped.value("app.echo", 1)
    await grouped.clear()

    ready = len(grouped.pool._starter._home.folders)
    await wait_until(lambda: len(groups_of(grouped)) <= ready, description="only that of the next worker is left")


@HERE
async def test_what_is_left_of_a_killed_daemon_is_ended_by_the_next_one(grouped, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    home = cgroup_home.find(folder)
    with opened(*home.folders) as groups, subprocess.Popen(["sleep", "1000"]) as sleeper:
        groups.make("7")
        groups.enter("7", sleeper.pid)

        assert cgroup_home.find(folder) == home

        assert sleeper.wait(60) == -signal.SIGKILL
    home.remove()
    assert not any(one.exists() for one in home.folders)


@pytest.mark.asyncio
async def test_nothing_is_left_when_the_pool_closes(tmp_path):
    async with own_pool(tmp_path, workers_max=2) as runner:
        home = runner.pool._starter._home
        if home is None:
            pytest.skip("control groups of its own (needs root, and a machine that has them: see `bridge doctor`)")
        await runner.value("app.echo", 1)
    assert not any(one.exists() for one in home.folders)


DAEMON = """
import asyncio, sys
from pathlib import Path
from tests.unit.runtime.conftest import own_pool

async def main():
    async with own_pool(Path(sys.argv[1]), workers_max=2) as runner:
        await runner.value("app.echo", 1)
        home = runner.pool._starter._home
        print(*(() if home is None else home.folders), flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.asyncio
@pytest.mark.slow
async def test_nothing_is_left_of_a_daemon_that_was_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as daemon:
        homes = daemon.stdout.readline().split()
        daemon.kill()

    inside = [Path(home) / "1" for home in homes]
    await wait_until(lambda: not any(one.exists() for one in inside), description="the groups of its workers are gone")
    if len(homes) == 2:  # in version 2 its zygote is in one of its own
        await wait_until(lambda: not any(Path(home).exists() for home in homes), description="its own are")


@pytest.mark.asyncio
async def test_a_worker_that_cannot_be_put_into_its_group_costs_the_level_not_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroup_home.Home, "descriptors", lambda _: [os.open("/sys/fs", os.O_RDONLY)])
    monkeypatch.setattr(cgroup_home, "find", lambda _: cgroup_home.Home((tmp_path / "none",)))
    async with own_pool(tmp_path, workers_max=2) as runner:
        assert runner.pool.sandbox_level() != "cgroup"
        facts = {mechanism: in_force for mechanism, in_force, _ in runner.pool.sandbox_facts()}
        assert not facts["control group"]
        assert await runner.value("app.echo", 1) == 1
