"""How much memory a worker's process tree holds, as the kernel counts it."""

import os
from typing import Final

from bridge.runtime.spawner import descendants

_PAGE_KB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


def resident_kb(keeper: int, *, limit_kb: int) -> int:
    """Return the resident memory in KiB of everything below `keeper`.

    Resident sizes count pages that forked processes share once for each of them; so only when their sum is
    over `limit_kb` is the exact, slower figure (proportional set size) taken.
    """
    tree = descendants(keeper)
    total = sum(_resident(pid) for pid in tree)
    if total > limit_kb and len(tree) > 1:
        return sum(_proportional(pid) for pid in tree)
    return total


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - ten times a second for each busy worker
            return int(file.read().split()[1]) * _PAGE_KB
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1])
    except OSError:
        return _resident(pid)
    return 0
