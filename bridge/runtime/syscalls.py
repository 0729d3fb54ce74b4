"""Linux calls that the standard library has no name for; child side, standard library only."""

import ctypes
import os
import platform
import struct
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2

# Numbers from 424 on are the same on every architecture.
_SYS_MOUNT_SETATTR: Final = 442
_SYS_LANDLOCK_CREATE: Final = 444
_SYS_LANDLOCK_ADD: Final = 445
_SYS_LANDLOCK_RESTRICT: Final = 446
_SYS_CAPSET: Final = {"x86_64": 126, "aarch64": 91}
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MOUNT_ATTR_RDONLY: Final = 1
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _prctl(option: int, value: int, what: str) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)), what)


def die_with_parent(signal_number: int) -> None:
    """Ask for `signal_number` when the parent ends (cleared by setuid, so call it after)."""
    _prctl(_PR_SET_PDEATHSIG, signal_number, "PR_SET_PDEATHSIG")


def set_dumpable(*, dumpable: bool) -> None:
    """False: no core file, no ptrace and no /proc reading by processes of the same user."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable), "PR_SET_DUMPABLE")


def become_subreaper() -> None:
    """Adopt the orphans among all descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER")


def no_new_privileges() -> None:
    """Give up set-user-id programs and file capabilities for ever."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS")


def drop_capabilities() -> None:
    """Empty the capability sets of this process."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # EINVAL: past the last one, EPERM: not ours to drop; the sets below count
    number = _SYS_CAPSET.get(platform.machine())
    if number is None:
        raise OSError(f"capset: number unknown on {platform.machine()}")
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    _check(_syscall(number, header, data), "capset")


def unshare(flags: int) -> None:
    """Leave the named namespaces for new ones."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespace behind `descriptor`."""
    _check(_libc.setns(descriptor, flags), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount `source` at `target`; see the manual page of the call."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(result, f"mount {target}")


def unmount(target: str) -> None:
    """Detach what is mounted at `target`."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def set_readonly(path: str) -> None:
    """Make the mount at `path` and all below it read-only in this mount namespace (Linux 5.12)."""
    attributes = ctypes.create_string_buffer(struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0), 32)
    result = _syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, path.encode(), _AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes))
    )
    _check(result, f"mount_setattr {path}")


def landlock_abi() -> int:
    """Version of Landlock in the kernel; 0 when there is none or it is switched off."""
    return int(max(0, _syscall(_SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


def landlock_create(*, filesystem: int, network: int) -> int:
    """Return the descriptor of a new ruleset that handles these rights."""
    layout = struct.pack("=QQ", filesystem, network) if network else struct.pack("=Q", filesystem)
    buffer = ctypes.create_string_buffer(layout, len(layout))
    return _check(_syscall(_SYS_LANDLOCK_CREATE, buffer, ctypes.c_size_t(len(layout)), 0), "landlock_create_ruleset")


def landlock_allow_path(ruleset: int, path: str, rights: int) -> None:
    """Allow `rights` on `path` and everything below it."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor), 12)
        _check(_syscall(_SYS_LANDLOCK_ADD, ruleset, 1, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(descriptor)


def landlock_allow_ports(ruleset: int, denied: frozenset[int], right: int) -> None:
    """Allow `right` on every TCP port but the denied ones (Landlock only knows lists of what is allowed)."""
    rule = (ctypes.c_uint64 * 2)(right, 0)
    reference = ctypes.byref(rule)
    for port in range(65536):
        if port not in denied:
            rule[1] = port
            if _syscall(_SYS_LANDLOCK_ADD, ruleset, 2, reference, 0) < 0:
                _check(-1, f"landlock_add_rule port {port}")


def landlock_restrict(ruleset: int) -> None:
    """Put this process and all its future children under the ruleset; needs no_new_privileges or CAP_SYS_ADMIN."""
    _check(_syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")


def install_filter(program: bytes) -> None:
    """Install a seccomp filter of 8-byte BPF instructions."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    buffer = ctypes.create_string_buffer(header, len(header))
    _check(
        _libc.prctl(
            _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), buffer, ctypes.c_ulong(0), ctypes.c_ulong(0)
        ),
        "PR_SET_SECCOMP",
    )
