"""The system calls that no function needs, refused with EPERM by a seccomp filter; child side."""

import errno
import platform
import struct
from typing import Final

from bridge.runtime import syscalls

_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_OFFSET_NUMBER: Final = 0
_OFFSET_ARCHITECTURE: Final = 4
_OFFSET_ARGUMENT_0: Final = 16
_X32_BIT: Final = 0x40000000
_NAMESPACE_FLAGS: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_CLONE3: Final = 435

# Same number everywhere: io_uring, the new mount calls, pidfd_getfd. Landlock itself stays allowed.
_COMMON: Final = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 467)
_ARCHITECTURES: Final = {
    # audit number, clone, denied: ptrace, process_vm_*, kexec*, mount*, pivot_root, swap*, reboot, sethostname,
    # setdomainname, *_module, quotactl, acct, settimeofday, clock_settime/adjtime, adjtimex, keys, unshare, setns,
    # open_by_handle_at, perf_event_open, bpf, userfaultfd, iopl, ioperm, syslog, vhangup, chroot, kcmp, lookup_dcookie
    "x86_64": (
        0xC000003E, 56,
        (101, 310, 311, 246, 320, 165, 166, 155, 167, 168, 169, 170, 171, 175, 176, 313, 179, 163, 164, 227, 305, 159,
         248, 249, 250, 272, 308, 304, 298, 321, 323, 172, 173, 103, 153, 161, 312, 212),
    ),
    "aarch64": (
        0xC00000B7, 220,
        (117, 270, 271, 104, 294, 40, 39, 41, 224, 225, 142, 161, 162, 105, 106, 273, 60, 89, 170, 112, 266, 171,
         217, 218, 219, 97, 268, 265, 241, 280, 282, 116, 58, 51, 272, 18),
    ),
}  # fmt: skip


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def program(machine: str) -> bytes:
    """Return the filter for an architecture.

    Raises:
        OSError: the architecture's numbers are not known here.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(f"no system call table for {machine}")
    architecture, clone, denied = _ARCHITECTURES[machine]
    refuse = _instruction(_RETURN, 0, 0, _ERRNO | errno.EPERM)
    lines = [
        _instruction(_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        _instruction(_EQUAL, 1, 0, architecture),
        refuse,
        _instruction(_LOAD, 0, 0, _OFFSET_NUMBER),
        _instruction(_AT_LEAST, 0, 1, _X32_BIT),
        refuse,
    ]
    for number in (*denied, *_COMMON):
        lines += [_instruction(_EQUAL, 0, 1, number), refuse]
    lines += [
        # clone3 keeps its flags in memory, which a filter cannot read: libc falls back to clone on ENOSYS.
        _instruction(_EQUAL, 0, 1, _CLONE3),
        _instruction(_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        _instruction(_EQUAL, 0, 3, clone),
        _instruction(_LOAD, 0, 0, _OFFSET_ARGUMENT_0),
        _instruction(_ANY_BIT, 0, 1, _NAMESPACE_FLAGS),
        refuse,
        _instruction(_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(lines)


def install() -> None:
    """Refuse the calls for this process and its children; needs no_new_privileges."""
    syscalls.install_filter(_PROGRAM or program(platform.machine()))


_PROGRAM: Final = program(platform.machine()) if platform.machine() in _ARCHITECTURES else b""
