"""Confinement of one process before it imports user code: each step reported, none claimed that failed; child side."""

import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge.runtime import seccomp, syscalls

ADDRESS_SPACE_EXTRA_MB: Final = 1024 + 64 * (os.cpu_count() or 1)
"""RLIMIT_AS is only a far belt: resident memory is what counts, and libraries reserve far more than they use; OpenBLAS
(numpy) 40 MB for a thread that it starts on each processor."""
OPEN_FILES_MAX: Final = 1024
PROCESSES_MAX: Final = 1024
"""Threads included; `limits.PROCESS_TREE_MAX` is the bound for processes."""
SOCKET_DESCRIPTOR: Final = 1000
"""Where the worker keeps its socket to the daemon: high, so that user code does not trip over it."""
TOKENS_DESCRIPTOR: Final = 1001
NICE: Final = 5
"""By how much workers are nicer than the daemon: a third of its weight, so that a busy machine does not stop them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One mechanism and whether it is in force."""

    mechanism: str
    in_force: bool
    detail: str = ""

    def as_list(self) -> list[object]:
        """Return the fact as JSON values."""
        return [self.mechanism, self.in_force, self.detail]


def attempt(mechanism: str, step: Callable[[], str | None]) -> Fact:
    """Run one step; a refusal by the system becomes a fact, not an error."""
    try:
        detail = step() or ""
    except OSError as error:
        return Fact(mechanism=mechanism, in_force=False, detail=str(error))
    return Fact(mechanism=mechanism, in_force=True, detail=detail)


def set_limits(*, memory_mb: int | None, file_mb: int | None) -> None:
    """Set the resource limits of Lambda (semantics 5.1), hard and soft.

    Without `memory_mb` the address space is not limited: engines and collectors reserve many times what they use.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES_MAX)
    _limit(resource.RLIMIT_NPROC, PROCESSES_MAX)
    if memory_mb is not None:
        _limit(resource.RLIMIT_AS, (memory_mb + ADDRESS_SPACE_EXTRA_MB) << 20)
    if file_mb is not None:
        _limit(resource.RLIMIT_FSIZE, file_mb << 20)


def yield_to_daemon() -> str:
    """Take a lower priority than the daemon and the keeper, for this process and all that it will start."""
    nice = os.nice(NICE)
    # Where the kernel shares the processors out by session first, nice only counts within a session (sched(7)).
    try:
        with open("/proc/self/autogroup", "w", encoding="ascii") as file:
            file.write(str(NICE))
    except OSError:
        return f"nice {nice}"
    return f"nice {nice}, its session too"


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def confine(*, user: int | None, memory_mb: int | None, file_mb: int | None, filtered: bool) -> list[Fact]:
    """Confine this process for ever, in the order in which the steps allow each other.

    Args:
        user: user and group id of the function; None keeps ours.
        memory_mb: the function's memory; None: its address space is not limited.
        file_mb: largest file, where no scratch space of its own bounds it.
        filtered: install the seccomp filter.
    """

    def change_user() -> str:
        if user is None:
            raise OSError("workers run as the daemon's own user")
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        return f"user id {user}"

    def drop() -> None:
        syscalls.drop_capabilities()
        syscalls.no_new_privileges()
        syscalls.die_with_parent(signal.SIGKILL)

    os.umask(0o077)
    facts = [
        attempt("lower priority", yield_to_daemon),
        attempt("limits", lambda: set_limits(memory_mb=memory_mb, file_mb=file_mb)),
        attempt("own user", change_user),
        attempt("no new privileges", drop),
    ]
    # After setuid the process is undumpable, and even its own /proc/self/fd would be closed to it.
    syscalls.set_dumpable(dumpable=True)
    if filtered:
        facts.append(attempt("seccomp", seccomp.install))
    else:
        facts.append(Fact(mechanism="seccomp", in_force=False, detail="sandbox = basic"))
    return facts
