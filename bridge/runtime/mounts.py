"""The worker's view of the file system: /var/task, a /tmp of its own, the rest read-only; child side.

The zygote enters a mount namespace of its own and prepares what all workers share; each worker then gets a
copy with its own code and scratch space. The host's mounts are never touched.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bridge.runtime import syscalls

TASK_ROOT: Final = "/var/task"
RUNTIME_FOLDER: Final = "/var/runtime"
"""Where AWS keeps its own runtime and boto3; here the packages that come with the bridge."""
SCRATCH: Final = "/tmp"  # noqa: S108 - the worker's own
OPT: Final = "/opt"
"""Where a function finds its layers."""


def enter_user_namespace() -> None:
    """As a normal user: become root of a new user namespace that owns new mount and process-id namespaces.

    The process-id namespace is that of future children: fork, and go on in the child.

    Raises:
        OSError: not allowed here.
    """
    user, group = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def enter(*, in_user_namespace: bool) -> None:
    """Enter a new mount namespace whose changes nobody else sees.

    Raises:
        OSError: not allowed here.
    """
    if not in_user_namespace:
        syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    if in_user_namespace:
        mount_proc()


def mount_proc() -> None:
    """Show the processes of this process-id namespace."""
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)


def prepare(*, scratch: str, packages: str | None, needed: Sequence[str], open_ways: bool) -> dict[str, str]:
    """Make /var/task a mount point, open closed folders on the way to `needed`, and all else read-only.

    Args:
        scratch: empty folder below which scratch spaces are mounted later.
        packages: folder that becomes /var/runtime.
        needed: paths that workers under another user id must reach (interpreter).
        open_ways: workers run under another user id, so 0700 folders on the way would stop them.

    Returns:
        The closed folders that were covered, and where what lies below each cover is still to be found.
    """
    covered: dict[str, str] = {}
    missing = [os.path.basename(path) for path in (TASK_ROOT, RUNTIME_FOLDER) if not os.path.isdir(path)]
    if missing:
        _skeleton(os.path.dirname(TASK_ROOT), extra=missing)
    if packages is not None:
        syscalls.mount(packages, RUNTIME_FOLDER, "", syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.mount(
        "tmpfs", scratch, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0711,size=64k,nr_inodes=8192"
    )
    os.mkdir(os.path.join(scratch, "empty"), 0o555)
    ways = os.path.join(scratch, "ways")
    os.mkdir(ways, 0o700)
    if open_ways:
        for closed in sorted({folder for path in needed if (folder := first_closed(path))}):
            covered[closed] = os.path.join(ways, str(len(covered)))
            os.mkdir(covered[closed], 0o700)
            syscalls.mount(closed, covered[closed], "", syscalls.MS_BIND | syscalls.MS_REC)
            _open_way(closed, [path for path in (*needed, scratch) if path.startswith(closed + "/")])
    syscalls.set_readonly("/")
    syscalls.mount("", scratch, "", syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_NOSUID | syscalls.MS_NODEV)
    # Workers follow what the zygote unmounts, or a scratch space would live as long as the oldest worker.
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SHARED)
    return covered


def can_cover_opt(needed: Sequence[str]) -> bool:
    """Tell whether workers may be shown another /opt: there is one, and nothing of `needed` is below it."""
    below = any(os.path.realpath(path).startswith(OPT + "/") for path in needed)
    return os.path.isdir(OPT) and not os.path.islink(OPT) and not below


def first_closed(path: str) -> str | None:
    """Return the first folder on the way to `path` that other users may not enter; None when the way is open."""
    folder = ""
    for part in os.path.realpath(path).strip("/").split("/")[:-1]:
        folder += "/" + part
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return folder
    return None


def _open_way(folder: str, needed: Sequence[str]) -> None:
    """Cover a closed folder with an empty one that holds only the needed paths."""
    _cover(folder, _handles([os.path.realpath(path) for path in needed]))


def _handles(paths: Iterable[str], *, ways: Mapping[str, str] | None = None) -> dict[str, int]:
    """Open paths, those that are covered by what `prepare` returned."""
    sources = {path: path if os.path.lexists(path) else _way(path, ways or {}) for path in paths}
    return {path: os.open(source, os.O_PATH | os.O_CLOEXEC) for path, source in sources.items()}


def _cover(folder: str, handles: Mapping[str, int]) -> None:
    syscalls.mount("tmpfs", folder, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755,size=64k")
    for path, handle in handles.items():
        if os.path.lexists(path):
            continue  # below another needed path
        _bind_handle(handle, path)
    for handle in handles.values():
        os.close(handle)


def _skeleton(folder: str, *, extra: Sequence[str]) -> None:
    """Cover `folder` with an empty one that holds what it held, and the extra folders."""
    handle = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    entries = os.listdir(folder)
    children = {name: os.open(os.path.join(folder, name), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) for name in entries}
    links = {
        name: os.readlink(name, dir_fd=handle) for name in entries if stat.S_ISLNK(os.fstat(children[name]).st_mode)
    }
    syscalls.mount("tmpfs", folder, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755,size=64k")
    for name, child in children.items():
        path = os.path.join(folder, name)
        if name in links:
            os.symlink(links[name], path)
        else:
            _bind_handle(child, path)
        os.close(child)
    for name in extra:
        os.mkdir(os.path.join(folder, name), 0o755)
    os.close(handle)


def _bind_handle(handle: int, path: str) -> None:
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        os.makedirs(path, mode=0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    syscalls.mount(f"/proc/self/fd/{handle}", path, "", syscalls.MS_BIND | syscalls.MS_REC)


def make_scratch(path: str, *, size_mb: int, user: int, group: int) -> None:
    """Mount an empty scratch space at `path`; called in the zygote."""
    os.mkdir(path, 0o700)
    options = f"mode=0700,size={size_mb}m,uid={user},gid={group}"
    syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)


def drop_scratch(path: str) -> None:
    """Unmount a scratch space; its content is gone. Twice is fine."""
    if os.path.isdir(path):
        syscalls.unmount(path)
        os.rmdir(path)


def enter_worker() -> None:
    """Leave the zygote's mounts for a copy that follows what the zygote mounts and unmounts; called in a keeper."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)


def furnish_worker(
    *, code: str, opt: str, scratch: str, needs: Sequence[str], needed: Sequence[str], hidden: Iterable[str],
    ways: Mapping[str, str], new_proc: bool,
) -> None:  # fmt: skip
    """Give the worker-to-be its own view; called in its keeper, before the worker's user id changes.

    Args:
        code: folder that becomes /var/task, read-only.
        opt: folder that becomes /opt, read-only; empty: /opt stays what it is.
        scratch: the mounted scratch space that becomes /tmp.
        needs: folders of this function's interpreter; the way to them is opened for this worker alone.
        needed: what `prepare` was given, and the folder of scratch spaces.
        hidden: folders and files that look empty from now on.
        ways: what `prepare` returned.
        new_proc: in a new process-id namespace, whose /proc is another.
    """
    bind = syscalls.MS_BIND | syscalls.MS_REC  # in a user namespace, what is mounted below comes along or nothing
    # All sources are opened first: any of them may be below what one of the others covers.
    sources = [_way(opt, ways)] if opt else []
    handles = [
        os.open(path, os.O_PATH | os.O_CLOEXEC)
        for path in (os.path.join(os.path.dirname(scratch), "empty"), scratch, *sources)
    ]
    covers = _covers(needs, needed=needed, ways=ways)
    empty, *shown = [f"/proc/self/fd/{handle}" for handle in handles]
    syscalls.mount(_way(code, ways), TASK_ROOT, "", bind)  # read-only, as all that `prepare` left
    for source, target in zip(shown, (SCRATCH, OPT), strict=False):
        syscalls.mount(source, target, "", bind)
    for cover, held in covers.items():
        _cover(cover, held)
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("", cover, "", flags)
    for path in hidden:
        if os.path.isdir(path):
            syscalls.mount(empty, path, "", bind)
        elif os.path.exists(path):
            syscalls.mount("/dev/null", path, "", bind)
    for handle in handles:
        os.close(handle)
    if new_proc:
        mount_proc()


def _covers(needs: Sequence[str], *, needed: Sequence[str], ways: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return closed folders on the way to `needs`, with what is to be seen in each: opened, by its path.

    Raises:
        OSError: a folder is not there, or is closed itself.
    """
    hidden: dict[str, list[str]] = {}
    for path in needs:
        cover = next((folder for folder in ways if path.startswith(folder + "/") and not os.path.isdir(path)), None)
        if cover is None:
            cover = first_closed(path + "/x")
        if not os.stat(path if cover is None else _way(path, ways)).st_mode & stat.S_IXOTH:
            raise OSError(f"{path} is closed to other users: chmod o+rx it, and what is in it")
        if cover is not None:
            hidden.setdefault(cover, []).append(path)
    return {
        cover: _handles(dict.fromkeys((*(path for path in needed if path.startswith(cover + "/")), *paths)), ways=ways)
        for cover, paths in hidden.items()
    }


def cover_resolver(path: str) -> None:
    """Show another file in the place of /etc/resolv.conf; called in a keeper."""
    syscalls.mount(path, os.path.realpath("/etc/resolv.conf"), "", syscalls.MS_BIND)


def _way(path: str, ways: Mapping[str, str]) -> str:
    """Return where a path is found once the closed folders on the way to others are covered."""
    for folder, way in ways.items():
        if path.startswith(folder + "/"):
            return way + path.removeprefix(folder)
    return path
