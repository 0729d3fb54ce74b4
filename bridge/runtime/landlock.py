"""Landlock rules of the zygote, inherited by every worker: what may be written, read and connected to; child side.

Landlock only knows what is allowed. So denying a folder means allowing every neighbour of each folder on
the way to it, and denying a port means allowing all others. Both are done once, in the zygote: a domain is
shared with forked children at no cost, while a rule set of their own would copy 65,000 rules a worker.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from bridge.runtime import syscalls

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


def restrict(*, denied: Iterable[str], writable: Iterable[str], files: bool, denied_ports: Iterable[int]) -> list[str]:
    """Restrict this process for ever; return what is in force, in words.

    Args:
        denied: paths that may not be read (only with `files`).
        writable: folders that may be written (only with `files`).
        files: False where mounts already do this (a Landlock domain over files forbids mounting).
        denied_ports: TCP ports of this machine that may not be connected to.

    Raises:
        OSError: the kernel has no Landlock, or refuses; nothing was restricted.
    """
    abi = syscalls.landlock_abi()
    if not abi:
        raise OSError("the kernel has no Landlock")
    done: list[str] = []
    ports = frozenset(denied_ports) if abi >= 4 else frozenset()
    change = _change_rights(abi)
    if not files and not ports:
        return done
    ruleset = syscalls.landlock_create(
        filesystem=change | _READ_FILE if files else 0, network=_CONNECT_TCP if ports else 0
    )
    try:
        if files:
            for path in neighbours(denied):
                _allow(ruleset, path, _READ_FILE)
            for path in (*writable, "/dev", "/proc"):
                _allow(ruleset, path, change | _READ_FILE)
            done.append("state and key files unreadable, only the scratch folders writable")
        if ports:
            syscalls.landlock_allow_ports(ruleset, ports, _CONNECT_TCP)
            done.append(f"no connection to port {', '.join(map(str, sorted(ports)))}")
        syscalls.no_new_privileges()
        syscalls.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)
    return done


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        if not os.path.isdir(path):
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE | _EXECUTE
        syscalls.landlock_allow_path(ruleset, path, rights)
    except OSError:
        return  # gone meanwhile, or not ours to open: then it is not allowed either
