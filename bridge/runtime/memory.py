"""How many processes a worker's tree has, and how much memory they hold, as the kernel counts it."""

import os
from collections.abc import Sequence
from typing import Final

from bridge.runtime.spawner import descendants

_PAGE_KB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


def measure(keeper: int, *, processes_max: int) -> tuple[Sequence[int], int]:
    """Return the processes below `keeper` and the sum of their resident memory in KiB; waits for none of them.

    Past `processes_max` nobody counts on: the memory is 0 then. Pages that forked processes share are counted
    once for each of them: only `exact_kb` knows better.
    """
    tree = descendants(keeper, most=processes_max)
    if len(tree) > processes_max:
        return tree, 0
    return tree, sum(_resident(pid) for pid in tree)


def exact_kb(tree: Sequence[int]) -> int:
    """Return the memory in KiB that processes hold together, shared pages counted once; not for the loop's thread.

    The kernel locks each one's address space for it. One that is forking keeps that lock while it waits for a
    processor: for seconds, where hundreds spin at a lower priority than ours.
    """
    return sum(_proportional(pid) for pid in tree)


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
