"""Ends a broker with the last test process that uses it, however that process ends."""

import fcntl
import os
import subprocess
from pathlib import Path

ENDPOINTS = "endpoints.json"


def use(folder: Path) -> int:
    """Return a descriptor: while a process holds it open, the guarded process of `folder` lives."""
    lock = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


class Guard:
    """Waits in a process of its own until nobody uses `folder`, then kills the group of `pid` and forgets where it listened."""

    def __init__(self, folder: Path, pid: int) -> None:
        self._lock = use(folder)
        script = 'kill -s KILL -- "-$0"; rm -f "$1"'  # its process group, as it leads one
        self._process = subprocess.Popen(
            ["flock", "--exclusive", "users.lock", "sh", "-c", script, str(pid), ENDPOINTS],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def leave(self) -> None:
        """Use it no longer; the guard goes on for other users, and acts when there are none."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def dismiss(self) -> None:
        """End the guard without what it would do."""
        self._process.kill()
        self._process.wait()
        self.leave()
