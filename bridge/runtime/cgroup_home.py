"""Where the daemon may have control groups for its workers: found, made, cleared of what a former daemon left there."""

import contextlib
import errno
import hashlib
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.runtime.cgroups import CONTROLLERS
from bridge.runtime.spawner import descendants

CLEAR_MAX_S: Final = 5.0
_PREFIX: Final = "bridge-"
_NAME: Final = re.compile(_PREFIX + "[0-9a-f]{16}")
"""Of a home: longer than the prefix, which is that of units too (`bridge-prod.service`)."""
_DAEMON: Final = "daemon"
"""The group that the daemon itself moves to, where only groups without processes may have limited ones below."""
_FILE: Final = "cgroups"
_PROC: Final = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Home:
    """Our own group in each hierarchy, in the order of CONTROLLERS; one folder where version 2 has both."""

    folders: tuple[Path, ...]

    def descriptors(self) -> list[int]:
        """Open the folders; whoever asks closes them."""
        return [os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for folder in self.folders]

    def clear(self) -> None:
        """End all that is in groups of workers here and remove these; waits for it, so not for the loop's thread."""
        for folder in self.folders:
            _clear(folder)

    def remove(self) -> None:
        """Remove the groups; the daemon's own stays while it is in it. Twice is fine."""
        self.clear()
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def find(run_folder: Path, *, proc: Path = _PROC) -> Home:
    """Make a home for the groups of the daemon whose files are in `run_folder`, and clear it of leftovers.

    Args:
        run_folder: names the home, and remembers where it was.
        proc: /proc/self.

    Raises:
        OSError: no group with both controllers may be made here; the text says why.
    """
    name = _PREFIX + hashlib.sha256(os.fsencode(os.path.realpath(run_folder))).hexdigest()[:16]
    memory = run_folder / _FILE
    _clear_former(memory, name)
    mounts, own = _mounts(proc), _own_groups(proc)
    found = _version_1(mounts, own, name) if set(CONTROLLERS) <= own.keys() else _version_2(mounts, own, name)
    home = Home(found)
    with contextlib.suppress(OSError):  # a full disk: what is left will be found if the daemon starts in the same place
        memory.write_bytes(b"".join(os.fsencode(folder) + b"\n" for folder in found))
    home.clear()
    return home


def _clear_former(memory: Path, name: str) -> None:
    with contextlib.suppress(OSError):
        for line in _lines(memory):
            folder = Path(line)
            if folder.name == name and folder.is_dir():
                Home((folder,)).remove()


def _mounts(proc: Path) -> dict[str, tuple[str, Path]]:
    """Return root and mount point by controller; that of version 2 under an empty name."""
    found: dict[str, tuple[str, Path]] = {}
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(" "), (*after.split(" "), "", "")[:3]
        names = options.split(",") if kind == "cgroup" else [""] if kind == "cgroup2" else []
        for one in names:
            found.setdefault(one, (fields[3], Path(fields[4])))
    return found


def _own_groups(proc: Path) -> dict[str, str]:
    """Return the group that this process is in by controller; that of version 2 under an empty name."""
    lines = [line.split(":", 2) for line in _lines(proc / "cgroup")]
    return {one: path for _, names, path in lines for one in names.split(",")}


def _lines(file: Path) -> list[str]:
    """Return the lines of a file with paths in it: any bytes, also such as `str.splitlines` would divide a line at."""
    return [line for line in os.fsdecode(file.read_bytes()).split("\n") if line]


def _folder(mount: tuple[str, Path] | None, own: str) -> tuple[Path, Path]:
    """Return the folder of the group `own`, and the topmost one that is to be seen."""
    if mount is None:
        raise OSError("no control groups are mounted")
    root, top = mount
    below = own.removeprefix(root.rstrip("/")).strip("/") if own.startswith(root) else ""
    if ".." in below.split("/"):
        below = ""
    return top / below, top


# --- version 1 ------------------------------------------------------------------------------------------------------
def _version_1(mounts: dict[str, tuple[str, Path]], own: dict[str, str], name: str) -> tuple[Path, ...]:
    made: list[Path] = []
    try:
        for controller in CONTROLLERS:
            folder = _folder(mounts.get(controller), own[controller])[0] / name
            folder.mkdir(mode=0o755, exist_ok=True)
            made.append(folder)
    except OSError:
        for folder in made:
            folder.rmdir()
        raise
    return tuple(made)


# --- version 2 ------------------------------------------------------------------------------------------------------
def _version_2(mounts: dict[str, tuple[str, Path]], own: dict[str, str], name: str) -> tuple[Path, ...]:
    """Try our own group first, then those that it is in: the nearest that may have limited groups below."""
    folder, top = _folder(mounts.get(""), own.get("", "/"))
    why = ""
    for candidate in _upwards(folder, top):
        try:
            return (_make(candidate, name),)
        except OSError as error:
            why = why or f"{error.strerror or error} ({candidate})"
    raise OSError(why or "no control group is to be seen")


def _upwards(folder: Path, top: Path) -> Iterator[Path]:
    chain = [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]
    ours = [index for index, one in enumerate(chain) if _NAME.fullmatch(one.name)]
    yield from chain[ours[-1] + 1 if ours else 0 :]  # not below a home that this process has moved into


def _make(parent: Path, name: str) -> Path:
    missing = set(CONTROLLERS) - set(_words(parent / "cgroup.controllers"))
    if missing:
        raise OSError(f"no controller {' and '.join(sorted(missing))}")
    home = parent / name
    home.mkdir(mode=0o755, exist_ok=True)
    try:
        try:
            _enable(parent)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _make_way(parent, home)
            _enable(parent)
        _enable(home)
    except OSError:
        with contextlib.suppress(OSError):
            home.rmdir()
        raise
    return home


def _enable(folder: Path) -> None:
    if not set(CONTROLLERS) <= set(_words(folder / "cgroup.subtree_control")):
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in CONTROLLERS), encoding="ascii")


def _make_way(parent: Path, home: Path) -> None:
    """Move this process with its children out of `parent`, if nobody else is in there."""
    inside = {int(pid) for pid in _words(parent / "cgroup.procs")}
    others = inside - {os.getpid(), *descendants(os.getpid()), 1}  # 1: the init of a container
    if others:
        raise OSError(f"{len(others)} other processes are in it")
    leaf = home / _DAEMON
    leaf.mkdir(mode=0o755, exist_ok=True)
    for pid in sorted(inside):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            (leaf / "cgroup.procs").write_text(str(pid), encoding="ascii")


def _words(file: Path) -> list[str]:
    return file.read_text(encoding="ascii").split()


# --- leftovers ------------------------------------------------------------------------------------------------------
def _clear(folder: Path) -> None:
    try:
        groups = [Path(entry) for entry in os.scandir(folder) if entry.is_dir() and entry.name != _DAEMON]
    except OSError:
        return
    deadline = time.monotonic() + CLEAR_MAX_S
    for group in groups:
        while not _removed(group) and time.monotonic() < deadline:
            time.sleep(0.005)


def _removed(group: Path) -> bool:
    """Kill what is in a group and remove it; False: not yet."""
    with contextlib.suppress(OSError):
        if (group / "pids.max").exists():
            (group / "pids.max").write_text("0", encoding="ascii")  # nothing in it forks from now on
        for pid in _words(group / "cgroup.procs"):
            if int(pid):
                os.kill(int(pid), signal.SIGKILL)
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
