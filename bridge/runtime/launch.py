"""Executes the zygote, if need be ahead of whoever will talk to it: it imports what it needs meanwhile."""

import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent

Launched = tuple[subprocess.Popen[bytes], socket.socket]
"""A zygote that waits for its settings, and its control socket; it ends when that closes."""

_ahead: list[Launched] = []


def ahead(*, denied_ports: Sequence[int] = ()) -> None:
    """Execute a zygote that the next `take` gives away: a daemon's start does not wait for it then.

    Call it on the main thread: PDEATHSIG follows threads.

    Args:
        denied_ports: what its settings will name, so that it can get ready for them.
    """
    if not _ahead:
        _ahead.append(_launch(denied_ports))


def take() -> Launched:
    """Return the zygote that waits, or a new one. Call it on the main thread."""
    return _ahead.pop() if _ahead else _launch(())


def drop() -> None:
    """End a zygote that nobody took: the start has failed. Twice is fine."""
    while _ahead:
        process, control = _ahead.pop()
        control.close()
        process.wait()


def _launch(denied_ports: Sequence[int]) -> Launched:
    # Neither we nor the zygote nor what it starts leaves a core file: it would hold what passes through (secrets).
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # Plain subprocess: uvloop's own refuses most options and waits for children with its SIGCHLD handler.
        interpreter = getattr(sys, "_base_executable", sys.executable) or sys.executable
        process = subprocess.Popen(
            [interpreter, "-I", "-S", str(_FOLDER / "zygote.py"), str(theirs.fileno()), *map(str, denied_ports)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={"LANG": "en_US.UTF-8", "LC_CTYPE": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
            cwd="/",
        )
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return process, ours
