"""Which network a worker-to-be has: one that the daemon made, none at all, or the machine's; child side."""

import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from bridge.runtime import syscalls

MACHINE: Final = ""
"""It stays in the network of the zygote."""
ALONE: Final = "alone"
"""A new namespace in which there is its own loopback interface and nothing else."""
SHARED: Final = "shared"
"""The namespace whose descriptor came with the request, behind the other ones."""
_GET_FLAGS: Final = 0x8913
_SET_FLAGS: Final = 0x8914
_UP: Final = 1
_REQUEST: Final = struct.Struct("=16sh14x")
"""struct ifreq with flags."""


def enter(kind: str, descriptors: Sequence[int]) -> None:
    """Go where the request says, for ever: called before capabilities are dropped, in a process of one thread.

    Args:
        kind: MACHINE, ALONE or SHARED.
        descriptors: what came beside the worker's own ones.

    Raises:
        OSError: it cannot be had; the worker must not begin.
    """
    if kind == ALONE:
        be_alone()
    elif kind == SHARED:
        syscalls.setns(descriptors[0], syscalls.CLONE_NEWNET)
    for descriptor in descriptors:
        os.close(descriptor)


def be_alone() -> str:
    """Leave every network but a new one with a loopback interface of its own. Raises OSError: not allowed here."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        answer = fcntl.ioctl(control, _GET_FLAGS, _REQUEST.pack(b"lo", 0))
        _, flags = _REQUEST.unpack(answer)
        fcntl.ioctl(control, _SET_FLAGS, _REQUEST.pack(b"lo", flags | _UP))
    return 'for network = "none": no interface but its own loopback'
