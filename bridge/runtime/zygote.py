"""The process that workers are forked from: small, single-threaded, standard library only; child side.

Started by path with ``python -I -S zygote.py FD [PORT ...]`` (see launch.py), so that nothing of the daemon is
importable in it.
Requests arrive as JSON datagrams on a seqpacket socket, with the worker's descriptors attached; when the
socket closes, the daemon is gone and everything here ends.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import types
from typing import Any, Final

_FOLDER: Final = os.path.dirname(os.path.abspath(__file__))


def _borrow_package() -> None:
    """Let `from bridge.runtime import …` find the files beside this one, without the package's own code."""
    for name, folder in (("bridge", os.path.dirname(_FOLDER)), ("bridge.runtime", _FOLDER)):
        module = types.ModuleType(name)
        module.__path__ = [folder]
        sys.modules[name] = module


def _return_package() -> None:
    """Forget the borrowed names: a function's own `bridge` module must be importable."""
    for name in [name for name in sys.modules if name == "bridge" or name.startswith("bridge.")]:
        del sys.modules[name]


_borrow_package()
from bridge.runtime import bootstrap, cgroups, keeper, landlock, mounts, sandbox, syscalls  # noqa: E402

_return_package()

_END_S: Final = 2.0
SPARE_AFTER_MS: Final = 5
SPARE_AGAIN_MS: Final = 200
"""When no process was to be had: soon enough for the next worker, seldom enough for a machine that is short of them."""
GROUPS_AGAIN_MS: Final = 20
GROUPS_TRIES_MAX: Final = 500
"""How often a control group is tried to be removed, in which something does not end."""


class Zygote:
    """Forks workers on request and reports their ends."""

    def __init__(
        self,
        control: socket.socket,
        settings: dict[str, Any],
        *,
        refusal: str,
        ports_ruleset: int | None,
        groups: cgroups.Cgroups | None,
    ) -> None:
        self._control = control
        self._groups = groups
        """Control groups, one for each worker."""
        self._is_told_to_end = False
        """The daemon still lives when it closes the socket."""
        self._groups_made = 0
        self._group_of: dict[int, str] = {}
        """By the keeper's process id."""
        self._ended_groups: dict[str, int] = {}
        """Still to be removed, and how often that was tried."""
        self._ports_ruleset = ports_ruleset
        """What was made ahead for the denied ports."""
        self._refusal = refusal
        """Why there is no user namespace, where one is needed."""
        self._settings = settings
        self._keepers: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._mounts = False
        self._process_namespaces = False
        self._own_users = False
        self._files_denied = False
        """Landlock keeps the denied paths from every worker."""
        self._ways: dict[str, str] = {}
        self._spare: tuple[int, socket.socket] | None = None
        self._facts: list[sandbox.Fact] = []

    def open(self) -> None:
        """Confine this process and tell the daemon what it got."""
        settings = self._settings
        full = settings["sandbox"] != "basic"
        root = os.geteuid() == 0
        needed = settings["needed"]
        if settings["sandbox"] == "auto":
            self._enter_mounts(root=root, needed=needed)
            if not self._mounts:
                self._groups = None
        else:
            self._groups = None
            detail = f"sandbox = {settings['sandbox']}"
            self._facts.append(sandbox.Fact(mechanism="mount namespace", in_force=False, detail=detail))
        packages = [] if settings["packages"] is None else [settings["packages"]]
        reachable = self._mounts or not any(mounts.first_closed(path) for path in (*needed, *packages))
        self._own_users = root and reachable
        scratch = settings["scratch"]
        if self._own_users and not self._mounts and mounts.first_closed(scratch):
            # Other users cannot get into the daemon's own folder.
            scratch = f"/tmp/bridge-{os.urandom(8).hex()}"  # noqa: S108 - made by mkdir, or it fails
            os.mkdir(scratch, 0o711)
            os.chmod(scratch, 0o711)  # noqa: S103 - to pass through, whatever the umask
        syscalls.become_subreaper()
        if full:
            self._process_namespaces = self._try_process_namespace()
            self._restrict(scratch)
        syscalls.set_dumpable(dumpable=False)
        self._tell(
            {
                "op": "hello",
                "scratch": scratch,
                "mounts": self._mounts,
                "process_namespaces": self._process_namespaces,
                "own_users": self._own_users,
                "opt": self._mounts and mounts.can_cover_opt([*needed, *packages]),
                "facts": [fact.as_list() for fact in self._facts],
            }
        )

    def _enter_mounts(self, *, root: bool, needed: list[str]) -> None:
        def enter() -> str:
            if self._refusal:
                raise OSError(self._refusal)
            mounts.enter(in_user_namespace=not root)
            self._ways = mounts.prepare(
                scratch=self._settings["scratch"],
                packages=self._settings["packages"],
                needed=needed,
                open_ways=root,
            )
            self._mounts = True
            return "read-only code at /var/task, a /tmp of its own, the rest read-only, state hidden"

        self._facts.append(sandbox.attempt("mount namespace", enter))

    def _try_process_namespace(self) -> bool:
        def unshare() -> None:
            self._own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            syscalls.unshare(syscalls.CLONE_NEWPID)
            syscalls.setns(self._own_namespace, syscalls.CLONE_NEWPID)

        if not self._mounts:  # a new /proc needs one
            fact = sandbox.Fact(mechanism="process namespace", in_force=False, detail="needs a mount namespace")
        else:
            fact = sandbox.attempt("process namespace", unshare)
        self._facts.append(fact)
        return fact.in_force

    def _restrict(self, scratch: str) -> None:
        def restrict() -> str:
            done = landlock.restrict(
                denied=self._settings["denied"],
                writable=[scratch],
                readable=[self._settings["code_store"]] if self._settings.get("code_store") else [],
                files=not self._mounts,
                denied_ports=self._settings["denied_ports"],
                ports_ruleset=self._ports_ruleset,
            )
            if not done:
                raise OSError(landlock.NOTHING_LEFT)
            self._files_denied = not self._mounts
            return "; ".join(done)

        self._facts.append(sandbox.attempt("landlock", restrict))

    def _tell(self, report: dict[str, Any]) -> None:
        self._control.send(json.dumps(report).encode())

    def serve(self) -> None:
        """Answer requests until the daemon closes the socket; then end all workers."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(wake_read, select.POLLIN)
        spare_ms = SPARE_AFTER_MS
        while True:
            # The next worker is forked in a quiet moment, not when it is waited for.
            pause_ms = spare_ms if self._spare is None else GROUPS_AGAIN_MS if self._ended_groups else None
            ready = poller.poll(pause_ms)
            spare_ms = SPARE_AFTER_MS
            if not ready and self._spare is None:
                try:
                    self._spare = self._fork_keeper()
                except OSError:  # no process or group to be had just now; who asks for a worker is told
                    spare_ms = SPARE_AGAIN_MS
            for descriptor, _ in ready:
                if descriptor == wake_read:
                    os.read(wake_read, 4096)
                elif not self._handle():
                    return
            self._reap()
            self._remove_groups()

    def _handle(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 20, keeper.DESCRIPTORS_MAX)
        if not data:
            return False
        request = json.loads(data)
        try:
            if request["op"] == "start":
                self._start(request, descriptors)
            elif request["op"] == "kill":
                self._kill(request["id"])
            elif request["op"] == "end":
                self._is_told_to_end = True
            elif request["op"] == "drop_scratch" and self._mounts:
                mounts.drop_scratch(request["scratch"])
        except OSError as error:
            self._tell({"op": "failed", "id": request.get("id", 0), "error": str(error)})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _start(self, request: dict[str, Any], descriptors: list[int]) -> None:
        user = request["user"] if self._own_users else None
        closed = "" if user is None or self._mounts else self._closed([request["code"], *request["needs"]])
        if closed:
            if not self._files_denied:
                raise OSError(f"the way to {closed} is closed to user id {user}: chmod o+x its folders")
            user = None  # it could not read its own code as another user; Landlock keeps the state from it
        scratch = request["scratch"]
        if not os.path.isdir(scratch):
            if self._mounts:
                owner = os.getuid() if user is None else user
                mounts.make_scratch(scratch, size_mb=request["scratch_mb"], user=owner, group=owner)
            else:
                os.mkdir(scratch, 0o700)
                if user is not None:
                    os.chown(scratch, user, user)
        request |= {
            "user": user,
            "mounts": self._mounts,
            "process_namespace": self._process_namespaces,
            "hidden": self._settings["denied"],
            "ways": self._ways,
            "needed": [*self._settings["needed"], self._settings["scratch"]] if request["needs"] else [],
            "filtered": self._settings["sandbox"] != "basic",
        }
        pid, channel = self._spare or self._fork_keeper()
        self._spare = None
        self._keepers[request["id"]] = pid
        self._ids[pid] = request["id"]
        with channel:
            if self._groups is not None:
                memory_mb = request["memory_mb"] + request["scratch_mb"] + cgroups.EXTRA_MB
                self._groups.limit(self._group_of[pid], memory_mb=memory_mb, tasks=sandbox.PROCESSES_MAX)
            socket.send_fds(channel, [json.dumps(request).encode()], descriptors)

    @staticmethod
    def _closed(folders: list[str]) -> str:
        return next((folder for folder in folders if mounts.first_closed(folder + "/x")), "")

    def _fork_keeper(self) -> tuple[int, socket.socket]:
        """Fork a keeper with its worker-to-be; return its process id and the channel for its request.

        Raises:
            OSError: no process, descriptor or group to be had; what was made of the group is to be removed.
        """
        self._groups_made += 1
        group = str(self._groups_made)
        try:
            if self._groups is not None:
                self._groups.make(group)
            pid, ours = self._fork_into(group)
        except OSError:
            if self._groups is not None:
                self._ended_groups[group] = 0
            raise
        self._group_of[pid] = group
        return pid, ours

    def _fork_into(self, group: str) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if self._process_namespaces:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                ours.close()
                keeper.run(
                    theirs,
                    control=self._control,
                    mounted=self._mounts,
                    process_namespace=self._process_namespaces,
                    serve=bootstrap.serve,
                    groups=self._groups,
                    group=group,
                )
        finally:
            if self._process_namespaces:
                syscalls.setns(self._own_namespace, syscalls.CLONE_NEWPID)
        theirs.close()
        return pid, ours

    def _remove_groups(self) -> None:
        """Remove the groups of workers that have ended; what is in one still is on its way out."""
        if self._groups is not None:
            for name, tries in list(self._ended_groups.items()):
                if (self._groups.kill(name) and self._groups.remove(name)) or tries == GROUPS_TRIES_MAX:
                    del self._ended_groups[name]  # what does not end is left to the next daemon
                else:
                    self._ended_groups[name] = tries + 1

    def _kill(self, worker_id: int) -> None:
        pid = self._keepers.get(worker_id)
        if pid is not None:
            if self._groups is not None:
                self._groups.kill(self._group_of[pid])
            os.kill(pid, signal.SIGKILL if self._process_namespaces else signal.SIGTERM)

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self._spare is not None and pid == self._spare[0]:
                self._spare[1].close()
                self._spare = None
            if (group := self._group_of.pop(pid, None)) is not None and self._groups is not None:
                self._ended_groups[group] = 0
            worker_id = self._ids.pop(pid, None)
            if worker_id is not None:
                del self._keepers[worker_id]
                if not self._process_namespaces:
                    self._kill_strays()
                self._tell({"op": "gone", "id": worker_id})

    def _kill_strays(self) -> None:
        """Kill what came back to us because its keeper was killed."""
        for pid in keeper.children():
            if pid not in self._ids and (self._spare is None or pid != self._spare[0]):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """End every worker with its tree; the daemon is gone."""

        def give_up(_signal: int, _frame: object) -> None:
            keeper.kill_children()
            self._remove_groups()
            os._exit(0)

        self._ended_groups |= dict.fromkeys(self._group_of.values(), 0)

        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, _END_S)
        if self._spare is not None:
            self._spare[1].close()
        for worker_id in list(self._keepers):
            self._kill(worker_id)
        while self._keepers:
            pid, _ = os.wait()
            ended = self._ids.pop(pid, None)
            if ended is not None:
                del self._keepers[ended]
        if not self._process_namespaces:
            keeper.kill_children()
        while self._groups is not None and self._ended_groups:
            self._remove_groups()
            select.select((), (), (), 0.002)
        if self._groups is not None and not self._is_told_to_end:
            self._groups.remove_home(self._settings["group_home"])


def _enter_user_namespace(control: socket.socket) -> str:
    """Go on in a child inside new namespaces, of which this process only waits for the end; or say why not."""
    try:
        mounts.enter_user_namespace()
    except OSError as error:
        return f"no user namespace: {error}"
    inner = os.fork()
    if inner:
        control.close()
        os.waitpid(inner, 0)
        os._exit(0)
    syscalls.die_with_parent(signal.SIGKILL)
    return ""


def _ports_ruleset(ports: list[int]) -> int | None:
    """Make what takes longest while the daemon is still being imported; None: later, if at all."""
    if not ports or not landlock.knows_ports():
        return None
    try:
        return landlock.allow_other_ports(ports)
    except OSError:
        return None  # the attempt that counts says why


def main() -> None:
    """Read the settings, confine, serve, end."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    ports = [int(port) for port in sys.argv[2:]]
    ruleset = _ports_ruleset(ports)
    data, folders, _, _ = socket.recv_fds(control, 1 << 20, len(cgroups.CONTROLLERS))
    if not data:
        return  # the daemon ended before it had a use for us
    settings = json.loads(data)
    if ruleset is not None and (settings["denied_ports"] != ports or settings["sandbox"] == "basic"):
        os.close(ruleset)
        ruleset = None
    refusal = ""
    if settings["sandbox"] == "auto" and os.geteuid() != 0:
        refusal = _enter_user_namespace(control)
    groups = cgroups.Cgroups(folders) if folders else None
    zygote = Zygote(control, settings, refusal=refusal, ports_ruleset=ruleset, groups=groups)
    # The names of this script are no business of functions; the objects live on through `zygote`.
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    os.environ.clear()
    zygote.open()
    gc.collect()
    gc.freeze()
    try:
        zygote.serve()
    except OSError:
        pass  # the daemon went while we were telling it something
    finally:
        zygote.end()


if __name__ == "__main__":
    main()
