"""Landlock rules of the zygote, inherited by every worker: what may be written, read and connected to; child side.

Landlock only knows what is allowed. So denying a folder means allowing every neighbour of each folder on
the way to it, and denying a port means allowing all others. Both are done once, in the zygote: a domain is
shared with forked children at no cost, while a rule set of their own would copy 65,000 rules a worker.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from bridge.runtime import syscalls

NOTHING_LEFT: Final = "nothing left to deny: mounts do it"
"""Why it is not in force where that is as it should be."""
_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_REMOVE_DIR: Final = 1 << 4
_REMOVE_FILE: Final = 1 << 5
_MAKE_ALL: Final = 0x1FC0  # char, dir, regular, socket, fifo, block, symbolic link
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_CONNECT_TCP: Final = 1 << 1


def _change_rights(abi: int) -> int:
    rights = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_ALL
    if abi >= 2:
        rights |= _REFER
    if abi >= 3:
        rights |= _TRUNCATE
    return rights


def neighbours(denied: Iterable[str]) -> Iterator[str]:
    """Yield paths that together cover the file system except what is at or below the denied ones."""
    paths = {os.path.realpath(path) for path in denied}
    pending = ["/"]
    while pending:
        folder = pending.pop()
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(folder, entry)
            if path in paths or os.path.islink(path):
                continue
            if any(other.startswith(path + "/") for other in paths):
                pending.append(path)
            else:
                yield path


def allow_other_ports(denied: Collection[int]) -> int:
    """Return the descriptor of a ruleset that denies connections to these ports; nothing is restricted yet.

    It takes a fifth of a second, so it may be made ahead of `restrict`. Raises OSError: the kernel refuses.
    """
    ruleset = syscalls.landlock_create(filesystem=0, network=_CONNECT_TCP)
    try:
        syscalls.landlock_allow_ports(ruleset, frozenset(denied), _CONNECT_TCP)
    except OSError:
        os.close(ruleset)
        raise
    return ruleset


def knows_ports() -> bool:
    """Tell whether the kernel's Landlock can deny connections (Linux 6.7)."""
    return syscalls.landlock_abi() >= 4


def restrict(
    *,
    denied: Iterable[str],
    writable: Iterable[str],
    readable: Iterable[str] = (),
    files: bool,
    denied_ports: Collection[int],
    ports_ruleset: int | None = None,
) -> list[str]:
    """Restrict this process for ever; return what is in force, in words.

    Args:
        denied: paths that may not be read (only with `files`).
        writable: folders that may be written (only with `files`).
        readable: folders within the denied ones that may be read all the same (only with `files`).
        files: False where mounts already do this (a Landlock domain over files forbids mounting).
        denied_ports: TCP ports of this machine that may not be connected to.
        ports_ruleset: what `allow_other_ports` returned for the same ports; closed here.

    Raises:
        OSError: the kernel has no Landlock, or refuses; nothing was restricted.
    """
    abi = syscalls.landlock_abi()
    if not abi:
        raise OSError("the kernel has no Landlock")
    done: list[str] = []
    rulesets = [] if ports_ruleset is None else [ports_ruleset]
    try:
        if files:
            ruleset = syscalls.landlock_create(filesystem=_change_rights(abi) | _READ_FILE, network=0)
            rulesets.append(ruleset)
            _allow_files(ruleset, denied=denied, writable=writable, change=_change_rights(abi))
            for path in readable:
                _allow(ruleset, path, _READ_FILE)
            done.append("state and key files unreadable, only the scratch folders writable")
        if denied_ports and abi >= 4:
            if ports_ruleset is None:
                rulesets.append(allow_other_ports(denied_ports))
            done.append(f"no connection to port {', '.join(map(str, sorted(denied_ports)))}")
        if rulesets:
            syscalls.no_new_privileges()
        for ruleset in rulesets:
            syscalls.landlock_restrict(ruleset)
    finally:
        for ruleset in rulesets:
            os.close(ruleset)
    return done


def _allow_files(ruleset: int, *, denied: Iterable[str], writable: Iterable[str], change: int) -> None:
    for path in neighbours(denied):
        _allow(ruleset, path, _READ_FILE)
    for path in (*writable, "/dev", "/proc"):
        _allow(ruleset, path, change | _READ_FILE)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        if not os.path.isdir(path):
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE | _EXECUTE
        syscalls.landlock_allow_path(ruleset, path, rights)
    except OSError:
        return  # gone meanwhile, or not ours to open: then it is not allowed either
