"""Control groups of workers: one each, with its most memory and tasks, ended and removed as a whole; child side.

All goes by descriptors of folders that the daemon has made (see cgroup_home.py): they stay writable where the zygote
and its workers see a read-only /sys. Version 1 has a folder for each controller, version 2 one for both.
"""

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Final

CONTROLLERS: Final = ("memory", "pids")
EXTRA_MB: Final = 64
"""Beyond a function's memory and its /tmp: kernel memory counts too (stacks, page tables, sockets), and the server of
the Runtime API. The daemon ends a worker at its memory (see watch.py); this is for what grows faster than it looks."""
NOT_THERE: Final = "needs a mount namespace, or a worker could leave its group"


class Cgroups:
    """The groups below the daemon's own.

    Args:
        folders: descriptors, one for each of CONTROLLERS (version 1), or one for both (version 2).
    """

    def __init__(self, folders: Sequence[int]) -> None:
        self._folders = tuple(folders)
        self.version = 2 if len(folders) == 1 else 1
        self._memory, self._pids = folders[0], folders[-1]

    def make(self, name: str) -> None:
        """Make a group without limits; where that fails half-way, `remove` removes what was made."""
        for folder in self._folders:
            os.mkdir(name, 0o755, dir_fd=folder)

    def limit(self, name: str, *, memory_mb: int, tasks: int) -> None:
        """Bound what a group holds: memory with page cache and tmpfs, none of it swapped out; processes and threads."""
        size = str(memory_mb << 20)
        if self.version == 1:
            self._write(self._memory, f"{name}/memory.limit_in_bytes", size)
            extras = {"memory.memsw.limit_in_bytes": size}
        else:
            self._write(self._memory, f"{name}/memory.max", size)
            extras = {"memory.swap.max": "0", "memory.oom.group": "1"}
        for file, value in extras.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap accounting
                self._write(self._memory, f"{name}/{file}", value)
        self._write(self._pids, f"{name}/pids.max", str(tasks))

    def enter(self, name: str, pid: int) -> None:
        """Put a process into a group; what it forks is in it too. Takes milliseconds, which the kernel waits."""
        for folder in self._folders:
            self._write(folder, f"{name}/cgroup.procs", str(pid))

    def kill(self, name: str) -> bool:
        """Kill all that is in a group, once; True when there was nothing. No fork in it succeeds from now on."""
        with contextlib.suppress(OSError):
            self._write(self._pids, f"{name}/pids.max", "0")
        members = self.members(name)
        if members and self.version == 2:
            with contextlib.suppress(OSError):  # Linux 5.14
                self._write(self._memory, f"{name}/cgroup.kill", "1")
                return False
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return not members

    def members(self, name: str) -> list[int]:
        """Return the processes of a group."""
        found: set[int] = set()
        for folder in self._folders:
            with contextlib.suppress(OSError):
                found.update(map(int, self._read(folder, f"{name}/cgroup.procs").split()))
        return sorted(found - {0})  # 0: of another process-id namespace

    def remove(self, name: str) -> bool:
        """Remove a group; False: something in it still lives. Twice is fine."""
        is_gone = True
        for folder in self._folders:
            try:
                os.rmdir(name, dir_fd=folder)
            except FileNotFoundError:
                continue
            except OSError:
                is_gone = False
        return is_gone

    def remove_home(self, name: str) -> None:
        """Remove the daemon's own folders, of this name, which must be empty: it has ended."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                os.rmdir(f"../{name}", dir_fd=folder)

    def was_short_of_memory(self, name: str) -> bool:
        """Tell whether the kernel has killed in a group because its memory was used up."""
        file = "memory.oom_control" if self.version == 1 else "memory.events"
        with contextlib.suppress(OSError):
            for line in self._read(self._memory, f"{name}/{file}").splitlines():
                word, _, count = line.partition(b" ")
                if word == b"oom_kill":
                    return count.strip() != b"0"
        return False

    @staticmethod
    def _write(folder: int, path: str, text: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    @staticmethod
    def _read(folder: int, path: str) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
        finally:
            os.close(descriptor)


def check_own(name: str) -> str:
    """Return what this process is in, if that is the group `name`, as the kernel tells it.

    Raises:
        OSError: it is in another one.
    """
    with open("/proc/self/cgroup", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    version_1 = {controller: path for _, names, path in lines for controller in names.split(",") if controller}
    unified = next((path for number, names, path in lines if number == "0" and not names), "")
    is_1 = set(CONTROLLERS) <= version_1.keys()
    for path in [version_1[one] for one in CONTROLLERS] if is_1 else [unified]:
        if path.rpartition("/")[2] != name:
            raise OSError(f"a worker is in {path}")
    return f"memory and processes of each worker (version {1 if is_1 else 2})"
